//! Fits scales: how large elements of each class, row and column are expected to be, in 1/8 octaves.
//!
//! The model: the mean log magnitude of an element is `mean[scale(class) + scale(column) + scale(row)]`, where `mean`
//! is that of a normal variable rounded to integers. Newton steps on sums of residuals; all in integers, so that the
//! same scales come out on every machine.
#![allow(
    clippy::indexing_slicing,
    reason = "rows, columns and classes are those of the grid"
)]

use super::Grid;
use super::choose::Fitting;
use super::kernel::{Isa, Link, TILE_ROWS, Tile};
use super::parts::Parts;
use super::tiles;
use super::token::CLASSES;

/// Scales of classes, rows and columns.
#[derive(Clone, Debug)]
pub(super) struct Scales {
    pub(super) class: [i8; CLASSES],
    pub(super) rows: Vec<i8>,
    pub(super) columns: Vec<i8>,
}

/// Steps of the scale: bins of two.
const STEPS: usize = 128;

/// Mean of the log magnitude `128 * log2(1 + |x|)`, by straight lines between powers of two, of x = round(N(0, s)),
/// s = 2^((i - 40) / 8), in units of 2^-11 octaves. Below i = 23 it falls by a third a step instead of as the
/// normal tail, since rare changes are more frequent than that.
const MEANS: [i16; 105] = [
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 3, 5, 7, 11, 17, 26, 39, 60, 93, 137, 190, 252,
    322, 399, 480, 565, 653, 742, 832, 924, 1017, 1112, 1210, 1310, 1414, 1520, 1631, 1746, 1864,
    1987, 2115, 2246, 2381, 2521, 2665, 2813, 2965, 3121, 3282, 3446, 3615, 3787, 3963, 4143, 4326,
    4513, 4703, 4897, 5094, 5294, 5496, 5702, 5910, 6120, 6334, 6549, 6767, 6987, 7210, 7434, 7660,
    7887, 8117, 8348, 8581, 8815, 9050, 9286, 9524, 9763, 10003, 10244, 10486, 10729, 10973, 11218,
    11463, 11709, 11956, 12203, 12451, 12699, 12948, 13197, 13447, 13697, 13947, 14198, 14449,
];

/// A step in 2^-11 octaves.
const STEP: i32 = 2048 / 8;

/// The mean at a step, beyond the table by its asymptote.
fn mean_at(step: i32) -> i32 {
    let last = MEANS.len() as i32 - 1;
    let inside = MEANS[step.clamp(0, last) as usize];
    i32::from(inside) + (step - last).max(0) * STEP
}

/// The link of differences, its window of 16 octaves raised by `octaves`.
pub(super) fn delta_link(octaves: i32) -> Link {
    link(octaves * 128, |step| {
        mean_at(step + 8 * octaves) - octaves * 2048
    })
}

/// The link of words alone: scale and mean log magnitude are one, the window's middle at `middle` 2^-7 octaves.
pub(super) fn solo_link(middle: i32) -> Link {
    link(middle, |step| (step - STEPS as i32 / 2) * STEP)
}

fn link(offset: i32, mean: impl Fn(i32) -> i32) -> Link {
    let mut out = Link {
        offset: offset as i16,
        mean: [0; 64],
        slope: [0; 64],
    };
    for (bin, (m, s)) in out.mean.iter_mut().zip(&mut out.slope).enumerate() {
        let step = 2 * bin as i32;
        *m = i32::midpoint(mean(step), mean(step + 1)) as i16;
        *s = ((mean(step + 3) - mean(step - 2)) * 8 / 5).clamp(1, 2048) as u16;
    }
    out
}

/// The step at which the expected log magnitude, in 2^-11 octaves, reaches `mean`.
fn step_of(link: &Link, mean: i32) -> i8 {
    let bin = link.mean.partition_point(|&m| i32::from(m) < mean);
    (2 * bin).min(STEPS - 1) as i8
}

/// Sums of residuals and slopes of one class, row or column.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    residual: i64,
    slope: i64,
}

impl Sums {
    fn new(residual: i32, slope: u32) -> Self {
        Self {
            residual: i64::from(residual),
            slope: i64::from(slope),
        }
    }

    /// What so many times as many elements would sum up to.
    fn times(self, times: usize) -> Self {
        Self {
            residual: self.residual * times as i64,
            slope: self.slope * times as i64,
        }
    }

    fn add(&mut self, other: Self) {
        self.residual += other.residual;
        self.slope += other.slope;
    }

    /// Moves a column's scale, but for the step that all rows have taken already.
    fn move_column(self, scale: &mut i8, common: i64, limit: i64) {
        let step = (self.step(2 * limit) - common).clamp(-limit, limit);
        *scale = (i64::from(*scale) + step).clamp(-127, 127) as i8;
    }

    /// A Newton step in 1/8 octaves, held back where there is little evidence.
    fn step(self, limit: i64) -> i64 {
        let numerator = 8 * self.residual;
        let denominator = (self.slope + HOLD).max(1);
        let half = if numerator < 0 {
            -denominator / 2
        } else {
            denominator / 2
        };
        ((numerator + half) / denominator).clamp(-limit, limit)
    }
}

/// Slope that is added to every sum: that of about a hundred elements whose changes are large.
const HOLD: i64 = 96 * 2048;

/// Fits class scales alone.
pub(super) fn fit_classes(parts: &Parts, link: &Link) -> [i8; CLASSES] {
    let sums = class_sums(parts);
    let mut out = [0i8; CLASSES];
    let mut last = 64i8;
    for (scale, (sum, count)) in out.iter_mut().zip(sums) {
        let sum = (sum - i64::from(link.offset) * count) << 4;
        // A class without elements is expected an octave above the one before it.
        last = if count == 0 {
            last.saturating_add(8)
        } else {
            step_of(link, (sum / count) as i32)
        };
        *scale = last;
    }
    out
}

/// The sum of a sample's log magnitudes, and their number, by class.
fn class_sums(parts: &Parts) -> [(i64, i64); CLASSES] {
    /// Where the number lies above the sum of so many magnitudes of 16 bits as a sample has.
    const NUMBER: u32 = 40;
    // Neighbours are often of one class: four tables keep one sum from waiting for the last.
    let mut tables = [[0u64; 4]; CLASSES];
    for run in sample(parts.tokens.len()) {
        let elements = parts.classes[run.clone()]
            .iter()
            .zip(&parts.magnitudes[run]);
        for (i, (&class, &magnitude)) in elements.enumerate() {
            tables[usize::from(class & 31)][i % 4] += (1 << NUMBER) + u64::from(magnitude);
        }
    }
    tables.map(|sums| {
        let sum: u64 = sums.iter().sum();
        ((sum & ((1 << NUMBER) - 1)) as i64, (sum >> NUMBER) as i64)
    })
}

/// Runs of 64 elements, about one in sixteen, spread so that they do not follow the rows.
pub(super) fn sample(elements: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let runs = elements.div_ceil(64);
    (0..runs)
        .filter(move |&run| runs <= 64 || (run as u32).wrapping_mul(0x9E37_79B1) >> 28 == 0)
        .map(move |run| run * 64..(run * 64 + 64).min(elements))
}

/// Fits row and column scales in sweeps over the chunk; classes keep theirs.
pub(super) fn fit(fitting: &Fitting<'_>, parts: &Parts, class: [i8; CLASSES]) -> Scales {
    let &Fitting {
        isa, grid, link, ..
    } = fitting;
    let (sweeps, first) = (fitting.sweeps(), fitting.effort.sampled_part());
    let elements = parts.tokens.len();
    let mut scales = Scales {
        class,
        rows: vec![0; grid.rows(elements)],
        columns: vec![0; grid.row_len.min(elements)],
    };
    for number in 0..sweeps {
        let one_of = if number + 1 < sweeps { first } else { 1 };
        let sums = sweep(isa, parts, grid, link, &scales, one_of);
        let limit = limit(number);
        // Rows take up what is common to all; columns take only what is left.
        let common = update_rows(&mut scales.rows, &sums.rows, limit);
        update_columns(&mut scales.columns, &sums.columns, common, limit);
    }
    scales
}

/// Fits row scales to those of columns in `sweeps` passes over the chunk; returns the last one's sums.
pub(super) fn fit_rows(
    isa: Isa,
    parts: &Parts,
    grid: Grid,
    link: &Link,
    scales: &mut Scales,
    sweeps: u32,
) -> Swept {
    let rows = grid.rows(parts.tokens.len());
    scales.rows.clear();
    scales.rows.resize(rows, 0);
    let mut last = Swept::default();
    for number in 0..sweeps {
        last = sweep(isa, parts, grid, link, scales, 1);
        last.common = update_rows(&mut scales.rows, &last.rows, limit(number));
    }
    last
}

/// The most that a scale moves in a sweep, in 1/8 octaves.
fn limit(sweep: u32) -> i64 {
    if sweep == 0 { 16 } else { 8 }
}

/// What a pass over a chunk sums up.
#[derive(Clone, Debug, Default)]
pub(super) struct Swept {
    rows: Vec<Sums>,
    columns: (Vec<i32>, Vec<u32>),
    /// The step that all rows have in common.
    common: i64,
}

impl Swept {
    /// About how many bits column scales of its own would save a chunk beyond what chance explains.
    ///
    /// A residual `r` of a sum with slope `s` moves a scale by `r / s` octaves; in a normal variable that is worth
    /// `ln 2 (r / s)^2` bits an element, of which there are `s / 2048`. Chance alone gives a column not quite two bits.
    pub(super) fn column_gain(&self) -> i64 {
        let mut sums = ColumnSums::default();
        sums.add(self);
        let gain = |sums: &Sums| {
            let residual = i128::from(sums.residual);
            (residual * residual * 69 / 100 / (2048 * i128::from(sums.slope.max(1)))) as i64 - 2
        };
        sums.0.iter().map(gain).sum()
    }
}

/// Sums residuals and slopes of rows and columns, of all elements or of one of so many parts of them, which stands for all.
fn sweep(
    isa: Isa,
    parts: &Parts,
    grid: Grid,
    link: &Link,
    scales: &Scales,
    one_of: usize,
) -> Swept {
    let one_of = tiles::part(grid, one_of);
    let mut columns = (vec![0i32; grid.row_len], vec![0u32; grid.row_len]);
    let mut rows = vec![Sums::default(); scales.rows.len()];
    for (start, tile_rows, within) in tiles::of(grid, parts.tokens.len(), one_of) {
        let tile = Tile {
            magnitudes: &parts.magnitudes[start..],
            classes: &parts.classes[start..],
            stride: grid.row_len,
            class: &scales.class,
            columns: &scales.columns[within.clone()],
            rows: &scales.rows[tile_rows.clone()],
        };
        let mut sums = [(0, 0); TILE_ROWS];
        let sums = &mut sums[..tile_rows.len()];
        let of_columns = (&mut columns.0[within.clone()], &mut columns.1[within]);
        isa.sum_residuals(&tile, link, of_columns, sums);
        for (row, &mut (residual, slope)) in rows[tile_rows].iter_mut().zip(sums) {
            row.add(Sums::new(residual, slope).times(one_of));
        }
    }
    columns.0.iter_mut().for_each(|sum| *sum *= one_of as i32);
    columns.1.iter_mut().for_each(|sum| *sum *= one_of as u32);
    Swept {
        rows,
        columns,
        common: 0,
    }
}

/// Returns the step that all rows have in common.
fn update_rows(scales: &mut [i8], rows: &[Sums], limit: i64) -> i64 {
    let mut all = Sums::default();
    for (scale, sums) in scales.iter_mut().zip(rows) {
        all.add(*sums);
        *scale = (i64::from(*scale) + sums.step(limit)).clamp(-127, 127) as i8;
    }
    all.step(limit)
}

fn update_columns(scales: &mut [i8], columns: &(Vec<i32>, Vec<u32>), common: i64, limit: i64) {
    let sums = columns.0.iter().zip(&columns.1);
    for (scale, (&residual, &slope)) in scales.iter_mut().zip(sums) {
        Sums::new(residual, slope).move_column(scale, common, limit);
    }
}

/// Sums of columns over several chunks.
#[derive(Clone, Debug, Default)]
pub(super) struct ColumnSums(Vec<Sums>);

impl ColumnSums {
    /// Adds what a sweep summed up, less what its rows have taken up of it.
    pub(super) fn add(&mut self, swept: &Swept) {
        self.0.resize(swept.columns.0.len(), Sums::default());
        let sums = swept.columns.0.iter().zip(&swept.columns.1);
        for (sum, (&residual, &slope)) in self.0.iter_mut().zip(sums) {
            let mut more = Sums::new(residual, slope);
            more.residual -= swept.common * more.slope / 8;
            sum.add(more);
        }
    }

    /// Moves scales of columns by what is summed up.
    pub(super) fn update(&self, columns: &mut [i8]) {
        for (scale, sums) in columns.iter_mut().zip(&self.0) {
            sums.move_column(scale, 0, limit(1));
        }
    }
}
