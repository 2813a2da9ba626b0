//! Recode: objects are encoded anew, in place, where today's codecs make them smaller.
//!
//! An object keeps its name, its base and at most its depth. What is written was decoded again and compared
//! before it replaces what was there, by a rename; so a run can be stopped at any moment and run again.

use std::collections::HashMap;
use std::time::Instant;

use rayon::ThreadPool;
use rayon::prelude::*;
use serde::Serialize;

use crate::checkpoint::matrix_rows;
use crate::codec::floats::DELTA;
use crate::codec::parts::Parts;
use crate::codec::select::{Effort, Family};
use crate::codec::{Codec, CodecId, EncodeOptions};
use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::object_factors::Preparation;
use crate::object_reader::{ObjectReader, OpenObject};
use crate::object_writer::{Base, Digest, EncodedChunk, NewObject, window_chunks};
use crate::report::Monitor;
use crate::store::index::Record;
use crate::store::object::COMMON;
use crate::store::{ObjectWriter, Store, StoreWriter};
use crate::threads;

/// How to recode.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Worker threads, at least one.
    pub threads: usize,
    /// Settings of the codecs.
    pub encode: EncodeOptions,
    /// Whether objects are tried that the newest codecs wrote already.
    pub all: bool,
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RecodeReport {
    /// Objects in the store.
    pub objects: usize,
    /// Objects that were tried.
    pub tried: usize,
    /// Objects that were replaced.
    pub replaced: usize,
    /// Bytes of all object files before.
    pub bytes_before: u64,
    /// Bytes of all object files after.
    pub bytes_after: u64,
    /// Objects that could not be read, and why; they stay as they are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// Worker threads.
    pub threads: usize,
    /// Seconds of the whole run.
    pub seconds: f64,
}

/// Recodes the store that `writer` writes to.
///
/// # Errors
/// Fails where the store cannot be written; an object that is damaged is reported, and left alone.
pub fn run(
    mut writer: StoreWriter,
    options: Options,
    monitor: &dyn Monitor,
) -> Result<RecodeReport> {
    let start = Instant::now();
    let root = writer.store().layout().root();
    let pool = threads::pool(options.threads, root)?;
    let index = writer.store().index()?;
    let before = index
        .values()
        .map(|record| record.stored_len)
        .fold(0, u64::saturating_add);
    let mut report = RecodeReport {
        objects: index.len(),
        bytes_before: before,
        bytes_after: before,
        threads: options.threads,
        ..RecodeReport::default()
    };
    let reader = ObjectReader::new(writer.store().clone());
    let job = Job {
        set_rows: stacks(writer.store())?,
        pool: &pool,
        reader: &reader,
        options,
    };
    let wanted = |record: &&Record| {
        options.all || is_older(record, &options.encode) || may_gain(record, &options.encode)
    };
    let bytes = index.values().filter(wanted).map(|record| record.raw_len);
    monitor.begin("recode", bytes.fold(0, u64::saturating_add));
    for record in index.values().filter(wanted) {
        report.tried += 1;
        match job.recode(&mut writer, record) {
            Ok(Some(stored_len)) => {
                report.replaced += 1;
                report.bytes_after -= record.stored_len - stored_len;
            }
            Ok(None) => {}
            Err(error) if writer.is_poisoned() || error.kind() == ErrorKind::Io => {
                return Err(error);
            }
            // One damaged object stops all that are encoded against it.
            Err(error) if is_told(&report.errors, &error) => {}
            Err(error) => report.errors.push(error.to_string()),
        }
        monitor.advance(record.raw_len);
    }
    monitor.end();
    writer.close()?;
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

/// Tells whether an error was reported lately: all objects that a damaged one is the base of meet it.
fn is_told(errors: &[String], error: &Error) -> bool {
    let text = error.to_string();
    errors.iter().rev().take(100).any(|told| *told == text)
}

/// Tells whether another family of codecs wrote an object than would write it now.
fn is_older(record: &Record, encode: &EncodeOptions) -> bool {
    let planes = [CodecId(2), CodecId(3)].contains(&CodecId(record.codec));
    match encode.family {
        // Integers of a byte are left as they are: planes are nearly always right for them.
        Family::Auto => {
            let is_coded = record.dtype.is_float() || record.dtype == DType::Bool;
            planes && is_coded && crate::rans::takes(record.dtype)
        }
        Family::BitX => false,
    }
}

/// Tells whether an object is a difference without factors, for which there may be some now, or something that its chunks
/// have in common.
fn may_gain(record: &Record, encode: &EncodeOptions) -> bool {
    let is_tried = encode.family == Family::Auto && encode.effort != Effort::Fast;
    let codecs = [DELTA.id(), Parts.id()];
    is_tried && codecs.contains(&CodecId(record.codec)) && crate::lowrank::takes(record.dtype)
}

/// By object, the rows of each matrix of a stack, where the newest manifests know of one.
fn stacks(store: &Store) -> Result<HashMap<Hash, u64>> {
    let mut out = HashMap::new();
    for model in store.models()? {
        let manifest = match store.newest(&model.id) {
            Err(error) if error.kind() == ErrorKind::Corrupt => continue,
            other => other?,
        };
        let segments = manifest
            .iter()
            .flat_map(|manifest| &manifest.files)
            .flat_map(|file| &file.segments);
        for segment in segments {
            let rows = segment
                .tensor
                .as_ref()
                .map_or(0, |tensor| matrix_rows(&tensor.shape));
            if rows > 0 {
                out.insert(segment.object, rows);
            }
        }
    }
    Ok(out)
}

/// Encodes stored objects anew.
pub(crate) struct Job<'a> {
    /// Rows of each matrix of a stack.
    pub(crate) set_rows: HashMap<Hash, u64>,
    /// Where chunks are encoded.
    pub(crate) pool: &'a ThreadPool,
    /// Reads the objects and their bases.
    pub(crate) reader: &'a ObjectReader,
    /// How to encode.
    pub(crate) options: Options,
}

impl Job<'_> {
    /// Replaces an object if that makes it smaller; returns the bytes of its new file if so.
    fn recode(&self, writer: &mut StoreWriter, record: &Record) -> Result<Option<u64>> {
        let old = self.reader.open(&record.name)?;
        let object = self.plan(&old)?;
        let read = |offset, out: &mut [u8]| self.reader.read_range(&record.name, offset, out);
        self.pool
            .install(|| object.prepare(self.reader, &self.options.encode, &read, true))?;
        let known = object.preparation.known();
        let has_common = old.file.frame.head.required & COMMON != 0;
        let is_better = known.factors.is_some()
            || known.common.is_some() && !has_common
            || is_older(record, &self.options.encode);
        if !self.options.all && !is_better {
            return Ok(None);
        }
        self.replace(writer, &object, record.stored_len)
    }

    /// Writes an object anew, with its new base, if it takes fewer than `limit` bytes; returns how many.
    pub(crate) fn replace(
        &self,
        writer: &mut StoreWriter,
        object: &NewObject,
        limit: u64,
    ) -> Result<Option<u64>> {
        let mut output: Option<ObjectWriter> = None;
        let written = self.write(writer, object, &mut output);
        let Some(output) = output else {
            return written.map(|()| None);
        };
        if let Err(error) = written {
            writer.discard_object(output);
            return Err(error);
        }
        if output.stored_len() >= limit {
            writer.discard_object(output);
            return Ok(None);
        }
        writer.finish_object(output).map(Some)
    }

    /// The object as it is, to be encoded anew.
    pub(crate) fn plan(&self, old: &OpenObject) -> Result<NewObject> {
        let frame = &old.file.frame;
        let base = match frame.head.bases.first() {
            None => None,
            Some(first) => Some(Base {
                object: self.reader.open(&first.name)?,
                parts: frame.head.bases.clone(),
            }),
        };
        let many = frame.chunks.len() > 1;
        let values = frame
            .chunks
            .iter()
            .filter(|_| many)
            .map(|chunk| chunk.chaining_value)
            .collect();
        Ok(NewObject {
            digest: Digest {
                name: old.file.name,
                values,
            },
            dtype: frame.head.dtype,
            row_len: frame.head.row_len,
            raw_len: frame.head.raw_len,
            base,
            set_rows: self.set_rows.get(&old.file.name).copied().unwrap_or(0),
            preparation: Preparation::default(),
        })
    }

    fn write(
        &self,
        writer: &mut StoreWriter,
        object: &NewObject,
        output: &mut Option<ObjectWriter>,
    ) -> Result<()> {
        let count = object.chunk_count();
        let window = window_chunks(object.dtype.chunk_bytes(), self.options.threads);
        let mut next = 0;
        while next < count {
            let end = count.min(next + window);
            let encode = |index| self.encode(object, index);
            let chunks: Vec<EncodedChunk> = self.pool.install(|| {
                (next..end)
                    .into_par_iter()
                    .map(encode)
                    .collect::<Result<_>>()
            })?;
            if output.is_none() {
                let first: Vec<_> = chunks.iter().map(EncodedChunk::coded).collect();
                *output = Some(object.begin(writer, &self.options.encode, &first)?);
            }
            let Some(open) = output.as_mut() else {
                return Ok(());
            };
            for (index, chunk) in (next..end).zip(&chunks) {
                writer.append_chunk(
                    open,
                    chunk.codec.0,
                    object.chaining_value(index),
                    &chunk.payload,
                )?;
            }
            next = end;
        }
        Ok(())
    }

    /// Encodes one chunk, and decodes it again before it is believed.
    fn encode(&self, object: &NewObject, index: u64) -> Result<EncodedChunk> {
        let (offset, length) = object.chunk_range(index);
        let buffers = self.reader.buffers();
        buffers.with(length, |raw| {
            self.reader.read_chunk(&object.digest.name, index, raw)?;
            let chunk = object.encode(self.reader, &self.options.encode, offset, raw)?;
            buffers
                .with(length, |again| {
                    object
                        .decode(self.reader, offset, &chunk, again)
                        .map(|()| again == raw)
                })?
                .then_some(chunk)
                .ok_or_else(|| {
                    Error::corrupt(
                        &object.digest.name,
                        format!("chunk {index} came back changed from encoding; it stays as it is"),
                    )
                })
        })
    }
}
