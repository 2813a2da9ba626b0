//! Deleting the files that a model was stored from, once the stored copy has been read back.
//!
//! All files of a model are compared, byte by byte, with what the store gives back, before the first one is deleted.
//! In a Hugging Face cache the file behind a link goes too, unless another snapshot has it.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::name::ModelId;
use crate::object_reader::ObjectReader;
use crate::report::Monitor;
use crate::source::{Listing, ModelDir, OpenFile, SourceFile};
use crate::store::Store;
use crate::store::lock::WriteLock;
use crate::store::manifest::{FileEntry, Manifest, Segment};
use crate::threads;

/// What was deleted of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeleteReport {
    /// The model.
    pub model: ModelId,
    /// The version that has what was deleted.
    pub version: u32,
    /// Files that were deleted.
    pub files: usize,
    /// Bytes of the files that were deleted.
    pub bytes: u64,
}

/// Deletes a model's files after comparing them with the newest version in the store.
///
/// # Errors
/// Fails before anything is deleted where a file is not in that version, is not what the store gives back, or changed
/// while it was read; where the directory is a link; and where another process writes to the store.
pub fn run(
    store: &Store,
    model: &ModelId,
    directory: &ModelDir,
    threads: usize,
    monitor: &dyn Monitor,
) -> Result<DeleteReport> {
    let layout = store.layout();
    // Nobody may remove the model meanwhile.
    let _lock = WriteLock::take(&layout.lock(), layout.root(), false)?;
    let root = directory.root();
    let is_link = root
        .symlink_metadata()
        .map_err(Error::io("look at", root))?;
    if is_link.is_symlink() {
        return Err(Error::input(
            root,
            "a link; what it leads to is not deleted",
        ));
    }
    let manifest = store.newest(model)?.ok_or_else(|| Error::NoModel {
        model: model.to_string(),
        reason: "not in the store".into(),
    })?;
    let listing = directory.scan()?;
    compare_all(store, &manifest, &listing, threads, monitor)?;
    let blobs = Blobs::of(directory)?;
    let mut report = DeleteReport {
        model: model.clone(),
        version: manifest.version,
        files: 0,
        bytes: 0,
    };
    for file in &listing.files {
        // Opening it tells whether it is the file that was compared.
        drop(file.open()?);
        remove(&file.path.under(root))?;
        report.files += 1;
        report.bytes += file.size;
        if blobs.may_go(&file.absolute) {
            remove(&file.absolute)?;
        }
    }
    remove_directories(directory, &listing, &blobs);
    Ok(report)
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        // Two paths of one file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(Error::io("remove", path)),
    }
}

fn compare_all(
    store: &Store,
    manifest: &Manifest,
    listing: &Listing,
    threads: usize,
    monitor: &dyn Monitor,
) -> Result<()> {
    let pool = threads::pool(threads, store.layout().root())?;
    let reader = ObjectReader::new(store.clone());
    monitor.begin(
        manifest.model.as_str(),
        listing.files.iter().map(|file| file.size).sum(),
    );
    let done = listing.files.iter().try_for_each(|file| {
        let entry = manifest.files.iter().find(|entry| entry.path == file.path);
        let not_stored =
            |reason: &str| Error::input(&file.absolute, format!("{reason}; nothing was deleted"));
        let entry = entry.ok_or_else(|| not_stored("not in the stored version"))?;
        if entry.size != file.size {
            return Err(not_stored("the stored version has another length"));
        }
        let open = file.open()?;
        if !pool.install(|| is_same(&reader, &open, entry, monitor))? {
            return Err(not_stored("the stored version has other bytes"));
        }
        open.check_unchanged()
    });
    monitor.end();
    done
}

/// Compares a file with what the store gives back of it.
fn is_same(
    reader: &ObjectReader,
    file: &OpenFile,
    entry: &FileEntry,
    monitor: &dyn Monitor,
) -> Result<bool> {
    let mut starts = Vec::with_capacity(entry.segments.len());
    let mut start = 0;
    for segment in &entry.segments {
        starts.push((segment, start));
        start += segment.length;
    }
    let same = |(segment, start): &(&Segment, u64)| {
        let head = reader.open(&segment.object)?.file.frame.head.clone();
        if head.raw_len != segment.length {
            return Err(Error::corrupt(
                &segment.object,
                "has another length than the manifest says",
            ));
        }
        let chunks = (0..head.chunk_count()).into_par_iter().map(|index| {
            let (offset, length) = head.chunk_range(index);
            reader.buffers().with(length, |stored| {
                reader.read_chunk(&segment.object, index, stored)?;
                reader.buffers().with(length, |source| {
                    file.read_exact_at(start + offset, source)?;
                    monitor.advance(length as u64);
                    Ok(source == stored)
                })
            })
        });
        chunks.try_reduce(|| true, |a, b| Ok(a && b))
    };
    starts
        .par_iter()
        .map(same)
        .try_reduce(|| true, |a, b| Ok(a && b))
}

/// The files behind the links of a Hugging Face cache.
struct Blobs {
    /// Where they lie; `None` for a plain directory.
    folder: Option<PathBuf>,
    /// Those that other snapshots have.
    used: HashSet<PathBuf>,
}

impl Blobs {
    fn of(directory: &ModelDir) -> Result<Self> {
        let mut blobs = Self {
            folder: None,
            used: HashSet::new(),
        };
        if directory.commit().is_none() {
            return Ok(blobs);
        }
        let snapshots = directory.boundary().join("snapshots");
        for entry in fs::read_dir(&snapshots).map_err(Error::io("list", &snapshots))? {
            let path = entry.map_err(Error::io("list", &snapshots))?.path();
            if path
                .canonicalize()
                .is_ok_and(|path| path != *directory.canonical())
            {
                blobs.add(&path)?;
            }
        }
        blobs.folder = Some(directory.boundary().join("blobs"));
        Ok(blobs)
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let meta = path
            .symlink_metadata()
            .map_err(Error::io("look at", path))?;
        if meta.is_dir() {
            for entry in fs::read_dir(path).map_err(Error::io("list", path))? {
                self.add(&entry.map_err(Error::io("list", path))?.path())?;
            }
        } else if let Ok(target) = path.canonicalize() {
            self.used.insert(target);
        }
        Ok(())
    }

    fn may_go(&self, file: &Path) -> bool {
        let within = |folder: &PathBuf| file.starts_with(folder);
        self.folder.as_ref().is_some_and(within) && !self.used.contains(file)
    }
}

/// Removes directories that are empty now. One that is not, or cannot be removed, stays: that is no failure.
fn remove_directories(directory: &ModelDir, listing: &Listing, blobs: &Blobs) {
    let files = listing
        .files
        .iter()
        .map(|file: &SourceFile| file.path.under(directory.root()));
    let empty = listing
        .empty_dirs
        .iter()
        .map(|dir| dir.under(directory.root()).join("x"));
    let mut directories: Vec<_> = files
        .chain(empty)
        .flat_map(|path| {
            path.ancestors()
                .skip(1)
                .map(Path::to_path_buf)
                .collect::<Vec<_>>()
        })
        .filter(|path| path.starts_with(directory.root()) && path != directory.root())
        .collect();
    directories.sort_unstable();
    directories.dedup();
    for path in directories.iter().rev() {
        let _ = fs::remove_dir(path);
    }
    if blobs.used.is_empty() {
        let _ = fs::remove_dir(directory.root());
    }
    // A cache folder of which nothing but the name of its main revision is left.
    if blobs.folder.is_some() && blobs.used.is_empty() {
        let cache = directory.boundary();
        let is_gone = |name: &str| fs::remove_dir(cache.join(name)).is_ok();
        if is_gone("snapshots") && is_gone("blobs") {
            let _ = fs::remove_file(cache.join("refs").join("main"));
            let _ = fs::remove_dir(cache.join("refs"));
            let _ = fs::remove_dir(cache);
        }
    }
}
