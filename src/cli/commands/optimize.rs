//! `zipllm optimize CONFIG`: finds better bases with all that the store knows now.

use crate::cli::Outcome;
use crate::cli::args::OptimizeArgs;
use crate::cli::progress::Bar;
use crate::cli::terminal::{bytes, percent};
use crate::codec::EncodeOptions;
use crate::config::Config;
use crate::optimize::{self, OptimizeReport, Options};
use crate::store::{Store, StoreWriter};

pub fn run(args: &OptimizeArgs) -> anyhow::Result<Outcome> {
    let config = Config::load(&args.config)?;
    // A store that is not there is not to be made.
    Store::open(&config.storage_dir)?;
    let writer = StoreWriter::open(&config.storage_dir)?;
    let options = Options {
        threads: args.threads.unwrap_or(config.threads),
        encode: EncodeOptions {
            effort: args.effort.unwrap_or(config.effort),
            ..config.encode_options()
        },
        dry_run: args.dry_run,
    };
    let report = optimize::run(writer, options, &Bar::default())?;
    report
        .errors
        .iter()
        .for_each(|error| super::tell("error", error));
    if args.json {
        super::print_json(&report)?;
    } else {
        super::print(&summary(&report))?;
    }
    Ok(if report.errors.is_empty() {
        Outcome::Done
    } else {
        Outcome::Damaged
    })
}

fn summary(report: &OptimizeReport) -> String {
    let (verb, became) = if report.dry_run {
        ("would change", "would become about")
    } else {
        ("changed", "became")
    };
    format!(
        "{verb} the bases of {} of {} objects, in {} families: {} {became} {} ({}), in {:.1} s with {} threads\n",
        report.changed,
        report.objects,
        report.families,
        bytes(report.bytes_before),
        bytes(report.bytes_after),
        percent(report.bytes_after, report.bytes_before),
        report.seconds,
        report.threads,
    )
}
