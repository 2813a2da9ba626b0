//! Deleting the files that a model was stored from, once the stored copy has been read back.
//!
//! All files of a model are compared, byte by byte, with what the store gives back, before the first one is deleted.
//! In a Hugging Face cache the file behind a link goes too, unless a snapshot has it that is not deleted.
#![expect(
    clippy::disallowed_methods,
    reason = "deletes models' own files, not those of a store"
)]

mod blobs;
mod compare;
mod directories;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::name::ModelId;
use crate::report::Monitor;
use crate::source::{Listing, ModelDir, SourceFile};
use crate::store::Store;
use crate::store::lock::WriteLock;
use crate::store::manifest::Manifest;
use blobs::Blobs;
use compare::compare_all;
use directories::{remove_cache, remove_directories};

/// What was deleted of a model's directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeleteReport {
    /// The model.
    pub model: ModelId,
    /// The version that has what was deleted.
    pub version: u32,
    /// Files that were deleted.
    pub files: usize,
    /// Bytes of the files that were deleted; those of a file that another snapshot keeps do not count.
    pub bytes: u64,
}

/// Deletes a model's files after comparing them with the store: those of one directory, or of several revisions.
///
/// A revision is compared with the newest version of its commit, or with the newest of all where none has that.
///
/// # Errors
/// Fails before anything is deleted where a file is not in that version, is not what the store gives back, or changed
/// while it was read; where the directory is a link; and where another process writes to the store.
pub fn run(
    store: &Store,
    model: &ModelId,
    directories: &[ModelDir],
    threads: usize,
    monitor: &dyn Monitor,
) -> Result<Vec<DeleteReport>> {
    let layout = store.layout();
    // Nobody may remove the model meanwhile.
    let _lock = WriteLock::take(&layout.lock(), layout.root(), false)?;
    let mut sources = Vec::with_capacity(directories.len());
    for directory in directories {
        check_no_link(directory.root())?;
        let manifest = version_of(store, model, directory)?;
        let listing = directory.scan()?;
        compare_all(store, &manifest, &listing, threads, monitor)?;
        sources.push(Source {
            directory,
            listing,
            version: manifest.version,
        });
    }
    let blobs = Blobs::of(directories)?;
    let stray = blobs.delete_stray(store, model, threads)?;
    let mut deletion = Deletion::new(&sources, &blobs);
    let reports = sources.iter().map(|source| {
        let (files, bytes) = deletion.files(source)?;
        Ok(DeleteReport {
            model: model.clone(),
            version: source.version,
            files,
            bytes,
        })
    });
    let mut reports = reports.collect::<Result<Vec<_>>>()?;
    if let Some(last) = reports.last_mut() {
        last.bytes += stray;
    }
    for source in &sources {
        remove_directories(source.directory, &source.listing, &blobs);
    }
    if let Some(folder) = blobs.folder.as_deref().and_then(Path::parent) {
        remove_cache(folder, &blobs);
    }
    Ok(reports)
}

/// What was compared, and may go.
struct Source<'a> {
    directory: &'a ModelDir,
    listing: Listing,
    version: u32,
}

fn check_no_link(root: &Path) -> Result<()> {
    let metadata = root
        .symlink_metadata()
        .map_err(Error::io("look at", root))?;
    if metadata.is_symlink() {
        let reason = "a link; what it leads to is not deleted";
        return Err(Error::input(root, reason));
    }
    Ok(())
}

fn version_of(store: &Store, model: &ModelId, directory: &ModelDir) -> Result<Manifest> {
    if let Some(commit) = directory.commit() {
        for version in store.versions(model)?.into_iter().rev() {
            match store.manifest(model, version) {
                Ok(Some(manifest)) if manifest.commit.as_deref() == Some(commit) => {
                    return Ok(manifest);
                }
                Err(error) if error.kind() != ErrorKind::Corrupt => return Err(error),
                _ => {}
            }
        }
    }
    store.newest(model)?.ok_or_else(|| Error::NoModel {
        model: model.to_string(),
        reason: "not in the store".into(),
    })
}

/// Files that are being deleted, of which some have several paths.
struct Deletion<'a> {
    blobs: &'a Blobs,
    /// By file, its paths that are still there.
    paths: HashMap<&'a Path, usize>,
    /// Files that are gone, for one of their paths was no link.
    gone: HashSet<&'a Path>,
}

impl<'a> Deletion<'a> {
    fn new(sources: &'a [Source<'a>], blobs: &'a Blobs) -> Self {
        let mut paths = HashMap::new();
        for file in sources.iter().flat_map(|source| &source.listing.files) {
            *paths.entry(file.absolute.as_path()).or_default() += 1;
        }
        Self {
            blobs,
            paths,
            gone: HashSet::new(),
        }
    }

    /// Deletes the files of a directory; a file behind links goes with the last of them. Returns their number and bytes.
    fn files(&mut self, source: &'a Source<'a>) -> Result<(usize, u64)> {
        let mut bytes = 0;
        for file in &source.listing.files {
            if !self.gone.contains(file.absolute.as_path()) {
                // Opening it tells whether it is the file that was compared.
                drop(file.open()?);
            }
            bytes += self.file(&file.path.under(source.directory.root()), file)?;
        }
        Ok((source.listing.files.len(), bytes))
    }

    /// Deletes one path of a file, and returns the bytes that this freed.
    fn file(&mut self, path: &Path, file: &'a SourceFile) -> Result<u64> {
        let is_link = path.is_symlink();
        remove(path)?;
        let left = self.paths.entry(&file.absolute).or_default();
        *left = left.saturating_sub(1);
        if !is_link {
            self.gone.insert(&file.absolute);
            return Ok(file.size);
        }
        if *left == 0 && self.blobs.may_go(&file.absolute) {
            remove(&file.absolute)?;
            return Ok(file.size);
        }
        Ok(0)
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        // Two paths of one file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(Error::io("remove", path)),
    }
}
