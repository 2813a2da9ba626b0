//! `zipllm repair CONFIG`: makes anew what can be made anew.

use std::path::PathBuf;

use clap::Args;

use crate::cli::Outcome;
use crate::cli::place::PlaceArgs;
use crate::cli::progress::Bar;
use crate::cli::terminal::escape_line;
use crate::repair::{self, Options, RepairReport};

/// `zipllm repair CONFIG`.
#[derive(Debug, Args)]
#[command(override_usage = "zipllm repair [OPTIONS] <CONFIG | --store DIR>")]
pub struct RepairArgs {
    /// Which store
    #[command(flatten)]
    place: PlaceArgs,
    /// Where the models' files may still be, in place of the config's `model_dir`
    #[arg(long, value_name = "DIR")]
    model_dir: Option<PathBuf>,
    /// Wait while another process writes to the store
    #[arg(long)]
    wait: bool,
    /// Print what was repaired as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: RepairArgs) -> anyhow::Result<Outcome> {
    let place = args.place.find(Vec::new(), &[])?;
    let of_config = place.config.as_ref().map(|config| config.model_dir.clone());
    let options = Options {
        threads: place.threads,
        encode: place.encode_options(),
        model_dir: args.model_dir.or(of_config),
        wait: args.wait,
    };
    let report = repair::run(&place.storage_dir, &options, &Bar::default())?;
    super::print(&super::render(&report, args.json, describe)?)?;
    Ok(if report.lost.is_empty() {
        Outcome::Done
    } else {
        Outcome::Damaged
    })
}

fn describe(report: &RepairReport) -> String {
    let mut text = String::new();
    for healed in &report.healed {
        let from = escape_line(&healed.from.display().to_string());
        text += &format!("stored anew: object {} from {from}\n", healed.object);
    }
    text += &report
        .lost
        .iter()
        .map(super::check::describe)
        .collect::<String>();
    let index = if report.index_rebuilt {
        "made anew"
    } else {
        "whole"
    };
    text + &format!(
        "the index was {index}; removed {} unfinished files and {} damaged scans; stored {} objects anew; {} problems left, in {:.1} s\n",
        report.temps_removed,
        report.scans_removed,
        report.healed.len(),
        report.lost.len(),
        report.seconds
    )
}
