//! `zipllm add CONFIG PATH --as MODEL`: stores a model whose directory is anywhere.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::{compress, delete_source};
use crate::cli::Outcome;
use crate::cli::place::PlaceArgs;
use crate::cli::progress::Bar;
use crate::config::Config;
use crate::error::Error;
use crate::ingest::{self, Job, Options};
use crate::name::ModelId;
use crate::source;

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
    let directories = if args.all_revisions {
        source::every_revision_at(&path)?
    } else {
        vec![source::at(&path)?]
    };
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
    let report = ingest::add(&job, directories.clone(), store, &options, &Bar::default())?;
    let deleted = args
        .delete_source
        .then(|| delete_source::run(&report, |_| Ok(directories.clone()), store, place.threads));
    compress::conclude(report, deleted.transpose()?, args.json)
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
