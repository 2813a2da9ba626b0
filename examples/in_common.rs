//! Measures what the chunks of a tensor have in common: `in_common [--hidden N] [--max]` codes the matrices of one generated
//! layer of a model, and those of fine-tunes as differences, with and without it, in turn, and prints a line of JSON each.
//!
//! `alone` and `common` are stored over original bytes; the rest are times the speed without, learning included: medians of
//! five rounds of one thread's processor time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a program to measure with"
)]

mod support;

use clap::Parser;

use support::weights::{Size, Tensor, Tuning, base, fine_tune};
use zipllm::buffers::BufferPool;
use zipllm::codec::WorkspacePool;
use zipllm::dtype::{CHUNK_ELEMENTS, DType};
use zipllm::object_common::{Extent, Pair};
use zipllm::rans::{self, Chunk, Effort, Isa, Scratch, Shared};

const ROUNDS: usize = 5;

/// Measures what the chunks of a tensor have in common
#[derive(Parser)]
struct Arguments {
    /// Elements in most rows.
    #[arg(long, default_value_t = 4096)]
    hidden: usize,
    /// Measure effort max in place of default.
    #[arg(long)]
    max: bool,
}

/// A tensor's bytes, and its base's.
struct Bytes {
    raw: Vec<u8>,
    base: Option<Vec<u8>>,
}

impl Pair for Bytes {
    fn has_base(&self) -> bool {
        self.base.is_some()
    }

    fn chunks(&self) -> Option<Vec<u64>> {
        None
    }

    fn is_slow(&self) -> bool {
        false
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> zipllm::error::Result<()> {
        copy(&self.raw, offset, out);
        Ok(())
    }

    fn read_base(&self, offset: u64, out: &mut [u8]) -> zipllm::error::Result<()> {
        copy(self.base.as_ref().unwrap(), offset, out);
        Ok(())
    }
}

fn copy(bytes: &[u8], offset: u64, out: &mut [u8]) {
    let start = usize::try_from(offset).unwrap();
    out.copy_from_slice(bytes.get(start..start + out.len()).unwrap());
}

/// What one round of encoding and decoding took.
#[derive(Clone, Copy)]
struct Round {
    bytes: usize,
    encode: f64,
    decode: f64,
}

/// Seconds of this thread.
fn seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

struct Job<'a> {
    effort: Effort,
    extent: Extent,
    pair: &'a Bytes,
    workspaces: WorkspacePool,
    buffers: BufferPool,
}

impl Job<'_> {
    fn round(&self, is_common: bool, scratch: &mut Scratch) -> Round {
        let start = seconds();
        let pools = (&self.workspaces, &self.buffers);
        let learn = || self.extent.learn(self.effort, self.pair, None, pools);
        let common = is_common.then(learn).and_then(|learnt| learnt.unwrap());
        let size = usize::try_from(CHUNK_ELEMENTS).unwrap() * 2;
        let chunk = |number: usize, raw: &[u8], shared| {
            let place = number * size..number * size + raw.len();
            let base = self.pair.base.as_ref();
            Chunk {
                dtype: DType::Bf16,
                row_len: self.extent.row_len,
                first_element: (number * size / 2) as u64,
                base: base.map(|base| base.get(place).unwrap()),
                shared,
            }
        };
        let shared = common.as_ref().map(|common| &common.shared);
        let chunks = self.pair.raw.chunks(size).enumerate();
        let payloads: Vec<_> = chunks
            .clone()
            .map(|(number, raw)| {
                let mut payload = Vec::new();
                let chunk = chunk(number, raw, shared);
                rans::encode(
                    Isa::detect(),
                    self.effort,
                    &chunk,
                    raw,
                    scratch,
                    &mut payload,
                );
                payload
            })
            .collect();
        let middle = seconds();
        let parsed: Option<&Shared> = common.as_ref().map(|common| &*common.parsed);
        let mut out = vec![0; size];
        let mut decode = 0.0;
        for ((number, raw), payload) in chunks.zip(&payloads) {
            let chunk = chunk(number, raw, parsed);
            let out = out.get_mut(..raw.len()).unwrap();
            let start = seconds();
            rans::decode(Isa::detect(), &chunk, payload, out, scratch).unwrap();
            decode += seconds() - start;
            assert!(out == raw, "another tensor came back");
        }
        let written = common.as_ref().map_or(0, |common| common.bytes.len());
        Round {
            bytes: written + payloads.iter().map(Vec::len).sum::<usize>(),
            encode: middle - start,
            decode,
        }
    }
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    tensor
        .values
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect()
}

fn measure(name: &str, effort: Effort, tensor: &Tensor, based: Option<&Tensor>) {
    let pair = Bytes {
        raw: bytes(tensor),
        base: based.map(bytes),
    };
    let extent = Extent {
        dtype: DType::Bf16,
        row_len: *tensor.shape.last().unwrap() as u64,
        elements: tensor.values.len() as u64,
    };
    let job = Job {
        effort,
        extent,
        pair: &pair,
        workspaces: WorkspacePool::default(),
        buffers: BufferPool::default(),
    };
    let mut scratch = Scratch::default();
    let rounds: Vec<[Round; 2]> = (0..ROUNDS)
        .map(|_| [false, true].map(|is_common| job.round(is_common, &mut scratch)))
        .collect();
    let median = |of: fn(&Round) -> f64| {
        let mut ratios: Vec<f64> = rounds
            .iter()
            .map(|[alone, common]| of(alone) / of(common))
            .collect();
        ratios.sort_by(f64::total_cmp);
        let ratio = ratios.get(ROUNDS / 2).unwrap();
        (ratio * 100.0).round() / 100.0
    };
    let [alone, common] = rounds.first().unwrap();
    let part = |bytes: usize| (bytes as f64 / pair.raw.len() as f64 * 1e5).round() / 1e5;
    let line = serde_json::json!({
        "model": name,
        "tensor": tensor.name,
        "shape": tensor.shape,
        "alone": part(alone.bytes),
        "common": part(common.bytes),
        "smaller": (1e4 - common.bytes as f64 / alone.bytes as f64 * 1e4).round() / 1e2,
        "encode": median(|round| round.encode),
        "decode": median(|round| round.decode),
    });
    println!("{line}");
}

fn main() {
    let arguments = Arguments::parse();
    let effort = if arguments.max {
        Effort::Max
    } else {
        Effort::Default
    };
    let hidden = arguments.hidden;
    let size = Size {
        hidden,
        inner: hidden / 128 * 344,
        key_value: hidden / 4,
        layers: 1,
        vocabulary: 16,
    };
    let model = base(&size, 1);
    let is_measured = |tensor: &&Tensor| {
        let parts = ["q_proj", "k_proj", "gate_proj", "down_proj"];
        parts.iter().any(|part| tensor.name.contains(part))
    };
    model
        .iter()
        .filter(is_measured)
        .for_each(|tensor| measure("base", effort, tensor, None));
    for (name, tuning) in [("light", Tuning::Light), ("typical", Tuning::Typical)] {
        let tuned = fine_tune(&model, tuning, 2);
        let pairs = tuned.iter().zip(&model);
        for (tensor, base) in pairs.filter(|(tensor, _)| is_measured(tensor)) {
            measure(name, effort, tensor, Some(base));
        }
    }
}
