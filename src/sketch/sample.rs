//! Taking a sketch, chunk by chunk, while the tensor is read.

use super::places::Places;
use super::{MARKS, Mark, SLOTS, Sketch, mix};
use crate::dtype::DType;
use crate::float::to_bf16;
use crate::hash::Hash;

/// Elements whose signs make a mark.
pub const MARK_COLUMNS: usize = 32;
/// The fewest rows, and elements in a row, of tensors whose rows are marked.
const MARKED_ROWS: u64 = 64;

/// Takes the sketch of one tensor.
#[derive(Clone, Copy, Debug)]
pub struct Sampler<'a> {
    /// How the elements are to be read.
    pub dtype: DType,
    /// Elements of the tensor.
    pub elements: u64,
    /// Elements in a row; all of them where there are no rows.
    pub row_len: u64,
    /// The places of tensors of this shape.
    pub places: &'a Places,
}

/// What a chunk contributes.
#[derive(Clone, Debug, Default)]
pub struct Part {
    samples: Vec<(usize, u16)>,
    marks: Vec<(u64, Mark)>,
}

impl Sampler<'_> {
    /// Takes what the elements from `first` on contribute.
    pub fn take(&self, first: u64, bytes: &[u8]) -> Part {
        let size = self.dtype.size();
        let count = (bytes.len() / size) as u64;
        let sorted = &self.places.sorted;
        let from = sorted.partition_point(|(place, _)| *place < first);
        let here = sorted.iter().skip(from);
        let here = here.take_while(|(place, _)| *place < first + count);
        let sample = |(place, slot): &(u64, usize)| {
            let at = usize::try_from(place - first).ok()? * size;
            let element = bytes.get(at..at + size)?;
            Some((*slot, to_bf16(self.dtype, element)?))
        };
        Part {
            samples: here.filter_map(sample).collect(),
            marks: self.mark(first, count, bytes),
        }
    }

    /// Marks rows that begin here, those whose mixed signs are the smallest.
    fn mark(&self, first: u64, count: u64, bytes: &[u8]) -> Vec<(u64, Mark)> {
        let mut marks = Vec::new();
        let rows = self.elements / self.row_len.max(1);
        if self.row_len < MARKED_ROWS || rows < MARKED_ROWS {
            return marks;
        }
        let size = self.dtype.size();
        for row in first.div_ceil(self.row_len)..(first + count).div_ceil(self.row_len) {
            let at = usize::try_from(row * self.row_len - first).unwrap_or(usize::MAX);
            let head = bytes.get(at * size..).unwrap_or_default();
            let (Some(head), Ok(row)) = (head.get(..MARK_COLUMNS * size), u32::try_from(row))
            else {
                continue;
            };
            let signs = signs(head, size);
            // Rows of one sign tell nothing, as padding does.
            if signs != 0 && signs != u32::MAX {
                keep(&mut marks, mix(signs.into()), Mark { signs, row });
            }
        }
        marks
    }

    /// Joins what all chunks contributed, in order.
    pub fn join(&self, name: Hash, parts: impl IntoIterator<Item = Part>) -> Sketch {
        let blank = Sketch {
            name,
            dtype: self.dtype,
            elements: self.elements,
            row_len: self.row_len,
            samples: [0; SLOTS],
            marks: Vec::new(),
        };
        self.join_onto(blank, parts)
    }

    /// The same, where slots that no part fills keep what `sketch` has for them.
    pub fn join_onto(&self, sketch: Sketch, parts: impl IntoIterator<Item = Part>) -> Sketch {
        let mut sketch = Sketch {
            dtype: self.dtype,
            ..sketch
        };
        let mut marks = Vec::new();
        for part in parts {
            for (slot, sample) in part.samples {
                if let Some(place) = sketch.samples.get_mut(slot) {
                    *place = sample;
                }
            }
            for (rank, mark) in part.marks {
                keep(&mut marks, rank, mark);
            }
        }
        sketch.marks = marks.into_iter().map(|(_, mark)| mark).collect();
        sketch
    }
}

fn signs(head: &[u8], size: usize) -> u32 {
    let tops = head.iter().skip(size - 1).step_by(size).enumerate();
    tops.fold(0, |signs, (bit, top)| signs | u32::from(top >> 7) << bit)
}

/// Keeps the marks of smallest rank, in order; of equal signs the first row.
fn keep(marks: &mut Vec<(u64, Mark)>, rank: u64, mark: Mark) {
    if marks.len() == MARKS && marks.last().is_some_and(|last| last.0 <= rank) {
        return;
    }
    if let Err(at) = marks.binary_search_by_key(&rank, |(rank, _)| *rank) {
        marks.insert(at, (rank, mark));
        marks.truncate(MARKS);
    }
}
