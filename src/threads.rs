//! Thread pools of the verbs.

use std::path::Path;

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, Result};

/// Starts a pool of `threads` workers, of one where 0 is asked for, for work on `place`.
///
/// # Errors
///
/// An error that names `place` where the system gives no more threads.
pub fn pool(threads: usize, place: &Path) -> Result<ThreadPool> {
    ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .build()
        .map_err(|error| Error::input(place, format!("cannot start {threads} threads: {error}")))
}
