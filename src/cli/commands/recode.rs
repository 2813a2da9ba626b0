//! `zipllm recode CONFIG`: encodes anew what today's settings make smaller.

use crate::cli::Outcome;
use crate::cli::args::RecodeArgs;
use crate::cli::progress::Bar;
use crate::cli::terminal::{bytes, percent};
use crate::codec::EncodeOptions;
use crate::config::Config;
use crate::recode::{self, Options, RecodeReport};
use crate::store::{Store, StoreWriter};

pub fn run(args: &RecodeArgs) -> anyhow::Result<Outcome> {
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
        all: args.all,
    };
    let report = recode::run(writer, options, &Bar::default())?;
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

fn summary(report: &RecodeReport) -> String {
    format!(
        "tried {} of {} objects, replaced {}: {} became {} ({}), in {:.1} s with {} threads\n",
        report.tried,
        report.objects,
        report.replaced,
        bytes(report.bytes_before),
        bytes(report.bytes_after),
        percent(report.bytes_after, report.bytes_before),
        report.seconds,
        report.threads,
    )
}
