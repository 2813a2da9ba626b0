//! `restore CONFIG MODEL OUT`: brings a model back.

use crate::cli::Outcome;
use crate::cli::args::RestoreArgs;
use crate::cli::progress::Bar;
use crate::cli::terminal::{bytes, rate};
use crate::config::Config;
use crate::error::ErrorKind;
use crate::report::RestoreReport;
use crate::restore::{self, Options, find_manifest};
use crate::store::Store;

/// Runs the `restore` program.
pub fn run(args: RestoreArgs) -> anyhow::Result<Outcome> {
    let config = Config::load(&args.config)?;
    let store = Store::open(&config.storage_dir)?;
    let manifest = find_manifest(&store, &args.model)?;
    let options = Options {
        threads: args.threads.unwrap_or(config.threads),
        force: args.force,
    };
    let (report, errors) = restore::run(&store, &manifest, &args.out, options, &Bar::default())?;
    errors
        .iter()
        .for_each(|error| super::tell("error", &error.to_string()));
    if args.json {
        super::print_json(&report)?;
    } else {
        super::print(&summary(&report, &args))?;
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

fn summary(report: &RestoreReport, args: &RestoreArgs) -> String {
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
        args.out.display(),
        report.files_written + report.files_kept as u64,
        bytes(right),
        report.seconds,
        rate(right, report.seconds),
        report.threads,
    )
}
