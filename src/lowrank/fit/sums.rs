//! What bands add to a sweep.

use super::dense::Matrix;
use super::floats::{Floats, padded};

/// Sums over the rows of bands.
pub(super) struct Sums {
    /// Components, padded.
    pub(super) rank: usize,
    /// The gradient of each column's factors.
    pub(super) gradient: Floats,
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
