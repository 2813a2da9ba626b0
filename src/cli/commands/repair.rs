//! `zipllm repair CONFIG`: makes anew what can be made anew.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;

use crate::cli::Outcome;
use crate::cli::place::{PlaceArgs, Usage};
use crate::cli::progress::Bar;
use crate::cli::terminal::{counted, escape_line};
use crate::repair::{self, Options, RepairReport};

/// Versions of models that a person is told to remove.
const VERSIONS: usize = 20;

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
    if let Some(dir) = args.model_dir.as_ref().filter(|dir| !dir.is_dir()) {
        let reason = format!("--model-dir: {} is not a directory", dir.display());
        return Err(Usage(reason).into());
    }
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
    text += &what_next(report);
    if report.marker_rewritten {
        text += "zipllm.json was damaged or missing and is written anew\n";
    }
    let index = if report.index_rebuilt {
        "made anew"
    } else {
        "whole"
    };
    text + &format!(
        "the index was {index}; removed {} and {}; stored {} anew; {} left, in {:.1} s\n",
        counted(report.temps_removed, "unfinished file"),
        counted(report.scans_removed, "damaged scan"),
        counted(report.healed.len(), "object"),
        counted(report.lost.len(), "problem"),
        report.seconds
    )
}

/// Says how what is lost may still be had, and how it is given up.
fn what_next(report: &RepairReport) -> String {
    let hurts = report.lost.iter().flat_map(|damage| &damage.hurts);
    let version = |file: &String| file.split(':').next().unwrap_or_default().to_owned();
    let versions: BTreeSet<_> = hurts.map(version).collect();
    if versions.is_empty() {
        return String::new();
    }
    let shown: Vec<_> = versions.iter().take(VERSIONS).cloned().collect();
    let more = if versions.len() > VERSIONS {
        " ..."
    } else {
        ""
    };
    format!(
        "to get it back: bring back the models' files, and repair with --model-dir DIR, the directory that has them as \
         DIR/org/name\nto give it up: zipllm remove {}{more}, then zipllm gc\n",
        escape_line(&shown.join(" "))
    )
}
