//! Garbage collection: objects that no manifest names, and no needed object has as a base, are deleted.
//!
//! What is needed is found from the manifests and from the heads of the needed objects themselves, never from the
//! index. Anything that cannot be read and might name an object ends the run before it deletes. Objects go deepest
//! first: at no moment, and after no power cut, is there an object whose base was collected.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use rayon::prelude::*;
use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::store::{Store, StoreWriter, StoredModel};
use crate::survey::key;
use crate::threads;

/// How to collect.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Worker threads, at least one.
    pub threads: usize,
    /// Objects whose files were written less than this ago stay, and so do their bases.
    pub grace: Duration,
    /// Whether to wait for those who read the store, instead of failing.
    pub wait: bool,
}

/// What was deleted, or would be.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct GcReport {
    /// Objects before.
    pub objects: usize,
    /// Objects that are needed by a model, or recent, or needed by one that is.
    pub kept_objects: usize,
    /// Objects that are deleted.
    pub freed_objects: usize,
    /// Bytes of their files.
    pub freed_bytes: u64,
    /// Objects that are kept only because they, or what is encoded against them, are recent.
    pub recent_objects: usize,
    /// Objects that manifests name and the store has not.
    pub missing_objects: usize,
    /// Whether nothing was deleted because that was only a trial.
    pub dry_run: bool,
    /// Seconds of the whole run.
    pub seconds: f64,
}

/// An object file.
#[derive(Clone, Copy)]
struct Listed {
    name: Hash,
    bytes: u64,
    recent: bool,
}

/// What is to be deleted.
struct Plan {
    report: GcReport,
    garbage: Vec<Listed>,
}

/// Says what [`run`] would delete. What a writer that is at work has not yet named counts as garbage.
///
/// # Errors
/// Those of [`run`].
pub fn dry_run(store: &Store, options: &Options) -> Result<GcReport> {
    let start = Instant::now();
    let pool = threads::pool(options.threads, store.layout().root())?;
    let mut report = pool.install(|| plan(store, options))?.report;
    report.dry_run = true;
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

/// Deletes what the store that `writer` writes to does not need.
///
/// # Errors
/// `Locked` where somebody reads the store and `options.wait` is not set. Fails before anything is deleted where a
/// manifest, or the head of a needed object, cannot be read.
pub fn run(mut writer: StoreWriter, options: &Options) -> Result<GcReport> {
    let start = Instant::now();
    writer.drain_readers(options.wait)?;
    let store = writer.store().clone();
    let pool = threads::pool(options.threads, store.layout().root())?;
    let Plan {
        mut report,
        garbage,
    } = pool.install(|| plan(&store, options))?;
    let levels = pool.install(|| by_depth(&store, &garbage))?;
    for (depth, names) in levels.iter().rev() {
        tracing::info!(depth, objects = names.len(), "deleting");
        writer.delete_objects(names)?;
    }
    writer.close()?;
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

fn plan(store: &Store, options: &Options) -> Result<Plan> {
    let listed = list(store, options.grace)?;
    let live = with_bases(store, &listed, Vec::new(), named(store)?)?;
    let recent = listed.iter().filter(|object| object.recent);
    let recent: Vec<_> = recent.map(|object| key(&object.name)).collect();
    let kept = with_bases(store, &listed, live.clone(), sorted(recent))?;
    let is_in = |keys: &[u64], object: &Listed| keys.binary_search(&key(&object.name)).is_ok();
    let garbage: Vec<_> = listed
        .iter()
        .filter(|object| !is_in(&kept, object))
        .copied()
        .collect();
    let there: Vec<_> = listed.iter().map(|object| key(&object.name)).collect();
    let missing = live.iter().filter(|key| there.binary_search(key).is_err());
    let report = GcReport {
        objects: listed.len(),
        kept_objects: listed.len() - garbage.len(),
        freed_objects: garbage.len(),
        freed_bytes: garbage.iter().map(|object| object.bytes).sum(),
        recent_objects: listed
            .iter()
            .filter(|object| is_in(&kept, object) && !is_in(&live, object))
            .count(),
        missing_objects: missing.count(),
        ..GcReport::default()
    };
    Ok(Plan { report, garbage })
}

/// Lists all objects, by name.
fn list(store: &Store, grace: Duration) -> Result<Vec<Listed>> {
    // Nothing is recent without a grace, whatever the clocks say.
    let since = (!grace.is_zero()).then(|| SystemTime::now().checked_sub(grace));
    let is_recent = |modified: Option<SystemTime>| match since {
        None => false,
        Some(since) => modified.is_none_or(|time| since.is_none_or(|since| time > since)),
    };
    let mut listed = Vec::new();
    store.each_object(|name, entry| {
        listed.push(Listed {
            name,
            bytes: entry.len,
            recent: is_recent(entry.modified),
        });
    })?;
    Ok(listed)
}

/// The keys of all objects that manifests name, sorted.
///
/// A key is the first 8 bytes of a name. An object that shares them with a needed one stays: the error is on the
/// safe side.
fn named(store: &Store) -> Result<Vec<u64>> {
    let models = store.models()?;
    let of_model = |model: &StoredModel| {
        let mut keys = Vec::new();
        for version in &model.versions {
            let outline = store.outline(&model.id, *version)?.ok_or_else(|| {
                let path = store.layout().manifest(&model.id, *version);
                Error::CorruptFile {
                    path,
                    reason: "it is gone while nobody else writes".into(),
                }
            })?;
            let segments = outline.files.iter().flat_map(|file| &file.segments);
            keys.extend(segments.map(|segment| key(&segment.object)));
        }
        keys.sort_unstable();
        keys.dedup();
        Ok(keys)
    };
    let keys = models.par_iter().map(of_model).collect::<Result<Vec<_>>>();
    let keys = keys.map_err(|error| refuse("a manifest", error))?;
    Ok(sorted(keys.concat()))
}

fn sorted(mut keys: Vec<u64>) -> Vec<u64> {
    keys.par_sort_unstable();
    keys.dedup();
    keys
}

/// Adds `new` keys to `all`, and those of their bases, and their bases, until there are no more. All are sorted.
fn with_bases(
    store: &Store,
    listed: &[Listed],
    mut all: Vec<u64>,
    new: Vec<u64>,
) -> Result<Vec<u64>> {
    let mut frontier = new;
    loop {
        frontier.retain(|key| all.binary_search(key).is_err());
        if frontier.is_empty() {
            return Ok(all);
        }
        let is_new = |object: &&Listed| frontier.binary_search(&key(&object.name)).is_ok();
        let fresh = listed.par_iter().filter(is_new);
        let bases = fresh
            .map(|object| bases(store, object))
            .collect::<Result<Vec<_>>>()?;
        all.append(&mut frontier);
        all = sorted(all);
        frontier = sorted(bases.concat());
    }
}

fn bases(store: &Store, object: &Listed) -> Result<Vec<u64>> {
    let opened = store.object(&object.name);
    let opened = opened.map_err(|error| refuse("an object that is needed", error))?;
    let bases = opened.frame.head.bases.iter();
    Ok(bases.map(|base| key(&base.name)).collect())
}

/// What is damaged may name objects that would be lost.
fn refuse(what: &'static str, error: Error) -> Error {
    if error.kind() == ErrorKind::Corrupt {
        tracing::error!("{what} cannot be read, so nothing is deleted");
    }
    error
}

/// Sorts garbage by depth; what does not say its depth counts as the deepest, for nothing can be encoded against it.
fn by_depth(store: &Store, garbage: &[Listed]) -> Result<BTreeMap<u8, Vec<Hash>>> {
    let depth = |object: &Listed| match store.object(&object.name) {
        Ok(opened) => Ok((opened.frame.head.depth, object.name)),
        Err(error) if error.kind() == ErrorKind::Io => Err(error),
        Err(_) => Ok((u8::MAX, object.name)),
    };
    let depths = garbage.par_iter().map(depth).collect::<Result<Vec<_>>>()?;
    let mut levels: BTreeMap<u8, Vec<Hash>> = BTreeMap::new();
    for (depth, name) in depths {
        levels.entry(depth).or_default().push(name);
    }
    Ok(levels)
}
