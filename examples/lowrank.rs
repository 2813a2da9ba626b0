//! Measures low-rank prediction: `lowrank [--max] [--isa=NAME] BASE_DIR TUNE_DIR...` prints a line of JSON a fine-tune,
//! and `lowrank [--max] [--isa=NAME] --generated` one for each generated merge. Set `RAYON_NUM_THREADS=1` to measure
//! speeds. `--isa` takes `scalar`, `avx2` or `avx512`; else it is the best that the machine has.
//!
//! `stored` are the bytes of all tensors over the original ones, `delta` the same without prediction.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    reason = "a program to measure with"
)]

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use zipllm::dtype::DType;
use zipllm::float::convert;
use zipllm::lowrank::{self, Shape};
use zipllm::rans::{self, Chunk, Effort, Isa, Scratch};

/// Bytes of a chunk.
const CHUNK: usize = 1 << 21;

struct Pair<'a> {
    size: usize,
    target: &'a [u8],
    base: &'a [u8],
}

impl lowrank::fit::Tensor for Pair<'_> {
    type Error = ();
    fn read(&self, first_element: u64, target: &mut [u8], base: &mut [u8]) -> Result<(), ()> {
        let start = usize::try_from(first_element).unwrap() * self.size;
        target.copy_from_slice(&self.target[start..start + target.len()]);
        base.copy_from_slice(&self.base[start..start + base.len()]);
        Ok(())
    }
}

#[derive(Default)]
struct Sums {
    bytes: usize,
    delta: usize,
    stored: usize,
    predicted: usize,
    fit: f64,
    plain: f64,
    encode: f64,
    decode: f64,
}

impl Sums {
    fn print(&self, name: &str) {
        let mb = |bytes: usize, seconds: f64| (bytes as f64 / 1e6 / seconds.max(1e-9)).round();
        let line = serde_json::json!({
            "name": name, "bytes": self.bytes,
            "delta": self.delta as f64 / self.bytes as f64,
            "stored": self.stored as f64 / self.bytes as f64,
            "delta_mb_per_s": mb(self.bytes, self.plain),
            "fit_mb_per_s": mb(self.bytes, self.fit),
            "encode_mb_per_s": mb(self.predicted, self.encode),
            "decode_mb_per_s": mb(self.predicted, self.decode),
        });
        println!("{line}");
    }
}

/// Seconds of all threads.
fn seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// What is measured with.
#[derive(Clone, Copy)]
struct Means {
    isa: Isa,
    effort: Effort,
}

/// The instruction set that an argument names.
fn isa_of(arguments: &[String]) -> Isa {
    let name = arguments.iter().find_map(|it| it.strip_prefix("--isa="));
    let known = Isa::all().into_iter();
    let named = |name: &str| {
        let mut known = known.clone();
        known.find(|isa| format!("{isa:?}").eq_ignore_ascii_case(name))
    };
    name.map_or(Isa::detect(), |name| {
        named(name).expect("this machine has no such instruction set")
    })
}

fn measure(
    name: &str,
    means: Means,
    dtype: DType,
    shape: &[usize],
    target: &[u8],
    base: &[u8],
    sums: &mut Sums,
) {
    let Means { isa, effort } = means;
    let row_len = if shape.len() > 1 {
        *shape.last().unwrap() as u64
    } else {
        0
    };
    let elements = (target.len() / dtype.size()) as u64;
    let mut scratch = Scratch::default();
    sums.bytes += target.len();
    if target == base {
        return;
    }
    let set_rows = elements.checked_div(row_len).unwrap_or(0);
    let shape = Shape {
        dtype,
        elements,
        row_len,
        set_rows,
    };
    let pair = Pair {
        size: dtype.size(),
        target,
        base,
    };
    let start = seconds();
    let fitted = lowrank::fit::fit(isa, effort, shape, &pair, None).unwrap();
    let fit = seconds() - start;
    sums.fit += fit;
    let columns = fitted.as_ref().map(|fitted| fitted.columns().to_bytes(isa));
    let (mut delta, mut stored) = (0, columns.as_ref().map_or(0, Vec::len));
    let parsed = columns.map(|bytes| lowrank::Columns::parse(isa, dtype, row_len, &bytes).unwrap());
    for (number, raw) in target.chunks(CHUNK).enumerate() {
        let base = &base[number * CHUNK..number * CHUNK + raw.len()];
        let first_element = (number * CHUNK / dtype.size()) as u64;
        let chunk = Chunk {
            dtype,
            row_len,
            first_element,
            base: Some(base),
            shared: None,
        };
        let mut payload = Vec::new();
        let start = seconds();
        rans::encode(isa, effort, &chunk, raw, &mut scratch, &mut payload);
        sums.plain += seconds() - start;
        delta += payload.len();
        let plain = payload.len();
        let Some(fitted) = &fitted else {
            stored += plain;
            continue;
        };
        payload.clear();
        let start = seconds();
        lowrank::encode(isa, effort, fitted, &chunk, raw, &mut scratch, &mut payload);
        sums.encode += seconds() - start;
        stored += plain.min(payload.len());
        let mut out = vec![0; raw.len()];
        let mut best = f64::MAX;
        for _ in 0..3 {
            let start = seconds();
            lowrank::decode(
                isa,
                parsed.as_ref().unwrap(),
                &chunk,
                &payload,
                &mut out,
                &mut scratch,
            )
            .unwrap();
            best = best.min(seconds() - start);
        }
        sums.decode += best;
        sums.predicted += raw.len();
        assert!(out == raw, "what was encoded comes back");
    }
    if std::env::var("VERBOSE").is_ok() {
        println!(
            "{name}: {} B delta {:.4} stored {:.4} fit {:.0} MB/s rank {}",
            target.len(),
            delta as f64 / target.len() as f64,
            stored as f64 / target.len() as f64,
            target.len() as f64 / 1e6 / fit,
            fitted.is_some()
        );
    }
    sums.delta += delta;
    sums.stored += stored;
}

/// A tensor's type, shape and bytes.
type Matrix = (DType, Vec<usize>, Vec<u8>);

fn files(dir: &Path) -> BTreeMap<String, Matrix> {
    let mut out = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            let bytes = std::fs::read(&path).unwrap();
            for (name, tensor) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
                let dtype = match tensor.dtype() {
                    Dtype::BF16 => DType::Bf16,
                    Dtype::F16 => DType::F16,
                    Dtype::F32 => DType::F32,
                    _ => continue,
                };
                out.insert(
                    name,
                    (dtype, tensor.shape().to_vec(), tensor.data().to_vec()),
                );
            }
        }
    }
    out
}

struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / 16_777_216.0
    }

    /// About normal.
    fn normal(&mut self) -> f32 {
        ((0..6).map(|_| self.uniform()).sum::<f32>() - 3.0) * std::f32::consts::SQRT_2
    }
}

/// What a generated fine-tune is.
#[derive(Clone, Copy)]
enum Change {
    /// A low-rank product, added and rounded once.
    Merge,
    /// A low-rank product, rounded before it is added.
    RoundedMerge,
    /// Independent changes.
    Noise,
}

struct Generated {
    dtype: DType,
    side: usize,
    rank: usize,
    /// Root mean square of the change.
    size: f32,
    change: Change,
}

impl Generated {
    fn name(&self) -> String {
        let change = match self.change {
            Change::Merge => "merge",
            Change::RoundedMerge => "merge of rounded products",
            Change::Noise => "noise",
        };
        let (dtype, side, rank, size) = (self.dtype, self.side, self.rank, self.size);
        format!("{dtype:?} {side}x{side} {change} of rank {rank}, size {size:.0e}")
    }

    /// The fine-tune and its base.
    fn bytes(&self) -> (Vec<u8>, Vec<u8>) {
        let (side, rank) = (self.side, self.rank);
        let mut random = Random(7);
        let scale = (self.size / (rank as f32).sqrt()).sqrt();
        let mut factors = || {
            (0..side * rank)
                .map(|_| random.normal() * scale)
                .collect::<Vec<f32>>()
        };
        let (rows, columns) = (factors(), factors());
        let (mut base, mut target) = (Vec::new(), Vec::new());
        for row in rows.chunks_exact(rank) {
            for column in columns.chunks_exact(rank) {
                let old = rounded(self.dtype, random.normal() * 0.02);
                let product: f32 = row.iter().zip(column).map(|(a, b)| a * b).sum();
                let delta = match self.change {
                    Change::Merge => product,
                    Change::RoundedMerge => rounded(self.dtype, product),
                    Change::Noise => random.normal() * self.size,
                };
                write(self.dtype, old, &mut base);
                write(self.dtype, old + delta, &mut target);
            }
        }
        (target, base)
    }
}

/// The nearest number of a type, ties to even.
fn rounded(dtype: DType, x: f32) -> f32 {
    let mut bytes = Vec::new();
    write(dtype, x, &mut bytes);
    let mut wide = [0; 4];
    convert(dtype, &bytes, DType::F32, &mut wide);
    f32::from_le_bytes(wide)
}

fn write(dtype: DType, x: f32, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + dtype.size(), 0);
    convert(DType::F32, &x.to_le_bytes(), dtype, &mut out[start..]);
}

const fn generated(dtype: DType, side: usize, rank: usize, size: f32, change: Change) -> Generated {
    Generated {
        dtype,
        side,
        rank,
        size,
        change,
    }
}

const GENERATED: [Generated; 13] = [
    generated(DType::Bf16, 4096, 64, 5e-5, Change::Merge),
    generated(DType::Bf16, 4096, 16, 5e-5, Change::Merge),
    generated(DType::Bf16, 4096, 16, 1e-5, Change::Merge),
    generated(DType::Bf16, 1024, 16, 5e-5, Change::Merge),
    generated(DType::Bf16, 1024, 64, 5e-5, Change::Merge),
    generated(DType::Bf16, 1024, 16, 5e-3, Change::Merge),
    generated(DType::Bf16, 1024, 16, 5e-5, Change::RoundedMerge),
    generated(DType::Bf16, 1024, 16, 5e-3, Change::RoundedMerge),
    generated(DType::F16, 1024, 16, 5e-5, Change::Merge),
    generated(DType::F16, 1024, 16, 5e-5, Change::RoundedMerge),
    generated(DType::F32, 1024, 16, 5e-5, Change::Merge),
    generated(DType::Bf16, 4096, 16, 5e-5, Change::Noise),
    generated(DType::Bf16, 1024, 16, 5e-5, Change::Noise),
];

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_max = arguments.iter().any(|argument| argument == "--max");
    let effort = if is_max { Effort::Max } else { Effort::Default };
    let isa = isa_of(&arguments);
    let means = Means { isa, effort };
    let is_generated = arguments.iter().any(|argument| argument == "--generated");
    arguments.retain(|argument| !argument.starts_with("--"));
    if is_generated {
        for pair in GENERATED {
            let (target, base) = pair.bytes();
            let mut sums = Sums::default();
            let shape = [pair.side, pair.side];
            measure(
                &pair.name(),
                means,
                pair.dtype,
                &shape,
                &target,
                &base,
                &mut sums,
            );
            sums.print(&pair.name());
        }
    }
    let mut models = arguments.iter();
    let Some(base) = models.next().map(|path| files(Path::new(path))) else {
        return;
    };
    for model in models {
        let mut sums = Sums::default();
        for (name, (dtype, shape, target)) in files(Path::new(model)) {
            let is_alike = |base: &&Matrix| base.0 == dtype && base.2.len() == target.len();
            if let Some((_, _, base)) = base.get(&name).filter(is_alike) {
                measure(&name, means, dtype, &shape, &target, base, &mut sums);
            }
        }
        sums.print(model);
    }
}
