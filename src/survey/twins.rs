//! Twins: models with the same tensors, such as re-uploads, and which of them stands for all.

use std::collections::{BTreeMap, HashMap};

use crate::name::ModelId;
use crate::store::manifest::{BaseShare, Why};

/// What tells of a model whether it is another one's copy, and which of them was there first.
pub struct Content<K> {
    /// The model.
    pub model: ModelId,
    /// The model that its manifest names as its base.
    pub base: Option<ModelId>,
    /// The models that hold its bases and that it was said to be made from.
    pub hints: Vec<ModelId>,
    /// The same for models of the same tensors only; `None` without any.
    pub tensors: Option<K>,
}

/// The models that bases were found in because somebody said so.
pub fn hints(bases: &[BaseShare]) -> Vec<ModelId> {
    let hints = bases.iter().filter(|share| share.why == Why::Hint);
    hints.filter_map(|share| share.model.clone()).collect()
}

/// Of models with the same tensors one stands for all: the one that others are said to be made from, or that their
/// manifests name as their base, or that is said to be made from another one itself, or the first by id. Returns it for
/// each of the others.
pub fn twins<K: Ord>(contents: &[Content<K>]) -> HashMap<ModelId, ModelId> {
    let mut named: HashMap<&ModelId, (usize, usize)> = HashMap::new();
    let mut groups: BTreeMap<&K, Vec<&Content<K>>> = BTreeMap::new();
    for content in contents {
        if let Some(base) = &content.base {
            named.entry(base).or_default().1 += 1;
        }
        for hint in &content.hints {
            named.entry(hint).or_default().0 += 1;
        }
        if let Some(tensors) = &content.tensors {
            groups.entry(tensors).or_default().push(content);
        }
    }
    let rank = |content: &&&Content<K>| {
        let times = named.get(&content.model).copied().unwrap_or_default();
        let id = std::cmp::Reverse(content.model.clone());
        (times, !content.hints.is_empty(), id)
    };
    let mut twins = HashMap::new();
    for group in groups.values() {
        let Some(first) = group.iter().max_by_key(rank) else {
            continue;
        };
        let others = group.iter().filter(|one| one.model != first.model);
        twins.extend(others.map(|one| (one.model.clone(), first.model.clone())));
    }
    twins
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ModelId {
        text.parse().unwrap()
    }

    #[test]
    fn of_models_with_the_same_tensors_the_base_of_others_stands_for_all() {
        // Model, its base, what it is said to be made from, its tensors; and who stands for whom.
        type Row = (&'static str, &'static str, &'static str, u8);
        let cases: [(&[Row], &str); 7] = [
            (&[("a", "", "", 1), ("b", "", "", 2)], ""),
            (&[("a", "", "", 1), ("b", "", "", 1)], "b=a"),
            (&[("a", "x", "", 1), ("b", "x", "x", 1)], "a=b"),
            (
                &[("a", "", "", 1), ("b", "", "", 1), ("c", "b", "", 2)],
                "a=b",
            ),
            (
                &[
                    ("a", "", "", 1),
                    ("b", "", "", 1),
                    ("c", "b", "b", 2),
                    ("d", "a", "", 2),
                ],
                "a=b d=c",
            ),
            (&[("a", "", "", 0), ("b", "", "", 0)], ""),
            (&[("a", "b", "", 1), ("b", "", "", 1)], "a=b"),
        ];
        for (models, expected) in cases {
            let content = |(model, base, hint, tensors): &Row| Content {
                model: id(model),
                base: base.parse().ok(),
                hints: hint.parse().into_iter().collect(),
                tensors: (*tensors > 0).then_some(*tensors),
            };
            let contents: Vec<_> = models.iter().map(content).collect();
            let found = twins(&contents);
            let mut found: Vec<_> = found.iter().map(|(a, b)| format!("{a}={b}")).collect();
            found.sort();
            assert_eq!(found.join(" "), expected, "{models:?}");
        }
    }
}
