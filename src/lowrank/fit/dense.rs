//! Small dense linear algebra: what is needed of matrices with a column a component, and of symmetric ones.

use super::floats::{Floats, padded};
use super::lanes::run;
use super::multiply::{Left, Product, ROWS, Right, Size};
use crate::rans::Isa;

/// A matrix of floats, row by row.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Matrix {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) data: Vec<f32>,
}

impl Matrix {
    /// Zeros.
    pub(super) fn new(rows: usize, columns: usize) -> Self {
        Self {
            rows,
            columns,
            data: vec![0.0; rows * columns],
        }
    }

    pub(super) fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.columns..(row + 1) * self.columns]
    }

    pub(super) fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.data[row * self.columns..(row + 1) * self.columns]
    }

    /// As wide as `right`, with the columns of `self` in the place of its first.
    pub(super) fn beside(&self, right: &Self) -> Self {
        let mut out = right.clone();
        for row in 0..self.rows {
            let length = self.columns.min(out.columns);
            out.row_mut(row)[..length].copy_from_slice(&self.row(row)[..length]);
        }
        out
    }

    /// The rows with zeros up to whole blocks and registers.
    pub(super) fn padded(&self) -> Floats {
        let width = padded(self.columns);
        let mut out = Floats::new(self.rows.next_multiple_of(ROWS) * width);
        for row in 0..self.rows {
            out[row * width..][..self.columns].copy_from_slice(self.row(row));
        }
        out
    }

    /// `self * right`, with a small matrix.
    pub(super) fn times(&self, isa: Isa, right: &Small) -> Self {
        let (left, width) = (self.padded(), padded(self.columns));
        let right = right.padded();
        let rows = self.rows.next_multiple_of(ROWS);
        let mut product = Floats::new(rows * width);
        let task = Product {
            size: Size {
                rows,
                terms: self.columns,
                columns: width,
                is_new: true,
            },
            left: Left {
                data: &left,
                row_step: width,
                term_step: 1,
            },
            right: Right {
                data: &right,
                term_step: width,
            },
            out: &mut product,
            step: width,
        };
        run(isa, task);
        let mut out = Self::new(self.rows, self.columns);
        for row in 0..self.rows {
            let line = &product[row * width..][..self.columns];
            out.row_mut(row).copy_from_slice(line);
        }
        out
    }

    /// As [`Self::gram`], in the floats of the matrix.
    pub(super) fn gram_fast(&self, isa: Isa, weight: impl Fn(usize) -> f32) -> Small {
        let right = self.padded();
        let mut left = self.padded();
        let width = padded(self.columns);
        for (row, line) in left.chunks_exact_mut(width.max(1)).enumerate() {
            let weight = if row < self.rows { weight(row) } else { 0.0 };
            line.iter_mut().for_each(|x| *x *= weight);
        }
        let mut out = squares(isa, &left, &right, width, self.columns);
        // What short floats get wrong must not look like a direction.
        let size = self.columns;
        let trace: f64 = (0..size).map(|i| out.at(i, i)).sum();
        (0..size).for_each(|i| out.set(i, i, out.at(i, i) + trace / size as f64 * 1e-6));
        out
    }

    /// The products of all pairs of columns, each row weighted.
    pub(super) fn gram(&self, weight: impl Fn(usize) -> f64) -> Small {
        let mut out = Small::new(self.columns);
        for row in 0..self.rows {
            let (values, weight) = (self.row(row), weight(row));
            for (i, &a) in values.iter().enumerate() {
                let a = weight * f64::from(a);
                let line = &mut out.data[i * out.size..=i * out.size + i];
                for (sum, &b) in line.iter_mut().zip(values) {
                    *sum += a * f64::from(b);
                }
            }
        }
        for i in 0..out.size {
            for j in 0..i {
                out.data[j * out.size + i] = out.data[i * out.size + j];
            }
        }
        out
    }
}

/// Rows that are added up in short floats.
const SHORT_SUM: usize = 256;

/// The products of all pairs of the first `size` columns of two matrices with rows of `width` floats.
pub(super) fn squares(isa: Isa, left: &[f32], right: &[f32], width: usize, size: usize) -> Small {
    let mut out = Small::new(size);
    let mut part = Floats::new(width * width);
    let rows = (SHORT_SUM * width).max(1);
    for (left, right) in left.chunks(rows).zip(right.chunks(rows)) {
        let task = Product {
            size: Size {
                rows: width,
                terms: left.len().min(right.len()) / width,
                columns: width,
                is_new: true,
            },
            left: Left {
                data: left,
                row_step: 1,
                term_step: width,
            },
            right: Right {
                data: right,
                term_step: width,
            },
            out: &mut part,
            step: width,
        };
        run(isa, task);
        for i in 0..size {
            for j in 0..size {
                out.set(i, j, out.at(i, j) + f64::from(part[i * width + j]));
            }
        }
    }
    out
}

/// A square matrix of at most some hundred rows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Small {
    pub(super) size: usize,
    pub(super) data: Vec<f64>,
}

impl Small {
    pub(super) fn new(size: usize) -> Self {
        Self {
            size,
            data: vec![0.0; size * size],
        }
    }

    pub(super) fn at(&self, row: usize, column: usize) -> f64 {
        self.data[row * self.size + column]
    }

    pub(super) fn set(&mut self, row: usize, column: usize, value: f64) {
        self.data[row * self.size + column] = value;
    }

    /// As floats, with zeros up to whole registers.
    pub(super) fn padded(&self) -> Floats {
        let width = padded(self.size);
        let mut out = Floats::new(width * width);
        for row in 0..self.size {
            let line = &self.data[row * self.size..][..self.size];
            for (out, &x) in out[row * width..].iter_mut().zip(line) {
                *out = x as f32;
            }
        }
        out
    }

    pub(super) fn times(&self, right: &Self) -> Self {
        let mut out = Self::new(self.size);
        for i in 0..self.size {
            for k in 0..self.size {
                let left = self.at(i, k);
                for j in 0..self.size {
                    out.data[i * self.size + j] += left * right.at(k, j);
                }
            }
        }
        out
    }

    pub(super) fn transposed(&self) -> Self {
        let mut out = Self::new(self.size);
        for i in 0..self.size {
            for j in 0..self.size {
                out.set(j, i, self.at(i, j));
            }
        }
        out
    }

    /// The lower triangle `L` with `L * Lt` equal to this symmetric matrix, made positive where it is not quite.
    pub(super) fn cholesky(&self) -> Self {
        let trace: f64 = (0..self.size).map(|i| self.at(i, i)).sum();
        let ridge = trace.max(f64::MIN_POSITIVE) / self.size.max(1) as f64 * 1e-7;
        let mut out = Self::new(self.size);
        for i in 0..self.size {
            for j in 0..=i {
                let sum: f64 = (0..j).map(|k| out.at(i, k) * out.at(j, k)).sum();
                let rest = self.at(i, j) - sum;
                let value = if i == j {
                    (rest + ridge).max(ridge).sqrt()
                } else {
                    rest / out.at(j, j)
                };
                out.set(i, j, value);
            }
        }
        out
    }

    /// The inverse of this lower triangle.
    pub(super) fn inverse_of_triangle(&self) -> Self {
        let mut out = Self::new(self.size);
        for column in 0..self.size {
            for row in column..self.size {
                let unit = if row == column { 1.0 } else { 0.0 };
                let sum: f64 = (column..row)
                    .map(|k| self.at(row, k) * out.at(k, column))
                    .sum();
                out.set(row, column, (unit - sum) / self.at(row, row));
            }
        }
        out
    }

    /// The inverse of this symmetric matrix.
    pub(super) fn inverse(&self) -> Self {
        let triangle = self.cholesky().inverse_of_triangle();
        triangle.transposed().times(&triangle)
    }

    /// Eigenvalues of this symmetric matrix, greatest first, and the matrix whose columns are their vectors.
    ///
    /// Jacobi's method: rotations until what is off the diagonal is gone.
    pub(super) fn eigen(&self) -> (Vec<f64>, Self) {
        let n = self.size;
        let mut a = self.clone();
        let mut vectors = Self::new(n);
        (0..n).for_each(|i| vectors.set(i, i, 1.0));
        for _ in 0..30 {
            let off: f64 = (0..n)
                .flat_map(|i| (0..i).map(move |j| (i, j)))
                .map(|(i, j)| a.at(i, j).powi(2))
                .sum();
            let all: f64 = a.data.iter().map(|x| x * x).sum();
            if off <= all * 1e-22 {
                break;
            }
            for p in 0..n {
                for q in p + 1..n {
                    rotate(&mut a, &mut vectors, p, q);
                }
            }
        }
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&i, &j| a.at(j, j).total_cmp(&a.at(i, i)));
        let mut sorted = Self::new(n);
        for (to, &from) in order.iter().enumerate() {
            (0..n).for_each(|row| sorted.set(row, to, vectors.at(row, from)));
        }
        (order.iter().map(|&i| a.at(i, i)).collect(), sorted)
    }
}

/// Makes `a[p][q]` zero by a rotation, which `vectors` follows.
fn rotate(a: &mut Small, vectors: &mut Small, p: usize, q: usize) {
    let off = a.at(p, q);
    if off == 0.0 {
        return;
    }
    let theta = (a.at(q, q) - a.at(p, p)) / (2.0 * off);
    let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let t = if theta == 0.0 { 1.0 } else { t };
    let c = 1.0 / (t * t + 1.0).sqrt();
    let s = t * c;
    for k in 0..a.size {
        let (x, y) = (a.at(k, p), a.at(k, q));
        a.set(k, p, c * x - s * y);
        a.set(k, q, s * x + c * y);
    }
    for k in 0..a.size {
        let (x, y) = (a.at(p, k), a.at(q, k));
        a.set(p, k, c * x - s * y);
        a.set(q, k, s * x + c * y);
    }
    for k in 0..a.size {
        let (x, y) = (vectors.at(k, p), vectors.at(k, q));
        vectors.set(k, p, c * x - s * y);
        vectors.set(k, q, s * x + c * y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symmetric(n: usize) -> Small {
        let mut m = Matrix::new(2 * n, n);
        m.data
            .iter_mut()
            .enumerate()
            .for_each(|(i, x)| *x = ((i * i * 7 % 23) as f32 - 11.0) / 5.0);
        m.gram(|row| 1.0 + row as f64)
    }

    fn is_near(a: &Small, b: &Small) -> bool {
        let scale = a.data.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
        a.data
            .iter()
            .zip(&b.data)
            .all(|(x, y)| (x - y).abs() < 1e-5 * scale)
    }

    #[test]
    fn factors_multiply_to_the_whole() {
        for n in [1, 2, 5, 16] {
            let a = symmetric(n);
            let l = a.cholesky();
            assert!(is_near(&l.times(&l.transposed()), &a));
            let (values, vectors) = a.eigen();
            let mut scaled = vectors.clone();
            for i in 0..n {
                (0..n).for_each(|j| scaled.set(i, j, vectors.at(i, j) * values[j]));
            }
            assert!(is_near(&scaled.times(&vectors.transposed()), &a));
            assert!(values.is_sorted_by(|a, b| a >= b));
            let mut unit = Small::new(n);
            (0..n).for_each(|i| unit.set(i, i, 1.0));
            assert!(is_near(&unit, &vectors.times(&vectors.transposed())));
        }
    }

    #[test]
    fn products_are_those_of_the_definition() {
        for (rows, columns) in [(1, 1), (7, 16), (300, 5), (64, 33)] {
            let mut m = Matrix::new(rows, columns);
            m.data
                .iter_mut()
                .enumerate()
                .for_each(|(i, x)| *x = ((i * i * 7 % 23) as f32 - 11.0) / 5.0);
            let weight = |row: usize| 1.0 + (row % 3) as f32;
            let exact = m.gram(|row| f64::from(weight(row)));
            let mut right = Small::new(columns);
            let values = right.data.iter_mut().enumerate();
            values.for_each(|(i, x)| *x = (i * 5 % 7) as f64 - 3.0);
            for isa in Isa::all() {
                assert!(is_near(&m.gram_fast(isa, weight), &exact));
                let product = m.times(isa, &right);
                for (row, line) in product.data.chunks_exact(columns).enumerate() {
                    for (j, &have) in line.iter().enumerate() {
                        let terms = m.row(row).iter().enumerate();
                        let want: f64 = terms.map(|(k, &x)| f64::from(x) * right.at(k, j)).sum();
                        assert!((f64::from(have) - want).abs() < 1e-3);
                    }
                }
            }
        }
    }
}
