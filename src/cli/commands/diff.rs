//! `zipllm diff CONFIG MODEL MODEL`: what two models have in common.

use std::ffi::OsString;

use clap::Args;

use crate::cli::Outcome;
use crate::cli::place::PlaceArgs;
use crate::cli::terminal::{bytes, escape_line, table};
use crate::diff::{self, DiffReport, ResizedTensor, TensorPlace};
use crate::store::Store;

/// `zipllm diff CONFIG MODEL MODEL`.
#[derive(Debug, Args)]
#[command(
    override_usage = "zipllm diff [OPTIONS] <CONFIG | --store DIR> <MODEL[@VERSION]> <MODEL[@VERSION]>"
)]
pub struct DiffArgs {
    /// Which store
    #[command(flatten)]
    place: PlaceArgs,
    /// Two models, or two versions of one, as org/name or org/name@VERSION
    #[arg(value_name = "MODEL MODEL")]
    words: Vec<OsString>,
    /// Print the differences as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: DiffArgs) -> anyhow::Result<Outcome> {
    let place = args.place.find(args.words, &["MODEL", "MODEL"])?;
    let (from, to) = (place.model(0)?, place.model(1)?);
    let store = Store::open(&place.storage_dir)?;
    let report = diff::run(&store, &from, &to, place.threads)?;
    super::print(&super::render(&report, args.json, describe)?)?;
    Ok(Outcome::Done)
}

fn describe(report: &DiffReport) -> String {
    let mut text = format!(
        "from {} to {}\nfiles: {} equal, {} changed, {} added, {} removed\n",
        report.from,
        report.to,
        report.equal_files,
        report.changed_files.len(),
        report.added_files.len(),
        report.removed_files.len()
    );
    for (sign, paths) in [
        ('~', &report.changed_files),
        ('+', &report.added_files),
        ('-', &report.removed_files),
    ] {
        let lines = paths
            .iter()
            .map(|path| format!("  {sign} {}\n", escape_line(path.as_str())));
        text += &lines.collect::<String>();
    }
    let is_cast = |one: &&ResizedTensor| one.from.shape == one.to.shape;
    let cast = report.resized.iter().filter(is_cast).count();
    let share = report.equal_share.map_or_else(String::new, |share| {
        format!("; {:.2} % of the weights compared are equal", 100.0 * share)
    });
    text += &format!(
        "tensors: {} equal ({}), {} changed, {} resized, {cast} of another dtype, {} added, {} removed{share}\n",
        report.equal_tensors,
        bytes(report.equal_bytes),
        report.changed.len(),
        report.resized.len() - cast,
        report.added.len(),
        report.removed.len(),
    );
    text += &changed(report);
    for resized in &report.resized {
        text += &format!("  ~ {} was {}\n", shown(&resized.to), form(&resized.from));
    }
    for (sign, places) in [('+', &report.added), ('-', &report.removed)] {
        let lines = places
            .iter()
            .map(|place| format!("  {sign} {}\n", shown(place)));
        text += &lines.collect::<String>();
    }
    text
}

fn changed(report: &DiffReport) -> String {
    if report.changed.is_empty() {
        return String::new();
    }
    let header = [
        "changed",
        "dtype and shape",
        "equal weights",
        "bits apart",
        "distance",
    ];
    let rows: Vec<_> = report
        .changed
        .iter()
        .map(|one| {
            let distance = one.distance.relative_distance;
            vec![
                format!("  {}", escape_line(&one.place.tensor)),
                form(&one.place),
                format!("{:.2} %", 100.0 * one.distance.equal_share),
                format!("{:.3}", one.distance.bit_distance),
                distance.map_or_else(|| "-".into(), |distance| format!("{distance:.2e}")),
            ]
        })
        .collect();
    table(&header, &rows)
}

fn shown(place: &TensorPlace) -> String {
    format!("{} {}", escape_line(&place.tensor), form(place))
}

fn form(place: &TensorPlace) -> String {
    let shape: Vec<_> = place.shape.iter().map(u64::to_string).collect();
    format!("{} {}", escape_line(&place.dtype), shape.join("x"))
}
