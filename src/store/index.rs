//! The index: one checksummed record an object, appended as objects become durable.
//!
//! It says what the heads of all objects say, without opening them. It can be lost: it is rebuilt from the
//! heads. The sign `index/dirty` stands while a writer may have renamed objects that the index lacks.

use std::collections::BTreeMap;

use super::object::{Frame, checksum};
use crate::dtype::DType;
use crate::hash::Hash;

/// Bytes of one record.
pub const RECORD_LEN: usize = 96;

/// What the index knows of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The object.
    pub name: Hash,
    /// Its first base; all zeros without one.
    pub base: Hash,
    /// Bytes of the object.
    pub raw_len: u64,
    /// Bytes of its file.
    pub stored_len: u64,
    /// The codec of its head.
    pub codec: u8,
    /// Its dtype hint.
    pub dtype: DType,
    /// Its depth.
    pub depth: u8,
}

impl Record {
    /// The record of an object with this frame.
    pub fn of(name: &Hash, frame: &Frame) -> Self {
        let base = frame
            .head
            .bases
            .first()
            .map_or(Hash::from_bytes([0; 32]), |base| base.name);
        Self {
            name: *name,
            base,
            raw_len: frame.head.raw_len,
            stored_len: frame.file_len(),
            codec: frame.head.codec,
            dtype: frame.head.dtype,
            depth: frame.head.depth,
        }
    }

    /// Serialises the record.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(RECORD_LEN);
        out.extend(self.name.as_bytes());
        out.extend(self.base.as_bytes());
        out.extend(self.raw_len.to_le_bytes());
        out.extend(self.stored_len.to_le_bytes());
        out.extend([self.codec, self.dtype.code(), self.depth, 0, 0, 0, 0, 0]);
        out.extend(checksum(&out));
        out
    }

    /// Parses a record; `None` if it is damaged.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (body, stored) = bytes.split_last_chunk::<8>()?;
        if bytes.len() != RECORD_LEN || checksum(body) != *stored {
            return None;
        }
        let (name, rest) = body.split_first_chunk::<32>()?;
        let (base, rest) = rest.split_first_chunk::<32>()?;
        let (raw_len, rest) = rest.split_first_chunk::<8>()?;
        let (stored_len, rest) = rest.split_first_chunk::<8>()?;
        let [codec, dtype, depth, ..] = *rest else {
            return None;
        };
        Some(Self {
            name: Hash::from_bytes(*name),
            base: Hash::from_bytes(*base),
            raw_len: u64::from_le_bytes(*raw_len),
            stored_len: u64::from_le_bytes(*stored_len),
            codec,
            dtype: DType::from_code(dtype)?,
            depth,
        })
    }
}

/// Every object's record, by name.
pub type Index = BTreeMap<Hash, Record>;

/// Parses records that follow each other; `None` if any of them is damaged.
pub fn parse(bytes: &[u8]) -> Option<Vec<Record>> {
    if !bytes.len().is_multiple_of(RECORD_LEN) {
        return None;
    }
    bytes.chunks_exact(RECORD_LEN).map(Record::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(n: u8) -> Record {
        let base = Hash::from_bytes([n + 1; 32]);
        Record {
            name: Hash::of(&[n]),
            base,
            raw_len: 10,
            stored_len: 70,
            codec: 3,
            dtype: DType::Bf16,
            depth: 1,
        }
    }

    #[test]
    fn records_round_trip_and_damage_is_found() {
        let bytes: Vec<u8> = (0..3).flat_map(|n| record(n).to_bytes()).collect();
        assert_eq!(bytes.len(), 3 * RECORD_LEN);
        let index = parse(&bytes).unwrap();
        assert_eq!(index, (0..3).map(record).collect::<Vec<_>>());
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&flipped).is_none(), "bit {bit}");
        }
        assert!(parse(&bytes[1..]).is_none());
    }
}
