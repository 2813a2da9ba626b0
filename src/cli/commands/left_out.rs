//! Says of a stored model that it is not the whole repository, where its download left files out.

use std::collections::HashSet;

use crate::config::Config;
use crate::error::Result;
use crate::name::ModelId;
use crate::report::{IngestReport, Status};
use crate::source::LeftOut;
use crate::store::Store;

/// Adds a warning to every model of a report whose stored version lacks files that its download left out.
pub fn warn(report: &mut IngestReport, config: &Config) {
    for model in &mut report.models {
        if matches!(model.status, Status::Stored | Status::AlreadyStored) {
            let told = lacking(&model.model, config).map(|note| {
                note.map(|note| {
                    format!(
                        "its download left out {note}, and the stored version lacks them; \
                         `zipllm download` without patterns fetches them"
                    )
                })
            });
            let warning = told.unwrap_or_else(|error| Some(error.to_string()));
            model.warnings.extend(warning);
        }
    }
}

fn lacking(model: &ModelId, config: &Config) -> Result<Option<LeftOut>> {
    let Some(note) = LeftOut::read(&config.model_dir, model)? else {
        return Ok(None);
    };
    let newest = Store::open(&config.storage_dir)?.newest(model)?;
    let files = newest.map_or_else(Vec::new, |manifest| manifest.files);
    let stored: HashSet<_> = files.iter().map(|file| &file.path).collect();
    let lacking = note.filtered(|path| !stored.contains(path));
    Ok((!lacking.files.is_empty()).then_some(lacking))
}
