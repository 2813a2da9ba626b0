//! Shares: whose tensors serve a model's as bases, for how many bytes, and why.

use std::collections::{BTreeMap, HashMap};

use super::{BaseTensors, Owners, Why};
use crate::hash::Hash;
use crate::name::ModelId;
use crate::store::manifest::{BaseShare, Tensor};

/// A tensor that is stored as a difference.
pub struct Based<'a> {
    /// The tensor.
    pub tensor: &'a Tensor,
    /// Its bytes.
    pub bytes: u64,
    /// The object that it is a difference to.
    pub base: Hash,
}

/// Finds the tensors of a model by name.
pub type FindTensors<'f> = dyn Fn(&ModelId) -> Option<BaseTensors> + 'f;

/// Attributes bases to the models that hold them, and adds up.
pub fn shares(
    find: &FindTensors<'_>,
    owners: &Owners,
    hints: &[ModelId],
    own: &ModelId,
    based: &[Based<'_>],
) -> Vec<BaseShare> {
    let mut shares: BTreeMap<(Option<&ModelId>, Why), (u64, u64)> = BTreeMap::new();
    let holders = holders(find, owners, hints, own, based);
    for (one, holder) in based.iter().zip(holders) {
        let share = shares.entry(holder).or_default();
        *share = (share.0 + 1, share.1 + one.bytes);
    }
    let share = |((model, why), (tensors, bytes)): ((Option<&ModelId>, _), _)| BaseShare {
        model: model.cloned(),
        why,
        tensors,
        bytes,
    };
    let mut shares: Vec<_> = shares.into_iter().map(share).collect();
    shares.sort_by_key(|share| std::cmp::Reverse(share.bytes));
    shares
}

/// Finds for each base a model that holds it, and why it was looked at: of several a hint, then the one that could
/// serve for most bytes; at last the model itself, of which an older version holds it.
pub fn holders<'o>(
    find: &FindTensors<'_>,
    owners: &'o Owners,
    hints: &[ModelId],
    own: &ModelId,
    based: &[Based<'_>],
) -> Vec<(Option<&'o ModelId>, Why)> {
    let mut totals: HashMap<&ModelId, u64> = HashMap::new();
    for one in based {
        for model in owners.of(&one.base).filter(|model| *model != own) {
            *totals.entry(model).or_default() += one.bytes;
        }
    }
    let mut tensors: BTreeMap<&ModelId, Option<BaseTensors>> = BTreeMap::new();
    let rank = |model: &&ModelId| {
        let total = totals.get(*model).copied().unwrap_or(0);
        let name = std::cmp::Reverse((*model).clone());
        (hints.contains(model), total, name)
    };
    let mut holder = |one: &Based<'_>| {
        let others = owners.of(&one.base).filter(|model| *model != own);
        let itself = || owners.of(&one.base).find(|model| *model == own);
        let model = others.max_by_key(rank).or_else(itself);
        let why = match model {
            Some(model) if hints.contains(model) => Why::Hint,
            Some(model) if names_it(find, &mut tensors, model, one) => Why::Name,
            _ => Why::Content,
        };
        (model, why)
    };
    based.iter().map(&mut holder).collect()
}

/// Tells whether a model calls a tensor's base by the tensor's name; manifests that were read are kept.
fn names_it<'a>(
    find: &FindTensors<'_>,
    tensors: &mut BTreeMap<&'a ModelId, Option<BaseTensors>>,
    model: &'a ModelId,
    one: &Based<'_>,
) -> bool {
    let tensors = tensors.entry(model);
    let tensors = tensors.or_insert_with(|| find(model));
    let mut named = tensors.iter().flat_map(|tensors| tensors.named(one.tensor));
    named.any(|object| object == one.base)
}
