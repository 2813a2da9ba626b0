//! Whose tensors would be bases: what people say before, and what came of it after.

use std::collections::HashMap;

use super::{ModelEstimate, Run, TensorEstimate};
use crate::hash::Hash;
use crate::ingest::Job;
use crate::name::ModelId;
use crate::pairing::shares::{Based, holders, shares};
use crate::pairing::{BaseTensors, Why, card};
use crate::source::Listing;
use crate::store::manifest::{Manifest, Tensor};

impl Run<'_> {
    /// The models that people say this one is made from, as far as they are known.
    pub(super) fn hints(&self, job: &Job, listing: &Listing) -> Vec<(ModelId, BaseTensors, Why)> {
        let own = card::of_listing(listing).into_iter();
        let own = own.filter(|id| *id != job.model && Some(id) != job.base.as_ref());
        // Nothing is as near to a model as its last version.
        let before = std::iter::once(job.model.clone());
        let models = job.base.iter().cloned().chain(own).chain(before);
        let tensors = |id: ModelId| Some((id.clone(), self.known.tensors(&id)?, Why::Hint));
        models.filter_map(tensors).collect()
    }

    /// Says whose tensors would be the bases.
    pub(super) fn attribute(
        &self,
        manifest: &Manifest,
        hints: &[ModelId],
        estimate: &mut ModelEstimate,
    ) {
        let find = |id: &ModelId| self.known.tensors(id);
        let tensors: HashMap<Hash, &Tensor> = manifest
            .files
            .iter()
            .flat_map(|file| &file.segments)
            .filter_map(|segment| Some((segment.object, segment.tensor.as_ref()?)))
            .collect();
        let based = |one: &TensorEstimate| {
            Some(Based {
                tensor: tensors.get(&one.object)?,
                bytes: one.bytes,
                base: one.base_object?,
            })
        };
        let based: Vec<_> = estimate.tensors.iter().filter_map(based).collect();
        let owners = &self.known.owners;
        estimate.bases = shares(&find, owners, hints, &estimate.model, &based);
        let mut held = holders(&find, owners, hints, &estimate.model, &based).into_iter();
        let with_base = |one: &&mut TensorEstimate| one.base_object.is_some();
        for one in estimate.tensors.iter_mut().filter(with_base) {
            let holder = held.next();
            one.base = holder.and_then(|(model, _)| model.cloned());
            one.why = holder.map(|(_, why)| why);
        }
    }
}
