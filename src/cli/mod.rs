//! The command line: arguments, logging, progress, and what is printed. Everything else is the library's.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 something stored is damaged; shells add 130 for Ctrl-C.

mod args;
mod commands;
mod interrupt;
mod limits;
mod logging;
mod place;
#[cfg(feature = "plot")]
mod plot;
mod progress;
mod terminal;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind as ClapKind;

use crate::error::{Error, ErrorKind};

/// Runs the `zipllm` program on the process's arguments.
pub fn main_zipllm() -> ExitCode {
    if let Some(reason) = std::env::args_os()
        .nth(1)
        .and_then(|word| args::unknown_command(&word))
    {
        let _ = writeln!(io::stderr(), "error: {}", terminal::escape_line(&reason));
        return ExitCode::from(2);
    }
    let left = "stored models are whole, and a new run goes on from there";
    main_with::<args::ZipllmArgs>(left, commands::zipllm)
}

/// Runs the `restore` program on the process's arguments.
pub fn main_restore() -> ExitCode {
    let left = "files that are there are whole, and a new run restores the others";
    main_with::<args::RestoreArgs>(left, commands::restore::run)
}

/// How a command ended, when it did not end with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Failed,
    Damaged,
}

/// Runs a command; `left` says what one that is interrupted leaves.
fn main_with<A: Parser>(
    left: &'static str,
    command: impl FnOnce(A) -> anyhow::Result<Outcome>,
) -> ExitCode {
    let args = match A::try_parse_from(std::env::args_os().collect::<Vec<OsString>>()) {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    logging::start();
    interrupt::watch(left);
    limits::raise();
    ExitCode::from(match command(args) {
        Ok(Outcome::Done) => 0,
        Ok(Outcome::Failed) => 1,
        Ok(Outcome::Damaged) => 3,
        Err(error) => report(&error),
    })
}

/// Prints help to stdout, and what is wrong with the arguments to stderr.
fn usage(error: &clap::Error) -> ExitCode {
    // A closed pipe is the reader's choice.
    let _ = error.print();
    match error.kind() {
        ClapKind::DisplayHelp | ClapKind::DisplayVersion => ExitCode::SUCCESS,
        _ => ExitCode::from(2),
    }
}

/// Prints an error and returns the exit code that it means.
fn report(error: &anyhow::Error) -> u8 {
    if let Some(error) = error.downcast_ref::<clap::Error>() {
        // A closed pipe is the reader's choice.
        let _ = error.print();
        return 2;
    }
    let ours = error.downcast_ref::<Error>();
    // Our own errors name their cause themselves.
    let text = ours.map_or_else(|| format!("{error:#}"), Error::to_string);
    let _ = writeln!(io::stderr(), "error: {}", terminal::escape_line(&text));
    if error.is::<place::Usage>() {
        return 2;
    }
    match ours {
        Some(Error::Config { .. }) => 2,
        Some(error) if error.kind() == ErrorKind::Corrupt => 3,
        _ => 1,
    }
}
