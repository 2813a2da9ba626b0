//! Ingest: model directories become objects and manifests.
//!
//! Models are stored one after another, bases first. Within a model, batches of spans are read and hashed,
//! looked up, encoded in parallel and written in order; four batches are under way at a time, in these stages.

mod arenas;
mod bases;
mod batch;
pub(crate) mod draft;
mod load;
mod model;
pub mod order;
mod pair;
mod revisions;
pub(crate) mod scan_record;
mod work;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use arenas::Arenas;
use rayon::ThreadPool;

use crate::codec::EncodeOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::name::ModelId;
use crate::object_reader::ObjectReader;
use crate::report::{IngestReport, ModelReport, Monitor, Savings, Status, StoreTotals};
use crate::source::{ModelDir, locate};
use crate::store::fs::{Disk, LocalDisk};
use crate::store::{Store, StoreWriter};
use crate::threads;

/// Threads for each that reads: reading and hashing take a sixth of the time of encoding, or less.
const READERS: usize = 4;

/// One model to store.
#[derive(Clone, Debug)]
pub struct Job {
    /// The model.
    pub model: ModelId,
    /// The model whose tensors its own are encoded against, where known; it is worked on before.
    pub base: Option<ModelId>,
}

/// How to store.
#[derive(Clone)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent choices of the user"
)]
pub struct Options {
    /// Worker threads, at least one.
    pub threads: usize,
    /// Settings of the codecs.
    pub encode: EncodeOptions,
    /// Whether a new version may lack files that the old one has.
    pub accept_missing: bool,
    /// Models that may be absent without that being a failure, such as bases that nobody listed.
    pub optional: HashSet<ModelId>,
    /// Whether the files of a model that the store has may be gone in part: a run that deletes them was stopped.
    pub may_be_deleted: bool,
    /// Whether every snapshot of a model in a Hugging Face cache is stored, each as a version of the model.
    pub all_revisions: bool,
    /// Whether to wait while another process writes to the store, instead of failing.
    pub wait: bool,
    /// The disk that the store lies on.
    pub disk: Arc<dyn Disk>,
}

impl Default for Options {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            threads,
            encode: EncodeOptions::default(),
            accept_missing: false,
            optional: HashSet::new(),
            may_be_deleted: false,
            all_revisions: false,
            wait: false,
            disk: Arc::new(LocalDisk),
        }
    }
}

/// Stores a batch of models from `model_dir` in the store at `store_dir`, which is made if need be.
///
/// A model that fails does not stop the others; the report tells. A model's base has to come before it
/// in `jobs`, or be in the store. One of `options.optional` that is neither on disk nor in the store has no
/// entry in the report.
///
/// # Errors
/// Fails as a whole only where the store cannot be opened, or cannot be closed.
pub fn run(
    jobs: &[Job],
    model_dir: &Path,
    store_dir: &Path,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<IngestReport> {
    let (jobs, located) = if options.all_revisions {
        revisions::locate_all(jobs, model_dir)
    } else {
        let located = jobs.iter().map(|job| locate(model_dir, &job.model));
        (jobs.to_vec(), located.collect())
    };
    run_located(&jobs, located, model_dir, store_dir, options, monitor)
}

/// Stores the model in `directories`, wherever they are: one, or several revisions, the current one last.
///
/// # Errors
/// Those of [`run`].
pub fn add(
    job: &Job,
    directories: Vec<ModelDir>,
    store_dir: &Path,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<IngestReport> {
    let first = directories.first().map(ModelDir::root);
    let root = first.unwrap_or(store_dir).to_path_buf();
    let jobs = vec![job.clone(); directories.len()];
    let located = directories.into_iter().map(|found| Ok(Some(found)));
    run_located(&jobs, located.collect(), &root, store_dir, options, monitor)
}

fn run_located(
    jobs: &[Job],
    located: Vec<Result<Option<ModelDir>>>,
    model_dir: &Path,
    store_dir: &Path,
    options: &Options,
    monitor: &dyn Monitor,
) -> Result<IngestReport> {
    let start = Instant::now();
    let writer = StoreWriter::open_with(options.disk.clone(), store_dir, options.wait)?;
    let pool = threads::pool(options.threads, store_dir)?;
    let clashes = find_clashes(jobs, &located);
    let depended = writer
        .store()
        .index()?
        .values()
        .map(|record| record.base)
        .collect();
    let reader = Arc::new(ObjectReader::new(writer.store().clone()));
    let reading = threads::pool(options.threads.div_ceil(READERS), store_dir)?;
    let mut run = Run {
        writer,
        reader,
        pool: Arc::new(pool),
        reading: Arc::new(reading),
        options,
        monitor,
        model_dir,
        depended,
        bases: bases::Bases::default(),
        search: pair::Search::default(),
        arenas: Arc::default(),
        spare: Vec::new(),
    };
    let models = run.all(jobs, located, &clashes);
    let store = run.writer.store().clone();
    if !run.writer.is_poisoned() {
        run.writer.close()?;
    }
    Ok(summarise(models, &store, options.threads, start))
}

/// The error of a model that has no directory and is not in the store either.
pub(crate) fn nowhere(model: &ModelId, model_dir: &Path) -> Error {
    let reason = format!("found neither in {} nor in the store", model_dir.display());
    Error::NoModel {
        model: model.to_string(),
        reason,
    }
}

/// What a run needs while it goes from model to model.
struct Run<'a> {
    writer: StoreWriter,
    reader: Arc<ObjectReader>,
    pool: Arc<ThreadPool>,
    /// Reads files; apart from the other one, so that reading does not wait until everything is encoded.
    reading: Arc<ThreadPool>,
    options: &'a Options,
    monitor: &'a dyn Monitor,
    model_dir: &'a Path,
    /// Objects that others are encoded against: should one be stored anew, it must not get a base itself.
    depended: HashSet<Hash>,
    /// Bases that are there.
    bases: bases::Bases,
    /// What is known of the store's tensors.
    search: pair::Search,
    /// Memory for batches.
    arenas: Arc<Arenas>,
    /// Memory for what is encoded: a set for each piece of work under way, while it is not.
    spare: Vec<Vec<Vec<u8>>>,
}

impl Run<'_> {
    fn all(
        &mut self,
        jobs: &[Job],
        located: Vec<Result<Option<ModelDir>>>,
        clashes: &HashMap<ModelId, String>,
    ) -> Vec<ModelReport> {
        let mut reports = Vec::with_capacity(jobs.len());
        for (job, directory) in jobs.iter().zip(located) {
            if self.writer.is_poisoned() {
                reports.push(ModelReport::new(&job.model, Status::NotTried));
                continue;
            }
            let begun = Instant::now();
            let mut report = ModelReport::new(&job.model, Status::Failed);
            if self.may_be_passed_over(job, &directory) {
                continue;
            }
            let done = match clashes.get(&job.model) {
                Some(reason) => Err(Error::Name {
                    name: job.model.to_string(),
                    reason: reason.clone(),
                }),
                None => {
                    directory.and_then(|directory| self.one(job, directory.as_ref(), &mut report))
                }
            };
            self.monitor.end();
            if let Err(error) = done {
                tracing::error!(model = %job.model, "{error}");
                report.damage |= error.kind() == ErrorKind::Corrupt;
                report.status = Status::Failed;
                report.error = Some(error.to_string());
            }
            report.seconds = begun.elapsed().as_secs_f64();
            let (status, stored, seconds) = (report.status, report.stored_bytes, report.seconds);
            tracing::info!(model = %job.model, ?status, bytes = report.bytes, stored, seconds, "done");
            reports.push(report);
        }
        reports
    }

    fn one(
        &mut self,
        job: &Job,
        directory: Option<&ModelDir>,
        report: &mut ModelReport,
    ) -> Result<()> {
        match directory {
            Some(directory) => model::ingest(self, job, directory, report),
            None => self.absent(job, report),
        }
    }

    /// Tells whether a model is neither on disk nor in the store, and need not be.
    fn may_be_passed_over(&self, job: &Job, directory: &Result<Option<ModelDir>>) -> bool {
        self.options.optional.contains(&job.model)
            && matches!(directory, Ok(None))
            && matches!(self.writer.store().versions(&job.model), Ok(versions) if versions.is_empty())
    }

    /// A model without a directory is fine if it is in the store.
    fn absent(&self, job: &Job, report: &mut ModelReport) -> Result<()> {
        let Some(manifest) = self.writer.store().newest(&job.model)? else {
            return Err(nowhere(&job.model, self.model_dir));
        };
        report.status = Status::AlreadyStored;
        report.version = Some(manifest.version);
        report.files = manifest.files.len();
        report.bytes = manifest.bytes;
        Ok(())
    }
}

/// Finds the models of a batch that [`run`] would refuse, and why: ids that cannot be told apart.
pub fn clashes(jobs: &[Job], model_dir: &Path) -> HashMap<ModelId, String> {
    let located: Vec<_> = jobs
        .iter()
        .map(|job| locate(model_dir, &job.model))
        .collect();
    find_clashes(jobs, &located)
}

/// Finds ids that cannot be told apart: two for one directory, or two that differ only in case.
fn find_clashes(jobs: &[Job], located: &[Result<Option<ModelDir>>]) -> HashMap<ModelId, String> {
    let mut directories: HashMap<PathBuf, Vec<&ModelId>> = HashMap::new();
    let mut folded: HashMap<String, Vec<&ModelId>> = HashMap::new();
    for (job, directory) in jobs.iter().zip(located) {
        if let Ok(Some(directory)) = directory {
            directories
                .entry(directory.canonical().to_path_buf())
                .or_default()
                .push(&job.model);
        }
        folded
            .entry(job.model.as_str().to_ascii_lowercase())
            .or_default()
            .push(&job.model);
    }
    let mut clashes = HashMap::new();
    for ids in folded.values() {
        note_clash(&mut clashes, ids, "differs only in case from");
    }
    for ids in directories.values() {
        note_clash(&mut clashes, ids, "has the same directory as");
    }
    clashes
}

fn note_clash(clashes: &mut HashMap<ModelId, String>, ids: &[&ModelId], how: &str) {
    for id in ids {
        if let Some(other) = ids.iter().find(|other| other != &id) {
            clashes.insert((*id).clone(), format!("it {how} {other}; list one of them"));
        }
    }
}

fn summarise(
    models: Vec<ModelReport>,
    store: &Store,
    threads: usize,
    start: Instant,
) -> IngestReport {
    let mut savings = Savings::default();
    let stored: Vec<_> = models
        .iter()
        .filter(|model| model.status == Status::Stored)
        .collect();
    stored.iter().for_each(|model| savings.add(&model.savings));
    IngestReport {
        bytes: stored.iter().map(|model| model.bytes).sum(),
        stored_bytes: models.iter().map(|model| model.stored_bytes).sum(),
        savings,
        warnings: Vec::new(),
        threads,
        store: totals(store),
        seconds: start.elapsed().as_secs_f64(),
        models,
    }
}

/// Sums over the whole store; what cannot be read counts as nothing here, `check` is what reports it.
fn totals(store: &Store) -> StoreTotals {
    let index = store.index().unwrap_or_default();
    let models = store.models().unwrap_or_default();
    let versions = models
        .iter()
        .flat_map(|model| model.versions.iter().map(|version| (&model.id, *version)));
    let read = versions
        .clone()
        .filter_map(|(id, version)| store.outline(id, version).ok().flatten());
    StoreTotals {
        models: models.len() as u64,
        versions: versions.count() as u64,
        model_bytes: sum(read.map(|outline| outline.bytes)),
        objects: index.len() as u64,
        object_bytes: sum(index.values().map(|record| record.stored_len)),
    }
}

/// Adds what a store says; a forged one may say anything.
fn sum(figures: impl Iterator<Item = u64>) -> u64 {
    figures.fold(0, u64::saturating_add)
}
