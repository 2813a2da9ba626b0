//! Where the binaries are that were built together with an example.

use std::env::consts::EXE_SUFFIX;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

/// Returns the path of a binary of this crate: it lies one directory above the examples.
pub fn find(name: &str) -> Result<PathBuf> {
    let example = std::env::current_exe().context("cannot find this program's own path")?;
    let directory = example
        .parent()
        .and_then(|examples| examples.parent())
        .context("this example is not in a target directory")?;
    let program = directory.join(format!("{name}{EXE_SUFFIX}"));
    ensure!(
        program.is_file(),
        "{} is not built; run `cargo build --release --bins --examples`",
        program.display()
    );
    Ok(program)
}
