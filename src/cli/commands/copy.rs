//! `zipllm copy CONFIG MODEL... --to OTHER_CONFIG`: models to another store.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use crate::cli::Outcome;
use crate::cli::place::{PlaceArgs, Usage};
use crate::cli::progress::Bar;
use crate::cli::terminal::{bytes, counted};
use crate::config::Config;
use crate::copy::{self, CopyReport, Options};
use crate::restore::find_manifest;
use crate::store::fs::LocalDisk;
use crate::store::{Store, StoreWriter};

/// `zipllm copy CONFIG MODEL... --to OTHER_CONFIG`.
#[derive(Debug, Args)]
#[command(
    override_usage = "zipllm copy [OPTIONS] <CONFIG | --store DIR> <MODEL[@VERSION]>... <--to CONFIG | --to-store DIR>"
)]
pub struct CopyArgs {
    /// Which store
    #[command(flatten)]
    place: PlaceArgs,
    /// The models, as org/name (the newest version) or org/name@VERSION
    #[arg(value_name = "MODEL")]
    words: Vec<OsString>,
    /// The config file of the other store, which is made if it is not there
    #[arg(long, value_name = "CONFIG", required_unless_present = "to_store")]
    to: Option<PathBuf>,
    /// The other store's directory, in place of a config file
    #[arg(long, value_name = "DIR", conflicts_with = "to")]
    to_store: Option<PathBuf>,
    /// Copy all versions of a model named without one, oldest first, instead of the newest only
    #[arg(long)]
    all_versions: bool,
    /// Wait while another process writes to the other store
    #[arg(long)]
    wait: bool,
    /// Print what was copied as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: CopyArgs) -> anyhow::Result<Outcome> {
    let place = args.place.find(args.words, &["MODEL..."])?;
    let models = place.models()?;
    let (target, encode) = match (args.to, args.to_store) {
        (Some(config), _) => {
            let config = Config::load(&config)?;
            let encode = config.encode_options();
            (config.storage_dir, encode)
        }
        (None, target) => (target.unwrap_or_default(), place.encode_options()),
    };
    let source = Store::open(&place.storage_dir)?;
    if is_same(&place.storage_dir, &target) {
        return Err(Usage("both are the same store".into()).into());
    }
    // Before the other store is made.
    models
        .iter()
        .try_for_each(|model| find_manifest(&source, model).map(drop))?;
    let writer = StoreWriter::open_with(Arc::new(LocalDisk), &target, args.wait)?;
    let options = Options {
        threads: place.threads,
        encode,
        all_versions: args.all_versions,
    };
    let report = copy::run(&source, &models, writer, options, &Bar::default())?;
    for model in &report.models {
        if let Some(error) = &model.error {
            super::tell("error", &format!("{}: {error}", model.model));
        }
    }
    super::print(&super::render(&report, args.json, describe)?)?;
    Ok(if report.models.iter().any(|model| model.damage) {
        Outcome::Damaged
    } else if report.models.iter().any(|model| model.error.is_some()) {
        Outcome::Failed
    } else {
        Outcome::Done
    })
}

fn is_same(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

fn describe(report: &CopyReport) -> String {
    let mut text = String::new();
    for model in &report.models {
        let (id, version) = (&model.model, model.version);
        text += &match model.copied_as {
            None => format!("{id}@{version}: FAILED\n"),
            Some(there) if model.was_there => {
                format!("{id}@{version}: there already, as version {there}\n")
            }
            Some(there) => format!("{id}@{version}: copied, as version {there}\n"),
        };
    }
    text + &format!(
        "copied {} of {} in {}, verified, in {:.1} s\n",
        counted(report.objects, "object"),
        bytes(report.raw_bytes),
        bytes(report.stored_bytes),
        report.seconds
    )
}
