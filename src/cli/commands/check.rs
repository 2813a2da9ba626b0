//! `zipllm check CONFIG`: tells whether the store is whole.

use clap::Args;

use crate::check::{self, CheckReport, Damage, Options, Subset};
use crate::cli::Outcome;
use crate::cli::place::PlaceArgs;
use crate::cli::progress::Bar;
use crate::cli::terminal::{bytes, counted, escape_line, rate};
use crate::store::Store;

/// Files that a person is shown of those that one object hurts.
const FILES: usize = 20;

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
    /// Decode only the Nth of M parts of all objects; M runs with different N decode all
    #[arg(long, value_name = "N/M", value_parser = subset, requires = "read_data")]
    subset: Option<Subset>,
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
        subset: args.subset,
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

/// Parses N/M.
fn subset(text: &str) -> Result<Subset, String> {
    let bad = || "has to be N/M with N from 1 to M".to_owned();
    let (number, of) = text.split_once('/').ok_or_else(bad)?;
    let number: u64 = number.parse().map_err(|_| bad())?;
    let of: u64 = of.parse().map_err(|_| bad())?;
    if (1..=of).contains(&number) {
        Ok(Subset { number, of })
    } else {
        Err(bad())
    }
}

/// Describes one damaged thing, and what it hurts.
pub fn describe(damage: &Damage) -> String {
    let mut text = format!("damage: {}\n", escape_line(&damage.reason));
    for file in damage.hurts.iter().take(FILES) {
        text += &format!("  cannot be restored: {}\n", escape_line(file));
    }
    match damage.hurts.len().saturating_sub(FILES) {
        0 => text,
        more => text + &format!("  and {} (--json names all)\n", counted(more, "more file")),
    }
}

fn summary(report: &CheckReport, read_data: bool) -> String {
    let mut text = String::new();
    for warning in &report.warnings {
        text += &format!("note: {}\n", escape_line(warning));
    }
    text += &report.damage.iter().map(describe).collect::<String>();
    if report.damage.iter().any(|damage| !damage.hurts.is_empty()) {
        text += "to heal it: `zipllm repair` stores anew what the models' files still have, and lists what is lost\n";
    }
    let read = if read_data {
        format!(
            ", {} of them, {}, read and verified ({})",
            report.objects_read,
            bytes(report.bytes_read),
            rate(report.bytes_read, report.seconds)
        )
    } else {
        ", structure only (--read-data reads everything)".into()
    };
    let verdict = if report.is_damaged() {
        counted(report.damage.len(), "problem")
    } else {
        "no damage".into()
    };
    text += &format!(
        "{verdict}: {} in {}, {}{read}, in {:.1} s\n",
        counted(report.models, "model"),
        counted(report.versions, "version"),
        counted(report.objects, "object"),
        report.seconds
    );
    text
}
