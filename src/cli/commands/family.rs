//! `zipllm family CONFIG`: shows which models are kept as differences to which.

use clap::Args;

use crate::cli::Outcome;
use crate::cli::place::PlaceArgs;
use crate::cli::terminal::{bytes, percent};
use crate::family::{self, Member, Share};
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

/// What a model takes, and as what: `31.2 MB stored in 4.3 MB: 99 % as differences to a/base (by content)`.
fn describe(member: &Member) -> String {
    let part = |share: &Share| percent(share.bytes, member.bytes);
    let base = |share: &Share| {
        let why = share.why.map(|why| format!(" (by {})", super::why(why)));
        let why = why.unwrap_or_default();
        format!("{} as differences to {}{why}", part(share), share.model)
    };
    let equal = |share: &Share| format!("{} equal to tensors of {}", part(share), share.model);
    let bases = member.bases.iter().map(base);
    // A norm that two models have in common says nothing of a family.
    let told = |share: &&Share| share.bytes.saturating_mul(1000) >= member.bytes;
    let equal = member.equal.iter().filter(told).map(equal);
    let shares: Vec<_> = bases.chain(equal).collect();
    let shares = if shares.is_empty() {
        "on its own".to_owned()
    } else {
        shares.join(", ")
    };
    let (all, stored) = (bytes(member.bytes), bytes(member.stored_bytes));
    format!("{all} stored in {stored}: {shares}")
}
