//! Codecs: pure pairs of functions between the raw bytes of a chunk and its payload.
//!
//! A codec knows nothing of files, stores or threads. Adding one is one file, one row in [`REGISTRY`],
//! one arm in [`select`], and one page in `docs/codecs/`.

pub mod floats;
pub mod lowrank;
pub mod parts;
pub mod planes;
mod prepared;
pub mod raw;
pub mod select;
#[cfg(test)]
mod tests;
mod workspace;
pub mod zstd;

use crate::dtype::DType;

pub use floats::{has_skips, is_flat, may_be_flat, may_learn, may_skip};
pub use prepared::{Prepared, section};
pub use select::{EncodeOptions, Known, encode_chunk, encode_known_chunk};
pub use workspace::{Workspace, WorkspacePool};

/// The number that names a codec in an object's chunk table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CodecId(pub u8);

/// What codec and caller both know of a chunk, whether it is encoded or decoded.
#[derive(Clone, Copy, Debug)]
pub struct ChunkView<'a> {
    /// How the elements are to be read.
    pub dtype: DType,
    /// Elements in a row of the tensor; 0 where there are no rows.
    pub row_len: u64,
    /// The flat position, in its object, of the chunk's first element.
    pub first_element: u64,
    /// The base's bytes at the chunk's place, exactly as many as the chunk's; `None` without a base.
    pub base: Option<&'a [u8]>,
}

/// Why a payload was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The payload ends before the chunk is whole.
    #[error("the payload ends too early")]
    Truncated,
    /// Bytes are left over after the last element.
    #[error("the payload has bytes after its end")]
    Trailing,
    /// A field or a coded stream has a value that no encoder writes.
    #[error("the payload is malformed: {0}")]
    Malformed(&'static str),
    /// The codec needs a base and was given none, or one of another length.
    #[error("the base is missing or has another length")]
    Base,
}

/// The kinds of codec that reports tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Any bytes.
    Plain,
    /// Numbers, without a base.
    Solo,
    /// Numbers, as differences to a base.
    Delta,
}

/// What a codec is called, and what it is for.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// Its number in object files.
    pub id: CodecId,
    /// Its name in reports.
    pub name: &'static str,
    /// What it makes of its input, for reports.
    pub class: Class,
}

impl Head {
    /// The head of the codec with this number.
    const fn new(id: u8, name: &'static str, class: Class) -> Self {
        let id = CodecId(id);
        Self { id, name, class }
    }
}

/// One way to code a chunk.
pub trait Codec: Sync {
    /// What the codec is called, and what it is for.
    fn head(&self) -> Head;

    /// The codec's number in object files.
    fn id(&self) -> CodecId {
        self.head().id
    }

    /// The codec's name in reports.
    fn name(&self) -> &'static str {
        self.head().name
    }

    /// What the codec makes of its input, for reports.
    fn class(&self) -> Class {
        self.head().class
    }

    /// Tells whether a payload can only be decoded with the base.
    fn uses_base(&self) -> bool {
        self.class() == Class::Delta
    }

    /// Appends the payload of `raw` to `out`.
    ///
    /// Callers pass only chunks that the codec applies to; what it appends decodes to `raw`.
    fn encode(
        &self,
        options: &EncodeOptions,
        view: &ChunkView<'_>,
        raw: &[u8],
        ws: &mut Workspace,
        out: &mut Vec<u8>,
    );

    /// Decodes `payload` into `out`, all of it, reading and writing nothing outside the slices.
    ///
    /// `prepared` is the object's shared section; most codecs need nothing of it. Any bytes may be passed:
    /// the result is either an error or some bytes, whose hash the caller checks.
    fn decode(
        &self,
        prepared: &Prepared,
        view: &ChunkView<'_>,
        payload: &[u8],
        out: &mut [u8],
        ws: &mut Workspace,
    ) -> Result<(), CodecError>;
}

/// Every codec of the format; the ids are the rows' numbers in `docs/format.md`.
pub static REGISTRY: [&dyn Codec; 8] = [
    &raw::Raw,
    &zstd::Zstd,
    &planes::Solo,
    &planes::BitX,
    &floats::DELTA,
    &floats::SOLO_RANS,
    &lowrank::LowRank,
    &parts::Parts,
];

/// Returns the codec with this id, if this build has it.
pub fn find(id: CodecId) -> Option<&'static dyn Codec> {
    REGISTRY.iter().copied().find(|codec| codec.id() == id)
}
