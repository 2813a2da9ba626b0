//! The loops over a band, tile by tile.

use std::marker::PhantomData;

use super::super::kernel::Word;
use super::band::{Band, Scale, TILE};
use super::columns::ColumnFactors;
use super::floats::Floats;
use super::lanes::{LANES, Lanes, Task};
use super::multiply::{Left, Right, Size, add_product};
use super::sums::Sums;

/// The sixteen floats from a place on.
#[inline(always)]
fn line(floats: &[f32], at: usize) -> &[f32; LANES] {
    floats[at..].first_chunk().unwrap_or(&[0.0; LANES])
}

#[inline(always)]
fn put<V: Lanes>(floats: &mut [f32], at: usize, value: V) {
    if let Some(line) = floats[at..].first_chunk_mut() {
        value.store(line);
    }
}

/// The sums of sixteen lanes each, in a fixed order.
fn across(lanes: &[f32]) -> Vec<f32> {
    let (lines, _) = lanes.as_chunks::<LANES>();
    lines.iter().map(|line| line.iter().sum()).collect()
}

/// What [`Band::fill`] does.
pub(super) struct Fill<'a> {
    pub(super) scale: Scale,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) target: &'a [u8],
    pub(super) base: &'a [u8],
    pub(super) band: &'a mut Band,
}

pub(super) struct OfWords<'a, W>(pub(super) Fill<'a>, pub(super) PhantomData<W>);

impl<W: Word> Task for OfWords<'_, W> {
    type Out = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Fill {
            scale,
            rows,
            columns,
            target,
            base,
            band,
        } = self.0;
        let (unit, limit) = (1.0 / scale.units.one, scale.units.limit);
        for row in 0..rows {
            let mut column = 0;
            while column < columns {
                let width = TILE.min(columns - column);
                let words = (row * columns + column) * W::BYTES..;
                let words = W::words(&target[words.clone()]).zip(W::words(&base[words]));
                let at = column * band.rows + row * TILE;
                let differences = &mut band.differences[at..at + width];
                let weights = &mut band.weights[at..at + width];
                for ((difference, weight), (target, base)) in
                    differences.iter_mut().zip(weights).zip(words)
                {
                    let place = W::last_place(target) * unit;
                    let step = (W::widen(target) - W::widen(base)) * unit;
                    let is_known = step.abs() <= limit;
                    *difference = if is_known { step } else { 0.0 };
                    let noise = if is_known {
                        place * place * (1.0 / 12.0)
                    } else {
                        1e30
                    };
                    *weight = 1.0 / (noise + scale.variance);
                }
                column += TILE;
            }
        }
    }
}

/// The product of rows and column factors: added to the differences, or put into the moves, whose weighted squares it
/// gives then.
pub(super) struct Expand<'a> {
    pub(super) band: &'a mut Band,
    /// Component by component.
    pub(super) rows: &'a Floats,
    pub(super) columns: &'a ColumnFactors,
    pub(super) is_move: bool,
}

impl Task for Expand<'_> {
    type Out = Vec<f32>;
    #[inline(always)]
    fn run<V: Lanes>(self) -> Vec<f32> {
        let band = self.band;
        let rank = self.columns.rank;
        let mut squares = vec![0.0f32; band.rows * LANES];
        let left = Left {
            data: self.rows,
            row_step: 1,
            term_step: band.rows,
        };
        let size = Size {
            rows: band.rows,
            terms: rank,
            columns: LANES,
            is_new: self.is_move,
        };
        for (start, width) in band.tiles() {
            let out = if self.is_move {
                &mut band.moves[start..start + band.rows * TILE]
            } else {
                &mut band.differences[start..start + band.rows * TILE]
            };
            for column in (0..width).step_by(LANES) {
                let block = (start / band.rows + column) * rank;
                let right = Right {
                    data: &self.columns.blocks[block..],
                    term_step: LANES,
                };
                add_product::<V>(size, left, right, &mut out[column..], TILE);
            }
            if !self.is_move {
                continue;
            }
            for row in 0..band.rows {
                let mut sum = V::load(line(&squares, row * LANES));
                for column in (0..width).step_by(LANES) {
                    let step = V::load(line(out, row * TILE + column));
                    let weight = V::load(line(&band.weights, start + row * TILE + column));
                    sum = sum.plus_product(step.times(step), weight);
                }
                put(&mut squares, row * LANES, sum);
            }
        }
        across(&squares)
    }
}

/// The gradient of the row factors.
pub(super) struct Gradient<'a> {
    pub(super) band: &'a mut Band,
    pub(super) columns: &'a ColumnFactors,
    pub(super) out: &'a mut Floats,
}

impl Task for Gradient<'_> {
    type Out = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let band = self.band;
        let rank = self.columns.rank;
        for (start, width) in band.tiles() {
            for row in 0..band.rows {
                for column in (0..width).step_by(LANES) {
                    let at = row * TILE + column;
                    let weight = V::load(line(&band.weights, start + at));
                    let difference = V::load(line(&band.differences, start + at));
                    put(&mut band.weighted, at, weight.times(difference));
                }
            }
            let size = Size {
                rows: band.rows,
                terms: width,
                columns: rank,
                is_new: false,
            };
            let left = Left {
                data: &band.weighted,
                row_step: TILE,
                term_step: 1,
            };
            let right = Right {
                data: &self.columns.lines[start / band.rows * rank..],
                term_step: rank,
            };
            add_product::<V>(size, left, right, self.out, rank);
        }
    }
}

/// Takes some lengths of the moves off the differences.
pub(super) struct Shift<'a> {
    pub(super) band: &'a mut Band,
    pub(super) lengths: &'a [f32],
}

impl Task for Shift<'_> {
    type Out = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let band = self.band;
        for (start, width) in band.tiles() {
            for row in 0..band.rows {
                let length = V::splat(-self.lengths[row]);
                for at in (start + row * TILE..start + row * TILE + width).step_by(LANES) {
                    let step = V::load(line(&band.moves, at));
                    let difference = V::load(line(&band.differences, at));
                    put(
                        &mut band.differences,
                        at,
                        difference.plus_product(length, step),
                    );
                }
            }
        }
    }
}

/// What [`Band::gather`] does; gives the weights of the rows.
pub(super) struct Gather<'a> {
    pub(super) band: &'a mut Band,
    pub(super) rows: &'a Floats,
    pub(super) sums: &'a mut Sums,
}

impl Task for Gather<'_> {
    type Out = Vec<f32>;
    #[inline(always)]
    fn run<V: Lanes>(self) -> Vec<f32> {
        let (band, sums) = (self.band, self.sums);
        let rank = sums.rank;
        let one = V::splat(1.0);
        let mut row_weights = vec![0.0f32; band.rows * LANES];
        let mut squares = V::splat(0.0);
        for (start, width) in band.tiles() {
            let first = start / band.rows;
            for column in (0..width).step_by(LANES) {
                let mut column_weights = V::load(line(&sums.columns, first + column));
                for row in 0..band.rows {
                    let at = row * TILE + column;
                    let weight = V::load(line(&band.weights, start + at));
                    let difference = V::load(line(&band.differences, start + at));
                    let weighted = weight.times(difference);
                    put(&mut band.weighted, at, weighted);
                    squares = squares.plus_product(weighted, weighted);
                    column_weights = column_weights.plus_product(one, weight);
                    let row_weight = V::load(line(&row_weights, row * LANES));
                    put(
                        &mut row_weights,
                        row * LANES,
                        row_weight.plus_product(one, weight),
                    );
                }
                put(&mut sums.columns, first + column, column_weights);
            }
            let size = Size {
                rows: width,
                terms: band.rows,
                columns: rank,
                is_new: false,
            };
            let left = Left {
                data: &band.weighted,
                row_step: 1,
                term_step: TILE,
            };
            let right = Right {
                data: self.rows,
                term_step: rank,
            };
            let out = &mut sums.gradient[first * rank..];
            add_product::<V>(size, left, right, out, rank);
        }
        let mut lanes = [0.0f32; LANES];
        squares.store(&mut lanes);
        sums.squares += f64::from(lanes.iter().sum::<f32>());
        across(&row_weights)
    }
}
