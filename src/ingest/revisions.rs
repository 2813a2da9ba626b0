//! What the store has of a directory's revision, when every revision of a model is stored as a version of its own.
//!
//! Revisions are told apart by their commit. The newest version is always the current revision, so that who asks for the
//! model without a version gets that.

use std::path::Path;

use super::model::{missing, next_version};
use super::scan_record::ScanRecord;
use super::{Job, Run};
use crate::error::{ErrorKind, Result};
use crate::name::ModelId;
use crate::report::{ModelReport, Status};
use crate::source::{Listing, ModelDir, every_revision};
use crate::store::Store;
use crate::store::manifest::Manifest;

/// Finds every revision of each model: a job for each, in the order of the models.
pub fn locate_all(jobs: &[Job], model_dir: &Path) -> (Vec<Job>, Vec<Result<Option<ModelDir>>>) {
    let each = |job: &Job| {
        let found = match every_revision(model_dir, &job.model) {
            Ok(found) if found.is_empty() => vec![Ok(None)],
            Ok(found) => found.into_iter().map(|one| Ok(Some(one))).collect(),
            Err(error) => vec![Err(error)],
        };
        let of_job = |directory| (job.clone(), directory);
        found.into_iter().map(of_job).collect::<Vec<_>>()
    };
    jobs.iter().flat_map(each).unzip()
}

/// Tells whether a directory is to be a version of its own, whatever other versions hold.
pub fn is_own_version(run: &Run<'_>, directory: &ModelDir) -> bool {
    run.options.all_revisions && directory.commit().is_some()
}

/// Reads the newest version of the directory's revision; versions that are damaged count as none.
pub fn version_of(
    store: &Store,
    job: &Job,
    directory: &ModelDir,
    report: &mut ModelReport,
) -> Result<Option<Manifest>> {
    for version in store.versions(&job.model)?.into_iter().rev() {
        match store.manifest(&job.model, version) {
            Ok(Some(manifest)) if manifest.commit.as_deref() == directory.commit() => {
                return Ok(Some(manifest));
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                report.warnings.push(error.to_string());
                report.damage = true;
            }
            other => drop(other?),
        }
    }
    Ok(None)
}

/// Tells whether a version holds the current revision, but is not the newest.
pub fn is_outdated(run: &Run<'_>, directory: &ModelDir, manifest: &Manifest) -> Result<bool> {
    let newest = run.writer.store().versions(&manifest.model)?;
    let is_newest = newest.last() == Some(&manifest.version);
    Ok(is_own_version(run, directory) && directory.is_current() && !is_newest)
}

/// Reports a version that holds what the directory has; where it should be the newest and is not, stores it once more.
pub fn keep(
    run: &mut Run<'_>,
    directory: &ModelDir,
    manifest: &Manifest,
    report: &mut ModelReport,
) -> Result<()> {
    report.status = Status::AlreadyStored;
    report.version = Some(manifest.version);
    if !is_outdated(run, directory, manifest)? {
        return Ok(());
    }
    let version = next_version(run.writer.store(), &manifest.model)?;
    let again = Manifest {
        version,
        ..manifest.clone()
    };
    report.stored_bytes += run.writer.commit(&again)?;
    report.savings.file_dedup_bytes += manifest.bytes;
    report.status = Status::Stored;
    report.version = Some(version);
    Ok(())
}

/// Says that the version which becomes the newest lacks files that the one before has: that one stays.
pub fn warn_of_missing(
    store: &Store,
    directory: &ModelDir,
    model: &ModelId,
    listing: &Listing,
    report: &mut ModelReport,
) -> Result<()> {
    let Some(newest) = store.newest(model)? else {
        return Ok(());
    };
    let gone = missing(&newest, listing);
    if let (true, Some(first)) = (directory.is_current(), gone.first()) {
        let commit = directory.commit().unwrap_or_default();
        report.warnings.push(format!(
            "the snapshot {commit}, the newest version from now on, lacks files that version {} has: {} of them, the \
             first is {}",
            newest.version,
            gone.len(),
            first.path
        ));
    }
    Ok(())
}

/// The record of a version's files, beside those of the model's other revisions.
pub fn record(
    run: &Run<'_>,
    directory: &ModelDir,
    version: u32,
    listing: &Listing,
    model: &ModelId,
) -> Option<ScanRecord> {
    let record = ScanRecord::new(version, &listing.files)?;
    Some(if is_own_version(run, directory) {
        record.beside(ScanRecord::read(run.writer.store(), model))
    } else {
        record
    })
}
