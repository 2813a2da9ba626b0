//! Work: the new chunks of a batch, encoded in parallel, then written in order.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::batch::{Batch, HashedSpan, MAX_KEPT};
use crate::codec::EncodeOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::object_reader::ObjectReader;
use crate::object_writer::{EncodedChunk, NewObject, digest_chunk};
use crate::report::Savings;
use crate::sketch::Sketch;
use crate::source::OpenFile;
use crate::store::{ObjectWriter, StoreWriter};

/// An object that is not in the store, and where its bytes are.
pub struct Planned {
    /// The object.
    pub object: NewObject,
    sketch: Option<Sketch>,
    source: Source,
}

enum Source {
    Arena(Range<usize>),
    File { file: Arc<OpenFile>, start: u64 },
}

/// Some chunks of some objects, whole objects or a part of one.
pub struct Work {
    objects: Vec<Arc<Planned>>,
    /// Which chunks of each object; equally long.
    chunks: Vec<Range<u64>>,
}

/// Work that is encoded.
pub struct Done {
    work: Work,
    encoded: Vec<Vec<EncodedChunk>>,
}

impl Planned {
    /// The object that `span` becomes.
    pub fn new(object: NewObject, span: &HashedSpan) -> Self {
        let source = match &span.file {
            None => Source::Arena(span.kept.clone().unwrap_or_default()),
            Some(file) => Source::File {
                file: file.clone(),
                start: span.span.start,
            },
        };
        Self {
            object,
            sketch: span.sketch.clone(),
            source,
        }
    }
}

/// Cuts the new objects of a batch into work: kept ones together, a long one window by window.
pub fn cut(objects: Vec<Planned>, threads: usize) -> Vec<Work> {
    let (long, kept): (Vec<_>, Vec<_>) = objects
        .into_iter()
        .map(Arc::new)
        .partition(|planned| planned.object.raw_len > MAX_KEPT);
    let mut works = Vec::new();
    if !kept.is_empty() {
        let chunks = kept
            .iter()
            .map(|planned| 0..planned.object.chunk_count())
            .collect();
        works.push(Work {
            objects: kept,
            chunks,
        });
    }
    for planned in long {
        let count = planned.object.chunk_count();
        let window = window_chunks(planned.object.dtype.chunk_bytes(), threads);
        let starts = (0..count).step_by(usize::try_from(window).unwrap_or(1));
        works.extend(starts.map(|start| {
            let chunks = std::iter::once(start..count.min(start + window)).collect();
            Work {
                objects: vec![planned.clone()],
                chunks,
            }
        }));
    }
    works
}

/// Chunks of a long object that are encoded together: about 32 MiB, and two a thread at least.
fn window_chunks(chunk_bytes: usize, threads: usize) -> u64 {
    ((32 << 20) / chunk_bytes).max(2 * threads).max(1) as u64
}

impl Work {
    /// Encodes all chunks, in the current thread pool. Sets `damaged` where a base could not be read.
    pub fn encode(
        self,
        batch: &Batch,
        reader: &ObjectReader,
        options: &EncodeOptions,
        damaged: &AtomicBool,
    ) -> Result<Done> {
        let objects = self.objects.par_iter().zip(&self.chunks);
        objects
            .filter(|(_, chunks)| chunks.start == 0)
            .try_for_each(|(planned, _)| planned.prepare(&batch.arena, reader, options))?;
        let tasks: Vec<_> = self
            .objects
            .iter()
            .zip(&self.chunks)
            .flat_map(|(planned, chunks)| chunks.clone().map(move |index| (planned, index)))
            .collect();
        let encode = |(planned, index): (&Arc<Planned>, u64)| {
            planned.encode(index, &batch.arena, reader, options, damaged)
        };
        let mut encoded = tasks
            .into_par_iter()
            .map(encode)
            .collect::<Result<Vec<_>>>()?
            .into_iter();
        let per_object = self.chunks.iter().map(|chunks| {
            let count = usize::try_from(chunks.end - chunks.start).unwrap_or(0);
            encoded.by_ref().take(count).collect()
        });
        let encoded = per_object.collect();
        for (planned, chunks) in self.objects.iter().zip(&self.chunks) {
            if chunks.end == planned.object.chunk_count() {
                planned.object.preparation.release();
            }
        }
        Ok(Done {
            work: self,
            encoded,
        })
    }
}

impl Planned {
    /// Looks for factors before the first chunk is encoded.
    fn prepare(&self, arena: &[u8], reader: &ObjectReader, options: &EncodeOptions) -> Result<()> {
        let read = |offset: u64, out: &mut [u8]| match &self.source {
            Source::Arena(range) => {
                let start = range.start + usize::try_from(offset).unwrap_or(usize::MAX);
                let raw = arena.get(start..start + out.len()).unwrap_or_default();
                out.copy_from_slice(raw);
                Ok(())
            }
            Source::File { file, start } => file.read_exact_at(start + offset, out),
        };
        self.object.prepare(reader, options, &read, false)
    }

    fn encode(
        &self,
        index: u64,
        arena: &[u8],
        reader: &ObjectReader,
        options: &EncodeOptions,
        damaged: &AtomicBool,
    ) -> Result<EncodedChunk> {
        let (offset, length) = self.object.chunk_range(index);
        match &self.source {
            Source::Arena(range) => {
                let start = range.start + usize::try_from(offset).unwrap_or(usize::MAX);
                let raw = arena.get(start..start + length).unwrap_or_default();
                self.encode_bytes(offset, raw, reader, options, damaged)
            }
            Source::File { file, start } => reader.buffers().with(length, |raw| {
                file.read_exact_at(start + offset, raw)?;
                // The name was computed on the first reading: these have to be the same bytes.
                if digest_chunk(self.object.raw_len, self.object.dtype, offset, raw)
                    != self.object.chaining_value(index)
                {
                    return Err(Error::Changed {
                        path: file.path().to_path_buf(),
                    });
                }
                self.encode_bytes(offset, raw, reader, options, damaged)
            }),
        }
    }

    /// A base that turns out to be damaged costs space, not the model.
    fn encode_bytes(
        &self,
        offset: u64,
        raw: &[u8],
        reader: &ObjectReader,
        options: &EncodeOptions,
        damaged: &AtomicBool,
    ) -> Result<EncodedChunk> {
        match self.object.encode(reader, options, offset, raw) {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                if !damaged.swap(true, Ordering::Relaxed) {
                    tracing::warn!("{error}; storing without a base");
                }
                Ok(self.object.encode_solo(reader, options, offset, raw))
            }
            other => other,
        }
    }
}

/// Writes what was encoded; keeps a long object open from one piece of work to the next.
#[derive(Default)]
pub struct Output {
    open: Option<ObjectWriter>,
    /// Where the encoded bytes went.
    pub savings: Savings,
    /// Bytes of the object files that were finished.
    pub stored_bytes: u64,
}

impl Output {
    /// Writes a piece of work, in order. Returns the raw bytes that it stood for.
    pub fn write(&mut self, writer: &mut StoreWriter, done: Done) -> Result<u64> {
        let mut raw_bytes = 0;
        for ((planned, chunks), encoded) in done
            .work
            .objects
            .iter()
            .zip(&done.work.chunks)
            .zip(&done.encoded)
        {
            let object = &planned.object;
            let mut open = match self.open.take() {
                Some(open) => open,
                None => object.begin(writer, encoded)?,
            };
            for (index, chunk) in chunks.clone().zip(encoded) {
                writer.append_chunk(
                    &mut open,
                    chunk.codec.0,
                    object.chaining_value(index),
                    &chunk.payload,
                )?;
                self.savings.add_chunk(
                    chunk.codec,
                    chunk.raw_len as u64,
                    chunk.payload.len() as u64,
                );
                raw_bytes += chunk.raw_len as u64;
            }
            if chunks.end == object.chunk_count() {
                self.stored_bytes += writer.finish_object(open)?;
                planned
                    .sketch
                    .iter()
                    .for_each(|sketch| writer.add_sketch(sketch.clone()));
            } else {
                self.open = Some(open);
            }
        }
        Ok(raw_bytes)
    }

    /// Gives up an object that was begun and will not be ended.
    pub fn abandon(&mut self, writer: &mut StoreWriter) {
        if let Some(open) = self.open.take() {
            writer.discard_object(open);
        }
    }
}
