//! `Hash`: the BLAKE3-256 name of a run of bytes, and the BLAKE3 tree over an object's chunks.
//!
//! BLAKE3 is a binary tree over 1 KiB leaves. A chunk of a power of two of bytes is a subtree, so its
//! chaining value is computed on any thread, and the chaining values alone give the object's name
//! (`blake3::hazmat`; BLAKE3 paper, section 2.1).

use std::fmt;
use std::str::FromStr;

use blake3::hazmat::{self, HasherExt, Mode};
use serde::{Deserialize, Serialize};

/// A chunk's chaining value: the root of its subtree, before it is merged to the object's name.
pub type ChainingValue = [u8; 32];

/// The BLAKE3-256 hash of a run of bytes; equality is identity.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash([u8; 32]);

impl Hash {
    /// Hashes `bytes` on this thread.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Takes the 32 bytes of a hash as they are stored.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes of the hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the first 12 hexadecimal digits, enough for a message.
    pub fn short(&self) -> String {
        self.to_string().chars().take(12).collect()
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

impl FromStr for Hash {
    type Err = String;

    /// Parses 64 lower-case hexadecimal digits, and nothing else.
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a BLAKE3 hash (64 lower-case hexadecimal digits)");
        if text.len() != 64 {
            return Err(bad());
        }
        let mut bytes = [0u8; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let [high, low] = pair else { return Err(bad()) };
            *byte = nibble(*high).ok_or_else(bad)? << 4 | nibble(*low).ok_or_else(bad)?;
        }
        Ok(Self(bytes))
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(HashVisitor)
    }
}

/// Takes a hash from its text without a copy: a large store's manifests have millions.
struct HashVisitor;

impl serde::de::Visitor<'_> for HashVisitor {
    type Value = Hash;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a BLAKE3 hash")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Hash, E> {
        text.parse().map_err(E::custom)
    }
}

/// Computes the chaining value of one chunk of an object that has more than one chunk.
///
/// `offset` is the chunk's first byte within the object; it must be a multiple of the chunk size, a
/// power of two of at least 1 KiB. `bytes` must not be empty.
pub fn chunk_chaining_value(offset: u64, bytes: &[u8]) -> ChainingValue {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(offset);
    hasher.update(bytes);
    hasher.finalize_non_root()
}

/// Merges the chaining values of all chunks of an object, in order, to its name.
///
/// Returns `None` for fewer than two chunks: such an object's name is the plain hash of its bytes.
pub fn merge_chunks(values: &[ChainingValue]) -> Option<Hash> {
    let (left, right) = split(values)?;
    let root = hazmat::merge_subtrees_root(&subtree(left)?, &subtree(right)?, Mode::Hash);
    Some(Hash(*root.as_bytes()))
}

fn subtree(values: &[ChainingValue]) -> Option<ChainingValue> {
    match values {
        [] => None,
        [one] => Some(*one),
        more => {
            let (left, right) = split(more)?;
            Some(hazmat::merge_subtrees_non_root(
                &subtree(left)?,
                &subtree(right)?,
                Mode::Hash,
            ))
        }
    }
}

/// Splits where BLAKE3 does: the left side is the largest power of two that leaves a right side.
fn split(values: &[ChainingValue]) -> Option<(&[ChainingValue], &[ChainingValue])> {
    if values.len() < 2 {
        return None;
    }
    let left = values.len().next_power_of_two() / 2;
    Some(values.split_at(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_hash_is_refused_by_name() {
        let refused = serde_json::from_str::<Hash>("1").unwrap_err().to_string();
        assert!(refused.contains("a BLAKE3 hash"), "{refused}");
        let short = format!("\"{}\"", &Hash::of(b"x").to_string()[1..]);
        assert!(serde_json::from_str::<Hash>(&short).is_err());
    }

    #[test]
    fn merged_chunks_give_the_plain_hash() {
        let size = 1 << 12;
        for chunks in 2..=17usize {
            for tail in [1usize, 1000, 1024, 1025, size] {
                let data: Vec<u8> = (0..(chunks - 1) * size + tail)
                    .map(|i| u8::try_from(i * 7 % 251).unwrap())
                    .collect();
                let values: Vec<_> = data
                    .chunks(size)
                    .enumerate()
                    .map(|(i, chunk)| chunk_chaining_value((i * size) as u64, chunk))
                    .collect();
                assert_eq!(
                    merge_chunks(&values),
                    Some(Hash::of(&data)),
                    "{chunks} chunks, tail {tail}"
                );
            }
        }
    }

    #[test]
    fn one_chunk_has_no_merge() {
        assert_eq!(merge_chunks(&[]), None);
        assert_eq!(merge_chunks(&[[0; 32]]), None);
    }

    #[test]
    fn text_round_trips_and_junk_is_refused() {
        let hash = Hash::of(b"abc");
        assert_eq!(hash.short(), "6437b3ac3846");
        assert_eq!(format!("{hash:?}"), format!("Hash({hash})"));
        assert_eq!(hash.to_string().parse::<Hash>().unwrap(), hash);
        for bad in [
            "",
            "00",
            &"G".repeat(64),
            &hash.to_string().to_uppercase(),
            &"é".repeat(32),
        ] {
            assert!(bad.parse::<Hash>().is_err(), "{bad}");
        }
    }
}
