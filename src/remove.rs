//! Remove: models, or versions of them, leave the store; their objects stay until they are collected.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::name::ModelId;
use crate::restore::{ModelVersion, describe_unknown};
use crate::store::{Store, StoreWriter};

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RemoveReport {
    /// Every version that is gone, as `org/name@VERSION`.
    pub removed: Vec<String>,
}

/// Removes models, or versions of them, from the store that `writer` writes to.
///
/// The oldest version goes first, each durably: should the run be stopped, what is left of a model is its newest
/// versions.
///
/// # Errors
/// Fails before anything is changed where one of them is not in the store.
pub fn run(mut writer: StoreWriter, wanted: &[ModelVersion]) -> Result<RemoveReport> {
    let versions = find(writer.store(), wanted)?;
    let mut report = RemoveReport::default();
    for (model, version) in &versions {
        writer.remove_version(model, *version)?;
        report.removed.push(format!("{model}@{version}"));
    }
    let models: BTreeSet<_> = versions.iter().map(|(model, _)| model).collect();
    models
        .into_iter()
        .try_for_each(|model| writer.forget(model))?;
    writer.close()?;
    Ok(report)
}

/// The versions that are meant, each once, in ascending order.
fn find(store: &Store, wanted: &[ModelVersion]) -> Result<BTreeSet<(ModelId, u32)>> {
    let mut found = BTreeSet::new();
    for one in wanted {
        let versions = store.versions(&one.model)?;
        let no_model = |reason| Error::NoModel {
            model: one.to_string(),
            reason,
        };
        if versions.is_empty() {
            return Err(no_model(describe_unknown(store, &one.model)?));
        }
        let meant = |version: &u32| one.version.is_none_or(|wanted| wanted == *version);
        let meant: Vec<_> = versions.into_iter().filter(meant).collect();
        if meant.is_empty() {
            return Err(no_model("there is no such version".into()));
        }
        found.extend(
            meant
                .into_iter()
                .map(|version| (one.model.clone(), version)),
        );
    }
    Ok(found)
}
