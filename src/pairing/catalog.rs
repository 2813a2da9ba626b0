//! `Catalog`: the sketches of all stored tensors, and which of them are near a given one.
//!
//! Sketches meet by words of 16 signs, and by marked rows; only those that share one are compared. What that takes is in
//! `docs/families.md`.

use std::collections::HashMap;

use super::breaks;
use super::buckets::Buckets;
use super::{MAX_PLANNED_DEPTH, Why};
use crate::error::Result;
use crate::hash::Hash;
use crate::object_writer::Base;
use crate::sketch::{
    self, Sketch, delta_bits, is_mostly_near, may_be_scaled, mix, shift, solo_bits, stretches,
};
use crate::store::Store;
use crate::store::index::Index;
use crate::store::object::BaseRef;

/// How far tensors are looked for.
#[derive(Clone, Copy)]
struct Reach {
    /// Tensors of a key that are looked at; the latest stored go first.
    of_key: usize,
    /// Tensors that one is compared with, those that share most keys with it.
    compared: usize,
}

/// Elements from which on encoding takes so long that looking far is nothing beside it.
const LONG_ELEMENTS: u64 = 1 << 18;
/// For a new tensor; the bases of what is found come on top.
const FAR: Reach = Reach {
    of_key: 64,
    compared: 32,
};
/// For a short one.
const CLOSE: Reach = Reach {
    of_key: 16,
    compared: 8,
};
/// To find a tensor's family.
const FAMILY: Reach = Reach {
    of_key: 64,
    compared: 64,
};
/// Marks of a tensor that it can be found by.
const FOUND_MARKS: usize = 8;
/// A difference is a candidate if it is estimated at less than this share of the tensor alone, in eighths.
const RELATED_EIGHTHS: u32 = 7;

/// The sketches of a store, in memory.
#[derive(Debug, Default)]
pub struct Catalog {
    entries: Vec<Entry>,
    by_name: HashMap<Hash, u32>,
    by_content: Buckets,
    /// Tensors in the store that should have a sketch and have none.
    pub missing: u64,
}

/// A stored tensor.
#[derive(Debug)]
pub struct Entry {
    /// What is kept of it.
    pub sketch: Sketch,
    /// Its depth.
    pub depth: u8,
    /// Its base, if it has one.
    pub base: Option<Hash>,
}

/// How two tensors lie against each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Align {
    /// Element by element, as far as both go.
    Same,
    /// The rows of the new one stand so many after the base's.
    Shifted(i64),
    /// Rows were inserted or taken out in the middle: stretches of rows stand as many rows after the base's as their
    /// marks say.
    Broken,
}

/// A stored tensor that a new one may be a difference to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The object.
    pub name: Hash,
    /// Its depth.
    pub depth: u8,
    /// How the two lie.
    pub align: Align,
    /// Why it is considered.
    pub why: Why,
    /// Estimated bits an element, in 1/256, with a surcharge for bases that are differences themselves.
    pub score: u32,
}

impl Catalog {
    /// Reads the sketches of all objects that are in `index`.
    pub fn load(store: &Store, index: &Index) -> Result<Self> {
        let mut catalog = Self::default();
        for sketch in store.sketches()?.all {
            if let Some(record) = index.get(&sketch.name) {
                let base = (record.depth > 0).then_some(record.base);
                catalog.insert(sketch, record.depth, base);
            }
        }
        let wanted = index
            .values()
            .filter(|record| sketch::applies(record.dtype, record.raw_len));
        catalog.by_content.settle();
        catalog.missing = (wanted.count() as u64).saturating_sub(catalog.entries.len() as u64);
        Ok(catalog)
    }

    /// Returns what is known of an object.
    pub fn get(&self, name: &Hash) -> Option<&Entry> {
        self.entries.get(self.id(name)?)
    }

    /// The number of an object's entry.
    fn id(&self, name: &Hash) -> Option<usize> {
        usize::try_from(*self.by_name.get(name)?).ok()
    }

    /// Returns every tensor, in the order they were stored in.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Adds a stored tensor, or notes how it is encoded now.
    pub fn insert(&mut self, sketch: Sketch, depth: u8, base: Option<Hash>) {
        let known = self.id(&sketch.name);
        if let Some(entry) = known.and_then(|at| self.entries.get_mut(at)) {
            (entry.depth, entry.base) = (depth, base);
            return;
        }
        let Ok(id) = u32::try_from(self.entries.len()) else {
            return;
        };
        self.by_name.insert(sketch.name, id);
        for key in keys(&sketch) {
            self.by_content.insert(key, id);
        }
        self.entries.push(Entry {
            sketch,
            depth,
            base,
        });
    }

    /// Finds the tensors that `target` may be a difference to, best first. `hints` are compared whatever they look like.
    pub fn candidates(&self, target: &Sketch, hints: &[(Hash, Why)]) -> Vec<Candidate> {
        let reach = if target.elements < LONG_ELEMENTS {
            CLOSE
        } else {
            FAR
        };
        let hinted = hints
            .iter()
            .filter_map(|(name, why)| Some((self.id(name)?, *why)));
        let mut ids: Vec<(usize, Why)> = hinted.collect();
        let alike = self.alike(target, reach).into_iter();
        ids.extend(alike.map(|id| (id, Why::Content)));
        // The root of a family may not be near, or not be among the first.
        let bases = |(id, _): &(usize, Why)| self.entries.get(*id).and_then(|entry| entry.base);
        let mut bases: Vec<_> = ids.iter().filter_map(bases).collect();
        bases.sort_unstable();
        bases.dedup();
        let bases = bases.iter().filter_map(|base| self.id(base));
        ids.extend(bases.map(|id| (id, Why::Content)));
        ids.sort_unstable();
        ids.dedup_by_key(|(id, _)| *id);
        let solo = solo_bits(target);
        let candidate = |(id, why): &(usize, Why)| {
            let entry = self.entries.get(*id)?;
            candidate(target, solo, entry, *why)
        };
        let mut found: Vec<_> = ids.iter().filter_map(candidate).collect();
        found.sort_unstable_by_key(|found| (found.score, found.depth, found.why, found.name));
        found
    }

    /// Returns the tensors that share most keys with `target`, of equals the latest stored.
    fn alike(&self, target: &Sketch, reach: Reach) -> Vec<usize> {
        let owners = |key| self.by_content.owners(key).take(reach.of_key);
        let mut ids: Vec<_> = keys(target).flat_map(owners).collect();
        ids.sort_unstable();
        let runs = ids.chunk_by(PartialEq::eq);
        let mut counted: Vec<_> = runs
            .filter_map(|run| Some((run.len(), *run.first()?)))
            .collect();
        counted.sort_unstable_by_key(|one| std::cmp::Reverse(*one));
        counted.truncate(reach.compared);
        let ids = counted.into_iter().map(|(_, id)| usize::try_from(id));
        ids.filter_map(Result::ok).collect()
    }

    /// Finds the other tensors that `target` would gain from, of any depth, and the estimated bits an element in 1/256
    /// of the difference, the elements that the other one lacks taken alone.
    pub fn near(&self, target: &Sketch) -> Vec<(usize, u32)> {
        let mut ids = self.alike(target, FAMILY);
        let own = self.get(&target.name).and_then(|entry| entry.base);
        let own = own.and_then(|base| self.id(&base));
        ids.extend(own);
        ids.sort_unstable();
        ids.dedup();
        let gain = |id: usize| Some((id, self.gain(target, &self.entries.get(id)?.sketch)?));
        ids.into_iter().filter_map(gain).collect()
    }

    /// Estimates the bits an element of `target` against `base`, if that is worth it.
    pub fn gain(&self, target: &Sketch, base: &Sketch) -> Option<u32> {
        if target.name == base.name {
            return None;
        }
        let solo = solo_bits(target);
        let bits = delta_bits(target, base).filter(|bits| *bits < solo / 8 * RELATED_EIGHTHS)?;
        let common = target.elements.min(base.elements);
        let sum = u64::from(bits) * common + u64::from(solo) * (target.elements - common);
        u32::try_from(sum / target.elements.max(1)).ok()
    }

    /// Returns the parts of a candidate's object that stand for the elements of `target`.
    pub fn parts(&self, target: &Sketch, candidate: &Candidate) -> Vec<BaseRef> {
        let Some(entry) = self.get(&candidate.name) else {
            return Vec::new();
        };
        let base = &entry.sketch;
        let by = match candidate.align {
            Align::Same => 0,
            Align::Shifted(rows) => rows,
            Align::Broken => return breaks::marked(target, base),
        };
        let ahead = u64::try_from(by).unwrap_or(0);
        let behind = u64::try_from(-by).unwrap_or(0);
        let rows = target.rows().saturating_sub(ahead);
        let rows = rows.min(base.rows().saturating_sub(behind));
        let part = BaseRef {
            name: candidate.name,
            dtype: base.dtype,
            start: behind * base.row_len,
            count: rows * base.row_len,
            target_start: ahead * base.row_len,
        };
        if rows == 0 { Vec::new() } else { vec![part] }
    }

    /// Opens a candidate as the base of `target`.
    pub fn open(
        &self,
        reader: &crate::object_reader::ObjectReader,
        target: &Sketch,
        candidate: &Candidate,
    ) -> Result<Base> {
        Ok(Base {
            object: reader.open(&candidate.name)?,
            parts: self.parts(target, candidate),
        })
    }
}

/// What `entry` may be to `target`, which takes `solo` alone.
fn candidate(target: &Sketch, solo: u32, entry: &Entry, why: Why) -> Option<Candidate> {
    let base = &entry.sketch;
    if base.name == target.name || entry.depth >= MAX_PLANNED_DEPTH {
        return None;
    }
    let bits = delta_bits(target, base);
    let related = |bits: &u32| *bits < solo / 8 * RELATED_EIGHTHS;
    let is_equal = bits == Some(0);
    let (align, bits) = match bits.filter(related) {
        Some(bits) if !is_equal && !stretches(target, base).is_empty() => {
            (Align::Broken, bits.min(solo / 2))
        }
        None if !stretches(target, base).is_empty() => (Align::Broken, solo / 2),
        Some(bits) => (Align::Same, bits),
        // What these cost, only encoding tells.
        None if may_be_scaled(target, base) => (Align::Same, solo / 2),
        None if is_mostly_near(target, base) => (Align::Same, solo / 4 * 3),
        None => match shift(target, base)? {
            0 => return None,
            rows => (Align::Shifted(rows), solo / 2),
        },
    };
    Some(Candidate {
        name: base.name,
        depth: entry.depth,
        align,
        why,
        score: bits + surcharge(entry.depth, bits),
    })
}

/// What a base that is a difference itself has to be better by: it makes the new one slower to decode.
pub fn surcharge(depth: u8, bits: u32) -> u32 {
    u32::from(depth) * (bits / 10 + sketch::SCALE / 16)
}

/// The keys that a tensor is found by: words of signs at their places, and marks.
fn keys(sketch: &Sketch) -> impl Iterator<Item = u64> {
    let rows = mix(sketch.row_len);
    let words = sketch.sign_words().enumerate();
    // Words of one sign tell nothing.
    let words = words.filter(|(_, word)| *word != 0 && *word != u16::MAX);
    let words = words.map(|(at, word)| (at as u64) << 32 | u64::from(word));
    let marks = sketch.marks().iter().take(FOUND_MARKS);
    let marks = marks.map(|mark| 1 << 40 | u64::from(mark.signs));
    words.chain(marks).map(move |key| rows ^ key)
}
