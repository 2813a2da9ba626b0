//! Simulates a store of very many models, to time what looks at all of it: `list`, `stats`, `check`, `gc`.
//!
//!     cargo run --release --example big_store -- DIR [--models N] [--tensors N] [--family N] [--changed PERCENT] [--no-objects]
//!
//! Every family is a base and its fine-tunes, each with PERCENT of its tensors changed and encoded against the base's.
//! Objects are of 16 bytes, so that the store is a true one, which even `check --read-data` finds whole; with
//! `--no-objects` there are none, only manifests and an index, which is what `list` and `stats` read.
#![allow(clippy::print_stdout, reason = "a program")]

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use zipllm::dtype::DType;
use zipllm::hash::Hash;
use zipllm::name::ModelId;
use zipllm::store::index::Record;
use zipllm::store::layout::Layout;
use zipllm::store::manifest::{FORMAT, FileEntry, Manifest, Segment, Tensor};
use zipllm::store::object::{BaseRef, ChunkEntry, Frame, Head, checksum};
use zipllm::store::{Marker, sealed};

/// Bytes of every object.
const LENGTH: u64 = 16;

struct Options {
    root: PathBuf,
    models: u64,
    tensors: u64,
    family: u64,
    changed: u64,
    objects: bool,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            root: args
                .next()
                .context("give a directory that does not exist")?
                .into(),
            models: 10_000,
            tensors: 300,
            family: 40,
            changed: 10,
            objects: true,
        };
        while let Some(arg) = args.next() {
            let field = match arg.as_str() {
                "--models" => &mut options.models,
                "--tensors" => &mut options.tensors,
                "--family" => &mut options.family,
                "--changed" => &mut options.changed,
                "--no-objects" => {
                    options.objects = false;
                    continue;
                }
                _ => bail!("unknown argument {arg}"),
            };
            *field = args.next().context("a number is missing")?.parse()?;
        }
        Ok(options)
    }
}

/// Where objects and their records go.
struct Simulation {
    options: Options,
    layout: Layout,
    index: BufWriter<File>,
    known: HashSet<Hash>,
}

impl Simulation {
    fn new(options: Options) -> Result<Self> {
        let layout = Layout::new(&options.root);
        fs::create_dir(&options.root).context("the directory must not exist")?;
        for directory in layout.directories() {
            fs::create_dir(directory)?;
        }
        for shard in 0..=u8::MAX {
            fs::create_dir(layout.objects().join(format!("{shard:02x}")))?;
        }
        fs::write(layout.marker(), sealed::to_bytes(&Marker::new())?)?;
        let index = BufWriter::new(File::create(layout.object_log())?);
        Ok(Self {
            options,
            layout,
            index,
            known: HashSet::new(),
        })
    }

    /// Stores the object with these bytes unless it is there.
    fn object(&mut self, raw: &[u8], base: Option<Hash>) -> Result<Hash> {
        let name = Hash::of(raw);
        if !self.known.insert(name) {
            return Ok(name);
        }
        let bases = base.map(|name| BaseRef {
            name,
            dtype: DType::Bf16,
            start: 0,
            count: LENGTH / 2,
            target_start: 0,
        });
        let head = Head {
            codec: 0,
            dtype: DType::Bf16,
            depth: u8::from(base.is_some()),
            required: 0,
            optional: 0,
            raw_len: LENGTH,
            row_len: 0,
            shared_len: 0,
            bases: bases.into_iter().collect(),
        };
        let chunk = ChunkEntry {
            codec: 0,
            encoded_len: u32::try_from(raw.len())?,
            checksum: checksum(raw),
            chaining_value: [0; 32],
        };
        let frame = Frame {
            head,
            shared_checksum: [0; 8],
            chunks: vec![chunk],
        };
        self.index
            .write_all(&Record::of(&name, &frame).to_bytes())?;
        if self.options.objects {
            let bytes = [&frame.head.to_bytes(), raw, &frame.tail_bytes(&name)].concat();
            fs::write(self.layout.object(&name), bytes)?;
        }
        Ok(name)
    }

    fn model(&mut self, number: u64) -> Result<()> {
        let (family, member) = (number / self.options.family, number % self.options.family);
        let id: ModelId = format!("org{family}/model-{member}").parse()?;
        let config = self.object(&raw(family, member, u64::MAX), None)?;
        let mut segments = Vec::new();
        for tensor in 0..self.options.tensors {
            let base = self.object(&raw(family, 0, tensor), None)?;
            // Spread evenly over the tensors, another choice for each member.
            let changed = member > 0 && (tensor * 7 + member * 13) % 100 < self.options.changed;
            let object = if changed {
                self.object(&raw(family, member, tensor), Some(base))?
            } else {
                base
            };
            segments.push(Segment {
                object,
                length: LENGTH,
                tensor: Some(described(tensor)),
            });
        }
        let base = (member > 0).then(|| format!("org{family}/model-0"));
        let files = vec![
            file(
                "config.json",
                number,
                vec![Segment {
                    object: config,
                    length: LENGTH,
                    tensor: None,
                }],
            )?,
            file("model.safetensors", number, segments)?,
        ];
        let manifest = Manifest {
            format: FORMAT,
            version: 1,
            commit: None,
            base: base.map(|base| base.parse()).transpose()?,
            bases: Vec::new(),
            bytes: files.iter().map(|file| file.size).sum(),
            files,
            empty_dirs: Vec::new(),
            model: id.clone(),
        };
        fs::create_dir(self.layout.model(&id))?;
        let path = self.layout.manifest(&id, 1);
        Ok(fs::write(path, sealed::to_bytes(&manifest)?)?)
    }
}

/// The bytes of an object.
fn raw(family: u64, member: u64, tensor: u64) -> Vec<u8> {
    let mixed = family * 1_000_000 + member;
    [mixed.to_le_bytes(), tensor.to_le_bytes()].concat()
}

/// A tensor as one of a transformer's.
fn described(number: u64) -> Tensor {
    const PARTS: [&str; 9] = [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
        "input_layernorm",
        "post_attention_layernorm",
    ];
    let part = usize::try_from(number % 9)
        .ok()
        .and_then(|part| PARTS.get(part));
    Tensor {
        name: format!("model.layers.{}.{}.weight", number / 9, part.unwrap_or(&"")),
        dtype: "BF16".into(),
        shape: vec![4096, 4096],
    }
}

fn file(path: &str, model: u64, segments: Vec<Segment>) -> Result<FileEntry> {
    Ok(FileEntry {
        path: path.parse()?,
        size: LENGTH * segments.len() as u64,
        blake3: Hash::of(format!("{path} of {model}").as_bytes()),
        executable: false,
        segments,
    })
}

fn bytes_below(directory: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        sum += if meta.is_dir() {
            bytes_below(&entry.path())?
        } else {
            meta.len()
        };
    }
    Ok(sum)
}

fn main() -> Result<()> {
    let start = Instant::now();
    let mut simulation = Simulation::new(Options::parse(std::env::args().skip(1))?)?;
    for number in 0..simulation.options.models {
        simulation.model(number)?;
    }
    simulation.index.flush()?;
    println!(
        "{} models of {} tensors, {} objects, {} bytes of manifests, {} of the index, in {:.0} s",
        simulation.options.models,
        simulation.options.tensors,
        simulation.known.len(),
        bytes_below(&simulation.layout.models())?,
        fs::metadata(simulation.layout.object_log())?.len(),
        start.elapsed().as_secs_f64()
    );
    Ok(())
}
