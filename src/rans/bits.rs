//! Bit fields in bytes, lowest bit first.

use super::Bad;

/// Appends bit fields to a byte vector.
pub(super) struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    held: u64,
    count: u32,
}

impl<'a> BitWriter<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        Self {
            out,
            held: 0,
            count: 0,
        }
    }

    /// Appends the low `count` (at most 32) bits of `value`.
    pub(super) fn put(&mut self, value: u32, count: u32) {
        self.held |= (u64::from(value) & ((1 << count) - 1)) << self.count;
        self.count += count;
        while self.count >= 8 {
            self.out.push(self.held as u8);
            self.held >>= 8;
            self.count -= 8;
        }
    }

    /// Fills the last byte with zeros.
    pub(super) fn finish(self) {
        if self.count > 0 {
            self.out.push(self.held as u8);
        }
    }
}

/// Reads bit fields from bytes.
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    held: u64,
    count: u32,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            held: 0,
            count: 0,
        }
    }

    /// Takes `count` (at most 32) bits.
    pub(super) fn take(&mut self, count: u32) -> Result<u32, Bad> {
        while self.count < count {
            let (&byte, rest) = self.bytes.split_first().ok_or(Bad::Truncated)?;
            self.bytes = rest;
            self.held |= u64::from(byte) << self.count;
            self.count += 8;
        }
        let value = self.held & ((1 << count) - 1);
        self.held >>= count;
        self.count -= count;
        Ok(value as u32)
    }

    /// Returns the bytes after the field that was read last; the bits up to there must be zero.
    pub(super) fn rest(self) -> Result<&'a [u8], Bad> {
        if self.held == 0 {
            Ok(self.bytes)
        } else {
            Err(Bad::Malformed("padding bits"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back() {
        let fields = [
            (0u32, 1),
            (1, 1),
            (0x7FF, 11),
            (0, 0),
            (0xFFFF_FFFF, 32),
            (5, 3),
            (0x1234_5678, 31),
        ];
        let mut bytes = Vec::new();
        let mut writer = BitWriter::new(&mut bytes);
        for (value, count) in fields {
            writer.put(value, count);
        }
        writer.finish();
        let mut reader = BitReader::new(&bytes);
        for (value, count) in fields {
            assert_eq!(reader.take(count), Ok(value), "{count} bits");
        }
        assert_eq!(reader.rest(), Ok(&[][..]));
        assert_eq!(BitReader::new(&[1]).take(9), Err(Bad::Truncated));
    }
}
