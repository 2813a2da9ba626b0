//! `PartialFile`: a file being restored, which has no name before it is whole.
//!
//! Where the file system can (Linux: `O_TMPFILE`) it has none at all, so that nothing is left of a restore that is killed.
//! Elsewhere it has a temporary one.
#![expect(
    clippy::disallowed_methods,
    reason = "writes to the output directory, not to a store"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use super::output::{set_mode, with_execute_bits};
use crate::error::{Error, Result};
use crate::pieces::pieces;

/// Files from this length on have room set aside.
const LEAST_RESERVED: u64 = 1 << 20;

/// A file that does not have its name yet; unless it gets it, it is gone when this is dropped.
pub struct PartialFile {
    directory: OwnedFd,
    file: File,
    /// The name that it has for the time being, where it cannot be without.
    temp: Option<String>,
    name: String,
    /// Where it will be, for messages.
    path: PathBuf,
}

impl PartialFile {
    /// Makes the file that will be `name` in `directory`.
    pub fn create(directory: OwnedFd, name: &str, path: PathBuf) -> Result<Self> {
        let made = match without_name(&directory) {
            Some(file) => Ok((file, None)),
            None => with_temporary_name(&directory).map(|(file, temp)| (file, Some(temp))),
        };
        let (file, temp) = made.map_err(Error::io("create", &path))?;
        let name = name.to_owned();
        Ok(Self {
            directory,
            file,
            temp,
            name,
            path,
        })
    }

    /// Writes bytes at a place of the file.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        pieces(offset, bytes)
            .try_for_each(|(at, piece)| self.file.write_all_at(piece, at))
            .map_err(Error::io("write", &self.path))
    }

    /// Sets room aside for a file of `length` bytes, where the file system can: what several threads write then lies
    /// together on the disk, a disk that is too full says so at once, and the kernel looks for room once, not a page
    /// at a time.
    pub fn reserve(&self, length: u64) -> Result<()> {
        if length < LEAST_RESERVED {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, length) {
            Err(Errno::NOSPC) => {
                Err(io::ErrorKind::StorageFull.into()).map_err(Error::io("write", &self.path))
            }
            // Whatever else is wrong, writing will tell.
            _ => Ok(()),
        }
    }

    /// Gives the file its name; without `replace`, something of that name is an error.
    pub fn finish(&self, executable: bool, replace: bool) -> Result<()> {
        if executable {
            let mode = self
                .file
                .metadata()
                .map_err(Error::io("look at", &self.path))?
                .mode();
            set_mode(&self.file, with_execute_bits(mode, true))
                .map_err(Error::io("set the mode of", &self.path))?;
        }
        self.give_name(replace)
            .map_err(Error::io("name", &self.path))
    }

    fn give_name(&self, replace: bool) -> io::Result<()> {
        // A link never replaces anything, on any file system that has them.
        match (self.link(&self.name), &self.temp) {
            (Err(Errno::EXIST), _) if !replace => Err(io::ErrorKind::AlreadyExists.into()),
            (Err(Errno::EXIST), None) => self.replace(),
            (Err(errno), None) => Err(errno.into()),
            (Err(_), Some(temp)) => self.rename(temp, replace),
            (Ok(()), Some(temp)) => Ok(self.unlink(temp)?),
            (Ok(()), None) => Ok(()),
        }
    }

    /// Gives the file a name that nothing has.
    fn link(&self, name: &str) -> rustix::io::Result<()> {
        let Some(temp) = &self.temp else {
            let file = by_number(&self.file);
            return rustix::fs::linkat(CWD, file, &self.directory, name, AtFlags::SYMLINK_FOLLOW);
        };
        rustix::fs::linkat(
            &self.directory,
            temp,
            &self.directory,
            name,
            AtFlags::empty(),
        )
    }

    /// Gives a file without a name the one that something else has: only a rename replaces, and it needs a name.
    fn replace(&self) -> io::Result<()> {
        let temp = loop {
            let temp = temporary_name();
            match self.link(&temp) {
                Err(Errno::EXIST) => {}
                linked => break linked.map(|()| temp)?,
            }
        };
        self.rename(&temp, true).inspect_err(|_| {
            // Nothing can be done about one that stays.
            let _ = self.unlink(&temp);
        })
    }

    fn rename(&self, temp: &str, replace: bool) -> io::Result<()> {
        if !replace
            && rustix::fs::statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
        {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(rustix::fs::renameat(
            &self.directory,
            temp,
            &self.directory,
            &self.name,
        )?)
    }

    fn unlink(&self, name: &str) -> rustix::io::Result<()> {
        rustix::fs::unlinkat(&self.directory, name, AtFlags::empty())
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if let Some(temp) = &self.temp {
            // Already gone where the file got its name.
            let _ = self.unlink(temp);
        }
    }
}

const WRITE: OFlags = OFlags::WRONLY.union(OFlags::CLOEXEC);

/// Makes a file without a name, if the file system can and `/proc` is there to name it by.
#[cfg(target_os = "linux")]
fn without_name(directory: &OwnedFd) -> Option<File> {
    let flags = WRITE | OFlags::TMPFILE;
    let file = rustix::fs::openat(directory, ".", flags, Mode::from_raw_mode(0o666)).ok()?;
    let file = File::from(file);
    rustix::fs::stat(by_number(&file)).is_ok().then_some(file)
}

#[cfg(not(target_os = "linux"))]
fn without_name(_: &OwnedFd) -> Option<File> {
    None
}

fn with_temporary_name(directory: &OwnedFd) -> io::Result<(File, String)> {
    let flags = WRITE | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    loop {
        let temp = temporary_name();
        match rustix::fs::openat(directory, &temp, flags, Mode::from_raw_mode(0o666)) {
            Err(Errno::EXIST) => {}
            file => return Ok((file?.into(), temp)),
        }
    }
}

fn by_number(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())
}

/// A name that this process has not given before.
fn temporary_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let serial = NEXT.fetch_add(1, Ordering::Relaxed);
    format!(".zipllm-{}-{serial}.part", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    fn open(directory: &Path) -> OwnedFd {
        File::open(directory).unwrap().into()
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
        entries
            .map(|entry| name(entry).into_string().unwrap())
            .collect()
    }

    /// One file as the file system allows it, and one with a temporary name.
    fn both(directory: &Path) -> [PartialFile; 2] {
        let path = directory.join("file");
        let first = PartialFile::create(open(directory), "file", path.clone()).unwrap();
        let (file, temp) = with_temporary_name(&open(directory)).unwrap();
        let second = PartialFile {
            directory: open(directory),
            file,
            temp: Some(temp),
            name: "file".into(),
            path,
        };
        [first, second]
    }

    #[test]
    fn a_file_gets_its_name_when_it_is_whole() {
        for which in 0..2 {
            let dir = tempfile::tempdir().unwrap();
            let [first, second] = both(dir.path());
            let file = if which == 0 {
                drop(second);
                first
            } else {
                drop(first);
                second
            };
            file.write_at(2, b"cd").unwrap();
            file.write_at(0, b"ab").unwrap();
            assert!(!dir.path().join("file").exists());
            file.finish(true, false).unwrap();
            drop(file);
            assert_eq!(names(dir.path()), ["file"]);
            assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"abcd");
            let mode = fs::metadata(dir.path().join("file")).unwrap().mode();
            assert_eq!(mode & 0o7111, (mode & 0o444) >> 2);
        }
    }

    #[test]
    fn nothing_is_left_of_a_file_that_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let files = both(dir.path());
        files
            .iter()
            .for_each(|file| file.write_at(0, b"some").unwrap());
        assert!(
            names(dir.path())
                .iter()
                .all(|name| name.starts_with(".zipllm-"))
        );
        drop(files);
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn only_whoever_is_told_to_replaces_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "old").unwrap();
        for file in both(dir.path()) {
            let refused = file.finish(false, false).unwrap_err();
            assert!(refused.to_string().contains("file"), "{refused}");
            assert_eq!(fs::read(&path).unwrap(), b"old");
        }
        for file in both(dir.path()) {
            fs::write(&path, "old").unwrap();
            file.write_at(0, b"new").unwrap();
            file.finish(false, true).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"new");
            drop(file);
            assert!(path.exists());
        }
        assert_eq!(names(dir.path()), ["file"]);
    }

    /// Where the file system has no links, a name that is taken is seen before the rename.
    #[test]
    fn a_rename_replaces_nothing_unasked() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "old").unwrap();
        let [_, file] = both(dir.path());
        let temp = file.temp.clone().unwrap();
        let refused = file.rename(&temp, false).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        fs::remove_file(dir.path().join("file")).unwrap();
        file.rename(&temp, false).unwrap();
        assert_eq!(names(dir.path()), ["file"]);
    }

    #[test]
    fn nothing_is_left_where_a_name_cannot_be_given() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("file")).unwrap();
        for file in both(dir.path()) {
            assert!(file.finish(false, true).is_err());
            assert!(file.finish(false, false).is_err());
        }
        assert_eq!(names(dir.path()), ["file"]);
    }

    #[test]
    fn room_is_set_aside_for_large_files() {
        let dir = tempfile::tempdir().unwrap();
        let blocks = |length, reserve: &dyn Fn(&PartialFile, u64)| {
            let [file, _] = both(dir.path());
            reserve(&file, length);
            file.file.metadata().unwrap().blocks()
        };
        let ours = |file: &PartialFile, length| file.reserve(length).unwrap();
        // As much as the file system itself does, which may be nothing.
        let plain = |file: &PartialFile, length| {
            let _ = rustix::fs::fallocate(&file.file, FallocateFlags::empty(), 0, length);
        };
        for length in [LEAST_RESERVED, 3 * LEAST_RESERVED] {
            assert_eq!(blocks(length, &ours), blocks(length, &plain));
        }
        assert_eq!(blocks(LEAST_RESERVED - 1, &ours), 0);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_temporary_file_system_needs_no_temporary_names() {
        // Where /dev/shm is missing there is nothing to be said.
        let Ok(dir) = tempfile::tempdir_in("/dev/shm") else {
            return;
        };
        let file = PartialFile::create(open(dir.path()), "file", dir.path().join("file")).unwrap();
        assert!(file.temp.is_none());
        assert!(names(dir.path()).is_empty());
    }
}
