//! Chooses a chunk's contexts: by class alone, or by class, row and column.
#![allow(
    clippy::indexing_slicing,
    reason = "cells are bytes, and rows and columns those of the grid"
)]

use std::mem::take;
use std::ops::Range;

use super::contexts::Contexts;
use super::encode::{Effort, Plan, Task};
use super::fit::{self, Scales};
use super::kernel::{Isa, Link, RunScales};
use super::model::{BinMap, Merged, merge};
use super::parts::Parts;
use super::table::Counts;
use super::token::{CLASSES, TOKENS};
use super::{Grid, Scratch, flags, side};

/// Least rows and columns for which scales are tried.
pub(super) const LEAST_SIDE: usize = 16;

/// Least elements for which scales are tried.
const LEAST_ELEMENTS: usize = 4096;

/// Most elements for which scales are tried: a chunk of the format. Sums over a row of twice as many still fit.
pub(super) const MOST_ELEMENTS: usize = 1 << 20;

/// Sweeps over differences; more of them gain nothing. Words alone are linear in their scales and need one.
const SWEEPS: u32 = 2;

/// What scales and contexts are fitted to, apart from a chunk's parts.
#[derive(Clone, Copy)]
pub(super) struct Fitting<'a> {
    pub(super) isa: Isa,
    pub(super) effort: Effort,
    pub(super) grid: Grid,
    pub(super) link: &'a Link,
    /// Whether there is a base with classes.
    pub(super) classes: bool,
}

impl<'a> Fitting<'a> {
    pub(super) fn new(task: &Task<'_>, plan: &'a Plan) -> Self {
        Self {
            isa: task.isa,
            effort: task.effort,
            grid: task.grid(),
            link: &plan.link,
            classes: plan.classes,
        }
    }

    /// Sweeps in which scales are fitted.
    pub(super) fn sweeps(&self) -> u32 {
        sweeps(self.classes)
    }
}

/// The contexts chosen for a chunk.
pub(super) struct Choice {
    /// The scales and how those of rows and columns are written; without them contexts go by class.
    pub(super) scales: Option<(Scales, Vec<u8>)>,
    /// How contexts come about.
    pub(super) contexts: Contexts,
    /// Tokens counted by context.
    pub(super) counts: Vec<Counts>,
}

impl Choice {
    /// What the payload's kind says of it.
    pub(super) fn flags(&self) -> u8 {
        let scaled = if self.scales.is_some() {
            flags::SCALED
        } else {
            0
        };
        scaled | self.contexts.flags()
    }

    fn plain(merged: Merged<CLASSES>) -> Self {
        Self {
            scales: None,
            contexts: Contexts::Classes(merged.map.0),
            counts: merged.counts,
        }
    }
}

/// Chooses the contexts of the chunk whose parts are in `scratch`, and writes each element's to `scratch.ctx`.
pub(super) fn choose(fitting: &Fitting<'_>, scratch: &mut Scratch) -> Choice {
    let choice = choose_map(fitting, scratch);
    let isa = fitting.isa;
    let ctx = &mut scratch.ctx;
    match &choice.contexts {
        Contexts::Bins(map) => isa.bin_contexts(map, ctx),
        Contexts::Classes(map) => {
            ctx.clear();
            ctx.extend_from_slice(&scratch.parts.classes);
            isa.plain_contexts(map, ctx);
        }
        Contexts::Cells(_) => {}
    }
    choice
}

/// As [`choose`]; where contexts go by scales, each element's bin is in `scratch.ctx`.
fn choose_map(fitting: &Fitting<'_>, scratch: &mut Scratch) -> Choice {
    let &Fitting { effort, grid, .. } = fitting;
    let elements = scratch.parts.tokens.len();
    if effort == Effort::Fast || !is_scalable(grid, elements) {
        return Choice::plain(plain(effort, &mut scratch.parts, false));
    }
    let (scales, scaled, side) = scaled(fitting, scratch);
    let cost = scaled.cost + side_cost(&side, fitting.classes);
    let exact = effort == Effort::Max;
    let other = plain(effort, &mut scratch.parts, !exact);
    match (cost < other.cost, exact) {
        (true, _) => Choice {
            scales: Some((scales, side)),
            contexts: Contexts::Bins(scaled.map.0),
            counts: scaled.counts,
        },
        (false, true) => Choice::plain(other),
        (false, false) => Choice::plain(plain(effort, &mut scratch.parts, false)),
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
fn scaled(fitting: &Fitting<'_>, scratch: &mut Scratch) -> (Scales, Merged<64>, Vec<u8>) {
    let scales = fit_scales(fitting, scratch);
    count_bins(fitting.isa, fitting.grid, &scales, scratch);
    let merged = merge::<64>(&scratch.parts.counts, fitting.effort.most_contexts());
    let mut side = Vec::new();
    side::write([&scales.rows, &scales.columns], &mut side);
    (scales, merged, side)
}

/// As [`choose`] for all chunks of an object, of whose elements the chunk in `scratch` is one in `part`, with these scales:
/// those of columns, and tables, are paid for once.
pub(super) fn choose_shared(
    fitting: &Fitting<'_>,
    scales: Scales,
    part: u32,
    scratch: &mut Scratch,
) -> Choice {
    let effort = fitting.effort;
    count_bins(fitting.isa, fitting.grid, &scales, scratch);
    let merged = merge_times::<64>(&mut scratch.parts.counts, part, effort);
    let cost = merged.cost + side_cost_shared(&scales, fitting.classes, part);
    let Parts {
        tokens,
        classes,
        tables,
        counts,
        ..
    } = &mut scratch.parts;
    count(
        tokens,
        classes,
        std::iter::once(0..tokens.len()),
        tables,
        counts,
    );
    let plain = merge_times::<CLASSES>(counts, part, effort);
    if cost < plain.cost {
        Choice {
            scales: Some((scales, Vec::new())),
            contexts: Contexts::Bins(merged.map.0),
            counts: merged.counts,
        }
    } else {
        Choice::plain(plain)
    }
}

/// Merges bins of which there are so many times as many tokens as counted.
fn merge_times<const N: usize>(counts: &mut [Counts], times: u32, effort: Effort) -> Merged<N> {
    counts
        .iter_mut()
        .flatten()
        .for_each(|count| *count *= times);
    merge(counts, effort.most_contexts())
}

/// Bits of scales of which those of classes and columns are written once, those of rows `part` times, in units of 2^-16.
pub(super) fn side_cost_shared(scales: &Scales, classes: bool, part: u32) -> u64 {
    let cost = |runs: [&[i8]; 2], classes| {
        let mut side = Vec::new();
        side::write(runs, &mut side);
        side_cost(&side, classes)
    };
    cost([&[], &scales.columns], classes) + u64::from(part) * cost([&scales.rows, &[]], false)
}

/// The contexts that suit scales best.
pub(super) fn merge_scaled(
    isa: Isa,
    effort: Effort,
    grid: Grid,
    scales: &Scales,
    scratch: &mut Scratch,
) -> (Contexts, Vec<Counts>) {
    count_bins(isa, grid, scales, scratch);
    let merged = merge::<64>(&scratch.parts.counts, effort.most_contexts());
    isa.bin_contexts(&merged.map.0, &mut scratch.ctx);
    (Contexts::Bins(merged.map.0), merged.counts)
}

/// Counts tokens by the bins that scales give; leaves each element's bin in `scratch.ctx`.
fn count_bins(isa: Isa, grid: Grid, scales: &Scales, scratch: &mut Scratch) {
    let parts = &mut scratch.parts;
    let bins = BinMap(std::array::from_fn(|bin| bin as u8));
    scratch.ctx.resize(parts.tokens.len(), 0);
    contexts(isa, grid, scales, &parts.classes, &bins, &mut scratch.ctx);
    count(
        &parts.tokens,
        &scratch.ctx,
        std::iter::once(0..parts.tokens.len()),
        &mut parts.tables,
        &mut parts.counts,
    );
}

/// Elements up to which a chunk is its own sample.
const SMALL: usize = 1 << 17;

/// Counts a sample of the tokens by context, or all of a small chunk; returns how many.
pub(super) fn count_sample(ctx: &[u8], parts: &mut Parts) -> usize {
    let elements = parts.tokens.len();
    let (tables, counts) = (&mut parts.tables, &mut parts.counts);
    if elements <= SMALL {
        count(
            &parts.tokens,
            ctx,
            std::iter::once(0..elements),
            tables,
            counts,
        );
        return elements;
    }
    count(&parts.tokens, ctx, fit::sample(elements), tables, counts);
    fit::sample(elements).map(|run| run.len()).sum()
}

/// Fits the scales of the chunk whose parts are in `scratch`.
pub(super) fn fit_scales(fitting: &Fitting<'_>, scratch: &Scratch) -> Scales {
    let class = if fitting.classes {
        fit::fit_classes(&scratch.parts, fitting.link)
    } else {
        [64; CLASSES]
    };
    fit::fit(fitting, &scratch.parts, class)
}

/// Sweeps in which scales are fitted.
pub(super) fn sweeps(classes: bool) -> u32 {
    if classes { SWEEPS } else { 1 }
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
pub(super) fn count(
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
