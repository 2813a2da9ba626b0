//! Runs of elements that equal the base's: a flag a run says so, and their elements are not coded.
//!
//! Where a fine-tune left nearly all elements as they were, a decoder's time goes into elements about which there is next to
//! nothing to say. With skips it decodes one flag for [`RUN`] of them and takes what is kept together, so that the loops are those of
//! any other chunk. A flag's context is the highest of its run's elements: the one that most likely changed decides.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

use super::kernel::RUN;

pub(super) use decode::{Skips, elements_of, gather, numbers, runs, scatter};
pub(super) use encode::{Kept, keep, pay};
