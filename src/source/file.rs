//! `SourceFile` and `OpenFile`: one input file, read with `pread` and watched for changes.

use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::checkpoint::ReadAt;
use crate::error::{Error, Result};
use crate::hash::Hash;
use crate::name::RelPath;

/// What tells whether a file is still the same: equal stamps, equal content.
///
/// Times have the file system's granularity: a stamp whose times are within a few seconds of the moment
/// it was taken does not exclude a later write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stamp {
    /// The device's number.
    pub device: u64,
    /// The inode's number.
    pub inode: u64,
    /// The file's bytes.
    pub size: u64,
    /// When the content was last written: seconds since 1970, and nanoseconds.
    pub modified: (i64, i64),
    /// When content or metadata last changed: seconds since 1970, and nanoseconds.
    pub changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A regular file of a model, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// The path within the model.
    pub path: RelPath,
    /// The file's own path, every symlink resolved.
    pub absolute: PathBuf,
    /// The file's bytes.
    pub size: u64,
    /// Whether its owner may execute it.
    pub executable: bool,
    /// The file's identity and times.
    pub stamp: Stamp,
}

impl SourceFile {
    /// Opens the file to read it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the file cannot be opened; [`Error::Changed`] where it is another file, or of
    /// another size or time, than the one that was found.
    pub fn open(&self) -> Result<OpenFile> {
        let file = open_without_links(&self.absolute)?;
        let open = OpenFile {
            file,
            path: self.absolute.clone(),
            stamp: self.stamp,
        };
        open.check_unchanged()?;
        Ok(open)
    }
}

/// Opens a file without following a link in its last part and without waiting for a FIFO's writer.
pub(super) fn open_without_links(path: &Path) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty())
        .map_err(|errno| Error::io("open", path)(errno.into()))?;
    Ok(File::from(file))
}

/// A file that is being read; it can be shared by threads.
#[derive(Debug)]
pub struct OpenFile {
    file: File,
    path: PathBuf,
    stamp: Stamp,
}

impl OpenFile {
    /// Returns the stamp that the file has to keep.
    pub const fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    /// Returns the path that the file was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// [`Error::Changed`] where the file ends too early, [`Error::Io`] where the system fails.
    pub fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(buffer, offset).map_err(|error| {
            if error.kind() == std::io::ErrorKind::UnexpectedEof {
                self.changed()
            } else {
                Error::io("read", &self.path)(error)
            }
        })
    }

    /// Hashes the whole file.
    ///
    /// # Errors
    ///
    /// Those of [`Self::read_exact_at`].
    pub fn hash(&self) -> Result<Hash> {
        let (mut hasher, mut at) = (blake3::Hasher::new(), 0);
        let mut buffer = vec![0; 1 << 20];
        while at < self.stamp.size {
            let length = (self.stamp.size - at).min(1 << 20);
            buffer.truncate(usize::try_from(length).unwrap_or(0));
            self.read_exact_at(at, &mut buffer)?;
            hasher.update(&buffer);
            at += length;
        }
        Ok(Hash::from_bytes(*hasher.finalize().as_bytes()))
    }

    /// Checks that the file is still as it was when it was found; to be called after the last read.
    ///
    /// # Errors
    ///
    /// [`Error::Changed`] where it is not.
    pub fn check_unchanged(&self) -> Result<()> {
        let metadata = self
            .file
            .metadata()
            .map_err(Error::io("look at", &self.path))?;
        if Stamp::of(&metadata) == self.stamp {
            Ok(())
        } else {
            Err(self.changed())
        }
    }

    fn changed(&self) -> Error {
        Error::Changed {
            path: self.path.clone(),
        }
    }
}

impl ReadAt for OpenFile {
    fn len(&self) -> u64 {
        self.stamp.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.read_exact_at(offset, buffer)
    }
}
