//! Sketches without reading the whole tensor: element by element, and for tall tensors the heads of rows.

use super::size::Sampled;
use crate::checkpoint::Span;
use crate::dtype::DType;
use crate::error::Result;
use crate::float::{convert, to_bf16};
use crate::hash::Hash;
use crate::sketch::{MARK_COLUMNS, Part, Places, Sampler, Sketch};
use crate::source::OpenFile;

/// Rows by elements in a row from which on rows are marked: of vocabularies, where rows move. Marks of other tensors
/// would mean reading the head of every row.
const TALL: u64 = 4;

/// A span that has a sketch, in its open file.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The file.
    pub file: &'a OpenFile,
    /// The span.
    pub span: &'a Span,
}

impl Subject<'_> {
    /// Takes the sketch of the span, under a name that is none of an object: that of where it lies.
    ///
    /// # Errors
    /// Those of reading.
    pub fn sample(&self, name: Hash) -> Result<Sampled> {
        let (rows, row_len) = self.shape();
        let places = Places::new(rows, row_len);
        let sampler = self.sampler(&places, rows * row_len, row_len);
        let mut is_widened = true;
        let mut parts = Vec::new();
        for place in places.elements() {
            let element = self.read(place, 1)?;
            is_widened &= is_bf16(self.span.dtype, &element);
            parts.push(sampler.take(place, &element));
        }
        if rows / row_len.max(1) >= TALL {
            for row in 0..rows {
                parts.push(self.head(&sampler, row)?);
            }
        }
        Ok(Sampled {
            sketch: sampler.join(name, parts),
            is_widened,
        })
    }

    /// The sketch of the span with every row `by` rows before where it is, to compare with `base`.
    ///
    /// # Errors
    /// Those of reading.
    pub fn shifted(&self, base: &Sketch, by: i64) -> Result<Sketch> {
        let places = Places::new(base.rows(), base.row_len);
        let sampler = self.sampler(&places, base.elements, base.row_len);
        let (rows, row_len) = self.shape();
        let mut parts = Vec::new();
        for place in places.elements() {
            let row = (place / row_len.max(1)).checked_add_signed(by);
            if let Some(row) = row.filter(|row| *row < rows) {
                let element = self.read(row * row_len + place % row_len.max(1), 1)?;
                parts.push(sampler.take(place, &element));
            }
        }
        Ok(sampler.join_onto(base.clone(), parts))
    }

    /// Rows, and elements in a row.
    fn shape(&self) -> (u64, u64) {
        let elements = self.span.length / self.span.dtype.size() as u64;
        match self.span.row_len {
            0 => (1, elements),
            row_len => (elements / row_len, row_len),
        }
    }

    fn sampler<'p>(&self, places: &'p Places, elements: u64, row_len: u64) -> Sampler<'p> {
        Sampler {
            dtype: self.span.dtype,
            elements,
            row_len,
            places,
        }
    }

    /// The first elements of a row, by which it is marked.
    fn head(&self, sampler: &Sampler<'_>, row: u64) -> Result<Part> {
        let count = sampler.row_len.min(MARK_COLUMNS as u64);
        let first = row * sampler.row_len;
        Ok(sampler.take(first, &self.read(first, count)?))
    }

    fn read(&self, first: u64, count: u64) -> Result<Vec<u8>> {
        let size = self.span.dtype.size() as u64;
        let mut bytes = vec![0; usize::try_from(count * size).unwrap_or(0)];
        self.file
            .read_exact_at(self.span.start + first * size, &mut bytes)?;
        Ok(bytes)
    }
}

/// Tells whether an element is no more than a BF16.
fn is_bf16(dtype: DType, element: &[u8]) -> bool {
    let Some(narrow) = to_bf16(dtype, element) else {
        return false;
    };
    let mut wide = vec![0; element.len()];
    convert(DType::Bf16, &narrow.to_le_bytes(), dtype, &mut wide);
    wide == element
}
