//! `zipllm check CONFIG`: tells whether the store is whole.

use clap::Args;

use crate::check::{self, CheckReport, Options};
use crate::cli::Outcome;
use crate::cli::place::PlaceArgs;
use crate::cli::progress::Bar;
use crate::cli::terminal::{bytes, escape_line, rate};
use crate::store::Store;

/// `zipllm check CONFIG`.
#[derive(Debug, Args)]
#[command(override_usage = "zipllm check [OPTIONS] <CONFIG | --store DIR>")]
pub struct CheckArgs {
    /// Which store
    #[command(flatten)]
    place: PlaceArgs,
    /// Decode every object and compare it with its name
    #[arg(long)]
    read_data: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: CheckArgs) -> anyhow::Result<Outcome> {
    let place = args.place.find(Vec::new(), &[])?;
    let store = Store::open(&place.storage_dir)?;
    let options = Options {
        threads: place.threads,
        read_data: args.read_data,
    };
    let report = check::run(&store, options, &Bar::default())?;
    if args.json {
        super::print_json(&report)?;
    } else {
        super::print(&summary(&report, args.read_data))?;
    }
    Ok(if report.is_damaged() {
        Outcome::Damaged
    } else {
        Outcome::Done
    })
}

fn summary(report: &CheckReport, read_data: bool) -> String {
    let mut text = String::new();
    for warning in &report.warnings {
        text += &format!("note: {}\n", escape_line(warning));
    }
    for damage in &report.damage {
        text += &format!("damage: {}\n", escape_line(&damage.reason));
        for file in &damage.hurts {
            text += &format!("  cannot be restored: {}\n", escape_line(file));
        }
    }
    let read = if read_data {
        format!(
            ", {} read and verified ({})",
            bytes(report.bytes_read),
            rate(report.bytes_read, report.seconds)
        )
    } else {
        ", structure only (--read-data reads everything)".into()
    };
    let verdict = if report.is_damaged() {
        format!("{} problems", report.damage.len())
    } else {
        "no damage".into()
    };
    text += &format!(
        "{verdict}: {} models in {} versions, {} objects{read}, in {:.1} s\n",
        report.models, report.versions, report.objects, report.seconds
    );
    text
}
