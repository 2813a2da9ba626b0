//! Holding files against what the store gives back of them.

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::object_reader::ObjectReader;
use crate::report::Monitor;
use crate::source::{Listing, OpenFile};
use crate::store::Store;
use crate::store::manifest::{FileEntry, Manifest, Segment};
use crate::threads;

/// Compares all files of a model; one that differs is an error.
pub fn compare_all(
    store: &Store,
    manifest: &Manifest,
    listing: &Listing,
    threads: usize,
    monitor: &dyn Monitor,
) -> Result<()> {
    let pool = threads::pool(threads, store.layout().root())?;
    let reader = ObjectReader::new(store.clone());
    monitor.begin(
        manifest.model.as_str(),
        listing.files.iter().map(|file| file.size).sum(),
    );
    let done = listing.files.iter().try_for_each(|file| {
        let entry = manifest.files.iter().find(|entry| entry.path == file.path);
        let not_stored =
            |reason: &str| Error::input(&file.absolute, format!("{reason}; nothing was deleted"));
        let entry = entry.ok_or_else(|| not_stored("not in the stored version"))?;
        if entry.size != file.size {
            return Err(not_stored("the stored version has another length"));
        }
        let open = file.open()?;
        if !pool.install(|| is_same(&reader, &open, entry, monitor))? {
            return Err(not_stored("the stored version has other bytes"));
        }
        open.check_unchanged()
    });
    monitor.end();
    done
}

/// Compares a file with what the store gives back of it.
pub fn is_same(
    reader: &ObjectReader,
    file: &OpenFile,
    entry: &FileEntry,
    monitor: &dyn Monitor,
) -> Result<bool> {
    let mut starts = Vec::with_capacity(entry.segments.len());
    let mut start = 0;
    for segment in &entry.segments {
        starts.push((segment, start));
        start += segment.length;
    }
    let same = |(segment, start): &(&Segment, u64)| {
        let head = reader.open(&segment.object)?.file.frame.head.clone();
        if head.raw_len != segment.length {
            return Err(Error::corrupt(
                &segment.object,
                "has another length than the manifest says",
            ));
        }
        let chunks = (0..head.chunk_count()).into_par_iter().map(|index| {
            let (offset, length) = head.chunk_range(index);
            reader.buffers().with(length, |stored| {
                reader.read_chunk(&segment.object, index, stored)?;
                reader.buffers().with(length, |source| {
                    file.read_exact_at(start + offset, source)?;
                    monitor.advance(length as u64);
                    Ok(source == stored)
                })
            })
        });
        chunks.try_reduce(|| true, |a, b| Ok(a && b))
    };
    starts
        .par_iter()
        .map(same)
        .try_reduce(|| true, |a, b| Ok(a && b))
}
