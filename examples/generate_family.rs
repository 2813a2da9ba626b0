//! Writes a generated family of Llama-like models, with the settings to store them: for measurements of speed and memory
//! at a wanted size, without network.
//!
//!     cargo run --release --example generate_family -- DIR --layers 4
//!
//! A base, a typical and a light fine-tune, a merged low-rank one, one of the last layer, a copy of the base, and the
//! base in F32: 1 GB together at 4 layers, and 0.18 GB more a layer. Needs memory for about four models.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example talks to its user"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use support::weights::Size;
use support::{family, tree};

/// A model of 124 MB in BF16 at 4 layers.
const SIZE: Size = Size {
    hidden: 1024,
    inner: 2816,
    key_value: 256,
    layers: 4,
    vocabulary: 16_384,
};

/// Writes a generated family of models, with the settings to store them
#[derive(Parser)]
struct Arguments {
    /// The directory to write to; must be empty or not there.
    dir: PathBuf,
    /// Layers of a model.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    layers: u16,
    /// Elements in most rows, a multiple of 128; the rest of the size follows, but for the vocabulary.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u16).range(128..=16_384))]
    hidden: u16,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("generate_family: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let directory = &arguments.dir;
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    ensure!(
        fs::read_dir(directory)?.next().is_none(),
        "{} is not empty",
        directory.display()
    );
    let hidden = usize::from(arguments.hidden / 128 * 128);
    let size = Size {
        hidden,
        inner: hidden * SIZE.inner / SIZE.hidden,
        key_value: hidden * SIZE.key_value / SIZE.hidden,
        layers: arguments.layers.into(),
        ..SIZE
    };
    let models = family::write(&directory.join("models"), &size)
        .with_context(|| format!("cannot write the family to {}", directory.display()))?;
    let config = family::write_batch(directory, Path::new("./models"), 0, &models)
        .context("cannot write the settings")?;
    let mut bytes = 0;
    for model in &models {
        bytes += tree::bytes(&model.directory)?;
    }
    println!(
        "{} models, {bytes} bytes: {}",
        models.len(),
        config.display()
    );
    Ok(())
}
