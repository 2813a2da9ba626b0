//! Factors: small integers, those of columns in an object's shared section, those of rows in their chunk.

use std::ops::Range;
use std::sync::Arc;

use super::kernel::{Pairs, pair};
use crate::dtype::DType;
use crate::rans::{Bad, Isa, MOST_KINDS, Run, read_integers, write_integers};

/// The greatest rank.
pub const MAX_RANK: usize = MOST_KINDS;

/// Most bytes that the decoded column factors of an object take.
pub const MOST_FACTOR_BYTES: usize = 64 << 20;

/// Factors lie between this and its negative.
pub(super) const LIMIT: i16 = 2047;

/// Flag of the shared section: the product is rounded before it is added.
const ROUNDED: u8 = 1;

/// A tensor as the codec sees it: rows of equal length, in sets of rows that share their column factors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How the elements are to be read.
    pub dtype: DType,
    /// All elements.
    pub elements: u64,
    /// Elements in a row; 0 where there are no rows.
    pub row_len: u64,
    /// Rows in a set; a stack of matrices has one set a matrix.
    pub set_rows: u64,
}

impl Shape {
    /// All rows; the last may be short.
    pub fn rows(&self) -> u64 {
        self.elements.div_ceil(self.row_len.max(1))
    }

    /// All sets; the last may have fewer rows.
    pub fn sets(&self) -> u64 {
        self.rows().div_ceil(self.set_rows.max(1))
    }
}

/// The column factors of one set of rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Set {
    /// Products in a sum; 0 where nothing is predicted.
    pub(super) rank: usize,
    /// The exponent field of the F32 that sums are multiplied by, 1 to 254.
    pub(super) exponent: u8,
    /// The factors.
    pub(super) pairs: Pairs,
}

impl Set {
    /// Columns' factors, component after component.
    pub(super) fn new(rank: usize, exponent: u8, columns: usize, factors: &[i16]) -> Self {
        let line = |k: usize| {
            factors
                .get(k * columns..(k + 1) * columns)
                .filter(|_| k < rank)
                .unwrap_or_default()
        };
        let mut words = vec![0; rank.div_ceil(2) * columns];
        for (k, words) in words.chunks_exact_mut(columns.max(1)).enumerate() {
            let high = line(2 * k + 1).iter().copied().chain(std::iter::repeat(0));
            for ((word, &low), high) in words.iter_mut().zip(line(2 * k)).zip(high) {
                *word = pair(low, high);
            }
        }
        Self {
            rank,
            exponent,
            pairs: Pairs { words, columns },
        }
    }

    fn factors(&self) -> impl Iterator<Item = i16> {
        let half =
            |word: u32, high: bool| (if high { word >> 16 } else { word } as u16).cast_signed();
        (0..self.rank).flat_map(move |k| {
            let words = self
                .pairs
                .words
                .iter()
                .skip(k / 2 * self.pairs.columns)
                .take(self.pairs.columns);
            words.map(move |&word| half(word, k % 2 == 1))
        })
    }
}

/// The column factors of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    /// How the elements are to be read.
    pub(super) dtype: DType,
    /// Elements in a row; 0 where there are no rows, and so no factors.
    pub(super) row_len: u64,
    /// Rows in a set.
    pub(super) set_rows: u64,
    pub(super) rounded: bool,
    pub(super) sets: Vec<Set>,
}

impl Columns {
    /// The set of a row.
    pub(super) fn set_of(&self, row: u64) -> Option<&Set> {
        self.sets
            .get(usize::try_from(row / self.set_rows.max(1)).ok()?)
    }

    /// Bytes that the factors take in memory.
    pub fn bytes(&self) -> usize {
        self.sets
            .iter()
            .map(|set| set.pairs.words.len() * 4 + size_of::<Set>())
            .sum()
    }

    /// Pairs in the longest row of factors.
    pub(super) fn stride(&self) -> usize {
        self.sets
            .iter()
            .map(|set| set.rank.div_ceil(2))
            .max()
            .unwrap_or(0)
    }

    /// Serialises the factors: an object's shared section.
    pub fn to_bytes(&self, isa: Isa) -> Vec<u8> {
        let mut out = vec![if self.rounded { ROUNDED } else { 0 }];
        out.extend_from_slice(&self.set_rows.to_le_bytes());
        out.extend_from_slice(&(self.sets.len() as u32).to_le_bytes());
        out.extend(
            self.sets
                .iter()
                .flat_map(|set| [set.rank as u8, set.exponent]),
        );
        let values: Vec<i16> = self.sets.iter().flat_map(Set::factors).collect();
        write_integers(
            isa,
            &runs(&self.sets, self.sets.iter().map(|set| set.pairs.columns)),
            &values,
            &mut out,
        );
        out
    }

    /// Parses a shared section of an object with rows of `row_len`; any bytes may be passed, none for no factors.
    pub fn parse(isa: Isa, dtype: DType, row_len: u64, bytes: &[u8]) -> Result<Self, Bad> {
        if bytes.is_empty() {
            return Ok(Self {
                dtype,
                row_len,
                set_rows: 1,
                rounded: false,
                sets: Vec::new(),
            });
        }
        let (&flags, rest) = bytes.split_first().ok_or(Bad::Truncated)?;
        let (set_rows, rest) = rest.split_first_chunk().ok_or(Bad::Truncated)?;
        let (count, mut rest) = rest.split_first_chunk().ok_or(Bad::Truncated)?;
        let set_rows = u64::from_le_bytes(*set_rows);
        let count = usize::try_from(u32::from_le_bytes(*count)).map_err(|_| Bad::Truncated)?;
        if flags & !ROUNDED != 0 || set_rows == 0 || row_len == 0 {
            return Err(Bad::Malformed("shared section"));
        }
        let columns = usize::try_from(row_len).map_err(|_| Bad::Malformed("rows"))?;
        if count > rest.len() / 2 {
            return Err(Bad::Truncated);
        }
        let mut sets = Vec::with_capacity(count);
        let mut bytes_left = MOST_FACTOR_BYTES;
        for _ in 0..count {
            let ([rank, exponent], tail) = rest.split_first_chunk().ok_or(Bad::Truncated)?;
            rest = tail;
            let rank = usize::from(*rank);
            let needed = rank.div_ceil(2).saturating_mul(columns).saturating_mul(4);
            let is_known = rank <= MAX_RANK.min(columns) && (1..=254).contains(exponent);
            bytes_left = bytes_left
                .checked_sub(needed)
                .filter(|_| is_known)
                .ok_or(Bad::Malformed("rank"))?;
            sets.push(Set {
                rank,
                exponent: *exponent,
                pairs: Pairs::default(),
            });
        }
        let runs = runs(&sets, std::iter::repeat(columns));
        let (values, rest) = read_integers(isa, &runs, rest)?;
        if !rest.is_empty() {
            return Err(Bad::Trailing);
        }
        check(&values)?;
        let mut values = values.as_slice();
        for set in &mut sets {
            let (mine, later) = values
                .split_at_checked(set.rank * columns)
                .ok_or(Bad::Truncated)?;
            *set = Set::new(set.rank, set.exponent, columns, mine);
            values = later;
        }
        Ok(Self {
            dtype,
            row_len,
            set_rows,
            rounded: flags & ROUNDED != 0,
            sets,
        })
    }
}

/// The runs of integers of sets with so many factors a component.
fn runs<'a>(
    sets: impl IntoIterator<Item = &'a Set>,
    lengths: impl IntoIterator<Item = usize>,
) -> Vec<Run> {
    let sets = sets.into_iter().zip(lengths);
    sets.flat_map(|(set, length)| (0..set.rank).map(move |k| (k, length)))
        .collect()
}

fn check(values: &[i16]) -> Result<(), Bad> {
    if values.iter().all(|value| (-LIMIT..=LIMIT).contains(value)) {
        Ok(())
    } else {
        Err(Bad::Malformed("factor"))
    }
}

/// The row factors of consecutive rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rows {
    /// The first row.
    pub(super) first: u64,
    /// Pairs from one row to the next.
    pub(super) stride: usize,
    /// Of pair `k` of row `first + i` at `i * stride + k`; two components as in [`Pairs`].
    pub(super) words: Vec<u32>,
}

impl Rows {
    /// The factors of a row.
    pub(super) fn of(&self, row: u64) -> &[u32] {
        let at = usize::try_from(row.wrapping_sub(self.first)).unwrap_or(usize::MAX);
        let start = at.saturating_mul(self.stride);
        self.words
            .get(start..start.saturating_add(self.stride))
            .unwrap_or_default()
    }

    /// The sets that some rows lie in, with how many of the rows.
    fn parts(columns: &Columns, from: u64, to: u64) -> impl Iterator<Item = (&Set, u64, usize)> {
        let mut at = from;
        std::iter::from_fn(move || {
            let size = columns.set_rows.max(1);
            let set = columns.set_of(at).filter(|_| at < to)?;
            let end = to.min((at / size + 1) * size);
            let part = (set, at, (end - at) as usize);
            at = end;
            Some(part)
        })
    }

    /// Appends the factors of the rows `from..to`.
    pub(super) fn write(&self, isa: Isa, columns: &Columns, from: u64, to: u64, out: &mut Vec<u8>) {
        let (mut runs, mut values) = (Vec::new(), Vec::new());
        for (set, first, count) in Self::parts(columns, from, to) {
            for k in 0..set.rank {
                runs.push((k, count));
                let word = |row: u64| self.of(row).get(k / 2).copied().unwrap_or(0);
                let rows = (first..first + count as u64).map(word);
                values.extend(rows.map(|word| {
                    ((if k % 2 == 1 { word >> 16 } else { word }) as u16).cast_signed()
                }));
            }
        }
        write_integers(isa, &runs, &values, out);
    }

    /// Reads the factors of the rows `from..to` and returns them with the bytes behind them.
    pub(super) fn read<'a>(
        isa: Isa,
        columns: &Columns,
        from: u64,
        to: u64,
        bytes: &'a [u8],
    ) -> Result<(Self, &'a [u8]), Bad> {
        let mut runs = Vec::new();
        for (set, _, count) in Self::parts(columns, from, to) {
            runs.extend((0..set.rank).map(|k| (k, count)));
        }
        let (values, rest) = read_integers(isa, &runs, bytes)?;
        check(&values)?;
        let stride = columns.stride();
        let count = usize::try_from(to - from).unwrap_or(0);
        let mut words = vec![0u32; count * stride];
        let mut values = values.into_iter();
        for (set, first, count) in Self::parts(columns, from, to) {
            let start = (first - from) as usize * stride;
            for k in 0..set.rank {
                let mine = words
                    .iter_mut()
                    .skip(start + k / 2)
                    .step_by(stride)
                    .take(count);
                for (word, value) in mine.zip(values.by_ref()) {
                    *word |= u32::from(value.cast_unsigned()) << (16 * (k % 2));
                }
            }
        }
        Ok((
            Self {
                first: from,
                stride,
                words,
            },
            rest,
        ))
    }
}

/// The factors that were found for an object.
#[derive(Clone, Debug)]
pub struct Fitted {
    pub(super) columns: Arc<Columns>,
    /// Expected bytes over those without prediction.
    pub(super) ratio: f64,
    /// Of all rows.
    pub(super) rows: Rows,
}

impl Fitted {
    /// No factors: the base itself is the prediction.
    pub fn none(dtype: DType, row_len: u64) -> Self {
        let columns = Columns {
            dtype,
            row_len,
            set_rows: 1,
            rounded: false,
            sets: Vec::new(),
        };
        Self {
            columns: Arc::new(columns),
            ratio: 1.0,
            rows: Rows::default(),
        }
    }

    /// The factors of a tensor of `rows` rows, of which those of `runs` were fitted as a matrix of their own; the
    /// others get none.
    #[must_use]
    pub fn placed(self, runs: &[Range<u64>], rows: u64) -> Self {
        let stride = self.rows.stride;
        let mut words = vec![0; usize::try_from(rows).unwrap_or(0) * stride];
        let mut fitted = self.rows.words.as_slice();
        for run in runs {
            let (start, end) = (run.start as usize * stride, run.end as usize * stride);
            let target = words.get_mut(start..end).unwrap_or_default();
            let (mine, later) = fitted.split_at(target.len().min(fitted.len()));
            target
                .iter_mut()
                .zip(mine)
                .for_each(|(to, from)| *to = *from);
            fitted = later;
        }
        let columns = Columns {
            set_rows: rows,
            ..(*self.columns).clone()
        };
        let rows = Rows {
            first: 0,
            stride,
            words,
        };
        Self {
            columns: Arc::new(columns),
            rows,
            ..self
        }
    }

    /// The object's column factors.
    pub fn columns(&self) -> &Arc<Columns> {
        &self.columns
    }

    /// Tells whether the gain is expected to be so small that chunks should be tried without prediction too.
    pub fn is_close(&self) -> bool {
        self.ratio > 0.9
    }
}
