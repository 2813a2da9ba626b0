//! Factors become small integers.

use super::super::factors::{LIMIT, Rows, Set};
use super::super::kernel::pair;
use super::dense::{Matrix, Small};
use super::sweep::Factors;
use crate::rans::Isa;

/// Factors whose components are in order, the strongest first.
pub(super) struct Ordered {
    pub(super) factors: Factors,
    /// The root mean square of each component's product.
    pub(super) strengths: Vec<f64>,
    /// The greatest product of each component.
    peaks: Vec<f64>,
}

impl Ordered {
    /// The least exponent at which no factor of the first `rank` components is too large on both sides.
    pub(super) fn least_exponent(&self, rank: usize, unit: f32) -> u8 {
        let peak = self.peaks.iter().take(rank).copied().fold(1e-30, f64::max);
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
    let peak = |k| measure(&factors.rows, k).most * measure(&factors.columns, k).most;
    let peaks = (0..rank).map(peak).collect();
    Ordered {
        factors,
        strengths,
        peaks,
    }
}

/// Factors as integers.
#[derive(Clone)]
pub(super) struct Quantised {
    pub(super) set: Set,
    /// Of all rows, component by component.
    pub(super) rows: Vec<i16>,
    pub(super) count: usize,
    /// Bits of all factors, about.
    pub(super) bits: f64,
    /// Whether products are rounded before they are added.
    pub(super) rounded: bool,
}

/// Quantises the first `rank` components so that sums times `2^(exponent - 127)` are differences.
pub(super) fn quantise(ordered: &Ordered, rank: usize, exponent: u8, unit: f32) -> Quantised {
    let (rows, columns) = (&ordered.factors.rows, &ordered.factors.columns);
    let gain = f64::from(unit) / f64::from(f32::from_bits(u32::from(exponent) << 23));
    let mut out = (Vec::new(), Vec::new());
    let mut bits = 0.0;
    for k in 0..rank {
        let [row, column] = [measure(rows, k), measure(columns, k)];
        // Equal sizes on both sides, unless one would be too large.
        let limit = f64::from(LIMIT);
        let even = (gain * column.rms / row.rms).sqrt();
        let row_scale = even.min(limit / row.most);
        let column_scale = (gain / row_scale).min(limit / column.most);
        let row_scale = (gain / column_scale).min(limit / row.most);
        bits += row.bits(row_scale) + column.bits(column_scale);
        round(rows, k, row_scale, &mut out.0);
        round(columns, k, column_scale, &mut out.1);
    }
    let set = Set::new(rank, exponent, columns.rows, &out.1);
    Quantised {
        set,
        rows: out.0,
        count: rows.rows,
        bits,
        rounded: false,
    }
}

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

fn measure(matrix: &Matrix, k: usize) -> Measure {
    let column = matrix
        .data
        .iter()
        .skip(k)
        .step_by(matrix.columns.max(1))
        .map(|&x| f64::from(x));
    let (mut sum, mut most) = (0.0, 0.0f64);
    column.for_each(|x| {
        sum += x * x;
        most = most.max(x.abs());
    });
    let count = matrix.rows as f64;
    Measure {
        rms: (sum / count.max(1.0)).sqrt().max(1e-30),
        most: most.max(1e-30),
        count,
    }
}

fn round(matrix: &Matrix, k: usize, scale: f64, out: &mut Vec<i16>) {
    let limit = f64::from(LIMIT);
    let column = matrix.data.iter().skip(k).step_by(matrix.columns.max(1));
    out.extend(column.map(|&x| (f64::from(x) * scale).round().clamp(-limit, limit) as i16));
}

impl Quantised {
    /// The factors of the given rows, as the predictor wants them.
    pub(super) fn rows_of(&self, rows: impl Iterator<Item = usize>) -> Rows {
        let stride = self.set.rank.div_ceil(2);
        let factor = |row: usize, k: usize| {
            let at = k * self.count + row;
            self.rows
                .get(at)
                .copied()
                .filter(|_| k < self.set.rank)
                .unwrap_or(0)
        };
        let words = rows.flat_map(|row| {
            (0..stride).map(move |k| pair(factor(row, 2 * k), factor(row, 2 * k + 1)))
        });
        Rows {
            first: 0,
            stride,
            words: words.collect(),
        }
    }
}
