//! Where rows were inserted or taken out in the middle of a tensor: marks tell roughly, the rows themselves exactly.

use super::choose::ReadSample;
use crate::error::Result;
use crate::object_reader::ObjectReader;
use crate::sketch::{Sketch, Stretch, stretches};
use crate::store::object::BaseRef;

/// The parts of `base` that stand for stretches of `target`, from the first of their marked rows to the last, and to the ends of
/// both tensors.
pub fn marked(target: &Sketch, base: &Sketch) -> Vec<BaseRef> {
    let stretches = stretches(target, base);
    let (rows, base_rows) = (target.rows(), base.rows());
    let count = stretches.len();
    let part = |(at, stretch): (usize, &Stretch)| {
        let (first, last) = stretch.marked;
        let first = if at == 0 { stretch.shift.max(0) } else { first };
        let last = if at + 1 == count {
            let end = i64::try_from(base_rows).ok()? + stretch.shift;
            end.min(i64::try_from(rows).ok()?) - 1
        } else {
            last
        };
        let row_len = base.row_len;
        Some(BaseRef {
            name: base.name,
            dtype: base.dtype,
            start: u64::try_from(first - stretch.shift).ok()? * row_len,
            count: u64::try_from(last + 1 - first).ok()? * row_len,
            target_start: u64::try_from(first).ok()? * row_len,
        })
    };
    let parts: Option<Vec<_>> = stretches.iter().enumerate().map(part).collect();
    parts.unwrap_or_default()
}

/// The rows of a tensor, and those of its base.
pub struct Rows<'a> {
    /// Reads the base.
    pub reader: &'a ObjectReader,
    /// Reads the tensor.
    pub read: &'a ReadSample<'a>,
    /// What is known of the tensor.
    pub target: &'a Sketch,
}

impl Rows<'_> {
    /// Extends the parts into the rows between two of them, as far as rows are alike.
    ///
    /// # Errors
    /// Those of reading the tensor and its base.
    pub fn grow(&self, mut parts: Vec<BaseRef>) -> Result<Vec<BaseRef>> {
        let row_len = self.target.row_len;
        for at in 1..parts.len() {
            let (before, after) = parts.split_at_mut(at);
            let (Some(one), Some(next)) = (before.last_mut(), after.first_mut()) else {
                continue;
            };
            let down = most(gap(one, next) / row_len, |rows| {
                let after = one.count + (rows - 1) * row_len;
                self.are_alike(one, one.target_start + after, one.start + after)
            })?;
            one.count += down * row_len;
            let up = most(gap(one, next) / row_len, |rows| {
                let before = rows * row_len;
                self.are_alike(next, next.target_start - before, next.start - before)
            })?;
            next.count += up * row_len;
            next.target_start -= up * row_len;
            next.start -= up * row_len;
        }
        Ok(parts)
    }

    /// Tells whether most elements of two rows have the same sign: those of rows that have nothing to do with each other
    /// have it by halves.
    fn are_alike(&self, part: &BaseRef, element: u64, base_element: u64) -> Result<bool> {
        let row_len = usize::try_from(self.target.row_len).unwrap_or(0);
        let (size, base_size) = (self.target.dtype.size(), part.dtype.size());
        let mut row = vec![0; row_len * size];
        (self.read)(element * size as u64, &mut row)?;
        let mut base = vec![0; row_len * base_size];
        let offset = base_element * base_size as u64;
        self.reader.read_range(&part.name, offset, &mut base)?;
        let signs = |bytes: &[u8], size: usize| -> Vec<bool> {
            let tops = bytes.iter().skip(size - 1).step_by(size);
            tops.map(|top| top >> 7 == 1).collect()
        };
        let pairs = signs(&row, size).into_iter().zip(signs(&base, base_size));
        let same = pairs.filter(|(one, other)| one == other).count();
        Ok(same * 4 >= row_len * 3)
    }
}

/// Elements that neither part has, in the tensor and in the base.
fn gap(one: &BaseRef, next: &BaseRef) -> u64 {
    let free = |end: u64, start: u64| start.saturating_sub(end);
    let target = free(one.target_start + one.count, next.target_start);
    target.min(free(one.start + one.count, next.start))
}

/// Finds the greatest number up to `limit` for which, and for all below it, `holds` does.
fn most(limit: u64, holds: impl Fn(u64) -> Result<bool>) -> Result<u64> {
    let (mut least, mut most) = (0, limit);
    while least < most {
        let middle = most - (most - least) / 2;
        if holds(middle)? {
            least = middle;
        } else {
            most = middle - 1;
        }
    }
    Ok(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_break_is_found() {
        for limit in 0..20 {
            for place in 0..=limit {
                assert_eq!(most(limit, |at| Ok(at <= place)).unwrap(), place);
            }
        }
    }
}
