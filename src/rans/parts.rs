//! A chunk cut into what the coder codes, and where its windows lie.
#![allow(clippy::indexing_slicing, reason = "parts are as long as the chunk")]

use super::kernel::{CutRun, Isa, Relation, for_each_code, load};
use super::log2::xlog2;
use super::table::Counts;
use super::token::{CLASSES, Format, TOKENS, TokenMap, delta_code};

/// What the coder codes, an entry an element.
#[derive(Default)]
pub(super) struct Parts {
    /// Tokens.
    pub(super) tokens: Vec<u8>,
    /// Classes of the base's exponent; zeros without a base.
    pub(super) classes: Vec<u8>,
    /// Log magnitudes in 2^-7 octaves.
    pub(super) magnitudes: Vec<u16>,
    /// Raw bits, 16 a plane, lowest first.
    pub(super) raw: [Vec<u16>; 4],
    /// Tokens counted by bin.
    pub(super) counts: Vec<Counts>,
    /// Scratch for counting.
    pub(super) tables: Vec<u32>,
}

/// Cuts every element into its parts; `first` is where scales begin: the top of the base's exponents, or without a base
/// the log magnitude from which words are told apart.
pub(super) fn cut(
    isa: Isa,
    format: Format,
    map: &TokenMap,
    relation: Relation<'_>,
    first: u32,
    raw: &[u8],
    parts: &mut Parts,
) {
    let elements = raw.len() / format.bytes();
    parts.tokens.resize(elements, 0);
    parts.classes.resize(elements, 0);
    parts.magnitudes.resize(elements, 0);
    parts
        .raw
        .iter_mut()
        .take(format.planes())
        .for_each(|plane| plane.resize(elements, 0));
    match format.bits {
        8 => cut_words::<8>(map, relation, raw, parts),
        16 => {
            let Parts {
                tokens,
                magnitudes,
                raw: [tails, ..],
                ..
            } = parts;
            isa.cut(
                map,
                relation,
                raw,
                &mut CutRun {
                    tokens,
                    raw: tails,
                    magnitudes,
                },
            );
        }
        32 => cut_words::<32>(map, relation, raw, parts),
        _ => cut_words::<64>(map, relation, raw, parts),
    }
    match relation {
        Relation::Delta(base) => isa.classes(format, first, base, &mut parts.classes),
        Relation::Solo => {
            parts.classes.fill(0);
            solo_magnitudes(isa, format, first, raw, &mut parts.magnitudes);
        }
    }
}

fn solo_magnitudes(isa: Isa, format: Format, floor: u32, raw: &[u8], out: &mut [u16]) {
    if format.bits == 16 {
        return isa.solo_magnitudes(format.mantissa, floor as u16, raw, out);
    }
    for_each_code(Relation::Solo, format.bits, raw, |i, code| {
        let log = solo_log(format, code >> 1);
        out[i] = log.saturating_sub(u64::from(floor)).min(2047) as u16;
    });
}

/// Octaves in which solo words are told apart.
const SOLO_OCTAVES: usize = 13;

/// Where words alone lie.
pub(super) struct SoloRange {
    /// The start of the window of tokens that holds most elements.
    pub(super) window: u64,
    /// Log magnitude, in 2^-7 octaves, from which words are told apart: the lower end of the octaves that hold most.
    pub(super) floor: u32,
}

/// Finds where the words of a chunk without a base lie.
pub(super) fn solo_range(format: Format, raw: &[u8]) -> SoloRange {
    let counts = exponents(format, raw);
    let top = best_run(&counts, SOLO_OCTAVES);
    SoloRange {
        window: best_window(format, &counts),
        floor: 128 * (top + 1).saturating_sub(SOLO_OCTAVES) as u32,
    }
}

/// Exponent and seven bits of mantissa of a word without its sign.
#[inline(always)]
fn solo_log(format: Format, magnitude: u64) -> u64 {
    if format.mantissa < 7 {
        magnitude << (7 - format.mantissa)
    } else {
        magnitude >> (format.mantissa - 7)
    }
}

fn cut_words<const BITS: u32>(
    map: &TokenMap,
    relation: Relation<'_>,
    raw: &[u8],
    parts: &mut Parts,
) {
    let planes = if BITS == 8 { 0 } else { BITS as usize / 16 };
    for_each_code(relation, BITS, raw, |i, code| {
        let (token, tail) = map.split(code);
        parts.tokens[i] = token;
        parts.magnitudes[i] = log_magnitude(code);
        for plane in 0..planes {
            parts.raw[plane][i] = (tail >> (16 * plane)) as u16;
        }
    });
}

/// `128 * log2(1 + |d|)` by straight lines between powers of two.
#[inline(always)]
fn log_magnitude(code: u64) -> u16 {
    let value = code / 2 + (code & 1) + 1;
    let octave = value.ilog2();
    let fraction = if octave < 7 {
        value << (7 - octave)
    } else {
        value >> (octave - 7)
    };
    (octave * 128 + fraction as u32 - 128) as u16
}

/// The top of the window of 31 exponents that holds most elements of the base.
pub(super) fn top_exponent(format: Format, base: &[u8]) -> u32 {
    let mut counts = vec![0u32; format.top_exponent() as usize + 1];
    let size = format.bytes();
    for word in sampled_words(base, size) {
        counts[format.exponent(word) as usize] += 1;
    }
    best_run(&counts, CLASSES - 1) as u32
}

/// Exponents below the lowest of a sample that the window takes in if it can: the whole chunk has a few there.
const MARGIN: usize = 2;

/// The start of the solo window that holds most elements, of which there are so many of each exponent.
fn best_window(format: Format, counts: &[u32]) -> u64 {
    if TokenMap::last_window(format) == 0 {
        return 0;
    }
    let width = (format.window >> format.solo_head) as usize;
    let top = best_run(counts, width);
    let idle = (0..MARGIN).take_while(|&below| below < top && counts[top - below] == 0);
    ((top + 1 - idle.count()).saturating_sub(width) as u64) << format.solo_head
}

/// How often each exponent is among a sample of the words that are not zero.
fn exponents(format: Format, raw: &[u8]) -> Vec<u32> {
    let mut counts = vec![0u32; format.top_exponent() as usize + 1];
    for word in sampled_words(raw, format.bytes()) {
        if word << (65 - format.bits) != 0 {
            counts[format.exponent(word) as usize] += 1;
        }
    }
    counts
}

/// The highest index of the run of `width` counts with the greatest sum; of equals the highest.
fn best_run(counts: &[u32], width: usize) -> usize {
    let mut best = (0, counts.len() - 1);
    let mut sum = 0u32;
    for top in 0..counts.len() {
        sum += counts[top];
        if top >= width {
            sum -= counts[top - width];
        }
        if sum > 0 && sum > best.0 {
            best = (sum, top);
        }
    }
    best.1
}

/// All words of a small chunk, one in 61 of a large one.
fn sampled_words(bytes: &[u8], size: usize) -> impl Iterator<Item = u64> {
    bytes
        .chunks_exact(size)
        .step_by(sample_step(bytes.len() / size))
        .map(load)
}

fn sample_step(elements: usize) -> usize {
    if elements > 32_768 { 61 } else { 1 }
}

/// Octaves by which the window of scales is raised; only wide elements have differences that need it.
pub(super) fn window_octaves(format: Format, parts: &Parts) -> i32 {
    if format.bits <= 16 {
        0
    } else {
        (mean_magnitude(parts) / 128 - 5).max(0)
    }
}

/// The mean log magnitude in 2^-7 octaves.
pub(super) fn mean_magnitude(parts: &Parts) -> i32 {
    // So many numbers of 16 bits add up to one of 32, which vectors hold twice as many of as of 64.
    let runs = parts.magnitudes.chunks(1 << 16);
    let sum: u64 = runs
        .map(|run| u64::from(run.iter().map(|&m| u32::from(m)).sum::<u32>()))
        .sum();
    (sum / parts.magnitudes.len().max(1) as u64) as i32
}

/// Tells whether differences are so large that one more bit in their tokens saves more than it costs in tables.
pub(super) fn fine_pays(format: Format, raw: &[u8], base: &[u8]) -> bool {
    if format.delta_heads[0] == format.delta_heads[1] {
        return false;
    }
    let step = 4 * sample_step(raw.len() / format.bytes());
    let maps = [false, true].map(|fine| TokenMap::delta(format, fine));
    let mut counts = [[0; TOKENS]; 2];
    let words = raw
        .chunks_exact(format.bytes())
        .zip(base.chunks_exact(format.bytes()));
    for (raw, base) in words.step_by(step) {
        let code = delta_code(load(raw), load(base), format.bits);
        for (map, counts) in maps.iter().zip(&mut counts) {
            counts[usize::from(map.split(code).0)] += 1;
        }
    }
    let bits = |i: usize| sample_bits(&maps[i], &counts[i]) * step as u64;
    let (coarse, fine) = (bits(0), bits(1));
    coarse > fine + FINE_TABLES
}

/// Bits that the longer tables of fine tokens cost, about.
const FINE_TABLES: u64 = 10_000;

/// Bits of tokens and raw bits without contexts.
fn sample_bits(map: &TokenMap, counts: &Counts) -> u64 {
    let total = xlog2(counts.iter().sum());
    let tokens = total
        - counts
            .iter()
            .map(|&count| xlog2(count))
            .sum::<u64>()
            .min(total);
    let raw: u64 = counts
        .iter()
        .zip(map.raw_bits)
        .map(|(&count, bits)| u64::from(count) * u64::from(bits))
        .sum();
    (tokens >> 16) + raw
}
