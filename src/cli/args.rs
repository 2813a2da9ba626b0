//! The arguments of both programs.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

#[cfg(not(feature = "hub"))]
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::codec::select::Effort;
use crate::config::EFFORTS;
use crate::nearest::nearest;

use super::place::PlaceArgs;

/// Stores families of LLM checkpoints in a fraction of the space, losslessly.
///
/// With a config file alone, stores every model that it lists.
#[derive(Debug, Parser)]
#[command(
    name = "zipllm",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    mut_group("FetchArgs", |group| group.requires("download"))
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
    /// Lists the models in the store; or one model's files and tensors, and how they are stored
    List(super::commands::list::ListArgs),
    /// Shows where the store's bytes are, and what saved how many
    Stats(super::commands::stats::StatsArgs),
    /// Checks that the store is whole; exit code 3 if it is not
    Check(super::commands::check::CheckArgs),
    /// Writes a file, a tensor or a range of bytes of a model to the standard output
    Cat(super::commands::cat::CatArgs),
    /// Compares two models, tensor by tensor
    Diff(super::commands::diff::DiffArgs),
    /// Stores a model whose directory is anywhere
    Add(super::commands::add::AddArgs),
    /// Removes models, or versions of them; `gc` frees their space
    Remove(super::commands::remove::RemoveArgs),
    /// Deletes objects that no model needs
    Gc(super::commands::gc::GcArgs),
    /// Gives a model another id
    Rename(super::commands::rename::RenameArgs),
    /// Copies models to another store, with the objects that it lacks
    Copy(super::commands::copy::CopyArgs),
    /// Makes anew what is damaged and can be made anew, and says what is lost
    Repair(super::commands::repair::RepairArgs),
    /// Encodes anew what is smaller with today's settings; can be stopped and run again
    Recode(RecodeArgs),
    /// Finds better bases for what is stored, and encodes anew what gains; can be stopped and run again
    Optimize(super::commands::optimize::OptimizeArgs),
    /// Says what the listed models would take, and which bases they would get, without writing anything
    Estimate(super::commands::estimate::EstimateArgs),
    /// Shows the families: which models are kept as differences to which
    Family(super::commands::family::FamilyArgs),
    /// Fetches the listed models that are not there from the Hugging Face Hub
    ///
    /// A base that the file of `base_ft_path` has for a listed model is fetched too. Whole repositories are fetched,
    /// including copies of the weights in other formats, as in onnx/ and original/: --exclude leaves them out. Running it
    /// again without patterns fetches what was left out.
    #[command(after_long_help = DOWNLOAD_EXAMPLES)]
    Download(DownloadArgs),
}

/// `zipllm CONFIG`.
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "switches of a command line")]
pub struct CompressArgs {
    /// The config file (JSON); its paths are relative to its own folder
    #[arg(required = true)]
    pub config: Option<PathBuf>,
    /// Wait while another process writes to the store
    #[arg(long)]
    pub wait: bool,
    /// Delete the files of every model that is stored, once the stored copy has been read back and compared
    #[arg(long)]
    pub delete_source: bool,
    /// Store every snapshot of a model in a Hugging Face cache as a version of its own, what refs/main names last
    #[arg(long)]
    pub all_revisions: bool,
    /// Store a new version of a model even if it lacks files that the stored one has
    #[arg(long)]
    pub accept_missing: bool,
    /// Fetch the models that are neither there nor stored from the Hugging Face Hub, each before it is stored
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
    /// What to fetch.
    #[command(flatten, next_help_heading = "With --download")]
    pub fetch: FetchArgs,
}

/// What to fetch from the Hugging Face Hub, and how.
#[derive(Debug, Args)]
pub struct FetchArgs {
    /// Fetch this branch, tag or commit (default: main)
    #[arg(long, value_parser = revision)]
    pub revision: Option<String>,
    /// Fetch only files that match, as in '*.json' or 'onnx/'; may be given several times
    #[arg(long, value_name = "PATTERN")]
    pub include: Vec<String>,
    /// Do not fetch files that match, such as 'onnx/' or 'original/'; may be given several times
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// Files fetched at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub jobs: u16,
}

const DOWNLOAD_EXAMPLES: &str = "\
Examples:
  Leave out copies of the weights for other programs:
    zipllm download config.json --exclude 'onnx/' --exclude 'original/' --exclude '*.gguf'
  Fetch weights as safetensors, settings and tokenizer only:
    zipllm download config.json --include '*.safetensors' --include '*.json' --include '*.txt' --include '*.model'

In a pattern, * is any run of characters, / included, and ? is one character; one that ends in / means everything below
that directory. What was left out is noted in model_dir/.downloads, and told when the model is stored.

Environment:
  HF_TOKEN (else the file `token` in HF_HOME), HF_ENDPOINT, HF_HOME";

/// `zipllm download CONFIG`.
#[derive(Debug, Args)]
pub struct DownloadArgs {
    /// The config file (JSON)
    pub config: PathBuf,
    /// What to fetch.
    #[command(flatten)]
    pub fetch: FetchArgs,
    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
}

/// `zipllm recode CONFIG`.
#[derive(Debug, Args)]
#[command(override_usage = "zipllm recode [OPTIONS] <CONFIG | --store DIR>")]
pub struct RecodeArgs {
    /// Which store
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Wait while another process writes to the store
    #[arg(long)]
    pub wait: bool,
    /// How long the encoders may search, in place of the config's: fast, default or max
    #[arg(long, value_parser = effort)]
    pub effort: Option<Effort>,
    /// Try every object again, not only those that an older codec wrote
    #[arg(long)]
    pub all: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Restores a model from the store, byte for byte.
#[derive(Debug, Parser)]
#[command(
    name = "restore",
    version,
    override_usage = "restore [OPTIONS] <CONFIG | --store DIR> <MODEL> <OUT>"
)]
pub struct RestoreArgs {
    /// Which store
    #[command(flatten)]
    pub place: PlaceArgs,
    /// The model, as org/name, or org/name@VERSION for an older version; and the directory that gets its files
    #[arg(value_name = "MODEL OUT")]
    pub words: Vec<OsString>,
    /// Replace files that exist with other content
    #[arg(long)]
    pub force: bool,
    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
}

/// An error of usage: exit code 2.
#[cfg(not(feature = "hub"))]
pub fn usage(message: &str) -> anyhow::Error {
    ZipllmArgs::command()
        .error(ErrorKind::UnknownArgument, message)
        .into()
}

/// Says of a first word that is neither a command, nor a file, nor looks like a path, that it is no command.
pub fn unknown_command(word: &OsStr) -> Option<String> {
    let text = word.to_str()?;
    let is_word = text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    let path = Path::new(word);
    if !is_word || text.starts_with('-') || path.exists() && !path.is_dir() {
        return None;
    }
    let commands = ZipllmArgs::command();
    let known = commands.get_subcommands().map(clap::Command::get_name);
    let known: Vec<_> = known.chain(["help"]).collect();
    if text.is_empty() || known.contains(&text) {
        return None;
    }
    let hint = match nearest(text, known).as_slice() {
        _ if text == "restore" => {
            "restoring is a program of its own: restore CONFIG MODEL OUT".to_owned()
        }
        [] => "`zipllm CONFIG` stores models, `zipllm --help` lists the commands".to_owned(),
        [first, ..] => format!("did you mean {first}?"),
    };
    Some(format!(
        "there is no command {text:?}, and no such file; {hint}"
    ))
}

/// Parses a number of threads.
pub fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=1024) => Ok(count),
        _ => Err("has to be a number from 1 to 1024".into()),
    }
}

/// Parses the name of a branch, tag or commit.
fn revision(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(char::is_control) {
        return Err("has to be the name of a branch, a tag or a commit".into());
    }
    Ok(text.to_owned())
}

/// Parses the word for how long encoders may search.
pub fn effort(text: &str) -> Result<Effort, String> {
    let known = EFFORTS.iter().find(|(word, _)| *word == text);
    known
        .map(|(_, effort)| *effort)
        .ok_or_else(|| "has to be fast, default or max".into())
}
