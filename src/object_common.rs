//! What the chunks of a long object have in common, learnt from some of its rows before any chunk is encoded.

use std::ops::Range;
use std::sync::Arc;

use crate::buffers::BufferPool;
use crate::codec::WorkspacePool;
use crate::codec::select::Effort;
use crate::dtype::{CHUNK_ELEMENTS, DType};
use crate::error::Result;
use crate::lowrank::{self, Fitted};
use crate::rans::{Isa, Learner, Sample, Shared};

/// What was learnt, and how it is stored.
pub struct Common {
    /// For encoders.
    pub shared: Shared,
    /// As decoders have it.
    pub parsed: Arc<Shared>,
    /// As it is stored.
    pub bytes: Vec<u8>,
}

/// Most chunks from which rows are taken, unless others are had already.
const MOST_CHUNKS: u64 = 4;
/// One in so many elements of a long object is looked at, up to [`MOST`] of them; where every look decodes a chunk, up to a
/// chunk of them, for which each is decoded once.
const PART: u64 = 8;
const MOST: u64 = 4 * CHUNK_ELEMENTS;
/// Of a short one it is one in so many, up to a chunk.
const SHORT_PART: u64 = 4;

/// An object as what its chunks have in common sees it.
#[derive(Clone, Copy)]
pub struct Extent {
    /// How the elements are to be read.
    pub dtype: DType,
    /// Elements in a row; 0 where there are no rows.
    pub row_len: u64,
    /// All elements.
    pub elements: u64,
}

/// How bytes of an object and its base are read, from a place on.
pub trait Pair {
    /// Tells whether there is a base.
    fn has_base(&self) -> bool;
    /// The chunks of which rows are had without decoding them once more, if they are not all the same.
    fn chunks(&self) -> Option<Vec<u64>>;
    /// Tells whether reading means decoding.
    fn is_slow(&self) -> bool;
    /// Reads the object.
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()>;
    /// Reads its base.
    fn read_base(&self, offset: u64, out: &mut [u8]) -> Result<()>;
}

impl Extent {
    /// Samples of rows to learn from: each has some of the middle of the chunks given, or of a few spread over the object.
    fn samples(&self, chunks: Option<Vec<u64>>, most: u64) -> Vec<Vec<Range<u64>>> {
        let count = self.elements.div_ceil(CHUNK_ELEMENTS);
        let taken = count.min(MOST_CHUNKS);
        let spread = || (0..taken).map(|i| i * (count - 1) / (taken - 1).max(1));
        let chunks = chunks.filter(|chunks| !chunks.is_empty());
        let chunks = chunks.unwrap_or_else(|| spread().collect());
        let least = (self.elements / SHORT_PART).min(CHUNK_ELEMENTS);
        let wanted = (self.elements / PART).clamp(least, most);
        let samples = wanted.div_ceil(CHUNK_ELEMENTS);
        let each = wanted / samples / chunks.len() as u64 / self.row_len;
        let rows = |number: u64, chunk: u64| {
            let first = (chunk * CHUNK_ELEMENTS).div_ceil(self.row_len);
            let end = ((chunk + 1) * CHUNK_ELEMENTS).min(self.elements) / self.row_len;
            let there = end.saturating_sub(first);
            let each = each.min(there / samples);
            let start = first + (there - samples * each) / 2 + number * each;
            start..start + each
        };
        let sample = |number| chunks.iter().map(|chunk| rows(number, *chunk)).collect();
        (0..samples).map(sample).collect()
    }

    /// Learns what the chunks of an object have in common; predicted with factors if there are any. `None` where it is
    /// nothing.
    pub fn learn(
        &self,
        effort: Effort,
        pair: &impl Pair,
        factors: Option<&Fitted>,
        pools: (&WorkspacePool, &BufferPool),
    ) -> Result<Option<Common>> {
        if self.elements == 0 || !Shared::may_learn(effort, self.dtype, self.row_len) {
            return Ok(None);
        }
        let mut learner = Learner::new(Isa::detect(), effort);
        let most = if pair.is_slow() { CHUNK_ELEMENTS } else { MOST };
        let mut samples = self.samples(pair.chunks(), most);
        let Some(last) = samples.pop() else {
            return Ok(None);
        };
        let (workspaces, buffers) = pools;
        let mut rows = Rows {
            raw: buffers.take(),
            base: buffers.take(),
            hints: buffers.take(),
        };
        for ranges in samples {
            rows.read(self, &ranges, pair, factors)?;
            workspaces.with(|ws| learner.add(&rows.sample(self), ws.rans()));
        }
        rows.read(self, &last, pair, factors)?;
        let (sample, elements) = (rows.sample(self), self.elements);
        let shared = workspaces.with(|ws| learner.finish(&sample, elements, ws.rans()));
        let Rows { raw, base, hints } = rows;
        let used = [raw, base, hints];
        used.into_iter()
            .for_each(|buffer| buffers.give_back(buffer));
        Ok(shared.and_then(|shared| self.checked(shared)))
    }

    /// It is used only if what is stored of it says the same.
    fn checked(&self, shared: Shared) -> Option<Common> {
        let bytes = shared.to_bytes();
        let parsed = Shared::parse(self.dtype, self.row_len, &bytes).ok()?;
        parsed.decodes_as(&shared).then(|| Common {
            shared: shared.for_encoders(),
            parsed: Arc::new(parsed),
            bytes,
        })
    }
}

/// Rows of a sample, one after the other.
struct Rows {
    raw: Vec<u8>,
    base: Vec<u8>,
    hints: Vec<u8>,
}

impl Rows {
    /// Reads rows in the place of those before.
    fn read(
        &mut self,
        extent: &Extent,
        ranges: &[Range<u64>],
        pair: &impl Pair,
        factors: Option<&Fitted>,
    ) -> Result<()> {
        self.raw.clear();
        self.base.clear();
        self.hints.clear();
        let size = extent.dtype.size();
        for range in ranges {
            let first = range.start * extent.row_len;
            let offset = first * size as u64;
            let elements = usize::try_from((range.end - range.start) * extent.row_len);
            let length = elements.unwrap_or(0) * size;
            pair.read(offset, more(&mut self.raw, length))?;
            if !pair.has_base() {
                continue;
            }
            let base = more(&mut self.base, length);
            pair.read_base(offset, base)?;
            if let Some(factors) = factors {
                let hints = more(&mut self.hints, length / size);
                lowrank::predict(Isa::detect(), factors, first, base, hints);
            }
        }
        Ok(())
    }

    fn sample(&self, extent: &Extent) -> Sample<'_> {
        let some = |bytes| Some(bytes).filter(|bytes: &&[u8]| !bytes.is_empty());
        Sample {
            dtype: extent.dtype,
            row_len: extent.row_len,
            raw: &self.raw,
            base: some(self.base.as_slice()),
            hints: some(self.hints.as_slice()),
        }
    }
}

/// So many bytes more, to be filled.
fn more(bytes: &mut Vec<u8>, length: usize) -> &mut [u8] {
    let start = bytes.len();
    bytes.resize(start + length, 0);
    bytes.get_mut(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_whole_rows_of_the_chunks_that_are_had() {
        const CHUNK: u64 = CHUNK_ELEMENTS;
        for (row_len, elements, chunks, most) in [
            (1024, 3 * CHUNK / 2, None, CHUNK),
            (4096, 16 * CHUNK, None, MOST),
            (11_008, 43 * CHUNK + 11_008, Some(vec![3, 17, 42]), MOST),
            (4096, 1000 * CHUNK, Some(vec![]), MOST),
            (7, 2 * CHUNK + 3, Some(vec![2]), CHUNK),
            (CHUNK, 9 * CHUNK, None, MOST),
            (CHUNK / 2 + 1, 9 * CHUNK, None, MOST),
        ] {
            let extent = Extent {
                dtype: DType::Bf16,
                row_len,
                elements,
            };
            let samples = extent.samples(chunks.clone(), MOST);
            let mut rows: Vec<_> = samples.iter().flatten().cloned().collect();
            rows.retain(|rows| !rows.is_empty());
            rows.sort_by_key(|rows| rows.start);
            let apart = |pair: &[Range<u64>]| pair[0].end <= pair[1].start;
            assert!(rows.windows(2).all(apart), "{rows:?}");
            let seen: u64 = rows.iter().map(|rows| rows.end - rows.start).sum();
            assert!(seen * row_len <= most, "{seen} rows of {row_len}");
            for rows in rows {
                let (first, end) = (rows.start * row_len, rows.end * row_len);
                assert!(end <= elements);
                let chunk = first / CHUNK;
                assert_eq!((end - 1) / CHUNK, chunk, "a row lies in two chunks");
                let had = chunks.as_ref().filter(|chunks| !chunks.is_empty());
                assert!(had.is_none_or(|chunks| chunks.contains(&chunk)));
            }
        }
    }
}
