//! Adapters that lie beside a model's weights: what a merge was made of, if it was one.
//!
//! `adapter_model.safetensors` as PEFT writes it has, for a matrix `NAME.weight`, `base_model.model.NAME.lora_A.weight`
//! (rank x columns) and `….lora_B.weight` (rows x rank); transposed where the matrix is. What an adapter says is only where
//! a fit begins, so nothing depends on its being true, and its scale is not needed.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::checkpoint::segment;
use crate::dtype::DType;
use crate::float::{convert, converts};
use crate::lowrank::{MAX_RANK, fit::Start};
use crate::source::{Listing, OpenFile};

/// The name of the file.
const NAME: &str = "adapter_model.safetensors";
/// What stands before a matrix's name.
const PREFIX: &str = "base_model.model.";
/// What stands behind it, in place of `.weight`.
const SUFFIXES: [&str; 2] = [".lora_A.weight", ".lora_B.weight"];

/// Most bytes of both factors of a matrix: as many as a tensor's fitted ones have.
const MOST_BYTES: u64 = 256 << 20;

/// An adapter's factors, by the name of the matrix.
pub struct Adapter {
    file: OpenFile,
    matrices: BTreeMap<String, [Option<Factor>; 2]>,
}

/// Where a factor lies in the file.
struct Factor {
    start: u64,
    length: u64,
    dtype: DType,
    shape: [usize; 2],
}

/// The factors of one matrix, to be read when they are needed.
#[derive(Clone)]
pub struct Part {
    adapter: Arc<Adapter>,
    matrix: String,
}

impl Adapter {
    /// Finds a model's adapter; one that cannot be read or is damaged counts as none.
    pub fn find(listing: &Listing) -> Option<Arc<Self>> {
        let file = listing
            .files
            .iter()
            .find(|file| file.path.as_str() == NAME)?;
        let open = file.open().ok()?;
        let layout = segment(NAME, &open).ok()?;
        let mut matrices: BTreeMap<String, [Option<Factor>; 2]> = BTreeMap::new();
        for span in layout.spans {
            let Some(tensor) = span.tensor else { continue };
            let stem = tensor.name.strip_prefix(PREFIX).unwrap_or(&tensor.name);
            let found = SUFFIXES.iter().zip(0..).find_map(|(suffix, side)| {
                let name = stem.strip_suffix(suffix)?;
                Some((format!("{name}.weight"), side))
            });
            let (Some((name, side)), [rows, columns]) = (found, tensor.shape.as_slice()) else {
                continue;
            };
            let (Ok(rows), Ok(columns)) = (usize::try_from(*rows), usize::try_from(*columns))
            else {
                continue;
            };
            let factor = Factor {
                start: span.start,
                length: span.length,
                dtype: span.dtype,
                shape: [rows, columns],
            };
            let sides = matrices.entry(name).or_default();
            if let Some(place) = sides.get_mut(side) {
                *place = Some(factor);
            }
        }
        (!matrices.is_empty()).then(|| {
            Arc::new(Self {
                file: open,
                matrices,
            })
        })
    }

    /// What the adapter has for a tensor.
    pub fn part(self: &Arc<Self>, tensor: &str) -> Option<Part> {
        self.matrices.contains_key(tensor).then(|| Part {
            adapter: self.clone(),
            matrix: tensor.to_owned(),
        })
    }

    fn read(&self, factor: &Factor) -> Option<Vec<f32>> {
        if factor.length > MOST_BYTES || !converts(factor.dtype, DType::F32) {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(factor.length).ok()?];
        self.file.read_exact_at(factor.start, &mut bytes).ok()?;
        let mut wide = vec![0; bytes.len() / factor.dtype.size() * 4];
        convert(factor.dtype, &bytes, DType::F32, &mut wide);
        let values = wide.as_chunks::<4>().0.iter();
        let values: Vec<f32> = values.map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let is_sane = values.len() == factor.shape[0].checked_mul(factor.shape[1])?;
        (is_sane && values.iter().all(|value| value.is_finite())).then_some(values)
    }
}

impl Part {
    /// Reads the factors of a matrix of so many rows and columns, or of its transpose; `None` where they do not fit it.
    pub fn read(&self, rows: u64, columns: u64) -> Option<Start> {
        let [Some(a), Some(b)] = self.adapter.matrices.get(&self.matrix)? else {
            return None;
        };
        let (rows, columns) = (usize::try_from(rows).ok()?, usize::try_from(columns).ok()?);
        let ([rank, inputs], [outputs, other]) = (a.shape, b.shape);
        if rank != other || !(1..=MAX_RANK).contains(&rank) {
            return None;
        }
        let is_straight = [outputs, inputs] == [rows, columns];
        if !is_straight && [inputs, outputs] != [rows, columns] {
            return None;
        }
        let down = transposed(&self.adapter.read(a)?, inputs);
        let up = self.adapter.read(b)?;
        let (rows, columns) = if is_straight { (up, down) } else { (down, up) };
        Some(Start {
            rank,
            rows,
            columns,
        })
    }
}

/// Makes columns rows, of rows of `length`.
fn transposed(values: &[f32], length: usize) -> Vec<f32> {
    (0..length)
        .flat_map(|column| values.iter().skip(column).step_by(length.max(1)))
        .copied()
        .collect()
}
