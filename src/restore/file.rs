//! One file being restored: its chunks are decoded by many threads, the last one gives it its name.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::ScopeFifo;

use super::output::OutputDir;
use super::partial::PartialFile;
use crate::error::{Error, ErrorKind, Result};
use crate::name::ModelId;
use crate::object_reader::ObjectReader;
use crate::report::Monitor;
use crate::store::manifest::{FileEntry, Segment};

/// What all files of a restore share.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub output: &'a OutputDir,
    pub reader: &'a ObjectReader,
    pub model: &'a ModelId,
    pub force: bool,
    pub monitor: &'a dyn Monitor,
    pub errors: &'a Mutex<Vec<Error>>,
    /// Files, and bytes of files, that got their names.
    pub done: &'a (AtomicU64, AtomicU64),
}

struct Job<'a> {
    context: Context<'a>,
    entry: &'a FileEntry,
    /// Made by the first chunk, so that few files are open at a time.
    partial: Mutex<Option<Arc<PartialFile>>>,
    /// Segments and chunks that are not done.
    remaining: AtomicU64,
    failed: AtomicBool,
}

impl<'a> Context<'a> {
    /// Keeps an error for the end.
    pub fn note(&self, error: Error) {
        self.errors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(error);
    }

    /// Sets the restoring of a file going.
    pub fn spawn(self, scope: &ScopeFifo<'a>, entry: &'a FileEntry) {
        let job = Arc::new(Job {
            context: self,
            entry,
            partial: Mutex::new(None),
            // One for the job itself, so that a file without segments ends too.
            remaining: AtomicU64::new(entry.segments.len() as u64 + 1),
            failed: AtomicBool::new(false),
        });
        let mut start = 0;
        for segment in &entry.segments {
            let job = job.clone();
            let at = start;
            scope.spawn_fifo(move |scope| job.segment(scope, segment, at));
            start += segment.length;
        }
        scope.spawn_fifo(move |_| job.done_one());
    }
}

impl<'a> Job<'a> {
    /// Spawns the chunks of a segment that begins at byte `start` of the file.
    fn segment(self: Arc<Self>, scope: &ScopeFifo<'a>, segment: &'a Segment, start: u64) {
        match self.chunk_count(segment) {
            Ok((1, _)) => self.clone().chunk(segment, 0, start, 0),
            Ok((count, size)) => {
                self.remaining.fetch_add(count, Ordering::Relaxed);
                for index in 0..count {
                    let job = self.clone();
                    scope.spawn_fifo(move |_| {
                        job.chunk(segment, index, start, index * size);
                        job.done_one();
                    });
                }
            }
            Err(error) => self.fail(error),
        }
        self.done_one();
    }

    /// Returns the number of chunks of a segment's object, and their size in bytes.
    fn chunk_count(&self, segment: &Segment) -> Result<(u64, u64)> {
        let object = self.context.reader.open(&segment.object)?;
        let head = &object.file.frame.head;
        if head.raw_len != segment.length {
            return Err(Error::corrupt(
                &segment.object,
                format!(
                    "has {} bytes where the manifest says {}",
                    head.raw_len, segment.length
                ),
            ));
        }
        Ok((head.chunk_count(), head.dtype.chunk_bytes() as u64))
    }

    fn chunk(&self, segment: &Segment, index: u64, start: u64, offset: u64) {
        if self.failed.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = self.try_chunk(segment, index, start, offset) {
            self.fail(error);
        }
    }

    fn try_chunk(&self, segment: &Segment, index: u64, start: u64, offset: u64) -> Result<()> {
        let reader = self.context.reader;
        let (_, length) = reader
            .open(&segment.object)?
            .file
            .frame
            .head
            .chunk_range(index);
        reader.buffers().with(length, |bytes| {
            reader.read_chunk(&segment.object, index, bytes)?;
            self.partial()?.write_at(start + offset, bytes)?;
            self.context.monitor.advance(length as u64);
            Ok(())
        })
    }

    fn partial(&self) -> Result<Arc<PartialFile>> {
        let mut partial = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &*partial {
            return Ok(file.clone());
        }
        let made = self.context.output.create(&self.entry.path)?;
        made.reserve(self.entry.size)?;
        Ok(partial.insert(Arc::new(made)).clone())
    }

    fn done_one(&self) {
        if self.remaining.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        if !self.failed.load(Ordering::Relaxed)
            && let Err(error) = self
                .partial()
                .and_then(|file| file.finish(self.entry.executable, self.context.force))
        {
            self.fail(error);
        }
        let failed = self.failed.load(Ordering::Relaxed);
        if !failed {
            self.context.done.0.fetch_add(1, Ordering::Relaxed);
            self.context
                .done
                .1
                .fetch_add(self.entry.size, Ordering::Relaxed);
        }
        tracing::info!(file = ?self.entry.path.as_str(), bytes = self.entry.size, failed, "done");
        // Closes the file; one that has no name yet is removed.
        self.partial
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    /// The first error of a file is the one that is reported.
    fn fail(&self, error: Error) {
        if self.failed.swap(true, Ordering::Relaxed) {
            return;
        }
        let file = format!("{}: {}", self.context.model, self.entry.path);
        self.context.note(match error.kind() {
            ErrorKind::Corrupt => Error::Damaged {
                file,
                source: Box::new(error),
            },
            _ => error,
        });
    }
}
