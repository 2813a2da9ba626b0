//! A disk that can only be read: the files of a store in memory.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use zipllm::store::fs::{Disk, Entry, ReadFile, WriteFile};

/// Files by path; clones share them.
#[derive(Clone, Default)]
pub struct Files(Arc<Mutex<HashMap<PathBuf, Arc<Vec<u8>>>>>);

impl Files {
    pub fn put(&self, path: PathBuf, bytes: Vec<u8>) {
        self.0.lock().unwrap().insert(path, Arc::new(bytes));
    }
}

struct Reader(Arc<Vec<u8>>);

impl ReadFile for Reader {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.0.get(from..).unwrap_or_default();
        let bytes = rest.get(..out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

fn read_only<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Disk for Files {
    fn create(&self, _: &Path) -> io::Result<Box<dyn WriteFile>> {
        read_only()
    }

    fn append(&self, _: &Path) -> io::Result<Box<dyn WriteFile>> {
        read_only()
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        match self.0.lock().unwrap().get(path) {
            Some(bytes) => Ok(Box::new(Reader(bytes.clone()))),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        read_only()
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        read_only()
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        read_only()
    }

    fn create_dir(&self, _: &Path) -> io::Result<bool> {
        read_only()
    }

    fn list(&self, _: &Path) -> io::Result<Vec<Entry>> {
        Ok(Vec::new())
    }
}
