//! Which models and files a damaged object hurts: those that have it, or have an object that it is a base of.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use super::{Check, Damage};
use crate::hash::Hash;
use crate::name::ModelId;
use crate::store::StoredModel;
use crate::store::manifest::{FileEntry, Manifest};
use crate::store::object::MAX_DEPTH;

/// The models, and their files by name, that a damaged object hurts.
#[derive(Default)]
struct Hurt {
    models: BTreeSet<ModelId>,
    files: BTreeSet<String>,
}

impl Check<'_> {
    /// Says for each damaged object which files need it, itself or as a base; manifests are read again for that.
    ///
    /// An object that is missing and that no file needs is no damage.
    pub(super) fn attribute(&mut self, models: &[StoredModel], is_dirty: bool) {
        if self.damaged.is_empty() {
            return;
        }
        let hurt = |model: &StoredModel| {
            let mut hurt = Vec::new();
            for version in &model.versions {
                // A damaged manifest has been reported.
                if let Ok(Some(manifest)) = self.store.manifest(&model.id, *version) {
                    hurt.extend(self.hurt_in(&manifest));
                }
            }
            hurt
        };
        let found: Vec<_> = models.par_iter().flat_map_iter(hurt).collect();
        let mut users: BTreeMap<Hash, Hurt> = BTreeMap::new();
        for (name, model, label) in found {
            let hurt = users.entry(name).or_default();
            hurt.models.insert(model);
            hurt.files.insert(label);
        }
        for (name, fault) in std::mem::take(&mut self.damaged) {
            let hurt = users.remove(&name).unwrap_or_default();
            if fault.is_missing && hurt.files.is_empty() {
                if !is_dirty {
                    let warning = format!("{}, and no model needs it", fault.reason);
                    self.report.warnings.push(warning);
                }
                continue;
            }
            self.report.damage.push(Damage {
                reason: fault.reason,
                object: Some(name),
                models: hurt.models.into_iter().collect(),
                hurts: hurt.files.into_iter().collect(),
            });
        }
    }

    fn hurt_in(&self, manifest: &Manifest) -> Vec<(Hash, ModelId, String)> {
        let mut hurt = Vec::new();
        for file in &manifest.files {
            for name in self.damaged_in(file) {
                let label = format!("{}@{}: {}", manifest.model, manifest.version, file.path);
                hurt.push((name, manifest.model.clone(), label));
            }
        }
        hurt
    }

    /// The damaged objects among a file's objects and their bases.
    fn damaged_in(&self, file: &FileEntry) -> BTreeSet<Hash> {
        let mut found = BTreeSet::new();
        for segment in &file.segments {
            let mut next = Some(segment.object);
            for _ in 0..=MAX_DEPTH {
                let Some(name) = next else { break };
                if self.damaged.contains_key(&name) {
                    found.insert(name);
                }
                let record = self.head(&name).filter(|record| record.depth > 0);
                next = record.map(|record| record.base);
            }
        }
        found
    }
}
