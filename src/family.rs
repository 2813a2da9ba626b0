//! Family: which models' tensors are kept as differences to which others', as the store is now.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::error::{ErrorKind, Result};
use crate::hash::Hash;
use crate::name::ModelId;
use crate::pairing::Owners;
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
    /// The model that it hangs on in the tree: the one with most of its bases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<ModelId>,
    /// The models that hold its tensors' bases, the one with most bytes first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bases: Vec<Share>,
}

/// What one model contributes to another one as a base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Share {
    /// The model that holds the bases.
    pub model: ModelId,
    /// Tensors that are differences to them.
    pub tensors: u64,
    /// Bytes of these tensors.
    pub bytes: u64,
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
    let mut report = FamilyReport::default();
    for model in store.models()? {
        match store.newest(&model.id) {
            Ok(manifest) => report
                .models
                .extend(manifest.map(|manifest| member(&manifest, &index, &owners))),
            Err(error) if error.kind() == ErrorKind::Io => return Err(error),
            Err(error) => report.errors.push(error.to_string()),
        }
    }
    cut_circles(&mut report.models);
    Ok(report)
}

fn member(manifest: &Manifest, index: &Index, owners: &Owners) -> Member {
    let segments = manifest.files.iter().flat_map(|file| &file.segments);
    let objects: BTreeMap<Hash, u64> = segments
        .map(|segment| (segment.object, segment.length))
        .collect();
    let mut shares: BTreeMap<ModelId, (u64, u64)> = BTreeMap::new();
    for (object, length) in &objects {
        let record = index.get(object).filter(|record| record.depth > 0);
        let Some(base) = record.map(|record| record.base) else {
            continue;
        };
        // What the model holds itself says nothing of whom it hangs on.
        let others = || owners.of(&base).filter(|id| **id != manifest.model);
        if objects.contains_key(&base) || owners.of(object).next() != Some(&manifest.model) {
            continue;
        }
        if let Some(owner) = others().max_by_key(|id| shares.get(*id).map_or(0, |share| share.1)) {
            let share = shares.entry(owner.clone()).or_default();
            *share = (share.0 + 1, share.1 + length);
        }
    }
    let share = |(model, (tensors, bytes))| Share {
        model,
        tensors,
        bytes,
    };
    let mut bases: Vec<_> = shares.into_iter().map(share).collect();
    bases.sort_by_key(|share| std::cmp::Reverse(share.bytes));
    Member {
        model: manifest.model.clone(),
        bytes: manifest.bytes,
        parent: bases.first().map(|share| share.model.clone()),
        bases,
    }
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
