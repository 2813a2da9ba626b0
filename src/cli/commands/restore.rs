//! `restore CONFIG MODEL OUT`: brings a model back.

use std::path::{Path, PathBuf};

use crate::cli::Outcome;
use crate::cli::args::RestoreArgs;
use crate::cli::place::Usage;
use crate::cli::progress::Bar;
use crate::cli::terminal::{bytes, counted, rate};
use crate::error::ErrorKind;
use crate::report::RestoreReport;
use crate::restore::{self, Options, find_manifest};
use crate::store::Store;

/// Runs the `restore` program.
pub fn run(args: RestoreArgs) -> anyhow::Result<Outcome> {
    let place = args.place.find(args.words, &["MODEL", "OUT"])?;
    let model = place.model(0)?;
    if place.words.get(1).is_some_and(|out| out.is_empty()) {
        return Err(Usage("OUT is empty: name the directory that gets the files".into()).into());
    }
    let store = Store::open(&place.storage_dir)?;
    let manifest = find_manifest(&store, &model)?;
    let options = Options {
        threads: place.threads,
        force: args.force,
    };
    let out = place.words.get(1).map(PathBuf::from).unwrap_or_default();
    let (report, errors) = restore::run(&store, &manifest, &out, options, &Bar::default())?;
    errors
        .iter()
        .for_each(|error| super::tell("error", &error.to_string()));
    if args.json {
        super::print_json(&report)?;
    } else {
        super::print(&summary(&report, &out))?;
    }
    Ok(
        if errors
            .iter()
            .any(|error| error.kind() == ErrorKind::Corrupt)
        {
            Outcome::Damaged
        } else if errors.is_empty() {
            Outcome::Done
        } else {
            Outcome::Failed
        },
    )
}

fn summary(report: &RestoreReport, out: &Path) -> String {
    let right = report.bytes_kept + report.bytes_written;
    let kept = match report.files_kept {
        0 => String::new(),
        kept => format!(", {kept} of them there already"),
    };
    let failed = match report.errors.len() {
        0 => String::new(),
        count => format!("; {} could not be restored", counted(count, "file")),
    };
    format!(
        "restored {} version {} to {}: {}{kept}, {} verified in {:.2} s ({}) with {}{failed}\n",
        report.model,
        report.version,
        out.display(),
        counted(report.files_written + report.files_kept as u64, "file"),
        bytes(right),
        report.seconds,
        rate(right, report.seconds),
        counted(report.threads, "thread"),
    )
}
