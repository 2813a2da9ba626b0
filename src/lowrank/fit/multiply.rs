//! Products of matrices of which one is thin: as wide as a fit has components.
//!
//! Libraries pack both matrices before they multiply them, which pays for wide ones; here it would take as long as the
//! product. So the matrices are laid out as the loop wants them, and nothing is packed.
#![allow(unsafe_code)]

use super::lanes::{LANES, Lanes, Task};

/// A matrix of which single floats are read: its floats, and how far it is from one row, and from one term, to the next.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    pub(super) data: &'a [f32],
    pub(super) row_step: usize,
    pub(super) term_step: usize,
}

/// A matrix of which whole lines are read: its floats, and how far it is from one term to the next.
#[derive(Clone, Copy)]
pub(super) struct Right<'a> {
    pub(super) data: &'a [f32],
    pub(super) term_step: usize,
}

/// Rows of the results; a whole number of them is worked on together.
pub(super) const ROWS: usize = 8;

/// How much there is to do.
#[derive(Clone, Copy)]
pub(super) struct Size {
    /// A multiple of [`ROWS`].
    pub(super) rows: usize,
    /// Products in a sum.
    pub(super) terms: usize,
    /// A multiple of [`LANES`].
    pub(super) columns: usize,
    /// Whether the product takes the place of what was there before.
    pub(super) is_new: bool,
}

/// Adds `left * right` to `out`, whose rows are `step` floats apart, or puts it there; nothing where the sizes do not fit.
#[inline(always)]
pub(super) fn add_product<V: Lanes>(
    size: Size,
    left: Left<'_>,
    right: Right<'_>,
    out: &mut [f32],
    step: usize,
) {
    let Size {
        rows,
        terms,
        columns,
        is_new,
    } = size;
    if rows == 0 || terms == 0 || columns == 0 {
        return;
    }
    let is_whole = rows.is_multiple_of(ROWS) && columns.is_multiple_of(LANES);
    let last = (rows - 1) * left.row_step + (terms - 1) * left.term_step;
    let is_inside = last < left.data.len()
        && (terms - 1) * right.term_step + columns <= right.data.len()
        && (rows - 1) * step + columns <= out.len();
    if !is_whole || !is_inside {
        return;
    }
    for row in (0..rows).step_by(ROWS) {
        for column in (0..columns).step_by(LANES) {
            // SAFETY: of the block, the last row, term and column lie within the slices, as was seen to above.
            unsafe {
                let left_at = left.data.as_ptr().add(row * left.row_step);
                let right_at = right.data.as_ptr().add(column);
                let out_at = out.as_mut_ptr().add(row * step + column);
                let (left_steps, right_step) = ([left.row_step, left.term_step], right.term_step);
                if V::WIDE {
                    block::<V, ROWS>(
                        terms, is_new, left_at, left_steps, right_at, right_step, out_at, step,
                    );
                } else {
                    // Half as many rows: there are half as many registers, of half the width.
                    let (below, out_below) = (
                        left_at.add(ROWS / 2 * left.row_step),
                        out_at.add(ROWS / 2 * step),
                    );
                    block::<V, { ROWS / 2 }>(
                        terms, is_new, left_at, left_steps, right_at, right_step, out_at, step,
                    );
                    block::<V, { ROWS / 2 }>(
                        terms, is_new, below, left_steps, right_at, right_step, out_below, step,
                    );
                }
            }
        }
    }
}

/// Adds to sixteen columns of `N` rows.
///
/// # Safety
/// All rows, terms and lanes lie in what the pointers point into.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn block<V: Lanes, const N: usize>(
    terms: usize,
    is_new: bool,
    left: *const f32,
    left_steps: [usize; 2],
    right: *const f32,
    right_step: usize,
    out: *mut f32,
    step: usize,
) {
    // SAFETY, here and below: as the caller says. There are no closures, for those are not sure to become a part of this.
    let mut sums = [V::splat(0.0); N];
    if !is_new {
        for (row, sum) in sums.iter_mut().enumerate() {
            *sum = V::load(unsafe { &*out.add(row * step).cast() });
        }
    }
    for term in 0..terms {
        let line = V::load(unsafe { &*right.add(term * right_step).cast() });
        for (row, sum) in sums.iter_mut().enumerate() {
            let factor = unsafe { *left.add(row * left_steps[0] + term * left_steps[1]) };
            *sum = sum.plus_product(V::splat(factor), line);
        }
    }
    for (row, sum) in sums.into_iter().enumerate() {
        sum.store(unsafe { &mut *out.add(row * step).cast() });
    }
}

/// [`add_product`] by itself.
pub(super) struct Product<'a> {
    pub(super) size: Size,
    pub(super) left: Left<'a>,
    pub(super) right: Right<'a>,
    pub(super) out: &'a mut [f32],
    pub(super) step: usize,
}

impl Task for Product<'_> {
    type Out = ();
    #[inline(always)]
    fn run<V: Lanes>(self) {
        add_product::<V>(self.size, self.left, self.right, self.out, self.step);
    }
}
