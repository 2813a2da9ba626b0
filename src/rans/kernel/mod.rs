//! The inner loops, one version an instruction set, all with the same results.
#![allow(
    clippy::indexing_slicing,
    reason = "lanes and vectors are counted by constants, and tables have an entry for every index"
)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod dispatch;
mod narrow;
#[cfg(target_arch = "aarch64")]
mod neon;
mod runs;
mod scalar;
mod tails;
mod tile;

use super::token::{Shape, TokenMap};

pub(super) use narrow::{CutRun, for_each_code};
pub(super) use runs::RUN;
pub(super) use scalar::{Relation, Word, decode as decode_codes, load};
pub(super) use tails::GROUP as TAIL_GROUP;
pub(super) use tile::{ROWS as TILE_ROWS, Sums, Tile};

/// An instruction set that this machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust; every machine has it and every other set is checked against it.
    Scalar,
    /// AVX2; only [`Isa::detect`] makes it.
    #[non_exhaustive]
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, BW, VL and VBMI; only [`Isa::detect`] makes it.
    #[non_exhaustive]
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// NEON; only [`Isa::detect`] makes it.
    #[non_exhaustive]
    #[cfg(target_arch = "aarch64")]
    Neon,
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

impl Coder<'_> {
    /// Bytes of words that an encoder of `elements` elements may write, and some that it may touch.
    pub(super) fn room(&self, elements: usize) -> usize {
        group_bytes(elements, self.planes) + 64
    }
}

/// Where raw bits begin and how many there are: what loops over vectors reckon with instead of looking it up by token.
#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    expect(dead_code, reason = "only loops over vectors need it")
)]
struct Layout {
    /// Tokens below this one carry no raw bits (differences) or all the same number (words alone).
    plain: u32,
    /// Raw bits of an escape.
    escape_bits: u32,
    /// Differences: bits of head and sign; words alone: bits below a token.
    shift: u32,
    /// Raw bits of the first token that has any.
    least: u32,
    /// Differences: the leading one; words alone: the first code.
    lead: u32,
}

#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    expect(dead_code, reason = "only loops over vectors need it")
)]
impl Layout {
    fn of(map: &TokenMap) -> Self {
        let escape_bits = map.raw_bits.get(map.escape).map_or(0, |&bits| bits.into());
        match map.shape {
            Shape::Log { linear, head } => Self {
                plain: 1 << linear,
                escape_bits,
                shift: head + 1,
                least: linear.saturating_sub(head + 1),
                lead: 1 << head,
            },
            Shape::Window { low, first, tokens } => Self {
                plain: tokens,
                escape_bits,
                shift: low,
                least: map.raw_bits[0].into(),
                lead: (first << low) as u32,
            },
        }
    }
}

impl Isa {
    /// The sets of this machine, the plain one first and the best one last.
    pub fn all() -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        let vectors = [
            (Self::Avx2, avx2::available()),
            (Self::Avx512, avx512::available()),
        ];
        #[cfg(target_arch = "aarch64")]
        let vectors = [(Self::Neon, neon::available())];
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let vectors: [(Self, bool); 0] = [];
        let there = vectors.into_iter().filter(|(_, there)| *there);
        std::iter::once(Self::Scalar)
            .chain(there.map(|(isa, _)| isa))
            .collect()
    }

    /// The best set of this machine.
    pub fn detect() -> Self {
        static BEST: std::sync::OnceLock<Isa> = std::sync::OnceLock::new();
        *BEST.get_or_init(|| Self::all().pop().unwrap_or(Self::Scalar))
    }
}

/// Bytes of words that a group of `lanes` elements can take.
pub(super) const fn group_bytes(lanes: usize, planes: usize) -> usize {
    2 * lanes * (1 + planes)
}

/// Checks quotients and remainders by every divisor: the quotients nearest to both ends, and some between, each at both ends of what
/// gives it.
#[cfg(all(test, target_arch = "x86_64"))]
fn check_divided<const N: usize>(divided: impl Fn([u32; N], u32) -> [[u32; N]; 2]) {
    for divisor in 1..1 << 12 {
        let top = (1u64 << 22).min((1 << 32) / u64::from(divisor)) as u32;
        let quotients = (0..64u32).flat_map(|i| [i, top - 1 - i, (top / 64) * i + i * i]);
        let ends = quotients.flat_map(|q| {
            let start = (q % top) * divisor;
            [start, start + (divisor - 1)]
        });
        for &x in ends.collect::<Vec<_>>().as_chunks::<N>().0 {
            let expected = [x.map(|x| x / divisor), x.map(|x| x % divisor)];
            assert_eq!(divided(x, divisor), expected, "{x:?} by {divisor}");
        }
    }
}
