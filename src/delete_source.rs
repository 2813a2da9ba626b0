//! Deleting the files that a model was stored from, once the stored copy has been read back.
//!
//! All files of a model are compared, byte by byte, with what the store gives back, before the first one is deleted.
//! In a Hugging Face cache the file behind a link goes too, unless a snapshot has it that is not deleted.
#![expect(
    clippy::disallowed_methods,
    reason = "deletes models' own files, not those of a store"
)]

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::name::ModelId;
use crate::object_reader::ObjectReader;
use crate::report::{Monitor, NoMonitor};
use crate::source::{Listing, ModelDir, OpenFile, SourceFile, at};
use crate::store::Store;
use crate::store::lock::WriteLock;
use crate::store::manifest::{FileEntry, Manifest, Segment};
use crate::threads;

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
    /// Those that snapshots have that are not to be deleted.
    used: HashSet<PathBuf>,
}

impl Blobs {
    fn of(directories: &[ModelDir]) -> Result<Self> {
        let mut blobs = Self {
            folder: None,
            used: HashSet::new(),
        };
        let mut cached = directories.iter().filter(|one| one.commit().is_some());
        let Some(cache) = cached.next().map(ModelDir::boundary) else {
            return Ok(blobs);
        };
        let snapshots = cache.join("snapshots");
        let is_ours = |path: &Path| directories.iter().any(|one| one.canonical() == path);
        for entry in fs::read_dir(&snapshots).map_err(Error::io("list", &snapshots))? {
            let path = entry.map_err(Error::io("list", &snapshots))?.path();
            if path.canonicalize().is_ok_and(|path| !is_ours(&path)) {
                blobs.add(&path)?;
            }
        }
        blobs.folder = Some(cache.join("blobs"));
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

    /// Deletes blobs to which no link leads, if the store gives them back: a deletion was stopped between link and blob.
    /// Returns their bytes.
    fn delete_stray(&self, store: &Store, model: &ModelId, threads: usize) -> Result<u64> {
        let Some(folder) = self.folder.as_deref().filter(|folder| folder.is_dir()) else {
            return Ok(0);
        };
        let linked = links_below(&folder.with_file_name("snapshots"))?;
        let blobs = at(folder)?.scan()?.files;
        let stray: Vec<_> = blobs
            .iter()
            .filter(|blob| !linked.contains(&blob.absolute))
            .collect();
        let mut bytes = 0;
        for blob in &stray {
            if is_stored(store, model, blob, threads)? {
                remove(&blob.absolute)?;
                bytes += blob.size;
            }
        }
        Ok(bytes)
    }

    fn may_go(&self, file: &Path) -> bool {
        let within = |folder: &PathBuf| file.starts_with(folder);
        self.folder.as_ref().is_some_and(within) && !self.used.contains(file)
    }
}

/// Tells whether a version of the model has a file of these bytes, which the store gives back.
fn is_stored(store: &Store, model: &ModelId, file: &SourceFile, threads: usize) -> Result<bool> {
    let open = file.open()?;
    let reader = ObjectReader::new(store.clone());
    let pool = threads::pool(threads, store.layout().root())?;
    let mut hash = None;
    for version in store.versions(model)? {
        let Some(manifest) = store.manifest(model, version)? else {
            continue;
        };
        let mut entries = manifest.files.iter();
        while let Some(entry) = entries.find(|entry| entry.size == file.size) {
            if hash.is_none() {
                hash = Some(open.hash()?);
            }
            if hash == Some(entry.blake3)
                && pool.install(|| is_same(&reader, &open, entry, &NoMonitor))?
            {
                return open.check_unchanged().map(|()| true);
            }
        }
    }
    Ok(false)
}

/// What links below a directory lead to, those aside that lead nowhere.
fn links_below(directory: &Path) -> Result<HashSet<PathBuf>> {
    let mut all = Blobs {
        folder: None,
        used: HashSet::new(),
    };
    all.add(directory)?;
    Ok(all.used)
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
    if blobs.folder.is_none() {
        let _ = fs::remove_dir(directory.root());
    }
}

/// Removes what is left of a cache folder when all its snapshots are stored and gone.
///
/// `refs/main` goes when the directory of its snapshot is the last one, so that whoever looks on the way finds a model
/// without files, not a name of nothing.
fn remove_cache(cache: &Path, blobs: &Blobs) {
    let is_empty = |folder: &Path| fs::read_dir(folder).is_ok_and(|mut left| left.next().is_none());
    let snapshots = cache.join("snapshots");
    let left = fs::read_dir(&snapshots).into_iter().flatten().flatten();
    let mut left: Vec<_> = left.map(|entry| entry.path()).collect();
    if !blobs.used.is_empty() || !left.iter().all(|snapshot| is_empty(snapshot)) {
        return;
    }
    let names = left.iter().filter_map(|path| path.file_name()?.to_str());
    let names: Vec<_> = names.map(str::to_owned).collect();
    let refs = cache.join("refs");
    let main = Some(refs.join("main")).filter(|main| main.is_file());
    let main = main.and_then(|main| fs::read_to_string(main).ok());
    let main = main.unwrap_or_default();
    left.sort_unstable_by_key(|path| path.ends_with(main.trim_ascii()));
    let last = left.pop();
    left.iter().for_each(|path| drop(fs::remove_dir(path)));
    remove_refs(&refs, &names);
    for path in last.iter().chain([&snapshots, &cache.join("blobs")]) {
        let _ = fs::remove_dir(path);
    }
    let _ = fs::remove_dir(cache);
}

/// Removes names of revisions that are gone, and their directories if nothing else is in them.
fn remove_refs(directory: &Path, commits: &[String]) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let names_one = || {
            let text = fs::read_to_string(&path);
            text.is_ok_and(|text| commits.iter().any(|commit| *commit == text.trim_ascii()))
        };
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => remove_refs(&path, commits),
            Ok(kind) if kind.is_file() && names_one() => {
                let _ = fs::remove_file(&path);
            }
            _ => {}
        }
    }
    let _ = fs::remove_dir(directory);
}
