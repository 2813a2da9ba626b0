//! Encodes objects with their bases and hands them to the store.

use std::ops::Range;
use std::sync::Arc;

use rayon::ThreadPool;
use rayon::prelude::*;

use crate::codec::parts::{self, Parts, Run};
use crate::codec::{
    ChunkView, Codec, CodecId, EncodeOptions, encode_known_chunk, find, has_skips, is_flat,
    lowrank::LowRank, may_be_flat, may_skip, section,
};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::hash::{ChainingValue, Hash, chunk_chaining_value, merge_chunks};
use crate::object_factors::Preparation;
use crate::object_reader::{ObjectReader, OpenObject};
use crate::store::object::{
    BaseRef, COMMON, FLAT_TAILS, Head, PARTS, PREDICTED_PARTS, SKIPS, is_chunked,
};
use crate::store::{ObjectWriter, StoreWriter};

/// Bytes of an object whose chunks are encoded together.
const WINDOW_BYTES: usize = 32 << 20;

/// Chunks of a long object that are encoded together: about 32 MiB, and two a thread at least.
pub fn window_chunks(chunk_bytes: usize, threads: usize) -> u64 {
    (WINDOW_BYTES / chunk_bytes).max(2 * threads).max(1) as u64
}

/// An object's name, and the chaining values of its chunks if it has more than one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// The name.
    pub name: Hash,
    /// A value a chunk; empty for an object of one chunk.
    pub values: Vec<ChainingValue>,
}

/// What one chunk contributes to its object's digest.
pub fn digest_chunk(raw_len: u64, dtype: DType, offset: u64, bytes: &[u8]) -> ChainingValue {
    if is_chunked(raw_len, dtype) {
        chunk_chaining_value(offset, bytes)
    } else {
        *Hash::of(bytes).as_bytes()
    }
}

impl Digest {
    /// Joins what the chunks contributed, in order; `None` without chunks.
    pub fn join(values: Vec<ChainingValue>) -> Option<Self> {
        match values.as_slice() {
            [] => None,
            [one] => Some(Self {
                name: Hash::from_bytes(*one),
                values: Vec::new(),
            }),
            many => Some(Self {
                name: merge_chunks(many)?,
                values,
            }),
        }
    }
}

/// An object about to be encoded.
pub struct NewObject {
    /// Its name and its chunks' chaining values.
    pub digest: Digest,
    /// How its elements are to be read.
    pub dtype: DType,
    /// Elements in a row; 0 where there are no rows.
    pub row_len: u64,
    /// Its length in bytes.
    pub raw_len: u64,
    /// What it may be a difference to.
    pub base: Option<Base>,
    /// Rows that share their column factors, as those of one matrix of a stack; 0 for all.
    pub set_rows: u64,
    /// What was found out about it before its chunks are encoded.
    pub preparation: Preparation,
}

/// An object, and which of its elements predict which of another one's.
#[derive(Clone)]
pub struct Base {
    /// The object.
    pub object: Arc<OpenObject>,
    /// Its elements' places, in order; all of them are of `object`.
    pub parts: Vec<BaseRef>,
}

impl Base {
    /// The base of an object of `elements` elements of type `dtype`, element by element.
    pub fn whole(object: Arc<OpenObject>, dtype: DType, elements: u64) -> Self {
        let part = BaseRef {
            name: object.file.name,
            dtype,
            start: 0,
            count: elements,
            target_start: 0,
        };
        Self {
            object,
            parts: vec![part],
        }
    }

    /// Cuts a run of bytes of the object, from byte `offset`, where the base begins or ceases to cover it.
    fn runs(&self, dtype: DType, offset: u64, length: usize) -> Vec<Run> {
        let size = dtype.size() as u64;
        let (first, end) = (offset / size, offset / size + length as u64 / size);
        let mut runs = Vec::new();
        let mut push = |elements: u64, covered| {
            let bytes = usize::try_from(elements * size).unwrap_or(0);
            runs.extend((bytes > 0).then_some(Run { bytes, covered }));
        };
        let mut at = first;
        for part in &self.parts {
            let from = part.target_start.clamp(at, end);
            let to = (part.target_start + part.count).clamp(from, end);
            push(from - at, false);
            push(to - from, true);
            at = to;
        }
        push(end - at, false);
        runs
    }

    /// The rows of `row_len` elements that the base covers; none where it covers other elements too.
    pub(crate) fn rows(&self, row_len: u64) -> Vec<Range<u64>> {
        let row = |part: &BaseRef| {
            let whole = [part.target_start, part.count].map(|place| place.is_multiple_of(row_len));
            let (start, count) = (part.target_start / row_len, part.count / row_len);
            (whole == [true; 2]).then_some(start..start + count)
        };
        let parts = self.parts.iter().filter(|_| row_len > 0);
        parts.map(row).collect::<Option<_>>().unwrap_or_default()
    }

    /// Tells what an object with this base requires of its readers.
    pub(crate) fn required(&self, dtype: DType, raw_len: u64) -> u16 {
        let whole = Self::whole(self.object.clone(), dtype, raw_len / dtype.size() as u64);
        let plain = self.parts == whole.parts && self.object.file.frame.head.raw_len == raw_len;
        if plain { 0 } else { PARTS }
    }
}

/// A chunk ready to be written.
pub struct EncodedChunk {
    /// The codec that won.
    pub codec: CodecId,
    /// Bytes of the raw chunk.
    pub raw_len: usize,
    /// What the codec wrote.
    pub payload: Vec<u8>,
}

/// A payload, and the codec that wrote it.
#[derive(Clone, Copy)]
pub struct Coded<'a> {
    /// The codec.
    pub codec: CodecId,
    /// What it wrote.
    pub payload: &'a [u8],
}

impl EncodedChunk {
    /// What of it is stored.
    pub fn coded(&self) -> Coded<'_> {
        Coded {
            codec: self.codec,
            payload: &self.payload,
        }
    }
}

impl Coded<'_> {
    /// Tells whether decoding it takes the factors in the object's shared section.
    fn is_predicted(&self) -> bool {
        let predicted = LowRank.id();
        self.codec == predicted || self.codec == Parts.id() && parts::uses(self.payload, predicted)
    }
}

impl NewObject {
    /// Returns the number of chunks.
    pub fn chunk_count(&self) -> u64 {
        self.raw_len.div_ceil(self.dtype.chunk_bytes() as u64)
    }

    /// Returns the first byte and the length of a chunk.
    pub fn chunk_range(&self, index: u64) -> (u64, usize) {
        let size = self.dtype.chunk_bytes() as u64;
        let start = index * size;
        (
            start,
            usize::try_from((self.raw_len - start).min(size)).unwrap_or(0),
        )
    }

    /// Returns the chaining value of a chunk, all zeros where there is but one.
    pub fn chaining_value(&self, index: u64) -> ChainingValue {
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        self.digest.values.get(at).copied().unwrap_or([0; 32])
    }

    /// Encodes the chunk that begins at byte `offset` of the object.
    pub fn encode(
        &self,
        reader: &ObjectReader,
        options: &EncodeOptions,
        offset: u64,
        raw: &[u8],
    ) -> Result<EncodedChunk> {
        reader.payloads().with_any(|scratch| {
            scratch.clear();
            let codec = self.append(reader, options, offset, raw, scratch)?;
            Ok(EncodedChunk {
                codec,
                raw_len: raw.len(),
                payload: scratch.as_slice().to_vec(),
            })
        })
    }

    /// As [`Self::encode`], and appends the payload to `out`; an error leaves that as it was.
    pub fn append(
        &self,
        reader: &ObjectReader,
        options: &EncodeOptions,
        offset: u64,
        raw: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<CodecId> {
        let Some(base) = &self.base else {
            return Ok(self.append_solo(reader, options, offset, raw, out));
        };
        let runs = base.runs(self.dtype, offset, raw.len());
        if runs.iter().all(|run| !run.covered) {
            return Ok(self.append_solo(reader, options, offset, raw, out));
        }
        let (parts, length) = (&base.parts, raw.len());
        self.preparation
            .with_base(reader, offset, length, |copy| match copy {
                Some(base) => Ok(self.append_based(reader, options, offset, raw, base, &runs, out)),
                None => reader.buffers().with(length, |base| {
                    reader.read_base(parts, self.dtype, offset, base)?;
                    Ok(self.append_based(reader, options, offset, raw, base, &runs, out))
                }),
            })
    }

    /// Appends the payload of a chunk with its base's bytes, some runs of which are no base.
    #[allow(clippy::too_many_arguments, reason = "two chunks, and how to encode")]
    fn append_based(
        &self,
        reader: &ObjectReader,
        options: &EncodeOptions,
        offset: u64,
        raw: &[u8],
        base: &[u8],
        runs: &[Run],
        out: &mut Vec<u8>,
    ) -> CodecId {
        if runs.len() == 1 {
            return self.append_with(reader, options, offset, raw, Some(base), out);
        }
        let start = out.len();
        let alone = self.append_solo(reader, options, offset, raw, out);
        let end = out.len();
        let view = self.view(offset, Some(base));
        let known = self.preparation.known();
        let workspaces = reader.workspaces();
        workspaces.with(|ws| parts::encode(options, &view, known, raw, runs, ws, out));
        if out.len() - end < end - start {
            out.drain(start..end);
            Parts.id()
        } else {
            out.truncate(end);
            alone
        }
    }

    fn view<'a>(&self, offset: u64, base: Option<&'a [u8]>) -> ChunkView<'a> {
        ChunkView {
            dtype: self.dtype,
            row_len: self.row_len,
            first_element: offset / self.dtype.size() as u64,
            base,
        }
    }

    /// As [`Self::append`], without the object's base.
    pub fn append_solo(
        &self,
        reader: &ObjectReader,
        options: &EncodeOptions,
        offset: u64,
        raw: &[u8],
        out: &mut Vec<u8>,
    ) -> CodecId {
        self.append_with(reader, options, offset, raw, None, out)
    }

    fn append_with(
        &self,
        reader: &ObjectReader,
        options: &EncodeOptions,
        offset: u64,
        raw: &[u8],
        base: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) -> CodecId {
        let view = self.view(offset, base);
        let known = self.preparation.known();
        let workspaces = reader.workspaces();
        workspaces.with(|ws| encode_known_chunk(options, &view, known, raw, ws, out))
    }

    /// Decodes a chunk that was just encoded into `out`, to compare it.
    pub fn decode(
        &self,
        reader: &ObjectReader,
        offset: u64,
        chunk: &EncodedChunk,
        out: &mut [u8],
    ) -> Result<()> {
        let bad = |reason: String| Error::corrupt(&self.digest.name, reason);
        let codec =
            find(chunk.codec).ok_or_else(|| bad(format!("codec {} is unknown", chunk.codec.0)))?;
        let prepared = self.preparation.prepared();
        let mut run = |base: Option<&[u8]>| {
            let view = self.view(offset, base);
            let done = reader
                .workspaces()
                .with(|ws| codec.decode(&prepared, &view, &chunk.payload, out, ws));
            done.map_err(|error| bad(error.to_string()))
        };
        match &self.base {
            Some(base) if codec.uses_base() => reader.buffers().with(chunk.raw_len, |bytes| {
                reader.read_base(&base.parts, self.dtype, offset, bytes)?;
                run(Some(bytes))
            }),
            _ => run(None),
        }
    }

    /// Tells whether decoding a chunk takes what the object's chunks have in common.
    fn has_common(&self, index: u64, chunk: Coded<'_>) -> bool {
        if self.preparation.common().is_empty() {
            return false;
        }
        let (offset, length) = self.chunk_range(index);
        let (prepared, view) = (self.preparation.prepared(), self.view(offset, None));
        prepared.is_common_used(chunk.codec, &view, length, chunk.payload)
    }

    /// What of the shared section the chunks known so far need, or those to come may: what they have in common, and factors.
    fn needed(&self, first: &[Coded<'_>]) -> (&[u8], &[u8]) {
        let (common, factors) = (self.preparation.common(), self.preparation.factors());
        if first.len() as u64 != self.chunk_count() {
            return (common, factors);
        }
        let mut chunks = (0..).zip(first);
        let has_common = chunks.any(|(index, chunk)| self.has_common(index, *chunk));
        let is_predicted = first.iter().any(Coded::is_predicted);
        (
            if has_common { common } else { &[] },
            if is_predicted { factors } else { &[] },
        )
    }

    /// The features that chunks known so far have, or those to come may.
    fn features(&self, options: &EncodeOptions, first: &[Coded<'_>]) -> u16 {
        let has_more = first.len() as u64 != self.chunk_count();
        let is_there = |may: bool, has: fn(CodecId, &[u8]) -> bool| {
            has_more && may || first.iter().any(|chunk| has(chunk.codec, chunk.payload))
        };
        let may_skip = self.base.is_some() && may_skip(options, self.dtype);
        let flat = is_there(may_be_flat(options, self.dtype), is_flat);
        let skips = is_there(may_skip, has_skips);
        (if flat { FLAT_TAILS } else { 0 }) | (if skips { SKIPS } else { 0 })
    }

    /// Begins the object in the store; `first` are the chunks known so far, all of them or at least [`window_chunks`].
    pub fn begin(
        &self,
        writer: &mut StoreWriter,
        options: &EncodeOptions,
        first: &[Coded<'_>],
    ) -> Result<ObjectWriter> {
        // More threads know more chunks; the head must not say more for that.
        let least = usize::try_from(window_chunks(self.dtype.chunk_bytes(), 0));
        let first = first.get(..least.unwrap_or(0)).unwrap_or(first);
        let whole = first.len() as u64 == self.chunk_count();
        let needs_base = !whole || first.iter().any(|chunk| uses_base(chunk.codec));
        let base = self.base.as_ref().filter(|_| needs_base);
        let (common, factors) = self.needed(first);
        let shared = section(common, factors);
        let codec = match first
            .iter()
            .map(|chunk| chunk.codec)
            .max_by_key(|codec| (uses_base(*codec), codec.0))
        {
            _ if !factors.is_empty() => Some(LowRank.id()),
            codec => codec,
        };
        let required = base.map_or(0, |base| base.required(self.dtype, self.raw_len));
        let is_in_parts = required & PARTS != 0 && !factors.is_empty();
        let required = required
            | if is_in_parts { PREDICTED_PARTS } else { 0 }
            | if common.is_empty() { 0 } else { COMMON }
            | self.features(options, first);
        let head = Head {
            codec: codec.unwrap_or(CodecId(0)).0,
            dtype: self.dtype,
            depth: base.map_or(0, |base| base.object.file.frame.head.depth + 1),
            required,
            optional: 0,
            raw_len: self.raw_len,
            row_len: self.row_len,
            shared_len: u32::try_from(shared.len()).unwrap_or(u32::MAX),
            bases: base.map_or_else(Vec::new, |base| base.parts.clone()),
        };
        writer.create_object(self.digest.name, head, &shared)
    }

    /// Encodes the object window by window, in `pool`, and hands it to the store. Returns its stored bytes.
    ///
    /// `read` fills a buffer with the object's bytes from an offset; they are held against the digest.
    ///
    /// # Errors
    /// Those of `read`, of the base and of the store; `CorruptObject` where `read` gives other bytes than the digest's.
    pub fn store(
        &self,
        writer: &mut StoreWriter,
        reader: &ObjectReader,
        pool: &ThreadPool,
        options: &EncodeOptions,
        read: &(impl Fn(u64, &mut [u8]) -> Result<()> + Sync),
    ) -> Result<u64> {
        let encode = |index: u64| self.read_and_encode(reader, options, index, read);
        let window = window_chunks(self.dtype.chunk_bytes(), pool.current_num_threads());
        let (count, mut next) = (self.chunk_count(), 0);
        let mut output: Option<ObjectWriter> = None;
        while next < count {
            let end = count.min(next + window);
            let chunks = || {
                (next..end)
                    .into_par_iter()
                    .map(encode)
                    .collect::<Result<Vec<_>>>()
            };
            let (chunks, mut open) = match (pool.install(chunks), output.take()) {
                (Ok(chunks), Some(open)) => (chunks, open),
                (Ok(chunks), None) => {
                    let first: Vec<_> = chunks.iter().map(EncodedChunk::coded).collect();
                    let open = self.begin(writer, options, &first)?;
                    (chunks, open)
                }
                (Err(error), open) => {
                    open.into_iter()
                        .for_each(|open| writer.discard_object(open));
                    return Err(error);
                }
            };
            for (index, chunk) in (next..end).zip(&chunks) {
                let value = self.chaining_value(index);
                writer.append_chunk(&mut open, chunk.codec.0, value, &chunk.payload)?;
            }
            output = Some(open);
            next = end;
        }
        output.map_or(Ok(0), |open| writer.finish_object(open))
    }

    fn read_and_encode(
        &self,
        reader: &ObjectReader,
        options: &EncodeOptions,
        index: u64,
        read: &impl Fn(u64, &mut [u8]) -> Result<()>,
    ) -> Result<EncodedChunk> {
        let (offset, length) = self.chunk_range(index);
        reader.buffers().with(length, |raw| {
            read(offset, raw)?;
            let value = digest_chunk(self.raw_len, self.dtype, offset, raw);
            let expected = match self.digest.values.as_slice() {
                [] => *self.digest.name.as_bytes(),
                _ => self.chaining_value(index),
            };
            if value != expected {
                let reason = format!("chunk {index} was read with other bytes than its name says");
                return Err(Error::corrupt(&self.digest.name, reason));
            }
            self.encode(reader, options, offset, raw)
        })
    }
}

fn uses_base(codec: CodecId) -> bool {
    find(codec).is_some_and(super::codec::Codec::uses_base)
}
