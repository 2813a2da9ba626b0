//! Parts of a few rows, one below the other: what sums behind scales are taken of at a time.

use super::{Link, RunScales, scalar};

/// Most rows of a tile; the residuals of so many still sum up in 16 bits.
pub(in super::super) const ROWS: usize = 4;

/// Bound of a residual.
pub(super) const MOST: i16 = 8191;

// Residuals of all rows of a tile, and slopes of at most 2048, are summed up in 16 bits.
const _: () = assert!(ROWS * MOST as usize <= i16::MAX as usize);

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

#[cfg_attr(
    not(target_arch = "x86_64"),
    expect(dead_code, reason = "only loops over vectors need it")
)]
impl Tile<'_> {
    /// How many columns there are to sum up.
    ///
    /// # Panics
    /// If there are not `N` rows of so many columns.
    pub(super) fn width<const N: usize>(&self, columns: &(&mut [i32], &mut [u32])) -> usize {
        let width = self.columns.len().min(columns.0.len());
        let width = width.min(columns.1.len());
        let needed = self.stride.saturating_mul(N - 1).saturating_add(width);
        let least = self.magnitudes.len().min(self.classes.len());
        assert!(self.rows.len() == N && least >= needed);
        width
    }

    /// Adds what there is from the column `from` on to `sums` and to the columns, element by element.
    pub(super) fn add_rest(
        &self,
        from: usize,
        link: &Link,
        columns: (&mut [i32], &mut [u32]),
        sums: &mut [Sums],
    ) {
        let width = self.columns.len();
        for (sums, (magnitudes, classes, scales)) in sums.iter_mut().zip(self.runs()) {
            let scales = RunScales {
                columns: &scales.columns[from..width],
                ..scales
            };
            let columns = (&mut columns.0[from..], &mut columns.1[from..]);
            let (magnitudes, classes) = (&magnitudes[from..], &classes[from..]);
            let (residual, slope) = scalar::residuals(magnitudes, classes, &scales, link, columns);
            *sums = (sums.0 + residual, sums.1 + slope);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Isa, Link};
    use super::*;

    /// Sums of a tile of so many columns and rows at both ends of what magnitudes, means and scales can be, `turn` telling which.
    fn sums(
        isa: Isa,
        width: usize,
        count: usize,
        turn: usize,
    ) -> (Vec<i32>, Vec<u32>, [Sums; ROWS]) {
        let stride = width + 5;
        let ends = |i: usize| {
            if turn == 2 {
                i.is_multiple_of(3)
            } else {
                turn == 1
            }
        };
        let magnitudes: Vec<u16> = (0..ROWS * stride)
            .map(|i| if ends(i) { u16::MAX / 2 } else { 0 })
            .collect();
        let classes: Vec<u8> = (0..ROWS * stride).map(|i| (i % 32) as u8).collect();
        let link = Link {
            offset: if turn == 1 { i16::MIN } else { i16::MAX },
            mean: std::array::from_fn(|bin| if ends(bin) { i16::MIN } else { i16::MAX }),
            slope: [2048; 64],
        };
        let columns: Vec<i8> = (0..width)
            .map(|i| if ends(i) { 127 } else { -127 })
            .collect();
        let tile = Tile {
            magnitudes: &magnitudes,
            classes: &classes,
            stride,
            class: &std::array::from_fn(|class| 4 * class as i8),
            columns: &columns,
            rows: &[127, -127, 0, 1][..count],
        };
        let (mut residuals, mut slopes, mut rows) =
            (vec![0; width], vec![0; width], [(0, 0); ROWS]);
        isa.sum_residuals(
            &tile,
            &link,
            (&mut residuals, &mut slopes),
            &mut rows[..count],
        );
        (residuals, slopes, rows)
    }

    #[test]
    fn extreme_residuals_are_summed_up_alike() {
        let mut largest = 0;
        let cases = (0..100).flat_map(|width| (1..=ROWS).map(move |count| (width, count)));
        for (width, count) in cases {
            for turn in 0..3 {
                let expected = sums(Isa::Scalar, width, count, turn);
                let sizes = expected.0.iter().map(|sum| sum.abs());
                largest = sizes.max().unwrap_or(0).max(largest);
                for isa in Isa::all() {
                    let found = sums(isa, width, count, turn);
                    assert_eq!(found, expected, "{isa:?}, {width} by {count}, {turn}");
                }
            }
        }
        assert_eq!(largest, 4 * 8191);
    }
}
