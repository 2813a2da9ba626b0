//! Bases that are found, not told: in any order, under other names, in other shapes and types.
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
use std::process::Command;

use batch::{Batch, Entry, Run, about, ids, tree};
use serde_json::{Value, json};
use tensors::{Tensor, noise, safetensors, tuned, weights};
use zipllm::dtype::DType;
use zipllm::float::convert;

const ROW: u64 = 64;
const ROWS: u64 = 1024;
const LAYERS: usize = 4;
/// Elements of a tensor of the small models here.
const COUNT: usize = 65_536;

fn object_bytes(batch: &Batch) -> u64 {
    let length = |entry: &Entry| match entry {
        Entry::File { length, .. } => *length,
        Entry::Directory => 0,
    };
    let objects = tree(&batch.path("store/objects"));
    objects.values().map(length).sum()
}

/// A verb on the batch's store.
fn verb(batch: &Batch, verb: &str, args: &[&str]) -> Run {
    let config = batch.path("config.json");
    Run::of(Command::new(batch::ZIPLLM).arg(verb).arg(config).args(args))
}

/// A batch without hints: an empty base map.
fn unhinted(ids: &[&str]) -> Batch {
    let batch = Batch::new(ids);
    batch.bases(&json!({}));
    batch
}

fn store(batch: &Batch) -> Value {
    batch.zipllm(&["--json"]).expect(0).json()
}

/// Checks the store, and restores every model of the list.
fn assert_whole(batch: &Batch) {
    batch.assert_clean();
    for id in ids(&fs::read_to_string(batch.path("list.txt")).unwrap()) {
        let source = batch.path("models").join(id);
        let source = if source.exists() {
            source
        } else {
            batch.path("models").join(id.replace('/', "_"))
        };
        batch.assert_restores(id, &tree(&source));
    }
}

/// A model's tensors, one after another.
fn write(batch: &Batch, model: &str, tensors: &[(String, &str, Vec<u64>, Vec<u8>)]) {
    let tensors: Vec<Tensor<'_>> = tensors
        .iter()
        .map(|(name, dtype, shape, data)| {
            (name.as_str(), *dtype, shape.as_slice(), data.as_slice())
        })
        .collect();
    batch.file(&format!("{model}/model.safetensors"), safetensors(&tensors));
}

fn layer(at: usize) -> Vec<u8> {
    weights(100 + at as u64, COUNT)
}

/// A model of some layers, each the same one of the base, tuned unless `seed` is 0, and named by `name`.
fn layers(
    seed: u64,
    which: &[usize],
    name: &str,
) -> Vec<(String, &'static str, Vec<u64>, Vec<u8>)> {
    let one = |(at, layer_at): (usize, &usize)| {
        let data = layer(*layer_at);
        let data = if seed == 0 {
            data
        } else {
            tuned(&data, seed + *layer_at as u64)
        };
        (format!("{name}.{at}.weight"), "BF16", vec![ROWS, ROW], data)
    };
    which.iter().enumerate().map(one).collect()
}

const ALL: [usize; LAYERS] = [0, 1, 2, 3];

/// Stores a base of four layers, and a second model; returns the batch, the second's report, and the bytes it added.
fn second(tensors: &[(String, &str, Vec<u64>, Vec<u8>)]) -> (Batch, Value, u64) {
    let batch = unhinted(&["a/base"]);
    write(&batch, "a/base", &layers(0, &ALL, "h"));
    store(&batch);
    let before = object_bytes(&batch);
    write(&batch, "b/second", tensors);
    batch.list(&["a/base", "b/second"]);
    let report = store(&batch);
    assert_whole(&batch);
    let added = object_bytes(&batch) - before;
    (batch, about(&report, "b/second").clone(), added)
}

fn aligned() -> u64 {
    second(&layers(7, &ALL, "h")).2
}

#[test]
fn any_order_of_a_real_family_ends_as_small_as_with_the_right_map() {
    let told = Batch::real();
    store(&told);
    let wanted = object_bytes(&told);
    let list = fs::read_to_string(told.path("list.txt")).unwrap();
    let list = ids(&list);
    for turn in 0..list.len() {
        let batch = Batch::real();
        let order: Vec<_> = list[turn..].iter().chain(&list[..turn]).copied().collect();
        batch.list(&order);
        batch.bases(&json!({}));
        // Cards name the base, which is a hint.
        for id in &list {
            fs::remove_file(
                batch
                    .path("models")
                    .join(id.replace('/', "_"))
                    .join("README.md"),
            )
            .unwrap();
        }
        store(&batch);
        let stored = object_bytes(&batch);
        if turn == 0 {
            assert!(stored * 100 <= wanted * 101, "{stored} of {wanted}");
        }
        let dry = verb(&batch, "optimize", &["--dry-run", "--json"])
            .expect(0)
            .json();
        assert_eq!(object_bytes(&batch), stored);
        let report = verb(&batch, "optimize", &["--json"]).expect(0).json();
        let after = object_bytes(&batch);
        assert!(
            after * 100 <= wanted * 101,
            "turn {turn}: {after} of {wanted}"
        );
        assert_eq!(
            (&dry["changed"], &report["bytes_after"]),
            (&report["changed"], &json!(after))
        );
        assert_whole(&batch);
        // With a new root in place, some may gain once more by what it was the base of; then nothing is left.
        let runs = (0..3).map(|_| verb(&batch, "optimize", &["--json"]).expect(0).json());
        let changed: Vec<_> = runs.map(|report| report["changed"].clone()).collect();
        assert_eq!(changed[2], 0, "turn {turn}: {changed:?}");
        assert!(object_bytes(&batch) <= after, "turn {turn}");
        assert_whole(&batch);
    }
}

#[test]
fn names_do_not_matter() {
    let aligned = aligned();
    let (_, report, added) = second(&layers(7, &ALL, "renamed"));
    assert!(added * 100 <= aligned * 101, "{added} of {aligned}");
    assert_eq!(report["bases"][0]["model"], "a/base");
    assert_eq!(report["bases"][0]["why"], "content");
    assert_eq!(report["bases"][0]["tensors"], 4);
    let (_, _, every_second) = second(&layers(7, &[1, 3], "h"));
    assert!(
        every_second * 200 <= aligned * 101,
        "{every_second} of {aligned}"
    );
}

#[test]
fn added_rows_cost_what_they_are() {
    let aligned = aligned();
    let row = usize::try_from(2 * ROW).unwrap();
    for (before, after) in [(0, 7), (1, 0), (3, 4), (0, 900)] {
        let mut tensors = layers(7, &ALL, "h");
        let (_, _, shape, data) = &mut tensors[0];
        shape[0] += before + after;
        let (before, after) = (
            usize::try_from(before).unwrap(),
            usize::try_from(after).unwrap(),
        );
        let new = noise(5, row * (before + after));
        *data = [&new[..row * before], data, &new[row * before..]].concat();
        let (_, report, added) = second(&tensors);
        // Noise takes what it is long, and a name more of the new kind of base.
        let limit = aligned + aligned / 100 + new.len() as u64 + 200;
        assert!(added <= limit, "{before} {after}: {added} of {limit}");
        assert_eq!(report["bases"][0]["tensors"], 4, "{report}");
    }
}

#[test]
fn rows_in_the_middle_cost_what_they_are() {
    let aligned = aligned();
    let row = usize::try_from(2 * ROW).unwrap();
    // Rows of the first tensor: how many are kept, then inserted, then dropped, and so on.
    for changes in [
        &[(500, 7, 0)][..],
        &[(301, 1, 0), (400, 40, 0)],
        &[(600, 0, 5)],
    ] {
        let mut tensors = layers(7, &ALL, "h");
        let (_, _, shape, data) = &mut tensors[0];
        let (mut rows, mut rest, mut new) = (Vec::new(), &data[..], 0);
        for (kept, inserted, dropped) in changes {
            let (mine, later) = rest.split_at(kept * row);
            rows.extend_from_slice(mine);
            rows.extend(noise(5, inserted * row));
            new += (inserted * row) as u64;
            rest = &later[dropped * row..];
        }
        rows.extend_from_slice(rest);
        *data = rows;
        shape[0] = (data.len() / row) as u64;
        let (_, report, added) = second(&tensors);
        let limit = aligned + aligned / 100 + new + 300;
        assert!(added <= limit, "{changes:?}: {added} of {limit}");
        assert_eq!(report["bases"][0]["tensors"], 4, "{report}");
    }
}

/// `base`, BF16 in rows of `row`, with a product of rank 2 added and rounded, as merging an adapter does.
fn merged(base: &[u8], row: usize, seed: u64) -> Vec<u8> {
    let rows = base.len() / 2 / row;
    let unit = |seed: u64, count: usize| -> Vec<f32> {
        let bytes = noise(seed, count);
        bytes
            .iter()
            .map(|byte| f32::from(*byte) / 128.0 - 1.0)
            .collect()
    };
    let (left, right) = (unit(seed, 2 * rows), unit(seed + 1, 2 * row));
    let words = base.chunks_exact(2).enumerate().map(|(at, word)| {
        let product: f32 = (0..2)
            .map(|k| left[2 * (at / row) + k] * right[2 * (at % row) + k])
            .sum();
        let value = f32::from_bits(u32::from(u16::from_le_bytes([word[0], word[1]])) << 16);
        let mut out = [0; 2];
        let sum = (value + 2e-4 * product).to_le_bytes();
        convert(DType::F32, &sum, DType::Bf16, &mut out);
        out
    });
    words.flatten().collect()
}

#[test]
fn a_resized_vocabulary_keeps_its_low_rank_prediction() {
    let (rows, row) = (2048u64, 256u64);
    let base = weights(40, usize::try_from(rows * row).unwrap());
    let merged = merged(&base, usize::try_from(row).unwrap(), 41);
    let bytes = usize::try_from(2 * row).unwrap();
    let added = |before: u64, after: u64| {
        let new = noise(5, bytes * usize::try_from(before + after).unwrap());
        let (first, last) = new.split_at(bytes * usize::try_from(before).unwrap());
        let data = [first, &merged, last].concat();
        let shape = vec![rows + before + after, row];
        let batch = unhinted(&["a/base"]);
        write(
            &batch,
            "a/base",
            &[("e".into(), "BF16", vec![rows, row], base.clone())],
        );
        store(&batch);
        let stored = object_bytes(&batch);
        write(&batch, "b/second", &[("e".into(), "BF16", shape, data)]);
        batch.list(&["a/base", "b/second"]);
        store(&batch);
        assert_whole(&batch);
        // What is known of factors is used again, and all of it is proven.
        verb(&batch, "recode", &["--all"]).expect(0);
        assert_whole(&batch);
        object_bytes(&batch) - stored
    };
    let aligned = added(0, 0);
    assert!(aligned < merged.len() as u64 / 20, "{aligned}");
    for (before, after) in [(0, 7), (5, 0), (2, 7)] {
        let limit = aligned + aligned / 100 + (before + after) * bytes as u64 + 250;
        let added = added(before, after);
        assert!(added <= limit, "{before} {after}: {added} of {limit}");
    }
}

#[test]
fn other_float_types_are_known() {
    let base = layers(0, &ALL, "h");
    for (dtype, name) in [
        (DType::F32, "F32"),
        (DType::F16, "F16"),
        (DType::F8E4M3, "F8_E4M3"),
        (DType::F8E5M2, "F8_E5M2"),
    ] {
        let cast = |(tensor, _, shape, data): &(String, &str, Vec<u64>, Vec<u8>)| {
            let mut out = vec![0; COUNT * dtype.size()];
            convert(DType::Bf16, data, dtype, &mut out);
            (tensor.clone(), name, shape.clone(), out)
        };
        let cast: Vec<_> = base.iter().map(cast).collect();
        let raw: usize = cast.iter().map(|tensor| tensor.3.len()).sum();
        let (_, _, added) = second(&cast);
        assert!(added * 100 < 2 * raw as u64, "{name}: {added} of {raw}");
    }
}

/// Bytes of FP8 from BF16 that was divided by a scale a block first, which is in no tensor that is told of here.
fn scaled(base: &[u8], block: usize) -> Vec<u8> {
    let mut floats = vec![0; 2 * base.len()];
    convert(DType::Bf16, base, DType::F32, &mut floats);
    let (floats, _) = floats.as_chunks::<4>();
    let floats: Vec<f32> = floats
        .iter()
        .map(|word| f32::from_le_bytes(*word))
        .collect();
    let divide = |block: &[f32]| {
        let most = block.iter().fold(0f32, |most, one| most.max(one.abs()));
        let scale = most / 448.0;
        block.iter().map(|one| one / scale).collect::<Vec<_>>()
    };
    let divided: Vec<u8> = floats
        .chunks(block)
        .flat_map(divide)
        .flat_map(f32::to_le_bytes)
        .collect();
    let mut out = vec![0; floats.len()];
    convert(DType::F32, &divided, DType::F8E4M3, &mut out);
    out
}

#[test]
fn scaled_copies_in_8_bits_gain_from_their_origin() {
    let base = layers(0, &ALL, "h");
    for block in [COUNT, usize::try_from(ROW).unwrap()] {
        let copy: Vec<_> = base
            .iter()
            .map(|(name, _, shape, data)| {
                (name.clone(), "F8_E4M3", shape.clone(), scaled(data, block))
            })
            .collect();
        let (_, report, added) = second(&copy);
        assert_eq!(report["bases"][0]["tensors"], 4, "{report}");
        let alone = unhinted(&["b/second"]);
        write(&alone, "b/second", &copy);
        store(&alone);
        let alone = object_bytes(&alone);
        assert!(added * 10 < alone * 7, "{block}: {added} of {alone}");
    }
}

#[test]
fn strangers_are_not_paired() {
    let stranger: Vec<_> = (0..LAYERS)
        .map(|at| {
            (
                format!("h.{at}.weight"),
                "BF16",
                vec![ROWS, ROW],
                weights(900 + at as u64, COUNT),
            )
        })
        .collect();
    let (_, report, added) = second(&stranger);
    assert_eq!(report.get("bases"), None, "{report}");
    let alone = unhinted(&["b/second"]);
    write(&alone, "b/second", &stranger);
    store(&alone);
    // The header is the base's, too.
    assert!(added <= object_bytes(&alone));
}

#[test]
fn one_file_or_many_are_the_same_tensors() {
    let all = layers(0, &ALL, "h");
    let (batch, _, _) = second(&all);
    let before = object_bytes(&batch);
    for (at, tensor) in all.iter().enumerate() {
        let (name, dtype, shape, data) = tensor;
        let tensor = [(name.as_str(), *dtype, shape.as_slice(), data.as_slice())];
        batch.file(&format!("c/shards/{at}.safetensors"), safetensors(&tensor));
    }
    batch.list(&["c/shards"]);
    store(&batch);
    // Headers alone are new.
    assert!(object_bytes(&batch) < before + 4 * 300);
    assert_whole(&batch);
}

#[test]
fn hints_are_taken_where_they_are_good_and_never_harm() {
    for (place, text, why) in [
        ("README.md", "---\nbase_model: a/base\n---\n", "hint"),
        ("config.json", r#"{"_name_or_path": "a/base"}"#, "hint"),
        ("README.md", "---\nbase_model: b/second\n---\n", "name"),
        (
            "README.md",
            "---\nbase_model: nobody/nothing\n---\n",
            "name",
        ),
        ("README.md", "---\n\t: [{{{ base_model: *x\n", "name"),
        ("config.json", "{{{", "name"),
    ] {
        let batch = unhinted(&["a/base", "b/second"]);
        write(&batch, "a/base", &layers(0, &ALL, "h"));
        write(&batch, "b/second", &layers(7, &ALL, "h"));
        batch.file(&format!("b/second/{place}"), text);
        let run = batch.zipllm(&["--json"]).expect(0).silent();
        let report = run.json();
        assert_eq!(about(&report, "b/second")["bases"][0]["why"], why, "{text}");
        let manifest = batch.manifest("b--second", 1);
        assert_eq!(manifest["bases"], about(&report, "b/second")["bases"]);
        assert_whole(&batch);
    }
}

#[test]
fn a_wrong_map_costs_nothing() {
    let batch = unhinted(&["x/stranger", "a/base", "b/second"]);
    write(&batch, "a/base", &layers(0, &ALL, "h"));
    write(&batch, "b/second", &layers(7, &ALL, "h"));
    let stranger: Vec<_> = (0..LAYERS)
        .map(|at| {
            (
                format!("h.{at}.weight"),
                "BF16",
                vec![ROWS, ROW],
                weights(900 + at as u64, COUNT),
            )
        })
        .collect();
    write(&batch, "x/stranger", &stranger);
    batch.bases(&json!({"x/stranger": ["a/base", "b/second"]}));
    let report = store(&batch);
    assert_eq!(about(&report, "a/base").get("bases"), None);
    let bases = &about(&report, "b/second")["bases"];
    assert_eq!(
        (&bases[0]["model"], &bases[0]["why"]),
        (&json!("a/base"), &json!("name"))
    );
    assert_whole(&batch);
}

#[test]
fn damaged_sketches_are_reported_dropped_and_made_anew() {
    let whole = fs::read(
        second(&layers(7, &ALL, "h"))
            .0
            .path("store/sketches/sketches.log"),
    )
    .unwrap();
    assert_eq!(whole.len(), 8 * 512);
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    for (damaged, missing) in [
        (flipped(700), 1),
        (whole[..1000].to_vec(), 7),
        (noise(1, 5000), 8),
        (Vec::new(), 8),
    ] {
        let (batch, _, _) = second(&layers(7, &ALL, "h"));
        let log = batch.path("store/sketches/sketches.log");
        fs::write(&log, &damaged).unwrap();
        if !damaged.is_empty() {
            assert!(batch.check().expect(3).stdout.contains("sketches.log"));
        }
        let report = verb(&batch, "optimize", &["--json"]).expect(0).json();
        assert_eq!(report["sketches_made"], missing);
        write(&batch, "c/third", &layers(9, &ALL, "h"));
        batch.list(&["a/base", "b/second", "c/third"]);
        batch.zipllm(&[]).expect(0);
        assert_whole(&batch);
        assert_eq!(fs::read(&log).unwrap().len(), 12 * 512);
        assert_whole(&batch);
    }
}

#[test]
fn a_copy_has_its_sketches() {
    let (batch, _, _) = second(&layers(7, &ALL, "h"));
    let other = batch.path("other");
    let other = other.to_str().unwrap();
    verb(&batch, "copy", &["b/second", "--to-store", other]).expect(0);
    let log = |store: &str| fs::read(batch.path(store).join("sketches/sketches.log")).unwrap();
    assert_eq!(log("other").len(), log("store").len());
    let args = ["optimize", "--store", other, "--json"];
    let report = Run::of(Command::new(batch::ZIPLLM).args(args))
        .expect(0)
        .json();
    assert_eq!(
        (&report["sketches_made"], &report["changed"]),
        (&json!(0), &json!(0))
    );
}

#[test]
fn a_base_that_only_a_card_names_goes_first() {
    let batch = unhinted(&["b/second", "a/base"]);
    write(&batch, "a/base", &layers(0, &ALL, "h"));
    write(&batch, "b/second", &layers(7, &ALL, "h"));
    batch.file("b/second/README.md", "---\nbase_model: a/base\n---\n");
    let report = store(&batch);
    assert_eq!(report["models"][0]["model"], "a/base");
    assert_eq!(about(&report, "b/second")["bases"][0]["why"], "hint");
    assert_whole(&batch);
}

#[test]
fn an_older_sketch_is_made_anew_and_a_store_that_is_not_there_is_not_made() {
    let batch = unhinted(&["a/base"]);
    verb(&batch, "optimize", &[])
        .expect(1)
        .says(&["there is no store here"]);
    assert!(!batch.path("store").exists());
}
