//! The decision: which candidate a tensor is encoded against, if any.

use super::breaks::Rows;
use super::{Align, Candidate, Catalog, MAX_PLANNED_DEPTH, Why};
use crate::codec::EncodeOptions;
use crate::error::Result;
use crate::hash::Hash;
use crate::object_factors::Preparation;
use crate::object_reader::ObjectReader;
use crate::object_writer::{Base, NewObject};
use crate::sketch::{SCALE, Sketch, solo_bits};

/// Elements that are encoded to tell candidates apart, at most.
const SAMPLE_ELEMENTS: u64 = 1 << 16;
/// Elements that are encoded of a short tensor, at least.
const MIN_SAMPLE_ELEMENTS: u64 = 1 << 13;
/// Elements from which on it pays to encode samples for candidates whose estimates are close.
const CLOSE_ELEMENTS: u64 = 1 << 22;
/// Candidates whose samples are encoded.
const MAX_MEASURED: usize = 3;

/// What a tensor is encoded against, and why.
#[derive(Clone)]
pub struct Chosen {
    /// The base.
    pub base: Base,
    /// Why it was chosen.
    pub why: Why,
}

/// Fills a buffer with the tensor's bytes from an offset on.
pub type ReadSample<'a> = dyn Fn(u64, &mut [u8]) -> Result<()> + Sync + 'a;

/// Chooses bases in one store.
#[derive(Clone, Copy)]
pub struct Chooser<'a> {
    /// Reads candidates.
    pub reader: &'a ObjectReader,
    /// How tensors are going to be encoded.
    pub encode: &'a EncodeOptions,
    /// What is in the store.
    pub catalog: &'a Catalog,
}

impl Chooser<'_> {
    /// Chooses the base of `object`, whose sketch is `target`, among hints and what is near.
    ///
    /// A hint is taken if it is about as good as the best that is found. Where estimates cannot tell, because a
    /// difference would not be much smaller than the tensor alone, or the type is another one, a sample is encoded
    /// in every way, and the smallest wins.
    pub fn choose(
        &self,
        target: &Sketch,
        object: &NewObject,
        hints: &[(Hash, Why)],
        read: &ReadSample<'_>,
    ) -> Result<Option<Chosen>> {
        let found = self.catalog.candidates(target, hints);
        let contenders = contenders(target, &found);
        let Some(first) = contenders.first() else {
            return Ok(None);
        };
        let chosen = if contenders.len() == 1 && self.is_certain(target, first) {
            Some(*first)
        } else {
            self.measure(target, object, &contenders, read)?
        };
        let Some(chosen) = chosen else {
            return Ok(None);
        };
        let base = self.open(target, chosen, read)?;
        let usable =
            base.object.file.frame.head.depth < MAX_PLANNED_DEPTH && !base.parts.is_empty();
        Ok(usable.then_some(Chosen {
            base,
            why: chosen.why,
        }))
    }

    /// Opens a candidate as the base of `target`.
    fn open(&self, target: &Sketch, candidate: &Candidate, read: &ReadSample<'_>) -> Result<Base> {
        let mut base = self.catalog.open(self.reader, target, candidate)?;
        if candidate.align == Align::Broken {
            base.parts = Rows {
                reader: self.reader,
                read,
                target,
            }
            .grow(base.parts)?;
        }
        Ok(base)
    }

    /// Tells whether the estimate is enough: bits that the sketch does not show are like those that it shows.
    fn is_certain(&self, target: &Sketch, candidate: &Candidate) -> bool {
        let entry = self.catalog.get(&candidate.name);
        let same_type = entry.is_some_and(|entry| entry.sketch.dtype == target.dtype);
        let far = candidate.score > solo_bits(target) / 8 * 5;
        same_type && !far && candidate.align == Align::Same
    }

    /// Encodes a sample alone and against each candidate; returns the best candidate if it beats alone.
    fn measure<'c>(
        &self,
        target: &Sketch,
        object: &NewObject,
        contenders: &[&'c Candidate],
        read: &ReadSample<'_>,
    ) -> Result<Option<&'c Candidate>> {
        let elements = (target.elements / 16).clamp(MIN_SAMPLE_ELEMENTS, SAMPLE_ELEMENTS);
        let elements = elements.min(target.elements);
        let size = object.dtype.size() as u64;
        let offset = (target.elements - elements) / 2 * size;
        let mut raw = vec![0; usize::try_from(elements * size).unwrap_or(0)];
        read(offset, &mut raw)?;
        let mut alone = Vec::new();
        object.append_solo(self.reader, self.encode, offset, &raw, &mut alone);
        // What is gained has to pay for the base's entry and for decoding twice.
        let mut least = alone.len() / 50 * 49;
        let mut best = None;
        for candidate in contenders {
            let based = NewObject {
                base: Some(self.open(target, candidate, read)?),
                digest: object.digest.clone(),
                preparation: Preparation::default(),
                ..*object
            };
            let encoded = based.encode(self.reader, self.encode, offset, &raw)?;
            let length = encoded.payload.len();
            let length = length + usize::from(candidate.depth) * (length / 10);
            if length < least {
                (least, best) = (length, Some(*candidate));
            }
        }
        Ok(best)
    }
}

/// Returns the candidate that estimates alone speak for: the best, or a hint as good.
pub fn by_estimate<'c>(target: &Sketch, found: &'c [Candidate]) -> Option<&'c Candidate> {
    contenders(target, found).first().copied()
}

/// The candidates worth a closer look: the best, or a hint as good, and for long tensors those close to it.
fn contenders<'c>(target: &Sketch, found: &'c [Candidate]) -> Vec<&'c Candidate> {
    let Some(best) = found.first() else {
        return Vec::new();
    };
    let as_good = |candidate: &&Candidate| {
        candidate.why != Why::Content
            && candidate.score <= best.score + best.score / 32 + SCALE / 64
    };
    let first = found.iter().find(as_good).unwrap_or(best);
    let close = |other: &&Candidate| {
        let unlike = other.align != Align::Same;
        let long = first.why == Why::Content && target.elements >= CLOSE_ELEMENTS;
        let near = other.score <= first.score + first.score / 10;
        other.name != first.name && near && (long || unlike)
    };
    let others = found.iter().filter(close).take(MAX_MEASURED - 1);
    std::iter::once(first).chain(others).collect()
}
