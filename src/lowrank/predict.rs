//! Encodes and decodes the chunks of an object whose factors are known.

use super::factors::{Columns, Fitted, Rows};
use super::kernel::{Bf16, F16, F32, NO_HINT, Target, Word, finish};
use crate::dtype::DType;
use crate::rans::{self, Bad, Chunk, Effort, Isa, Predict, Scratch, Shared};

/// Elements that are predicted at a time.
const BLOCK: usize = 1024;

/// Tells whether elements of this type are predicted.
pub fn takes(dtype: DType) -> bool {
    matches!(dtype, DType::Bf16 | DType::F16 | DType::F32)
}

/// Predicts the elements of a chunk.
pub(super) struct Predictor<'a> {
    pub(super) isa: Isa,
    pub(super) columns: &'a Columns,
    pub(super) rows: &'a Rows,
    pub(super) first_element: u64,
}

impl Predict for Predictor<'_> {
    fn predict(&self, start: usize, base: &[u8], predicted: &mut [u8], hints: &mut [u8]) {
        match self.columns.dtype {
            DType::F32 => self.run::<F32>(start, base, predicted, hints),
            DType::Bf16 => self.run::<Bf16>(start, base, predicted, hints),
            DType::F16 => self.run::<F16>(start, base, predicted, hints),
            _ => {
                predicted.copy_from_slice(base);
                hints.fill(NO_HINT);
            }
        }
    }
}

impl Predictor<'_> {
    fn run<W: Word>(&self, start: usize, base: &[u8], predicted: &mut [u8], hints: &mut [u8]) {
        let row_len = self.columns.row_len.max(1);
        let mut sums = [0i32; BLOCK];
        let mut at = 0;
        while at < hints.len() {
            let element = self.first_element + (start + at) as u64;
            let (row, column) = (element / row_len, (element % row_len) as usize);
            let in_row = usize::try_from(row_len - column as u64).unwrap_or(BLOCK);
            let length = in_row.min(BLOCK).min(hints.len() - at);
            let bytes = at * W::BYTES..(at + length) * W::BYTES;
            let (Some(base), Some(predicted), Some(hints), Some(sums)) = (
                base.get(bytes.clone()),
                predicted.get_mut(bytes),
                hints.get_mut(at..at + length),
                sums.get_mut(..length),
            ) else {
                return;
            };
            if let Some(set) = self.columns.set_of(row).filter(|set| set.rank > 0) {
                let factors = self
                    .rows
                    .of(row)
                    .get(..set.rank.div_ceil(2))
                    .unwrap_or_default();
                set.pairs.sums(self.isa, factors, column, sums);
                let scale = f32::from_bits(u32::from(set.exponent) << 23);
                let target = Target {
                    scale,
                    rounded: self.columns.rounded,
                };
                finish::<W>(self.isa, target, sums, base, predicted, hints);
            } else {
                predicted.copy_from_slice(base);
                hints.fill(NO_HINT);
            }
            at += length;
        }
    }
}

/// The rows that a chunk touches.
fn rows_of(columns: &Columns, chunk: &Chunk<'_>, bytes: usize) -> (u64, u64) {
    let elements = (bytes / columns.dtype.size()) as u64;
    let row_len = columns.row_len.max(1);
    (
        chunk.first_element / row_len,
        (chunk.first_element + elements).div_ceil(row_len),
    )
}

/// Appends the payload of `raw`, which lies with its base in `chunk`, to `out`.
pub fn encode(
    isa: Isa,
    effort: Effort,
    fitted: &Fitted,
    chunk: &Chunk<'_>,
    raw: &[u8],
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) {
    let (from, to) = rows_of(&fitted.columns, chunk, raw.len());
    fitted.rows.write(isa, &fitted.columns, from, to, out);
    let (columns, rows) = (&fitted.columns, &fitted.rows);
    let predictor = Predictor {
        isa,
        columns,
        rows,
        first_element: chunk.first_element,
    };
    rans::encode_predicted(isa, effort, chunk, &predictor, raw, scratch, out);
}

/// Puts predictions in the place of elements of a base, the first of which is that element of the object, and writes a hint
/// for each.
pub fn predict(isa: Isa, fitted: &Fitted, first_element: u64, base: &mut [u8], hints: &mut [u8]) {
    let (columns, rows) = (&fitted.columns, &fitted.rows);
    let predictor = Predictor {
        isa,
        columns,
        rows,
        first_element,
    };
    let from = base.to_vec();
    predictor.predict(0, &from, base, hints);
}

/// Tells whether a payload that [`encode`] wrote of so many bytes of `chunk` uses what the object's chunks have in common.
pub fn uses_shared(columns: &Columns, chunk: &Chunk<'_>, bytes: usize, payload: &[u8]) -> bool {
    let (from, to) = rows_of(columns, chunk, bytes);
    let rows = Rows::read(Isa::detect(), columns, from, to, payload);
    rows.is_ok_and(|(_, coded)| Shared::is_used_by(coded))
}

/// Decodes `payload` into `out`; any bytes may be passed.
pub fn decode(
    isa: Isa,
    columns: &Columns,
    chunk: &Chunk<'_>,
    payload: &[u8],
    out: &mut [u8],
    scratch: &mut Scratch,
) -> Result<(), Bad> {
    let is_whole = out.len().is_multiple_of(columns.dtype.size());
    let end = chunk.first_element.checked_add(out.len() as u64);
    if chunk.dtype != columns.dtype
        || chunk.row_len != columns.row_len
        || end.is_none()
        || !is_whole
    {
        return Err(Bad::Malformed("chunk"));
    }
    let (from, to) = rows_of(columns, chunk, out.len());
    let (rows, rest) = Rows::read(isa, columns, from, to, payload)?;
    let predictor = Predictor {
        isa,
        columns,
        rows: &rows,
        first_element: chunk.first_element,
    };
    rans::decode_predicted(isa, chunk, &predictor, rest, out, scratch)
}
