//! The object frame: head, chunk table and seal, as bytes and as structs. Pure; `docs/format.md` is its text.

mod cursor;
mod frame;
mod head;
#[cfg(test)]
mod tests;

pub use frame::{ChunkEntry, Frame};
pub use head::{BaseRef, Head, MAX_HEAD};

use crate::dtype::{CHUNK_ELEMENTS, DType};

/// First bytes of every object file.
pub const MAGIC: [u8; 4] = *b"ZLOB";
/// The version of the object format that this build writes.
pub const VERSION: u8 = 1;
/// The feature bit of objects whose base covers a part of them, has another length, or is converted.
pub const PARTS: u16 = 1;
/// The feature bit of objects with [`PARTS`] whose shared section is for parts of chunks too.
pub const PREDICTED_PARTS: u16 = 2;
/// The feature bit of objects whose chunks have scales and tables in common, at the start of the shared section.
pub const COMMON: u16 = 4;
/// The feature bit of objects in which tails of words alone may lie flat.
pub const FLAT_TAILS: u16 = 8;
/// The feature bit of objects in which runs that equal the base's may be skipped.
pub const SKIPS: u16 = 16;
/// Feature bits that this build understands; an object that requires another one is refused.
pub const KNOWN_FEATURES: u16 = PARTS | PREDICTED_PARTS | COMMON | FLAT_TAILS | SKIPS;
/// The greatest depth that an object may have.
pub const MAX_DEPTH: u8 = 4;
/// The most bases that an object may name.
pub const MAX_BASES: usize = 16;
/// The longest shared section, in bytes.
pub const MAX_SHARED: u32 = 64 << 20;

const ENTRY_LEN: usize = 12;
const SEAL_LEN: usize = 8;

/// The first 8 bytes of the BLAKE3 hash of `bytes`.
pub fn checksum(bytes: &[u8]) -> [u8; 8] {
    first8(blake3::hash(bytes).as_bytes())
}

fn first8(bytes: &[u8; 32]) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = *bytes;
    [a, b, c, d, e, f, g, h]
}

/// Why an object file was refused.
#[derive(Debug, PartialEq, Eq)]
pub enum FrameError {
    /// Damaged, with the reason.
    Corrupt(&'static str),
    /// From a newer version, with what is new.
    Newer(String),
}

/// Tells whether an object of this length and dtype has more than one chunk.
pub fn is_chunked(raw_len: u64, dtype: DType) -> bool {
    raw_len > CHUNK_ELEMENTS * dtype.size() as u64
}
