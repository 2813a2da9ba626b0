//! The files behind the links of a Hugging Face cache, and which of them may go.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::compare::is_same;
use super::remove;
use crate::error::{Error, Result};
use crate::name::ModelId;
use crate::object_reader::ObjectReader;
use crate::report::NoMonitor;
use crate::source::{ModelDir, SourceFile, at};
use crate::store::Store;
use crate::threads;

/// The files behind the links of a Hugging Face cache.
pub struct Blobs {
    /// Where they lie; `None` for a plain directory.
    pub folder: Option<PathBuf>,
    /// Those that snapshots have that are not to be deleted.
    pub used: HashSet<PathBuf>,
}

impl Blobs {
    /// Looks at the cache that the directories lie in, if they lie in one.
    pub fn of(directories: &[ModelDir]) -> Result<Self> {
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
    pub fn delete_stray(&self, store: &Store, model: &ModelId, threads: usize) -> Result<u64> {
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

    /// Tells whether nothing else needs a file behind a link.
    pub fn may_go(&self, file: &Path) -> bool {
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
