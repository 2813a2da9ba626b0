//! Rename: a model gets another id, with all its versions, and where other models name it as their base.
//!
//! The new manifests are written first, the newest before the others; then the old ones go, the oldest first. A run that
//! is stopped leaves both names, each with its newest version, and can be run again.

use std::collections::BTreeSet;

use rayon::prelude::*;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::name::ModelId;
use crate::restore::describe_unknown;
use crate::store::manifest::Manifest;
use crate::store::{Store, StoreWriter, StoredModel};
use crate::threads;

/// What was renamed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RenameReport {
    /// The old id.
    pub from: ModelId,
    /// The new id.
    pub to: ModelId,
    /// The versions.
    pub versions: Vec<u32>,
    /// Versions of other models that name it as their base, as `model@version`.
    pub users: Vec<String>,
}

/// Renames a model in the store that `writer` writes to.
///
/// # Errors
/// Fails before anything is changed where `from` is not in the store or one of its manifests is damaged, or `to` is
/// another model, or differs from one only in case.
pub fn run(
    mut writer: StoreWriter,
    from: &ModelId,
    to: &ModelId,
    threads: usize,
) -> Result<RenameReport> {
    let store = writer.store().clone();
    let versions = store.versions(from)?;
    if versions.is_empty() {
        return Err(Error::NoModel {
            model: from.to_string(),
            reason: describe_unknown(&store, from)?,
        });
    }
    store.check_case(to)?;
    let manifests = versions.iter().map(|version| read(&store, from, *version));
    let manifests = manifests.collect::<Result<Vec<_>>>()?;
    check_free(&store, to, &manifests)?;
    let pool = threads::pool(threads, store.layout().root())?;
    let users = pool.install(|| users(&store, from))?;
    for manifest in manifests.into_iter().rev() {
        let model = to.clone();
        writer.commit(&Manifest { model, ..manifest })?;
    }
    let mut report = RenameReport {
        from: from.clone(),
        to: to.clone(),
        versions,
        users: Vec::new(),
    };
    for (model, version) in users {
        let manifest = read(&store, &model, version)?;
        let base = Some(to.clone());
        writer.commit(&Manifest { base, ..manifest })?;
        report.users.push(format!("{model}@{version}"));
    }
    for version in &report.versions {
        writer.remove_version(from, *version)?;
    }
    writer.forget(from)?;
    writer.close()?;
    Ok(report)
}

fn read(store: &Store, id: &ModelId, version: u32) -> Result<Manifest> {
    store.manifest(id, version)?.ok_or_else(|| Error::NoModel {
        model: format!("{id}@{version}"),
        reason: "it is gone".into(),
    })
}

/// The new id may be there only as what an earlier run of the same has left.
fn check_free(store: &Store, to: &ModelId, manifests: &[Manifest]) -> Result<()> {
    let there: BTreeSet<_> = store.versions(to)?.into_iter().collect();
    if there.is_empty() {
        return Ok(());
    }
    let mut common = 0;
    for manifest in manifests.iter().filter(|one| there.contains(&one.version)) {
        common += usize::from(read(store, to, manifest.version)?.same_content(manifest));
    }
    let expected = manifests
        .iter()
        .filter(|one| there.contains(&one.version))
        .count();
    if common > 0 && common == expected {
        return Ok(());
    }
    Err(Error::Name {
        name: to.to_string(),
        reason: "a model of this name is in the store already".into(),
    })
}

/// Every version of a model that names `base` as its base. A manifest that cannot be read is left alone.
fn users(store: &Store, base: &ModelId) -> Result<Vec<(ModelId, u32)>> {
    let of_model = |model: &StoredModel| {
        let is_user = |version: &u32| {
            let outline = store.outline(&model.id, *version).ok().flatten();
            outline.is_some_and(|outline| outline.base.as_ref() == Some(base))
        };
        let versions = model.versions.iter().copied().filter(is_user);
        versions
            .map(|version| (model.id.clone(), version))
            .collect::<Vec<_>>()
    };
    let models = store.models()?;
    Ok(models.par_iter().flat_map_iter(of_model).collect())
}
