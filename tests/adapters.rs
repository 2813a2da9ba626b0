//! Adapters beside the weights that they were merged into: they help to find factors, and can do no harm.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "helpers of tests fail by panicking"
)]

#[path = "common/batch.rs"]
mod batch;
#[path = "common/tensors.rs"]
mod tensors;

use batch::{Batch, tree};
use serde_json::json;
use tensors::{noise, safetensors};
use zipllm::dtype::DType;
use zipllm::float::convert;
use zipllm::store::Store;

const IDS: [&str; 2] = ["lab/base", "lab/merged"];
const ROWS: usize = 600;
const COLUMNS: usize = 700;
const RANK: usize = 40;
const ADAPTER: &str = "lab/merged/adapter_model.safetensors";
const MATRIX: &str = "base_model.model.layers.0.q_proj";

/// About normal numbers of this size.
fn normal(seed: u64, count: usize, size: f32) -> Vec<f32> {
    let bytes = noise(seed, 12 * count);
    let number = |bytes: &[u8; 12]| {
        let sum: f32 = bytes.iter().map(|&byte| f32::from(byte) - 127.5).sum();
        sum / 256.0 * size
    };
    bytes.as_chunks::<12>().0.iter().map(number).collect()
}

fn bytes(dtype: DType, values: &[f32]) -> Vec<u8> {
    let wide: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut out = vec![0; values.len() * dtype.size()];
    convert(DType::F32, &wide, dtype, &mut out);
    out
}

fn floats(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    let mut wide = vec![0; bytes.len() / dtype.size() * 4];
    convert(dtype, bytes, DType::F32, &mut wide);
    let wide = wide.as_chunks::<4>().0.iter();
    wide.map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// A base, and what was made of it with an adapter, whose factors are returned: those of columns, those of rows.
fn models(batch: &Batch, transposed: bool) -> [Vec<f32>; 2] {
    let a = normal(2, RANK * COLUMNS, 0.05);
    let b = normal(3, ROWS * RANK, 0.0006);
    let old = bytes(DType::Bf16, &normal(1, ROWS * COLUMNS, 0.02));
    let mut new = floats(DType::Bf16, &old);
    for (at, x) in new.iter_mut().enumerate() {
        let (row, column) = (at / COLUMNS, at % COLUMNS);
        *x += (0..RANK)
            .map(|k| b[row * RANK + k] * a[k * COLUMNS + column])
            .sum::<f32>();
    }
    let new = bytes(DType::Bf16, &new);
    let shape = [ROWS as u64, COLUMNS as u64];
    for (model, data) in [("base", &old), ("merged", &new)] {
        let tensor = (
            "layers.0.q_proj.weight",
            "BF16",
            shape.as_slice(),
            data.as_slice(),
        );
        batch.file(
            &format!("lab/{model}/model.safetensors"),
            safetensors(&[tensor]),
        );
    }
    batch.bases(&json!({"lab/base": ["lab/merged"]}));
    if !transposed {
        return [a, b];
    }
    // The adapter of a layer that keeps its weights the other way round: A is rank x rows there.
    let turn = |values: &[f32], width: usize| -> Vec<f32> {
        let column = |at| values.iter().skip(at).step_by(width).copied();
        (0..width).flat_map(column).collect()
    };
    [turn(&b, RANK), turn(&a, COLUMNS)]
}

/// An adapter file: its factors, as numbers of `dtype`, with these shapes.
fn adapter(dtype: DType, [a, b]: &[Vec<f32>; 2], [a_shape, b_shape]: [[usize; 2]; 2]) -> Vec<u8> {
    let name = if dtype == DType::F32 { "F32" } else { "BF16" };
    let data = [bytes(dtype, a), bytes(dtype, b)];
    let shape = |shape: [usize; 2]| shape.map(|side| side as u64);
    let shapes = [shape(a_shape), shape(b_shape)];
    let names = ["A", "B"].map(|side| format!("{MATRIX}.lora_{side}.weight"));
    safetensors(&[
        (
            names[0].as_str(),
            name,
            shapes[0].as_slice(),
            data[0].as_slice(),
        ),
        (
            names[1].as_str(),
            name,
            shapes[1].as_slice(),
            data[1].as_slice(),
        ),
    ])
}

/// Stores both models, restores them, and returns what the merged matrix takes.
fn matrix_bytes(batch: &Batch) -> u64 {
    batch.zipllm(&["--threads", "1"]).expect(0);
    batch.assert_clean();
    for id in IDS {
        batch.assert_restores(id, &tree(&batch.path("models").join(id)));
    }
    let index = Store::open(&batch.path("store")).unwrap().index().unwrap();
    let mut records = index.values();
    let matrix = records.find(|record| record.depth == 1).unwrap();
    assert_eq!(matrix.raw_len, (2 * ROWS * COLUMNS) as u64);
    matrix.stored_len
}

#[test]
fn an_adapter_makes_its_merge_smaller() {
    let alone = Batch::new(&IDS);
    models(&alone, false);
    let alone = matrix_bytes(&alone);
    let straight = [[RANK, COLUMNS], [ROWS, RANK]];
    let turned = [[RANK, ROWS], [COLUMNS, RANK]];
    for (dtype, transposed, shapes) in [
        (DType::F32, false, straight),
        (DType::Bf16, false, straight),
        (DType::F32, true, turned),
    ] {
        let batch = Batch::new(&IDS);
        let factors = models(&batch, transposed);
        batch.file(ADAPTER, adapter(dtype, &factors, shapes));
        let helped = matrix_bytes(&batch);
        println!("{dtype} {transposed}: {helped} instead of {alone}");
        assert!(helped * 10 < alone * 9, "{helped} {alone}");
    }
}

#[test]
fn a_false_or_damaged_adapter_changes_nothing() {
    let alone = Batch::new(&IDS);
    let [a, b] = models(&alone, false);
    let alone = matrix_bytes(&alone);
    let shapes = [[RANK, COLUMNS], [ROWS, RANK]];
    let whole = adapter(DType::F32, &[a.clone(), b.clone()], shapes);
    let with = |values: &[f32], at: usize, value: f32| {
        let mut values = values.to_vec();
        values[at] = value;
        values
    };
    let others = [normal(8, a.len(), 1.0), normal(9, b.len(), 1.0)];
    let infinite = [with(&a, 5, f32::INFINITY), b.clone()];
    let huge = [with(&a, 5, f32::MAX), with(&b, 7, f32::MAX)];
    for (name, file) in [
        ("cut off", whole[..whole.len() / 2].to_vec()),
        ("no file at all", Vec::new()),
        ("noise", noise(4, 5000)),
        ("a header that lies", [&[255; 8], &whole[8..]].concat()),
        (
            "the other way round",
            adapter(DType::F32, &[b.clone(), a.clone()], [shapes[1], shapes[0]]),
        ),
        (
            "another matrix",
            adapter(
                DType::F32,
                &[a[..RANK * 8].to_vec(), b.clone()],
                [[RANK, 8], shapes[1]],
            ),
        ),
        ("other factors", adapter(DType::F32, &others, shapes)),
        (
            "not a number",
            adapter(DType::F32, &[with(&a, 5, f32::NAN), b.clone()], shapes),
        ),
        ("infinite", adapter(DType::F32, &infinite, shapes)),
        ("huge", adapter(DType::F32, &huge, shapes)),
        (
            "nothing",
            adapter(DType::F32, &[vec![0.0; a.len()], b.clone()], shapes),
        ),
    ] {
        let batch = Batch::new(&IDS);
        models(&batch, false);
        batch.file(ADAPTER, file);
        assert_eq!(matrix_bytes(&batch), alone, "{name}");
    }
}
