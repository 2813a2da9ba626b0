//! Chooses a chunk's contexts: by class alone, or by class, row and column.
#![allow(
    clippy::indexing_slicing,
    reason = "cells are bytes, and rows and columns those of the grid"
)]

use std::mem::take;
use std::ops::Range;

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
    let all = 0..parts.tokens.len();
    let (tokens, classes) = (&parts.tokens, &parts.classes);
    let (tables, counts) = (&mut parts.tables, &mut parts.counts);
    if sampled {
        count(tokens, classes, fit::sample(all.len()), tables, counts);
        let seen: usize = fit::sample(all.len()).map(|run| run.len()).sum();
        let (elements, seen) = (all.len() as u64, seen.max(1) as u64);
        for count in counts.iter_mut().flatten() {
            *count = (u64::from(*count) * elements / seen) as u32;
        }
    } else {
        count(tokens, classes, std::iter::once(all), tables, counts);
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
        std::iter::once(0..parts.tokens.len()),
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

/// Tables that are counted in: neighbours are often alike, and one count must not wait for the last.
const TABLES: usize = 4;

/// Cells of a table: bins of all tokens, and some more.
///
/// Processors take places a multiple of 4 KiB apart for the same one until they know better. So neither may two tables
/// lie so, nor the first tokens, which are the most frequent, of neighbouring bins: see [`turned`].
const CELLS: usize = 64 * TOKENS + 16;

/// The place of a token among those of its bin.
#[inline(always)]
fn turned(token: u8, bin: u8) -> u8 {
    token.wrapping_add(bin << 4)
}

/// Counts the tokens of `runs` by bin.
fn count(
    tokens: &[u8],
    bins: &[u8],
    runs: impl Iterator<Item = Range<usize>>,
    tables: &mut Vec<u32>,
    counts: &mut Vec<Counts>,
) {
    // All zeros from the start, and again at the end.
    tables.resize(TABLES * CELLS, 0);
    counts.resize(64, [0; TOKENS]);
    let Some(tables) = tables.first_chunk_mut::<{ TABLES * CELLS }>() else {
        return;
    };
    for run in runs {
        count_run(&tokens[run.clone()], &bins[run], tables);
    }
    for (bin, counts) in counts.iter_mut().enumerate() {
        for (token, count) in counts.iter_mut().enumerate() {
            let cell = bin * TOKENS + usize::from(turned(token as u8, bin as u8));
            *count = (0..TABLES)
                .map(|table| take(&mut tables[cell + table * CELLS]))
                .sum();
        }
    }
}

fn count_run(tokens: &[u8], bins: &[u8], tables: &mut [u32; TABLES * CELLS]) {
    const RUN: usize = 64;
    let at = |cell: u16, table: usize| usize::from(cell) % (64 * TOKENS) + table * CELLS;
    let (tokens, last_tokens) = tokens.as_chunks::<RUN>();
    let (bins, last_bins) = bins.as_chunks::<RUN>();
    for (tokens, bins) in tokens.iter().zip(bins) {
        let cells: [u16; RUN] =
            std::array::from_fn(|i| u16::from_le_bytes([turned(tokens[i], bins[i]), bins[i]]));
        for &[a, b, c, d] in cells.as_chunks::<TABLES>().0 {
            tables[at(a, 0)] += 1;
            tables[at(b, 1)] += 1;
            tables[at(c, 2)] += 1;
            tables[at(d, 3)] += 1;
        }
    }
    for (&token, &bin) in last_tokens.iter().zip(last_bins) {
        tables[at(u16::from_le_bytes([turned(token, bin), bin]), 0)] += 1;
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
