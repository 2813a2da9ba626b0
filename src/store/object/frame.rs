//! `Frame`: the head with the chunk table, and the seal that binds both to the object's name.

use super::FrameError::{self, Corrupt};
use super::cursor::Cursor;
use super::{Head, SEAL_LEN, first8};
use crate::hash::{ChainingValue, Hash, merge_chunks};

const MAX_ENCODED: u32 = 1 << 24;

/// One row of the chunk table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkEntry {
    /// The codec of the chunk's payload.
    pub codec: u8,
    /// Bytes of the payload, below 2^24.
    pub encoded_len: u32,
    /// The first 8 bytes of the payload's BLAKE3 hash.
    pub checksum: [u8; 8],
    /// The BLAKE3 chaining value of the raw chunk; unused in an object of one chunk.
    pub chaining_value: ChainingValue,
}

/// The chunk table and what it was read with: all of an object file but shared section and payloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The head.
    pub head: Head,
    /// The first 8 bytes of the shared section's BLAKE3 hash; zero without one.
    pub shared_checksum: [u8; 8],
    /// A row a chunk, in order.
    pub chunks: Vec<ChunkEntry>,
}

impl Frame {
    /// Serialises chunk table and seal, the end of the object file called `name`.
    pub fn tail_bytes(&self, name: &Hash) -> Vec<u8> {
        let mut out = Vec::new();
        if self.head.shared_len > 0 {
            out.extend(self.shared_checksum);
        }
        for chunk in &self.chunks {
            out.extend((chunk.encoded_len | u32::from(chunk.codec) << 24).to_le_bytes());
            out.extend(chunk.checksum);
            if self.chunks.len() > 1 {
                out.extend(chunk.chaining_value);
            }
        }
        out.extend(seal(name, &self.head.to_bytes(), &out));
        out
    }

    /// Parses table and seal; `tail` are the last `head.tail_len()` bytes of a file of `file_len` bytes.
    ///
    /// Afterwards the frame is known to be whole, to belong to `name`, and to fit the file's length.
    pub fn parse_tail(
        name: &Hash,
        head: Head,
        tail: &[u8],
        file_len: u64,
    ) -> Result<Self, FrameError> {
        let (table, stored_seal) = tail
            .split_last_chunk::<SEAL_LEN>()
            .ok_or(Corrupt("ends too early"))?;
        if *stored_seal != seal(name, &head.to_bytes(), table) {
            return Err(Corrupt(
                "head or chunk table is damaged, or belongs to another object",
            ));
        }
        let mut cursor = Cursor(table);
        let shared_checksum = if head.shared_len > 0 {
            cursor.take()?
        } else {
            [0; 8]
        };
        let many = head.chunk_count() > 1;
        let chunks = (0..head.chunk_count())
            .map(|_| cursor.entry(many))
            .collect::<Result<Vec<_>, _>>()?;
        let frame = Self {
            head,
            shared_checksum,
            chunks,
        };
        if frame.file_len() != file_len {
            return Err(Corrupt("cut short, or bytes added"));
        }
        frame.check_root(name)?;
        Ok(frame)
    }

    /// The chaining values have to give the name, so that each chunk can be checked alone.
    fn check_root(&self, name: &Hash) -> Result<(), FrameError> {
        if self.chunks.len() < 2 {
            return Ok(());
        }
        let values: Vec<_> = self
            .chunks
            .iter()
            .map(|chunk| chunk.chaining_value)
            .collect();
        if merge_chunks(&values) == Some(*name) {
            Ok(())
        } else {
            Err(Corrupt("chunk table does not give the name"))
        }
    }

    /// Returns the length of the whole file.
    pub fn file_len(&self) -> u64 {
        self.payload_start() + self.encoded_bytes() + self.head.tail_len()
    }

    /// Returns where the first payload begins in the file.
    pub fn payload_start(&self) -> u64 {
        self.head.encoded_len() as u64 + u64::from(self.head.shared_len)
    }

    /// Returns the bytes of all payloads.
    pub fn encoded_bytes(&self) -> u64 {
        self.chunks
            .iter()
            .map(|chunk| u64::from(chunk.encoded_len))
            .sum()
    }
}

impl Cursor<'_> {
    fn entry(&mut self, many: bool) -> Result<ChunkEntry, FrameError> {
        let word = self.u32()?;
        let [_, _, _, codec] = word.to_le_bytes();
        Ok(ChunkEntry {
            codec,
            encoded_len: word & (MAX_ENCODED - 1),
            checksum: self.take()?,
            chaining_value: if many { self.take()? } else { [0; 32] },
        })
    }
}

/// Binds head and table to the object's name, so that a file under another's name is found out.
fn seal(name: &Hash, head: &[u8], table: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(name.as_bytes()).update(head).update(table);
    first8(hasher.finalize().as_bytes())
}
