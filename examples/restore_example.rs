//! Restores a model with the library instead of the `restore` program.
//!
//!     cargo run --release --example restore_example -- STORE MODEL OUT
//!
//! `STORE` is the `storage_dir` of a config file, `MODEL` is `org/name`, or `org/name@VERSION` for an older version.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::path::Path;

use anyhow::{Result, bail};
use zipllm::report::NoMonitor;
use zipllm::restore::{self, ModelVersion, Options, find_manifest};
use zipllm::store::Store;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, model, out] = arguments.as_slice() else {
        bail!("usage: restore_example STORE MODEL OUT");
    };

    // Reading takes no lock: any number of programs may do it, also while models are stored.
    let store = Store::open(Path::new(store))?;
    let wanted: ModelVersion = model.parse()?;
    // The manifest lists the model's files; an unknown model is an error that names the nearest ones.
    let manifest = find_manifest(&store, &wanted)?;
    let options = Options {
        threads: 2,
        force: false,
    };
    // Every byte is verified on the way. A file that is damaged is an error of its own; the others are restored.
    let (report, errors) = restore::run(&store, &manifest, Path::new(out), options, &NoMonitor)?;
    for error in &errors {
        println!("{error}");
    }
    if !errors.is_empty() {
        bail!(
            "{} of {} files could not be restored",
            errors.len(),
            report.files
        );
    }
    println!(
        "restored {} files of {} version {}",
        report.files, report.model, report.version
    );
    Ok(())
}
