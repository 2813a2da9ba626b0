//! The output directory: files are made, and named, through directory handles that no symlink can divert.
#![expect(
    clippy::disallowed_methods,
    reason = "writes to the output directory, not to a store"
)]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::partial::PartialFile;
use crate::error::{Error, Result};
use crate::hash::Hash;
use crate::name::RelPath;
use crate::store::manifest::FileEntry;

/// A directory that a model is restored into.
pub struct OutputDir {
    root: OwnedFd,
    path: PathBuf,
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

impl OutputDir {
    /// Opens the directory, making it where there is none.
    pub fn open(path: &Path) -> Result<Self> {
        std::fs::create_dir_all(path).map_err(Error::io("create", path))?;
        let root = rustix::fs::open(path, DIRECTORY, Mode::empty())
            .map_err(io::Error::from)
            .map_err(Error::io("open", path))?;
        Ok(Self {
            root,
            path: path.to_path_buf(),
        })
    }

    /// Makes a directory and those above it.
    pub fn make_dir(&self, path: &RelPath) -> Result<()> {
        let directory = self.parent(path, true)?;
        match (directory, path.parts().next_back()) {
            (Some(directory), Some(name)) => {
                step(&directory, name, true, &path.under(&self.path)).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Tells whether `entry` is there with the right content, and gives it the right execute bit.
    ///
    /// # Errors
    /// Something else in its place is an error; a file of other content is one unless `force` is set.
    pub fn check_existing(&self, entry: &FileEntry, force: bool) -> Result<bool> {
        let path = entry.path.under(&self.path);
        let in_the_way = |reason: &str| {
            Err(Error::Output {
                path: path.clone(),
                reason: reason.into(),
            })
        };
        let (Some(directory), Some(name)) = (
            self.parent(&entry.path, false)?,
            entry.path.parts().next_back(),
        ) else {
            return Ok(false);
        };
        let kind = match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(rustix::io::Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(Error::io("look at", &path)(errno.into())),
            Ok(stat) => FileType::from_raw_mode(stat.st_mode),
        };
        match kind {
            FileType::Directory => in_the_way("a directory is in the way"),
            FileType::RegularFile if same_content(&directory, name, entry, &path)? => Ok(true),
            _ if force => Ok(false),
            FileType::RegularFile => {
                in_the_way("exists with other content; give --force to replace it")
            }
            _ => in_the_way(
                "something that is no regular file is in the way; give --force to replace it",
            ),
        }
    }

    /// Makes a file without a name, beside the place it will have.
    pub fn create(&self, path: &RelPath) -> Result<PartialFile> {
        let shown = path.under(&self.path);
        let (Some(directory), Some(name)) = (self.parent(path, true)?, path.parts().next_back())
        else {
            return Err(Error::Output {
                path: shown,
                reason: "its directory is gone".into(),
            });
        };
        PartialFile::create(directory, name, shown)
    }

    /// Opens the directory that `path` lies in, step by step, following no symlink.
    ///
    /// `None` where it does not exist and is not to be made.
    fn parent(&self, path: &RelPath, make: bool) -> Result<Option<OwnedFd>> {
        let mut directory = self
            .root
            .try_clone()
            .map_err(Error::io("open", &self.path))?;
        let mut shown = self.path.clone();
        let parts: Vec<_> = path.parts().collect();
        for part in parts.iter().take(parts.len().saturating_sub(1)) {
            shown.push(part);
            match step(&directory, part, make, &shown)? {
                Some(next) => directory = next,
                None => return Ok(None),
            }
        }
        Ok(Some(directory))
    }
}

/// Opens a directory within `directory`, making it if asked to, following no symlink.
fn step(directory: &OwnedFd, part: &str, make: bool, shown: &Path) -> Result<Option<OwnedFd>> {
    use rustix::io::Errno;
    if make {
        match rustix::fs::mkdirat(directory, part, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Error::io("create", shown)(errno.into())),
        }
    }
    match rustix::fs::openat(directory, part, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
        Ok(next) => Ok(Some(next)),
        Err(Errno::NOENT) if !make => Ok(None),
        Err(Errno::NOTDIR | Errno::LOOP) => {
            let reason = "has to be a directory, and is a file or a symlink".into();
            Err(Error::Output {
                path: shown.to_path_buf(),
                reason,
            })
        }
        Err(errno) => Err(Error::io("open", shown)(errno.into())),
    }
}

/// Compares a file with its entry; the right one gets the right execute bit.
fn same_content(directory: &OwnedFd, name: &str, entry: &FileEntry, path: &Path) -> Result<bool> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::empty())
        .map_err(io::Error::from)
        .map_err(Error::io("open", path))?;
    let mut file = File::from(file);
    let metadata = file.metadata().map_err(Error::io("look at", path))?;
    if !metadata.is_file()
        || metadata.len() != entry.size
        || hash_file(&mut file).map_err(Error::io("read", path))? != entry.blake3
    {
        return Ok(false);
    }
    let wanted = with_execute_bits(metadata.mode(), entry.executable);
    if wanted != metadata.mode() {
        set_mode(&file, wanted).map_err(Error::io("set the mode of", path))?;
    }
    Ok(true)
}

fn hash_file(file: &mut File) -> io::Result<Hash> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Hash::from_bytes(*hasher.finalize().as_bytes())),
            read => hasher.update(buffer.get(..read).unwrap_or_default()),
        };
    }
}

/// Whoever may read the file may execute it, or nobody.
pub(super) fn with_execute_bits(mode: u32, executable: bool) -> u32 {
    if executable {
        mode | (mode & 0o444) >> 2
    } else {
        mode & !0o111
    }
}

pub(super) fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::fchmod(
        file.as_fd(),
        Mode::from_raw_mode(mode & 0o7777),
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of the model, `path` with some content.
    fn entry(path: &str, content: &[u8], executable: bool) -> FileEntry {
        FileEntry {
            path: path.parse().unwrap(),
            size: content.len() as u64,
            blake3: Hash::of(content),
            executable,
            segments: Vec::new(),
        }
    }

    #[test]
    fn what_is_there_is_kept_replaced_or_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("file"), "right").unwrap();
        std::fs::create_dir(path("dir")).unwrap();
        std::os::unix::fs::symlink("file", path("link")).unwrap();
        let output = OutputDir::open(dir.path()).unwrap();
        let refused = |reason| Err(reason);
        for (name, content, unforced, forced) in [
            ("file", "right", Ok(true), Ok(true)),
            ("file", "wrong", refused("other content"), Ok(false)),
            ("file", "longer", refused("other content"), Ok(false)),
            ("link", "right", refused("no regular file"), Ok(false)),
            (
                "dir",
                "right",
                refused("a directory"),
                refused("a directory"),
            ),
            ("new", "right", Ok(false), Ok(false)),
            ("dir/new", "right", Ok(false), Ok(false)),
            ("new/new", "right", Ok(false), Ok(false)),
            (
                "file/new",
                "right",
                refused("a file or a symlink"),
                refused("a file or a symlink"),
            ),
        ] {
            for (force, want) in [(false, unforced), (true, forced)] {
                let found = output.check_existing(&entry(name, content.as_bytes(), false), force);
                match (found, want) {
                    (Ok(found), Ok(want)) => assert_eq!(found, want, "{name} {content} {force}"),
                    (Err(found), Err(want)) => assert!(found.to_string().contains(want), "{found}"),
                    (found, want) => panic!("{name} {content} {force}: {found:?}, not {want:?}"),
                }
            }
        }
    }

    #[test]
    fn a_link_that_takes_the_place_of_a_file_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "right").unwrap();
        std::os::unix::fs::symlink("file", dir.path().join("link")).unwrap();
        let directory = OwnedFd::from(File::open(dir.path()).unwrap());
        let same = |name: &str| {
            let entry = entry(name, b"right", false);
            same_content(&directory, name, &entry, &dir.path().join(name))
        };
        assert!(same("file").unwrap());
        assert!(same("link").is_err());
    }

    #[test]
    fn a_file_that_is_kept_gets_the_right_execute_bits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "right").unwrap();
        let output = OutputDir::open(dir.path()).unwrap();
        let plain = std::fs::metadata(&path).unwrap().mode();
        for executable in [true, true, false, false] {
            assert!(
                output
                    .check_existing(&entry("file", b"right", executable), false)
                    .unwrap()
            );
            let mode = std::fs::metadata(&path).unwrap().mode();
            assert_eq!(mode, with_execute_bits(plain, executable));
        }
    }

    #[test]
    fn whoever_may_read_may_execute_or_nobody() {
        for (mode, executable, want) in [
            (0o100_644, true, 0o100_755),
            (0o100_755, true, 0o100_755),
            (0o600, true, 0o700),
            (0o640, true, 0o750),
            (0o755, false, 0o644),
            (0o100_600, false, 0o100_600),
        ] {
            assert_eq!(with_execute_bits(mode, executable), want, "{mode:o}");
        }
    }
}
