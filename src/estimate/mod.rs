//! Estimate: what models would take and which bases they would get, from sketches, without writing anything.
//!
//! Models are gone through as [`crate::ingest`] does: in the order of the batch, one as a base for those after it. Of a
//! tensor that has a sketch only the sampled elements are read. If those are all equal to another tensor's, both are
//! read whole, so that what is said to be known is. Everything else is read and hashed. What low-rank prediction gains does
//! not show in a few elements: where it will be tried, the estimate is an upper bound.

mod bases;
mod known;
mod model;
mod report;
mod size;
mod sparse;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rayon::ThreadPool;

use crate::codec::EncodeOptions;
use crate::codec::select::{Effort, Family};
use crate::count::counted;
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::ingest::draft::draft;
use crate::ingest::scan_record::ScanRecord;
use crate::ingest::{self, Job};
use crate::name::ModelId;
use crate::pairing::Why;
use crate::report::{Monitor, Savings};
use crate::source::{Listing, ModelDir, every_revision, locate};
use crate::store::manifest::{FileEntry, Manifest};
use crate::store::{Store, sealed};
use known::Known;
use model::Draft;
pub use report::{EstimateReport, ModelEstimate, Status, TensorEstimate};

/// How to estimate.
#[derive(Clone, Debug)]
pub struct Options {
    /// Worker threads, at least one.
    pub threads: usize,
    /// Settings of the codecs.
    pub encode: EncodeOptions,
    /// Models that may be absent without that being a failure, such as bases that nobody listed.
    pub optional: HashSet<ModelId>,
    /// Whether every revision of a model in a cache of the hub is to become a version of its own.
    pub all_revisions: bool,
}

/// One run.
struct Run<'a> {
    known: Known,
    pool: Arc<ThreadPool>,
    options: &'a Options,
    model_dir: &'a Path,
}

/// Estimates what `jobs` would take in the store at `store_dir`; one that is not there counts as empty, and is not made.
///
/// A model of which nothing can be said does not stop the others; the report tells. A model's base has to come before it
/// in `jobs`, or be in the store.
///
/// # Errors
/// Fails as a whole only where there is a store that cannot be read.
pub fn run(
    jobs: &[Job],
    model_dir: &Path,
    store_dir: &Path,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<EstimateReport> {
    let start = Instant::now();
    let known = Known::load(open(store_dir)?)?;
    let missing = known.catalog.missing;
    let mut run = Run {
        known,
        pool: Arc::new(crate::threads::pool(options.threads, model_dir)?),
        options,
        model_dir,
    };
    let clashes = ingest::clashes(jobs, model_dir);
    let mut models = Vec::new();
    for job in jobs {
        models.extend(run.all_of(job, &clashes, monitor));
    }
    let new = || models.iter().filter(|model| model.status == Status::New);
    let mut savings = Savings::default();
    new().for_each(|model| savings.add(&model.savings));
    Ok(EstimateReport {
        bytes: new().map(|model| model.bytes).sum(),
        stored_bytes: new().map(|model| model.stored_bytes).sum(),
        savings,
        is_upper_bound: options.encode.family == Family::Auto
            && options.encode.effort != Effort::Fast,
        warnings: warnings(missing, options.encode.family),
        threads: options.threads,
        seconds: start.elapsed().as_secs_f64(),
        models,
    })
}

/// Opens the store, if there is one: a directory that is missing or empty would become one.
fn open(directory: &Path) -> Result<Option<Store>> {
    let mut entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(Error::io("list", directory))?,
    };
    if entries.next().is_none() {
        return Ok(None);
    }
    Store::open(directory).map(Some)
}

fn warnings(missing: u64, family: Family) -> Vec<String> {
    let mut warnings = Vec::new();
    if missing > 0 {
        warnings.push(format!(
            "{} in the store, without a sketch, cannot be a base here; `zipllm optimize` makes sketches",
            counted(missing, "tensor")
        ));
    }
    if family == Family::BitX {
        warnings
            .push("sketches tell what the codec auto makes of a tensor; bitx takes more".into());
    }
    warnings
}

impl Run<'_> {
    /// What would become of one model, or of each of its revisions; nothing to tell of one that is not there and need
    /// not be.
    fn all_of(
        &mut self,
        job: &Job,
        clashes: &HashMap<ModelId, String>,
        monitor: &dyn Monitor,
    ) -> Vec<ModelEstimate> {
        let found = match clashes.get(&job.model) {
            Some(reason) => Err(Error::Name {
                name: job.model.to_string(),
                reason: reason.clone(),
            }),
            None => self.locate(&job.model),
        };
        let directories = match found {
            Ok(found) if found.is_empty() => vec![Ok(None)],
            Ok(found) => found.into_iter().map(|one| Ok(Some(one))).collect(),
            Err(error) => vec![Err(error)],
        };
        let each = directories.into_iter();
        each.filter_map(|directory| self.in_directory(job, directory, monitor))
            .collect()
    }

    fn locate(&self, model: &ModelId) -> Result<Vec<ModelDir>> {
        if self.options.all_revisions {
            every_revision(self.model_dir, model)
        } else {
            Ok(locate(self.model_dir, model)?.into_iter().collect())
        }
    }

    fn in_directory(
        &mut self,
        job: &Job,
        directory: Result<Option<ModelDir>>,
        monitor: &dyn Monitor,
    ) -> Option<ModelEstimate> {
        let mut estimate = ModelEstimate::new(&job.model);
        let done = match directory {
            Ok(Some(directory)) => self.one(job, &directory, &mut estimate, monitor),
            Ok(None) => match self.absent(job, &mut estimate) {
                Ok(false) => return None,
                other => other.map(drop),
            },
            Err(error) => Err(error),
        };
        monitor.end();
        if let Err(error) = done {
            estimate.status = Status::Failed;
            estimate.damage |= error.kind() == ErrorKind::Corrupt;
            estimate.error = Some(error.to_string());
        }
        Some(estimate)
    }

    /// A model without a directory is fine if it is in the store; returns false if it may be passed over.
    fn absent(&self, job: &Job, estimate: &mut ModelEstimate) -> Result<bool> {
        let stored = self.stored(&job.model)?;
        let Some(manifest) = stored else {
            if self.options.optional.contains(&job.model) {
                return Ok(false);
            }
            return Err(ingest::nowhere(&job.model, self.model_dir));
        };
        estimate.status = Status::AlreadyStored;
        (estimate.files, estimate.bytes) = (manifest.files.len(), manifest.bytes);
        Ok(true)
    }

    fn stored(&self, model: &ModelId) -> Result<Option<Manifest>> {
        let store = self.known.store.as_ref();
        store.map_or(Ok(None), |store| store.newest(model))
    }

    fn one(
        &mut self,
        job: &Job,
        directory: &ModelDir,
        estimate: &mut ModelEstimate,
        monitor: &dyn Monitor,
    ) -> Result<()> {
        if let Some(store) = &self.known.store {
            store.check_case(&job.model)?;
        }
        let listing = directory.scan()?;
        estimate.warnings.extend(listing.warnings.iter().cloned());
        estimate.files = listing.files.len();
        estimate.bytes = listing.files.iter().map(|file| file.size).sum();
        estimate.commit = directory.commit().map(str::to_owned);
        let stored = self.existing(job, directory, estimate)?;
        if let Some(stored) = &stored {
            let gone = listing.files.is_empty() && !stored.files.is_empty();
            if gone || self.is_untouched(stored, &listing) {
                estimate.status = Status::AlreadyStored;
                return Ok(());
            }
        }
        monitor.begin(job.model.as_str(), estimate.bytes);
        let mut manifest = draft(&job.model, None, &listing, 1);
        manifest.base.clone_from(&job.base);
        let done = self.files(job, &listing, &mut manifest, estimate, monitor)?;
        if stored.is_some_and(|stored| is_same(&stored, &manifest)) {
            estimate.status = Status::AlreadyStored;
            (estimate.stored_bytes, estimate.savings) = (0, Savings::default());
            return Ok(());
        }
        self.known.conclude(manifest, done);
        Ok(())
    }

    /// Reads what the store holds of the model, or of its revision; a damaged version counts as none.
    fn existing(
        &self,
        job: &Job,
        directory: &ModelDir,
        estimate: &mut ModelEstimate,
    ) -> Result<Option<Manifest>> {
        let found = match directory.commit().filter(|_| self.options.all_revisions) {
            None => self.stored(&job.model),
            Some(commit) => self.version_of(&job.model, commit),
        };
        match found {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let warning = format!("{error}; it would be stored as a new version");
                estimate.warnings.push(warning);
                estimate.damage = true;
                Ok(None)
            }
            other => other,
        }
    }

    /// The newest version that is of a revision.
    fn version_of(&self, model: &ModelId, commit: &str) -> Result<Option<Manifest>> {
        let Some(store) = &self.known.store else {
            return Ok(None);
        };
        for version in store.versions(model)?.into_iter().rev() {
            let manifest = store.manifest(model, version)?;
            if manifest
                .as_ref()
                .is_some_and(|one| one.commit.as_deref() == Some(commit))
            {
                return Ok(manifest);
            }
        }
        Ok(None)
    }

    fn is_untouched(&self, stored: &Manifest, listing: &Listing) -> bool {
        let store = self.known.store.as_ref();
        let record = store.and_then(|store| ScanRecord::read(store, &stored.model));
        record.is_some_and(|record| record.matches(stored.version, &listing.files))
            && stored.empty_dirs == listing.empty_dirs
    }

    /// Goes through all files; fills in manifest and estimate, and returns the new tensors.
    fn files(
        &mut self,
        job: &Job,
        listing: &Listing,
        manifest: &mut Manifest,
        estimate: &mut ModelEstimate,
        monitor: &dyn Monitor,
    ) -> Result<Vec<(crate::sketch::Sketch, Option<Hash>)>> {
        let hints: Vec<_> = self.hints(job, listing);
        let mut draft = Draft {
            manifest,
            models: hints,
            new: Vec::new(),
            savings: Savings::default(),
            object_bytes: 0,
            tensors: Vec::new(),
            warnings: Vec::new(),
        };
        for (at, file) in listing.files.iter().enumerate() {
            draft.file(self, at, file)?;
            monitor.advance(file.size);
        }
        let hints = draft.models.iter().filter(|model| model.2 == Why::Hint);
        let hints: Vec<_> = hints.map(|(id, _, _)| id.clone()).collect();
        estimate.status = Status::New;
        estimate.savings = draft.savings;
        estimate.warnings.append(&mut draft.warnings);
        estimate.tensors = draft.tensors;
        let (new, object_bytes) = (draft.new, draft.object_bytes);
        self.attribute(manifest, &hints, estimate);
        manifest.bases.clone_from(&estimate.bases);
        estimate.stored_bytes = object_bytes + document_bytes(manifest);
        Ok(new)
    }
}

/// Tells whether a stored version has the same files as a draft, whose files' own hashes are not known.
fn is_same(stored: &Manifest, draft: &Manifest) -> bool {
    let same = |(a, b): (&FileEntry, &FileEntry)| {
        a.path == b.path && a.executable == b.executable && a.segments == b.segments
    };
    stored.files.len() == draft.files.len()
        && stored.files.iter().zip(&draft.files).all(same)
        && stored.empty_dirs == draft.empty_dirs
}

/// Bytes of a manifest's file.
fn document_bytes(manifest: &Manifest) -> u64 {
    // What cannot be written could not be read from the model either.
    sealed::to_bytes(manifest).map_or(0, |bytes| bytes.len() as u64)
}
