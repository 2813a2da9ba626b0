//! Simulates a store of very many tensors, to measure what finding bases among them takes: memory, time to load the
//! sketches, and time to search, against the time that encoding such a tensor takes.
//!
//!     cargo run --release --example sketch_search -- --dir DIR [--tensors N] [--family N] [--out FILE]
//!
//! The sketches are true ones of tensors that are not there: of families, each a base and fine-tunes that differ from it
//! as those of a typical fine-tune do. They lie in a true store in DIR, which must not exist, and are read by what
//! `zipllm` reads them with.
#![allow(
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a program that prints figures, and looks into tables of its own"
)]

mod support;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use zipllm::codec::{ChunkView, EncodeOptions, Workspace, encode_chunk};
use zipllm::dtype::DType;
use zipllm::hash::Hash;
use zipllm::pairing::Catalog;
use zipllm::sketch::{Places, Sampler, Sketch};
use zipllm::store::index::Record;
use zipllm::store::layout::Layout;
use zipllm::store::{Marker, Store, sealed};

use support::random::Random;

/// Rows, and elements in a row: the smallest that have sketches, small attention and MLP matrices, and those of a large
/// model.
const SHAPES: [(u64, u64); 6] = [
    (256, 128),
    (384, 288),
    (576, 576),
    (1536, 576),
    (4096, 4096),
    (14336, 4096),
];
/// Rows that are marked of each tensor.
const MARKED: u64 = 24;
/// Tensors that are looked for of each shape and kind.
const SEARCHES: u64 = 500;
/// Elements that are encoded to time that.
const ENCODED: usize = 1 << 20;

#[derive(Parser)]
#[command(about = "Measures the search for bases among very many simulated tensors")]
struct Arguments {
    /// The directory of the simulated store; must not exist, and is deleted in the end.
    #[arg(long)]
    dir: PathBuf,
    /// Tensors in the store.
    #[arg(long, default_value_t = 100_000)]
    tensors: u64,
    /// Tensors of a family: a base and its fine-tunes.
    #[arg(long, default_value_t = 25)]
    family: u64,
    /// The JSON file to write.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// What the sketches of a family are made from.
struct Origin {
    shape: (u64, u64),
    places: Places,
    /// Elements at the places, and at the heads of the marked rows.
    elements: Vec<(u64, Vec<f32>)>,
}

impl Origin {
    fn new(family: u64) -> Self {
        let mut random = Random::new(family, "origin");
        let shape = SHAPES[(family % SHAPES.len() as u64) as usize];
        let places = Places::new(shape.0, shape.1);
        let mut elements: Vec<_> = places
            .elements()
            .map(|place| (place, vec![weight(&mut random)]))
            .collect();
        for _ in 0..MARKED {
            let row = random.bits() % shape.0;
            let head = (0..32).map(|_| weight(&mut random)).collect();
            elements.push((row * shape.1, head));
        }
        Self {
            shape,
            places,
            elements,
        }
    }

    /// The sketch of a fine-tune; `seed` 0 is the origin itself.
    fn sketch(&self, name: Hash, seed: u64) -> Sketch {
        let mut random = Random::new(seed, "tuned");
        let sampler = Sampler {
            dtype: DType::Bf16,
            elements: self.shape.0 * self.shape.1,
            row_len: self.shape.1,
            places: &self.places,
        };
        let mut tuned = |value: &f32| match seed {
            0 => *value,
            _ => value + 0.0004 * random.normal(),
        };
        let part = |(place, values): &(u64, Vec<f32>)| {
            let bytes: Vec<u8> = values.iter().flat_map(|value| bf16(tuned(value))).collect();
            sampler.take(*place, &bytes)
        };
        let parts: Vec<_> = self.elements.iter().map(part).collect();
        sampler.join(name, parts)
    }
}

fn weight(random: &mut Random) -> f32 {
    0.05 * random.normal()
}

fn bf16(value: f32) -> [u8; 2] {
    let [_, _, low, high] = value.to_bits().wrapping_add(0x8000).to_le_bytes();
    [low, high]
}

fn name(family: u64, member: u64) -> Hash {
    Hash::of(format!("{family} {member}").as_bytes())
}

/// Writes the store: a marker, the index and the sketches.
fn simulate(arguments: &Arguments) -> Result<()> {
    let layout = Layout::new(&arguments.dir);
    fs::create_dir(&arguments.dir).context("the directory must not exist")?;
    for directory in layout.directories() {
        fs::create_dir(directory)?;
    }
    fs::write(layout.marker(), sealed::to_bytes(&Marker::new())?)?;
    let mut index = BufWriter::new(File::create(layout.object_log())?);
    let mut sketches = BufWriter::new(File::create(layout.sketch_log())?);
    for family in 0..arguments.tensors.div_ceil(arguments.family) {
        let origin = Origin::new(family);
        let members = arguments.tensors - family * arguments.family;
        for member in 0..members.min(arguments.family) {
            let sketch = origin.sketch(name(family, member), member);
            let raw_len = 2 * sketch.elements;
            let record = Record {
                name: sketch.name,
                base: name(family, 0),
                raw_len,
                stored_len: raw_len / 3,
                codec: 4,
                dtype: DType::Bf16,
                depth: u8::from(member > 0),
            };
            index.write_all(&record.to_bytes())?;
            sketches.write_all(&sketch.to_bytes())?;
        }
    }
    index.flush()?;
    Ok(sketches.flush()?)
}

/// Resident memory of this process in bytes (proc(5) status).
fn resident() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line
        .context("no VmRSS in /proc/self/status")?
        .trim()
        .trim_end_matches("kB")
        .trim()
        .parse()?;
    Ok(kib << 10)
}

/// Seconds of processor time that this thread took so far: others may be at work on the machine.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Searches for the bases of new tensors of a shape: fine-tunes of what is there, and strangers.
fn search(catalog: &Catalog, arguments: &Arguments, shape: usize) -> Result<Value> {
    let families = arguments.tensors / arguments.family;
    let kinds = SHAPES.len() as u64;
    let mut figures = json!({"rows": SHAPES[shape].0, "row_elements": SHAPES[shape].1});
    for kind in ["related", "unrelated"] {
        let (mut total, mut worst, mut found) = (0.0, 0.0f64, 0);
        for at in 0..SEARCHES {
            let nearby = at * 7919 % (families / kinds) * kinds + shape as u64;
            let family = if kind == "related" {
                nearby
            } else {
                nearby + kinds * families
            };
            let target = Origin::new(family).sketch(Hash::of(&at.to_le_bytes()), 1000 + at);
            let start = cpu_seconds();
            let candidates = catalog.candidates(&target, &[]);
            let seconds = cpu_seconds() - start;
            total += seconds;
            worst = worst.max(seconds);
            found += u64::from(!candidates.is_empty());
        }
        ensure!(
            found == if kind == "related" { SEARCHES } else { 0 },
            "{found} of {SEARCHES} {kind} tensors have candidates"
        );
        figures[kind] =
            json!({"mean_cpu_seconds": total / SEARCHES as f64, "worst_cpu_seconds": worst});
    }
    let (delta, solo) = encoding(SHAPES[shape].1);
    let elements = (SHAPES[shape].0 * SHAPES[shape].1) as f64;
    figures["encoding_cpu_seconds"] =
        json!({"difference": delta * elements, "alone": solo * elements});
    for (kind, encoding) in [("related", delta), ("unrelated", solo)] {
        let mean = figures[kind]["mean_cpu_seconds"].as_f64().unwrap_or(0.0);
        figures[kind]["share_of_encoding"] = json!(mean / (encoding * elements));
    }
    Ok(figures)
}

/// Seconds of processor time an element that encoding takes, as a difference and alone.
fn encoding(row_len: u64) -> (f64, f64) {
    let mut random = Random::new(1, "encoded");
    let values: Vec<f32> = (0..ENCODED).map(|_| weight(&mut random)).collect();
    let base: Vec<u8> = values.iter().flat_map(|value| bf16(*value)).collect();
    let raw: Vec<u8> = values
        .iter()
        .flat_map(|value| bf16(value + 0.0004 * random.normal()))
        .collect();
    let mut workspace = Workspace::default();
    let mut time = |base: Option<&[u8]>| {
        let view = ChunkView {
            dtype: DType::Bf16,
            row_len,
            first_element: 0,
            base,
        };
        let mut best = f64::INFINITY;
        for _ in 0..5 {
            let start = cpu_seconds();
            let mut out = Vec::new();
            encode_chunk(
                &EncodeOptions::default(),
                &view,
                &raw,
                &mut workspace,
                &mut out,
            );
            best = best.min(cpu_seconds() - start);
        }
        best / ENCODED as f64
    };
    (time(Some(&base)), time(None))
}

fn measure(arguments: &Arguments) -> Result<Value> {
    let store = Store::open(&arguments.dir)?;
    let index = store.index()?;
    ensure!(
        index.len() as u64 == arguments.tensors,
        "the store is not as simulated"
    );
    let before = resident()?;
    let start = Instant::now();
    let catalog = Catalog::load(&store, &index)?;
    let load_seconds = start.elapsed().as_secs_f64();
    let memory = resident()?.saturating_sub(before);
    ensure!(catalog.missing == 0, "sketches are missing");
    let shapes = (0..SHAPES.len()).map(|shape| search(&catalog, arguments, shape));
    Ok(json!({
        "tensors": arguments.tensors, "family": arguments.family, "searches": SEARCHES,
        "memory_bytes": memory, "memory_bytes_a_tensor": memory / arguments.tensors,
        "load_seconds": load_seconds, "shapes": shapes.collect::<Result<Vec<_>>>()?,
    }))
}

fn write(out: &Path, figures: &Value) -> Result<()> {
    fs::write(out, format!("{figures:#}\n"))
        .with_context(|| format!("cannot write {}", out.display()))
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    simulate(&arguments)?;
    let figures = measure(&arguments)?;
    println!("{figures:#}");
    if let Some(out) = &arguments.out {
        write(out, &figures)?;
    }
    Ok(fs::remove_dir_all(&arguments.dir)?)
}
