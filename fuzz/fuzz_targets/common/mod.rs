//! What the targets share: an input read field by field, and the dtypes.
#![allow(dead_code, reason = "no target uses all of it")]

use zipllm::dtype::DType;

/// The bytes of an input, zeros behind its end.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        first
    }

    pub fn number(&mut self) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()]))
    }

    /// At most `count` bytes.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        head
    }
}

/// Dtypes that the coder of floats takes; for it U8 and I8 are the same as BOOL.
pub const FLOATS: [DType; 7] = [
    DType::Bf16,
    DType::F16,
    DType::F32,
    DType::F64,
    DType::F8E4M3,
    DType::F8E5M2,
    DType::Bool,
];

/// One of all dtypes.
pub fn any_dtype(byte: u8) -> DType {
    DType::from_code(byte % 16).unwrap_or(DType::Opaque)
}

/// Small numbers that look like exponents and mantissas of weights.
pub fn base(bytes: usize) -> Vec<u8> {
    (0..bytes as u32)
        .map(|i| i.wrapping_mul(0x9E37_79B1).rotate_right(9) as u8 & 0x3F)
        .collect()
}
