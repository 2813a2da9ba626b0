//! Contexts of predicted elements: by expected magnitude, and by how near the prediction lies to a boundary
//! between two words.
//!
//! A prediction comes with a hint for each element: its *phase*, the logarithm of the distance to the nearest
//! boundary, and the *side* on which that lies. A grid of scales and phases is merged to contexts; elements on the
//! upper side are reflected at their prediction, so that the likelier error always has the same sign.

use super::bits::{BitReader, BitWriter};
use super::cells::{Merged, merge};
use super::choose::{self, Choice, Fitting};
use super::contexts::Contexts;
use super::encode::Effort;
use super::fit::{self, Scales};
use super::kernel::{Isa, Relation};
use super::model::BinMap;
use super::table::{CONTEXTS, Counts};
use super::token::{CLASSES, Format, TokenMap};
use super::{Bad, Grid, Scratch, parts, side};
use crate::dtype::DType;
use std::mem::take;

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

/// Chooses the contexts of the chunk whose parts are in `scratch`, and writes each element's to `scratch.ctx`.
pub(super) fn choose(fitting: &Fitting<'_>, hints: &[u8], scratch: &mut Scratch) -> Choice {
    let &Fitting {
        isa, effort, grid, ..
    } = fitting;
    let elements = scratch.parts.tokens.len();
    scratch.ctx.resize(elements, 0);
    let may_scale = effort != Effort::Fast && choose::is_scalable(grid, elements);
    let scaled = may_scale.then(|| scaled(fitting, hints, scratch));
    let (best, scales) = match scaled {
        Some((merged, scales)) => {
            let cost = merged.cost + choose::side_cost(&scales.1, true);
            let exact = effort == Effort::Max;
            // An estimate does unless it leaves a doubt.
            if !exact && cost < least_cost(isa, hints, scratch) {
                (merged, Some(scales))
            } else {
                let cells = scratch.ctx.clone();
                let plain = plain(isa, effort, hints, 1, scratch);
                if cost < plain.cost {
                    scratch.ctx = cells;
                    (merged, Some(scales))
                } else {
                    (plain, None)
                }
            }
        }
        None => (plain(isa, effort, hints, 1, scratch), None),
    };
    isa.phase_contexts(&best.map, hints, &mut scratch.ctx);
    Choice {
        scales,
        contexts: Contexts::Cells(Box::new(best.map)),
        counts: best.counts,
    }
}

/// Contexts by scale and phase, and the scales; writes each element's first cell to `scratch.ctx`.
fn scaled(
    fitting: &Fitting<'_>,
    hints: &[u8],
    scratch: &mut Scratch,
) -> (Merged, (Scales, Vec<u8>)) {
    let found = choose::fit_scales(fitting, scratch);
    let mut written = Vec::new();
    side::write([&found.rows, &found.columns], &mut written);
    count_cells(fitting.isa, fitting.grid, &found, hints, scratch);
    let merged = merge(&mut scratch.cells, fitting.effort.most_contexts());
    (merged, (found, written))
}

/// Counts tokens by scale and phase; writes each element's first cell to `scratch.ctx`.
fn count_cells(isa: Isa, grid: Grid, scales: &Scales, hints: &[u8], scratch: &mut Scratch) {
    let (classes, map) = (&scratch.parts.classes, &scale_cells());
    scratch.ctx.resize(classes.len(), 0);
    choose::contexts(isa, grid, scales, classes, map, &mut scratch.ctx);
    scratch
        .cells
        .count(&scratch.parts.tokens, &scratch.ctx, hints);
}

/// The contexts that suit scales best; writes each element's to `scratch.ctx`.
pub(super) fn merge_scaled(
    isa: Isa,
    effort: Effort,
    grid: Grid,
    scales: &Scales,
    hints: &[u8],
    scratch: &mut Scratch,
) -> (Contexts, Vec<Counts>) {
    count_cells(isa, grid, scales, hints, scratch);
    let merged = merge(&mut scratch.cells, effort.most_contexts());
    isa.phase_contexts(&merged.map, hints, &mut scratch.ctx);
    (Contexts::Cells(Box::new(merged.map)), merged.counts)
}

/// As [`choose`] for all chunks of an object, of whose elements the chunk in `scratch` is one in `part`, with these scales:
/// those of columns, and tables, are paid for once.
pub(super) fn choose_shared(
    fitting: &Fitting<'_>,
    scales: Scales,
    hints: &[u8],
    part: u32,
    scratch: &mut Scratch,
) -> Choice {
    let &Fitting {
        isa, effort, grid, ..
    } = fitting;
    count_cells(isa, grid, &scales, hints, scratch);
    scratch.cells.multiply(part);
    let scaled = merge(&mut scratch.cells, effort.most_contexts());
    let cost = scaled.cost + choose::side_cost_shared(&scales, true, part);
    let plain = plain(isa, effort, hints, part, scratch);
    let (best, scales) = if cost < plain.cost {
        (scaled, Some((scales, Vec::new())))
    } else {
        (plain, None)
    };
    Choice {
        scales,
        contexts: Contexts::Cells(Box::new(best.map)),
        counts: best.counts,
    }
}

/// Contexts by class and phase, each element taken `times` as often as it is there; writes each one's first cell to
/// `scratch.ctx`.
fn plain(isa: Isa, effort: Effort, hints: &[u8], times: u32, scratch: &mut Scratch) -> Merged {
    scratch.ctx.copy_from_slice(&scratch.parts.classes);
    isa.plain_contexts(&class_cells(), &mut scratch.ctx);
    scratch
        .cells
        .count(&scratch.parts.tokens, &scratch.ctx, hints);
    scratch.cells.multiply(times);
    merge(&mut scratch.cells, effort.most_contexts())
}

/// About what [`plain`] costs at least, from a sample.
fn least_cost(isa: Isa, hints: &[u8], scratch: &mut Scratch) -> u64 {
    let elements = scratch.parts.tokens.len();
    let (mut tokens, mut cells, mut phases) = (Vec::new(), Vec::new(), Vec::new());
    for run in fit::sample(elements) {
        let pieces = [
            (&mut tokens, scratch.parts.tokens.as_slice()),
            (&mut cells, scratch.parts.classes.as_slice()),
            (&mut phases, hints),
        ];
        for (out, from) in pieces {
            out.extend_from_slice(from.get(run.clone()).unwrap_or_default());
        }
    }
    isa.plain_contexts(&class_cells(), &mut cells);
    scratch.cells.count(&tokens, &cells, &phases);
    (scratch.cells.entropy() / tokens.len().max(1) as u64).saturating_mul(elements as u64)
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
    let elements = raw.len() / format.bytes();
    let (mut predicted, mut hints, mut words) = (
        take(&mut scratch.predicted),
        take(&mut scratch.hints),
        take(&mut scratch.reflected),
    );
    for (words, from) in [(&mut predicted, base), (&mut words, raw)] {
        words.clear();
        words.extend_from_slice(from);
    }
    hints.clear();
    hints.resize(elements, 7);
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
    scratch.cells.count(&parts.tokens, &parts.classes, &hints);
    (scratch.predicted, scratch.hints, scratch.reflected) = (predicted, hints, words);
    let merged = merge(&mut scratch.cells, CONTEXTS);
    let raw_bits = |counts: &Counts| -> u64 {
        counts
            .iter()
            .zip(&map.raw_bits)
            .map(|(&count, &bits)| u64::from(count) * u64::from(bits))
            .sum()
    };
    (merged.cost >> 16) + merged.counts.iter().map(raw_bits).sum::<u64>()
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
}
