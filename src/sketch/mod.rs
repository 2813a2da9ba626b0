//! Sketches: 512 bytes that tell, without reading two tensors, about how long one would be as a difference to the other.
//!
//! A sketch holds [`SLOTS`] elements as BF16, each from a place that depends on the row length and, in hardly any
//! slot, on the number of rows; and [`MARKS`] rows known by the signs of their first elements, wherever they stand.
//! So tensors with more rows, of another float type, or with their rows moved still meet. Made by a [`Sampler`],
//! compared by [`delta_bits`]; the bytes are described in `docs/format.md`.

mod estimate;
mod places;
mod sample;

pub use estimate::{
    SCALE, Stretch, delta_bits, delta_bits_at, is_mostly_near, may_be_scaled, shift, solo_bits,
    stretches,
};
pub use places::Places;
pub use sample::{MARK_COLUMNS, Part, Sampler};

use crate::dtype::DType;
use crate::hash::Hash;

/// Elements in a sketch.
pub const SLOTS: usize = 160;
/// Rows in a sketch, at most.
pub const MARKS: usize = 16;
/// Bytes of the shortest tensor that has a sketch.
pub const MIN_BYTES: u64 = 64 << 10;
/// Bytes of a record.
pub const RECORD_LEN: usize = 512;
/// The version of records that this build writes, and reads.
const VERSION: u8 = 1;

/// A row, by the signs of its first 32 elements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The signs, the first element's in the lowest bit.
    pub signs: u32,
    /// The row.
    pub row: u32,
}

/// What is kept of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sketch {
    /// The object.
    pub name: Hash,
    /// Its dtype.
    pub dtype: DType,
    /// Its elements.
    pub elements: u64,
    /// Elements in a row; all of them where there are no rows.
    pub row_len: u64,
    samples: [u16; SLOTS],
    marks: Vec<Mark>,
}

/// Tells whether tensors of this type and length in bytes have sketches.
pub fn applies(dtype: DType, raw_len: u64) -> bool {
    raw_len >= MIN_BYTES && crate::float::converts(dtype, DType::Bf16)
}

impl Sketch {
    /// Returns the number of rows.
    pub fn rows(&self) -> u64 {
        self.elements / self.row_len.max(1)
    }

    /// Returns the marked rows.
    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// Returns the signs of the sampled elements, 16 a word; related tensors share most words.
    pub fn sign_words(&self) -> impl Iterator<Item = u16> {
        let word = |samples: &[u16]| {
            let signs = samples.iter().enumerate();
            signs.fold(0, |word, (bit, sample)| word | (sample >> 15) << bit)
        };
        self.samples.chunks_exact(16).map(word)
    }

    /// Returns a number that tensors of equal content share, and others hardly: that of what was sampled, rows marked aside.
    pub fn fingerprint(&self) -> u64 {
        let mut bytes = vec![self.dtype.code()];
        bytes.extend(self.elements.to_le_bytes());
        bytes.extend(self.row_len.to_le_bytes());
        let samples = self.samples.iter();
        bytes.extend(samples.flat_map(|sample| sample.to_le_bytes()));
        u64::from_le_bytes(checksum(&bytes))
    }

    /// Serialises the sketch.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(RECORD_LEN);
        out.extend(self.name.as_bytes());
        out.extend(self.elements.to_le_bytes());
        out.extend(self.row_len.to_le_bytes());
        let marks = u8::try_from(self.marks.len()).unwrap_or(0);
        out.extend([VERSION, self.dtype.code(), marks, 0, 0, 0, 0, 0]);
        self.samples
            .iter()
            .for_each(|sample| out.extend(sample.to_le_bytes()));
        for at in 0..MARKS {
            let mark = self.marks.get(at).copied().unwrap_or_default();
            out.extend(mark.signs.to_le_bytes());
            out.extend(mark.row.to_le_bytes());
        }
        out.extend(checksum(&out));
        out
    }

    /// Parses a record; `None` if it is damaged, or of another version.
    pub fn parse(record: &[u8]) -> Option<Self> {
        let (body, stored) = record.split_last_chunk::<8>()?;
        if record.len() != RECORD_LEN || checksum(body) != *stored {
            return None;
        }
        let (name, rest) = body.split_first_chunk::<32>()?;
        let (elements, rest) = rest.split_first_chunk::<8>()?;
        let (row_len, rest) = rest.split_first_chunk::<8>()?;
        let ([version, dtype, marks, ..], rest) = rest.split_first_chunk::<8>()?;
        let (samples, marked) = rest.split_at_checked(2 * SLOTS)?;
        let (pairs, _) = marked.as_chunks::<8>();
        let mark = |[a, b, c, d, e, f, g, h]: &[u8; 8]| Mark {
            signs: u32::from_le_bytes([*a, *b, *c, *d]),
            row: u32::from_le_bytes([*e, *f, *g, *h]),
        };
        let mut sketch = Self {
            name: Hash::from_bytes(*name),
            dtype: DType::from_code(*dtype)?,
            elements: u64::from_le_bytes(*elements),
            row_len: u64::from_le_bytes(*row_len),
            samples: [0; SLOTS],
            marks: pairs.iter().take(usize::from(*marks)).map(mark).collect(),
        };
        let (words, _) = samples.as_chunks::<2>();
        for (sample, word) in sketch.samples.iter_mut().zip(words) {
            *sample = u16::from_le_bytes(*word);
        }
        let fine = *version == VERSION && (1..=sketch.elements).contains(&sketch.row_len);
        fine.then_some(sketch)
    }
}

/// The first 8 bytes of the BLAKE3 hash of `bytes`.
fn checksum(bytes: &[u8]) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(bytes).as_bytes();
    [a, b, c, d, e, f, g, h]
}

/// Mixes the bits of a number so that nearby ones become unlike (the finaliser of `SplitMix64`, Steele et al. 2014).
pub fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
