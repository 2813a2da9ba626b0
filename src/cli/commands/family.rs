//! `zipllm family CONFIG`: shows which models are kept as differences to which.

use clap::Args;

use crate::cli::Outcome;
use crate::cli::place::PlaceArgs;
use crate::cli::terminal::{bytes, percent};
use crate::family::{self, Member};
use crate::store::Store;

/// `zipllm family CONFIG`.
#[derive(Debug, Args)]
#[command(override_usage = "zipllm family [OPTIONS] <CONFIG | --store DIR>")]
pub struct FamilyArgs {
    /// Which store
    #[command(flatten)]
    place: PlaceArgs,
    /// Print the families as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: FamilyArgs) -> anyhow::Result<Outcome> {
    let place = args.place.find(Vec::new(), &[])?;
    let report = family::run(&Store::open(&place.storage_dir)?)?;
    report
        .errors
        .iter()
        .for_each(|error| super::tell("error", error));
    if args.json {
        super::print_json(&report)?;
    } else {
        super::print(&report.trees(describe))?;
    }
    Ok(if report.errors.is_empty() {
        Outcome::Done
    } else {
        Outcome::Damaged
    })
}

fn describe(member: &Member) -> String {
    let shares = member.bases.iter().map(|share| {
        let part = percent(share.bytes, member.bytes);
        format!("{part} against {}", share.model)
    });
    let shares: Vec<_> = shares.collect();
    let shares = if shares.is_empty() {
        "alone".to_owned()
    } else {
        shares.join(", ")
    };
    format!("{} ({shares})", bytes(member.bytes))
}
