//! Pairing: which stored tensor a new one is encoded against.
//!
//! [`Candidates`](catalog::Candidate) come from hints ([`names`], [`card`]) and from the [`catalog`] of sketches;
//! [`choose`] decides between them, by estimate, and by encoding a sample where estimates do not tell.

pub mod breaks;
pub mod buckets;
pub mod card;
pub mod catalog;
pub mod choose;
pub mod names;
pub mod owners;
pub mod shares;

pub use catalog::{Align, Candidate, Catalog};
pub use names::{BaseTensors, resolve};
pub use owners::Owners;

pub use crate::store::manifest::Why;

/// The depth up to which objects are made; the format allows more.
pub const MAX_PLANNED_DEPTH: u8 = 2;
