//! The whole job through the real programs: store a family, restore it, compare every byte.

#[path = "common/batch.rs"]
mod batch;
#[path = "common/tensors.rs"]
mod tensors;

use std::fs;
use std::path::Path;

use batch::{Batch, about, assert_same, ids, set_executable, testdata, tree};
use serde_json::{Value, json};
use tensors::{Tensor, entry, noise, safetensors, tuned, weights, with_header};

const ALL_DTYPES: [(&str, u64); 19] = [
    ("F64", 8),
    ("F32", 4),
    ("F16", 2),
    ("BF16", 2),
    ("F8_E4M3", 1),
    ("F8_E5M2", 1),
    ("F8_E8M0", 1),
    ("I64", 8),
    ("U64", 8),
    ("I32", 4),
    ("U32", 4),
    ("I16", 2),
    ("U16", 2),
    ("I8", 1),
    ("U8", 1),
    ("BOOL", 1),
    ("C64", 8),
    ("NEW_1", 1),
    ("", 3),
];

/// Adds files of every kind to a model's directory; `seed` makes them differ from another model's.
fn add_other_files(batch: &Batch, model: &str, seed: u64) {
    let script = batch.file(&format!("{model}/bin/run.sh"), "#!/bin/sh\nexit 0\n");
    set_executable(&script, true);
    for (place, bytes) in other_files(seed) {
        batch.file(&format!("{model}/{place}"), bytes);
    }
    for empty in ["empty", "nested/also/empty"] {
        fs::create_dir_all(batch.path("models").join(model).join(empty)).unwrap();
    }
}

fn other_files(seed: u64) -> Vec<(&'static str, Vec<u8>)> {
    let text = "It is a truth universally acknowledged. ".repeat(500);
    let whole = weights(seed, 3000);
    let mut trailing = safetensors(&[("t", "BF16", &[3000], &whole)]);
    trailing.extend_from_slice(b"polyglot tail");
    let cut = trailing[..2000].to_vec();
    vec![
        ("notes.txt", format!("{seed} {text}").into_bytes()),
        ("empty.bin", Vec::new()),
        ("one.bin", vec![7]),
        ("junk.bin", noise(seed, 100_003)),
        ("a/b/c/d/e/deep.txt", b"deep".to_vec()),
        ("name with blanks, ünïcode and 'quotes'.txt", b"x".to_vec()),
        (".hidden", b"dot".to_vec()),
        ("empty.safetensors", Vec::new()),
        ("one.safetensors", vec![1]),
        ("text.safetensors", b"no safetensors at all".to_vec()),
        (
            "huge_header.safetensors",
            [&[0xFF; 8], &noise(seed, 500)[..]].concat(),
        ),
        ("cut.safetensors", cut),
        ("trailing.safetensors", trailing),
        ("dtypes.safetensors", every_dtype(seed)),
        ("odd.safetensors", odd_tensors(seed)),
        ("holes.safetensors", holes(seed)),
        ("overlap.safetensors", overlap()),
        (
            "no_tensors.safetensors",
            with_header(&json!({"__metadata__": {"a": "b"}}), b""),
        ),
    ]
}

/// A tensor of each dtype, known or not.
fn every_dtype(seed: u64) -> Vec<u8> {
    let data: Vec<_> = ALL_DTYPES
        .iter()
        .map(|(_, size)| noise(seed, usize::try_from(size * 77).unwrap()))
        .collect();
    let tensors: Vec<Tensor<'_>> = ALL_DTYPES
        .iter()
        .zip(&data)
        .map(|((dtype, _), data)| (*dtype, *dtype, &[7, 11][..], data.as_slice()))
        .collect();
    safetensors(&tensors)
}

/// Scalars, tensors without elements, of one byte, and of lengths that their dtype cannot have.
fn odd_tensors(seed: u64) -> Vec<u8> {
    let bytes = noise(seed, 64);
    safetensors(&[
        ("scalar", "BF16", &[], &bytes[..2]),
        ("scalar_f64", "F64", &[], &bytes[..8]),
        ("none", "F32", &[0], &[]),
        ("none_2d", "F32", &[4, 0, 9], &[]),
        ("one_byte", "U8", &[1], &bytes[..1]),
        ("odd_bf16", "BF16", &[3], &bytes[..7]),
        ("odd_f32", "F32", &[5], &bytes[..19]),
        ("too_long", "I8", &[2], &bytes[..40]),
        ("impossible", "F32", &[u64::MAX, u64::MAX], &bytes[..4]),
    ])
}

fn holes(seed: u64) -> Vec<u8> {
    let header = json!({"a": entry("BF16", &[10], 8, 28), "b": entry("I8", &[5], 100, 105), "c": {
            "dtype": "F16", "shape": [2], "data_offsets": [40, 44], "surprise": [1, {"x": null}]}});
    with_header(&header, &noise(seed, 222))
}

fn overlap() -> Vec<u8> {
    let header = json!({"a": entry("I8", &[10], 0, 10), "b": entry("I8", &[10], 9, 19)});
    with_header(&header, &[3; 19])
}

#[test]
fn the_real_family_with_files_of_every_kind_comes_back() {
    let batch = Batch::real();
    let list = fs::read_to_string(testdata("real/models.txt")).unwrap();
    let ids = ids(&list);
    let directory = |id: &str| id.replacen('/', "_", 1);
    for (seed, id) in (1..).zip(&ids[..3]) {
        add_other_files(&batch, &directory(id), seed);
    }
    let originals: Vec<_> = ids
        .iter()
        .map(|id| tree(&batch.path("models").join(directory(id))))
        .collect();
    let report = batch.zipllm(&["--json"]).expect(0).json();
    for id in &ids {
        assert_eq!(about(&report, id)["status"], "stored", "{id}");
    }
    for id in &ids[1..] {
        assert_eq!(about(&report, id)["base"], ids[0]);
        let delta = &about(&report, id)["savings"]["delta"];
        let (raw, stored) = (
            delta["raw_bytes"].as_u64().unwrap(),
            delta["stored_bytes"].as_u64().unwrap(),
        );
        assert!(raw > 0 && stored < raw / 10 * 7, "{id}: {delta}");
    }
    let warnings = about(&report, ids[0])["warnings"].to_string();
    for odd in ["huge_header", "cut", "text", "one", "overlap", "odd"] {
        assert!(
            warnings.contains(&format!("{odd}.safetensors")),
            "{odd}: {warnings}"
        );
    }
    batch.assert_clean();
    for (id, original) in ids.iter().zip(&originals) {
        batch.assert_restores(id, original);
    }

    let before = batch.stored();
    let again = batch.zipllm(&["--json"]).expect(0).json();
    for id in &ids {
        let model = about(&again, id);
        assert_eq!(
            (&model["status"], &model["version"]),
            (&json!("already_stored"), &json!(1)),
            "{id}"
        );
    }
    assert_eq!(again["stored_bytes"], 0);
    assert_same(&before, &batch.stored(), "a second run");
}

#[test]
fn models_that_were_not_touched_are_not_read_again() {
    // The files in testdata are old enough to be known by their times.
    let batch = Batch::real();
    batch.configure(&json!({"model_dir": testdata("real/models"), "base_ft_path": "bases.json"}));
    batch.zipllm(&[]).expect(0);
    let whole = |batch: &Batch| {
        let mut store = tree(&batch.path("store"));
        store.remove(Path::new("lock"));
        store
    };
    let before = whole(&batch);
    assert!(before.contains_key(Path::new("index/scans/acme--smol-15m.json")));
    let report = batch.zipllm(&["--json"]).expect(0).json();
    assert_eq!(about(&report, "acme/smol-15m")["status"], "already_stored");
    assert_same(&before, &whole(&batch), "a second run");
}

#[test]
fn equal_files_and_tensors_are_stored_once_and_counted() {
    let batch = Batch::new(&["lab/base", "lab/copy", "lab/sharded", "lab/renamed"]);
    let (a, b) = (weights(1, 40_000), weights(2, 30_000));
    let c = weights(3, 5000);
    batch.file(
        "lab/base/model.safetensors",
        safetensors(&[("a", "BF16", &[200, 200], &a), ("b", "BF16", &[30_000], &b)]),
    );
    batch.file("lab/base/notes.txt", "some notes");
    batch.file("lab/base/same.txt", "some notes");
    batch::copy_tree(
        &batch.path("models/lab/base"),
        &batch.path("models/lab/copy"),
    );
    batch.file(
        "lab/sharded/model-1.safetensors",
        safetensors(&[("a", "BF16", &[200, 200], &a)]),
    );
    batch.file(
        "lab/sharded/model-2.safetensors",
        safetensors(&[("b", "BF16", &[30_000], &b)]),
    );
    // Another name, another dtype and shape, and twice in one file: equal bytes are one object.
    batch.file(
        "lab/renamed/model.safetensors",
        safetensors(&[
            ("p", "BF16", &[30_000], &b),
            ("q", "I16", &[100, 300], &b),
            ("r", "BF16", &[5000], &c),
            ("s", "BF16", &[5000], &c),
        ]),
    );
    let originals: Vec<_> = ["base", "copy", "sharded", "renamed"]
        .iter()
        .map(|name| (name, tree(&batch.path("models/lab").join(name))))
        .collect();
    let report = batch.zipllm(&["--json"]).expect(0).json();
    let model_bytes = fs::metadata(batch.path("models/lab/base/model.safetensors"))
        .unwrap()
        .len();
    let (a, b, c) = (80_000, 60_000, 10_000);
    for (model, file_dedup, tensor_dedup, delta) in [
        ("lab/base", 10, 0, 0),
        ("lab/copy", model_bytes + 20, 0, 0),
        ("lab/sharded", 0, a + b, 0),
        ("lab/renamed", 0, 2 * b + c, 0),
    ] {
        let savings = &about(&report, model)["savings"];
        assert_eq!(savings["file_dedup_bytes"], file_dedup, "{model}");
        assert_eq!(savings["tensor_dedup_bytes"], tensor_dedup, "{model}");
        assert_eq!(savings["delta"]["raw_bytes"], delta, "{model}");
    }
    // a, b, c, four headers, the notes.
    assert_eq!(report["store"]["objects"], 3 + 4 + 1);
    batch.assert_clean();
    for (name, original) in originals {
        batch.assert_restores(&format!("lab/{name}"), &original);
    }
}

/// Two files of one model may use a name for two tensors; the published program lost one of them.
#[test]
fn two_files_with_the_same_tensor_names_keep_both() {
    let batch = Batch::new(&["lab/base", "lab/tune"]);
    let parts = [weights(1, 4000), weights(2, 4000)];
    for (number, part) in parts.iter().enumerate() {
        let place = |model: &str| format!("lab/{model}/{number}.safetensors");
        batch.file(
            &place("base"),
            safetensors(&[("w", "BF16", &[4000], part), ("v", "BF16", &[4000], part)]),
        );
        let changed = tuned(part, 9);
        batch.file(
            &place("tune"),
            safetensors(&[("w", "BF16", &[4000], &changed)]),
        );
    }
    let originals = ["base", "tune"].map(|name| tree(&batch.path("models/lab").join(name)));
    batch.zipllm(&[]).expect(0).silent();
    // Each is encoded against the tensor in the file of the same path.
    let (base, tune) = (
        batch.manifest("lab--base", 1),
        batch.manifest("lab--tune", 1),
    );
    for number in 0..2 {
        let object = |manifest: &Value| {
            let segment = &manifest["files"][number]["segments"][1];
            segment["object"].as_str().unwrap().to_owned()
        };
        let name = object(&tune);
        let file = fs::read(batch.path(format!("store/objects/{}/{name}", &name[..2]))).unwrap();
        let base_of_it: String = file[36..68]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(base_of_it, object(&base), "file {number}");
    }
    for (name, original) in ["lab/base", "lab/tune"].iter().zip(&originals) {
        batch.assert_restores(name, original);
    }
}

#[test]
fn tensors_of_many_chunks_come_back() {
    const MANY: usize = (3 << 20) + 77;
    let batch = Batch::new(&["lab/base", "lab/tune"]);
    let small = weights(1, 1 << 16);
    let values = small.repeat(2 * MANY / small.len() + 1)[..2 * MANY].to_vec();
    let mut changed = values.clone();
    for at in (0..changed.len()).step_by(1000) {
        changed[at] ^= 1;
    }
    let bytes: Vec<u8> = noise(5, 1 << 16).repeat(MANY / (1 << 16) + 1)[..MANY].to_vec();
    for (model, values) in [("base", &values), ("tune", &changed)] {
        batch.file(
            &format!("lab/{model}/model.safetensors"),
            safetensors(&[
                ("bf16", "BF16", &[MANY as u64], values),
                ("f32", "F32", &[(MANY / 2) as u64], &values[..MANY / 2 * 4]),
                (
                    "f64",
                    "F64",
                    &[(MANY / 4) as u64],
                    &values[2..2 + MANY / 4 * 8],
                ),
                ("i8", "I8", &[MANY as u64], &values[..MANY]),
                // Not what the dtype says: plain bytes.
                ("odd", "F16", &[5], &values[1..MANY]),
            ]),
        );
        batch.file(&format!("lab/{model}/other.bin"), &bytes);
    }
    let originals = ["base", "tune"].map(|name| tree(&batch.path("models/lab").join(name)));
    let report = batch.zipllm(&["--json", "--threads", "3"]).expect(0).json();
    let tune = about(&report, "lab/tune");
    assert_eq!(tune["savings"]["file_dedup_bytes"], MANY);
    let delta = tune["savings"]["delta"]["raw_bytes"].as_u64().unwrap();
    assert!(delta > 7 * MANY as u64, "{tune:#}");
    assert!(tune["stored_bytes"].as_u64().unwrap() < MANY as u64 / 2);
    batch.assert_clean();
    for (name, original) in ["lab/base", "lab/tune"].iter().zip(&originals) {
        batch.assert_restores(name, original);
    }
}

/// What is longer than 64 MiB is read twice, once for its name and once to encode it.
#[test]
fn a_tensor_too_long_to_be_kept_comes_back() {
    const BYTES: usize = (66 << 20) + 2;
    let batch = Batch::new(&["lab/base", "lab/tune"]);
    let unit = weights(1, 1 << 15);
    let mut values = unit.repeat(BYTES / unit.len() + 1);
    values.truncate(BYTES);
    let write = |model: &str, values: &[u8]| {
        let shape = [BYTES as u64 / 2];
        let small = weights(2, 100);
        let tensors: [Tensor<'_>; 2] = [
            ("long", "BF16", &shape, values),
            ("short", "BF16", &[100], &small),
        ];
        batch.file(
            &format!("lab/{model}/model.safetensors"),
            safetensors(&tensors),
        );
    };
    write("base", &values);
    for at in [0, 1 << 21, 65 << 20, BYTES - 1] {
        values[at] ^= 1;
    }
    write("tune", &values);
    drop(values);
    let originals = ["base", "tune"].map(|name| tree(&batch.path("models/lab").join(name)));
    let report = batch.zipllm(&["--json"]).expect(0).json();
    let tune = about(&report, "lab/tune");
    // All but the last chunk, of two bytes, which nothing makes smaller.
    assert_eq!(tune["savings"]["delta"]["raw_bytes"], BYTES - 2);
    let all = tune["bytes"].as_u64().unwrap();
    assert_eq!(
        tune["savings"]["tensor_dedup_bytes"],
        all - BYTES as u64,
        "header and short tensor"
    );
    for (name, original) in ["lab/base", "lab/tune"].iter().zip(&originals) {
        batch.assert_restores(name, original);
    }
}
