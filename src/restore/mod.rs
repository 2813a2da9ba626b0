//! Restore: a manifest becomes files again, every byte verified before a file gets its name.

mod file;
mod output;
mod partial;

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use rayon::prelude::*;

use crate::count::counted;
use crate::error::{Error, Result};
use crate::name::ModelId;
use crate::nearest::nearest;
use crate::object_reader::ObjectReader;
use crate::report::{Monitor, RestoreReport};
use crate::store::Store;
use crate::store::manifest::{FileEntry, Manifest};
use crate::threads;
use file::Context;
use output::OutputDir;

/// A model, and perhaps a version of it: `org/name` or `org/name@VERSION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelVersion {
    /// The model.
    pub model: ModelId,
    /// The version; the newest without one.
    pub version: Option<u32>,
}

impl FromStr for ModelVersion {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((model, version)) = text.split_once('@') else {
            return Ok(Self {
                model: text.parse()?,
                version: None,
            });
        };
        let number = version.parse().ok().filter(|number| *number > 0);
        let version = number.ok_or_else(|| Error::Name {
            name: text.to_owned(),
            reason: "the part after '@' has to be a version number, 1 or greater".into(),
        })?;
        Ok(Self {
            model: model.parse()?,
            version: Some(version),
        })
    }
}

impl fmt::Display for ModelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            None => write!(f, "{}", self.model),
            Some(version) => write!(f, "{}@{version}", self.model),
        }
    }
}

/// How to restore.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Worker threads, at least one.
    pub threads: usize,
    /// Whether files with other content are replaced.
    pub force: bool,
}

/// Reads the manifest of a model's version, or says which names and versions there are.
pub fn find_manifest(store: &Store, wanted: &ModelVersion) -> Result<Manifest> {
    let no_model = |reason| Error::NoModel {
        model: wanted.model.to_string(),
        reason,
    };
    let versions = store.versions(&wanted.model)?;
    let Some(newest) = versions.last() else {
        return Err(no_model(describe_unknown(store, &wanted.model)?));
    };
    let version = wanted.version.unwrap_or(*newest);
    let manifest = store.manifest(&wanted.model, version)?;
    manifest.ok_or_else(|| {
        no_model(format!(
            "there is no version {version}; there is {}",
            list(&versions)
        ))
    })
}

fn list(versions: &[u32]) -> String {
    versions
        .iter()
        .map(u32::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Says in words that a model is not in the store, and which is called nearly the same.
pub fn describe_unknown(store: &Store, wanted: &ModelId) -> Result<String> {
    let models = store.models()?;
    let near = nearest(
        wanted.as_str(),
        models.iter().map(|model| model.id.as_str()),
    );
    Ok(match near.as_slice() {
        [] if models.is_empty() => "not in the store, which is empty".into(),
        [] => {
            let some: Vec<_> = models
                .iter()
                .take(5)
                .map(|model| model.id.as_str())
                .collect();
            format!(
                "not in the store, which has {}, among them {}",
                counted(models.len(), "model"),
                some.join(", ")
            )
        }
        near => format!("not in the store; did you mean {}?", near.join(" or ")),
    })
}

/// Restores a model's files into `out`, which is made if need be.
///
/// A file that cannot be restored leaves nothing of its own behind and does not stop the others; its
/// error is returned beside the report. A file that is there with the right content is kept.
///
/// # Errors
/// Fails before anything is written where existing files are in the way and `force` is not set.
pub fn run(
    store: &Store,
    manifest: &Manifest,
    out: &Path,
    options: Options,
    monitor: &dyn Monitor,
) -> Result<(RestoreReport, Vec<Error>)> {
    let start = Instant::now();
    let pool = threads::pool(options.threads, out)?;
    let output = OutputDir::open(out)?;
    let kept = pool.install(|| find_kept(&output, manifest, options.force))?;
    let reader = ObjectReader::new(store.clone());
    let errors = Mutex::new(Vec::new());
    let done = <(AtomicU64, AtomicU64)>::default();
    monitor.begin(manifest.model.as_str(), manifest.bytes);
    let context = Context {
        output: &output,
        reader: &reader,
        model: &manifest.model,
        force: options.force,
        monitor,
        errors: &errors,
        done: &done,
    };
    pool.in_place_scope_fifo(|scope| {
        for (index, entry) in manifest.files.iter().enumerate() {
            if kept.contains(&index) {
                monitor.advance(entry.size);
            } else {
                context.spawn(scope, entry);
            }
        }
    });
    manifest
        .empty_dirs
        .iter()
        .filter_map(|dir| output.make_dir(dir).err())
        .for_each(|error| context.note(error));
    monitor.end();
    let errors = errors.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((
        summarise(manifest, &kept, &done, options.threads, start, &errors),
        errors,
    ))
}

/// Finds the files that are there already, by index.
fn find_kept(output: &OutputDir, manifest: &Manifest, force: bool) -> Result<BTreeSet<usize>> {
    let check = |(index, entry): (usize, &FileEntry)| match output.check_existing(entry, force) {
        Ok(true) => Some(Ok(index)),
        Ok(false) => None,
        Err(error) => Some(Err(error)),
    };
    manifest
        .files
        .par_iter()
        .enumerate()
        .filter_map(check)
        .collect()
}

fn summarise(
    manifest: &Manifest,
    kept: &BTreeSet<usize>,
    done: &(AtomicU64, AtomicU64),
    threads: usize,
    start: Instant,
    errors: &[Error],
) -> RestoreReport {
    let seconds = start.elapsed().as_secs_f64();
    let bytes_kept: u64 = kept
        .iter()
        .filter_map(|index| manifest.files.get(*index))
        .map(|file| file.size)
        .sum();
    let bytes_written = done.1.load(Ordering::Relaxed);
    #[allow(clippy::cast_precision_loss)]
    let throughput = (bytes_kept + bytes_written) as f64 / seconds.max(1e-9);
    RestoreReport {
        model: manifest.model.clone(),
        version: manifest.version,
        files: manifest.files.len(),
        files_written: done.0.load(Ordering::Relaxed),
        files_kept: kept.len(),
        bytes: manifest.bytes,
        bytes_kept,
        bytes_written,
        threads,
        seconds,
        throughput_bytes_per_second: throughput,
        errors: errors.iter().map(Error::to_string).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_looked_for_in_an_empty_store() {
        let dir = tempfile::tempdir().unwrap();
        drop(crate::store::StoreWriter::open(dir.path()).unwrap());
        let store = Store::open(dir.path()).unwrap();
        let told = describe_unknown(&store, &"a/b".parse().unwrap()).unwrap();
        assert_eq!(told, "not in the store, which is empty");
    }

    #[test]
    fn the_throughput_is_that_of_all_files() {
        let file = |size| FileEntry {
            path: "a".parse().unwrap(),
            size,
            blake3: crate::hash::Hash::of(b""),
            executable: false,
            segments: Vec::new(),
        };
        let manifest = Manifest {
            format: 1,
            model: "a/b".parse().unwrap(),
            version: 1,
            commit: None,
            base: None,
            bases: Vec::new(),
            bytes: 3500,
            files: vec![file(2500), file(1000)],
            empty_dirs: Vec::new(),
        };
        let done = (AtomicU64::new(1), AtomicU64::new(2500));
        let report = summarise(
            &manifest,
            &BTreeSet::from([1]),
            &done,
            1,
            Instant::now(),
            &[],
        );
        assert_eq!(
            (report.files_kept, report.bytes_kept, report.bytes_written),
            (1, 1000, 2500)
        );
        let bytes = report.throughput_bytes_per_second * report.seconds.max(1e-9);
        assert!((bytes - 3500.0).abs() < 1.0, "{bytes}");
    }

    #[test]
    fn versions_are_parsed() {
        let parse = |text: &str| text.parse::<ModelVersion>();
        assert_eq!(parse("a/b").unwrap().version, None);
        assert_eq!(parse("a/b@3").unwrap().version, Some(3));
        assert_eq!(parse("a/b@3").unwrap().to_string(), "a/b@3");
        for bad in ["a/b@", "a/b@0", "a/b@x", "a/b@-1", "../a@1", "a/b@1@2"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
