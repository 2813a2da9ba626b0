//! `restore CONFIG MODEL OUT`: brings a model back.

use std::path::{Path, PathBuf};

use crate::cli::Outcome;
use crate::cli::args::RestoreArgs;
use crate::cli::progress::Bar;
use crate::cli::terminal::{bytes, rate};
use crate::error::ErrorKind;
use crate::report::RestoreReport;
use crate::restore::{self, Options, find_manifest};
use crate::store::Store;

/// Runs the `restore` program.
pub fn run(args: RestoreArgs) -> anyhow::Result<Outcome> {
    let place = args.place.find(args.words, &["MODEL", "OUT"])?;
    let model = place.model(0)?;
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
        count => format!("; {count} files could not be restored"),
    };
    format!(
        "restored {} version {} to {}: {} files{kept}, {} verified in {:.2} s ({}) with {} threads{failed}\n",
        report.model,
        report.version,
        out.display(),
        report.files_written + report.files_kept as u64,
        bytes(right),
        report.seconds,
        rate(right, report.seconds),
        report.threads,
    )
}
