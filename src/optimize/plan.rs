//! The plan: for each family of tensors, which is kept whole and what each other one is a difference to.

use std::collections::{BTreeMap, HashSet};

use rayon::prelude::*;

use crate::pairing::Catalog;
use crate::pairing::catalog::{Entry, surcharge};
use crate::sketch::solo_bits;

/// Tensors of a family that are considered as its root, those with the most relatives first.
const MAX_ROOTS: usize = 16;

/// Roots of a family that are planned with, the best by estimate.
const MAX_PLANS: usize = 4;

/// Tensors that are near each other, and what can be made of them.
#[derive(Debug)]
pub struct Family {
    /// The catalog's numbers of its tensors, ascending.
    pub members: Vec<usize>,
    /// For the best roots by estimate, what each tensor is a difference to; the root, and what is near to nothing, is
    /// not there and kept whole.
    pub plans: Vec<BTreeMap<usize, usize>>,
}

/// Finds the families of a catalog, in the current thread pool.
pub fn families(catalog: &Catalog) -> Vec<Family> {
    let near: Vec<_> = catalog
        .entries()
        .par_iter()
        .map(|entry| catalog.near(&entry.sketch))
        .collect();
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut sets = Sets::new(near.len());
    for (id, others) in near.iter().enumerate() {
        others.iter().for_each(|(other, _)| sets.join(id, *other));
    }
    for id in 0..near.len() {
        groups.entry(sets.find(id)).or_default().push(id);
    }
    let many = groups.into_values().filter(|members| members.len() > 1);
    let many: Vec<_> = many.collect();
    let planner = Planner {
        catalog,
        near: &near,
    };
    let planned = many.into_par_iter().map(|members| planner.plan(members));
    planned.collect()
}

struct Planner<'a> {
    catalog: &'a Catalog,
    near: &'a [Vec<(usize, u32)>],
}

impl Planner<'_> {
    fn plan(&self, members: Vec<usize>) -> Family {
        let mut roots = members.clone();
        // What is whole now is the root unless another one is better.
        let relatives = |id: &usize| self.near.get(*id).map_or(0, Vec::len);
        let depth = |id: &usize| self.entry(*id).map_or(0, |entry| entry.depth);
        roots.sort_by_key(|id| (std::cmp::Reverse(relatives(id)), depth(id), *id));
        roots.truncate(MAX_ROOTS);
        let cost = |root: &usize| (self.cost(*root, &members), depth(root));
        roots.sort_by_cached_key(cost);
        let best = roots.into_iter().take(MAX_PLANS);
        let plans = best.map(|root| self.bases(root, &members)).collect();
        Family { members, plans }
    }

    fn entry(&self, id: usize) -> Option<&Entry> {
        self.catalog.entries().get(id)
    }

    /// Estimated bits, in 1/256, of a tensor against another one, if that is worth it.
    fn against(&self, id: usize, base: usize) -> Option<u64> {
        let (target, base) = (self.entry(id)?, self.entry(base)?);
        let bits = self.catalog.gain(&target.sketch, &base.sketch)?;
        Some(u64::from(bits) * target.sketch.elements)
    }

    fn alone(&self, id: usize) -> u64 {
        self.entry(id).map_or(0, |entry| {
            u64::from(solo_bits(&entry.sketch)) * entry.sketch.elements
        })
    }

    /// Estimated bits of the family if all others are differences to `root`, where that is worth it.
    fn cost(&self, root: usize, members: &[usize]) -> u64 {
        let one = |id: &usize| self.against(*id, root).unwrap_or_else(|| self.alone(*id));
        members.iter().map(one).sum()
    }

    /// All are differences to the root, but for those that are much nearer to another one.
    fn bases(&self, root: usize, members: &[usize]) -> BTreeMap<usize, usize> {
        let others = || members.iter().copied().filter(|id| *id != root);
        let mut bases: BTreeMap<_, _> = others()
            .filter(|id| self.against(*id, root).is_some())
            .map(|id| (id, root))
            .collect();
        let mut closer = Vec::new();
        for id in others() {
            let now = self.against(id, root).unwrap_or_else(|| self.alone(id));
            for (other, bits) in self.near.get(id).into_iter().flatten() {
                let elements = self.entry(id).map_or(0, |entry| entry.sketch.elements);
                let cost = u64::from(bits + surcharge(1, *bits)) * elements;
                if cost < now && *other != root {
                    closer.push((now - cost, id, *other));
                }
            }
        }
        closer.sort_unstable_by_key(|(saved, id, other)| (std::cmp::Reverse(*saved), *id, *other));
        let (mut fixed, mut leaves) = (HashSet::from([root]), HashSet::new());
        for (_, id, other) in closer {
            if !fixed.contains(&id) && !leaves.contains(&id) && !leaves.contains(&other) {
                bases.insert(id, other);
                leaves.insert(id);
                fixed.insert(other);
            }
        }
        bases
    }
}

/// Disjoint sets of numbers.
struct Sets(Vec<usize>);

impl Sets {
    fn new(count: usize) -> Self {
        Self((0..count).collect())
    }

    fn find(&mut self, mut id: usize) -> usize {
        while let Some(parent) = self.0.get(id).copied().filter(|parent| *parent != id) {
            // Halve the path.
            let above = self.0.get(parent).copied().unwrap_or(parent);
            if let Some(place) = self.0.get_mut(id) {
                *place = above;
            }
            id = above;
        }
        id
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        if let Some(place) = self.0.get_mut(a.max(b)) {
            *place = a.min(b);
        }
    }
}
