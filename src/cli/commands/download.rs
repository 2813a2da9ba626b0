//! `zipllm download CONFIG`, and `zipllm CONFIG --download`: models from the Hugging Face Hub.

use std::collections::HashSet;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde::Serialize;

use crate::cli::Outcome;
use crate::cli::progress::Bar;
use crate::cli::terminal::{bytes, rate};
use crate::config::Config;
use crate::error::Error;
use crate::hub::{self, Access, Client, Fetched, Patience};
use crate::ingest::{self, Job};
use crate::name::ModelId;
use crate::report::{IngestReport, ModelReport, Savings, Status, StoreTotals};
use crate::source::locate;
use crate::store::Store;

const ENDPOINT: &str = "https://huggingface.co";

/// `zipllm download CONFIG`.
#[derive(Debug, Args)]
pub struct DownloadArgs {
    /// The config file (JSON)
    pub config: PathBuf,
    /// Branch, tag or commit
    #[arg(long, default_value = "main")]
    pub revision: String,
    /// Fetch only files that match, as in '*.json' or 'onnx/'; may be given several times
    #[arg(long, value_name = "PATTERN")]
    pub include: Vec<String>,
    /// Leave out files that match
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// Files fetched at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub jobs: u16,
    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
}

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
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    fetched: Option<Fetched>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Fetches every listed model that `model_dir` lacks.
pub fn run(args: DownloadArgs) -> anyhow::Result<Outcome> {
    let start = Instant::now();
    let config = Config::load(&args.config)?;
    let list = config.model_list()?;
    list.warnings
        .iter()
        .for_each(|warning| super::tell("warning", warning));
    let options = hub::Options {
        revision: args.revision,
        include: args.include,
        exclude: args.exclude,
        files_at_once: args.jobs.into(),
    };
    let fetcher = Fetcher::new(&config, options)?;
    let models: Vec<_> = list
        .models
        .into_iter()
        .map(|model| fetcher.row(model))
        .collect();
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

fn summary(report: &Report) -> String {
    let line = |row: &Row| match &row.fetched {
        Some(got) => {
            format!(
                "{}: {} files, {}, commit {:.12}\n",
                row.model,
                got.files,
                bytes(got.bytes),
                got.commit
            )
        }
        None => format!("{}: {}\n", row.model, row.status),
    };
    let lines: String = report.models.iter().map(line).collect();
    format!(
        "{lines}received {} in {:.1} s ({})\n",
        bytes(report.bytes_received),
        report.seconds,
        rate(report.bytes_received, report.seconds)
    )
}

/// Fetches models one after another into the config's `model_dir`.
struct Fetcher<'a> {
    config: &'a Config,
    client: Client,
    options: hub::Options,
}

impl<'a> Fetcher<'a> {
    fn new(config: &'a Config, options: hub::Options) -> anyhow::Result<Self> {
        make_model_dir(config)?;
        Ok(Self {
            config,
            client: Client::new(access(), Patience::default())?,
            options,
        })
    }

    /// Fetches a model unless its directory is there.
    fn fetch(&self, model: &ModelId) -> anyhow::Result<Option<Fetched>> {
        if locate(&self.config.model_dir, model)?.is_some() {
            return Ok(None);
        }
        let fetched = hub::fetch(
            &self.client,
            model,
            &self.config.model_dir,
            &self.options,
            &Bar::default(),
        )?;
        tracing::info!(%model, bytes = fetched.bytes, commit = fetched.commit, "fetched");
        Ok(Some(fetched))
    }

    fn row(&self, model: ModelId) -> Row {
        let (status, fetched, error) = match self.fetch(&model) {
            Ok(Some(fetched)) => ("fetched", Some(fetched), None),
            Ok(None) => ("already there", None, None),
            Err(error) => ("failed", None, Some(format!("{error:#}"))),
        };
        Row {
            model,
            status,
            fetched,
            error,
        }
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
    jobs: &[Job],
    options: &ingest::Options,
) -> anyhow::Result<IngestReport> {
    let fetcher = Fetcher::new(config, hub::Options::default())?;
    let mut all = empty(options.threads);
    let start = Instant::now();
    let mut failed = HashSet::new();
    for job in jobs {
        let refusal = match &job.base {
            Some(base) if failed.contains(base) => Some((
                Status::NotTried,
                format!("its base {base} could not be fetched"),
            )),
            // A base that is not listed was not asked for.
            _ if options.optional.contains(&job.model) || is_stored(config, &job.model) => None,
            _ => fetcher
                .fetch(&job.model)
                .err()
                .map(|error| (Status::Failed, format!("{error:#}"))),
        };
        if let Some((status, error)) = refusal {
            failed.insert(job.model.clone());
            all.models.push(ModelReport {
                error: Some(error),
                ..ModelReport::new(&job.model, status)
            });
            continue;
        }
        let one = [job.clone()];
        add(
            &mut all,
            ingest::run(
                &one,
                &config.model_dir,
                &config.storage_dir,
                options,
                &Bar::default(),
            )?,
        );
    }
    all.seconds = start.elapsed().as_secs_f64();
    Ok(all)
}

fn is_stored(config: &Config, model: &ModelId) -> bool {
    Store::open(&config.storage_dir)
        .and_then(|store| store.newest(model))
        .is_ok_and(|found| found.is_some())
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
