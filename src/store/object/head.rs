//! `Head`: what an object file says of itself before its payloads.

use super::FrameError::{self, Corrupt, Newer};
use super::cursor::Cursor;
use super::{
    COMMON, ENTRY_LEN, KNOWN_FEATURES, MAGIC, MAX_BASES, MAX_DEPTH, MAX_SHARED, PARTS,
    PREDICTED_PARTS, SEAL_LEN, VERSION,
};
use crate::dtype::DType;
use crate::float::converts;
use crate::hash::Hash;

const FIXED_HEAD: usize = 36;
const BASE_LEN: usize = 60;

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
        if self.required & COMMON != 0 && (self.shared_len == 0 || self.required & PARTS != 0) {
            return Err(Corrupt("nothing in common"));
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

impl Cursor<'_> {
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
