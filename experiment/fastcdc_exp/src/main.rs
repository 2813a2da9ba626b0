//! Content-defined chunking of model files with FastCDC (2020) and BLAKE3 chunk hashes.
//!
//! `chunk` lists one file's chunks, for counting duplicates over many files. `ingest` and `restore` are a whole
//! deduplicating store, for comparing with zipllm. Each prints one JSON document; times are in seconds of wall time.

mod chunks;
mod store;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

/// FastCDC chunking of model files.
#[derive(Parser)]
enum Command {
    /// Chunk one file and write its chunks' hashes and lengths
    Chunk {
        /// File to chunk
        file: PathBuf,
        /// Average length of a chunk, in bytes
        #[arg(long, default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1024..=4_194_304))]
        avg_size: u32,
        /// Where to write the chunks: for each its hash (32 bytes) and length (4 bytes, little-endian)
        #[arg(long)]
        chunks: PathBuf,
    },
    /// Store a directory's files as unique chunks
    Ingest {
        /// Directory of the store; must not exist
        store: PathBuf,
        /// Directory to store
        root: PathBuf,
        /// Average length of a chunk, in bytes
        #[arg(long, default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1024..=4_194_304))]
        avg_size: u32,
        /// Threads; each takes one file at a time
        #[arg(long, default_value_t = 1)]
        threads: usize,
    },
    /// Write a stored directory's files back
    Restore {
        /// Directory of the store
        store: PathBuf,
        /// Directory to write to
        output: PathBuf,
        /// Threads; each takes one file at a time
        #[arg(long, default_value_t = 1)]
        threads: usize,
    },
}

fn main() -> Result<()> {
    let report = match Command::parse() {
        Command::Chunk {
            file,
            avg_size,
            chunks,
        } => chunks::list(&file, avg_size, &chunks)?,
        Command::Ingest {
            store,
            root,
            avg_size,
            threads,
        } => store::ingest(&store, &root, avg_size, threads)?,
        Command::Restore {
            store,
            output,
            threads,
        } => store::restore(&store, &output, threads)?,
    };
    println!("{report}");
    Ok(())
}
