//! Column factors laid out for the loops over a band.

use super::dense::Matrix;
use super::floats::{Floats, padded};
use super::lanes::LANES;

/// Column factors as the loops want them, with zeros up to whole registers.
pub(super) struct ColumnFactors {
    /// Components, padded.
    pub(super) rank: usize,
    /// The components of each column.
    pub(super) lines: Floats,
    /// For every sixteen columns, each component's.
    pub(super) blocks: Floats,
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
