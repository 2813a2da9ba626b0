//! `--delete-source`: after a run, the files of the models that are stored are deleted.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;

use crate::cli::Outcome;
use crate::cli::progress::Bar;
use crate::cli::terminal::{bytes, counted};
use crate::delete_source::{self, DeleteReport};
use crate::error::{Error, ErrorKind, Result};
use crate::name::ModelId;
use crate::report::{IngestReport, Status};
use crate::source::ModelDir;
use crate::store::Store;

/// What was deleted, and what could not be.
#[derive(Serialize)]
pub struct Sources {
    deleted: Vec<DeleteReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_deleted: Vec<String>,
    #[serde(skip)]
    damage: bool,
}

/// Deletes the files of every model that the store has, as far as `locate` finds them: one directory, or one a revision.
pub fn run(
    report: &IngestReport,
    locate: impl Fn(&ModelId) -> Result<Vec<ModelDir>>,
    storage_dir: &Path,
    threads: usize,
) -> Result<Sources> {
    let store = Store::open(storage_dir)?;
    let mut done = Sources {
        deleted: Vec::new(),
        not_deleted: Vec::new(),
        damage: false,
    };
    let models: BTreeSet<_> = report.models.iter().map(|model| &model.model).collect();
    for model in models {
        let deleted = locate(model).and_then(|found| {
            let found: Vec<_> = found
                .into_iter()
                .filter(|one| is_stored(report, model, one))
                .collect();
            delete_source::run(&store, model, &found, threads, &Bar::default())
        });
        match deleted {
            Ok(deleted) => done.deleted.extend(deleted),
            Err(error) => done.note(model, &error),
        }
    }
    Ok(done)
}

/// Tells whether the run says of a model's directory that the store has it.
fn is_stored(report: &IngestReport, model: &ModelId, directory: &ModelDir) -> bool {
    let mut rows = report.models.iter();
    rows.any(|row| {
        row.model == *model
            && row.commit.as_deref() == directory.commit()
            && matches!(row.status, Status::Stored | Status::AlreadyStored)
    })
}

impl Sources {
    fn note(&mut self, model: &ModelId, error: &Error) {
        let text = format!("{model}: its files are not deleted: {error}");
        super::tell("error", &text);
        self.not_deleted.push(text);
        self.damage |= error.kind() == ErrorKind::Corrupt;
    }

    /// Says in words what was deleted.
    pub fn describe(&self) -> String {
        let files: usize = self.deleted.iter().map(|one| one.files).sum();
        let sum = self.deleted.iter().map(|one| one.bytes).sum();
        let models: BTreeSet<_> = self.deleted.iter().map(|one| &one.model).collect();
        format!(
            "deleted {} of {}, {}, after comparing them with the store\n",
            counted(files, "file"),
            counted(models.len(), "model"),
            bytes(sum)
        )
    }

    /// How the run ended, if storing ended like this.
    pub fn outcome(&self, stored: Outcome) -> Outcome {
        match stored {
            Outcome::Damaged => stored,
            _ if self.damage => Outcome::Damaged,
            Outcome::Done if !self.not_deleted.is_empty() => Outcome::Failed,
            _ => stored,
        }
    }
}
