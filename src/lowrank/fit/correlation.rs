//! A cheap look for anything of low rank: are the differences of some rows alike?
//!
//! Rows of independent differences have products that are as often negative as positive, in every part of their
//! columns anew. A component of low rank gives a pair of rows the same sign of product in all parts. So the products
//! of one part's with another's, summed over all pairs of rows, vanish without such a component, whatever the sizes of
//! rows, columns and single differences; with some they sum up to the squares of the components' shares.

use super::Bands;
use super::band::{Band, Scale};
use super::dense::squares;
use super::sweep::Grid;
use super::units::Units;
use crate::rans::Isa;

/// Rows looked at, in runs of as many that lie side by side, so that few chunks of a base are decoded.
const ROWS: usize = 32;
const RUN: usize = 8;

/// Elements that units are taken from.
const SAMPLED: usize = 1 << 11;

/// Parts of the columns, each every so manieth column.
const PARTS: usize = 4;

/// What was seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Correlation {
    /// About the sum of the squares of all components' shares of the differences' squares.
    pub(super) share: f64,
    /// The same in standard deviations of what chance makes of independent differences.
    pub(super) deviations: f64,
    /// The part of the elements that differ.
    pub(super) changed: f64,
}

impl Correlation {
    /// Tells whether looking closer at such a matrix is worth the time.
    ///
    /// A component's factors cost bits as the sum of the reciprocals of both sides, its share has to be worth them; where
    /// few elements differ it saves fewer bits. In real fine-tunes nothing was gained with less than is asked for here.
    pub(super) fn is_sign(self, grid: &Grid) -> bool {
        let worth = (self.changed / MANY_CHANGED).clamp(f64::MIN_POSITIVE, 1.0);
        let cost = (1.0 / grid.rows as f64 + 1.0 / grid.columns as f64) / worth;
        let least = (LEAST_BY_COST * cost * cost).max(LEAST_SHARE);
        self.share > least && self.deviations > LEAST_DEVIATIONS
    }
}

/// The least share: over the squared cost of factors, and at all.
const LEAST_BY_COST: f64 = 300.0;
const LEAST_SHARE: f64 = 1e-4;

/// The part of elements that differ from which on components save all the bits they can.
const MANY_CHANGED: f64 = 0.15;

/// Independent differences reach this by chance once in 700 times.
const LEAST_DEVIATIONS: f64 = 3.0;

/// Looks at some rows of a matrix.
pub(super) fn correlation<B: Bands>(grid: &Grid, bands: &B) -> Result<Correlation, B::Error> {
    let (target, base) = rows(grid, bands)?;
    let mut band = Band::new(grid.isa);
    let units = Units::of(grid.dtype, &target, &base, SAMPLED);
    let scale = Scale {
        dtype: grid.dtype,
        units,
        variance: 1.0,
    };
    band.fill(scale, grid.columns, &target, &base);
    let (columns, width) = band.weighted_columns();
    let count = grid.rows.min(ROWS);
    let changed = columns.iter().filter(|&&x| x != 0.0).count();
    Ok(Correlation {
        changed: changed as f64 / (grid.columns * count).max(1) as f64,
        ..compare(grid.isa, &columns, width, count)
    })
}

/// Reads the rows: all of a small matrix, else runs that are spread evenly.
fn rows<B: Bands>(grid: &Grid, bands: &B) -> Result<(Vec<u8>, Vec<u8>), B::Error> {
    let (mut target, mut base, mut bytes) = (Vec::new(), Vec::new(), Default::default());
    let mut read = |from: usize, to: usize| {
        bands.read(from, to, &mut bytes, &mut |t, b| {
            target.extend_from_slice(t);
            base.extend_from_slice(b);
        })
    };
    if grid.rows <= ROWS {
        read(0, grid.rows)?;
    } else {
        let runs = ROWS / RUN;
        for run in 0..runs {
            let from = (grid.rows - RUN) * (2 * run + 1) / (2 * runs);
            read(from, from + RUN)?;
        }
    }
    Ok((target, base))
}

/// Compares the products of pairs of `count` rows in one part of the columns with those in the others; every column takes
/// `width` floats.
fn compare(isa: Isa, columns: &[f32], width: usize, count: usize) -> Correlation {
    let (mut sums, mut squared) = (vec![0.0f64; count * count], vec![0.0f64; count * count]);
    let mut part = Vec::with_capacity(columns.len() / PARTS + width);
    for first in 0..PARTS {
        part.clear();
        let lines = columns.chunks_exact(width).skip(first).step_by(PARTS);
        lines.for_each(|line| part.extend_from_slice(line));
        let products = squares(isa, &part, &part, width, count);
        for ((sum, square), x) in sums.iter_mut().zip(&mut squared).zip(&products.data) {
            *sum += x;
            *square += x * x;
        }
    }
    let (mut total, mut spread, mut pairs) = (0.0, 0.0, 0.0f64);
    for i in 0..count {
        for j in 0..i {
            // Every row as if it had the length 1, but for those that are zero.
            let lengths = sums[i * (count + 1)] * sums[j * (count + 1)];
            if lengths <= 0.0 {
                continue;
            }
            let at = i * count + j;
            let cross = (sums[at].powi(2) - squared[at]) / lengths;
            total += cross;
            spread += cross * cross;
            pairs += 1.0;
        }
    }
    let parts = PARTS as f64;
    Correlation {
        share: total / pairs.max(1.0) * parts / (parts - 1.0),
        deviations: total / spread.sqrt().max(f64::MIN_POSITIVE),
        changed: 1.0,
    }
}
