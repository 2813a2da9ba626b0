//! Times BitX in memory: compresses a fine-tune's tensors against its base's and decompresses them, at several thread
//! counts. Prints one JSON document; times are in seconds of wall time, sizes in bytes.
//!
//!     cargo run --release --example benchmark_bitx -- BASE_DIR FINETUNE_DIR --threads 1,2 --repeat 3
//!
//! Both models are read first, whole: it takes memory for both and for the result. A tensor is worked on where the
//! base has one of the same name, dtype and size. The thread counts take turns, so that a slow moment hits all.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example talks to its user"
)]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use rayon::prelude::*;
use serde_json::{Value, json};

use zipllm::checkpoint::segment;
use zipllm::codec::{ChunkView, Codec, EncodeOptions, Prepared, REGISTRY, WorkspacePool};
use zipllm::dtype::{CHUNK_ELEMENTS, DType};

/// Times BitX compression and decompression of a fine-tune against its base, in memory
#[derive(Parser)]
struct Arguments {
    /// Directory of the base model
    base: PathBuf,
    /// Directory of the fine-tune
    finetune: PathBuf,
    /// Thread counts
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2], value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Vec<u16>,
    /// Runs of each thread count
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    repeat: u16,
    /// Leave decompression and its check out
    #[arg(long)]
    no_decompress: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("benchmark_bitx: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A safetensors file in memory.
struct Weights {
    path: PathBuf,
    bytes: Vec<u8>,
}

/// A chunk of a tensor and the base's bytes at its place.
struct Chunk<'a> {
    dtype: DType,
    row_len: u64,
    first_element: u64,
    raw: &'a [u8],
    base: &'a [u8],
}

impl Chunk<'_> {
    fn view(&self) -> ChunkView<'_> {
        ChunkView {
            dtype: self.dtype,
            row_len: self.row_len,
            first_element: self.first_element,
            base: Some(self.base),
        }
    }
}

/// A tensor's bytes, and what they mean.
#[derive(Clone, Copy)]
struct Tensor<'a> {
    dtype: DType,
    row_len: u64,
    bytes: &'a [u8],
}

fn run(arguments: &Arguments) -> Result<Value> {
    let (base, finetune) = (load(&arguments.base)?, load(&arguments.finetune)?);
    let bases: HashMap<_, _> = tensors(&base)?.into_iter().collect();
    let tensors = tensors(&finetune)?;
    let pairs: Vec<_> = tensors
        .iter()
        .filter_map(|(name, tensor)| pair(*tensor, *bases.get(name)?))
        .collect();
    let chunks: Vec<_> = pairs
        .iter()
        .flat_map(|(tensor, base)| cut(tensor, base.bytes))
        .collect();
    ensure!(
        !chunks.is_empty(),
        "the models have no tensor of the same name, dtype and size"
    );
    let codec = *REGISTRY
        .iter()
        .find(|codec| codec.name() == "bitx")
        .context("this build has no BitX")?;
    let mut bench = Bench {
        codec,
        chunks,
        payloads: Vec::new(),
    };
    let mut runs = Vec::new();
    for repeat in 1..=arguments.repeat {
        for &threads in &arguments.threads {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads.into())
                .build()?;
            let compress_seconds = pool.install(|| bench.compress());
            let checked = (!arguments.no_decompress).then(|| pool.install(|| bench.decompress()));
            runs.push(json!({
                "threads": threads,
                "repeat": repeat,
                "compress_seconds": compress_seconds,
                "decompress_seconds": checked.map(|checked| checked.0),
                "exact": checked.map(|checked| checked.1),
            }));
        }
    }
    Ok(json!({
        "base": arguments.base,
        "finetune": arguments.finetune,
        "tensors": pairs.len(),
        "unpaired_tensors": tensors.len() - pairs.len(),
        "bytes": bench.chunks.iter().map(|chunk| chunk.raw.len()).sum::<usize>(),
        "compressed_bytes": bench.payloads.iter().map(Vec::len).sum::<usize>(),
        "runs": runs,
    }))
}

/// Reads every safetensors file below a directory.
fn load(directory: &Path) -> Result<Vec<Weights>> {
    let context = || format!("cannot read {}", directory.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).with_context(context)? {
        let path = entry.with_context(context)?.path();
        if path.is_dir() {
            found.extend(load(&path)?);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "safetensors")
        {
            let bytes =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            found.push(Weights { path, bytes });
        }
    }
    Ok(found)
}

/// Lists the tensors of a model's files, by name.
fn tensors(files: &[Weights]) -> Result<Vec<(String, Tensor<'_>)>> {
    let mut found = Vec::new();
    for file in files {
        let name = file.path.to_string_lossy();
        for span in segment(&name, &file.bytes.as_slice())?.spans {
            let Some(info) = span.tensor else { continue };
            let (start, end) = (
                usize::try_from(span.start)?,
                usize::try_from(span.start + span.length)?,
            );
            let bytes = file
                .bytes
                .get(start..end)
                .context("a tensor lies outside its file")?;
            let row_len = span.row_len;
            found.push((
                info.name,
                Tensor {
                    dtype: span.dtype,
                    row_len,
                    bytes,
                },
            ));
        }
    }
    Ok(found)
}

fn pair<'a>(tensor: Tensor<'a>, base: Tensor<'a>) -> Option<(Tensor<'a>, Tensor<'a>)> {
    let fits = tensor.dtype == base.dtype
        && tensor.bytes.len() == base.bytes.len()
        && !tensor.bytes.is_empty();
    fits.then_some((tensor, base))
}

/// Cuts a tensor in the store's chunks.
fn cut<'a>(tensor: &Tensor<'a>, base: &'a [u8]) -> Vec<Chunk<'a>> {
    let length =
        usize::try_from(CHUNK_ELEMENTS).map_or(usize::MAX, |count| count * tensor.dtype.size());
    let starts = (0..).step_by(usize::try_from(CHUNK_ELEMENTS).unwrap_or(usize::MAX));
    let parts = tensor.bytes.chunks(length).zip(base.chunks(length));
    parts
        .zip(starts)
        .map(|((raw, base), first_element)| Chunk {
            dtype: tensor.dtype,
            row_len: tensor.row_len,
            first_element,
            raw,
            base,
        })
        .collect()
}

struct Bench<'a> {
    codec: &'static dyn Codec,
    chunks: Vec<Chunk<'a>>,
    payloads: Vec<Vec<u8>>,
}

impl Bench<'_> {
    /// Compresses all chunks on the current pool; returns the seconds it took.
    fn compress(&mut self) -> f64 {
        let (options, workspaces) = (EncodeOptions::default(), WorkspacePool::default());
        let start = Instant::now();
        let encode = |chunk: &Chunk<'_>| {
            let mut payload = Vec::new();
            workspaces.with(|ws| {
                self.codec
                    .encode(&options, &chunk.view(), chunk.raw, ws, &mut payload);
            });
            payload.shrink_to_fit();
            payload
        };
        let payloads = self.chunks.par_iter().map(encode).collect();
        let seconds = start.elapsed().as_secs_f64();
        self.payloads = payloads;
        seconds
    }

    /// Decompresses all chunks on the current pool; returns the seconds it took, without comparing, and whether every
    /// byte came back.
    fn decompress(&self) -> (f64, bool) {
        let workspaces = WorkspacePool::default();
        let mut outputs: Vec<_> = self
            .chunks
            .iter()
            .map(|chunk| vec![0xA5_u8; chunk.raw.len()])
            .collect();
        let start = Instant::now();
        let decoded = self
            .chunks
            .par_iter()
            .zip(&self.payloads)
            .zip(&mut outputs)
            .all(|((chunk, payload), out)| {
                workspaces
                    .with(|ws| {
                        self.codec
                            .decode(&Prepared::default(), &chunk.view(), payload, out, ws)
                    })
                    .is_ok()
            });
        let seconds = start.elapsed().as_secs_f64();
        let exact = decoded
            && self
                .chunks
                .iter()
                .zip(&outputs)
                .all(|(chunk, out)| chunk.raw == out);
        (seconds, exact)
    }
}
