//! A batch: spans of one model's files, read and hashed, on their way to be looked up and encoded.

use std::ops::Range;
use std::sync::Arc;

use super::arenas::Arena;
use crate::checkpoint::Span;
use crate::hash::Hash;
use crate::object_writer::Digest;
use crate::sketch::Sketch;
use crate::source::OpenFile;

/// Spans up to this length are read once and kept while they are encoded; longer ones are read twice.
pub const MAX_KEPT: u64 = 64 << 20;

/// Spans read together, and the files that ended with them.
#[derive(Default)]
pub struct Batch {
    /// The bytes of all spans that are kept, if any are.
    pub arena: Option<Arena>,
    /// The spans, in file order.
    pub spans: Vec<HashedSpan>,
    /// Index and hash of each file whose last span is in this batch or before it.
    pub finished: Vec<(usize, Hash)>,
}

impl Batch {
    /// The bytes of all spans that are kept.
    pub fn bytes(&self) -> &[u8] {
        self.arena.as_ref().map_or(&[], Arena::bytes)
    }
}

/// A span with its digest.
pub struct HashedSpan {
    /// The file's index in the model.
    pub file_index: usize,
    /// The file, where it has to be read again.
    pub file: Option<Arc<OpenFile>>,
    /// Where the span lies in it.
    pub span: Span,
    /// Its name and chaining values.
    pub digest: Digest,
    /// What is kept of it to find bases, if it is such a tensor.
    pub sketch: Option<Sketch>,
    /// Where its bytes lie in the arena; `None` where they have to be read again.
    pub kept: Option<Range<usize>>,
}
