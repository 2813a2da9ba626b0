//! A band: some rows of a tensor and its base as numbers, and what a sweep does with them.
//!
//! Numbers lie in *tiles* of 64 columns, row after row, so that what belongs to a tile stays in the first cache. What
//! rows and columns lack to whole tiles is filled with numbers of no weight.

use super::super::kernel::{Bf16, F16, F32, Word};
use super::dense::Matrix;
use super::floats::{Floats, padded};
use super::lanes::{LANES, Lanes, Task, run};
use super::multiply::{Left, Product, ROWS, Right, Size, add_product};
use super::units::Units;
use crate::dtype::DType;
use crate::rans::Isa;

/// Columns of a tile.
const TILE: usize = 64;

/// Differences of some rows, and how much each of them says.
pub(super) struct Band {
    isa: Isa,
    /// Buffers for the words.
    pub(super) bytes: [Vec<u8>; 2],
    /// Rows, a multiple of [`ROWS`].
    rows: usize,
    /// Columns, a multiple of [`LANES`].
    columns: usize,
    /// Rows and columns that are not padding.
    filled: [usize; 2],
    /// Target less base, in units of [`Units::one`].
    differences: Floats,
    /// The inverse of the variance of each difference.
    weights: Floats,
    /// What some row factors make of the column factors.
    moves: Floats,
    /// Weights times differences, of a tile.
    weighted: Floats,
}

/// What differences are taken for.
#[derive(Clone, Copy)]
pub(super) struct Scale {
    pub(super) dtype: DType,
    pub(super) units: Units,
    /// The variance of the residuals beside the rounding, in squared units.
    pub(super) variance: f32,
}

/// Column factors as the loops want them, with zeros up to whole registers.
pub(super) struct ColumnFactors {
    /// Components, padded.
    rank: usize,
    /// The components of each column.
    lines: Floats,
    /// For every sixteen columns, each component's.
    blocks: Floats,
}

impl ColumnFactors {
    pub(super) fn new(columns: &Matrix) -> Self {
        let (rank, count) = (padded(columns.columns), padded(columns.rows));
        let (mut lines, mut blocks) = (Floats::new(count * rank), Floats::new(count * rank));
        for column in 0..columns.rows {
            let values = columns.row(column);
            lines[column * rank..][..values.len()].copy_from_slice(values);
            let block = &mut blocks[column / LANES * LANES * rank..][..LANES * rank];
            for (k, &value) in values.iter().enumerate() {
                block[k * LANES + column % LANES] = value;
            }
        }
        Self {
            rank,
            lines,
            blocks,
        }
    }
}

/// What bands add to a sweep.
pub(super) struct Sums {
    /// Components, padded.
    rank: usize,
    /// The gradient of each column's factors.
    gradient: Floats,
    /// The sum of weights of each column.
    pub(super) columns: Floats,
    /// The weighted squares of all residuals.
    pub(super) squares: f64,
}

impl Sums {
    /// Nothing yet, for so many components and columns.
    pub(super) fn new(rank: usize, columns: usize) -> Self {
        let (rank, columns) = (padded(rank), padded(columns));
        Self {
            rank,
            gradient: Floats::new(rank * columns),
            columns: Floats::new(columns),
            squares: 0.0,
        }
    }

    /// Adds those of other bands.
    pub(super) fn add(&mut self, other: &Self) {
        for (sum, more) in self.gradient.iter_mut().zip(other.gradient.iter()) {
            *sum += more;
        }
        for (sum, more) in self.columns.iter_mut().zip(other.columns.iter()) {
            *sum += more;
        }
        self.squares += other.squares;
    }

    /// The gradient of some columns' first components.
    pub(super) fn gradient(&self, columns: usize, rank: usize) -> Matrix {
        let mut out = Matrix::new(columns, rank);
        for column in 0..columns {
            let line = &self.gradient[column * self.rank..][..rank];
            out.row_mut(column).copy_from_slice(line);
        }
        out
    }
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
    fn tiles(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
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
            DType::F32 => run(isa, OfWords::<F32>(fill, std::marker::PhantomData)),
            DType::F16 => run(isa, OfWords::<F16>(fill, std::marker::PhantomData)),
            _ => run(isa, OfWords::<Bf16>(fill, std::marker::PhantomData)),
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
struct Fill<'a> {
    scale: Scale,
    rows: usize,
    columns: usize,
    target: &'a [u8],
    base: &'a [u8],
    band: &'a mut Band,
}

struct OfWords<'a, W>(Fill<'a>, std::marker::PhantomData<W>);

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
struct Expand<'a> {
    band: &'a mut Band,
    /// Component by component.
    rows: &'a Floats,
    columns: &'a ColumnFactors,
    is_move: bool,
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
struct Gradient<'a> {
    band: &'a mut Band,
    columns: &'a ColumnFactors,
    out: &'a mut Floats,
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
struct Shift<'a> {
    band: &'a mut Band,
    lengths: &'a [f32],
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
struct Gather<'a> {
    band: &'a mut Band,
    rows: &'a Floats,
    sums: &'a mut Sums,
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
