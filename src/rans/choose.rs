//! Chooses a chunk's contexts: by class alone, or by class, row and column.
#![allow(
    clippy::indexing_slicing,
    reason = "cells are bytes, and rows and columns those of the grid"
)]

use super::encode::Effort;
use super::fit::{self, Scales};
use super::kernel::{Isa, Link, RunScales};
use super::model::{BinMap, Merged, merge};
use super::parts::Parts;
use super::phased::Phased;
use super::table::Counts;
use super::token::{CLASSES, TOKENS};
use super::{Grid, Scratch, flags, side};

/// Least rows and columns for which scales are tried.
const LEAST_SIDE: usize = 16;

/// Least elements for which scales are tried.
const LEAST_ELEMENTS: usize = 4096;

/// Most elements for which scales are tried: a chunk of the format. Sums over a row of twice as many still fit.
const MOST_ELEMENTS: usize = 1 << 20;

/// Sweeps over differences; more of them gain nothing. Words alone are linear in their scales and need one.
const SWEEPS: u32 = 2;

/// The contexts chosen for a chunk.
pub(super) enum Choice {
    /// By class alone.
    Plain(Merged<CLASSES>),
    /// By class, row and column: the scales, the contexts of their bins, and the scales as they are written.
    Scaled(Scales, Merged<64>, Vec<u8>),
    /// By class or scales, and by phase.
    Phased(Phased),
}

impl Choice {
    /// What the payload's kind says of it.
    pub(super) fn flags(&self) -> u8 {
        match self {
            Self::Plain(_) => 0,
            Self::Scaled(..) => flags::SCALED,
            Self::Phased(Phased { scales: None, .. }) => flags::PHASED,
            Self::Phased(_) => flags::PHASED | flags::SCALED,
        }
    }
}

/// Chooses the contexts of the chunk whose parts are in `scratch`; `classes` tells whether it has a base.
pub(super) fn choose(
    isa: Isa,
    effort: Effort,
    grid: Grid,
    link: &Link,
    classes: bool,
    scratch: &mut Scratch,
) -> Choice {
    let elements = scratch.parts.tokens.len();
    if effort == Effort::Fast || !is_scalable(grid, elements) {
        return Choice::Plain(plain(effort, &mut scratch.parts, false));
    }
    let (scales, scaled, side) = scaled(isa, effort, grid, link, classes, scratch);
    let cost = scaled.cost + side_cost(&side, classes);
    let exact = effort == Effort::Max;
    let other = plain(effort, &mut scratch.parts, !exact);
    match (cost < other.cost, exact) {
        (true, _) => Choice::Scaled(scales, scaled, side),
        (false, true) => Choice::Plain(other),
        (false, false) => Choice::Plain(plain(effort, &mut scratch.parts, false)),
    }
}

/// Tells whether rows and columns are so many that scales are tried.
pub(super) fn is_scalable(grid: Grid, elements: usize) -> bool {
    grid.rows(elements) >= LEAST_SIDE
        && grid.row_len >= LEAST_SIDE
        && (LEAST_ELEMENTS..=MOST_ELEMENTS).contains(&elements)
}

/// Bits of the scales and of the longer bin map, in units of 2^-16.
pub(super) fn side_cost(side: &[u8], classes: bool) -> u64 {
    let class_scales = if classes { CLASSES } else { 0 };
    ((side.len() + class_scales + 4) as u64 * 8) << 16
}

/// Contexts by class alone, from all elements or an estimate from a sample.
fn plain(effort: Effort, parts: &mut Parts, sampled: bool) -> Merged<CLASSES> {
    if sampled {
        parts.counts.clear();
        parts.counts.resize(CLASSES, [0; TOKENS]);
        let mut seen = 0;
        for run in fit::sample(parts.tokens.len()) {
            seen += run.len();
            for (&token, &class) in parts.tokens[run.clone()].iter().zip(&parts.classes[run]) {
                parts.counts[usize::from(class & 31)][usize::from(token)] += 1;
            }
        }
        let (elements, seen) = (parts.tokens.len() as u64, seen.max(1) as u64);
        for count in parts.counts.iter_mut().flatten() {
            *count = (u64::from(*count) * elements / seen) as u32;
        }
    } else {
        count(
            &parts.tokens,
            &parts.classes,
            &mut parts.tables,
            &mut parts.counts,
        );
    }
    merge::<CLASSES>(&parts.counts, effort.most_contexts())
}

/// Fits scales and merges the bins that they give.
fn scaled(
    isa: Isa,
    effort: Effort,
    grid: Grid,
    link: &Link,
    classes: bool,
    scratch: &mut Scratch,
) -> (Scales, Merged<64>, Vec<u8>) {
    let scales = fit_scales(isa, grid, link, classes, scratch);
    let parts = &mut scratch.parts;
    let bins = BinMap(std::array::from_fn(|bin| bin as u8));
    scratch.ctx.resize(parts.tokens.len(), 0);
    contexts(isa, grid, &scales, &parts.classes, &bins, &mut scratch.ctx);
    count(
        &parts.tokens,
        &scratch.ctx,
        &mut parts.tables,
        &mut parts.counts,
    );
    let merged = merge::<64>(&parts.counts, effort.most_contexts());
    let mut side = Vec::new();
    side::write([&scales.rows, &scales.columns], &mut side);
    (scales, merged, side)
}

/// Fits the scales of the chunk whose parts are in `scratch`.
pub(super) fn fit_scales(
    isa: Isa,
    grid: Grid,
    link: &Link,
    classes: bool,
    scratch: &Scratch,
) -> Scales {
    let parts = &scratch.parts;
    let class = if classes {
        fit::fit_classes(parts, link)
    } else {
        [64; CLASSES]
    };
    let sweeps = if classes { SWEEPS } else { 1 };
    fit::fit(isa, parts, grid, link, class, sweeps)
}

/// Counts tokens by bin.
fn count(tokens: &[u8], bins: &[u8], tables: &mut Vec<u32>, counts: &mut Vec<Counts>) {
    const CELLS: usize = 64 * TOKENS;
    const RUN: usize = 64;
    // The same cell of two tables must not lie a multiple of 4 KiB apart: processors take such for the same place.
    const GAP: usize = 16;
    // Neighbours are often alike: two tables keep one count from waiting for the last.
    tables.clear();
    tables.resize(2 * CELLS + GAP, 0);
    counts.resize(64, [0; TOKENS]);
    let (even, odd) = tables.split_at_mut(CELLS + GAP);
    let (Some(even), Some(odd)) = (
        even.first_chunk_mut::<CELLS>(),
        odd.first_chunk_mut::<CELLS>(),
    ) else {
        return;
    };
    let at = |cell: u16| usize::from(cell) % CELLS;
    let (tokens, last_tokens) = tokens.as_chunks::<RUN>();
    let (bins, last_bins) = bins.as_chunks::<RUN>();
    for (tokens, bins) in tokens.iter().zip(bins) {
        let cells: [u16; RUN] = std::array::from_fn(|i| u16::from_le_bytes([tokens[i], bins[i]]));
        for &[first, second] in cells.as_chunks::<2>().0 {
            even[at(first)] += 1;
            odd[at(second)] += 1;
        }
    }
    for (&token, &bin) in last_tokens.iter().zip(last_bins) {
        even[at(u16::from_le_bytes([token, bin]))] += 1;
    }
    let sums = even.iter().zip(odd.iter()).map(|(a, b)| a + b);
    for (count, sum) in counts.as_flattened_mut().iter_mut().zip(sums) {
        *count = sum;
    }
}

/// Writes each element's context under `scales`.
pub(super) fn contexts(
    isa: Isa,
    grid: Grid,
    scales: &Scales,
    classes: &[u8],
    map: &BinMap<64>,
    out: &mut [u8],
) {
    for (start, end, row, column) in grid.runs(0, out.len()) {
        let run = RunScales {
            class: &scales.class,
            columns: &scales.columns[column..column + (end - start)],
            row: scales.rows[row],
        };
        isa.scaled_contexts(&classes[start..end], &run, &map.0, &mut out[start..end]);
    }
}
