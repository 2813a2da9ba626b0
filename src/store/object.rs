//! The object frame: head, chunk table and seal, as bytes and as structs. Pure; `docs/format.md` is its text.

use crate::dtype::{CHUNK_ELEMENTS, DType};
use crate::float::converts;
use crate::hash::{ChainingValue, Hash, merge_chunks};

/// First bytes of every object file.
pub const MAGIC: [u8; 4] = *b"ZLOB";
/// The version of the object format that this build writes.
pub const VERSION: u8 = 1;
/// The feature bit of objects whose base covers a part of them, has another length, or is converted.
pub const PARTS: u16 = 1;
/// The feature bit of objects with [`PARTS`] whose shared section is for parts of chunks too.
pub const PREDICTED_PARTS: u16 = 2;
/// Feature bits that this build understands; an object that requires another one is refused.
pub const KNOWN_FEATURES: u16 = PARTS | PREDICTED_PARTS;
/// The greatest depth that an object may have.
pub const MAX_DEPTH: u8 = 4;
/// The most bases that an object may name.
pub const MAX_BASES: usize = 16;
/// The longest shared section, in bytes.
pub const MAX_SHARED: u32 = 64 << 20;

const FIXED_HEAD: usize = 36;
const BASE_LEN: usize = 60;
const ENTRY_LEN: usize = 12;
const SEAL_LEN: usize = 8;
const MAX_ENCODED: u32 = 1 << 24;

/// The longest head, in bytes: what has to be read to know everything else.
pub const MAX_HEAD: usize = FIXED_HEAD + MAX_BASES * BASE_LEN;

/// One base of an object: `count` of its elements from `start` predict the object's from `target_start`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseRef {
    /// The base object.
    pub name: Hash,
    /// How the base's elements are to be read.
    pub dtype: DType,
    /// First element used of the base.
    pub start: u64,
    /// Number of elements used.
    pub count: u64,
    /// The object's element that the first of them stands for.
    pub target_start: u64,
}

/// What an object file says of itself before its payloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The codec that wrote the shared section, and most chunks.
    pub codec: u8,
    /// How elements are to be read; a hint for codecs.
    pub dtype: DType,
    /// 0 without bases, else one more than the deepest base or greater.
    pub depth: u8,
    /// Feature bits that a reader has to know.
    pub required: u16,
    /// Feature bits that a reader may ignore.
    pub optional: u16,
    /// Bytes of the object.
    pub raw_len: u64,
    /// Elements in a row; 0 where there are no rows.
    pub row_len: u64,
    /// Bytes of the shared section.
    pub shared_len: u32,
    /// The bases, in the order of the elements they stand for.
    pub bases: Vec<BaseRef>,
}

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

use FrameError::{Corrupt, Newer};

impl Head {
    /// Returns the number of chunks.
    pub fn chunk_count(&self) -> u64 {
        self.raw_len.div_ceil(self.dtype.chunk_bytes() as u64)
    }

    /// Returns the first byte and the length of a chunk within the raw object.
    pub fn chunk_range(&self, index: u64) -> (u64, usize) {
        let size = self.dtype.chunk_bytes() as u64;
        let start = index.saturating_mul(size).min(self.raw_len);
        let length = (self.raw_len - start).min(size);
        (start, usize::try_from(length).unwrap_or(0))
    }

    /// Returns the bytes that the head takes in the file.
    pub fn encoded_len(&self) -> usize {
        FIXED_HEAD + self.bases.len() * BASE_LEN
    }

    /// Returns the bytes of the chunk table and the seal.
    pub fn tail_len(&self) -> u64 {
        let entry = if self.chunk_count() > 1 {
            ENTRY_LEN + 32
        } else {
            ENTRY_LEN
        } as u64;
        let shared = if self.shared_len > 0 { 8 } else { 0 };
        shared + self.chunk_count() * entry + SEAL_LEN as u64
    }

    /// Serialises the head.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded_len());
        out.extend(MAGIC);
        let log2_size = u8::try_from(self.dtype.size().trailing_zeros()).unwrap_or(0);
        let bases = u8::try_from(self.bases.len()).unwrap_or(u8::MAX);
        out.extend([
            VERSION,
            self.codec,
            self.dtype.code(),
            log2_size,
            self.depth,
            bases,
        ]);
        out.extend(self.required.to_le_bytes());
        out.extend(self.optional.to_le_bytes());
        out.extend([0; 2]);
        out.extend(self.raw_len.to_le_bytes());
        out.extend(self.row_len.to_le_bytes());
        out.extend(self.shared_len.to_le_bytes());
        for base in &self.bases {
            out.extend(base.name.as_bytes());
            out.extend(base.start.to_le_bytes());
            out.extend(base.count.to_le_bytes());
            out.extend(base.target_start.to_le_bytes());
            out.extend([base.dtype.code(), 0, 0, 0]);
        }
        out
    }

    /// Parses the head at the start of `bytes`, which may go on after it.
    pub fn parse(bytes: &[u8]) -> Result<Self, FrameError> {
        let mut cursor = Cursor(bytes);
        if cursor.take::<4>()? != MAGIC {
            return Err(Corrupt("not an object file"));
        }
        let [version, codec, dtype, log2_size, depth, bases] = cursor.take()?;
        if version != VERSION {
            return Err(Newer(format!("object format version {version}")));
        }
        let required = cursor.u16()?;
        if required & !KNOWN_FEATURES != 0 {
            return Err(Newer(format!("object features {required:#06x}")));
        }
        let optional = cursor.u16()?;
        let reserved = cursor.u16()?;
        let dtype = DType::from_code(dtype).ok_or(Corrupt("unknown dtype"))?;
        let mut head = Self {
            codec,
            dtype,
            depth,
            required,
            optional,
            raw_len: cursor.u64()?,
            row_len: cursor.u64()?,
            shared_len: cursor.u32()?,
            bases: Vec::new(),
        };
        if reserved != 0
            || usize::from(bases) > MAX_BASES
            || 1usize.checked_shl(log2_size.into()) != Some(dtype.size())
        {
            return Err(Corrupt("malformed head"));
        }
        for _ in 0..bases {
            head.bases.push(cursor.base()?);
        }
        head.validate()?;
        Ok(head)
    }

    fn validate(&self) -> Result<(), FrameError> {
        let size = self.dtype.size() as u64;
        if self.raw_len == 0
            || !self.raw_len.is_multiple_of(size)
            || self.row_len > self.raw_len / size
        {
            return Err(Corrupt("impossible length"));
        }
        if self.shared_len > MAX_SHARED {
            return Err(Corrupt("shared section over 64 MiB"));
        }
        if self.depth > MAX_DEPTH || (self.depth == 0) != self.bases.is_empty() {
            return Err(Corrupt("impossible depth"));
        }
        if self.required & PREDICTED_PARTS != 0 && self.shared_len == 0 {
            return Err(Corrupt("nothing to predict parts with"));
        }
        match self.required & (PARTS | PREDICTED_PARTS) {
            0 => self.validate_whole(),
            PREDICTED_PARTS => Err(Corrupt("predicted parts without parts")),
            _ => self.validate_parts(),
        }
    }

    /// Returns the number of elements.
    pub fn elements(&self) -> u64 {
        self.raw_len / self.dtype.size() as u64
    }

    /// Without a feature bit there is one base at most, and it covers the object element by element.
    fn validate_whole(&self) -> Result<(), FrameError> {
        let whole = |base: &BaseRef| {
            let places = (base.start, base.target_start, base.count);
            places == (0, 0, self.elements()) && base.dtype == self.dtype
        };
        if self.bases.len() > 1 || !self.bases.iter().all(whole) {
            return Err(Corrupt("a base that does not cover the object"));
        }
        Ok(())
    }

    /// Parts are of one object, in order, within this one, and of a type that can be converted.
    fn validate_parts(&self) -> Result<(), FrameError> {
        let mut end = Some(0);
        for base in &self.bases {
            let ordered = end.is_some_and(|end| base.target_start >= end);
            end = base.target_start.checked_add(base.count);
            let within = end.is_some_and(|end| end <= self.elements());
            let named = self
                .bases
                .first()
                .is_some_and(|first| first.name == base.name);
            if !ordered || !within || base.count == 0 || !named || !converts(base.dtype, self.dtype)
            {
                return Err(Corrupt("a base that does not fit the object"));
            }
        }
        Ok(())
    }

    /// Tells whether an object of `raw_len` bytes can be the base.
    pub fn fits_base(&self, raw_len: u64) -> bool {
        if self.required & PARTS == 0 {
            return raw_len == self.raw_len;
        }
        self.bases.iter().all(|base| {
            let end = base.start.checked_add(base.count);
            let bytes = end.and_then(|end| end.checked_mul(base.dtype.size() as u64));
            bytes.is_some_and(|bytes| bytes <= raw_len)
        })
    }
}

/// Reads fixed-width little-endian fields off the front of a slice.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (head, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(Corrupt("ends too early"))?;
        self.0 = rest;
        Ok(*head)
    }

    fn u16(&mut self) -> Result<u16, FrameError> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, FrameError> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, FrameError> {
        self.take().map(u64::from_le_bytes)
    }

    fn base(&mut self) -> Result<BaseRef, FrameError> {
        let name = Hash::from_bytes(self.take()?);
        let (start, count, target_start) = (self.u64()?, self.u64()?, self.u64()?);
        let [dtype, a, b, c] = self.take()?;
        let dtype = DType::from_code(dtype).ok_or(Corrupt("unknown dtype of a base"))?;
        if [a, b, c] != [0; 3] {
            return Err(Corrupt("malformed base"));
        }
        Ok(BaseRef {
            name,
            dtype,
            start,
            count,
            target_start,
        })
    }
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

/// Tells whether an object of this length and dtype has more than one chunk.
pub fn is_chunked(raw_len: u64, dtype: DType) -> bool {
    raw_len > CHUNK_ELEMENTS * dtype.size() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(raw: &[u8], base: bool) -> (Hash, Frame) {
        let name = Hash::of(raw);
        let bases = base.then(|| BaseRef {
            name: Hash::of(b"base"),
            dtype: DType::Bf16,
            start: 0,
            count: raw.len() as u64 / 2,
            target_start: 0,
        });
        let head = Head {
            codec: 2,
            dtype: DType::Bf16,
            depth: u8::from(base),
            required: 0,
            optional: 0,
            raw_len: raw.len() as u64,
            row_len: 3,
            shared_len: 0,
            bases: bases.into_iter().collect(),
        };
        let size = DType::Bf16.chunk_bytes();
        let chunks = raw
            .chunks(size)
            .enumerate()
            .map(|(i, chunk)| ChunkEntry {
                codec: 2,
                encoded_len: 7,
                checksum: checksum(chunk),
                chaining_value: if raw.len() > size {
                    crate::hash::chunk_chaining_value((i * size) as u64, chunk)
                } else {
                    [0; 32]
                },
            })
            .collect();
        (
            name,
            Frame {
                head,
                shared_checksum: [0; 8],
                chunks,
            },
        )
    }

    fn parse(name: &Hash, frame: &Frame) -> Result<Frame, FrameError> {
        let head = Head::parse(&frame.head.to_bytes())?;
        Frame::parse_tail(name, head, &frame.tail_bytes(name), frame.file_len())
    }

    #[test]
    fn frames_round_trip_and_stay_small() {
        for base in [false, true] {
            for len in [
                6usize,
                DType::Bf16.chunk_bytes(),
                DType::Bf16.chunk_bytes() * 2 + 2,
            ] {
                let (name, frame) = sample(&vec![1u8; len], base);
                assert_eq!(parse(&name, &frame).unwrap(), frame);
                let overhead = frame.file_len() - frame.encoded_bytes();
                assert!(
                    overhead <= 128 + 48 * frame.chunks.len() as u64,
                    "{overhead}"
                );
                if !base && frame.chunks.len() == 1 {
                    assert!(overhead <= 64, "{overhead}");
                }
            }
        }
    }

    #[test]
    fn every_flipped_bit_of_head_and_tail_is_found() {
        for base in [false, true] {
            let (name, frame) = sample(&[1u8; 6], base);
            let (head, tail) = (frame.head.to_bytes(), frame.tail_bytes(&name));
            for bit in 0..(head.len() + tail.len()) * 8 {
                let (mut head, mut tail) = (head.clone(), tail.clone());
                let at = bit / 8;
                if at < head.len() {
                    head[at] ^= 1 << (bit % 8);
                } else {
                    tail[at - head.len()] ^= 1 << (bit % 8);
                }
                let parsed = Head::parse(&head)
                    .and_then(|h| Frame::parse_tail(&name, h, &tail, frame.file_len()));
                assert!(parsed.is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_frame_under_another_name_is_refused() {
        let (name, frame) = sample(&[1u8; 6], false);
        let tail = frame.tail_bytes(&name);
        let other = Hash::of(b"other");
        assert!(Frame::parse_tail(&other, frame.head.clone(), &tail, frame.file_len()).is_err());
    }

    #[test]
    fn predicted_parts_need_parts_and_factors() {
        let (_, frame) = sample(&[1u8; 6], true);
        let with = |required, shared_len| {
            let head = Head {
                required,
                shared_len,
                ..frame.head.clone()
            };
            Head::parse(&head.to_bytes()).map(|_| ())
        };
        assert_eq!(with(PARTS | PREDICTED_PARTS, 1), Ok(()));
        assert_eq!(
            with(PARTS | PREDICTED_PARTS, 0),
            Err(Corrupt("nothing to predict parts with"))
        );
        assert_eq!(
            with(PREDICTED_PARTS, 1),
            Err(Corrupt("predicted parts without parts"))
        );
    }

    #[test]
    fn newer_objects_are_named_as_such() {
        let (_, frame) = sample(&[1u8; 6], false);
        let mut bytes = frame.head.to_bytes();
        bytes[4] = 2;
        assert_eq!(
            Head::parse(&bytes),
            Err(Newer("object format version 2".into()))
        );
        bytes[4] = 1;
        bytes[10] = 4;
        assert!(matches!(Head::parse(&bytes), Err(Newer(what)) if what.contains("features")));
    }
}
