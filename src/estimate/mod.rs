//! Estimate: what models would take and which bases they would get, from sketches, without writing anything.
//!
//! Models are gone through as [`crate::ingest`] does: in the order of the batch, one as a base for those after it. Of a
//! tensor that has a sketch only the sampled elements are read. If those are all equal to another tensor's, both are
//! read whole, so that what is said to be known is. Everything else is read and hashed. What low-rank prediction gains does
//! not show in a few elements: where it will be tried, the estimate is an upper bound.

mod known;
mod model;
mod size;
mod sparse;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rayon::ThreadPool;
use serde::Serialize;

use crate::codec::EncodeOptions;
use crate::codec::select::{Effort, Family};
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::ingest::draft::draft;
use crate::ingest::scan_record::ScanRecord;
use crate::ingest::{self, Job};
use crate::name::{ModelId, RelPath};
use crate::pairing::shares::{Based, holders, shares};
use crate::pairing::{Why, card};
use crate::report::{Monitor, Savings};
use crate::source::{Listing, ModelDir, locate};
use crate::store::manifest::{BaseShare, FileEntry, Manifest, Tensor};
use crate::store::{Store, sealed};
use known::Known;
use model::Draft;

/// How to estimate.
#[derive(Clone, Debug)]
pub struct Options {
    /// Worker threads, at least one.
    pub threads: usize,
    /// Settings of the codecs.
    pub encode: EncodeOptions,
    /// Models that may be absent without that being a failure, such as bases that nobody listed.
    pub optional: HashSet<ModelId>,
}

/// What would become of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It would be stored, as a first or a new version.
    New,
    /// The store holds it as it is, or its files are gone.
    AlreadyStored,
    /// Nothing can be said of it.
    Failed,
}

/// What a tensor would take.
#[derive(Clone, Debug, Serialize)]
pub struct TensorEstimate {
    /// The file it is in.
    pub file: RelPath,
    /// Its name.
    pub tensor: String,
    /// Its bytes.
    pub bytes: u64,
    /// Whether it is stored, or an earlier tensor would be it.
    pub is_known: bool,
    /// Estimated bytes of its object file; 0 for one that is known.
    pub stored_bytes: u64,
    /// A model that holds its base, if it has one, or would get one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<ModelId>,
    /// Why this base.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
    #[serde(skip)]
    object: Hash,
    #[serde(skip)]
    base_object: Option<Hash>,
}

/// What a model would take.
#[derive(Clone, Debug, Serialize)]
pub struct ModelEstimate {
    /// The model.
    pub model: ModelId,
    /// What would become of it.
    pub status: Status,
    /// Whose tensors would be bases, for how many bytes, and why; the one with most bytes first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bases: Vec<BaseShare>,
    /// Files.
    pub files: usize,
    /// Bytes of its files.
    pub bytes: u64,
    /// Bytes that it would add to the store: object files and manifest.
    pub stored_bytes: u64,
    /// Where its bytes would go.
    pub savings: Savings,
    /// Its tensors, in the order of its files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tensors: Vec<TensorEstimate>,
    /// What a person should know of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether damage in the store was met.
    pub damage: bool,
}

/// What a batch would take.
#[derive(Clone, Debug, Serialize)]
pub struct EstimateReport {
    /// One entry a model, in the order in which they would be stored.
    pub models: Vec<ModelEstimate>,
    /// Bytes of the models that would be stored.
    pub bytes: u64,
    /// Bytes that the batch would add to the store.
    pub stored_bytes: u64,
    /// Whether it may be much less: low-rank prediction will be tried, and sketches do not tell what it gains.
    pub is_upper_bound: bool,
    /// Where the bytes would go.
    pub savings: Savings,
    /// What is to be said of no model in particular.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Worker threads.
    pub threads: usize,
    /// Seconds of the whole run.
    pub seconds: f64,
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
            "{missing} tensors in the store have no sketch, and are no bases here; `zipllm optimize` makes the sketches"
        ));
    }
    if family == Family::BitX {
        warnings
            .push("sketches tell what the codec auto makes of a tensor; bitx takes more".into());
    }
    warnings
}

impl Run<'_> {
    /// What would become of one model; nothing to tell of one that is not there and need not be.
    fn all_of(
        &mut self,
        job: &Job,
        clashes: &HashMap<ModelId, String>,
        monitor: &dyn Monitor,
    ) -> Option<ModelEstimate> {
        let mut estimate = blank(&job.model);
        let done = match clashes.get(&job.model) {
            Some(reason) => Err(Error::Name {
                name: job.model.to_string(),
                reason: reason.clone(),
            }),
            None => match locate(self.model_dir, &job.model) {
                Ok(Some(directory)) => self.one(job, &directory, &mut estimate, monitor),
                Ok(None) => match self.absent(job, &mut estimate) {
                    Ok(false) => return None,
                    other => other.map(drop),
                },
                Err(error) => Err(error),
            },
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
        let stored = self.existing(job, estimate)?;
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

    /// Reads what the store holds of the model; a damaged newest version counts as none.
    fn existing(&self, job: &Job, estimate: &mut ModelEstimate) -> Result<Option<Manifest>> {
        match self.stored(&job.model) {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let warning = format!("{error}; it would be stored as a new version");
                estimate.warnings.push(warning);
                estimate.damage = true;
                Ok(None)
            }
            other => other,
        }
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

    /// The models that people say this one is made from, as far as they are known.
    fn hints(
        &self,
        job: &Job,
        listing: &Listing,
    ) -> Vec<(ModelId, crate::pairing::BaseTensors, Why)> {
        let own = card::of_listing(listing).into_iter();
        let own = own.filter(|id| *id != job.model && Some(id) != job.base.as_ref());
        let models = job.base.iter().cloned().chain(own);
        let tensors = |id: ModelId| Some((id.clone(), self.known.tensors(&id)?, Why::Hint));
        models.filter_map(tensors).collect()
    }

    /// Says whose tensors would be the bases.
    fn attribute(&self, manifest: &Manifest, hints: &[ModelId], estimate: &mut ModelEstimate) {
        let find = |id: &ModelId| self.known.tensors(id);
        let tensors: HashMap<Hash, &Tensor> = manifest
            .files
            .iter()
            .flat_map(|file| &file.segments)
            .filter_map(|segment| Some((segment.object, segment.tensor.as_ref()?)))
            .collect();
        let based = |one: &TensorEstimate| {
            Some(Based {
                tensor: tensors.get(&one.object)?,
                bytes: one.bytes,
                base: one.base_object?,
            })
        };
        let based: Vec<_> = estimate.tensors.iter().filter_map(based).collect();
        let owners = &self.known.owners;
        estimate.bases = shares(&find, owners, hints, &estimate.model, &based);
        let mut held = holders(&find, owners, hints, &estimate.model, &based).into_iter();
        let with_base = |one: &&mut TensorEstimate| one.base_object.is_some();
        for one in estimate.tensors.iter_mut().filter(with_base) {
            let holder = held.next();
            one.base = holder.and_then(|(model, _)| model.cloned());
            one.why = holder.map(|(_, why)| why);
        }
    }
}

fn blank(model: &ModelId) -> ModelEstimate {
    ModelEstimate {
        model: model.clone(),
        status: Status::Failed,
        bases: Vec::new(),
        files: 0,
        bytes: 0,
        stored_bytes: 0,
        savings: Savings::default(),
        tensors: Vec::new(),
        warnings: Vec::new(),
        error: None,
        damage: false,
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
