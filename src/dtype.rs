//! `DType`: how the elements of an object are coded; a hint for codecs, never part of identity.

use std::fmt;

/// Elements in a chunk, of every object; the last chunk of an object may hold fewer.
pub const CHUNK_ELEMENTS: u64 = 1 << 20;

/// The element type of an object, as far as a codec cares; everything else is `Opaque` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum DType {
    Opaque = 0,
    Bf16 = 1,
    F16 = 2,
    F32 = 3,
    F64 = 4,
    F8E4M3 = 5,
    F8E5M2 = 6,
    I8 = 7,
    U8 = 8,
    I16 = 9,
    U16 = 10,
    I32 = 11,
    U32 = 12,
    I64 = 13,
    U64 = 14,
    Bool = 15,
}

use DType::{
    Bf16, Bool, F8E4M3, F8E5M2, F16, F32, F64, I8, I16, I32, I64, Opaque, U8, U16, U32, U64,
};

/// Every dtype with its safetensors name and its element size in bytes; the row number is the code on disk.
const TABLE: [(DType, &str, u8); 16] = [
    (Opaque, "", 1),
    (Bf16, "BF16", 2),
    (F16, "F16", 2),
    (F32, "F32", 4),
    (F64, "F64", 8),
    (F8E4M3, "F8_E4M3", 1),
    (F8E5M2, "F8_E5M2", 1),
    (I8, "I8", 1),
    (U8, "U8", 1),
    (I16, "I16", 2),
    (U16, "U16", 2),
    (I32, "I32", 4),
    (U32, "U32", 4),
    (I64, "I64", 8),
    (U64, "U64", 8),
    (Bool, "BOOL", 1),
];

impl DType {
    /// All dtypes, in the order of their codes.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.0)
    }

    /// Returns the dtype with this code in an object file, if there is one.
    pub fn from_code(code: u8) -> Option<Self> {
        TABLE.get(usize::from(code)).map(|row| row.0)
    }

    /// Returns the code written to object files.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Returns the dtype with this safetensors name; an unknown name is `Opaque`.
    pub fn from_name(name: &str) -> Self {
        TABLE
            .iter()
            .find(|row| row.1 == name && !name.is_empty())
            .map_or(Opaque, |row| row.0)
    }

    /// Returns the safetensors name, empty for `Opaque`.
    pub fn name(self) -> &'static str {
        TABLE
            .iter()
            .find(|row| row.0 == self)
            .map_or("", |row| row.1)
    }

    /// Returns the bytes of one element: 1, 2, 4 or 8.
    pub fn size(self) -> usize {
        TABLE
            .iter()
            .find(|row| row.0 == self)
            .map_or(1, |row| usize::from(row.2))
    }

    /// Returns the bytes of a full chunk: 1 to 8 MiB, a power of two.
    pub fn chunk_bytes(self) -> usize {
        self.size() << 20
    }

    /// Tells whether the elements are floating-point numbers with a sign in the top bit.
    pub const fn is_float(self) -> bool {
        matches!(self, Bf16 | F16 | F32 | F64 | F8E4M3 | F8E5M2)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Opaque {
            "opaque"
        } else {
            self.name()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_are_inverses() {
        for (code, dtype) in DType::all().enumerate() {
            assert_eq!(usize::from(dtype.code()), code);
            assert_eq!(DType::from_code(dtype.code()), Some(dtype));
            assert_eq!(DType::from_name(dtype.name()), dtype);
            assert_eq!(
                dtype.chunk_bytes() as u64,
                CHUNK_ELEMENTS * dtype.size() as u64
            );
        }
        assert_eq!(DType::from_code(16), None);
        assert_eq!(DType::from_name("I4"), Opaque);
    }
}
