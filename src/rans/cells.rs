//! The cells of the grid of scales and phases: tokens counted by cell, and neighbouring cells merged to contexts.
#![allow(
    clippy::indexing_slicing,
    reason = "cells and regions are numbered here, and tokens counted up to the greatest"
)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::log2::xlog2;
use super::phased::{CELLS, PHASES};
use super::table::{CONTEXTS, Counts, cost};
use super::token::TOKENS;

/// Elements that are counted at a time.
const RUN: usize = 64;

/// Tokens counted by cell.
#[derive(Default)]
pub(super) struct Cells {
    /// Tokens that are counted: up to the greatest that occurs.
    tokens: usize,
    /// Cell after cell; behind them scratch.
    counts: Vec<u32>,
}

impl Cells {
    /// Counts tokens by the cells that begin as said and go on with the phase of the hint.
    pub(super) fn count(&mut self, tokens: &[u8], cells: &[u8], hints: &[u8]) {
        self.tokens = usize::from(tokens.iter().copied().max().unwrap_or(0)) + 1;
        let size = CELLS * self.tokens;
        self.counts.clear();
        // Neighbours are often alike: two tables keep one count from waiting for the last.
        self.counts.resize(2 * size, 0);
        let (even, odd) = self.counts.split_at_mut(size);
        let runs = tokens.chunks(RUN).zip(cells.chunks(RUN));
        for ((tokens, cells), hints) in runs.zip(hints.chunks(RUN)) {
            let mut places = [0u16; RUN];
            let run = tokens.iter().zip(cells).zip(hints);
            for (place, ((&token, &cell), &hint)) in places.iter_mut().zip(run) {
                // A cell is a byte and so is a token: less than 2^16.
                let cell = u16::from(cell | (hint & 7));
                *place = cell.wrapping_mul(self.tokens as u16) + u16::from(token);
            }
            let places = &places[..tokens.len()];
            for pair in places.chunks(2) {
                even[usize::from(pair[0])] += 1;
                if let Some(&place) = pair.get(1) {
                    odd[usize::from(place)] += 1;
                }
            }
        }
        for (even, odd) in even.iter_mut().zip(odd) {
            *even += *odd;
        }
    }

    /// Takes every count so many times.
    pub(super) fn multiply(&mut self, times: u32) {
        self.counts.iter_mut().for_each(|count| *count *= times);
    }

    /// Bits of all tokens, each cell with a table that costs nothing, in units of 2^-16.
    pub(super) fn entropy(&self) -> u64 {
        let of_cell = |cell: u8| {
            let counts = self.of(cell);
            let sum: u64 = counts.iter().map(|&count| xlog2(count)).sum();
            xlog2(counts.iter().sum()).saturating_sub(sum)
        };
        (0..=u8::MAX).map(of_cell).sum()
    }

    fn of(&self, cell: u8) -> &[u32] {
        &self.counts[usize::from(cell) * self.tokens..][..self.tokens]
    }

    /// Adds the counts of one cell to those of another.
    fn join(&mut self, [kept, gone]: [u8; 2]) {
        for token in 0..self.tokens {
            let more = self.counts[usize::from(gone) * self.tokens + token];
            self.counts[usize::from(kept) * self.tokens + token] += more;
        }
    }
}

/// Cells merged to contexts.
pub(super) struct Merged {
    pub(super) map: [u8; CELLS],
    pub(super) counts: Vec<Counts>,
    /// Bits of all tokens and tables, in units of 2^-16.
    pub(super) cost: u64,
}

/// Merges neighbouring cells, the most profitable first, until none is and at most `most` contexts are left. The counts
/// of what is merged are added up in `cells`.
pub(super) fn merge(cells: &mut Cells, most: usize) -> Merged {
    let mut regions = Regions::new(cells);
    while let Some(border) = regions.best() {
        if border.gain <= 0 && regions.left <= most.min(CONTEXTS) {
            break;
        }
        regions.merge(border.regions);
    }
    regions.number()
}

/// Regions of cells; each has the number of its first cell.
struct Regions<'a> {
    cells: &'a mut Cells,
    /// The region of each cell.
    owner: [u8; CELLS],
    /// Bits of each region's tokens and table.
    costs: Vec<u64>,
    /// Which regions lie next to each.
    near: Vec<Set>,
    /// How often each region has grown, and once more when it is gone.
    ages: [u16; CELLS],
    borders: BinaryHeap<Border>,
    /// Borders there have been.
    drawn: u32,
    /// Regions that are left.
    left: usize,
}

/// Two neighbouring regions and the bits that merging them saves; in order of that, and then those drawn first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Border {
    gain: i64,
    drawn: Reverse<u32>,
    regions: [u8; 2],
    /// The ages at which they were neighbours.
    ages: [u16; 2],
}

/// A set of regions.
#[derive(Clone, Copy, Default)]
struct Set([u64; CELLS / 64]);

impl Set {
    fn put(&mut self, region: u8, is_in: bool) {
        let bit = 1 << (region % 64);
        let word = &mut self.0[usize::from(region / 64)];
        *word = if is_in { *word | bit } else { *word & !bit };
    }

    fn with(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }

    /// The regions in it, ascending.
    fn regions(self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX)
            .filter(move |region| self.0[usize::from(region / 64)] >> (region % 64) & 1 == 1)
    }
}

impl<'a> Regions<'a> {
    fn new(cells: &'a mut Cells) -> Self {
        let costs: Vec<u64> = (0..=u8::MAX).map(|cell| cost(cells.of(cell))).collect();
        let is_used: Vec<bool> = (0..=u8::MAX)
            .map(|cell| cells.of(cell).iter().any(|&count| count > 0))
            .collect();
        let mut out = Self {
            cells,
            owner: owners(&is_used),
            costs,
            near: vec![Set::default(); CELLS],
            ages: [0; CELLS],
            borders: BinaryHeap::new(),
            drawn: 0,
            left: is_used.iter().filter(|used| **used).count(),
        };
        for [one, other] in neighbours(&out.owner) {
            out.draw([one, other]);
        }
        out
    }

    /// Makes two regions neighbours.
    fn draw(&mut self, regions: [u8; 2]) {
        let [one, other] = regions;
        self.near[usize::from(one)].put(other, true);
        self.near[usize::from(other)].put(one, true);
        self.drawn += 1;
        self.borders.push(Border {
            gain: self.gain(regions),
            drawn: Reverse(self.drawn),
            regions,
            ages: regions.map(|region| self.ages[usize::from(region)]),
        });
    }

    fn gain(&self, [one, other]: [u8; 2]) -> i64 {
        let apart = self.costs[usize::from(one)] + self.costs[usize::from(other)];
        let mut joined = [0; TOKENS];
        let counts = self.cells.of(one).iter().zip(self.cells.of(other));
        for (joined, (one, other)) in joined.iter_mut().zip(counts) {
            *joined = one + other;
        }
        apart as i64 - cost(&joined[..self.cells.tokens]) as i64
    }

    /// The border that is there and saves most.
    fn best(&mut self) -> Option<Border> {
        loop {
            let border = self.borders.pop()?;
            let ages = border.regions.map(|region| self.ages[usize::from(region)]);
            if ages == border.ages {
                return Some(border);
            }
        }
    }

    /// Merges the second region into the first, and draws the borders of both anew.
    fn merge(&mut self, [kept, gone]: [u8; 2]) {
        self.cells.join([kept, gone]);
        self.costs[usize::from(kept)] = cost(self.cells.of(kept));
        for owner in &mut self.owner {
            *owner = if *owner == gone { kept } else { *owner };
        }
        self.left -= 1;
        for region in [kept, gone] {
            self.ages[usize::from(region)] += 1;
        }
        let mut near = self.near[usize::from(kept)].with(self.near[usize::from(gone)]);
        near.put(kept, false);
        near.put(gone, false);
        self.near[usize::from(kept)] = Set::default();
        for other in near.regions() {
            self.near[usize::from(other)].put(gone, false);
            self.draw([kept.min(other), kept.max(other)]);
        }
    }

    /// Numbers the regions in the order of their first cells.
    fn number(self) -> Merged {
        let mut order: Vec<u8> = Vec::new();
        let mut map = [0u8; CELLS];
        for (context, &owner) in map.iter_mut().zip(&self.owner) {
            let known = order.iter().position(|region| *region == owner);
            *context = known.unwrap_or(order.len()) as u8;
            if known.is_none() {
                order.push(owner);
            }
        }
        let counts = |&region: &u8| {
            let mut out = [0; TOKENS];
            out[..self.cells.tokens].copy_from_slice(self.cells.of(region));
            out
        };
        Merged {
            map,
            counts: order.iter().map(counts).collect(),
            cost: order
                .iter()
                .map(|&region| self.costs[usize::from(region)])
                .sum(),
        }
    }
}

/// The region of each cell: itself, or for one without elements the nearest before it, or the first.
fn owners(is_used: &[bool]) -> [u8; CELLS] {
    let mut out = [0u8; CELLS];
    let mut last = is_used.iter().position(|used| *used).unwrap_or(0) as u8;
    for (row, cells) in is_used.chunks(PHASES).enumerate() {
        let start = row * PHASES;
        if let Some(used) = cells.iter().position(|used| *used) {
            last = (start + used) as u8;
        } else if row > 0 {
            out.copy_within(start - PHASES..start, start);
            continue;
        }
        for (phase, used) in cells.iter().enumerate() {
            last = if *used { (start + phase) as u8 } else { last };
            out[start + phase] = last;
        }
    }
    out
}

/// All pairs of regions that lie side by side, ascending.
fn neighbours(owner: &[u8; CELLS]) -> Vec<[u8; 2]> {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_like_elements_share_a_context() {
        let mut cells = Cells {
            tokens: 3,
            counts: vec![0; CELLS * 3],
        };
        for (cell, counts) in cells.counts.chunks_exact_mut(3).enumerate().take(80) {
            // Two kinds of elements: near a boundary and far from it.
            let near = cell % PHASES < 2;
            counts[0] = if near { 500 } else { 1000 };
            counts[2] = if near { 500 } else { 3 };
        }
        let merged = merge(&mut cells, 24);
        assert_eq!(merged.counts.len(), 2);
        assert_eq!(merged.map[..8], [0, 0, 1, 1, 1, 1, 1, 1]);
        assert_eq!(merged.map[8..16], merged.map[240..248]);
        let mut none = Cells::default();
        none.count(&[], &[], &[]);
        assert_eq!(merge(&mut none, 24).counts.len(), 1);
    }
}
