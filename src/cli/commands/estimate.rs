//! `zipllm estimate CONFIG`: what the listed models would take, without writing.

use std::path::PathBuf;

use clap::Args;

use crate::cli::Outcome;
use crate::cli::args;
use crate::cli::progress::Bar;
use crate::cli::terminal::{bytes, counted, percent, table};
use crate::config::Config;
use crate::estimate::{self, EstimateReport, ModelEstimate, Options, Status};
use crate::ingest::{Job, order};
use crate::name::ModelId;

/// `zipllm estimate CONFIG`.
#[derive(Debug, Args)]
pub struct EstimateArgs {
    /// The config file (JSON); its paths are relative to its own folder
    config: PathBuf,
    /// Worker threads, in place of the config's
    #[arg(long, value_parser = args::threads)]
    threads: Option<usize>,
    /// Count every snapshot of a model in a Hugging Face cache, as with the same option when storing
    #[arg(long)]
    all_revisions: bool,
    /// Print the estimate as JSON, tensor by tensor
    #[arg(long)]
    json: bool,
}

pub fn run(args: EstimateArgs) -> anyhow::Result<Outcome> {
    let config = Config::load(&args.config)?;
    let list = config.model_list()?;
    let map = config.base_map(&list.models)?;
    let planned = map.order(&list.models);
    config.check_inputs(planned.iter().map(|planned| &planned.id))?;
    let unlisted = planned.iter().filter(|planned| planned.unlisted);
    let options = Options {
        threads: args.threads.unwrap_or(config.threads),
        encode: config.encode_options(),
        optional: unlisted.map(|planned| planned.id.clone()).collect(),
        all_revisions: args.all_revisions,
    };
    let jobs: Vec<_> = planned
        .into_iter()
        .map(|planned| Job {
            model: planned.id,
            base: planned.base,
        })
        .collect();
    let jobs = order::by_cards(jobs, &config.model_dir);
    let (models, store) = (&config.model_dir, &config.storage_dir);
    let mut report = estimate::run(&jobs, models, store, &options, &Bar::default())?;
    let warnings = [list.warnings, map.warnings().to_vec()].concat();
    report.warnings.splice(0..0, warnings);
    tell_problems(&report);
    super::print(&super::render(&report, args.json, |report| {
        summary(report, args.all_revisions)
    })?)?;
    Ok(outcome(&report))
}

fn outcome(report: &EstimateReport) -> Outcome {
    let mut models = report.models.iter();
    if models.clone().any(|model| model.damage) {
        Outcome::Damaged
    } else if models.any(|model| model.status == Status::Failed) {
        Outcome::Failed
    } else {
        Outcome::Done
    }
}

fn tell_problems(report: &EstimateReport) {
    let warnings = report.warnings.iter();
    warnings.for_each(|warning| super::tell("warning", warning));
    for model in &report.models {
        let warnings = model.warnings.iter();
        warnings.for_each(|warning| super::tell("warning", &format!("{}: {warning}", model.model)));
        if let Some(error) = &model.error {
            super::tell("error", error);
        }
    }
}

fn summary(report: &EstimateReport, all_revisions: bool) -> String {
    let header = [
        "model",
        "status",
        "size",
        "known",
        "would add",
        "ratio",
        "base",
    ];
    let rows: Vec<_> = report
        .models
        .iter()
        .map(|model| row(model, all_revisions))
        .collect();
    let about = if report.is_upper_bound {
        // Of what low-rank prediction gains nothing is known.
        "at most about"
    } else {
        "about"
    };
    format!(
        "{}\n{} would take {about} {} ({}); estimated in {:.1} s with {}, nothing was written\n",
        table(&header, &rows),
        bytes(report.bytes),
        bytes(report.stored_bytes),
        percent(report.stored_bytes, report.bytes),
        report.seconds,
        counted(report.threads, "thread"),
    )
}

fn row(model: &ModelEstimate, all_revisions: bool) -> Vec<String> {
    let status = match model.status {
        Status::New => "new",
        Status::AlreadyStored => "already stored",
        Status::Failed => "FAILED",
    };
    let commit = model.commit.as_deref().filter(|_| all_revisions);
    let commit = commit.and_then(|commit| commit.get(..8));
    let mut row = vec![
        commit.map_or_else(
            || model.model.to_string(),
            |commit| format!("{} {commit}", model.model),
        ),
        status.to_owned(),
        bytes(model.bytes),
    ];
    if model.status == Status::New {
        let savings = &model.savings;
        let known = savings.file_dedup_bytes + savings.tensor_dedup_bytes;
        row.extend([
            percent(known, model.bytes),
            bytes(model.stored_bytes),
            percent(model.stored_bytes, model.bytes),
            base(model),
        ]);
    }
    row
}

/// The model that most bytes would have their bases in, and why.
fn base(model: &ModelEstimate) -> String {
    let Some(share) = model.bases.first() else {
        return "-".into();
    };
    let other = share.model.as_ref().filter(|id| **id != model.model);
    let name = other.map_or("its own versions", ModelId::as_str);
    format!(
        "{name} ({}, {})",
        percent(share.bytes, model.bytes),
        super::why(share.why)
    )
}
