//! Factors become small integers.

use super::super::factors::{LIMIT, Rows, Set};
use super::super::kernel::{Pairs, pair};
use super::dense::{Matrix, Small};
use super::sweep::Factors;
use crate::rans::Isa;

/// Factors whose components are in order, the strongest first.
pub(super) struct Ordered {
    pub(super) factors: Factors,
    /// The root mean square of each component's product.
    pub(super) strengths: Vec<f64>,
    /// The factors of rows and of columns, of each component.
    measures: Vec<[Measure; 2]>,
}

impl Ordered {
    /// The root mean square of the whole product.
    pub(super) fn size(&self) -> f64 {
        let squares = self.strengths.iter().map(|strength| strength * strength);
        squares.sum::<f64>().sqrt()
    }

    /// The least exponent at which no factor of the first `rank` components is too large on both sides.
    pub(super) fn least_exponent(&self, rank: usize, unit: f32) -> u8 {
        let peaks = self
            .measures
            .iter()
            .map(|[row, column]| row.most * column.most);
        let peak = peaks.take(rank).fold(1e-30, f64::max);
        let step = f64::from(unit) * peak / f64::from(LIMIT).powi(2);
        (127.0 + step.log2().ceil()).clamp(1.0, 254.0) as u8
    }
}

/// Turns factors so that components stand at right angles, as in a singular value decomposition.
pub(super) fn order(isa: Isa, factors: &Factors) -> Ordered {
    let rank = factors.columns.columns;
    let row_triangle = factors.rows.gram(|_| 1.0).cholesky();
    let column_triangle = factors.columns.gram(|_| 1.0).cholesky();
    // With rows = Q1 L1t and columns = Q2 L2t, the product is Q1 (L1t L2) Q2t.
    let middle = row_triangle.transposed().times(&column_triangle);
    let (squares, left) = middle.times(&middle.transposed()).eigen();
    let values: Vec<f64> = squares.iter().map(|x| x.max(0.0).sqrt()).collect();
    let scaled = |matrix: &Small, power: f64| {
        let mut out = matrix.clone();
        for k in 0..rank {
            let floor = values
                .first()
                .copied()
                .unwrap_or(0.0)
                .max(f64::MIN_POSITIVE)
                * 1e-9;
            (0..rank)
                .for_each(|i| out.set(i, k, matrix.at(i, k) * values[k].max(floor).powf(power)));
        }
        out
    };
    // rows' = Q1 U S^1/2, columns' = Q2 V S^1/2, with V = middle_t U / S.
    let rows = row_triangle
        .inverse_of_triangle()
        .transposed()
        .times(&scaled(&left, 0.5));
    let right = middle.transposed().times(&scaled(&left, -0.5));
    let columns = column_triangle
        .inverse_of_triangle()
        .transposed()
        .times(&right);
    let factors = Factors {
        rows: factors.rows.times(isa, &rows),
        columns: factors.columns.times(isa, &columns),
    };
    let size = (factors.rows.rows * factors.columns.rows).max(1) as f64;
    let strengths = values.iter().map(|value| value / size.sqrt()).collect();
    let measures = measure(&factors.rows)
        .into_iter()
        .zip(measure(&factors.columns))
        .map(|(row, column)| [row, column])
        .collect();
    Ordered {
        factors,
        strengths,
        measures,
    }
}

/// Factors as integers: those of columns, and how to get those of rows.
#[derive(Clone)]
pub(super) struct Quantised {
    pub(super) set: Set,
    /// What each component's row factors are multiplied by.
    pub(super) scales: Vec<f32>,
    /// Bits of all factors, about.
    pub(super) bits: f64,
    /// Whether products are rounded before they are added.
    pub(super) rounded: bool,
}

/// Quantises the first `rank` components so that sums times `2^(exponent - 127)` are differences.
pub(super) fn quantise(ordered: &Ordered, rank: usize, exponent: u8, unit: f32) -> Quantised {
    let gain = f64::from(unit) / f64::from(f32::from_bits(u32::from(exponent) << 23));
    let limit = f64::from(LIMIT);
    let (mut scales, mut column_scales) = (Vec::new(), Vec::new());
    let mut bits = 0.0;
    for [row, column] in ordered.measures.iter().take(rank) {
        // Equal sizes on both sides, unless one would be too large.
        let even = (gain * column.rms / row.rms).sqrt();
        let row_scale = even.min(limit / row.most);
        let column_scale = (gain / row_scale).min(limit / column.most);
        let row_scale = (gain / column_scale).min(limit / row.most);
        bits += row.bits(row_scale) + column.bits(column_scale);
        scales.push(row_scale as f32);
        column_scales.push(column_scale as f32);
    }
    let columns = &ordered.factors.columns;
    let mut words = vec![0u32; rank.div_ceil(2) * columns.rows];
    for column in 0..columns.rows {
        let mut at = column;
        for_each_pair(columns.row(column), &column_scales, |pair| {
            words[at] = pair;
            at += columns.rows;
        });
    }
    let pairs = Pairs {
        words,
        columns: columns.rows,
    };
    Quantised {
        set: Set {
            rank,
            exponent,
            pairs,
        },
        scales,
        bits,
        rounded: false,
    }
}

/// Rounds factors times their scales, and hands on two at a time.
#[inline]
fn for_each_pair(factors: &[f32], scales: &[f32], mut each: impl FnMut(u32)) {
    let pairs = factors.chunks(2).zip(scales.chunks(2));
    for (factors, scales) in pairs {
        let mut pair_of = [0i16; 2];
        for (out, (factor, scale)) in pair_of.iter_mut().zip(factors.iter().zip(scales)) {
            *out = rounded(factor * scale);
        }
        each(pair(pair_of[0], pair_of[1]));
    }
}

/// The nearest integer, within the limit.
#[inline]
fn rounded(x: f32) -> i16 {
    // A float of this size has no place for fractions: the sum is rounded, without a call that takes longer.
    const WHOLE: f32 = 12_582_912.0;
    let limit = f32::from(LIMIT);
    ((x.clamp(-limit, limit) + WHOLE) - WHOLE) as i16
}

#[derive(Clone, Copy)]
struct Measure {
    rms: f64,
    most: f64,
    count: f64,
}

impl Measure {
    /// The entropy of normal numbers times `scale`, rounded.
    fn bits(&self, scale: f64) -> f64 {
        self.count * (1.0 + 4.13 * self.rms * scale).log2()
    }
}

/// Measures each column of a matrix.
fn measure(matrix: &Matrix) -> Vec<Measure> {
    let mut sums = vec![(0.0f64, 0.0f32); matrix.columns];
    for row in 0..matrix.rows {
        for ((sum, most), &x) in sums.iter_mut().zip(matrix.row(row)) {
            *sum += f64::from(x) * f64::from(x);
            *most = most.max(x.abs());
        }
    }
    let count = matrix.rows as f64;
    let measured = sums.into_iter().map(|(sum, most)| Measure {
        rms: (sum / count.max(1.0)).sqrt().max(1e-30),
        most: f64::from(most).max(1e-30),
        count,
    });
    measured.collect()
}

impl Quantised {
    /// The factors of some rows, as the predictor wants them.
    pub(super) fn rows(&self, ordered: &Ordered, rows: impl Iterator<Item = usize>) -> Rows {
        let stride = self.set.rank.div_ceil(2);
        let mut words = Vec::new();
        for row in rows {
            for_each_pair(ordered.factors.rows.row(row), &self.scales, |pair| {
                words.push(pair);
            });
        }
        Rows {
            first: 0,
            stride,
            words,
        }
    }
}
