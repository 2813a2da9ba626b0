//! `zipllm remove CONFIG MODEL...`: takes models out of the store.

use std::ffi::OsString;

use clap::Args;

use crate::cli::Outcome;
use crate::cli::place::PlaceArgs;
use crate::remove::{self, RemoveReport};

/// `zipllm remove CONFIG MODEL...`.
#[derive(Debug, Args)]
#[command(override_usage = "zipllm remove [OPTIONS] <CONFIG | --store DIR> <MODEL[@VERSION]>...")]
pub struct RemoveArgs {
    /// Which store
    #[command(flatten)]
    place: PlaceArgs,
    /// The models: org/name with all its versions, or org/name@VERSION
    #[arg(value_name = "MODEL")]
    words: Vec<OsString>,
    /// Wait while another process writes to the store
    #[arg(long)]
    wait: bool,
    /// Print what was removed as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: RemoveArgs) -> anyhow::Result<Outcome> {
    let place = args.place.find(args.words, &["MODEL..."])?;
    let models = place.models()?;
    let report = remove::run(place.writer(args.wait)?, &models)?;
    super::print(&super::render(&report, args.json, describe)?)?;
    Ok(Outcome::Done)
}

fn describe(report: &RemoveReport) -> String {
    let lines = report.removed.iter().map(|one| format!("removed {one}\n"));
    lines.collect::<String>() + "`zipllm gc` frees their space\n"
}
