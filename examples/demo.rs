//! Writes a small family of models, stores it with `zipllm`, restores each with `restore`, and compares every byte.
//!
//!     cargo build --release --bins --examples && ./target/release/examples/demo
//!
//! Needs no network: one family is generated, the other is the cut of a real one in `testdata/real`. The exit code is 1 if
//! anything came back different.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example talks to its user"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;

use support::family::{self, Model};
use support::weights::Size;
use support::{programs, tree};

/// A model of 12.6 MB in BF16.
const SIZE: Size = Size {
    hidden: 384,
    inner: 1024,
    key_value: 128,
    layers: 3,
    vocabulary: 4096,
};
/// The file that says that a directory may be deleted and written anew.
const MARKER: &str = "written-by-the-demo";
const REAL_BASE: &str = "acme/smol-15m";

#[derive(Parser)]
#[command(about = "Stores and restores a small family of models and compares every byte")]
struct Arguments {
    /// The directory to write to; one that an earlier demo wrote is replaced.
    #[arg(long, default_value = "target/demo")]
    dir: PathBuf,
}

fn main() -> ExitCode {
    match run(&Arguments::parse().dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(directory: &Path) -> Result<()> {
    let (zipllm, restore) = (programs::find("zipllm")?, programs::find("restore")?);
    start_afresh(directory)?;
    let started = Instant::now();
    let mut models =
        family::write(&directory.join("models"), &SIZE).context("cannot write the family")?;
    models.extend(copy_real(&directory.join("models"))?);
    let config = family::write_batch(directory, Path::new("models"), 0, &models)
        .context("cannot write the settings")?;
    println!(
        "wrote {} models to {} ({:.1} s)\n",
        models.len(),
        directory.display(),
        started.elapsed().as_secs_f64()
    );

    println!("$ zipllm {}", config.display());
    let status = Command::new(&zipllm)
        .arg(&config)
        .status()
        .context("cannot start zipllm")?;
    ensure!(status.success(), "zipllm failed: {status}");

    println!(
        "\n$ restore {} MODEL {}",
        config.display(),
        directory.join("restored/MODEL").display()
    );
    let mut wrong = 0;
    for model in &models {
        let out = directory.join("restored").join(&model.id);
        wrong += usize::from(!comes_back(&restore, &config, model, &out)?);
    }
    ensure!(
        wrong == 0,
        "{wrong} of {} models did not come back as they were",
        models.len()
    );
    summary(directory, &models)
}

fn start_afresh(directory: &Path) -> Result<()> {
    if directory.join(MARKER).is_file() {
        fs::remove_dir_all(directory)
            .with_context(|| format!("cannot delete {}", directory.display()))?;
    }
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    ensure!(
        fs::read_dir(directory)?.next().is_none(),
        "{} is not empty and not from an earlier demo",
        directory.display()
    );
    fs::write(
        directory.join(MARKER),
        "The demo may delete this directory.\n",
    )?;
    Ok(())
}

/// Copies the cut of the real family to `models`.
fn copy_real(models: &Path) -> Result<Vec<Model>> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/real");
    let list = fs::read_to_string(source.join("models.txt"))
        .context("cannot read testdata/real/models.txt")?;
    let ids = list
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let copied = ids.map(|id| {
        let name = id.replacen('/', "_", 1);
        let directory = models.join(&name);
        for file in tree::files(&source.join("models").join(&name))?.keys() {
            fs::create_dir_all(&directory)?;
            fs::copy(
                source.join("models").join(&name).join(file),
                directory.join(file),
            )?;
        }
        Ok(Model {
            id: id.to_owned(),
            directory,
            base: (id != REAL_BASE).then(|| REAL_BASE.to_owned()),
        })
    });
    copied
        .collect::<std::io::Result<_>>()
        .context("cannot copy testdata/real")
}

/// Restores one model and prints how that went.
fn comes_back(restore: &Path, config: &Path, model: &Model, out: &Path) -> Result<bool> {
    let started = Instant::now();
    let output = Command::new(restore)
        .arg(config)
        .arg(&model.id)
        .arg(out)
        .output()
        .context("cannot start restore")?;
    let seconds = started.elapsed().as_secs_f64();
    if !output.status.success() {
        println!(
            "{:<34} restore failed: {}\n{}",
            model.id,
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        return Ok(false);
    }
    let differences = tree::differences(&model.directory, out)
        .with_context(|| format!("cannot compare {}", model.id))?;
    let verdict = if differences.is_empty() {
        "identical"
    } else {
        "DIFFERENT"
    };
    let files = tree::files(&model.directory)?.len();
    println!(
        "{:<34} {files:>3} files {:>7.1} MB {seconds:>6.2} s  {verdict}",
        model.id,
        megabytes(tree::bytes(&model.directory)?)
    );
    for difference in &differences {
        println!("    {difference}");
    }
    Ok(differences.is_empty())
}

fn summary(directory: &Path, models: &[Model]) -> Result<()> {
    let mut original = 0;
    for model in models {
        original += tree::bytes(&model.directory)?;
    }
    let stored = tree::bytes(&directory.join("store"))?;
    if stored == 0 || original == 0 {
        bail!("the store is empty");
    }
    let (original, stored) = (megabytes(original), megabytes(stored));
    println!(
        "\n{} models of {original:.1} MB lie in a store of {stored:.1} MB ({:.1} %); every byte came back.",
        models.len(),
        100.0 * stored / original
    );
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
