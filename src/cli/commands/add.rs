//! `zipllm add CONFIG PATH --as MODEL`: stores a model whose directory is anywhere.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{compress, delete_source};
use crate::cli::Outcome;
use crate::cli::place::{PlaceArgs, Usage};
use crate::cli::progress::Bar;
use crate::config::Config;
use crate::error::Error;
use crate::ingest::{self, Job, Options};
use crate::name::ModelId;
use crate::restore::find_manifest;
use crate::source::{self, ModelDir};
use crate::store::Store;

/// `zipllm add CONFIG PATH --as MODEL`.
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "switches of a command line")]
#[command(override_usage = "zipllm add [OPTIONS] <CONFIG | --store DIR> <PATH> --as <MODEL>")]
pub struct AddArgs {
    /// Which store
    #[command(flatten)]
    place: PlaceArgs,
    /// The model's directory, or a folder or a snapshot of a Hugging Face cache
    #[arg(value_name = "PATH")]
    words: Vec<OsString>,
    /// The id to store it under, as org/name
    #[arg(long = "as", value_name = "MODEL", value_parser = id)]
    id: ModelId,
    /// The model in the store to encode it against; else the one that the config's base map has
    #[arg(long, value_name = "MODEL", value_parser = id)]
    base: Option<ModelId>,
    /// Store a new version even if it lacks files that the stored one has
    #[arg(long)]
    accept_missing: bool,
    /// Store every snapshot of a folder of a Hugging Face cache as a version of its own, what refs/main names last
    #[arg(long)]
    all_revisions: bool,
    /// Delete the files once the stored copy has been read back and compared
    #[arg(long)]
    delete_source: bool,
    /// Wait while another process writes to the store
    #[arg(long)]
    wait: bool,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

fn id(text: &str) -> Result<ModelId, Error> {
    text.parse()
}

pub fn run(args: AddArgs) -> anyhow::Result<Outcome> {
    let place = args.place.find(args.words, &["PATH"])?;
    let path = place.words.first().map(PathBuf::from).unwrap_or_default();
    check_path(&path, &place.storage_dir)?;
    let directories = if args.all_revisions {
        source::every_revision_at(&path)?
    } else {
        vec![source::at(&path)?]
    };
    let empty = check_content(&directories, &args.id, &place.storage_dir)?;
    if let Some(base) = &args.base {
        // Nobody else said of it that it is there.
        find_manifest(&Store::open(&place.storage_dir)?, &base.as_str().parse()?)?;
    }
    let base = match (&place.config, args.base) {
        (Some(config), None) => base_of(config, &args.id)?,
        (_, base) => base,
    };
    let options = Options {
        threads: place.threads,
        encode: place.encode_options(),
        accept_missing: args.accept_missing,
        may_be_deleted: args.delete_source,
        all_revisions: args.all_revisions,
        wait: args.wait,
        ..Options::default()
    };
    let job = Job {
        model: args.id,
        base,
    };
    let store = &place.storage_dir;
    let mut report = ingest::add(&job, directories.clone(), store, &options, &Bar::default())?;
    report
        .warnings
        .extend(empty.filter(|_| !args.delete_source));
    let deleted = args
        .delete_source
        .then(|| delete_source::run(&report, |_| Ok(directories.clone()), store, place.threads));
    compress::conclude(report, deleted.transpose()?, args.json)
}

/// Refuses a directory that is the store, holds it or lies in it, and a whole cache of models.
fn check_path(path: &Path, storage_dir: &Path) -> anyhow::Result<()> {
    let (Ok(real), Ok(store)) = (path.canonicalize(), storage_dir.canonicalize()) else {
        return Ok(());
    };
    let shown = path.display();
    if real.starts_with(&store) {
        return Err(Usage(format!("{shown} is the store, or in it, and no model")).into());
    }
    if store.starts_with(&real) {
        let reason = format!("{shown} holds the store {}", storage_dir.display());
        return Err(Usage(reason).into());
    }
    let folders = source::cache_folders(&real)?;
    match folders.as_slice() {
        [] => Ok(()),
        [first, ..] => Err(Usage(format!(
            "{shown} is a cache of {} models, and no model; name one of its folders, such as {}",
            folders.len(),
            path.join(first).display()
        ))
        .into()),
    }
}

/// Refuses directories without files, unless the model is stored: then they were deleted, or a disk is not mounted, which
/// is returned as a warning.
fn check_content(
    directories: &[ModelDir],
    id: &ModelId,
    storage_dir: &Path,
) -> anyhow::Result<Option<String>> {
    for directory in directories {
        if !directory.scan()?.files.is_empty() {
            return Ok(None);
        }
    }
    let roots = directories.iter().map(|one| one.root().display());
    let roots: Vec<_> = roots.map(|root| root.to_string()).collect();
    let roots = roots.join(", ");
    let store = Store::open(storage_dir).ok();
    match store.and_then(|store| store.versions(id).ok()?.last().copied()) {
        Some(version) => Ok(Some(format!(
            "{roots}: nothing is there; version {version} is stored"
        ))),
        None => Err(Usage(format!("{roots}: there are no files")).into()),
    }
}

/// The base that the config's base map names for a model.
fn base_of(config: &Config, model: &ModelId) -> anyhow::Result<Option<ModelId>> {
    if config.base_ft_path.is_none() {
        return Ok(None);
    }
    let models = std::slice::from_ref(model);
    let planned = config.base_map(models)?.order(models);
    let planned = planned.into_iter().find(|planned| planned.id == *model);
    Ok(planned.and_then(|planned| planned.base))
}
