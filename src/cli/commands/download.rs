//! `zipllm download CONFIG`, and `zipllm CONFIG --download`: models from the Hugging Face Hub.
#![expect(
    clippy::disallowed_methods,
    reason = "makes the directory of models, not a store"
)]

use std::collections::{HashMap, HashSet};
use std::env;
use std::fs;
use std::slice;
use std::time::Instant;

use serde::Serialize;

use crate::cli::Outcome;
use crate::cli::args::{DownloadArgs, FetchArgs};
use crate::cli::progress::Bar;
use crate::cli::terminal::{bytes, counted, megabytes_per_second};
use crate::config::Config;
use crate::error::Error;
use crate::hub::{self, Access, Client, Fetched, Patience};
use crate::ingest::{self, Job};
use crate::name::{ModelId, RelPath};
use crate::report::{IngestReport, ModelReport, Savings, Status, StoreTotals};
use crate::source::{LeftOut, locate};
use crate::store::Store;
use crate::store::manifest::Manifest;

const ENDPOINT: &str = "https://huggingface.co";

/// What became of the models of one run.
#[derive(Serialize)]
struct Report {
    models: Vec<Row>,
    bytes_received: u64,
    seconds: f64,
}

#[derive(Serialize)]
struct Row {
    model: ModelId,
    status: &'static str,
    /// The version in the store that spared fetching it.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    fetched: Option<Fetched>,
    /// Files that it lacks since patterns left them out.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<LeftOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Fetches every listed model that is neither in `model_dir` nor in the store, and the bases that they need.
pub fn run(args: DownloadArgs) -> anyhow::Result<Outcome> {
    let start = Instant::now();
    let config = Config::load(&args.config)?;
    let list = config.model_list()?;
    list.warnings
        .iter()
        .for_each(|warning| super::tell("warning", warning));
    let models = with_bases(&config, list.models)?;
    let fetcher = Fetcher::new(&config, args.fetch)?;
    let models: Vec<_> = models.into_iter().map(|model| fetcher.row(model)).collect();
    let bytes_received = models
        .iter()
        .filter_map(|row| row.fetched.as_ref())
        .map(|got| got.bytes_received)
        .sum();
    let report = Report {
        models,
        bytes_received,
        seconds: start.elapsed().as_secs_f64(),
    };
    for row in &report.models {
        if let Some(error) = &row.error {
            super::tell("error", &format!("{}: {error}", row.model));
        }
    }
    if args.json {
        super::print_json(&report)?;
    } else {
        super::print(&summary(&report))?;
    }
    let failed = report.models.iter().any(|row| row.error.is_some());
    Ok(if failed {
        Outcome::Failed
    } else {
        Outcome::Done
    })
}

/// Adds the bases that nobody listed, but that a model which is not stored yet is to be stored against.
///
/// The base map need not be there yet: it may be written when the models are.
fn with_bases(config: &Config, listed: Vec<ModelId>) -> anyhow::Result<Vec<ModelId>> {
    if !config
        .base_ft_path
        .as_ref()
        .is_some_and(|path| path.exists())
    {
        return Ok(listed);
    }
    let planned = config.base_map(&listed)?.order(&listed);
    let (mut jobs, mut unlisted) = (Vec::new(), HashSet::new());
    for planned in planned {
        if planned.unlisted {
            unlisted.insert(planned.id.clone());
        }
        jobs.push(Job {
            model: planned.id,
            base: planned.base,
        });
    }
    let needed = needed_bases(config, &jobs, &unlisted);
    let is_due = |model: &ModelId| {
        !unlisted.contains(model) || needed.contains(model) && stored(config, model).is_none()
    };
    let models = jobs.into_iter().map(|job| job.model);
    let due: Vec<_> = models.filter(is_due).collect();
    for model in due.iter().filter(|model| unlisted.contains(model)) {
        let text =
            format!("{model} is not listed, and fetched too: it is the base of a listed model");
        super::tell("warning", &text);
    }
    Ok(due)
}

/// The bases of those models that are to be stored and are not: a stored one was encoded for good.
fn needed_bases(config: &Config, jobs: &[Job], unlisted: &HashSet<ModelId>) -> HashSet<ModelId> {
    let mut needed = HashSet::new();
    // A base comes before its fine-tunes.
    for job in jobs.iter().rev() {
        let is_due = !unlisted.contains(&job.model) || needed.contains(&job.model);
        if is_due && stored(config, &job.model).is_none() {
            needed.extend(job.base.clone());
        }
    }
    needed
}

fn summary(report: &Report) -> String {
    let line = |row: &Row| {
        let what = match &row.fetched {
            Some(got) => format!(
                "{}, {}, commit {:.12}",
                counted(got.files, "file"),
                bytes(got.bytes),
                got.commit
            ),
            None => match row.version {
                Some(version) => format!(
                    "{}, as version {version}; restore gives its files back",
                    row.status
                ),
                None => row.status.to_owned(),
            },
        };
        let without = row
            .left_out
            .as_ref()
            .map_or_else(String::new, |note| format!("; without {note}"));
        format!("{}: {what}{without}\n", row.model)
    };
    let lines: String = report.models.iter().map(line).collect();
    format!(
        "{lines}received {} in {:.1} s ({})\n",
        bytes(report.bytes_received),
        report.seconds,
        megabytes_per_second(report.bytes_received, report.seconds)
    )
}

/// Fetches models one after another into the config's `model_dir`.
struct Fetcher<'a> {
    config: &'a Config,
    client: Client,
    options: hub::Options,
}

impl<'a> Fetcher<'a> {
    fn new(config: &'a Config, args: FetchArgs) -> anyhow::Result<Self> {
        make_model_dir(config)?;
        Ok(Self {
            config,
            client: Client::new(access(), Patience::default())?,
            options: hub::Options {
                revision: args.revision,
                include: args.include,
                exclude: args.exclude,
                files_at_once: args.jobs.into(),
            },
        })
    }

    /// Fetches a model whose directory is not there, or what an earlier run left out of it and this one does not.
    fn fetch(&self, model: &ModelId) -> anyhow::Result<Option<Fetched>> {
        let (client, directory, options) = (&self.client, &self.config.model_dir, &self.options);
        let bar = Bar::default();
        let fetched = match (locate(directory, model)?, self.note(model)?) {
            (None, _) => hub::fetch(client, model, directory, options, &bar)?,
            (Some(_), Some(note)) if note.files.iter().any(|path| options.want(path)) => {
                hub::complete(client, model, note, directory, options, &bar)?
            }
            _ => return Ok(None),
        };
        tracing::info!(%model, bytes = fetched.bytes, commit = fetched.commit, "fetched");
        Ok(Some(fetched))
    }

    /// Fetches a model to be stored, unless [`Self::is_spared_by`] its newest version.
    fn fetch_to_store(&self, model: &ModelId) -> anyhow::Result<Option<Fetched>> {
        match stored(self.config, model) {
            Some(manifest) if self.is_spared_by(model, &manifest)? => Ok(None),
            _ => self.fetch(model),
        }
    }

    /// Tells whether a model is gone since it was stored, and its version has all files that are wanted: it may lack
    /// what an earlier run left out.
    fn is_spared_by(&self, model: &ModelId, manifest: &Manifest) -> Result<bool, Error> {
        if locate(&self.config.model_dir, model)?.is_some() {
            return Ok(false);
        }
        let files: HashSet<_> = manifest.files.iter().map(|file| &file.path).collect();
        let lacks = |path: &RelPath| !files.contains(path) && self.options.want(path);
        let note = LeftOut::read(&self.config.model_dir, model)?;
        Ok(note.is_none_or(|note| note.filtered(lacks).files.is_empty()))
    }

    /// The version that is what is asked for: the newest, or, where a revision is named, the one of that commit.
    fn version(&self, model: &ModelId) -> Option<Manifest> {
        let Some(revision) = &self.options.revision else {
            return stored(self.config, model);
        };
        let store = Store::open(&self.config.storage_dir).ok()?;
        let versions = store.versions(model).ok()?.into_iter().rev();
        let mut manifests = versions.filter_map(|version| store.manifest(model, version).ok()?);
        manifests.find(|manifest| manifest.commit.as_ref() == Some(revision))
    }

    /// The files that the model's directory lacks since patterns left them out.
    fn note(&self, model: &ModelId) -> Result<Option<LeftOut>, Error> {
        let directory = hub::place(&self.config.model_dir, model);
        let is_fetched =
            locate(&self.config.model_dir, model)?.is_some_and(|found| found.root() == directory);
        let note = LeftOut::read(&self.config.model_dir, model)?.filter(|_| is_fetched);
        let note = note.map(|note| note.absent_from(&directory));
        Ok(note.filter(|note| !note.files.is_empty()))
    }

    fn row(&self, model: ModelId) -> Row {
        let mut row = Row {
            model,
            status: "failed",
            version: None,
            fetched: None,
            left_out: None,
            error: None,
        };
        if let Err(error) = self.fill(&mut row) {
            row.error = Some(format!("{error:#}"));
        }
        row
    }

    fn fill(&self, row: &mut Row) -> anyhow::Result<()> {
        let model = &row.model;
        if let Some(manifest) = self.version(model)
            && self.is_spared_by(model, &manifest)?
        {
            (row.status, row.version) = ("already stored", Some(manifest.version));
            return Ok(());
        }
        let fetched = self.fetch(model)?;
        row.left_out = self.note(model)?;
        row.status = if fetched.is_some() {
            "fetched"
        } else {
            "already there"
        };
        row.fetched = fetched;
        Ok(())
    }
}

/// Makes the directory that models are fetched into.
pub fn make_model_dir(config: &Config) -> Result<(), Error> {
    fs::create_dir_all(&config.model_dir).map_err(Error::io("create", &config.model_dir))
}

/// The hub and the token that the user's environment names, as the hub's own tools read it.
fn access() -> Access {
    let set = |key| {
        env::var(key)
            .ok()
            .map(|value| value.trim().to_owned())
            .filter(|value| !value.is_empty())
    };
    let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.into());
    Access {
        endpoint: endpoint.trim_end_matches('/').to_owned(),
        token: set("HF_TOKEN").or_else(|| hf_hub::Cache::from_env().token()),
    }
}

/// Fetches and stores one model after another, so that no two of them need lie uncompressed at a time.
///
/// What is in the store is not fetched. A model whose base could not be fetched is not tried: stored without
/// its base it would take several times the space for ever.
pub fn fetch_and_store(
    config: &Config,
    args: FetchArgs,
    jobs: &[Job],
    options: &ingest::Options,
) -> anyhow::Result<IngestReport> {
    let fetcher = Fetcher::new(config, args)?;
    let mut all = empty(options.threads);
    let start = Instant::now();
    let needed = needed_bases(config, jobs, &options.optional);
    let mut refused: HashMap<_, _> = ingest::clashes(jobs, &config.model_dir)
        .into_iter()
        .map(|(model, reason)| (model, (Status::Failed, reason)))
        .collect();
    for job in jobs {
        if !refused.contains_key(&job.model) {
            let is_due = !options.optional.contains(&job.model) || needed.contains(&job.model);
            match fetch_with_base(&fetcher, job, is_due, &refused) {
                Ok(()) => {
                    add(&mut all, store(config, job, options)?);
                    continue;
                }
                Err(refusal) => refused.insert(job.model.clone(), refusal),
            };
        }
        if let Some((status, error)) = refused.get(&job.model) {
            all.models.push(ModelReport {
                error: Some(error.clone()),
                ..ModelReport::new(&job.model, *status)
            });
        }
    }
    all.seconds = start.elapsed().as_secs_f64();
    Ok(all)
}

type Refusal = (Status, String);

/// Fetches a model if it is due; the error says why it is not to be stored.
fn fetch_with_base(
    fetcher: &Fetcher<'_>,
    job: &Job,
    is_due: bool,
    refused: &HashMap<ModelId, Refusal>,
) -> Result<(), Refusal> {
    if let Some(base) = job.base.as_ref().filter(|base| refused.contains_key(base)) {
        let reason = format!(
            "its base {base} could not be fetched; to store it without, name no base for it"
        );
        return Err((Status::NotTried, reason));
    }
    if is_due {
        fetcher
            .fetch_to_store(&job.model)
            .map_err(|error| (Status::Failed, format!("{error:#}")))?;
    }
    Ok(())
}

fn store(config: &Config, job: &Job, options: &ingest::Options) -> Result<IngestReport, Error> {
    let (models, store) = (&config.model_dir, &config.storage_dir);
    ingest::run(
        slice::from_ref(job),
        models,
        store,
        options,
        &Bar::default(),
    )
}

/// The newest version of a model; `None` if it is not in the store, or not to be read there.
fn stored(config: &Config, model: &ModelId) -> Option<Manifest> {
    let newest = Store::open(&config.storage_dir).and_then(|store| store.newest(model));
    newest.ok().flatten()
}

fn empty(threads: usize) -> IngestReport {
    IngestReport {
        models: Vec::new(),
        bytes: 0,
        stored_bytes: 0,
        savings: Savings::default(),
        warnings: Vec::new(),
        threads,
        seconds: 0.0,
        store: StoreTotals::default(),
    }
}

/// Adds a later run's figures.
fn add(all: &mut IngestReport, one: IngestReport) {
    all.models.extend(one.models);
    all.warnings.extend(one.warnings);
    all.bytes += one.bytes;
    all.stored_bytes += one.stored_bytes;
    all.savings.add(&one.savings);
    all.store = one.store;
}
