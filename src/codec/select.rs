//! Choosing a codec for a chunk.

use super::delta::Delta;
use super::planes::{BitX, Solo};
use super::raw::Raw;
use super::solo_rans::SoloRans;
use super::workspace::keep_smaller;
use super::zstd::Zstd;
use super::{ChunkView, Codec, CodecId, Workspace};
use crate::dtype::DType;
use crate::rans;

pub use crate::rans::Effort;

/// Which family of codecs is used for numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// The smallest: [`Delta`] and [`SoloRans`] for floats, planes for all else.
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
    /// How long [`Delta`](super::delta::Delta) and [`SoloRans`](super::solo_rans::SoloRans) may search.
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
        Family::Auto if rans::takes(dtype) => (&Delta, &SoloRans),
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
    if based {
        search.attempt(delta, ws);
    }
    if whole && (thorough || search.length() > raw.len() / 100 * 55) {
        search.attempt(alone, ws);
    }
    let planes: &dyn Codec = if based { &BitX } else { &Solo };
    let tried = planes.id() == delta.id() || planes.id() == alone.id();
    if whole && !tried && (thorough || low_bytes_are_plain(view, raw)) {
        search.attempt(planes, ws);
    }
    let poor = search.length() > raw.len() / 100 * 90;
    if !whole || poor && alone.id() != Zstd.id() && search.repeats(ws) {
        search.attempt(&Zstd, ws);
    }
    search.finish()
}

/// Elements looked at by [`low_bytes_are_plain`].
const SAMPLED: usize = 4096;

/// Tells from a sample whether the lowest bytes of elements repeat themselves, as in floats that were widened from
/// a shorter type: the coders of floats take them for noise, planes do not.
///
/// Alone: less than 6.5 bits of entropy, by how often two of them are equal. With a base: wide elements that
/// never differ there, for those of 16 bits hardly differ anyway.
fn low_bytes_are_plain(view: &ChunkView<'_>, raw: &[u8]) -> bool {
    let size = view.dtype.size();
    let step = (raw.len() / size / SAMPLED).max(1) * size;
    let low = |bytes: &'_ [u8]| bytes.iter().step_by(step).copied().collect::<Vec<u8>>();
    let sample = low(raw);
    match view.base {
        Some(base) => size >= 4 && sample == low(base),
        None if size == 1 => false,
        None => {
            let mut counts = [0u64; 256];
            for byte in &sample {
                counts
                    .iter_mut()
                    .skip(usize::from(*byte))
                    .take(1)
                    .for_each(|count| *count += 1);
            }
            let total = sample.len() as u64;
            let equal = counts.iter().map(|count| count * count).sum::<u64>() - total;
            equal * 90 > total * total.saturating_sub(1)
        }
    }
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
        let length = self.length();
        let encode = |out: &mut Vec<u8>| {
            codec.encode(self.options, self.view, self.raw, ws, out);
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
