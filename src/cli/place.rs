//! Which store a verb works on: the one that a config file names, or a bare directory (`--store DIR`).

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use clap::Args;

use super::args;
use crate::codec::EncodeOptions;
use crate::config::Config;
use crate::error::Error;
use crate::restore::ModelVersion;
use crate::store::StoreWriter;

/// The arguments that say which store.
#[derive(Debug, Args)]
pub struct PlaceArgs {
    /// The config file (JSON); its paths are relative to its own folder
    #[arg(required_unless_present = "store")]
    config: Option<OsString>,
    /// The store's directory, in place of a config file
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Worker threads, in place of the config's
    #[arg(long, value_parser = args::threads)]
    threads: Option<usize>,
}

/// A store, and what a config file says of it.
pub struct Place {
    /// The store's directory.
    pub storage_dir: PathBuf,
    /// Worker threads.
    pub threads: usize,
    /// The config, where there is one.
    pub config: Option<Config>,
    /// The arguments after the config file, or all of them without one.
    pub words: Vec<OsString>,
}

/// Wrong arguments, in words.
#[derive(Debug)]
pub struct Usage(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

impl PlaceArgs {
    /// Finds the store; `words` are the arguments after the config file, if there is one, and `names` what they
    /// have to be, the last of them any number if it ends in dots.
    pub fn find(self, words: Vec<OsString>, names: &[&str]) -> anyhow::Result<Place> {
        let all_threads = || available_parallelism().map_or(1, usize::from);
        let place = if let Some(storage_dir) = self.store {
            let config = self.config.as_ref().map(Path::new);
            if let Some(config) = config.filter(|path| is_config(path)) {
                let reason = format!("{}: a config file or --store, not both", config.display());
                return Err(Usage(reason).into());
            }
            // Without a config file the first word is the verb's.
            Place {
                storage_dir,
                threads: self.threads.unwrap_or_else(all_threads),
                config: None,
                words: self.config.into_iter().chain(words).collect(),
            }
        } else {
            let config = Config::load(&PathBuf::from(self.config.unwrap_or_default()))?;
            Place {
                storage_dir: config.storage_dir.clone(),
                threads: self.threads.unwrap_or(config.threads),
                config: Some(config),
                words,
            }
        };
        check_words(&place.words, names)?;
        Ok(place)
    }
}

/// Tells whether a first word is a config file, where a model or a path is due.
fn is_config(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "json") && path.is_file()
}

fn check_words(words: &[OsString], names: &[&str]) -> Result<(), Usage> {
    let many = names.last().is_some_and(|name| name.ends_with("..."));
    let required = names.iter().filter(|name| !name.starts_with('[')).count();
    if let (true, Some(missing)) = (words.len() < required, names.get(words.len())) {
        return Err(Usage(format!("{missing} is missing (--help tells more)")));
    }
    match words.get(names.len()) {
        Some(extra) if !many => Err(Usage(format!(
            "unexpected argument {:?} (--help tells more)",
            extra.display().to_string()
        ))),
        _ => Ok(()),
    }
}

impl Place {
    /// Opens the store for writing, if there is one: a store that is not there is not to be made.
    pub fn writer(&self, wait: bool) -> Result<StoreWriter, Error> {
        StoreWriter::open_existing(&self.storage_dir, wait)
    }

    /// The config's settings of the encoders, or the default ones.
    pub fn encode_options(&self) -> EncodeOptions {
        let config = self.config.as_ref();
        config.map_or_else(EncodeOptions::default, Config::encode_options)
    }

    /// A word as text.
    pub fn text(&self, at: usize) -> Result<&str, Usage> {
        let word = self.words.get(at).map(|word| word.to_str());
        match word {
            Some(Some(text)) => Ok(text),
            _ => Err(Usage("an argument is not UTF-8".into())),
        }
    }

    /// A word as a model, or a version of one.
    pub fn model(&self, at: usize) -> anyhow::Result<ModelVersion> {
        let text = self.text(at)?;
        text.parse()
            .map_err(|error: Error| Usage(error.to_string()).into())
    }

    /// All words as models, or versions of models.
    pub fn models(&self) -> anyhow::Result<Vec<ModelVersion>> {
        (0..self.words.len()).map(|at| self.model(at)).collect()
    }
}
