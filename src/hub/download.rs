//! Fetches one model, several files at once, into its place below the models' directory.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use serde::Serialize;

use super::client::{Client, Remote, RemoteFile};
use super::error::HubError;
use super::pattern;
use super::retry::Failure;
use crate::error::Error;
use crate::name::ModelId;
use crate::report::Monitor;

/// Below the models' directory; no model can be called so.
const STAGING: &str = ".downloads";
const READ_BYTES: usize = 1 << 20;

/// What to fetch, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Branch, tag or commit.
    pub revision: String,
    /// Patterns of the files to fetch: all if there are none.
    pub include: Vec<String>,
    /// Patterns of files to leave out.
    pub exclude: Vec<String>,
    /// Files fetched at once, at least one.
    pub files_at_once: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            revision: "main".into(),
            include: Vec::new(),
            exclude: Vec::new(),
            files_at_once: 4,
        }
    }
}

/// A model that was fetched.
#[derive(Clone, Debug, Serialize)]
pub struct Fetched {
    /// Where it is now.
    pub directory: PathBuf,
    /// The commit that the revision stood for.
    pub commit: String,
    /// Files.
    pub files: usize,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes that came over the network in this run; fewer where an earlier run broke off.
    pub bytes_received: u64,
}

/// Fetches a model to `model_dir/org--name`, which must not be there.
///
/// # Errors
/// Nothing is at the model's place then; what was fetched is kept for the next attempt.
pub fn fetch(
    client: &Client,
    model: &ModelId,
    model_dir: &Path,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<Fetched, HubError> {
    let remote = client.list(model, &options.revision)?;
    let wanted: Vec<_> = remote
        .files
        .iter()
        .enumerate()
        .filter(|(_, file)| is_wanted(file, options))
        .collect();
    if wanted.is_empty() {
        return Err(HubError::NoFiles);
    }
    let job = Job::new(client, model, &remote, model_dir, monitor)?;
    let bytes = wanted.iter().map(|(_, file)| file.size).sum();
    monitor.begin(model.as_str(), bytes);
    let result = job.fetch_all(&wanted, options.files_at_once);
    monitor.end();
    result?;
    let directory = model_dir.join(model.joined("--"));
    job.finish(&directory)?;
    let bytes_received = job
        .received
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    Ok(Fetched {
        directory,
        commit: remote.commit.clone(),
        files: wanted.len(),
        bytes,
        bytes_received,
    })
}

fn is_wanted(file: &RemoteFile, options: &Options) -> bool {
    pattern::wanted(file.path.as_str(), &options.include, &options.exclude)
}

struct Job<'a> {
    client: &'a Client,
    model: &'a ModelId,
    commit: &'a str,
    monitor: &'a dyn Monitor,
    /// Files that are whole, under their own names.
    staging: PathBuf,
    /// Files that are not.
    parts: PathBuf,
    received: Mutex<u64>,
}

impl<'a> Job<'a> {
    fn new(
        client: &'a Client,
        model: &'a ModelId,
        remote: &'a Remote,
        model_dir: &Path,
        monitor: &'a dyn Monitor,
    ) -> Result<Self, HubError> {
        let name = format!("{}@{}", model.joined("--"), remote.commit);
        let staging = model_dir.join(STAGING).join(&name);
        let parts = model_dir.join(STAGING).join(name + ".parts");
        for directory in [&staging, &parts] {
            fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
        }
        Ok(Self {
            client,
            model,
            commit: &remote.commit,
            monitor,
            staging,
            parts,
            received: Mutex::new(0),
        })
    }

    /// Fetches files on several threads; the first error ends all.
    fn fetch_all(&self, files: &[(usize, &RemoteFile)], at_once: usize) -> Result<(), HubError> {
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
            self.monitor.advance(file.size);
            return Ok(());
        }
        let part = self.parts.join(format!(
            "{number}-{}",
            file.digest.as_ref().map_or("", |digest| digest.hex())
        ));
        let mut told = 0;
        self.client.patience.retry(|| {
            let mut output = open_part(&part, file.size)?;
            self.fill(file, &part, &mut output, &mut told)?;
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
        let parent = path.parent().unwrap_or(&self.staging);
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        fs::rename(&part, &path).map_err(Error::io("rename", &part))?;
        Ok(sync_directory(parent)?)
    }

    /// Receives what the part lacks; `told` is how much of it the monitor knows of.
    fn fill(
        &self,
        file: &RemoteFile,
        part: &Path,
        output: &mut File,
        told: &mut u64,
    ) -> Result<(), Failure> {
        let broken = |error: &dyn std::fmt::Display| {
            Failure::passing(self.client.unreachable(&error.to_string()))
        };
        let local = |error| Failure::lasting(Error::io("write", part)(error));
        let have = output.seek(SeekFrom::End(0)).map_err(local)?;
        self.tell(have, told);
        if have == file.size {
            return Ok(());
        }
        let (start, body) = self
            .client
            .open(self.model, self.commit, &file.path, have)?;
        output
            .set_len(start)
            .and_then(|()| output.seek(SeekFrom::Start(start)))
            .map_err(local)?;
        // One byte more than is wanted shows that the file is another.
        let mut body = body.take((file.size - start).saturating_add(1));
        let mut buffer = vec![0; READ_BYTES];
        let mut position = start;
        loop {
            let piece = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => buffer.get(..count).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(Failure {
                        progress: position > have,
                        ..broken(&error)
                    });
                }
            };
            output.write_all(piece).map_err(local)?;
            position += piece.len() as u64;
            *self.received.lock().unwrap_or_else(PoisonError::into_inner) += piece.len() as u64;
            self.tell(position.min(file.size), told);
        }
        if position < file.size {
            return Err(Failure {
                progress: position > have,
                ..broken(&"the connection ended too early")
            });
        }
        Ok(())
    }

    fn tell(&self, position: u64, told: &mut u64) {
        self.monitor.advance(position.saturating_sub(*told));
        *told = position.max(*told);
    }

    /// Puts the whole model in its place.
    fn finish(&self, directory: &Path) -> Result<(), HubError> {
        fs::rename(&self.staging, directory).map_err(Error::io("create", directory))?;
        if let Some(parent) = directory.parent() {
            sync_directory(parent)?;
        }
        // Left-overs do no harm: parts that patterns of this run let out, and other models'.
        let _ = fs::remove_dir_all(&self.parts);
        if let Some(parent) = self.parts.parent() {
            let _ = fs::remove_dir(parent);
        }
        Ok(())
    }
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

/// Makes the names in a directory durable.
fn sync_directory(path: &Path) -> Result<(), Error> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(Error::io("write", path))
}
