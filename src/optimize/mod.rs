//! Optimize: what the store holds is planned anew with all that it knows now, and encoded anew where that gains.
//!
//! Sketches that are missing are made. Tensors that are near each other are a family; the plan names its root, and what
//! each other one is a difference to. A change is made if a chunk of each tensor, encoded as planned, shows a gain. Every
//! step leaves the store whole: an object is replaced by a rename, after the one it is based on, and no depth grows that
//! others depend on; so a run can be stopped at any moment and run again.

mod apply;
mod dependents;
mod plan;
mod sketches;

use std::time::Instant;

use rayon::ThreadPool;
use serde::Serialize;

use crate::codec::EncodeOptions;
use crate::error::Result;
use crate::object_reader::ObjectReader;
use crate::pairing::Catalog;
use crate::report::Monitor;
use crate::store::index::Index;
use crate::store::{Store, StoreWriter};
use dependents::Dependents;

/// How to optimize.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Worker threads, at least one.
    pub threads: usize,
    /// Settings of the codecs.
    pub encode: EncodeOptions,
}

/// What a run did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct OptimizeReport {
    /// Objects in the store.
    pub objects: usize,
    /// Families of tensors.
    pub families: usize,
    /// Sketches that were missing.
    pub sketches_made: usize,
    /// Objects with another base, or none, as planned.
    pub changed: usize,
    /// Bytes of all object files before.
    pub bytes_before: u64,
    /// Bytes of all object files after; of a dry run estimated from samples.
    pub bytes_after: u64,
    /// Whether nothing was written.
    pub dry_run: bool,
    /// Objects that could not be read, and why; they stay as they are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// Worker threads.
    pub threads: usize,
    /// Seconds of the whole run.
    pub seconds: f64,
}

/// One run.
struct Run<'a> {
    /// What is written with; without one nothing is.
    writer: Option<StoreWriter>,
    store: Store,
    reader: ObjectReader,
    pool: ThreadPool,
    options: Options,
    monitor: &'a dyn Monitor,
    index: Index,
    dependents: Dependents,
    catalog: Catalog,
    report: OptimizeReport,
}

/// Optimizes the store that `writer` writes to.
///
/// # Errors
/// Fails where the store cannot be written; an object that is damaged is reported, and left alone.
pub fn run(writer: StoreWriter, options: Options, monitor: &dyn Monitor) -> Result<OptimizeReport> {
    let store = writer.store().clone();
    run_with(Some(writer), store, options, monitor)
}

/// Says what [`run`] would gain, and only reads, so that others may write to the store meanwhile.
///
/// # Errors
/// Fails where the store cannot be read; an object that is damaged is reported.
pub fn dry_run(store: Store, options: Options, monitor: &dyn Monitor) -> Result<OptimizeReport> {
    run_with(None, store, options, monitor)
}

fn run_with(
    writer: Option<StoreWriter>,
    store: Store,
    options: Options,
    monitor: &dyn Monitor,
) -> Result<OptimizeReport> {
    let start = Instant::now();
    let pool = crate::threads::pool(options.threads, store.layout().root())?;
    let index = store.index()?;
    let bytes = index.values().map(|record| record.stored_len);
    let bytes_before = bytes.fold(0, u64::saturating_add);
    let catalog = Catalog::load(&store, &index)?;
    let mut run = Run {
        reader: ObjectReader::new(store.clone()),
        store,
        pool,
        options,
        monitor,
        report: OptimizeReport {
            objects: index.len(),
            bytes_before,
            bytes_after: bytes_before,
            dry_run: writer.is_none(),
            threads: options.threads,
            ..OptimizeReport::default()
        },
        dependents: Dependents::of_index(&index),
        writer,
        index,
        catalog,
    };
    run.make_sketches()?;
    let families = run.pool.install(|| plan::families(&run.catalog));
    run.apply(families)?;
    run.writer.map_or(Ok(()), StoreWriter::close)?;
    run.report.seconds = start.elapsed().as_secs_f64();
    Ok(run.report)
}
