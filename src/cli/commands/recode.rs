//! `zipllm recode CONFIG`: encodes anew what today's settings make smaller.

use crate::cli::Outcome;
use crate::cli::args::RecodeArgs;
use crate::cli::progress::Bar;
use crate::cli::terminal::{bytes, counted, percent};
use crate::codec::EncodeOptions;
use crate::recode::{self, Options, RecodeReport};

pub fn run(args: RecodeArgs) -> anyhow::Result<Outcome> {
    let place = args.place.find(Vec::new(), &[])?;
    let writer = place.writer(args.wait)?;
    let encode = place.encode_options();
    let options = Options {
        threads: place.threads,
        encode: EncodeOptions {
            effort: args.effort.unwrap_or(encode.effort),
            ..encode
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
        "tried {} of {}, replaced {}: {} became {} ({}), in {:.1} s with {}\n",
        report.tried,
        counted(report.objects, "object"),
        report.replaced,
        bytes(report.bytes_before),
        bytes(report.bytes_after),
        percent(report.bytes_after, report.bytes_before),
        report.seconds,
        counted(report.threads, "thread"),
    )
}
