//! The inner loops, one version an instruction set, all with the same results.

mod scalar;

use super::token::TokenMap;

pub(super) use scalar::{Relation, Word, for_each_code, load};

/// An instruction set that this machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust; every machine has it and every other set is checked against it.
    Scalar,
}

/// Link between scales and expected magnitudes: by bin, mean log magnitude and its slope.
#[derive(Clone, Debug)]
pub(super) struct Link {
    /// Subtracted from every log magnitude, in 2^-7 octaves.
    pub(super) offset: i16,
    /// Expected log magnitude less the offset, in 2^-11 octaves.
    pub(super) mean: [i16; 64],
    /// Its rise when the scale doubles, in 2^-11 octaves.
    pub(super) slope: [u16; 64],
}

/// The scales of one run of elements in a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct RunScales<'a> {
    /// Of each class, in 1/8 octaves.
    pub(super) class: &'a [i8; 32],
    /// Of each column of the run.
    pub(super) columns: &'a [i8],
    /// Of the row.
    pub(super) row: i8,
}

/// What the coder loops need: one table over all contexts, and the tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Coder<'a> {
    /// Decode or encode entries, context by context.
    pub(super) table: &'a [u32],
    /// Slots of a context, as a power of two.
    pub(super) table_bits: u32,
    /// The tokens.
    pub(super) map: &'a TokenMap,
    /// Planes of raw bits.
    pub(super) planes: usize,
}

impl Isa {
    /// The sets of this machine, the plain one first.
    pub fn all() -> Vec<Self> {
        vec![Self::Scalar]
    }

    /// The best set of this machine.
    pub fn detect() -> Self {
        Self::Scalar
    }

    /// Writes each element's context: `map` of half the sum of its scales, cut to a byte and at zero.
    pub(super) fn scaled_contexts(self, classes: &[u8], scales: &RunScales<'_>, map: &[u8; 64], out: &mut [u8]) {
        scalar::scaled_contexts(classes, scales, map, out);
    }

    /// Replaces each class by its context.
    pub(super) fn plain_contexts(self, map: &[u8; 32], classes: &mut [u8]) {
        scalar::plain_contexts(map, classes);
    }

    /// Adds each element's residual and slope to its column's and returns the sums of the run.
    pub(super) fn residuals(
        self,
        magnitudes: &[u16],
        classes: &[u8],
        scales: &RunScales<'_>,
        link: &Link,
        columns: (&mut [i32], &mut [u32]),
    ) -> (i32, u32) {
        scalar::residuals(magnitudes, classes, scales, link, columns)
    }

    /// Codes elements from the last to the first; words grow downwards from the end of `words`.
    /// Returns where they start.
    pub(super) fn encode(
        self,
        coder: &Coder<'_>,
        states: &mut [u32],
        ctx: &[u8],
        tokens: &mut [u8],
        raw: &mut [Vec<u16>; 4],
        words: &mut [u8],
    ) -> usize {
        scalar::encode(coder, states, ctx, tokens, raw, words)
    }

    /// Decodes whole groups, as far as `words` surely suffices, and returns how many elements that were.
    pub(super) fn decode<W: Word>(
        self,
        coder: &Coder<'_>,
        states: &mut [u32],
        words: &[u8],
        position: &mut usize,
        ctx: &[u8],
        codes: &mut [W],
    ) -> usize {
        scalar::decode(coder, states, words, position, ctx, codes)
    }
}

/// Writes the words of `codes` to `out`.
pub(super) fn apply<W: Word>(_isa: Isa, relation: Relation<'_>, bits: u32, codes: &[W], out: &mut [u8]) {
    match bits {
        8 => scalar::apply(relation, 8, codes, out),
        16 => scalar::apply(relation, 16, codes, out),
        32 => scalar::apply(relation, 32, codes, out),
        _ => scalar::apply(relation, 64, codes, out),
    }
}

/// Bytes of words that a group of `lanes` elements can take.
pub(super) const fn group_bytes(lanes: usize, planes: usize) -> usize {
    2 * lanes * (1 + planes)
}
