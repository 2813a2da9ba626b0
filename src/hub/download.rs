//! Fetches one model into its place below the models' directory, or what an earlier run left out of it.
#![expect(
    clippy::disallowed_methods,
    reason = "writes to the directory of models, not to a store"
)]

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::client::{Client, Remote, RemoteFile};
use super::error::HubError;
use super::pattern;
use super::transfer::{Transfer, put, sync_directory};
use crate::error::Error;
use crate::name::{ModelId, RelPath};
use crate::report::Monitor;
use crate::source::LeftOut;

/// What to fetch, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Branch, tag or commit; where there is none, `main`, or the commit of which a part is there already.
    pub revision: Option<String>,
    /// Patterns of the files to fetch: all if there are none.
    pub include: Vec<String>,
    /// Patterns of files to leave out.
    pub exclude: Vec<String>,
    /// Files fetched at once, at least one.
    pub files_at_once: usize,
}

impl Options {
    /// Tells whether a file is to be fetched.
    pub fn want(&self, path: &RelPath) -> bool {
        pattern::wanted(path.as_str(), &self.include, &self.exclude)
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

/// Returns where a model is fetched to, `model_dir/org--name`.
pub fn place(model_dir: &Path, model: &ModelId) -> PathBuf {
    model_dir.join(model.joined("--"))
}

/// Fetches a model to its [`place`], which must not be there. Files that the patterns leave out are noted.
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
    let revision = options.revision.as_deref().unwrap_or("main");
    let remote = client.list(model, revision)?;
    let (wanted, others) = choose(&remote, |file| options.want(&file.path));
    if wanted.is_empty() {
        return Err(HubError::NoFiles);
    }
    let transfer = receive(client, model, &remote, &wanted, model_dir, options, monitor)?;
    let note = LeftOut {
        revision: revision.to_owned(),
        commit: remote.commit.clone(),
        files: others.iter().map(|(_, file)| file.path.clone()).collect(),
    };
    // Before the files, so that no incomplete model is ever without its note.
    note.absent_from(&transfer.staging).save(model_dir, model)?;
    let directory = place(model_dir, model);
    fs::rename(&transfer.staging, &directory).map_err(Error::io("create", &directory))?;
    sync_directory(model_dir)?;
    Ok(finish(&transfer, &remote, &wanted, directory))
}

/// Fetches, of the files that `note` has, those that are wanted and not there, into the model's [`place`].
///
/// # Errors
/// Fails where the revision asked for is not the commit that the other files are of. Files that came whole are kept.
pub fn complete(
    client: &Client,
    model: &ModelId,
    note: LeftOut,
    model_dir: &Path,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<Fetched, HubError> {
    let revision = options.revision.as_deref().unwrap_or(&note.commit);
    let remote = client.list(model, revision)?;
    let directory = place(model_dir, model);
    if remote.commit != note.commit {
        return Err(HubError::OtherCommit {
            revision: revision.to_owned(),
            there: note.commit,
            directory,
        });
    }
    let missing = note.absent_from(&directory);
    let names: HashSet<_> = missing.files.iter().collect();
    let wants = |file: &RemoteFile| names.contains(&file.path) && options.want(&file.path);
    let (wanted, _) = choose(&remote, wants);
    let transfer = receive(client, model, &remote, &wanted, model_dir, options, monitor)?;
    for (_, file) in &wanted {
        put(
            &file.path.under(&transfer.staging),
            &file.path.under(&directory),
        )?;
    }
    missing.absent_from(&directory).save(model_dir, model)?;
    Ok(finish(&transfer, &remote, &wanted, directory))
}

type Numbered<'a> = Vec<(usize, &'a RemoteFile)>;

/// Parts a listing's files, with their numbers in it.
fn choose(remote: &Remote, wants: impl Fn(&RemoteFile) -> bool) -> (Numbered<'_>, Numbered<'_>) {
    let files = remote.files.iter().enumerate();
    files.partition(|(_, file)| wants(file))
}

fn receive<'a>(
    client: &'a Client,
    model: &'a ModelId,
    remote: &'a Remote,
    wanted: &[(usize, &RemoteFile)],
    model_dir: &Path,
    options: &Options,
    monitor: &'a dyn Monitor,
) -> Result<Transfer<'a>, HubError> {
    let transfer = Transfer::new(client, model, remote, model_dir, monitor)?;
    monitor.begin(model.as_str(), total(wanted));
    let result = transfer.fetch_all(wanted, options.files_at_once);
    monitor.end();
    if result.is_err() {
        transfer.remove_empty();
    }
    result.map(|()| transfer)
}

fn finish(
    transfer: &Transfer<'_>,
    remote: &Remote,
    wanted: &[(usize, &RemoteFile)],
    directory: PathBuf,
) -> Fetched {
    transfer.clean_up();
    Fetched {
        directory,
        commit: remote.commit.clone(),
        files: wanted.len(),
        bytes: total(wanted),
        bytes_received: transfer.bytes_received(),
    }
}

/// The sum of what the hub says; it may say anything.
fn total(files: &[(usize, &RemoteFile)]) -> u64 {
    let sizes = files.iter().map(|(_, file)| file.size);
    sizes.fold(0, u64::saturating_add)
}
