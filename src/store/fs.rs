//! The only door to the store's disk, and the seam where tests put a failing one.
//!
//! A final name implies durable content: a file is written under a temporary name, synced, renamed, and
//! its directory synced. `clippy.toml` forbids to write past it; modules that write elsewhere say so.
#![expect(clippy::disallowed_methods, reason = "this is the door")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use crate::pieces;

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The entry's name; one that is not UTF-8 is shown with replacement characters.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Its length in bytes.
    pub len: u64,
    /// When it was last written, where the disk tells.
    pub modified: Option<SystemTime>,
}

/// A file being written.
pub trait WriteFile: Write + Send + Sync {
    /// Makes what was written durable (fdatasync).
    fn sync(&mut self) -> io::Result<()>;
}

/// A file being read, at any position, by any thread.
pub trait ReadFile: Send + Sync {
    /// Returns the length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Tells whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Fills `out` from `offset`; a file that ends before is an error.
    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()>;
}

/// The operations that a store needs of a disk.
pub trait Disk: Send + Sync {
    /// Creates a file that must not exist.
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;
    /// Opens a file for appending, creating it where it is missing.
    fn append(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;
    /// Opens a file for reading.
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>>;
    /// Renames a file, replacing what has the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Creates a directory, and tells whether there was none; one that exists is fine.
    fn create_dir(&self, path: &Path) -> io::Result<bool>;
    /// Removes a directory that is empty; on a disk that has no empty directories there is nothing to do.
    fn remove_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
    /// Lists a directory, sorted by name; a missing one is empty.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;
}

/// Makes a file without a name in `directory`: it is gone when it is closed, or when the process ends.
pub fn scratch_file(directory: &Path) -> io::Result<File> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = directory.join(format!("scratch-{}-{number}", std::process::id()));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// Opens a lock's file, and makes it where there is none: locks are the kernel's, and lie in the local file system
/// whatever the disk is.
pub fn lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

/// The local file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalDisk;

impl WriteFile for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// A new file of the local file system.
struct NewFile {
    file: File,
    /// Bytes written so far.
    len: u64,
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = bytes.get(..pieces::first(self.len, bytes));
        let written = self.file.write(piece.unwrap_or(bytes))?;
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl WriteFile for NewFile {
    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

impl ReadFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, out, offset)
    }
}

impl Disk for LocalDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let file = File::create_new(path)?;
        Ok(Box::new(NewFile { file, len: 0 }))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(Box::new(
            OpenOptions::new().append(true).create(true).open(path)?,
        ))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        Ok(Box::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {
                Ok(false)
            }
            made => made.map(|()| true),
        }
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let entries = match fs::read_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut found = entries
            .map(|entry| describe(&entry?))
            .collect::<io::Result<Vec<_>>>()?;
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }
}

fn describe(entry: &fs::DirEntry) -> io::Result<Entry> {
    let meta = entry.metadata()?;
    Ok(Entry {
        name: entry.file_name().to_string_lossy().into_owned(),
        is_dir: meta.is_dir(),
        len: meta.len(),
        modified: meta.modified().ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_file_has_no_name_and_keeps_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let files = [(); 2].map(|()| scratch_file(dir.path()).unwrap());
        assert!(LocalDisk.list(dir.path()).unwrap().is_empty());
        for (file, bytes) in files.iter().zip([b"one", b"two"]) {
            file.write_all_at(bytes, 3).unwrap();
        }
        let mut read = [9; 3];
        ReadFile::read_exact_at(&files[0], &mut read, 0).unwrap();
        assert_eq!(read, [0; 3]);
        ReadFile::read_exact_at(&files[0], &mut read, 3).unwrap();
        assert_eq!(&read, b"one");
        assert!(ReadFile::read_exact_at(&files[0], &mut read, 4).is_err());
        assert_eq!(ReadFile::len(&files[1]).unwrap(), 6);
        assert!(scratch_file(&dir.path().join("missing")).is_err());
    }

    #[test]
    fn directories_are_made_once_and_listed_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b");
        assert!(LocalDisk.create_dir(&path).unwrap());
        assert!(!LocalDisk.create_dir(&path).unwrap());
        LocalDisk.append(&dir.path().join("a")).unwrap();
        assert!(LocalDisk.create_dir(&dir.path().join("a")).is_err());
        assert!(LocalDisk.create_dir(&path.join("c/d")).is_err());
        let found = LocalDisk.list(dir.path()).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|entry| (entry.name.as_str(), entry.is_dir))
            .collect();
        assert_eq!(found, [("a", false), ("b", true)]);
        assert!(LocalDisk.list(&path.join("missing")).unwrap().is_empty());
        assert!(LocalDisk.list(&dir.path().join("a")).is_err());
        LocalDisk.remove_dir(&path).unwrap();
        assert!(!path.exists());
        assert!(LocalDisk.sync_dir(&path).is_err());
    }

    #[test]
    fn files_are_created_once_appended_to_renamed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
        let mut file = LocalDisk.create(&a).unwrap();
        assert!(LocalDisk.open(&a).unwrap().is_empty().unwrap());
        file.write_all(b"xy").unwrap();
        file.flush().unwrap();
        file.sync().unwrap();
        assert!(LocalDisk.create(&a).is_err());
        LocalDisk.append(&a).unwrap().write_all(b"z").unwrap();
        LocalDisk.append(&b).unwrap();
        LocalDisk.rename(&a, &b).unwrap();
        let read = LocalDisk.open(&b).unwrap();
        assert!(!read.is_empty().unwrap());
        let (mut bytes, listed) = ([0; 3], LocalDisk.list(dir.path()).unwrap());
        read.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"xyz");
        assert_eq!((listed.len(), listed[0].len), (1, 3));
        assert!(listed[0].modified.is_some());
        assert!(LocalDisk.open(&a).is_err());
        LocalDisk.remove(&b).unwrap();
        assert!(LocalDisk.remove(&b).is_err());
    }

    #[test]
    fn a_directory_is_no_file_to_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let refused = LocalDisk.open(dir.path()).err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn opening_a_lock_keeps_what_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        lock_file(&path).unwrap().write_all(b"7 host 1").unwrap();
        lock_file(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"7 host 1");
    }
}
