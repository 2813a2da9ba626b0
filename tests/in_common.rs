//! What the chunks of a long tensor have in common, through the real programs: it is used, encoded anew into, and guarded.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking"
)]

#[path = "common/batch.rs"]
mod batch;
#[path = "common/tensors.rs"]
mod tensors;

use std::fs;
use std::path::PathBuf;

use batch::{Batch, tree};
use serde_json::{Value, json};
use tensors::{noise, safetensors, weights};
use zipllm::hash::Hash;
use zipllm::store::Store;
use zipllm::store::object::{COMMON, Frame};

const BASE: &str = "wide/base";
const TUNE: &str = "wide/tune";
/// Three chunks of BF16, the last of them half full.
const ROWS: usize = 2560;
const COLUMNS: usize = 1024;

/// Every seventh column of the base changed in its lowest bits, as by training that others need not.
fn tuned(base: &[u8]) -> Vec<u8> {
    let change = noise(5, base.len() / 2);
    let elements = base.chunks_exact(2).zip(change).enumerate();
    let tune = |(at, (element, change)): (usize, (&[u8], u8))| {
        let often = if (at % COLUMNS).is_multiple_of(7) {
            128
        } else {
            4
        };
        let low = element[0] ^ u8::from(change < often);
        [low, element[1]]
    };
    elements.flat_map(tune).collect()
}

/// A product of rank 1 added to the base, as by a merged adapter.
fn merged(base: &[u8]) -> Vec<u8> {
    let factors = noise(6, ROWS + COLUMNS);
    let factor = |at: usize| f32::from(factors[at]) / 128.0 - 1.0;
    let add = |(at, element): (usize, &[u8])| {
        let old = f32::from_bits(u32::from(u16::from_le_bytes([element[0], element[1]])) << 16);
        let new = old + factor(at / COLUMNS) * factor(ROWS + at % COLUMNS) * 5e-4;
        let bits = new.to_bits();
        let rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
        [rounded.to_le_bytes()[0], rounded.to_le_bytes()[1]]
    };
    base.chunks_exact(2).enumerate().flat_map(add).collect()
}

/// A base and a fine-tune of one matrix, stored with these settings.
fn stored(settings: &Value) -> Batch {
    stored_with(tuned, settings)
}

/// A base and what is made of its one matrix.
fn stored_with(tune: fn(&[u8]) -> Vec<u8>, settings: &Value) -> Batch {
    let batch = Batch::new(&[BASE, TUNE]);
    let matrix = weights(3, ROWS * COLUMNS);
    for (id, data) in [(BASE, &matrix), (TUNE, &tune(&matrix))] {
        let shape = [ROWS as u64, COLUMNS as u64];
        let file = safetensors(&[("matrix", "BF16", &shape, data)]);
        batch.file(&format!("{id}/model.safetensors"), file);
    }
    batch.bases(&json!({BASE: [TUNE]}));
    let mut all = json!({"base_ft_path": "bases.json"});
    all.as_object_mut()
        .unwrap()
        .extend(settings.as_object().unwrap().clone());
    batch.configure(&all);
    batch.zipllm(&[]).expect(0);
    batch
}

/// The object files of several chunks: that of the base, then that of the fine-tune.
fn long_objects(batch: &Batch) -> Vec<(Hash, PathBuf, Frame)> {
    let store = Store::open(&batch.path("store")).unwrap();
    let objects = store.objects().unwrap().0.into_iter();
    let mut objects: Vec<_> = objects
        .map(|name| {
            (
                name,
                store.layout().object(&name),
                store.object(&name).unwrap().frame,
            )
        })
        .filter(|(_, _, frame)| frame.chunks.len() > 1)
        .collect();
    objects.sort_by_key(|(_, _, frame)| frame.head.depth);
    assert_eq!(objects.len(), 2);
    objects
}

fn assert_restores(batch: &Batch) {
    batch.assert_clean();
    for id in [BASE, TUNE] {
        batch.assert_restores(id, &tree(&batch.path("models").join(id)));
    }
}

#[test]
fn chunks_of_a_difference_have_something_in_common() {
    let batch = stored(&json!({}));
    let [_, (_, _, tune)] = &long_objects(&batch)[..] else {
        panic!()
    };
    assert_eq!(tune.head.required, COMMON);
    assert!(tune.head.shared_len > 100 && tune.head.shared_len < 4000);
    assert_restores(&batch);
    let fast = stored(&json!({"effort": "fast"}));
    for (_, _, frame) in long_objects(&fast) {
        let required = frame.head.required & COMMON;
        assert_eq!((required, frame.head.shared_len), (0, 0));
    }
    let bitx = stored(&json!({"codec": "bitx"}));
    for (_, _, frame) in long_objects(&bitx) {
        assert_eq!((frame.head.required, frame.head.shared_len), (0, 0));
    }
}

/// Factors lie behind what is in common.
#[test]
fn predicted_chunks_have_something_in_common_too() {
    let batch = stored_with(merged, &json!({}));
    let (_, _, tune) = long_objects(&batch).pop().unwrap();
    let low_rank = 6;
    assert_eq!((tune.head.codec, tune.head.required), (low_rank, COMMON));
    assert!(tune.chunks.iter().all(|chunk| chunk.codec == low_rank));
    assert_restores(&batch);
    let again = batch.report("recode", &["--all"]);
    assert_eq!(again["replaced"], 0, "{again:#}");
}

#[test]
fn recode_finds_what_older_objects_have_in_common() {
    let batch = stored(&json!({"effort": "fast"}));
    let length = |batch: &Batch| fs::metadata(&long_objects(batch)[1].1).unwrap().len();
    let before = length(&batch);
    let report = batch.report("recode", &["--effort", "default"]);
    assert_eq!(report["replaced"], 1, "{report:#}");
    assert_eq!(long_objects(&batch)[1].2.head.required, COMMON);
    assert!(length(&batch) < before, "{} {before}", length(&batch));
    assert_restores(&batch);
    let again = batch.report("recode", &["--effort", "default"]);
    assert_eq!(again["replaced"], 0, "{again:#}");
}

#[test]
fn a_damaged_shared_section_is_found() {
    let batch = stored(&json!({}));
    let (name, path, frame) = long_objects(&batch).pop().unwrap();
    let whole = fs::read(&path).unwrap();
    let start = frame.head.to_bytes().len();
    let length = frame.head.shared_len as usize;
    for at in [0, 3, 4, 5, 7, 40, length / 2, length - 1] {
        let mut bytes = whole.clone();
        bytes[start + at] ^= 1;
        fs::write(&path, bytes).unwrap();
        let restored = batch.restore(TUNE, &format!("out{at}"), &[]);
        restored.expect(3).says(&[&name.to_string()]);
        batch.check().expect(3);
    }
    fs::write(&path, whole).unwrap();
    assert_restores(&batch);
}

/// Rows of the base are looked at before any of its chunks is needed.
#[test]
fn a_damaged_base_costs_space_and_not_the_model() {
    let batch = stored(&json!({}));
    batch.verb("remove", &[TUNE]).expect(0);
    batch.verb("gc", &[]).expect(0);
    let store = Store::open(&batch.path("store")).unwrap();
    let objects = store.objects().unwrap().0.into_iter();
    let paths = objects.map(|name| store.layout().object(&name));
    let path = paths
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&path, bytes).unwrap();
    let run = batch.zipllm(&[]).expect(3);
    run.says(&["a base in the store is damaged"]);
    batch.assert_restores(TUNE, &tree(&batch.path("models").join(TUNE)));
}
