//! One file a verb.

mod check;
mod compress;
#[cfg(feature = "hub")]
pub mod download;
mod optimize;
mod recode;
pub mod restore;

use std::io::{self, Write};

use serde::Serialize;

use super::Outcome;
use super::args::{ZipllmArgs, ZipllmCommand};
use super::terminal::{escape, escape_line, peak_memory};

/// Runs the `zipllm` program.
pub fn zipllm(args: ZipllmArgs) -> anyhow::Result<Outcome> {
    match args.command {
        Some(ZipllmCommand::Check(args)) => check::run(&args),
        #[cfg(feature = "hub")]
        Some(ZipllmCommand::Download(args)) => download::run(args),
        Some(ZipllmCommand::Optimize(args)) => optimize::run(&args),
        Some(ZipllmCommand::Recode(args)) => recode::run(&args),
        None => compress::run(&args.compress),
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
    let document = Document {
        report,
        peak_memory_bytes: peak_memory(),
    };
    let mut text = serde_json::to_string_pretty(&document)?;
    text.push('\n');
    print(&text)
}

/// Prints text on stdout; names in it cannot steer the terminal. That nobody reads on is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let written = out.write_all(escape(text).as_bytes());
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Prints a line on stderr.
fn tell(kind: &str, text: &str) {
    let _ = writeln!(io::stderr(), "{kind}: {}", escape_line(text));
}
