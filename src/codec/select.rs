//! Choosing a codec for a chunk.

use super::planes::{BitX, Solo};
use super::raw::Raw;
use super::workspace::keep_smaller;
use super::zstd::Zstd;
use super::{ChunkView, Codec, CodecId, Workspace};
use crate::dtype::DType;

/// Settings of the encoders; decoding needs none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeOptions {
    /// The level given to zstd, -7 to 22.
    pub zstd_level: i32,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self { zstd_level: 3 }
    }
}

/// Appends the smallest payload found for `raw` to `out` and returns its codec; never more than `raw`.
///
/// With a base it is [`BitX`], unless that is large and [`Solo`] is smaller; without one it is `Solo`,
/// or [`Zstd`] for opaque bytes. What saves nothing is stored [`Raw`].
pub fn encode_chunk(
    options: &EncodeOptions,
    view: &ChunkView<'_>,
    raw: &[u8],
    ws: &mut Workspace,
    out: &mut Vec<u8>,
) -> CodecId {
    let second: &dyn Codec = if view.dtype == DType::Opaque {
        &Zstd
    } else {
        &Solo
    };
    let whole = raw.len().is_multiple_of(view.dtype.size());
    let mut search = Search {
        options,
        view,
        raw,
        start: out.len(),
        out,
        best: &Raw,
    };
    if whole && view.base.is_some_and(|base| base.len() == raw.len()) {
        search.attempt(&BitX, ws);
    }
    if whole && search.length() > raw.len() / 100 * 55 {
        search.attempt(second, ws);
    }
    if !whole
        || search.length() > raw.len() / 100 * 90 && second.id() != Zstd.id() && search.repeats(ws)
    {
        search.attempt(&Zstd, ws);
    }
    search.finish()
}

/// The best payload yet: what `out` holds from `start` on, or nothing while that is [`Raw`].
struct Search<'a> {
    options: &'a EncodeOptions,
    view: &'a ChunkView<'a>,
    raw: &'a [u8],
    out: &'a mut Vec<u8>,
    start: usize,
    best: &'static dyn Codec,
}

impl Search<'_> {
    /// Returns the bytes of the best payload.
    fn length(&self) -> usize {
        if self.best.id() == Raw.id() {
            self.raw.len()
        } else {
            self.out.len() - self.start
        }
    }

    /// Encodes with `codec` and keeps the result if it is smaller.
    fn attempt(&mut self, codec: &'static dyn Codec, ws: &mut Workspace) {
        let length = self.length();
        let encode = |out: &mut Vec<u8>| {
            codec.encode(self.options, self.view, self.raw, ws, out);
            true
        };
        if keep_smaller(self.out, self.start, length, encode) < length {
            self.best = codec;
        }
    }

    /// Tells whether the fastest zstd finds so much repeated that the real one is worth its time.
    fn repeats(&mut self, ws: &mut Workspace) -> bool {
        ws.zstd
            .repeats_length(self.raw, self.out)
            .is_some_and(|length| length < self.length())
    }

    fn finish(self) -> CodecId {
        if self.best.id() == Raw.id() {
            self.out.extend_from_slice(self.raw);
        }
        self.best.id()
    }
}
