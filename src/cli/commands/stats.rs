//! `zipllm stats CONFIG`: where the store's bytes are.

use clap::Args;

use crate::cli::Outcome;
use crate::cli::place::PlaceArgs;
use crate::cli::terminal::{bytes, counted, escape_line, percent, table};
use crate::report::Coded;
use crate::stats::{self, Group, Stats};
use crate::store::Store;

/// Families that a person is shown.
const FAMILIES: usize = 20;

/// `zipllm stats CONFIG`.
#[derive(Debug, Args)]
#[command(override_usage = "zipllm stats [OPTIONS] <CONFIG | --store DIR>")]
pub struct StatsArgs {
    /// Which store
    #[command(flatten)]
    place: PlaceArgs,
    /// Draw the figures to this file, as its name ends: .svg or .png
    #[cfg(feature = "plot")]
    #[arg(long, value_name = "FILE")]
    plot: Option<std::path::PathBuf>,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: StatsArgs) -> anyhow::Result<Outcome> {
    let place = args.place.find(Vec::new(), &[])?;
    #[cfg(feature = "plot")]
    if let Some(path) = &args.plot {
        crate::cli::plot::prepare(path)?;
    }
    let store = Store::open(&place.storage_dir)?;
    let stats = stats::run(&store, place.threads)?;
    for damage in &stats.damaged {
        super::tell("damage", damage);
    }
    super::print(&super::render(&stats, args.json, describe)?)?;
    #[cfg(feature = "plot")]
    if let Some(path) = &args.plot {
        crate::cli::plot::draw(&stats, path)?;
    }
    let whole = stats.damaged.is_empty() && stats.missing_objects == 0;
    Ok(if whole {
        Outcome::Done
    } else {
        Outcome::Damaged
    })
}

fn describe(stats: &Stats) -> String {
    if stats.models == 0 && stats.objects == 0 {
        return "the store has no models\n".into();
    }
    let share = |part| percent(part, stats.bytes);
    let saved = |coded: Coded| coded.raw_bytes.saturating_sub(coded.stored_bytes);
    let savings = &stats.savings;
    let stages = [
        ("equal files", savings.file_dedup_bytes),
        ("equal tensors", savings.tensor_dedup_bytes),
        ("difference to a base", saved(savings.delta)),
        ("numbers without a base", saved(savings.solo)),
        ("other bytes", saved(savings.plain)),
    ];
    let stages = stages.map(|(name, saved)| vec![name.into(), bytes(saved), share(saved)]);
    let mut text = format!(
        "{} in {}, {} in {} of {} ({})\n\n{}",
        counted(stats.models, "model"),
        counted(stats.versions, "version"),
        bytes(stats.bytes),
        counted(stats.objects, "object"),
        bytes(stats.stored_bytes),
        share(stats.stored_bytes),
        table(&["saved by", "bytes", "share"], &stages),
    );
    text += &format!("\n{}", families(stats));
    text += &format!("\n{}", groups("encoding", &stats.encodings));
    text += &format!("\n{}", groups("dtype", &stats.dtypes));
    text += &format!("\n{}", largest(stats));
    if stats.unused_objects > 0 {
        text += &format!(
            "\nin no model: {} of {}; `zipllm gc` deletes what is no model's base either\n",
            counted(stats.unused_objects, "object"),
            bytes(stats.unused_bytes)
        );
    }
    if stats.missing_objects > 0 {
        text += &format!(
            "\nmodels lack {}; `zipllm check` names what is missing\n",
            counted(stats.missing_objects, "object")
        );
    }
    text
}

fn families(stats: &Stats) -> String {
    let mut families: Vec<_> = stats.families.iter().collect();
    families.sort_by_key(|family| std::cmp::Reverse(family.stored_bytes));
    let rows: Vec<_> = families
        .iter()
        .take(FAMILIES)
        .map(|family| {
            vec![
                if family.root_removed {
                    format!("{} (removed)", family.root)
                } else {
                    family.root.to_string()
                },
                family.models.to_string(),
                bytes(family.bytes),
                bytes(family.stored_bytes),
                percent(family.stored_bytes, family.bytes),
            ]
        })
        .collect();
    let table = table(&["family of", "models", "size", "stored", "ratio"], &rows);
    match families.len().saturating_sub(FAMILIES) {
        0 => table,
        more => format!("{table}and {more} more (--json has all)\n"),
    }
}

fn groups(title: &str, groups: &[Group]) -> String {
    let row = |group: &Group| {
        vec![
            group.name.clone(),
            group.objects.to_string(),
            bytes(group.raw_bytes),
            bytes(group.stored_bytes),
            percent(group.stored_bytes, group.raw_bytes),
        ]
    };
    let rows: Vec<_> = groups.iter().map(row).collect();
    table(&[title, "objects", "size", "stored", "ratio"], &rows)
}

fn largest(stats: &Stats) -> String {
    let rows: Vec<_> = stats
        .largest_unshared
        .iter()
        .map(|object| {
            let tensor = object.tensor.as_deref().unwrap_or_default();
            vec![
                escape_line(&format!("{} {} {tensor}", object.model, object.path)),
                bytes(object.raw_bytes),
                bytes(object.stored_bytes),
                object.encoding.clone(),
            ]
        })
        .collect();
    table(
        &[
            "largest that only one model has",
            "size",
            "stored",
            "encoding",
        ],
        &rows,
    )
}
