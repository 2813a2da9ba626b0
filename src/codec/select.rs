//! Choosing a codec for a chunk.

use super::floats::{DELTA, SOLO_RANS};
use super::lowrank::LowRank;
use super::planes::{BitX, Solo};
use super::raw::Raw;
use super::workspace::keep_smaller;
use super::zstd::Zstd;
use super::{ChunkView, Codec, CodecId, Workspace};
use crate::dtype::DType;
use crate::lowrank::Fitted;
use crate::rans;
use crate::rans::log2::{FRACTION, xlog2};

pub use crate::rans::Effort;

/// Which family of codecs is used for numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// The smallest: [`DELTA`] and [`SOLO_RANS`] for floats, planes for all else, or [`SOLO_RANS`] for bytes of few values.
    #[default]
    Auto,
    /// Planes and zstd for all numbers, as published: [`BitX`] and [`Solo`].
    BitX,
}

/// Settings of the encoders; decoding needs none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Which codecs are used for numbers.
    pub family: Family,
    /// The level given to zstd, -7 to 22.
    pub zstd_level: i32,
    /// How long [`DELTA`] and [`SOLO_RANS`] may search.
    pub effort: Effort,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self {
            family: Family::Auto,
            zstd_level: 3,
            effort: Effort::Default,
        }
    }
}

/// The codecs of a family for elements of one dtype: with a base, and without.
fn codecs(family: Family, dtype: DType) -> (&'static dyn Codec, &'static dyn Codec) {
    match family {
        Family::Auto if rans::takes(dtype) && dtype.is_float() => (&DELTA, &SOLO_RANS),
        _ if dtype == DType::Opaque => (&BitX, &Zstd),
        _ => (&BitX, &Solo),
    }
}

/// Appends the smallest payload found for `raw` to `out` and returns its codec; never more than `raw`.
///
/// With a base it is the family's difference, unless that is large and coding alone is smaller. At
/// [`Effort::Max`] all are tried. What saves nothing is stored [`Raw`].
pub fn encode_chunk(
    options: &EncodeOptions,
    view: &ChunkView<'_>,
    raw: &[u8],
    ws: &mut Workspace,
    out: &mut Vec<u8>,
) -> CodecId {
    encode_predicted_chunk(options, view, None, raw, ws, out)
}

/// As [`encode_chunk`], with the factors that were found for the object, if any were.
pub fn encode_predicted_chunk(
    options: &EncodeOptions,
    view: &ChunkView<'_>,
    fitted: Option<&Fitted>,
    raw: &[u8],
    ws: &mut Workspace,
    out: &mut Vec<u8>,
) -> CodecId {
    let (delta, alone) = codecs(options.family, view.dtype);
    let whole = raw.len().is_multiple_of(view.dtype.size());
    let thorough = options.effort == Effort::Max;
    let mut search = Search {
        options,
        view,
        raw,
        start: out.len(),
        out,
        best: &Raw,
    };
    let based = whole && view.base.is_some_and(|base| base.len() == raw.len());
    let fitted = fitted.filter(|_| based);
    if let Some(fitted) = fitted {
        search.attempt_with(&LowRank, |out| {
            LowRank::encode_with(fitted, options, view, raw, ws, out);
        });
    }
    if based && (thorough || fitted.is_none_or(Fitted::is_close)) {
        search.attempt(delta, ws);
    }
    if whole && (thorough || search.length() > raw.len() / 100 * 55) {
        search.attempt(alone, ws);
    }
    if whole && alone.id() == SOLO_RANS.id() {
        let plain = thorough || low_bytes_are_plain(view.dtype, raw) || sample_repeats(raw, ws);
        if plain {
            search.attempt(&Solo, ws);
        }
        if based && (plain || low_bytes_are_equal(view, raw)) {
            search.attempt(&BitX, ws);
        }
    }
    let bytes = options.family == Family::Auto && takes_bytes(view.dtype);
    if whole && bytes && (thorough || order_zero_saves(raw, search.length())) {
        search.attempt(&SOLO_RANS, ws);
    }
    let poor = search.length() > raw.len() / 100 * 90;
    if !whole || poor && alone.id() != Zstd.id() && search.repeats(ws) {
        search.attempt(&Zstd, ws);
    }
    search.finish()
}

/// Tells whether elements are bytes that are no floats, of a dtype that the coder of floats takes too.
fn takes_bytes(dtype: DType) -> bool {
    rans::takes(dtype) && !dtype.is_float()
}

/// Tells from a sample whether the entropy of single bytes is so much below `length` bytes for all of `raw` that
/// [`SOLO_RANS`], which takes three times as long to decode as planes, is worth it: by a part in 32.
fn order_zero_saves(raw: &[u8], length: usize) -> bool {
    let step = (raw.len() / SAMPLED).max(1);
    let mut counts = [0u32; 256];
    for byte in raw.iter().step_by(step) {
        let count = counts.get_mut(usize::from(*byte));
        count.into_iter().for_each(|count| *count += 1);
    }
    let total: u32 = counts.iter().sum();
    let apart: u64 = counts.iter().map(|count| xlog2(*count)).sum();
    // Bits of the sample, in units of 2^-16.
    let bits = u128::from(xlog2(total).saturating_sub(apart));
    let bytes = (bits * raw.len() as u128 / u128::from(total.max(1))) >> (FRACTION + 3);
    bytes < (length - length / 32) as u128
}

/// Elements looked at of a chunk's lowest bytes.
const SAMPLED: usize = 4096;
/// Bytes in which repeats are looked for.
const REPEATS_SAMPLE: usize = 1 << 16;

/// The lowest bytes of some of the elements, evenly spread.
fn low_bytes(size: usize, bytes: &[u8]) -> Vec<u8> {
    let step = (bytes.len() / size / SAMPLED).max(1) * size;
    bytes.iter().step_by(step).copied().collect()
}

/// Tells from a sample whether the lowest bytes of elements repeat themselves, as in floats that were widened from
/// a shorter type, or pruned: the coders of floats take them for noise, planes do not.
///
/// The measure is less than 6.5 bits of entropy, by how often two of them are equal.
fn low_bytes_are_plain(dtype: DType, raw: &[u8]) -> bool {
    if dtype.size() == 1 {
        return false;
    }
    let sample = low_bytes(dtype.size(), raw);
    let mut counts = [0u64; 256];
    for byte in &sample {
        let count = counts.get_mut(usize::from(*byte));
        count.into_iter().for_each(|count| *count += 1);
    }
    let total = sample.len() as u64;
    let equal = counts.iter().map(|count| count * count).sum::<u64>() - total;
    equal * 90 > total * total.saturating_sub(1)
}

/// Tells from a sample whether wide elements never differ from the base's in their lowest byte; those of 16 bits
/// hardly differ anyway.
fn low_bytes_are_equal(view: &ChunkView<'_>, raw: &[u8]) -> bool {
    let size = view.dtype.size();
    let same = |base| low_bytes(size, raw) == low_bytes(size, base);
    size >= 4 && view.base.is_some_and(same)
}

/// Tells from a sample whether the fastest zstd finds repeats, as of equal rows, which no coder of floats sees.
fn sample_repeats(raw: &[u8], ws: &mut Workspace) -> bool {
    let start = raw.len().saturating_sub(REPEATS_SAMPLE) / 2;
    let sample = raw.get(start..).unwrap_or_default();
    let sample = sample.get(..REPEATS_SAMPLE).unwrap_or(sample);
    let length = ws.zstd.repeats_length(sample, &mut Vec::new());
    length.is_some_and(|length| length < sample.len() / 10 * 9)
}

/// The best payload yet: what `out` holds from `start` on, or nothing while that is [`Raw`].
struct Search<'a> {
    options: &'a EncodeOptions,
    view: &'a ChunkView<'a>,
    raw: &'a [u8],
    out: &'a mut Vec<u8>,
    start: usize,
    best: &'static dyn Codec,
}

impl Search<'_> {
    /// Returns the bytes of the best payload.
    fn length(&self) -> usize {
        if self.best.id() == Raw.id() {
            self.raw.len()
        } else {
            self.out.len() - self.start
        }
    }

    /// Encodes with `codec` and keeps the result if it is smaller.
    fn attempt(&mut self, codec: &'static dyn Codec, ws: &mut Workspace) {
        let (options, view, raw) = (self.options, self.view, self.raw);
        self.attempt_with(codec, |out| codec.encode(options, view, raw, ws, out));
    }

    /// Keeps what `encode` appends, in the name of `codec`, if it is smaller.
    fn attempt_with(&mut self, codec: &'static dyn Codec, encode: impl FnOnce(&mut Vec<u8>)) {
        let length = self.length();
        let encode = |out: &mut Vec<u8>| {
            encode(out);
            true
        };
        if keep_smaller(self.out, self.start, length, encode) < length {
            self.best = codec;
        }
    }

    /// Tells whether the fastest zstd finds so much repeated that the real one is worth its time.
    fn repeats(&mut self, ws: &mut Workspace) -> bool {
        ws.zstd
            .repeats_length(self.raw, self.out)
            .is_some_and(|length| length < self.length())
    }

    fn finish(self) -> CodecId {
        if self.best.id() == Raw.id() {
            self.out.extend_from_slice(self.raw);
        }
        self.best.id()
    }
}
