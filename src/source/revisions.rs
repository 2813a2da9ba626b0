//! Every snapshot of a model in a Hugging Face cache, not only the one that `refs/main` names.

use std::path::Path;
use std::time::SystemTime;

use super::ModelDir;
use super::locate::{
    cache_folder, is_cache_folder, main_revision, no_snapshot, snapshot_names, snapshot_of,
    uncached,
};
use crate::error::{Error, Result};
use crate::name::ModelId;

/// Finds every revision of the model `id` under `model_dir`: the snapshots of a cache folder, or the one directory of
/// a model that lies there otherwise; none if it is not there.
///
/// Snapshots come in the order in which they last changed, for that is the nearest to their age that a cache keeps, but
/// the one that `refs/main` names comes last: it is what the model is now. One without any files is left out.
///
/// # Errors
/// Those of [`super::locate`], but for the one of a cache folder with several snapshots and no `refs/main`.
pub fn every_revision(model_dir: &Path, id: &ModelId) -> Result<Vec<ModelDir>> {
    if let Some(found) = uncached(model_dir, id)? {
        return Ok(vec![found]);
    }
    let cache = cache_folder(model_dir, id)?;
    cache.map_or_else(|| Ok(Vec::new()), |cache| snapshots(&cache))
}

/// Takes every snapshot of the cache folder at `path`, as [`every_revision`] does.
///
/// # Errors
/// Fails where it is no such folder.
pub fn every_revision_at(path: &Path) -> Result<Vec<ModelDir>> {
    if is_cache_folder(path)? {
        return snapshots(path);
    }
    let reason = "no folder of a Hugging Face cache (models--org--name, with snapshots/ and blobs/), so it has no \
                  revisions to store";
    Err(Error::input(path, reason))
}

fn snapshots(cache: &Path) -> Result<Vec<ModelDir>> {
    let main = main_revision(cache)?;
    let names = snapshot_names(&cache.join("snapshots"))?;
    let dated = names.into_iter().map(|name| {
        let changed = last_change(&cache.join("snapshots").join(&name))?;
        Ok((Some(&name) == main.as_ref(), changed, name))
    });
    let mut dated = dated.collect::<Result<Vec<_>>>()?;
    dated.sort_unstable();
    let Some((_, _, current)) = dated.pop() else {
        return Err(no_snapshot(cache));
    };
    let mut found = Vec::new();
    for (_, _, name) in dated {
        let snapshot = snapshot_of(cache, name, false)?;
        if has_entries(snapshot.root())? {
            found.push(snapshot);
        }
    }
    found.push(snapshot_of(cache, current, true)?);
    Ok(found)
}

fn last_change(path: &Path) -> Result<SystemTime> {
    let changed = path.symlink_metadata().and_then(|meta| meta.modified());
    changed.map_err(Error::io("look at", path))
}

fn has_entries(directory: &Path) -> Result<bool> {
    let mut entries = directory.read_dir().map_err(Error::io("list", directory))?;
    Ok(entries.next().is_some())
}
