//! Contexts of predicted elements: by expected magnitude, and by how near the prediction lies to a boundary
//! between two words.
//!
//! A prediction comes with a hint for each element: its *phase*, the logarithm of the distance to the nearest
//! boundary, and the *side* on which that lies. A grid of scales and phases is merged to contexts; elements on the
//! upper side are reflected at their prediction, so that the likelier error always has the same sign.

use super::bits::{BitReader, BitWriter};
use super::choose;
use super::encode::Effort;
use super::fit::Scales;
use super::kernel::{Isa, Link, Relation};
use super::model::BinMap;
use super::table::{CONTEXTS, Counts, cost};
use super::token::{CLASSES, Format, TOKENS, TokenMap};
use super::{Bad, Grid, Scratch, parts, side};
use crate::dtype::DType;

/// Phases that are told apart.
pub(super) const PHASES: usize = 8;

/// Cells of the grid: 32 scales or classes, each with all phases.
pub(super) const CELLS: usize = 32 * PHASES;

/// What predicts the elements of a chunk.
pub trait Predict {
    /// Writes the predictions of the elements from `start` on, given the base's words, and a hint for each:
    /// the phase in bits 0 to 2, the side in bit 7.
    fn predict(&self, start: usize, base: &[u8], predicted: &mut [u8], hints: &mut [u8]);
}

/// The first cell of each class.
pub(super) fn class_cells() -> [u8; CLASSES] {
    std::array::from_fn(|class| (class * PHASES) as u8)
}

/// The first cell of each bin of scales.
pub(super) fn scale_cells() -> BinMap<64> {
    BinMap(std::array::from_fn(|bin| (bin / 2 * PHASES) as u8))
}

/// Adds its phase to the first cell of each element and looks up the context.
#[inline(always)]
#[allow(clippy::indexing_slicing, reason = "there is a context for every byte")]
pub(super) fn look_up(map: &[u8; CELLS], hints: &[u8], ctx: &mut [u8]) {
    for (ctx, &hint) in ctx.iter_mut().zip(hints) {
        *ctx = map[usize::from(*ctx | (hint & 7))];
    }
}

/// Reflects words of 16 bits at their predictions where the hint says so; done twice it changes nothing.
#[inline(always)]
pub(super) fn reflect(predicted: &[u8], hints: &[u8], words: &mut [u8]) {
    let ordered = |word: u16| word ^ (((word.cast_signed() >> 15).cast_unsigned()) | 0x8000);
    let words = words.as_chunks_mut::<2>().0.iter_mut();
    for ((word, predicted), &hint) in words.zip(predicted.as_chunks::<2>().0).zip(hints) {
        let old = u16::from_le_bytes(*word);
        let at = ordered(u16::from_le_bytes(*predicted));
        let place = at.wrapping_add(at).wrapping_sub(ordered(old));
        let new = place ^ (!((place.cast_signed() >> 15).cast_unsigned()) | 0x8000);
        // A mask, not a choice: compilers make a branch of that, and then no vectors.
        let is_reflected = 0u16.wrapping_sub(u16::from(hint >> 7));
        *word = (old ^ ((old ^ new) & is_reflected)).to_le_bytes();
    }
}

/// The contexts chosen for a chunk of predicted elements.
pub(super) struct Phased {
    /// The scales and how they are written; without them cells go by class.
    pub(super) scales: Option<(Scales, Vec<u8>)>,
    /// The context of each cell.
    pub(super) map: [u8; CELLS],
    /// Tokens counted by context.
    pub(super) counts: Vec<Counts>,
}

/// Chooses the contexts of the chunk whose parts are in `scratch`, and writes each element's to `scratch.ctx`.
pub(super) fn choose(
    isa: Isa,
    effort: Effort,
    grid: Grid,
    link: &Link,
    hints: &[u8],
    scratch: &mut Scratch,
) -> Phased {
    let elements = scratch.parts.tokens.len();
    scratch.ctx.resize(elements, 0);
    let most = effort.most_contexts();
    scratch.ctx.copy_from_slice(&scratch.parts.classes);
    isa.plain_contexts(&class_cells(), &mut scratch.ctx);
    let mut best = merge(&count(&scratch.parts.tokens, &scratch.ctx, hints), most);
    let mut scales = None;
    if effort != Effort::Fast && choose::is_scalable(grid, elements) {
        let found = choose::fit_scales(isa, grid, link, true, scratch);
        let mut written = Vec::new();
        side::write([&found.rows, &found.columns], &mut written);
        choose::contexts(
            isa,
            grid,
            &found,
            &scratch.parts.classes,
            &scale_cells(),
            &mut scratch.ctx,
        );
        let scaled = merge(&count(&scratch.parts.tokens, &scratch.ctx, hints), most);
        if scaled.cost + choose::side_cost(&written, true) < best.cost {
            best = scaled;
            scales = Some((found, written));
        } else {
            scratch.ctx.copy_from_slice(&scratch.parts.classes);
            isa.plain_contexts(&class_cells(), &mut scratch.ctx);
        }
    }
    isa.phase_contexts(&best.map, hints, &mut scratch.ctx);
    Phased {
        scales,
        map: best.map,
        counts: best.counts,
    }
}

/// Estimates the bits that the words of `raw` take, given their base and what predicts them; without side information.
pub fn estimate_predicted(
    isa: Isa,
    dtype: DType,
    base: &[u8],
    predict: Option<&dyn Predict>,
    raw: &[u8],
    scratch: &mut Scratch,
) -> u64 {
    let Some(format) = Format::of(dtype).filter(|_| raw.len() == base.len()) else {
        return u64::MAX;
    };
    let (mut predicted, mut hints, mut words) = (
        base.to_vec(),
        vec![7; raw.len() / format.bytes()],
        raw.to_vec(),
    );
    if let Some(predict) = predict {
        predict.predict(0, base, &mut predicted, &mut hints);
        if format.bits == 16 {
            isa.reflect(&predicted, &hints, &mut words);
        } else {
            hints.fill(0);
        }
    }
    let map = TokenMap::delta(format, false);
    let top = parts::top_exponent(format, &predicted);
    let parts = &mut scratch.parts;
    parts::cut(
        isa,
        format,
        &map,
        Relation::Delta(&predicted),
        top,
        &words,
        parts,
    );
    isa.plain_contexts(&class_cells(), &mut parts.classes);
    let merged = merge(&count(&parts.tokens, &parts.classes, &hints), CONTEXTS);
    let raw_bits = |counts: &Counts| -> u64 {
        counts
            .iter()
            .zip(&map.raw_bits)
            .map(|(&count, &bits)| u64::from(count) * u64::from(bits))
            .sum()
    };
    (merged.cost >> 16) + merged.counts.iter().map(raw_bits).sum::<u64>()
}

/// Counts tokens by cell.
#[allow(
    clippy::indexing_slicing,
    reason = "cells and regions are numbered here"
)]
fn count(tokens: &[u8], cells: &[u8], hints: &[u8]) -> Vec<Counts> {
    let mut counts = vec![[0u32; TOKENS]; CELLS];
    for ((&token, &cell), &hint) in tokens.iter().zip(cells).zip(hints) {
        counts[usize::from(cell | (hint & 7))][usize::from(token)] += 1;
    }
    counts
}

/// Cells merged to contexts.
struct Merged {
    map: [u8; CELLS],
    counts: Vec<Counts>,
    /// Bits of all tokens and tables, in units of 2^-16.
    cost: u64,
}

/// Two neighbouring regions, and the bits that merging them saves.
struct Border {
    regions: [usize; 2],
    gain: i64,
}

/// Merges neighbouring cells, the most profitable first, until none is and at most `most` contexts are left.
#[allow(
    clippy::indexing_slicing,
    reason = "cells and regions are numbered here"
)]
fn merge(cells: &[Counts], most: usize) -> Merged {
    let mut regions: Vec<(Counts, u64)> = cells.iter().map(|cell| (*cell, cost(cell))).collect();
    let is_used: Vec<bool> = cells
        .iter()
        .map(|cell| cell.iter().any(|&count| count > 0))
        .collect();
    let mut owner: Vec<usize> = owners(&is_used);
    let mut left = is_used.iter().filter(|used| **used).count();
    let mut borders = borders(&regions, &owner);
    while let Some(best) =
        (0..borders.len()).max_by_key(|&at| (borders[at].gain, std::cmp::Reverse(at)))
    {
        if borders[best].gain <= 0 && left <= most.min(CONTEXTS) {
            break;
        }
        let [kept, gone] = borders[best].regions;
        let joined = sum(&regions[kept].0, &regions[gone].0);
        regions[kept] = (joined, cost(&joined));
        owner
            .iter_mut()
            .filter(|owner| **owner == gone)
            .for_each(|owner| *owner = kept);
        left -= 1;
        redraw(&mut borders, &regions, kept, gone);
    }
    number(&owner, &regions)
}

/// The region of each cell: itself, or for one without elements the nearest before it, or the first.
fn owners(is_used: &[bool]) -> Vec<usize> {
    let first = is_used.iter().position(|used| *used).unwrap_or(0);
    let mut last = first;
    let mut out: Vec<usize> = Vec::with_capacity(is_used.len());
    for (row, cells) in is_used.chunks(PHASES).enumerate() {
        let start = row * PHASES;
        if let Some(used) = cells.iter().position(|used| *used) {
            last = start + used;
        } else if row > 0 {
            out.extend_from_within(start - PHASES..start);
            continue;
        }
        for (phase, used) in cells.iter().enumerate() {
            last = if *used { start + phase } else { last };
            out.push(last);
        }
    }
    out
}

fn borders(regions: &[(Counts, u64)], owner: &[usize]) -> Vec<Border> {
    let mut pairs = Vec::new();
    for (cell, &mine) in owner.iter().enumerate() {
        let right = (cell % PHASES + 1 < PHASES).then_some(cell + 1);
        for other in [right, Some(cell + PHASES)].into_iter().flatten() {
            if let Some(&other) = owner.get(other).filter(|other| **other != mine) {
                pairs.push([mine.min(other), mine.max(other)]);
            }
        }
    }
    pairs.sort_unstable();
    pairs.dedup();
    pairs
        .into_iter()
        .map(|regions_of| Border {
            regions: regions_of,
            gain: gain(regions, regions_of),
        })
        .collect()
}

/// Gives the borders of a region that is gone to the one that took it in.
fn redraw(borders: &mut Vec<Border>, regions: &[(Counts, u64)], kept: usize, gone: usize) {
    let mut touched = Vec::new();
    borders.retain(|border| {
        let [a, b] = border.regions;
        let near = [a, b]
            .iter()
            .any(|region| *region == kept || *region == gone);
        if near {
            let other = if a == kept || a == gone { b } else { a };
            if other != kept && other != gone {
                touched.push([kept.min(other), kept.max(other)]);
            }
        }
        !near
    });
    touched.sort_unstable();
    touched.dedup();
    borders.extend(touched.into_iter().map(|pair| Border {
        regions: pair,
        gain: gain(regions, pair),
    }));
}

#[allow(
    clippy::indexing_slicing,
    reason = "cells and regions are numbered here"
)]
fn gain(regions: &[(Counts, u64)], [a, b]: [usize; 2]) -> i64 {
    let (left, right) = (&regions[a], &regions[b]);
    (left.1 + right.1) as i64 - cost(&sum(&left.0, &right.0)) as i64
}

fn sum(left: &Counts, right: &Counts) -> Counts {
    let mut out = *left;
    for (out, right) in out.iter_mut().zip(right) {
        *out += right;
    }
    out
}

/// Numbers the regions in the order of their first cells.
#[allow(
    clippy::indexing_slicing,
    reason = "cells and regions are numbered here"
)]
fn number(owner: &[usize], regions: &[(Counts, u64)]) -> Merged {
    let mut order: Vec<usize> = Vec::new();
    let mut map = [0u8; CELLS];
    for (context, &owner) in map.iter_mut().zip(owner) {
        let known = order.iter().position(|region| *region == owner);
        *context = known.unwrap_or(order.len()) as u8;
        if known.is_none() {
            order.push(owner);
        }
    }
    Merged {
        map,
        counts: order.iter().map(|&region| regions[region].0).collect(),
        cost: order.iter().map(|&region| regions[region].1).sum(),
    }
}

/// Writes the context of each cell: a bit if it is that of the cell before, another if of the one above.
pub(super) fn write_map(map: &[u8; CELLS], writer: &mut BitWriter<'_>) {
    let mut next = 0;
    for (cell, &context) in map.iter().enumerate() {
        let (before, above) = neighbours(map, cell);
        let is_before = before == Some(context);
        writer.put(u32::from(is_before), 1);
        if is_before {
            continue;
        }
        let is_above = above == Some(context);
        writer.put(u32::from(is_above), 1);
        if !is_above {
            writer.put(u32::from(context == next), 1);
            if context == next {
                next += 1;
            } else {
                writer.put(u32::from(context), 6);
            }
        }
    }
}

fn neighbours(map: &[u8; CELLS], cell: usize) -> (Option<u8>, Option<u8>) {
    let at = |back: usize| {
        cell.checked_sub(back)
            .and_then(|cell| map.get(cell).copied())
    };
    (at(1), at(PHASES))
}

/// Reads what [`write_map`] wrote; returns the map and the number of contexts.
pub(super) fn read_map(reader: &mut BitReader<'_>) -> Result<([u8; CELLS], usize), Bad> {
    let mut map = [0u8; CELLS];
    let mut next = 0u8;
    for cell in 0..CELLS {
        let (before, above) = neighbours(&map, cell);
        let mut kind = 0;
        while kind < 3 && reader.take(1)? == 0 {
            kind += 1;
        }
        let old = match kind {
            0 => before,
            1 => above,
            2 => Some(next),
            _ => Some(reader.take(6)? as u8),
        };
        let context = old.ok_or(Bad::Malformed("map"))?;
        next += u8::from(kind == 2);
        if context >= next || usize::from(next) > CONTEXTS {
            return Err(Bad::Malformed("map"));
        }
        if let Some(slot) = map.get_mut(cell) {
            *slot = context;
        }
    }
    Ok((map, usize::from(next)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_come_back() {
        let busy: [u8; CELLS] =
            std::array::from_fn(|cell| ((cell / PHASES / 2) * 2 + usize::from(cell % 8 > 3)) as u8);
        let back: [u8; CELLS] = std::array::from_fn(|cell| [0, 1, 2, 0, 1, 3, 3, 2][cell % 8]);
        for map in [[0; CELLS], busy, back] {
            let mut bytes = Vec::new();
            let mut writer = BitWriter::new(&mut bytes);
            write_map(&map, &mut writer);
            writer.finish();
            let (have, contexts) = read_map(&mut BitReader::new(&bytes)).unwrap();
            assert_eq!(have, map);
            assert_eq!(contexts, usize::from(*map.iter().max().unwrap()) + 1);
            for end in 0..bytes.len() {
                assert!(read_map(&mut BitReader::new(&bytes[..end])).is_err());
            }
        }
    }

    #[test]
    fn a_context_before_its_time_is_refused() {
        let mut bytes = Vec::new();
        let mut writer = BitWriter::new(&mut bytes);
        writer.put(0, 3);
        writer.put(5, 6);
        writer.put(u32::MAX, 32);
        writer.finish();
        assert_eq!(
            read_map(&mut BitReader::new(&bytes)),
            Err(Bad::Malformed("map"))
        );
    }

    #[test]
    fn reflecting_twice_changes_nothing() {
        for step in [1usize, 3, 257] {
            let words: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
            let predicted: Vec<u8> = (0..=u16::MAX)
                .map(|w| w.wrapping_mul(step as u16))
                .flat_map(u16::to_le_bytes)
                .collect();
            let hints: Vec<u8> = (0..=u16::MAX)
                .map(|w| if w % 3 == 0 { 3 } else { 0x83 })
                .collect();
            let mut once = words.clone();
            reflect(&predicted, &hints, &mut once);
            assert!(step == 1 || once != words);
            reflect(&predicted, &hints, &mut once);
            assert!(once == words);
        }
    }

    #[test]
    fn look_ups_and_reflections_are_those_of_the_reference() {
        let map: [u8; CELLS] = std::array::from_fn(|cell| (cell * 37 % 64) as u8);
        for length in [0, 1, 63, 64, 65, 1000] {
            let hints: Vec<u8> = (0..length).map(|i| (i * 89 % 251) as u8).collect();
            let cells: Vec<u8> = (0..length).map(|i| (i * 13 % 32 * 8) as u8).collect();
            let words: Vec<u8> = (0..2 * length).map(|i| (i * i % 253) as u8).collect();
            let predicted: Vec<u8> = (0..2 * length).map(|i| (i * 57 % 255) as u8).collect();
            let run = |isa: Isa| {
                let (mut cells, mut words) = (cells.clone(), words.clone());
                isa.phase_contexts(&map, &hints, &mut cells);
                isa.reflect(&predicted, &hints, &mut words);
                (cells, words)
            };
            for isa in Isa::all() {
                assert!(run(isa) == run(Isa::Scalar), "{isa:?} {length}");
            }
        }
    }

    #[test]
    fn a_reflected_error_has_the_other_sign() {
        for (predicted, word, reflected) in [
            (0x3F80u16, 0x3F82u16, 0x3F7Eu16),
            (0xBF80, 0xBF81, 0xBF7F),
            (0, 1, 0x8000),
        ] {
            let mut words = word.to_le_bytes();
            reflect(&predicted.to_le_bytes(), &[0x80], &mut words);
            assert_eq!(u16::from_le_bytes(words), reflected);
        }
    }

    #[test]
    fn cells_of_like_elements_share_a_context() {
        let mut cells = vec![[0u32; TOKENS]; CELLS];
        for (cell, counts) in cells.iter_mut().enumerate().take(80) {
            // Two kinds of elements: near a boundary and far from it.
            let near = cell % PHASES < 2;
            counts[0] = if near { 500 } else { 1000 };
            counts[2] = if near { 500 } else { 3 };
        }
        let merged = merge(&cells, 24);
        assert_eq!(merged.counts.len(), 2);
        assert_eq!(merged.map[..8], [0, 0, 1, 1, 1, 1, 1, 1]);
        assert_eq!(merged.map[8..16], merged.map[240..248]);
        assert_eq!(merge(&vec![[0; TOKENS]; CELLS], 24).counts.len(), 1);
    }
}
