//! Finds a model's directory: `org/name`, `org--name`, `org_name`, or a Hugging Face cache folder.
//!
//! The cache folder is `models--org--name`; `refs/main` in it names the revision, and
//! `snapshots/<revision>` holds symlinks into `blobs/` ("Understand caching" in the documentation of
//! `huggingface_hub`). Each of the other three may also be a symlink that the user made to such a snapshot.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::ModelDir;
use super::file::open_without_links;
use crate::error::{Error, Result};
use crate::name::ModelId;

/// The longest revision, in bytes; the Hub's are 40 hexadecimal digits.
const MAX_REVISION_BYTES: usize = 96;
/// Snapshots that a message lists.
const LISTED_SNAPSHOTS: usize = 8;

/// Finds the directory of the model `id` under `model_dir`; `None` if it is not there.
///
/// # Errors
///
/// Fails where the first place that exists is not a directory, or is a cache folder that does not tell
/// which of its snapshots to take.
pub fn locate(model_dir: &Path, id: &ModelId) -> Result<Option<ModelDir>> {
    if let Some(found) = uncached(model_dir, id)? {
        return Ok(Some(found));
    }
    let cache = cache_folder(model_dir, id)?;
    cache.map(|cache| snapshot(&cache)).transpose()
}

/// Finds the directory of a model that lies there under its own name.
pub(super) fn uncached(model_dir: &Path, id: &ModelId) -> Result<Option<ModelDir>> {
    for separator in ["/", "--", "_"] {
        let root = model_dir.join(id.joined(separator));
        if exists(&root)? {
            return plain(root).map(Some);
        }
    }
    Ok(None)
}

/// Finds the model's folder in a Hugging Face cache; one without any snapshot counts as none.
pub(super) fn cache_folder(model_dir: &Path, id: &ModelId) -> Result<Option<PathBuf>> {
    let cache = model_dir.join(format!("models--{}", id.joined("--")));
    if !exists(&cache)? {
        return Ok(None);
    }
    // Where a model was deleted, notes of the hub's tools may be left (`.no_exist`), or unfinished blobs.
    let is_empty = cache.is_dir()
        && snapshot_names(&cache.join("snapshots"))?.is_empty()
        && !exists(&cache.join("refs").join("main"))?;
    Ok((!is_empty).then_some(cache))
}

/// Tells whether a directory is a folder of a Hugging Face cache, whatever it is called.
pub(super) fn is_cache_folder(path: &Path) -> Result<bool> {
    Ok(exists(&path.join("snapshots"))? && exists(&path.join("blobs"))?)
}

/// The folders of a Hugging Face cache's models in a directory, by name; none where it is no such cache.
///
/// # Errors
///
/// Fails where the directory cannot be listed.
pub fn cache_folders(directory: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in directory.read_dir().map_err(Error::io("list", directory))? {
        let entry = entry.map_err(Error::io("list", directory))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("models--") && is_cache_folder(&entry.path())? {
            found.push(name);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Finds further directories that a model could be in, besides the one that [`locate`] takes: they are passed over.
///
/// # Errors
///
/// Fails where a place cannot be looked at.
pub fn passed_over(model_dir: &Path, id: &ModelId) -> Result<Vec<PathBuf>> {
    let plain = ["/", "--", "_"].map(|separator| model_dir.join(id.joined(separator)));
    let mut places = plain.to_vec();
    places.extend(cache_folder(model_dir, id)?);
    // Two names may be one directory, by a link; a model without an organisation has one name only.
    let mut seen = Vec::new();
    let mut others = Vec::new();
    for place in places {
        let Ok(real) = place.canonicalize() else {
            continue;
        };
        if !seen.contains(&real) {
            if !seen.is_empty() {
                others.push(place);
            }
            seen.push(real);
        }
    }
    Ok(others)
}

/// Takes the directory at `path` as a model's: a plain one, a folder of a Hugging Face cache, or a snapshot in one.
///
/// # Errors
///
/// Fails where it is no directory, or a cache folder that does not tell which of its snapshots to take.
pub fn at(path: &Path) -> Result<ModelDir> {
    if is_cache_folder(path)? {
        return snapshot(path);
    }
    let root = plain(path.to_path_buf())?;
    let above = root.canonical.parent();
    let in_cache =
        above.is_some_and(|above| above.file_name().is_some_and(|name| name == "snapshots"));
    let name = root.canonical.file_name().and_then(|name| name.to_str());
    match (
        above.and_then(Path::parent),
        name.filter(|name| is_revision(name)),
    ) {
        (Some(cache), Some(revision)) if in_cache && exists(&cache.join("blobs"))? => {
            Ok(ModelDir {
                boundary: cache.to_path_buf(),
                commit: Some(revision.to_owned()),
                ..root.clone()
            })
        }
        _ => Ok(root),
    }
}

/// Tells whether there is anything of this name, be it a link that leads nowhere.
fn exists(path: &Path) -> Result<bool> {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(false),
        Err(error) => Err(Error::io("look at", path)(error)),
    }
}

fn plain(root: PathBuf) -> Result<ModelDir> {
    let canonical = resolve_directory(&root)?;
    let (boundary, commit) = match linked_snapshot(&root, &canonical) {
        Some((cache, revision)) => (cache.to_path_buf(), Some(revision.to_owned())),
        None => (canonical.clone(), None),
    };
    Ok(ModelDir {
        root,
        canonical,
        boundary,
        commit,
        is_current: true,
    })
}

/// Returns cache folder and revision if `root` is a symlink and leads to a snapshot, `models--.../snapshots/<revision>`.
///
/// Who makes that link means the snapshot with its blobs, so links within may lead about in the one cache folder. A
/// directory that is no link stays its own boundary, wherever it lies.
fn linked_snapshot<'a>(root: &Path, canonical: &'a Path) -> Option<(&'a Path, &'a str)> {
    if !root.is_symlink() {
        return None;
    }
    let revision = name_of(canonical).filter(|name| is_revision(name))?;
    let snapshots = canonical.parent()?;
    let cache = snapshots.parent()?;
    let is_cache = name_of(snapshots)? == "snapshots" && name_of(cache)?.starts_with("models--");
    is_cache.then_some((cache, revision))
}

fn name_of(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

fn resolve_directory(path: &Path) -> Result<PathBuf> {
    let canonical = path.canonicalize().map_err(Error::io("resolve", path))?;
    if canonical.is_dir() {
        Ok(canonical)
    } else {
        Err(Error::input(path, "not a directory"))
    }
}

fn snapshot(cache: &Path) -> Result<ModelDir> {
    resolve_directory(cache)?;
    let revision = match main_revision(cache)? {
        Some(revision) => revision,
        None => only_snapshot(cache)?,
    };
    snapshot_of(cache, revision, true)
}

/// Takes one snapshot of a cache folder; `is_current` says whether the model is what that holds.
pub(super) fn snapshot_of(cache: &Path, revision: String, is_current: bool) -> Result<ModelDir> {
    let boundary = resolve_directory(cache)?;
    let root = cache.join("snapshots").join(&revision);
    let canonical = resolve_directory(&root)?;
    if !canonical.starts_with(&boundary) {
        let reason = format!("leads out of its cache folder, to {}", canonical.display());
        return Err(Error::input(root, reason));
    }
    Ok(ModelDir {
        root,
        canonical,
        boundary,
        commit: Some(revision),
        is_current,
    })
}

/// Reads `refs/main`, which has to name a snapshot that is there; `None` if there is none.
pub(super) fn main_revision(cache: &Path) -> Result<Option<String>> {
    let path = cache.join("refs").join("main");
    if !exists(&path)? {
        return Ok(None);
    }
    let file = open_without_links(&path)?;
    let mut text = String::new();
    file.take(MAX_REVISION_BYTES as u64 + 2)
        .read_to_string(&mut text)
        .map_err(Error::io("read", &path))?;
    let revision = text.trim_ascii();
    if !is_revision(revision) {
        let reason = format!("{revision:?} is not a revision");
        return Err(Error::input(path, reason));
    }
    if !exists(&cache.join("snapshots").join(revision))? {
        let reason = format!(
            "refs/main names the snapshot {revision}, which is not there; download it again"
        );
        return Err(Error::input(cache, reason));
    }
    Ok(Some(revision.to_owned()))
}

/// Tells whether a text is fit to be the name of a snapshot's folder, and no path.
fn is_revision(text: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    (1..=MAX_REVISION_BYTES).contains(&text.len())
        && !text.starts_with('.')
        && text.bytes().all(allowed)
}

/// Returns the one snapshot of a cache folder without `refs/main`.
fn only_snapshot(cache: &Path) -> Result<String> {
    let names = snapshot_names(&cache.join("snapshots"))?;
    match names.as_slice() {
        [] => Err(no_snapshot(cache)),
        [one] => Ok(one.clone()),
        several => {
            let listed: Vec<&str> = several
                .iter()
                .take(LISTED_SNAPSHOTS)
                .map(String::as_str)
                .collect();
            let more = if several.len() > LISTED_SNAPSHOTS {
                ", ..."
            } else {
                ""
            };
            let reason = format!(
                "the cache folder has {} snapshots ({}{more}) and no refs/main that says which to take",
                several.len(),
                listed.join(", ")
            );
            Err(Error::input(cache, reason))
        }
    }
}

pub(super) fn no_snapshot(cache: &Path) -> Error {
    Error::input(
        cache,
        "the cache folder has no snapshot; download the model again",
    )
}

pub(super) fn snapshot_names(directory: &Path) -> Result<Vec<String>> {
    if !exists(directory)? {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in directory.read_dir().map_err(Error::io("list", directory))? {
        let entry = entry.map_err(Error::io("list", directory))?;
        let name = entry.file_name();
        if let Some(name) = name.to_str().filter(|name| is_revision(name)) {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}
