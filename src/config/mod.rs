//! `Config`: `config.json`, the model list and the base map, read to checked values.
//!
//! Relative paths are relative to the folder of the config file. Reading creates nothing. [`Config::load`] checks the
//! settings alone, so that a store can be read when the models are gone; a run that stores models also calls
//! [`Config::model_list`], [`Config::base_map`] and [`Config::check_inputs`] before it opens the store.

mod base_file;
mod base_map;
mod list;
mod settings;
mod text;
mod warnings;

use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

pub use base_map::{BaseMap, Planned};
pub use list::ModelList;
use settings::{Settings, fault};

use crate::codec::{
    EncodeOptions,
    select::{Effort, Family},
};
use crate::error::{Error, Result};
use crate::name::ModelId;

/// The longest `config.json`, in bytes.
const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// The longest model list and the longest base map, in bytes.
const MAX_LIST_BYTES: u64 = 64 << 20;
/// The most threads that can be asked for.
const MAX_THREADS: u64 = 1024;
/// What writes the base map of the batch that comes with the sources, beside its `config.json`.
const SETUP_SCRIPT: &str = "setup_test_models.sh";
/// The zstd level when none is given.
const DEFAULT_ZSTD_LEVEL: i32 = 3;

/// The settings of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The config file, as it was given.
    pub path: PathBuf,
    /// The directory with the models' directories; absolute, as are the other paths.
    pub model_dir: PathBuf,
    /// The directory of the store.
    pub storage_dir: PathBuf,
    /// The text file with the ids of the models to store.
    pub models_to_process: PathBuf,
    /// The JSON file with the fine-tunes of each base, if there is one.
    pub base_ft_path: Option<PathBuf>,
    /// Threads to work with, 1 to 1024; the machine's parallelism where the file has none or 0.
    pub threads: usize,
    /// The level of zstd, 1 to 22.
    pub zstd_level: i32,
    /// Which codecs are used for numbers.
    pub codec: Family,
    /// How long the encoders may search.
    pub effort: Effort,
}

/// The words for [`Family`].
pub const CODECS: [(&str, Family); 2] = [("auto", Family::Auto), ("bitx", Family::BitX)];
/// The words for [`Effort`].
pub const EFFORTS: [(&str, Effort); 3] = [
    ("fast", Effort::Fast),
    ("default", Effort::Default),
    ("max", Effort::Max),
];

impl Config {
    /// Reads and checks the settings in the file at `path`; the files and directories they name are not looked at.
    ///
    /// # Errors
    /// `Error::Config` that names the file and the key: no such file, not JSON, an unknown, repeated or missing key, a
    /// value of the wrong type or out of range.
    pub fn load(path: &Path) -> Result<Self> {
        let text = text::read(path, MAX_CONFIG_BYTES).map_err(|reason| fault(path, "", reason))?;
        let settings = Settings::parse(&text, path)?;
        let resolve = |value: &str| resolve(path, value);
        let threads = settings.number("threads", 0, MAX_THREADS)?;
        let level = settings.number("zstd_level", 1, 22)?;
        Ok(Self {
            path: path.to_path_buf(),
            model_dir: resolve(settings.required_path("model_dir")?)?,
            storage_dir: resolve(settings.required_path("storage_dir")?)?,
            models_to_process: resolve(settings.required_path("models_to_process")?)?,
            base_ft_path: settings.path("base_ft_path")?.map(resolve).transpose()?,
            threads: threads
                .and_then(|count| usize::try_from(count).ok())
                .filter(|count| *count > 0)
                .unwrap_or_else(all_threads),
            zstd_level: level
                .and_then(|level| i32::try_from(level).ok())
                .unwrap_or(DEFAULT_ZSTD_LEVEL),
            codec: settings.choice("codec", &CODECS)?.unwrap_or_default(),
            effort: settings.choice("effort", &EFFORTS)?.unwrap_or_default(),
        })
    }

    /// Returns the settings of the encoders.
    pub fn encode_options(&self) -> EncodeOptions {
        EncodeOptions {
            family: self.codec,
            zstd_level: self.zstd_level,
            effort: self.effort,
        }
    }

    /// Reads the list of models.
    ///
    /// # Errors
    /// `Error::Config`: the list cannot be read, names no model, or has a line that is no model id.
    pub fn model_list(&self) -> Result<ModelList> {
        let text = self.named_text("models_to_process", &self.models_to_process)?;
        list::parse(&text, &self.models_to_process)
    }

    /// Reads the base map; without `base_ft_path`, the first of `models` is the base of all others.
    ///
    /// # Errors
    /// `Error::Config`: the file cannot be read, or is not `{"base": ["fine-tune", ...], ...}` with model ids.
    pub fn base_map(&self, models: &[ModelId]) -> Result<BaseMap> {
        let Some(path) = &self.base_ft_path else {
            return Ok(BaseMap::first_is_base(models));
        };
        if path.symlink_metadata().is_err() {
            let script = self.path.with_file_name(SETUP_SCRIPT);
            let hint = if script.is_file() {
                format!(
                    "run {}, which fetches the models and writes it",
                    script.display()
                )
            } else {
                "without this setting the first model of the list is the base of the others".into()
            };
            let reason = format!("{}: it is not there; {hint}", path.display());
            return Err(self.fault("base_ft_path", reason));
        }
        BaseMap::parse(&self.named_text("base_ft_path", path)?, path)
    }

    /// Checks what storing `models` needs: `model_dir` is a directory, and the store is neither that directory, nor
    /// around it, nor within the directory of one of the models, which would then hold its own store.
    ///
    /// # Errors
    /// `Error::Config` that names the key.
    pub fn check_inputs<'a>(&self, models: impl IntoIterator<Item = &'a ModelId>) -> Result<()> {
        let model_dir = self
            .model_dir
            .canonicalize()
            .map_err(|error| self.unusable("model_dir", &self.model_dir, &error))?;
        if !model_dir.is_dir() {
            return Err(self.fault(
                "model_dir",
                format!("{} is not a directory", self.model_dir.display()),
            ));
        }
        let existing = self.storage_dir.ancestors().find(|path| path.exists());
        if let Some(file) = existing.filter(|path| !path.is_dir()) {
            let reason = format!("{} is not a directory", file.display());
            return Err(self.fault("storage_dir", reason));
        }
        let storage_dir = real_path(&self.storage_dir);
        if model_dir.starts_with(&storage_dir) {
            return Err(self.fault(
                "storage_dir",
                "the models lie within it; choose a directory of its own".to_owned(),
            ));
        }
        let Ok(below) = storage_dir.strip_prefix(&model_dir) else {
            return Ok(());
        };
        match models.into_iter().find(|id| {
            directory_names(id)
                .iter()
                .any(|name| below.starts_with(name))
        }) {
            Some(id) => Err(self.fault(
                "storage_dir",
                format!("it lies within the directory of the model {id}"),
            )),
            None => Ok(()),
        }
    }

    fn named_text(&self, key: &str, path: &Path) -> Result<String> {
        text::read(path, MAX_LIST_BYTES)
            .map_err(|reason| self.fault(key, format!("{}: {reason}", path.display())))
    }

    fn unusable(&self, key: &str, path: &Path, error: &std::io::Error) -> Error {
        self.fault(key, format!("{}: cannot open it: {error}", path.display()))
    }

    fn fault(&self, key: &str, reason: String) -> Error {
        fault(&self.path, key, reason)
    }
}

/// Makes a path of the config file absolute.
fn resolve(config: &Path, value: &str) -> Result<PathBuf> {
    let folder = config.parent().unwrap_or(Path::new(""));
    std::path::absolute(folder.join(value))
        .map_err(Error::io("find the current directory for", config))
}

fn all_threads() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// Resolves the symlinks of the part of `path` that exists.
fn real_path(path: &Path) -> PathBuf {
    for ancestor in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (ancestor.canonicalize(), path.strip_prefix(ancestor)) {
            return real.join(rest);
        }
    }
    path.to_path_buf()
}

/// The names under which a model's directory is looked for.
fn directory_names(id: &ModelId) -> [String; 4] {
    [
        id.as_str().to_owned(),
        id.joined("--"),
        id.joined("_"),
        format!("models--{}", id.joined("--")),
    ]
}
