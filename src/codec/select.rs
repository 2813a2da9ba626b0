//! Choosing a codec for a chunk.

use super::floats::{DELTA, Floats, SOLO_RANS};
use super::lowrank::LowRank;
use super::planes::{BitX, Solo};
use super::raw::Raw;
use super::workspace::keep_smaller;
use super::zstd::Zstd;
use super::{ChunkView, Codec, CodecId, Workspace};
use crate::dtype::DType;
use crate::lowrank::Fitted;
use crate::rans::log2::{FRACTION, xlog2};
use crate::rans::{self, Shared};

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
fn codecs(family: Family, dtype: DType) -> (Choice, Choice) {
    match family {
        Family::Auto if rans::takes(dtype) && dtype.is_float() => {
            (Choice::Floats(&DELTA), Choice::Floats(&SOLO_RANS))
        }
        _ if dtype == DType::Opaque => (Choice::Plain(&BitX), Choice::Plain(&Zstd)),
        _ => (Choice::Plain(&BitX), Choice::Plain(&Solo)),
    }
}

/// A codec of a family.
#[derive(Clone, Copy)]
enum Choice {
    /// One that uses what the object's chunks have in common.
    Floats(&'static Floats),
    /// Any other.
    Plain(&'static dyn Codec),
}

impl Choice {
    fn id(self) -> CodecId {
        match self {
            Self::Floats(codec) => codec.id(),
            Self::Plain(codec) => codec.id(),
        }
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
    encode_known_chunk(options, view, Known::default(), raw, ws, out)
}

/// What was found out about an object before its chunks are encoded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    /// Factors that predict it from its base.
    pub factors: Option<&'a Fitted>,
    /// What its chunks have in common.
    pub common: Option<&'a Shared>,
}

/// As [`encode_chunk`], with what is known of the object.
pub fn encode_known_chunk(
    options: &EncodeOptions,
    view: &ChunkView<'_>,
    known: Known<'_>,
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
    let common = known.common;
    let factors = known.factors.filter(|_| based);
    if let Some(factors) = factors {
        search.attempt_with(&LowRank, |out| {
            LowRank::encode_with(factors, common, options, view, raw, ws, out);
        });
    }
    if based && (thorough || factors.is_none_or(Fitted::is_close)) {
        search.attempt_known(delta, common, ws);
    }
    if whole && (thorough || search.length() > raw.len() / 100 * 55) {
        search.attempt_known(alone, common, ws);
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

    /// As [`Self::attempt`], with what the object's chunks have in common.
    fn attempt_known(&mut self, codec: Choice, common: Option<&Shared>, ws: &mut Workspace) {
        let (options, view, raw) = (self.options, self.view, self.raw);
        match codec {
            Choice::Plain(codec) => self.attempt(codec, ws),
            Choice::Floats(codec) => self.attempt_with(codec, |out| {
                codec.encode_with(common, options, view, raw, ws, out);
            }),
        }
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

#[cfg(test)]
mod tests {
    use super::super::tests::{changed, noise, view, weights};
    use super::*;

    /// `count` elements of `size` bytes, the lowest of which take `kinds` values in turn; the others are noise.
    fn in_turn(count: usize, size: usize, kinds: usize) -> Vec<u8> {
        let mut bytes = noise(count * size, 1);
        for (at, element) in bytes.chunks_exact_mut(size).enumerate() {
            element[0] = u8::try_from(at % kinds).unwrap();
        }
        bytes
    }

    #[test]
    fn single_bytes_have_to_save_one_part_in_32_of_the_best() {
        // Two bits each, of all bytes or of those that are looked at: a quarter of the length.
        for (raw, quarter) in [(in_turn(4096, 1, 4), 1024), (in_turn(4096, 3, 4), 3072)] {
            let most = (1..2 * quarter)
                .find(|length| length - length / 32 > quarter)
                .unwrap();
            assert!(order_zero_saves(&raw, most), "{quarter}");
            assert!(!order_zero_saves(&raw, most - 1), "{quarter}");
        }
        assert!(!order_zero_saves(&[], 0));
    }

    #[test]
    fn the_lowest_bytes_are_looked_at_evenly() {
        assert_eq!(low_bytes(2, b"abcdefg"), b"aceg");
        let bytes = noise(3 * 4096 * 2, 1);
        let every_third: Vec<u8> = bytes.iter().step_by(6).copied().collect();
        assert_eq!(low_bytes(2, &bytes), every_third);
        assert_eq!(low_bytes(2, &bytes[..2 * 8191]).len(), 8191);
    }

    #[test]
    fn lowest_bytes_are_plain_if_one_pair_in_90_is_equal() {
        for (kinds, each, want) in [
            (90, 50, false),
            (89, 89, false),
            (89, 90, true),
            (2, 2, true),
        ] {
            let raw = in_turn(kinds * each, 2, kinds);
            assert_eq!(
                low_bytes_are_plain(DType::Bf16, &raw),
                want,
                "{kinds} {each}"
            );
        }
        assert!(!low_bytes_are_plain(DType::F8E4M3, &[0; 100]));
        assert!(!low_bytes_are_plain(DType::Bf16, &[]));
    }

    #[test]
    fn lowest_bytes_that_equal_the_bases_count_for_wide_elements_only() {
        let [raw, base] = [1, 2].map(|seed| noise(800, seed));
        let mut near = base.clone();
        near.iter_mut()
            .zip(&raw)
            .step_by(4)
            .for_each(|(to, from)| *to = *from);
        for (dtype, base, want) in [
            (DType::F32, Some(&near), true),
            (DType::F32, Some(&base), false),
            (DType::F32, None, false),
            (DType::Bf16, Some(&raw), false),
            (DType::F64, Some(&raw), true),
        ] {
            let view = view(dtype, base.map(Vec::as_slice));
            assert_eq!(low_bytes_are_equal(&view, &raw), want, "{dtype}");
        }
    }

    #[test]
    fn repeats_are_looked_for_in_the_middle() {
        let (random, half) = (noise(REPEATS_SAMPLE, 3), noise(REPEATS_SAMPLE / 2, 4));
        let (middle, ends) = ([&half[..], &half].concat(), vec![0; REPEATS_SAMPLE]);
        for (what, raw, want) in [
            ("noise", random.clone(), false),
            ("a half of it repeated", middle.clone(), true),
            (
                "between noise",
                [&random[..], &middle, &random].concat(),
                true,
            ),
            ("noise between", [&ends[..], &random, &ends].concat(), false),
            ("one element", vec![1, 2], false),
        ] {
            assert_eq!(
                sample_repeats(&raw, &mut Workspace::default()),
                want,
                "{what}"
            );
        }
    }

    fn chosen(options: &EncodeOptions, view: &ChunkView<'_>, raw: &[u8]) -> CodecId {
        encode_chunk(
            options,
            view,
            raw,
            &mut Workspace::default(),
            &mut b"kept".to_vec(),
        )
    }

    /// Bytes of noise with the low `bits` kept.
    fn bits(bits: u32, seed: u64) -> Vec<u8> {
        let mask = u8::try_from((1u32 << bits) - 1).unwrap();
        noise(1 << 16, seed)
            .iter()
            .map(|byte| byte & mask)
            .collect()
    }

    #[test]
    fn a_difference_that_is_small_enough_is_not_compared_with_coding_alone() {
        let raw = bits(2, 5);
        let planes = |effort| EncodeOptions {
            family: Family::BitX,
            effort,
            ..EncodeOptions::default()
        };
        // Of the raw length, the difference takes an eighth for each of its bits, and the bytes alone a quarter.
        for (differ, effort, want) in [
            (4, Effort::Default, BitX.id()),
            (5, Effort::Default, Solo.id()),
            (4, Effort::Max, Solo.id()),
            (1, Effort::Max, BitX.id()),
        ] {
            let base: Vec<u8> = raw
                .iter()
                .zip(bits(differ, 6))
                .map(|(a, b)| a ^ b)
                .collect();
            let view = view(DType::U8, Some(&base));
            assert_eq!(
                chosen(&planes(effort), &view, &raw),
                want,
                "{differ} {effort:?}"
            );
        }
    }

    #[test]
    fn lowest_bytes_of_few_values_are_for_planes() {
        let mut raw = weights(DType::F32, 1 << 16, 9);
        raw.iter_mut().step_by(4).for_each(|byte| *byte &= 7);
        let (options, view) = (EncodeOptions::default(), view(DType::F32, None));
        assert!(!sample_repeats(&raw, &mut Workspace::default()));
        assert_eq!(chosen(&options, &view, &raw), Solo.id());
    }

    #[test]
    fn what_was_there_before_does_not_matter() {
        let base = weights(DType::Bf16, 1 << 16, 9);
        let (options, raw) = (EncodeOptions::default(), changed(&base, 7));
        let view = view(DType::Bf16, Some(&base));
        let mut ws = Workspace::default();
        let [alone, after] = [0, raw.len()].map(|before| {
            let mut out = vec![1; before];
            let codec = encode_chunk(&options, &view, &raw, &mut ws, &mut out);
            (codec, out.split_off(before))
        });
        assert_eq!(alone, after);
    }

    #[test]
    fn only_bytes_that_are_no_floats_are_coded_as_bytes() {
        let taken = DType::all().filter(|dtype| takes_bytes(*dtype));
        let want = DType::all().filter(|dtype| dtype.size() == 1 && !dtype.is_float());
        let want = want.filter(|dtype| rans::takes(*dtype));
        assert_eq!(taken.collect::<Vec<_>>(), want.collect::<Vec<_>>());
        assert!(takes_bytes(DType::U8) && !takes_bytes(DType::F8E4M3) && !takes_bytes(DType::I32));
    }

    #[test]
    fn repeats_that_lie_across_planes_are_for_zstd_if_all_else_is_poor() {
        // The same bytes twice, the second time one byte on.
        let twice = |bytes: &[u8]| [bytes, &[0], bytes, &[0; 3]].concat();
        let options = EncodeOptions {
            family: Family::BitX,
            ..EncodeOptions::default()
        };
        for (bits_each, want) in [(8, Zstd.id()), (6, Solo.id())] {
            let raw = twice(&bits(bits_each, 7));
            assert_eq!(
                chosen(&options, &view(DType::F32, None), &raw),
                want,
                "{bits_each}"
            );
        }
    }
}
