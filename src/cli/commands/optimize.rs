//! `zipllm optimize CONFIG`: finds better bases with all that the store knows now.

use clap::Args;

use crate::cli::Outcome;
use crate::cli::args::effort;
use crate::cli::place::PlaceArgs;
use crate::cli::progress::Bar;
use crate::cli::terminal::{bytes, counted, percent};
use crate::codec::EncodeOptions;
use crate::codec::select::Effort;
use crate::optimize::{self, OptimizeReport, Options};
use crate::store::Store;

/// `zipllm optimize CONFIG`.
#[derive(Debug, Args)]
#[command(override_usage = "zipllm optimize [OPTIONS] <CONFIG | --store DIR>")]
pub struct OptimizeArgs {
    /// Which store
    #[command(flatten)]
    place: PlaceArgs,
    /// Only say what would be gained, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Wait while another process writes to the store
    #[arg(long)]
    wait: bool,
    /// How long the encoders may search, in place of the config's: fast, default or max
    #[arg(long, value_parser = effort)]
    effort: Option<Effort>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: OptimizeArgs) -> anyhow::Result<Outcome> {
    let place = args.place.find(Vec::new(), &[])?;
    let encode = place.encode_options();
    let options = Options {
        threads: place.threads,
        encode: EncodeOptions {
            effort: args.effort.unwrap_or(encode.effort),
            ..encode
        },
    };
    let report = if args.dry_run {
        // Nothing is written, so that a store which may only be read, or is written to just now, is no obstacle.
        optimize::dry_run(Store::open(&place.storage_dir)?, options, &Bar::default())?
    } else {
        optimize::run(place.writer(args.wait)?, options, &Bar::default())?
    };
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
        "{verb} the bases of {} of {}, in {} of tensors near each other: {} {became} {} ({}), in {:.1} s with {}\n",
        report.changed,
        counted(report.objects, "object"),
        counted(report.families, "group"),
        bytes(report.bytes_before),
        bytes(report.bytes_after),
        percent(report.bytes_after, report.bytes_before),
        report.seconds,
        counted(report.threads, "thread"),
    )
}
