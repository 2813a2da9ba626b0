//! Model directories on disk: where a model is, which files it has, and their bytes.
//!
//! Files are found once, with every symlink resolved and held against the directory that it may not
//! leave. A file is opened later by its resolved path without following links or waiting (a FIFO put in
//! its place cannot block), and the open file has to be the very one that was found: same device and
//! inode, same size and times. So a file that is exchanged after it was found is reported as changed, never
//! stored. A directory that somebody exchanges for a link in the moment of listing is not noticed: a model
//! directory is taken to hold strangers' files, not to be written by them meanwhile.

mod file;
mod left_out;
mod locate;
mod revisions;
mod scan;

use std::path::{Path, PathBuf};

pub use file::{OpenFile, SourceFile, Stamp};
pub use left_out::{DOWNLOADS, LeftOut};
pub use locate::{at, cache_folders, locate, passed_over};
pub use revisions::{every_revision, every_revision_at};
pub use scan::{Listing, MAX_ENTRIES};

/// The directory of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelDir {
    root: PathBuf,
    canonical: PathBuf,
    boundary: PathBuf,
    commit: Option<String>,
    is_current: bool,
}

impl ModelDir {
    /// Returns the directory's path as it was found, for messages.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the path with every symlink resolved: equal for two names of one directory.
    pub fn canonical(&self) -> &Path {
        &self.canonical
    }

    /// Returns the resolved directory that symlinks may not leave: the model's own, or for a Hugging Face
    /// cache the model's `models--...` folder.
    pub fn boundary(&self) -> &Path {
        &self.boundary
    }

    /// Returns the revision of the snapshot, if the directory is in a Hugging Face cache.
    pub fn commit(&self) -> Option<&str> {
        self.commit.as_deref()
    }

    /// Tells whether it is what the model is now; not so for the other snapshots of a Hugging Face cache.
    pub fn is_current(&self) -> bool {
        self.is_current
    }
}

#[cfg(test)]
mod tests;
