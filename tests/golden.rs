//! Stores of every released format stay readable (T11): `testdata/store/vN`, with the hashes of what they restore to in
//! `testdata/store/vN.txt`.
//!
//! A golden store is written once, when its format is new, and never again. Until a first release the format may change;
//! then `cargo test --test golden -- --ignored` writes the store of this version anew.
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

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use batch::{Batch, Entry, about, assert_same, names, set_executable, testdata, tree};
use serde_json::json;
use tensors::{Tensor, noise, safetensors, tuned, weights};
use zipllm::store::object::{COMMON, FLAT_TAILS, PARTS, PREDICTED_PARTS, SKIPS};
use zipllm::store::{Marker, Store};

const IDS: [&str; 11] = [
    "gold/base",
    "gold/tune",
    "gold/other",
    "gold/alone",
    "gold/plain",
    "gold/merge",
    "gold/resized",
    "gold/rows",
    "gold/rows-tune",
    "gold/rows-still",
    "gold/flat",
];
/// Every version of every model of a golden store.
const VERSIONS: [&str; 12] = [
    "gold/base@1",
    "gold/tune@1",
    "gold/tune@2",
    "gold/other@1",
    "gold/alone@1",
    "gold/plain@1",
    "gold/merge@1",
    "gold/resized@1",
    "gold/rows@1",
    "gold/rows-tune@1",
    "gold/rows-still@1",
    "gold/flat@1",
];
/// Elements of two chunks.
const LONG: usize = (1 << 20) + 77;
/// Elements of three chunks in rows of a length.
const TALL: usize = (2 << 20) + 16 * COLUMNS;
/// The matrices of models with a merged adapter, and the rows that one of them has more.
const ROWS: usize = 128;
const COLUMNS: usize = 256;
const MORE_ROWS: usize = 5;

fn newest_format() -> u32 {
    Marker::new().format
}

fn stores() -> impl Iterator<Item = PathBuf> {
    (1..=newest_format()).map(|version| testdata(&format!("store/v{version}")))
}

/// What the golden store of version 1 is made of.
fn write_models(batch: &Batch) {
    let (small, long) = (weights(1, 2000), long(2));
    write_model(batch, "base", &small, &long);
    write_model(batch, "tune", &tuned(&small, 7), &flipped(&long, 1));
    write_model(batch, "alone", &weights(5, 2000), &self::long(6));
    let script = batch.file("gold/other/run.sh", "#!/bin/sh\n");
    set_executable(&script, true);
    batch.file("gold/other/junk.bin", noise(3, 3000));
    batch.file("gold/other/empty.bin", "");
    batch.file("gold/other/zeros.bin", vec![0; LONG]);
    batch.file(
        "gold/other/sub/dir/text.txt",
        "all work and no play\n".repeat(100),
    );
    batch.file("gold/other/bad.safetensors", "no safetensors");
    fs::create_dir_all(batch.path("models/gold/other/empty/dir")).unwrap();
    let (matrix, embedding) = (coarse(9), coarse(10));
    write_matrices(batch, "plain", &matrix, &embedding);
    let more = |rows: &[u8]| [rows, &coarse(11)[..2 * MORE_ROWS * COLUMNS]].concat();
    write_matrices(batch, "merge", &merged(&matrix), &more(&embedding));
    write_matrices(batch, "resized", &matrix, &more(&merged(&embedding)));
    let tall = &self::long(14).repeat(3)[..2 * TALL];
    write_rows(batch, "rows", tall);
    write_rows(batch, "rows-tune", &in_columns(tall));
    write_rows(batch, "rows-still", &flipped(tall, 1));
    write_matrix(batch, "flat", 129, &full(15));
    batch.bases(&json!({
        "gold/base": ["gold/tune"],
        "gold/plain": ["gold/merge", "gold/resized"],
        "gold/rows": ["gold/rows-tune", "gold/rows-still"],
    }));
}

/// Makes what the second version of the fine-tune is made of.
fn write_second_version(batch: &Batch) {
    write_model(
        batch,
        "tune",
        &tuned(&weights(1, 2000), 8),
        &flipped(&long(2), 4),
    );
    batch.file("gold/tune/card.md", "the second version");
}

/// Two chunks of BF16 that zstd makes short.
fn long(seed: u64) -> Vec<u8> {
    weights(seed, 1 << 12).repeat(LONG / (1 << 12) + 1)[..2 * LONG].to_vec()
}

/// Long data with one element in 4096 changed.
fn flipped(long: &[u8], bit: u8) -> Vec<u8> {
    let mut long = long.to_vec();
    long.iter_mut().step_by(8192).for_each(|byte| *byte ^= bit);
    long
}

/// Long data with one element in 32 changed: those of every eighth part of the columns.
fn in_columns(long: &[u8]) -> Vec<u8> {
    let mut long = long.to_vec();
    long.iter_mut().step_by(64).for_each(|byte| *byte ^= 1);
    long
}

/// A matrix of BF16, of 16 values near .02, so that it takes little room.
fn coarse(seed: u64) -> Vec<u8> {
    let bits = |byte: &u8| (u16::from(byte & 0x80) << 8) | 0x3C80 | u16::from(byte & 0x70);
    let elements = noise(seed, ROWS * COLUMNS);
    elements
        .iter()
        .flat_map(|byte| bits(byte).to_le_bytes())
        .collect()
}

/// A matrix of 129 rows of BF16 without zeros or infinities, near .02, whose mantissas are noise.
fn full(seed: u64) -> Vec<u8> {
    let bits = |two: &[u8]| (u16::from(two[0] & 0x81) << 8) | 0x3C00 | u16::from(two[1] & 0x7F);
    let elements = noise(seed, 2 * 129 * COLUMNS);
    elements
        .chunks_exact(2)
        .flat_map(|two| bits(two).to_le_bytes())
        .collect()
}

/// A matrix with a product of rank 1 added, and rounded, as a merged adapter is.
fn merged(matrix: &[u8]) -> Vec<u8> {
    let factor = |seed, length| -> Vec<f32> {
        let bytes = noise(seed, length);
        bytes
            .iter()
            .map(|&byte| f32::from(byte) / 128.0 - 1.0)
            .collect()
    };
    let (rows, columns) = (factor(12, ROWS), factor(13, COLUMNS));
    let add = |(at, element): (usize, &[u8])| {
        let old = f32::from_bits(u32::from(u16::from_le_bytes([element[0], element[1]])) << 16);
        let new = old + rows[at / COLUMNS] * columns[at % COLUMNS] * 5e-4;
        let bits = new.to_bits();
        let rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
        [rounded.to_le_bytes()[0], rounded.to_le_bytes()[1]]
    };
    matrix.chunks_exact(2).enumerate().flat_map(add).collect()
}

/// A model of one tensor whose chunks have something in common.
fn write_rows(batch: &Batch, model: &str, data: &[u8]) {
    write_matrix(batch, model, TALL / COLUMNS, data);
}

/// A model of one matrix.
fn write_matrix(batch: &Batch, model: &str, rows: usize, data: &[u8]) {
    let shape = [rows as u64, COLUMNS as u64];
    batch.file(
        &format!("gold/{model}/model.safetensors"),
        safetensors(&[("tall", "BF16", &shape, data)]),
    );
}

fn write_matrices(batch: &Batch, model: &str, matrix: &[u8], embedding: &[u8]) {
    let rows = |data: &[u8]| [(data.len() / 2 / COLUMNS) as u64, COLUMNS as u64];
    let tensors: [Tensor<'_>; 2] = [
        ("matrix", "BF16", &rows(matrix), matrix),
        ("embedding", "BF16", &rows(embedding), embedding),
    ];
    batch.file(
        &format!("gold/{model}/model.safetensors"),
        safetensors(&tensors),
    );
}

fn write_model(batch: &Batch, model: &str, small: &[u8], long: &[u8]) {
    let n = small.len() as u64;
    let rotated = |by: usize| [&small[by..], &small[..by]].concat();
    let data: Vec<_> = (0..12).map(|number| rotated(2 * number)).collect();
    let data = |number: usize| data[number].as_slice();
    let tensors: [Tensor<'_>; 15] = [
        ("bf16", "BF16", &[n / 20, 10], data(0)),
        ("f16", "F16", &[n / 2], data(1)),
        ("f32", "F32", &[n / 4], data(2)),
        ("f64", "F64", &[n / 8], data(3)),
        ("f8_e4m3", "F8_E4M3", &[n], data(4)),
        ("f8_e5m2", "F8_E5M2", &[n], data(5)),
        ("i16", "I16", &[n / 2], data(6)),
        ("i32", "I32", &[n / 4], data(7)),
        ("i64", "I64", &[n / 8], data(8)),
        ("u8", "U8", &[n], data(9)),
        ("bool", "BOOL", &[n], data(10)),
        ("odd", "BF16", &[3], &small[..7]),
        ("unknown", "X9", &[n], data(11)),
        ("scalar", "F32", &[], &small[..4]),
        ("long", "BF16", &[LONG as u64], long),
    ];
    batch.file(
        &format!("gold/{model}/model.safetensors"),
        safetensors(&tensors),
    );
    batch.file(&format!("gold/{model}/card.md"), model);
}

/// What the models of a store restore to, a line a file and directory.
fn restored(store: &Path) -> String {
    let batch = Batch::new(&IDS);
    batch.configure(&json!({"storage_dir": store}));
    let mut text = String::new();
    for (number, version) in VERSIONS.iter().enumerate() {
        let out = format!("out{number}");
        batch.restore(version, &out, &[]).expect(0).silent();
        for (path, entry) in tree(&batch.path(&out)) {
            let entry = match entry {
                Entry::Directory => "directory".to_owned(),
                Entry::File {
                    hash,
                    length,
                    executable,
                } => {
                    format!(
                        "{hash} {length}{}",
                        if executable { " executable" } else { "" }
                    )
                }
            };
            writeln!(text, "{version} {} {entry}", path.display()).unwrap();
        }
    }
    text
}

#[test]
fn every_format_is_there() {
    let versions: Vec<_> = (1..=newest_format())
        .map(|version| format!("v{version}"))
        .collect();
    let expected = versions
        .iter()
        .flat_map(|name| [name.clone(), format!("{name}.txt")]);
    let mut expected: Vec<_> = expected.collect();
    expected.sort();
    assert_eq!(names(&testdata("store")), expected);
    for (number, store) in (1..).zip(stores()) {
        let marker = fs::read_to_string(store.join("zipllm.json")).unwrap();
        assert!(
            marker.starts_with(&format!("{{\"format\":{number},")),
            "{marker}"
        );
        let bytes: u64 = tree(&store)
            .values()
            .map(|entry| {
                if let Entry::File { length, .. } = entry {
                    *length
                } else {
                    0
                }
            })
            .sum();
        assert!(bytes < 320 << 10, "{} has {bytes} bytes", store.display());
    }
}

#[test]
fn every_golden_store_restores_to_the_pinned_bytes() {
    for store in stores() {
        let pinned = fs::read_to_string(store.with_extension("txt")).unwrap();
        let before = tree(&store);
        assert_eq!(restored(&store), pinned, "{}", store.display());
        assert_same(&before, &tree(&store), "a store that was read");
    }
}

#[test]
fn every_golden_store_is_whole() {
    for store in stores() {
        let batch = Batch::new(&IDS);
        batch.configure(&json!({"storage_dir": store}));
        let report = batch.check().expect(0).json();
        assert_eq!(
            (&report["damage"], &report["warnings"]),
            (&json!([]), &json!([]))
        );
        assert_eq!(
            (&report["models"], &report["versions"]),
            (&json!(IDS.len()), &json!(VERSIONS.len()))
        );
    }
}

/// The golden store has every codec of its format, in objects of one chunk and of several.
#[test]
fn every_codec_is_in_the_golden_store() {
    let store = Store::open(&testdata("store/v1")).unwrap();
    let mut found: BTreeMap<(u8, bool), u32> = BTreeMap::new();
    let mut features = BTreeSet::new();
    for name in store.objects().unwrap().0 {
        let frame = store.object(&name).unwrap().frame;
        features.insert(frame.head.required);
        let chunks = frame.chunks;
        for chunk in &chunks {
            *found.entry((chunk.codec, chunks.len() > 1)).or_default() += 1;
        }
    }
    let kinds: Vec<_> = found.keys().copied().collect();
    let several = [1, 2, 3, 4].map(|codec| (codec, true));
    let one = [0, 1, 2, 3, 4, 5, 6, 7].map(|codec| (codec, false));
    for kind in one.iter().chain(&several) {
        assert!(kinds.contains(kind), "no {kind:?} in {found:?}");
    }
    assert_eq!(
        features,
        BTreeSet::from([
            0,
            PARTS,
            PARTS | PREDICTED_PARTS,
            COMMON,
            FLAT_TAILS,
            COMMON | FLAT_TAILS,
            SKIPS
        ])
    );
}

/// Today's writer knows what an old store holds, and adds to it.
#[test]
fn a_golden_store_can_be_added_to() {
    for store in stores() {
        let batch = Batch::new(&IDS);
        batch::copy_tree(&store, &batch.path("store"));
        write_models(&batch);
        write_second_version(&batch);
        let before = batch.stored();
        let report = batch.zipllm(&["--json"]).expect(0).json();
        for id in IDS {
            assert_eq!(about(&report, id)["status"], "already_stored", "{id}");
        }
        assert_same(&before, &batch.stored(), "the same models");
        batch.file("gold/tune/card.md", "the third version");
        batch.zipllm(&[]).expect(0);
        batch.assert_clean();
        batch.assert_restores("gold/tune@3", &tree(&batch.path("models/gold/tune")));
    }
}

/// Writes the golden store of this version anew, and pins what it restores to.
#[test]
#[ignore = "writes to testdata; only for a format that is not released"]
fn write_the_golden_store() {
    let store = testdata(&format!("store/v{}", newest_format()));
    let batch = Batch::new(&IDS);
    write_models(&batch);
    let originals = IDS.map(|id| tree(&batch.path("models").join(id)));
    // First with the codecs of planes, then with the default ones.
    batch.list(&IDS[..3]);
    batch.configure(&json!({"base_ft_path": "bases.json", "codec": "bitx"}));
    batch.zipllm(&["--threads", "1"]).expect(0);
    write_second_version(&batch);
    batch.list(&IDS);
    batch.configure(&json!({"base_ft_path": "bases.json"}));
    batch.zipllm(&["--threads", "1"]).expect(0);
    for (id, original) in [("gold/base", 0), ("gold/tune@1", 1), ("gold/other", 2)] {
        batch.assert_restores(id, &originals[original]);
    }
    // What only this machine knows does not belong there, nor do empty directories, which git does not keep.
    for lock in ["lock", "readers"] {
        fs::remove_file(batch.path("store").join(lock)).unwrap();
    }
    for directory in ["index/scans", "sketches", "tmp"] {
        fs::remove_dir_all(batch.path("store").join(directory)).unwrap();
    }
    let _ = fs::remove_dir_all(&store);
    batch::copy_tree(&batch.path("store"), &store);
    fs::write(store.with_extension("txt"), restored(&store)).unwrap();
}
