//! `zipllm CONFIG`: stores every listed model, bases first.

use std::collections::HashSet;
use std::path::PathBuf;

use serde::Serialize;

use super::delete_source::{self, Sources};
use crate::cli::Outcome;
use crate::cli::args::CompressArgs;
use crate::cli::progress::Bar;
use crate::cli::terminal::{bytes, counted, peak_memory, percent, rate, table};
use crate::codec::EncodeOptions;
use crate::config::Config;
use crate::ingest::{self, Job};
use crate::name::ModelId;
use crate::report::{Coded, IngestReport, ModelReport, Status};
use crate::source::{every_revision, locate, passed_over};
use crate::store::manifest::BaseShare;

pub fn run(args: CompressArgs) -> anyhow::Result<Outcome> {
    let Some(path) = &args.config else {
        anyhow::bail!("no config file was given")
    };
    let config = Config::load(path)?;
    let list = config.model_list()?;
    let map = config.base_map(&list.models)?;
    let planned = map.order(&list.models);
    if args.download {
        super::download::make_model_dir(&config)?;
    }
    config.check_inputs(planned.iter().map(|planned| &planned.id))?;
    let mut warnings = [list.warnings, map.warnings().to_vec()].concat();
    let unlisted = planned.iter().filter(|planned| planned.unlisted);
    let optional: HashSet<_> = unlisted.map(|planned| planned.id.clone()).collect();
    let jobs: Vec<_> = planned
        .into_iter()
        .map(|planned| Job {
            model: planned.id,
            base: planned.base,
        })
        .collect();
    let jobs = ingest::order::by_cards(jobs, &config.model_dir);
    let options = ingest::Options {
        threads: args.threads.unwrap_or(config.threads),
        encode: EncodeOptions {
            effort: args.effort.unwrap_or(config.effort),
            ..config.encode_options()
        },
        accept_missing: args.accept_missing,
        may_be_deleted: args.delete_source,
        all_revisions: args.all_revisions,
        wait: args.wait,
        optional,
        ..ingest::Options::default()
    };
    let mut report = if args.download {
        super::download::fetch_and_store(&config, args.fetch, &jobs, &options)?
    } else {
        let (models, store) = (&config.model_dir, &config.storage_dir);
        ingest::run(&jobs, models, store, &options, &Bar::default())?
    };
    super::left_out::warn(&mut report, &config);
    warn_of_passed_over(&mut report, &config);
    warnings.extend(tell_unlisted(&report, &options.optional));
    report.warnings.splice(0..0, warnings);
    let deleted = args.delete_source.then(|| {
        let locate = |model: &ModelId| {
            if args.all_revisions {
                every_revision(&config.model_dir, model)
            } else {
                Ok(locate(&config.model_dir, model)?.into_iter().collect())
            }
        };
        delete_source::run(&report, locate, &config.storage_dir, options.threads)
    });
    conclude(report, deleted.transpose()?, args.json)
}

/// Says of a model that lies in `model_dir` under several names which of them were not looked at.
fn warn_of_passed_over(report: &mut IngestReport, config: &Config) {
    let ids: HashSet<_> = report.models.iter().map(|row| row.model.clone()).collect();
    // Another model's directory may have a name that would do for this one.
    let is_others = |place: &PathBuf| {
        ids.iter()
            .any(|id| *place == config.model_dir.join(id.as_str()))
    };
    let mut seen = HashSet::new();
    for model in &mut report.models {
        if !seen.insert(model.model.clone()) {
            continue;
        }
        // What cannot be looked at has failed before.
        let places = passed_over(&config.model_dir, &model.model).unwrap_or_default();
        let places = places.iter().filter(|place| !is_others(place));
        let told = places.map(|place| {
            format!(
                "{} is passed over: it lies under another name too",
                place.display()
            )
        });
        model.warnings.extend(told);
    }
}

/// Prints what a run did, and says how it ended.
pub fn conclude(
    report: IngestReport,
    deleted: Option<Sources>,
    as_json: bool,
) -> anyhow::Result<Outcome> {
    tell_problems(&report);
    let ended = outcome(&report);
    let document = Document { report, deleted };
    super::print(&super::render(&document, as_json, |document| {
        let deleted = document
            .deleted
            .as_ref()
            .map_or_else(String::new, Sources::describe);
        summary(&document.report) + &deleted
    })?)?;
    Ok(match &document.deleted {
        Some(deleted) => deleted.outcome(ended),
        None => ended,
    })
}

/// What a run did, and what it deleted.
#[derive(Serialize)]
struct Document {
    #[serde(flatten)]
    report: IngestReport,
    #[serde(flatten)]
    deleted: Option<Sources>,
}

/// Says which models were stored that are not in the list.
fn tell_unlisted(report: &IngestReport, unlisted: &HashSet<ModelId>) -> Vec<String> {
    let stored =
        |model: &&ModelReport| model.status == Status::Stored && unlisted.contains(&model.model);
    let tell = |model: &ModelReport| {
        format!(
            "{} is not listed, and stored too: it is the base of a listed model",
            model.model
        )
    };
    report.models.iter().filter(stored).map(tell).collect()
}

fn outcome(report: &IngestReport) -> Outcome {
    let failed = |model: &ModelReport| matches!(model.status, Status::Failed | Status::NotTried);
    if report.models.iter().any(|model| model.damage) {
        Outcome::Damaged
    } else if report.models.iter().any(failed) {
        Outcome::Failed
    } else {
        Outcome::Done
    }
}

fn tell_problems(report: &IngestReport) {
    report
        .warnings
        .iter()
        .for_each(|warning| super::tell("warning", warning));
    for model in &report.models {
        model
            .warnings
            .iter()
            .for_each(|warning| super::tell("warning", &format!("{}: {warning}", model.model)));
        if let Some(error) = &model.error {
            let known = error.starts_with(model.model.as_str());
            super::tell(
                "error",
                &if known {
                    error.clone()
                } else {
                    format!("{}: {error}", model.model)
                },
            );
        }
    }
}

fn summary(report: &IngestReport) -> String {
    let rows: Vec<_> = report.models.iter().map(row).collect();
    let header = [
        "model", "status", "files", "size", "stored", "ratio", "known", "delta to", "solo to",
        "time",
    ];
    let savings = &report.savings;
    let saved = |coded: Coded| bytes(coded.raw_bytes.saturating_sub(coded.stored_bytes));
    let memory =
        peak_memory().map_or_else(String::new, |peak| format!(", peak memory {}", bytes(peak)));
    let versions = if report.store.versions > report.store.models {
        format!(" in {} versions", report.store.versions)
    } else {
        String::new()
    };
    let stored = match (report.bytes, report.stored_bytes) {
        (0, 0) => format!("nothing new was stored, in {:.1} s\n", report.seconds),
        (0, written) => format!(
            "no new version was stored; {} of objects were written, in {:.1} s\n",
            bytes(written),
            report.seconds
        ),
        _ => format!(
            "stored {} in {} ({}) in {:.1} s ({}) with {}{memory}\n\
             saved by file dedup {}, tensor dedup {}, delta {}, solo {}, other files {}\n",
            bytes(report.bytes),
            bytes(report.stored_bytes),
            percent(report.stored_bytes, report.bytes),
            report.seconds,
            rate(report.bytes, report.seconds),
            counted(report.threads, "thread"),
            bytes(savings.file_dedup_bytes),
            bytes(savings.tensor_dedup_bytes),
            saved(savings.delta),
            saved(savings.solo),
            saved(savings.plain),
        ),
    };
    format!(
        "{}\n{stored}the store holds {}{versions}, {}, in {} ({})\n",
        table(&header, &rows) + &bases(report),
        counted(report.store.models, "model"),
        bytes(report.store.model_bytes),
        bytes(report.store.object_bytes),
        percent(report.store.object_bytes, report.store.model_bytes),
    )
}

/// Says whose tensors served as bases, a line a model.
fn bases(report: &IngestReport) -> String {
    let share = |of: &ModelId, share: &BaseShare| match &share.model {
        Some(model) if model != of => {
            let why = super::why(share.why);
            format!("{model} for {} ({why})", bytes(share.bytes))
        }
        _ => format!("versions of its own for {}", bytes(share.bytes)),
    };
    let based = report.models.iter().filter(|model| !model.bases.is_empty());
    let line = |model: &ModelReport| {
        let shares = model.bases.iter().map(|one| share(&model.model, one));
        let shares: Vec<_> = shares.collect();
        let version = model.version.filter(|version| *version > 1);
        let version = version.map_or_else(String::new, |version| format!("@{version}"));
        let of = format!("{}{version}", model.model);
        format!("{of} has its bases in {}\n", shares.join(", "))
    };
    let lines: Vec<_> = based.map(line).collect();
    if lines.is_empty() {
        String::new()
    } else {
        format!("\n{}", lines.concat())
    }
}

fn row(model: &ModelReport) -> Vec<String> {
    let status = match (model.status, model.version) {
        (Status::Stored, Some(version)) => format!("stored, version {version}"),
        (Status::Stored, None) => "stored".into(),
        (Status::AlreadyStored, _) => "already stored".into(),
        (Status::Failed, _) => "FAILED".into(),
        (Status::NotTried, _) => "not tried".into(),
    };
    let status = match &model.commit {
        Some(commit) => format!("{status} ({commit:.12})"),
        None => status,
    };
    let mut row = vec![
        model.model.to_string(),
        status,
        model.files.to_string(),
        bytes(model.bytes),
    ];
    if model.status == Status::Stored {
        let savings = &model.savings;
        let ratio = |coded: Coded| {
            // Of next to nothing a ratio says nothing of the model.
            if coded.raw_bytes <= model.bytes / 1000 {
                "-".into()
            } else {
                percent(coded.stored_bytes, coded.raw_bytes)
            }
        };
        row.extend([
            bytes(model.stored_bytes),
            percent(model.stored_bytes, model.bytes),
            percent(
                savings.file_dedup_bytes + savings.tensor_dedup_bytes,
                model.bytes,
            ),
            ratio(savings.delta),
            ratio(savings.solo),
            format!("{:.1} s", model.seconds),
        ]);
    }
    row
}
