//! `zipllm list CONFIG [MODEL]`: what is in the store.

use std::ffi::OsString;

use clap::Args;

use crate::cli::Outcome;
use crate::cli::place::PlaceArgs;
use crate::cli::terminal::{bytes, counted, escape_line, percent, table};
use crate::list::{self, FileDetail, ModelDetail, ModelList, SegmentDetail, Stored};
use crate::store::Store;
use crate::survey::ModelRow;

/// `zipllm list CONFIG [MODEL]`.
#[derive(Debug, Args)]
#[command(override_usage = "zipllm list [OPTIONS] <CONFIG | --store DIR> [MODEL]")]
pub struct ListArgs {
    /// Which store
    #[command(flatten)]
    place: PlaceArgs,
    /// A model, as org/name or org/name@VERSION: lists its files and tensors
    #[arg(value_name = "MODEL")]
    words: Vec<OsString>,
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: ListArgs) -> anyhow::Result<Outcome> {
    let place = args.place.find(args.words, &["[MODEL]"])?;
    let wanted = match place.words.len() {
        0 => None,
        _ => Some(place.model(0)?),
    };
    let store = Store::open(&place.storage_dir)?;
    let (text, damaged) = if let Some(wanted) = wanted {
        let detail = list::model(&store, &wanted, place.threads)?;
        let text = super::render(&detail, args.json, describe)?;
        (text, is_damaged(&detail))
    } else {
        let models = list::models(&store, place.threads)?;
        for damage in &models.damaged {
            super::tell("damage", damage);
        }
        let text = super::render(&models, args.json, overview)?;
        (text, !models.damaged.is_empty())
    };
    super::print(&text)?;
    Ok(if damaged {
        Outcome::Damaged
    } else {
        Outcome::Done
    })
}

fn is_damaged(detail: &ModelDetail) -> bool {
    let segments = detail.files.iter().flat_map(|file| &file.segments);
    let damaged = |segment: &SegmentDetail| matches!(segment.stored, Stored::Damaged { .. });
    segments.into_iter().any(damaged)
}

fn overview(list: &ModelList) -> String {
    let header = [
        "model", "version", "files", "tensors", "size", "stored", "unshared", "base",
    ];
    let rows: Vec<_> = list.models.iter().map(row).collect();
    let versions: usize = list.models.iter().map(|model| model.versions).sum();
    let of_versions = if versions > list.models.len() {
        format!(" in {versions} versions")
    } else {
        String::new()
    };
    let mut text = format!(
        "{}\n{}{of_versions}, {}, in {} ({})\n",
        table(&header, &rows),
        counted(list.models.len(), "model"),
        bytes(list.bytes),
        bytes(list.stored_bytes),
        percent(list.stored_bytes, list.bytes)
    );
    if list.unused_objects > 0 {
        text += &format!(
            "{} of that in {} that no model has: bases of others stay, `zipllm gc` deletes the rest\n",
            bytes(list.unused_bytes),
            counted(list.unused_objects, "object"),
        );
    }
    text
}

fn row(model: &ModelRow) -> Vec<String> {
    let version = match model.versions {
        1 => model.version.to_string(),
        count => format!("{} ({count} versions)", model.version),
    };
    vec![
        model.model.to_string(),
        version,
        model.files.to_string(),
        model.tensors.to_string(),
        bytes(model.bytes),
        bytes(model.stored_bytes),
        bytes(model.unshared_bytes),
        model
            .base
            .as_ref()
            .map_or_else(|| "-".into(), ToString::to_string),
    ]
}

fn describe(detail: &ModelDetail) -> String {
    let mut text = format!("{} version {}", detail.model, detail.version);
    if let [_, _, ..] = detail.versions.as_slice() {
        let versions: Vec<_> = detail.versions.iter().map(u32::to_string).collect();
        text += &format!(" (versions: {})", versions.join(", "));
    }
    if let Some(commit) = &detail.commit {
        text += &format!(", commit {commit}");
    }
    if let Some(base) = &detail.base {
        text += &format!(", base {base}");
    }
    if detail.versions.len() > 1 && !detail.commits.is_empty() {
        let commits = detail.commits.iter();
        let commits = commits.map(|(version, commit)| format!("{version} is {commit}"));
        text += &format!("\nversion {}", commits.collect::<Vec<_>>().join(", "));
    }
    text += &format!(
        "\n{}, {}, stored in {} ({})\n\n",
        counted(detail.files.len(), "file"),
        bytes(detail.bytes),
        bytes(detail.stored_bytes),
        percent(detail.stored_bytes, detail.bytes)
    );
    let header = [
        "file or tensor",
        "dtype",
        "shape",
        "size",
        "stored",
        "encoding",
        "base",
    ];
    let rows: Vec<_> = detail.files.iter().flat_map(file_rows).collect();
    text + &table(&header, &rows)
}

/// A file's row, and one for each of its tensors; a file that is one run of bytes is one row.
fn file_rows(file: &FileDetail) -> Vec<Vec<String>> {
    let name = escape_line(file.path.as_str());
    if let [only] = file.segments.as_slice()
        && only.tensor.is_none()
    {
        return vec![segment_row(name, only)];
    }
    let mut rows = vec![vec![
        name,
        String::new(),
        String::new(),
        bytes(file.bytes),
        String::new(),
        String::new(),
        String::new(),
    ]];
    for segment in &file.segments {
        let name = segment.tensor.as_deref().unwrap_or("(header)");
        rows.push(segment_row(format!("  {}", escape_line(name)), segment));
    }
    rows
}

fn segment_row(name: String, segment: &SegmentDetail) -> Vec<String> {
    let shape = segment.shape.iter().flatten().map(u64::to_string);
    let (encoding, stored, base) = match &segment.stored {
        Stored::Whole {
            encoding,
            stored_bytes,
            base_object,
            ..
        } => (
            encoding.clone(),
            bytes(*stored_bytes),
            base_object.map_or_else(String::new, |base| base.short()),
        ),
        Stored::Damaged { damage } => (escape_line(damage), "-".into(), String::new()),
    };
    vec![
        name,
        escape_line(segment.dtype.as_deref().unwrap_or_default()),
        shape.collect::<Vec<_>>().join("x"),
        bytes(segment.bytes),
        stored,
        encoding,
        base,
    ]
}
