//! Work: the new chunks of a batch, encoded in parallel, then written in order.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::batch::{Batch, HashedSpan, MAX_KEPT};
use crate::buffers::{Appended, Appender, Place};
use crate::codec::{CodecId, EncodeOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::object_reader::ObjectReader;
use crate::object_writer::{Coded, NewObject, digest_chunk, window_chunks};
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
    encoded: Vec<Vec<Encoded>>,
    payloads: Appended,
}

/// A chunk that is encoded.
struct Encoded {
    codec: CodecId,
    raw_len: usize,
    payload: Place,
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

impl Work {
    /// Encodes all chunks, in the current thread pool, to the memory of `spare`. Sets `damaged` where a base could not
    /// be read.
    pub fn encode(
        self,
        batch: &Batch,
        reader: &ObjectReader,
        options: &EncodeOptions,
        damaged: &AtomicBool,
        spare: Vec<Vec<u8>>,
    ) -> Result<Done> {
        let payloads = Appender::new(spare);
        let encode = |planned: &Planned, index: u64| {
            let encode = |out: &mut Vec<u8>| {
                planned.encode(index, batch.bytes(), reader, options, damaged, out)
            };
            let (codec, payload) = payloads.append(encode);
            let (_, raw_len) = planned.object.chunk_range(index);
            codec.map(|codec| Encoded {
                codec,
                raw_len,
                payload,
            })
        };
        // An object is prepared just before its chunks are encoded: its base is in cache then, and few are in memory.
        let encode = |(planned, chunks): (&Arc<Planned>, &Range<u64>)| {
            if chunks.start == 0 {
                planned.prepare(batch.bytes(), reader, options)?;
            }
            let encoded = chunks.clone().into_par_iter();
            let encoded = encoded.map(|index| encode(planned, index));
            let encoded = encoded.collect::<Result<Vec<_>>>()?;
            if chunks.end == planned.object.chunk_count() {
                planned.object.preparation.release(reader);
            }
            Ok(encoded)
        };
        let objects = self.objects.par_iter().zip(&self.chunks);
        let encoded = objects.map(encode).collect::<Result<_>>()?;
        Ok(Done {
            work: self,
            encoded,
            payloads: payloads.finish(),
        })
    }
}

impl Planned {
    /// Finds out about the object what its chunks are encoded with.
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
        out: &mut Vec<u8>,
    ) -> Result<CodecId> {
        let (offset, length) = self.object.chunk_range(index);
        match &self.source {
            Source::Arena(range) => {
                let start = range.start + usize::try_from(offset).unwrap_or(usize::MAX);
                let raw = arena.get(start..start + length).unwrap_or_default();
                self.encode_bytes(offset, raw, reader, options, damaged, out)
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
                self.encode_bytes(offset, raw, reader, options, damaged, out)
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
        out: &mut Vec<u8>,
    ) -> Result<CodecId> {
        match self.object.append(reader, options, offset, raw, out) {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                if !damaged.swap(true, Ordering::Relaxed) {
                    tracing::warn!("{error}; storing without a base");
                }
                Ok(self.object.append_solo(reader, options, offset, raw, out))
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
    /// Writes a piece of work, in order. Returns the raw bytes that it stood for, and memory to be used again.
    pub fn write(
        &mut self,
        writer: &mut StoreWriter,
        options: &EncodeOptions,
        done: Done,
    ) -> Result<(u64, Vec<Vec<u8>>)> {
        let mut raw_bytes = 0;
        for ((planned, chunks), encoded) in done
            .work
            .objects
            .iter()
            .zip(&done.work.chunks)
            .zip(&done.encoded)
        {
            let object = &planned.object;
            let coded = |chunk: &Encoded| Coded {
                codec: chunk.codec,
                payload: done.payloads.get(&chunk.payload),
            };
            let mut open = if let Some(open) = self.open.take() {
                open
            } else {
                let first: Vec<_> = encoded.iter().map(coded).collect();
                object.begin(writer, options, &first)?
            };
            for (index, chunk) in chunks.clone().zip(encoded) {
                let payload = done.payloads.get(&chunk.payload);
                writer.append_chunk(
                    &mut open,
                    chunk.codec.0,
                    object.chaining_value(index),
                    payload,
                )?;
                self.savings
                    .add_chunk(chunk.codec, chunk.raw_len as u64, payload.len() as u64);
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
        Ok((raw_bytes, done.payloads.into_spare()))
    }

    /// Gives up an object that was begun and will not be ended.
    pub fn abandon(&mut self, writer: &mut StoreWriter) {
        if let Some(open) = self.open.take() {
            writer.discard_object(open);
        }
    }
}
