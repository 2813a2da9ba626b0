//! `Error`: everything that can go wrong, each variant naming the file, object or key it is about.

use std::io;
use std::path::{Path, PathBuf};

use crate::hash::Hash;

/// The target of log events that a person should see while a run goes on, whatever else is logged.
pub const NOTICE: &str = "zipllm::notice";

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kinds of error that a caller can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Something stored is damaged.
    Corrupt,
    /// Something named does not exist.
    Missing,
    /// An input, a name or a setting is not acceptable.
    Invalid,
    /// The operating system refused or failed.
    Io,
}

/// An error of the library.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting, or a file of settings, is not acceptable.
    #[error("{}: {}{reason}", path.display(), key_prefix(.key))]
    Config {
        /// The file at fault.
        path: PathBuf,
        /// The key at fault; empty where the whole file is.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An input file or directory cannot be stored.
    #[error("{}: {reason}", path.display())]
    Input {
        /// The file or directory at fault.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file changed while it was read.
    #[error("{}: the file changed while it was read; run again when nothing writes to it", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A model id, version or path is not acceptable.
    #[error("{name:?}: {reason}")]
    Name {
        /// The name as it was given.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A model is not in the store, or has no directory.
    #[error("{model}: {reason}")]
    NoModel {
        /// The model's id.
        model: String,
        /// Where it was looked for, and the nearest names.
        reason: String,
    },
    /// An object is damaged.
    #[error("object {name}: {reason}")]
    CorruptObject {
        /// The object's name.
        name: Hash,
        /// What is wrong with it.
        reason: String,
    },
    /// An object is not in the store.
    #[error("object {name}: missing from the store")]
    MissingObject {
        /// The object's name.
        name: Hash,
    },
    /// A manifest, marker or index is damaged.
    #[error("{}: {reason}", path.display())]
    CorruptFile {
        /// The file in the store.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A store or an object was written by a newer version.
    #[error("{}: {what}; a newer zipllm wrote it, and this one ({version}) cannot read it", path.display(), version = env!("CARGO_PKG_VERSION"))]
    Newer {
        /// The file in the store.
        path: PathBuf,
        /// The version or feature found.
        what: String,
    },
    /// Another process writes to the store.
    #[error("{}: the store is in use by {holder}; try again when that is done, or wait for it (--wait)", path.display())]
    Locked {
        /// The store.
        path: PathBuf,
        /// Who holds the lock: pid, host and since when, as far as known.
        holder: String,
    },
    /// The output of a restore would overwrite something or leave its directory.
    #[error("{}: {reason}", path.display())]
    Output {
        /// The output path.
        path: PathBuf,
        /// What stands in the way.
        reason: String,
    },
    /// A damaged object keeps a file from being restored.
    #[error("{file}: cannot be restored: {source}")]
    Damaged {
        /// The file, as `model: path`.
        file: String,
        /// The damage.
        #[source]
        source: Box<Error>,
    },
    /// The operating system failed.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// What was attempted, as in "cannot ...".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

fn key_prefix(key: &str) -> String {
    if key.is_empty() {
        String::new()
    } else {
        format!("{key:?}: ")
    }
}

impl Error {
    /// Tells which of the four kinds the error is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Config { .. }
            | Self::Input { .. }
            | Self::Name { .. }
            | Self::Newer { .. }
            | Self::Output { .. } => ErrorKind::Invalid,
            Self::NoModel { .. } => ErrorKind::Missing,
            Self::CorruptObject { .. } | Self::MissingObject { .. } | Self::CorruptFile { .. } => {
                ErrorKind::Corrupt
            }
            Self::Damaged { source, .. } => source.kind(),
            Self::Changed { .. } | Self::Locked { .. } | Self::Io { .. } => ErrorKind::Io,
        }
    }

    /// Wraps what the operating system said about `path` while doing `action`.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// An input at `path` that cannot be stored.
    pub fn input(path: impl AsRef<Path>, reason: impl Into<String>) -> Self {
        Self::Input {
            path: path.as_ref().to_path_buf(),
            reason: reason.into(),
        }
    }

    /// A damaged object.
    pub fn corrupt(name: &Hash, reason: impl Into<String>) -> Self {
        Self::CorruptObject {
            name: *name,
            reason: reason.into(),
        }
    }
}
