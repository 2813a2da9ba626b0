//! Where a sketch's elements come from.

use super::{SLOTS, mix};

/// The row and the element of each slot, for tensors of one shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Elements and their slots, in the order of the elements.
    pub(super) sorted: Vec<(u64, usize)>,
}

impl Places {
    /// The places in a tensor of `rows` rows of `row_len` elements.
    pub fn new(rows: u64, row_len: u64) -> Self {
        let place = |slot: usize| row(slot, rows) * row_len + column(slot, row_len);
        let mut sorted: Vec<_> = (0..SLOTS).map(|slot| (place(slot), slot)).collect();
        sorted.sort_unstable();
        Self { sorted }
    }

    /// The elements, ascending; one may stand for several slots.
    pub fn elements(&self) -> impl Iterator<Item = u64> {
        self.sorted.iter().map(|(place, _)| *place)
    }
}

/// The column of a slot; it does not depend on the rows.
fn column(slot: usize, row_len: u64) -> u64 {
    let wide = u128::from(mix(slot as u64 + 1000)) * u128::from(row_len);
    u64::try_from(wide >> 64).unwrap_or(0)
}

/// The row of a slot among `rows`: any of them alike, and with one row more it changes with the chance of one in
/// `rows + 1` (jump consistent hashing, Lamping and Veach 2014).
pub(super) fn row(slot: usize, rows: u64) -> u64 {
    let mut key = mix(slot as u64);
    let (mut at, mut next) = (0u64, 0u64);
    while next < rows {
        at = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "rows are far below 2^53, and what grows beyond ends the loop"
        )]
        let jump = ((at + 1) as f64 * (2_147_483_648.0 / ((key >> 33) + 1) as f64)) as u64;
        next = jump.max(at + 1);
    }
    at
}
