//! Measures low-rank prediction: `lowrank [--max] BASE_DIR TUNE_DIR...` prints a line of JSON a fine-tune, and
//! `lowrank [--max] --generated` one for each generated merge. All on one thread.
//!
//! `stored` are the bytes of all tensors over the original ones, `delta` the same without prediction.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    reason = "a program to measure with"
)]

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::SafeTensors;
use zipllm::dtype::DType;
use zipllm::lowrank::{self, Shape};
use zipllm::rans::{self, Chunk, Effort, Isa, Scratch};

/// Bytes of a chunk.
const CHUNK: usize = 1 << 21;

struct Pair<'a> {
    target: &'a [u8],
    base: &'a [u8],
}

impl lowrank::fit::Tensor for Pair<'_> {
    type Error = ();
    fn read(&self, first_element: u64, target: &mut [u8], base: &mut [u8]) -> Result<(), ()> {
        let start = usize::try_from(first_element).unwrap() * 2;
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

fn measure(
    name: &str,
    effort: Effort,
    shape: &[usize],
    target: &[u8],
    base: &[u8],
    sums: &mut Sums,
) {
    let isa = Isa::detect();
    let row_len = if shape.len() > 1 {
        *shape.last().unwrap() as u64
    } else {
        0
    };
    let elements = target.len() as u64 / 2;
    let mut scratch = Scratch::default();
    sums.bytes += target.len();
    if target == base {
        return;
    }
    let set_rows = elements.checked_div(row_len).unwrap_or(0);
    let shape = Shape {
        dtype: DType::Bf16,
        elements,
        row_len,
        set_rows,
    };
    let start = seconds();
    let fitted = lowrank::fit::fit(isa, effort, shape, &Pair { target, base }).unwrap();
    let fit = seconds() - start;
    sums.fit += fit;
    let columns = fitted.as_ref().map(|fitted| fitted.columns().to_bytes(isa));
    let (mut delta, mut stored) = (0, columns.as_ref().map_or(0, Vec::len));
    let parsed =
        columns.map(|bytes| lowrank::Columns::parse(isa, DType::Bf16, row_len, &bytes).unwrap());
    for (number, raw) in target.chunks(CHUNK).enumerate() {
        let base = &base[number * CHUNK..number * CHUNK + raw.len()];
        let first_element = (number * CHUNK / 2) as u64;
        let chunk = Chunk {
            dtype: DType::Bf16,
            row_len,
            first_element,
            base: Some(base),
        };
        let mut payload = Vec::new();
        rans::encode(isa, effort, &chunk, raw, &mut scratch, &mut payload);
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

fn files(dir: &Path) -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
    let mut out = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            let bytes = std::fs::read(&path).unwrap();
            for (name, tensor) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
                out.insert(name, (tensor.shape().to_vec(), tensor.data().to_vec()));
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

fn bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) as u16
}

/// A merge of `rank`, whose differences have the root mean square `size`.
fn generated(side: usize, rank: usize, size: f32) -> (Vec<u8>, Vec<u8>) {
    let mut random = Random(7);
    let scale = (size / (rank as f32).sqrt()).sqrt();
    let mut factors = || {
        (0..side * rank)
            .map(|_| random.normal() * scale)
            .collect::<Vec<f32>>()
    };
    let (rows, columns) = (factors(), factors());
    let (mut base, mut target) = (Vec::new(), Vec::new());
    for row in rows.chunks_exact(rank) {
        for column in columns.chunks_exact(rank) {
            let word = bf16(random.normal() * 0.02);
            let delta: f32 = row.iter().zip(column).map(|(a, b)| a * b).sum();
            base.extend_from_slice(&word.to_le_bytes());
            target.extend_from_slice(
                &bf16(f32::from_bits(u32::from(word) << 16) + delta).to_le_bytes(),
            );
        }
    }
    (target, base)
}

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_max = arguments.iter().any(|argument| argument == "--max");
    let effort = if is_max { Effort::Max } else { Effort::Default };
    let is_generated = arguments.iter().any(|argument| argument == "--generated");
    arguments.retain(|argument| !argument.starts_with("--"));
    if is_generated {
        for (side, rank, size) in [
            (4096, 16, 5e-5),
            (4096, 16, 1e-5),
            (1024, 16, 5e-5),
            (1024, 64, 5e-5),
        ] {
            let (target, base) = generated(side, rank, size);
            let mut sums = Sums::default();
            let name = format!("{side}x{side} rank {rank} size {size:.0e}");
            measure(&name, effort, &[side, side], &target, &base, &mut sums);
            sums.print(&name);
        }
    }
    let mut models = arguments.iter();
    let Some(base) = models.next().map(|path| files(Path::new(path))) else {
        return;
    };
    for model in models {
        let mut sums = Sums::default();
        for (name, (shape, target)) in files(Path::new(model)) {
            if let Some((_, base)) = base.get(&name).filter(|base| base.1.len() == target.len()) {
                measure(&name, effort, &shape, &target, base, &mut sums);
            }
        }
        sums.print(model);
    }
}
