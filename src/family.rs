//! Family: which models' tensors are kept as differences to which others', as the store is now.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::error::{ErrorKind, Result};
use crate::hash::Hash;
use crate::name::ModelId;
use crate::pairing::{Owners, Why};
use crate::store::Store;
use crate::store::index::Index;
use crate::store::manifest::Manifest;

/// A model, and whose tensors its own are differences to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// The model.
    pub model: ModelId,
    /// Bytes of its files.
    pub bytes: u64,
    /// Bytes of its tensors' object files, but for those that are another model's too, which counts them.
    pub stored_bytes: u64,
    /// The model that it hangs on in the tree: the one with most of its bases, or where it has none, one that has most of
    /// its bytes too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<ModelId>,
    /// The models that hold its tensors' bases, the one with most bytes first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bases: Vec<Share>,
    /// The models that count tensors which it has too, the one with most bytes first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub equal: Vec<Share>,
}

/// What one model contributes to another one as a base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Share {
    /// The model that holds the bases.
    pub model: ModelId,
    /// Tensors that are differences to them, or equal.
    pub tensors: u64,
    /// Bytes of these tensors.
    pub bytes: u64,
    /// Why the model was looked at when they were stored, for most of them; nothing where `optimize` found it later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
}

/// The models of a store by id, each with its bases.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FamilyReport {
    /// The newest version of each model.
    pub models: Vec<Member>,
    /// Manifests that could not be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

/// Reads the families of a store.
///
/// # Errors
/// Fails where the store cannot be listed; damaged manifests are in the report.
pub fn run(store: &Store) -> Result<FamilyReport> {
    let index = store.index()?;
    let owners = Owners::load(store)?;
    let ranks = ranks(&index, &owners);
    let mut report = FamilyReport::default();
    for model in store.models()? {
        match store.newest(&model.id) {
            Ok(manifest) => report
                .models
                .extend(manifest.map(|manifest| member(&manifest, &index, &owners, &ranks))),
            Err(error) if error.kind() == ErrorKind::Io => return Err(error),
            Err(error) => report.errors.push(error.to_string()),
        }
    }
    hang_copies(&mut report.models);
    cut_circles(&mut report.models);
    Ok(report)
}

/// How many bytes of others are differences to a model's tensors: of several models that have a tensor, the one with most
/// counts it, so that what serves as a base is a base in the tree.
type Ranks = BTreeMap<ModelId, u64>;

fn ranks(index: &Index, owners: &Owners) -> Ranks {
    let mut ranks = Ranks::new();
    for (name, record) in index.iter().filter(|(_, record)| record.depth > 0) {
        let is_own = |id: &ModelId| owners.of(name).any(|owner| owner == id);
        for owner in owners.of(&record.base).filter(|id| !is_own(id)) {
            *ranks.entry(owner.clone()).or_default() += record.raw_len;
        }
    }
    ranks
}

fn member(manifest: &Manifest, index: &Index, owners: &Owners, ranks: &Ranks) -> Member {
    let rank = |id: &&ModelId| std::cmp::Reverse(ranks.get(*id).copied().unwrap_or(0));
    let segments = manifest.files.iter().flat_map(|file| &file.segments);
    let objects: BTreeMap<Hash, u64> = segments
        .map(|segment| (segment.object, segment.length))
        .collect();
    let (mut bases, mut equal) = (Shares::default(), Shares::default());
    let mut stored_bytes = 0;
    for (object, length) in &objects {
        let Some(first) = owners.of(object).min_by_key(rank) else {
            continue;
        };
        if *first != manifest.model {
            equal.add(first, *length);
            continue;
        }
        let record = index.get(object);
        stored_bytes += record.map_or(0, |record| record.stored_len);
        let base = record.filter(|record| record.depth > 0);
        // What the model holds itself says nothing of whom it hangs on.
        let base = base.filter(|record| !objects.contains_key(&record.base));
        let Some(base) = base.map(|record| record.base) else {
            continue;
        };
        let others = owners.of(&base).filter(|id| **id != manifest.model);
        // Of equals the first is meant.
        let key = |id: &&ModelId| (std::cmp::Reverse(bases.bytes(id)), rank(id));
        if let Some(owner) = others.min_by_key(key) {
            bases.add(owner, *length);
        }
    }
    let bases = bases.list(|model| why(manifest, model));
    Member {
        model: manifest.model.clone(),
        bytes: manifest.bytes,
        stored_bytes,
        parent: bases.first().map(|share| share.model.clone()),
        bases,
        equal: equal.list(|_| None),
    }
}

/// Tensors and bytes by model.
#[derive(Default)]
struct Shares(BTreeMap<ModelId, (u64, u64)>);

impl Shares {
    fn bytes(&self, model: &ModelId) -> u64 {
        self.0.get(model).map_or(0, |share| share.1)
    }

    fn add(&mut self, model: &ModelId, length: u64) {
        let share = self.0.entry(model.clone()).or_default();
        *share = (share.0 + 1, share.1 + length);
    }

    /// The model with most bytes first.
    fn list(self, why: impl Fn(&ModelId) -> Option<Why>) -> Vec<Share> {
        let share = |(model, (tensors, bytes))| Share {
            why: why(&model),
            model,
            tensors,
            bytes,
        };
        let mut shares: Vec<_> = self.0.into_iter().map(share).collect();
        shares.sort_by_key(|share| std::cmp::Reverse(share.bytes));
        shares
    }
}

/// Hangs models that have no bases on one that has most of their bytes too, unless that hangs on them.
fn hang_copies(models: &mut [Member]) {
    let pairs = models.iter().flat_map(|member| {
        let bases = member.bases.iter().map(|share| share.model.clone());
        bases.map(|base| (member.model.clone(), base))
    });
    let pairs: BTreeSet<(ModelId, ModelId)> = pairs.collect();
    for member in models.iter_mut().filter(|member| member.bases.is_empty()) {
        let most = member
            .equal
            .first()
            .filter(|share| share.bytes * 2 > member.bytes);
        let most = most.map(|share| share.model.clone());
        member.parent = most.filter(|id| !pairs.contains(&(id.clone(), member.model.clone())));
    }
}

/// Why a model's tensors became bases, by the manifest, whose shares are sorted by their bytes.
fn why(manifest: &Manifest, model: &ModelId) -> Option<Why> {
    let mut shares = manifest.bases.iter();
    let share = shares.find(|share| share.model.as_ref() == Some(model));
    share.map(|share| share.why)
}

/// Tensors may be each other's bases both ways; then the first model of such a circle is made a root.
fn cut_circles(models: &mut [Member]) {
    let mut parents: BTreeMap<ModelId, Option<ModelId>> = models
        .iter()
        .map(|member| (member.model.clone(), member.parent.clone()))
        .collect();
    for member in models {
        let mut seen = BTreeSet::from([member.model.clone()]);
        let mut at = member.parent.clone();
        while let Some(id) = at {
            if !seen.insert(id.clone()) {
                break;
            }
            at = parents.get(&id).cloned().flatten();
            if at.as_ref() == Some(&member.model) {
                member.parent = None;
                parents.insert(member.model.clone(), None);
            }
        }
    }
}

impl FamilyReport {
    /// Writes the trees, a model a line, deeper ones further to the right; `describe` says what comes after a model.
    pub fn trees(&self, describe: impl Fn(&Member) -> String) -> String {
        let mut text = String::new();
        let mut waiting: Vec<_> = self
            .models
            .iter()
            .rev()
            .filter(|member| member.parent.is_none())
            .map(|member| (member, 0))
            .collect();
        while let Some((member, depth)) = waiting.pop() {
            text += &format!(
                "{}{}  {}\n",
                "    ".repeat(depth),
                member.model,
                describe(member)
            );
            let children = self.models.iter().rev();
            let children = children.filter(|child| child.parent.as_ref() == Some(&member.model));
            waiting.extend(children.map(|child| (child, depth + 1)));
        }
        text
    }
}
