//! Small dense linear algebra: products of views by `matrixmultiply`, and what is needed of symmetric matrices.

/// A matrix of floats, row by row.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Matrix {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) data: Vec<f32>,
}

/// A part of a matrix, perhaps transposed.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    /// Floats from one row, and one column, to the next.
    steps: [usize; 2],
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

    pub(super) fn view(&self) -> View<'_> {
        View {
            data: &self.data,
            rows: self.rows,
            columns: self.columns,
            steps: [self.columns, 1],
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

    /// `self * right`, with a small matrix.
    pub(super) fn times(&self, right: &Small) -> Self {
        let right = right.to_matrix();
        let mut out = Self::new(self.rows, right.columns);
        product(1.0, self.view(), right.view(), 0.0, &mut out);
        out
    }

    /// As [`Self::gram`], in the floats of the matrix.
    pub(super) fn gram_fast(&self, weight: impl Fn(usize) -> f32) -> Small {
        let mut weighted = self.clone();
        for row in 0..self.rows {
            let weight = weight(row);
            weighted.row_mut(row).iter_mut().for_each(|x| *x *= weight);
        }
        let mut out = Self::new(self.columns, self.columns);
        product(
            1.0,
            self.view().transposed(),
            weighted.view(),
            0.0,
            &mut out,
        );
        let data = out.data.iter().map(|&x| f64::from(x)).collect();
        let size = self.columns;
        let mut out = Small { size, data };
        // What short floats get wrong must not look like a direction.
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

impl<'a> View<'a> {
    /// Consecutive rows of `columns` floats each.
    pub(super) fn of(data: &'a [f32], columns: usize) -> Self {
        View {
            data,
            rows: data.len() / columns.max(1),
            columns,
            steps: [columns, 1],
        }
    }

    /// The columns `first`, `first + step` and so on.
    pub(super) fn every(self, step: usize, first: usize) -> Self {
        View {
            data: self.data.get(first * self.steps[1]..).unwrap_or_default(),
            columns: self.columns.saturating_sub(first).div_ceil(step.max(1)),
            steps: [self.steps[0], self.steps[1] * step],
            ..self
        }
    }

    /// Rows become columns.
    pub(super) fn transposed(self) -> Self {
        View {
            rows: self.columns,
            columns: self.rows,
            steps: [self.steps[1], self.steps[0]],
            ..self
        }
    }

    fn is_inside(self) -> bool {
        let last = |count: usize, step: usize| count.saturating_sub(1) * step;
        self.rows == 0
            || self.columns == 0
            || last(self.rows, self.steps[0]) + last(self.columns, self.steps[1]) < self.data.len()
    }
}

/// `out = alpha * left * right + beta * out`; nothing where the sizes do not fit.
#[allow(unsafe_code, clippy::cast_possible_wrap)]
pub(super) fn product(alpha: f32, left: View<'_>, right: View<'_>, beta: f32, out: &mut Matrix) {
    let is_fit =
        left.columns == right.rows && left.rows == out.rows && right.columns == out.columns;
    if !is_fit || !left.is_inside() || !right.is_inside() {
        return;
    }
    // SAFETY: every element of the three matrices lies inside its slice, and `out` is borrowed alone.
    unsafe {
        matrixmultiply::sgemm(
            left.rows,
            left.columns,
            right.columns,
            alpha,
            left.data.as_ptr(),
            left.steps[0] as isize,
            left.steps[1] as isize,
            right.data.as_ptr(),
            right.steps[0] as isize,
            right.steps[1] as isize,
            beta,
            out.data.as_mut_ptr(),
            out.columns as isize,
            1,
        );
    }
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

    fn to_matrix(&self) -> Matrix {
        let data = self.data.iter().map(|&x| x as f32).collect();
        Matrix {
            rows: self.size,
            columns: self.size,
            data,
        }
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
    fn products_of_views() {
        let a = Matrix {
            rows: 2,
            columns: 3,
            data: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        };
        let mut out = Matrix::new(2, 2);
        product(1.0, a.view(), a.view().transposed(), 0.0, &mut out);
        assert_eq!(out.data, [14.0, 32.0, 32.0, 77.0]);
        product(
            -1.0,
            View::of(&a.data, 3),
            a.view().transposed(),
            1.0,
            &mut out,
        );
        assert_eq!(out.data, [0.0; 4]);
        let mut other = Matrix::new(3, 2);
        product(1.0, a.view(), a.view(), 0.0, &mut other);
        assert_eq!(other.data, [0.0; 6], "sizes that do not fit give nothing");
    }
}
