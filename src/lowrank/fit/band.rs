//! A band: some rows of a tensor and its base as numbers, and what a sweep does with them.
//!
//! Numbers lie in *tiles* of 64 columns, row after row, so that what belongs to a tile stays in the first cache. What
//! rows and columns lack to whole tiles is filled with numbers of no weight.

use std::marker::PhantomData;

use super::super::kernel::{Bf16, F16, F32};
use super::columns::ColumnFactors;
use super::dense::Matrix;
use super::floats::{Floats, padded};
use super::lanes::run;
use super::multiply::{Left, Product, ROWS, Right, Size};
use super::passes::{Expand, Fill, Gather, Gradient, OfWords, Shift};
use super::sums::Sums;
use super::units::Units;
use crate::dtype::DType;
use crate::rans::Isa;

/// Columns of a tile.
pub(super) const TILE: usize = 64;

/// Differences of some rows, and how much each of them says.
pub(super) struct Band {
    isa: Isa,
    /// Buffers for the words.
    pub(super) bytes: [Vec<u8>; 2],
    /// Rows, a multiple of [`ROWS`].
    pub(super) rows: usize,
    /// Columns, a multiple of [`LANES`].
    pub(super) columns: usize,
    /// Rows and columns that are not padding.
    filled: [usize; 2],
    /// Target less base, in units of [`Units::one`].
    pub(super) differences: Floats,
    /// The inverse of the variance of each difference.
    pub(super) weights: Floats,
    /// What some row factors make of the column factors.
    pub(super) moves: Floats,
    /// Weights times differences, of a tile.
    pub(super) weighted: Floats,
}

/// What differences are taken for.
#[derive(Clone, Copy)]
pub(super) struct Scale {
    pub(super) dtype: DType,
    pub(super) units: Units,
    /// The variance of the residuals beside the rounding, in squared units.
    pub(super) variance: f32,
}

impl Band {
    /// An empty band.
    pub(super) fn new(isa: Isa) -> Self {
        let [differences, weights, moves] = Default::default();
        Self {
            isa,
            bytes: Default::default(),
            rows: 0,
            columns: 0,
            filled: [0; 2],
            differences,
            weights,
            moves,
            weighted: Floats::default(),
        }
    }

    /// The first float of a tile, and its columns.
    pub(super) fn tiles(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (rows, columns) = (self.rows, self.columns);
        (0..columns)
            .step_by(TILE)
            .map(move |column| (column * rows, TILE.min(columns - column)))
    }

    /// Fills the band with rows of `columns` words.
    pub(super) fn fill(&mut self, scale: Scale, columns: usize, target: &[u8], base: &[u8]) {
        let rows = target.len() / scale.dtype.size() / columns.max(1);
        (self.rows, self.columns) = (rows.next_multiple_of(ROWS), padded(columns));
        let length = self.rows * self.columns.next_multiple_of(TILE);
        if self.filled != [rows, columns] {
            // What is behind rows and columns stays zero from then on.
            self.filled = [rows, columns];
            self.differences.reset(length);
            self.weights.reset(length);
        }
        self.moves.resize(length);
        self.weighted.resize(self.rows * TILE);
        let isa = self.isa;
        let fill = Fill {
            scale,
            rows,
            columns,
            target,
            base,
            band: self,
        };
        match scale.dtype {
            DType::F32 => run(isa, OfWords::<F32>(fill, PhantomData)),
            DType::F16 => run(isa, OfWords::<F16>(fill, PhantomData)),
            _ => run(isa, OfWords::<Bf16>(fill, PhantomData)),
        }
    }

    /// Takes the product of both factors off the differences.
    pub(super) fn subtract(&mut self, rows: &Matrix, columns: &ColumnFactors) {
        let rows = columns_of(&rows.padded(), padded(rows.columns), -1.0);
        let isa = self.isa;
        run(
            isa,
            Expand {
                band: self,
                rows: &rows,
                columns,
                is_move: false,
            },
        );
    }

    /// Moves row factors towards the weighted least squares, and the differences with them.
    ///
    /// The step is that of Newton with one matrix for all rows, `solver`, as long as minimises the weighted squares.
    pub(super) fn step(&mut self, columns: &ColumnFactors, solver: &Floats, rows: &mut Matrix) {
        let (isa, rank) = (self.isa, columns.rank);
        let mut gradient = Floats::new(self.rows * rank);
        run(
            isa,
            Gradient {
                band: self,
                columns,
                out: &mut gradient,
            },
        );
        let mut directions = Floats::new(self.rows * rank);
        let product = Product {
            size: Size {
                rows: self.rows,
                terms: rank,
                columns: rank,
                is_new: true,
            },
            left: Left {
                data: &gradient,
                row_step: rank,
                term_step: 1,
            },
            right: Right {
                data: solver,
                term_step: rank,
            },
            out: &mut directions,
            step: rank,
        };
        run(isa, product);
        let curvatures = self.set_moves(&directions, columns);
        let mut lengths = vec![0.0f32; self.rows];
        let lines = gradient
            .chunks_exact(rank)
            .zip(directions.chunks_exact(rank));
        for (row, (gradient, direction)) in lines.take(rows.rows).enumerate() {
            let slope: f32 = gradient.iter().zip(direction).map(|(g, d)| g * d).sum();
            if curvatures[row] > 0.0 {
                lengths[row] = slope / curvatures[row];
            }
            for (factor, direction) in rows.row_mut(row).iter_mut().zip(direction) {
                *factor += lengths[row] * direction;
            }
        }
        run(
            isa,
            Shift {
                band: self,
                lengths: &lengths,
            },
        );
    }

    /// Sets the moves to the product of some rows with the column factors; returns each row's weighted squares of them.
    fn set_moves(&mut self, rows: &Floats, columns: &ColumnFactors) -> Vec<f32> {
        let rows = &columns_of(rows, columns.rank, 1.0);
        let isa = self.isa;
        run(
            isa,
            Expand {
                band: self,
                rows,
                columns,
                is_move: true,
            },
        )
    }

    /// Adds the gradient of the column factors, the weights of columns and the weighted squares to `sums`; appends the
    /// weights of the rows.
    pub(super) fn gather(&mut self, rows: &Matrix, sums: &mut Sums, row_weights: &mut Vec<f32>) {
        let count = rows.rows;
        let rows = rows.padded();
        let isa = self.isa;
        let gather = Gather {
            band: self,
            rows: &rows,
            sums,
        };
        let weights = run(isa, gather);
        row_weights.extend(&weights[..count]);
    }

    /// How a product of factors lies to the differences: the weighted sums of its products with them, of its squares and
    /// of theirs.
    pub(super) fn compare(&mut self, rows: &Matrix, columns: &ColumnFactors) -> [f64; 3] {
        self.set_moves(&rows.padded(), columns);
        let mut sums = [0.0f64; 3];
        for (start, width) in self.tiles() {
            for row in 0..self.rows {
                for at in start + row * TILE..start + row * TILE + width {
                    let (x, d) = (self.moves[at], self.differences[at]);
                    let weight = self.weights[at];
                    let products = [x * d, x * x, d * d];
                    for (sum, product) in sums.iter_mut().zip(products) {
                        *sum += f64::from(weight * product);
                    }
                }
            }
        }
        sums
    }

    /// Weights times differences, the rows of each column side by side, and how many floats a column takes.
    pub(super) fn weighted_columns(&self) -> (Floats, usize) {
        let width = padded(self.rows);
        let mut out = Floats::new(self.columns * width);
        for (start, count) in self.tiles() {
            for row in 0..self.rows {
                let tile = start + row * TILE..start + row * TILE + count;
                let first = start / self.rows * width + row;
                let lines = out[first..].iter_mut().step_by(width);
                let values = self.weights[tile.clone()]
                    .iter()
                    .zip(&self.differences[tile]);
                for (out, (weight, difference)) in lines.zip(values) {
                    *out = weight * difference;
                }
            }
        }
        (out, width)
    }
}

/// Rows of `width` floats as columns, times `sign`: then floats of neighbouring rows lie side by side, and their places
/// are known when the loop is compiled.
fn columns_of(rows: &[f32], width: usize, sign: f32) -> Floats {
    let count = rows.len() / width;
    let mut out = Floats::new(rows.len());
    for (row, line) in rows.chunks_exact(width).enumerate() {
        for (k, x) in line.iter().enumerate() {
            out[k * count + row] = sign * x;
        }
    }
    out
}
