//! Prediction of a tensor from its base and a low-rank product: what a merged adapter, and much of any fine-tune, is.
//!
//! An element is predicted as `base + sum of row factor * column factor`. [`factors`] holds the factors and how they
//! are written, [`kernel`] the arithmetic, [`predict`] puts both to the elements of a chunk, [`fit`] finds factors.
//! The format is described in `docs/codecs/lowrank.md`.

// Numbers move between integers and floats all over this module, and bit fields are cut out of wider integers.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    clippy::inline_always,
    clippy::indexing_slicing
)]

mod factors;
pub mod fit;
mod kernel;
mod predict;
#[cfg(test)]
mod tests;

pub use factors::{Columns, Fitted, MAX_RANK, MOST_FACTOR_BYTES, Shape};
pub use predict::{decode, encode, predict, takes, uses_shared};
