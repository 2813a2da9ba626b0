//! `Transfer`: the bytes of one model's files, several at once, each resumed and checked before it gets its name.
#![expect(
    clippy::disallowed_methods,
    reason = "writes to the directory of models, not to a store"
)]

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::client::{Client, Remote, RemoteFile};
use super::error::HubError;
use super::retry::Failure;
use crate::error::Error;
use crate::name::ModelId;
use crate::report::Monitor;
use crate::source::DOWNLOADS;

const READ_BYTES: usize = 1 << 20;
/// An attempt that brings fewer bytes beyond all earlier ones counts as one that brought nothing.
const MIN_PROGRESS_BYTES: u64 = 64 << 10;

/// Files of one commit on their way.
pub(super) struct Transfer<'a> {
    client: &'a Client,
    model: &'a ModelId,
    commit: &'a str,
    monitor: &'a dyn Monitor,
    /// Files that are whole, under their own names.
    pub staging: PathBuf,
    /// Files that are not.
    parts: PathBuf,
    /// Held open for its lock: two programs at one file would cut off each other's bytes.
    _lock: File,
    received: AtomicU64,
}

/// How far the attempts at one file got.
#[derive(Default)]
struct Reached {
    /// The most bytes that were there at a time.
    bytes: u64,
    /// How often bytes that were there had to be fetched anew, for the server ignored where to begin.
    restarts: u32,
}

impl<'a> Transfer<'a> {
    /// Makes the directories for a commit's files.
    pub fn new(
        client: &'a Client,
        model: &'a ModelId,
        remote: &'a Remote,
        model_dir: &Path,
        monitor: &'a dyn Monitor,
    ) -> Result<Self, HubError> {
        let name = format!("{}@{}", model.joined("--"), remote.commit);
        let staging = model_dir.join(DOWNLOADS).join(&name);
        let parts = model_dir.join(DOWNLOADS).join(name + ".parts");
        for directory in [&staging, &parts] {
            fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
        }
        let lock = File::open(&parts).map_err(Error::io("open", &parts))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => HubError::Busy,
            TryLockError::Error(error) => Error::io("lock", &parts)(error).into(),
        })?;
        Ok(Self {
            client,
            model,
            commit: &remote.commit,
            monitor,
            staging,
            parts,
            _lock: lock,
            received: AtomicU64::new(0),
        })
    }

    /// Bytes that came over the network.
    pub fn bytes_received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Fetches files, given with their numbers in the listing, on several threads; the first error ends all.
    pub fn fetch_all(
        &self,
        files: &[(usize, &RemoteFile)],
        at_once: usize,
    ) -> Result<(), HubError> {
        let next = AtomicUsize::new(0);
        let fault = Mutex::new(None);
        thread::scope(|scope| {
            for _ in 0..at_once.clamp(1, files.len().max(1)) {
                scope.spawn(|| {
                    while let Some((number, file)) = files.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        if let Err(error) = self.fetch_file(*number, file) {
                            next.store(files.len(), Ordering::Relaxed);
                            fault
                                .lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .get_or_insert(error);
                        }
                    }
                });
            }
        });
        fault
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .map_or(Ok(()), Err)
    }

    /// Fetches a file until it is whole and right, then gives it its name.
    fn fetch_file(&self, number: usize, file: &RemoteFile) -> Result<(), HubError> {
        let path = file.path.under(&self.staging);
        if path.metadata().is_ok_and(|found| found.len() == file.size) {
            self.monitor.skip(file.size);
            return Ok(());
        }
        let part = self.parts.join(format!(
            "{number}-{}",
            file.digest.as_ref().map_or("", |digest| digest.hex())
        ));
        let mut reached = Reached::default();
        self.client.patience.retry(|| {
            let mut output = open_part(&part, file.size)?;
            self.fill(file, &part, &mut output, &mut reached)?;
            if let Err(failure) = check(file, &part, &mut output) {
                // The next attempt begins anew.
                output
                    .set_len(0)
                    .map_err(Error::io("truncate", &part))
                    .map_err(Failure::lasting)?;
                return Err(failure);
            }
            output
                .sync_all()
                .map_err(Error::io("write", &part))
                .map_err(Failure::lasting)
        })?;
        Ok(put(&part, &path)?)
    }

    /// Receives what the part lacks.
    fn fill(
        &self,
        file: &RemoteFile,
        part: &Path,
        output: &mut File,
        reached: &mut Reached,
    ) -> Result<(), Failure> {
        let local = |error| Failure::lasting(Error::io("write", part)(error));
        let have = output.seek(SeekFrom::End(0)).map_err(local)?;
        if have > reached.bytes {
            self.monitor.skip(have - reached.bytes);
            reached.bytes = have;
        }
        if have == file.size {
            return Ok(());
        }
        let (start, body) = self
            .client
            .open(self.model, self.commit, &file.path, have)?;
        if start < have {
            reached.restarts += 1;
        }
        output
            .set_len(start)
            .and_then(|()| output.seek(SeekFrom::Start(start)))
            .map_err(local)?;
        let before = reached.bytes;
        // One byte more than is wanted shows that the file is another.
        let body = body.take((file.size - start).saturating_add(1));
        let ended = self.receive(body, start, file.size, output, reached);
        ended.map_err(|error| match error {
            Broken::Here(error) => local(error),
            Broken::There(reason) => Failure {
                progress: reached.bytes >= before + MIN_PROGRESS_BYTES,
                passing: reached.restarts < self.client.patience.attempts,
                ..Failure::passing(HubError::Broken {
                    path: file.path.to_string(),
                    reason,
                })
            },
        })
    }

    /// Copies a body that begins at `position` until it ends; it has to reach `size`.
    fn receive(
        &self,
        mut body: impl Read,
        mut position: u64,
        size: u64,
        output: &mut File,
        reached: &mut Reached,
    ) -> Result<(), Broken> {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let piece = match body.read(&mut buffer) {
                Ok(0) if position < size => {
                    return Err(Broken::There("it ended too early".into()));
                }
                Ok(0) => return Ok(()),
                Ok(count) => buffer.get(..count).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Broken::There(error.to_string())),
            };
            output.write_all(piece).map_err(Broken::Here)?;
            let count = piece.len() as u64;
            position += count;
            self.received.fetch_add(count, Ordering::Relaxed);
            let known = position.min(size);
            self.monitor.advance(known.saturating_sub(reached.bytes));
            reached.bytes = reached.bytes.max(known);
        }
    }

    /// Removes parts without a byte, and the directories if nothing came at all, as with a model that may not be read.
    pub fn remove_empty(&self) {
        for part in fs::read_dir(&self.parts).into_iter().flatten().flatten() {
            if part.metadata().is_ok_and(|found| found.len() == 0) {
                let _ = fs::remove_file(part.path());
            }
        }
        let folder = self.parts.parent();
        for directory in [Some(self.parts.as_path()), Some(&self.staging), folder] {
            let _ = directory.map(fs::remove_dir);
        }
    }

    /// Removes what earlier runs and other patterns left of the model: whole files, and parts, of any commit.
    pub fn clean_up(&self) {
        // Left-overs only take space.
        let Some(folder) = self.parts.parent() else {
            return;
        };
        let mine = self.model.joined("--") + "@";
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(mine.as_bytes())
            {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let _ = fs::remove_dir(folder);
    }
}

/// Which side a copy broke on.
enum Broken {
    Here(std::io::Error),
    There(String),
}

/// Opens what there is of a file; if that is too long, it is another's.
fn open_part(path: &Path, size: u64) -> Result<File, Failure> {
    let open = || {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        if file.metadata()?.len() > size {
            file.set_len(0)?;
        }
        Ok(file)
    };
    open()
        .map_err(Error::io("open", path))
        .map_err(Failure::lasting)
}

/// Compares a file's size and digest with what the hub said.
fn check(file: &RemoteFile, part: &Path, output: &mut File) -> Result<(), Failure> {
    let damaged = |what| {
        Failure::passing(HubError::Damaged {
            path: file.path.to_string(),
            what,
        })
    };
    let local = |error| Failure::lasting(Error::io("read", part)(error));
    if output.metadata().map_err(local)?.len() != file.size {
        return Err(damaged("size"));
    }
    output.rewind().map_err(local)?;
    match &file.digest {
        Some(digest) if !digest.fits(output, file.size).map_err(local)? => {
            Err(damaged(digest.name()))
        }
        _ => Ok(()),
    }
}

/// Gives a file its name, durably, making the directories above it.
pub(super) fn put(from: &Path, to: &Path) -> Result<(), Error> {
    let parent = to.parent().unwrap_or(to);
    fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
    fs::rename(from, to).map_err(Error::io("rename", from))?;
    sync_directory(parent)
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(path: &Path) -> Result<(), Error> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(Error::io("write", path))
}
