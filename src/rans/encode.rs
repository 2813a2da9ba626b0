//! Encodes a chunk: cuts it into parts, chooses contexts, writes tables and words.

use super::bits::BitWriter;
use super::fit::{self, Scales};
use super::kernel::{Coder, CutRun, Isa, Link, Relation, RunScales, for_each_code, load};
use super::model::{BinMap, Merged, merge};
use super::table::{self, Counts};
use super::token::{CLASSES, Format, Shape, TOKENS, TokenMap};
use super::{Chunk, Grid, LOW, Scratch, flags, lanes_of, side};

/// How much time an encoder may take for how small a result; the decoder does not care.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Effort {
    /// Contexts from the base's exponent alone.
    Fast,
    /// Row and column scales too.
    #[default]
    Default,
    /// More passes and finer tables.
    Max,
}

/// A chunk cut into what the coder codes, an entry an element.
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
    counts: Vec<Counts>,
}

/// Least rows and columns for which scales are tried.
const LEAST_SIDE: usize = 16;

/// Least elements for which scales are tried.
const LEAST_ELEMENTS: usize = 4096;

/// The contexts chosen for a chunk.
enum Choice {
    Plain(Merged<CLASSES>),
    Scaled(Scales, Merged<64>, Vec<u8>),
}

/// Appends the payload of `raw` to `out`.
///
/// The chunk's dtype must be one that [`super::takes`] and its base, if any, as long as `raw`, which holds whole
/// elements; otherwise nothing is appended and the result is false.
pub fn encode(isa: Isa, effort: Effort, chunk: &Chunk<'_>, raw: &[u8], scratch: &mut Scratch, out: &mut Vec<u8>) -> bool {
    let Some(format) = Format::of(chunk.dtype) else { return false };
    if !raw.len().is_multiple_of(format.bits as usize / 8) || chunk.base.is_some_and(|b| b.len() != raw.len()) {
        return false;
    }
    if chunk.base == Some(raw) {
        out.push(flags::EQUAL);
        return true;
    }
    let grid = chunk.grid(raw.len() * 8 / format.bits as usize);
    match chunk.base {
        Some(base) => {
            let top = top_exponent(format, base);
            let fine = false;
            let map = TokenMap::delta(format, fine);
            cut(isa, format, &map, Relation::Delta(base), top, raw, &mut scratch.parts);
            let link = fit::delta_link(window_octaves(format, &scratch.parts));
            let prefix = Prefix { flags: if fine { flags::FINE } else { 0 }, window: top as u16, classes: true };
            encode_parts(isa, effort, grid, &map, &link, &prefix, format.planes(), scratch, out);
        }
        None => {
            let first = best_window(format, raw);
            let map = TokenMap::solo(format, first);
            cut(isa, format, &map, Relation::Solo, 0, raw, &mut scratch.parts);
            let middle = solo_middle(&scratch.parts);
            let link = fit::solo_link(middle);
            let prefix = Prefix { flags: 0, window: first as u16, classes: false };
            encode_parts(isa, effort, grid, &map, &link, &prefix, format.planes(), scratch, out);
        }
    }
    true
}

/// What the payload says before contexts and tables.
struct Prefix {
    flags: u8,
    window: u16,
    classes: bool,
}

#[allow(clippy::too_many_arguments)]
fn encode_parts(
    isa: Isa,
    effort: Effort,
    grid: Grid,
    map: &TokenMap,
    link: &Link,
    prefix: &Prefix,
    planes: usize,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) {
    let table_bits = if effort == Effort::Max { 12 } else { 11 };
    let choice = choose(isa, effort, grid, link, prefix, scratch);
    let scaled = matches!(choice, Choice::Scaled(..));
    let mut flags = flags::CODED | prefix.flags;
    flags |= if scaled { flags::SCALED } else { 0 };
    flags |= if table_bits == 12 { flags::FINE_TABLE } else { 0 };
    out.push(flags);
    out.extend_from_slice(&prefix.window.to_le_bytes());
    let counts = match choice {
        Choice::Plain(merged) => {
            let mut writer = BitWriter::new(out);
            if prefix.classes {
                merged.map.write(&mut writer);
            }
            scratch.ctx.clear();
            scratch.ctx.extend_from_slice(&scratch.parts.classes);
            isa.plain_contexts(&merged.map.0, &mut scratch.ctx);
            write_tables(map, merged.counts, table_bits, writer, &mut scratch.table);
            0
        }
        Choice::Scaled(scales, merged, side) => {
            if prefix.classes {
                out.extend(scales.class.iter().map(|&f| f as u8));
            }
            out.extend_from_slice(&side);
            let mut writer = BitWriter::new(out);
            merged.map.write(&mut writer);
            scratch.ctx.resize(scratch.parts.tokens.len(), 0);
            contexts(isa, grid, &scales, &scratch.parts.classes, &merged.map, &mut scratch.ctx);
            write_tables(map, merged.counts, table_bits, writer, &mut scratch.table);
            0
        }
    };
    let _: i32 = counts;
    write_words(isa, map, table_bits, planes, scratch, out);
}

fn write_tables(map: &TokenMap, counts: Vec<Counts>, table_bits: u32, mut writer: BitWriter<'_>, encoder: &mut Vec<u32>) {
    encoder.clear();
    for mut counts in counts {
        table::fold_rare(&mut counts, map, table_bits);
        let frequencies = table::normalise(&counts, table_bits);
        table::write(&frequencies, &mut writer);
        table::lay_out_encoder(&frequencies, map, encoder);
    }
    writer.finish();
}

fn write_words(isa: Isa, map: &TokenMap, table_bits: u32, planes: usize, scratch: &mut Scratch, out: &mut Vec<u8>) {
    let coder = Coder { table: &scratch.table, table_bits, map, planes };
    let parts = &mut scratch.parts;
    let lanes = lanes_of(parts.tokens.len());
    let mut states = [LOW; super::LANES];
    let states = &mut states[..lanes];
    scratch.words.resize(2 * (1 + planes) * parts.tokens.len() + 128, 0);
    let at = isa.encode(&coder, states, &scratch.ctx, &mut parts.tokens, &mut parts.raw, &mut scratch.words);
    out.extend(states.iter().flat_map(|x| x.to_le_bytes()));
    out.extend_from_slice(&scratch.words[at..]);
}

fn choose(isa: Isa, effort: Effort, grid: Grid, link: &Link, prefix: &Prefix, scratch: &mut Scratch) -> Choice {
    let parts = &mut scratch.parts;
    let elements = parts.tokens.len();
    parts.counts.clear();
    parts.counts.resize(64, [0; TOKENS]);
    for (&token, &class) in parts.tokens.iter().zip(&parts.classes) {
        parts.counts[usize::from(class & 31)][usize::from(token)] += 1;
    }
    let plain = merge::<CLASSES>(&parts.counts, 24);
    let rows = grid.rows(elements);
    if effort == Effort::Fast || rows < LEAST_SIDE || grid.row_len < LEAST_SIDE || elements < LEAST_ELEMENTS {
        return Choice::Plain(plain);
    }
    let class = if prefix.classes { fit::fit_classes(parts, link) } else { [64; CLASSES] };
    let sweeps = if prefix.classes { if effort == Effort::Max { 6 } else { 3 } } else { 1 };
    let scales = fit::fit(isa, parts, grid, link, class, sweeps);
    let bins = BinMap(std::array::from_fn(|bin| bin as u8));
    scratch.ctx.resize(elements, 0);
    contexts(isa, grid, &scales, &parts.classes, &bins, &mut scratch.ctx);
    parts.counts.fill([0; TOKENS]);
    for (&token, &bin) in parts.tokens.iter().zip(&scratch.ctx) {
        parts.counts[usize::from(bin & 63)][usize::from(token)] += 1;
    }
    let scaled = merge::<64>(&parts.counts, 24);
    let mut side = Vec::new();
    side::write([&scales.rows, &scales.columns], &mut side);
    let extra = (side.len() as u64 + 36) * 8 << 16;
    if std::env::var("ZDEBUG").is_ok() {
        let tb: usize = scaled.counts.iter().map(|c| c.iter().filter(|&&x| x > 0).count()).sum();
        println!("n {elements} rows {rows} plain {} ({} ctx) scaled {} ({} ctx, {tb} syms) side {}", plain.cost >> 19, plain.counts.len(), scaled.cost >> 19, scaled.counts.len(), side.len());
    }
    if scaled.cost + extra < plain.cost { Choice::Scaled(scales, scaled, side) } else { Choice::Plain(plain) }
}

/// Writes each element's context under `scales`.
pub(super) fn contexts(isa: Isa, grid: Grid, scales: &Scales, classes: &[u8], map: &BinMap<64>, out: &mut [u8]) {
    for (start, end, row, column) in grid.runs(0, out.len()) {
        let run = RunScales {
            class: &scales.class,
            columns: &scales.columns[column..column + (end - start)],
            row: scales.rows[row],
        };
        isa.scaled_contexts(&classes[start..end], &run, &map.0, &mut out[start..end]);
    }
}

/// Cuts every element into its parts.
fn cut(isa: Isa, format: Format, map: &TokenMap, relation: Relation<'_>, top: u32, raw: &[u8], parts: &mut Parts) {
    let elements = raw.len() * 8 / format.bits as usize;
    parts.tokens.resize(elements, 0);
    parts.classes.resize(elements, 0);
    parts.magnitudes.resize(elements, 0);
    parts.raw.iter_mut().take(format.planes()).for_each(|plane| plane.resize(elements, 0));
    match format.bits {
        8 => cut_words::<8>(map, relation, raw, parts),
        16 => {
            let Parts { tokens, magnitudes, raw: [tails, ..], .. } = parts;
            isa.cut(map, relation, raw, &mut CutRun { tokens, raw: tails, magnitudes });
        }
        32 => cut_words::<32>(map, relation, raw, parts),
        _ => cut_words::<64>(map, relation, raw, parts),
    }
    match relation {
        Relation::Delta(base) => isa.classes(format, top, base, &mut parts.classes),
        Relation::Solo => {
            parts.classes.fill(0);
            solo_magnitudes(isa, format, map, raw, &mut parts.magnitudes);
        }
    }
}

fn solo_magnitudes(isa: Isa, format: Format, map: &TokenMap, raw: &[u8], out: &mut [u16]) {
    let floor = solo_floor(format, map);
    if format.bits == 16 {
        return isa.solo_magnitudes(format.mantissa, floor as u16, raw, out);
    }
    for_each_code(Relation::Solo, format.bits, raw, |i, code| {
        out[i] = solo_log(format, code >> 1).saturating_sub(floor).min(2047) as u16;
    });
}

/// Log magnitude, in 2^-7 octaves, from which solo words are told apart: 13 octaves below the window's top.
fn solo_floor(format: Format, map: &TokenMap) -> u64 {
    let Shape::Window { low, first, tokens } = map.shape else { return 0 };
    solo_log(format, (first + u64::from(tokens)) << low >> 1).saturating_sub(13 * 128)
}

/// Exponent and seven bits of mantissa of a word without its sign.
#[inline(always)]
fn solo_log(format: Format, magnitude: u64) -> u64 {
    if format.mantissa < 7 { magnitude << (7 - format.mantissa) } else { magnitude >> (format.mantissa - 7) }
}

fn cut_words<const BITS: u32>(map: &TokenMap, relation: Relation<'_>, raw: &[u8], parts: &mut Parts) {
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
    let fraction = if octave < 7 { value << (7 - octave) } else { value >> (octave - 7) };
    (octave * 128 + fraction as u32 - 128) as u16
}

/// The top of the window of 31 exponents that holds most elements of the base.
fn top_exponent(format: Format, base: &[u8]) -> u32 {
    let mut counts = vec![0u32; format.top_exponent() as usize + 1];
    let size = format.bits as usize / 8;
    for word in sampled_words(base, size) {
        counts[format.exponent(word) as usize] += 1;
    }
    best_run(&counts, CLASSES - 1) as u32
}

/// The start of the solo window that holds most elements.
fn best_window(format: Format, raw: &[u8]) -> u64 {
    if TokenMap::last_window(format) == 0 {
        return 0;
    }
    let mut counts = vec![0u32; format.top_exponent() as usize + 1];
    for word in sampled_words(raw, format.bits as usize / 8) {
        if word << (65 - format.bits) != 0 {
            counts[format.exponent(word) as usize] += 1;
        }
    }
    let width = (format.window >> format.solo_head) as usize;
    let top = best_run(&counts, width);
    ((top + 1).saturating_sub(width) as u64) << format.solo_head
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

/// One word in 16, or all of a small chunk.
fn sampled_words(bytes: &[u8], size: usize) -> impl Iterator<Item = u64> {
    let step = if bytes.len() / size > 65_536 { 13 } else { 1 };
    bytes.chunks_exact(size).step_by(step).map(load)
}

/// Octaves by which the window of scales is raised; only wide elements have differences that need it.
fn window_octaves(format: Format, parts: &Parts) -> i32 {
    if format.bits <= 16 || parts.magnitudes.is_empty() {
        return 0;
    }
    let sum: u64 = parts.magnitudes.iter().map(|&m| u64::from(m)).sum();
    let mean = (sum / parts.magnitudes.len() as u64 / 128) as i32;
    (mean - 5).max(0)
}

fn solo_middle(parts: &Parts) -> i32 {
    let sum: u64 = parts.magnitudes.iter().map(|&m| u64::from(m)).sum();
    (sum / parts.magnitudes.len().max(1) as u64) as i32
}
