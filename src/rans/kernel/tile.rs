//! Parts of a few rows, one below the other: what sums behind scales are taken of at a time.

use super::RunScales;

/// Most rows of a tile; the residuals of so many still sum up in 16 bits.
pub(in super::super) const ROWS: usize = 4;

/// The same columns of up to [`ROWS`] rows.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Tile<'a> {
    /// Log magnitudes, those of the first row from the start on.
    pub(in super::super) magnitudes: &'a [u16],
    /// Classes, likewise.
    pub(in super::super) classes: &'a [u8],
    /// Elements from the start of a row to that of the next.
    pub(in super::super) stride: usize,
    /// Scales of classes, in 1/8 octaves.
    pub(in super::super) class: &'a [i8; 32],
    /// Of the columns.
    pub(in super::super) columns: &'a [i8],
    /// Of the rows.
    pub(in super::super) rows: &'a [i8],
}

/// Sums of residuals and of slopes.
pub(in super::super) type Sums = (i32, u32);

impl<'a> Tile<'a> {
    /// The magnitudes, classes and scales of each row.
    pub(super) fn runs(&self) -> impl Iterator<Item = (&'a [u16], &'a [u8], RunScales<'a>)> {
        let tile = *self;
        let width = tile.columns.len();
        tile.rows.iter().enumerate().map(move |(number, &row)| {
            let run = number * tile.stride..number * tile.stride + width;
            let scales = RunScales {
                class: tile.class,
                columns: tile.columns,
                row,
            };
            (&tile.magnitudes[run.clone()], &tile.classes[run], scales)
        })
    }
}
