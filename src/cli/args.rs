//! The arguments of both programs.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::codec::select::Effort;
use crate::config::EFFORTS;
use crate::error::Error;
use crate::restore::ModelVersion;

/// Stores families of LLM checkpoints in a fraction of the space, losslessly.
///
/// With a config file alone, stores every model that it lists.
#[derive(Debug, Parser)]
#[command(
    name = "zipllm",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct ZipllmArgs {
    /// What to do other than storing models.
    #[command(subcommand)]
    pub command: Option<ZipllmCommand>,
    /// How to store models.
    #[command(flatten)]
    pub compress: CompressArgs,
}

/// The verbs beside storing.
#[derive(Debug, Subcommand)]
pub enum ZipllmCommand {
    /// Encodes anew what is smaller with today's settings; can be stopped and run again
    Recode(RecodeArgs),
    /// Finds better bases for what is stored, and encodes anew what gains; can be stopped and run again
    Optimize(OptimizeArgs),
    /// Checks that the store is whole; exit code 3 if it is not
    Check(CheckArgs),
    /// Fetches the listed models that are not there from the Hugging Face Hub
    #[cfg(feature = "hub")]
    Download(super::commands::download::DownloadArgs),
}

/// `zipllm CONFIG`.
#[derive(Debug, Args)]
pub struct CompressArgs {
    /// The config file (JSON); its paths are relative to its own folder
    #[arg(required = true)]
    pub config: Option<PathBuf>,
    /// Store a new version of a model even if it lacks files that the stored one has
    #[arg(long)]
    pub accept_missing: bool,
    /// Fetch the models that are neither there nor stored from the Hugging Face Hub, each before it is stored
    #[cfg(feature = "hub")]
    #[arg(long)]
    pub download: bool,
    /// Worker threads, in place of the config's
    #[arg(long, value_parser = threads)]
    pub threads: Option<usize>,
    /// How long the encoders may search, in place of the config's: fast, default or max
    #[arg(long, value_parser = effort)]
    pub effort: Option<Effort>,
    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
}

/// `zipllm check CONFIG`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The config file (JSON)
    pub config: PathBuf,
    /// Decode every object and compare it with its name
    #[arg(long)]
    pub read_data: bool,
    /// Worker threads, in place of the config's
    #[arg(long, value_parser = threads)]
    pub threads: Option<usize>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// `zipllm recode CONFIG`.
#[derive(Debug, Args)]
pub struct RecodeArgs {
    /// The config file (JSON)
    pub config: PathBuf,
    /// How long the encoders may search, in place of the config's: fast, default or max
    #[arg(long, value_parser = effort)]
    pub effort: Option<Effort>,
    /// Try every object again, not only those that an older codec wrote
    #[arg(long)]
    pub all: bool,
    /// Worker threads, in place of the config's
    #[arg(long, value_parser = threads)]
    pub threads: Option<usize>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// `zipllm optimize CONFIG`.
#[derive(Debug, Args)]
pub struct OptimizeArgs {
    /// The config file (JSON)
    pub config: PathBuf,
    /// Only say what would be gained, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How long the encoders may search, in place of the config's: fast, default or max
    #[arg(long, value_parser = effort)]
    pub effort: Option<Effort>,
    /// Worker threads, in place of the config's
    #[arg(long, value_parser = threads)]
    pub threads: Option<usize>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Restores a model from the store, byte for byte.
#[derive(Debug, Parser)]
#[command(name = "restore", version)]
pub struct RestoreArgs {
    /// The config file (JSON); its paths are relative to its own folder
    pub config: PathBuf,
    /// The model, as org/name, or org/name@VERSION for an older version
    #[arg(value_parser = model_version)]
    pub model: ModelVersion,
    /// The directory that gets the model's files
    pub out: PathBuf,
    /// Replace files that exist with other content
    #[arg(long)]
    pub force: bool,
    /// Worker threads, in place of the config's
    #[arg(long, value_parser = threads)]
    pub threads: Option<usize>,
    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
}

fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=1024) => Ok(count),
        _ => Err("has to be a number from 1 to 1024".into()),
    }
}

fn effort(text: &str) -> Result<Effort, String> {
    let known = EFFORTS.iter().find(|(word, _)| *word == text);
    known
        .map(|(_, effort)| *effort)
        .ok_or_else(|| "has to be fast, default or max".into())
}

fn model_version(text: &str) -> Result<ModelVersion, Error> {
    text.parse()
}
