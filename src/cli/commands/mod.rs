//! One file a verb.

pub mod add;
pub mod cat;
pub mod check;
mod compress;
pub mod copy;
mod delete_source;
pub mod diff;
#[cfg(feature = "hub")]
mod download;
#[cfg(not(feature = "hub"))]
#[path = "no_download.rs"]
mod download;
pub mod estimate;
pub mod family;
pub mod gc;
mod left_out;
pub mod list;
pub mod optimize;
mod recode;
pub mod remove;
pub mod rename;
pub mod repair;
pub mod restore;
pub mod stats;

use std::io::{self, Write};

use anyhow::Context;
use serde::Serialize;

use super::Outcome;
use super::args::{ZipllmArgs, ZipllmCommand};
use super::terminal::{escape, escape_line, peak_memory};
use crate::store::manifest::Why;

/// Runs the `zipllm` program.
pub fn zipllm(args: ZipllmArgs) -> anyhow::Result<Outcome> {
    match args.command {
        Some(ZipllmCommand::List(args)) => list::run(args),
        Some(ZipllmCommand::Stats(args)) => stats::run(args),
        Some(ZipllmCommand::Check(args)) => check::run(args),
        Some(ZipllmCommand::Cat(args)) => cat::run(args),
        Some(ZipllmCommand::Diff(args)) => diff::run(args),
        Some(ZipllmCommand::Add(args)) => add::run(args),
        Some(ZipllmCommand::Remove(args)) => remove::run(args),
        Some(ZipllmCommand::Rename(args)) => rename::run(args),
        Some(ZipllmCommand::Copy(args)) => copy::run(args),
        Some(ZipllmCommand::Repair(args)) => repair::run(args),
        Some(ZipllmCommand::Gc(args)) => gc::run(args),
        Some(ZipllmCommand::Download(args)) => download::run(args),
        Some(ZipllmCommand::Optimize(args)) => optimize::run(args),
        Some(ZipllmCommand::Family(args)) => family::run(args),
        Some(ZipllmCommand::Estimate(args)) => estimate::run(args),
        Some(ZipllmCommand::Recode(args)) => recode::run(args),
        None => compress::run(args.compress),
    }
}

/// A report with what only the process knows.
#[derive(Serialize)]
struct Document<'a, R> {
    #[serde(flatten)]
    report: &'a R,
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_memory_bytes: Option<u64>,
}

/// Prints a report as one JSON document on stdout.
fn print_json(report: &impl Serialize) -> anyhow::Result<()> {
    print(&json(report)?)
}

/// A report as one JSON document, or in words.
fn render<R: Serialize>(
    report: &R,
    as_json: bool,
    words: impl FnOnce(&R) -> String,
) -> anyhow::Result<String> {
    if as_json {
        json(report)
    } else {
        Ok(words(report))
    }
}

/// A report as one JSON document.
fn json(report: &impl Serialize) -> anyhow::Result<String> {
    let document = Document {
        report,
        peak_memory_bytes: peak_memory(),
    };
    let mut text = serde_json::to_string_pretty(&document)?;
    text.push('\n');
    Ok(text)
}

/// Prints text on stdout; names in it cannot steer the terminal. That nobody reads on is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let written = out.write_all(escape(text).as_bytes());
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to the standard output"),
    }
}

/// Prints a line on stderr.
fn tell(kind: &str, text: &str) {
    let _ = writeln!(io::stderr(), "{kind}: {}", escape_line(text));
}

/// The word for why a base was chosen.
fn why(why: Why) -> &'static str {
    match why {
        Why::Hint => "hint",
        Why::Name => "name",
        Why::Content => "content",
    }
}
