//! `Owners`: which models hold an object.

use std::collections::HashMap;

use super::names::BaseTensors;
use crate::error::{ErrorKind, Result};
use crate::hash::Hash;
use crate::name::ModelId;
use crate::store::Store;
use crate::store::manifest::Manifest;

/// The models of a store by the tensors they hold.
#[derive(Debug, Default)]
pub struct Owners {
    models: Vec<ModelId>,
    by_object: HashMap<Hash, Vec<u32>>,
}

impl Owners {
    /// Reads the newest manifests of all models; damaged ones are passed over, `check` is what reports them.
    pub fn load(store: &Store) -> Result<Self> {
        let mut owners = Self::default();
        for model in store.models()? {
            match store.newest(&model.id) {
                Ok(manifest) => manifest.iter().for_each(|manifest| owners.add(manifest)),
                Err(error) if error.kind() == ErrorKind::Io => return Err(error),
                Err(_) => {}
            }
        }
        Ok(owners)
    }

    /// Adds a model's tensors.
    pub fn add(&mut self, manifest: &Manifest) {
        let id = u32::try_from(self.models.len()).unwrap_or(u32::MAX);
        self.models.push(manifest.model.clone());
        let segments = manifest.files.iter().flat_map(|file| &file.segments);
        for segment in segments.filter(|segment| segment.tensor.is_some()) {
            let models = self.by_object.entry(segment.object).or_default();
            if models.last() != Some(&id) {
                models.push(id);
            }
        }
    }

    /// Returns the models that hold an object, in the order they became known.
    pub fn of(&self, object: &Hash) -> impl Iterator<Item = &ModelId> {
        let ids = self.by_object.get(object).into_iter().flatten();
        ids.filter_map(|id| self.models.get(usize::try_from(*id).ok()?))
    }
}

/// Reads the tensors of a stored model by name; none if the model is not there or damaged.
pub fn tensors(store: &Store, id: &ModelId) -> Option<BaseTensors> {
    store
        .newest(id)
        .ok()
        .flatten()
        .map(|manifest| BaseTensors::of(&manifest))
}
