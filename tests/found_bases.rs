//! What went wrong in published searches for bases, and what bad input may not do: no tensor is larger for its base,
//! nothing hangs on what was said first, the same comes out again, and hints that are broken are no more than that.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking"
)]

#[path = "common/batch.rs"]
mod batch;
#[path = "common/tensors.rs"]
mod tensors;

use std::collections::BTreeMap;
use std::fs;

use batch::{Batch, Entry, about, tree};
use serde_json::{Value, json};
use tensors::{Tensor, noise, safetensors, tuned, weights};
use zipllm::store::Store;

const ROW: u64 = 64;
const ROWS: u64 = 1024;
/// Elements of a tensor.
const COUNT: usize = 65_536;

fn write(batch: &Batch, model: &str, tensors: &[Vec<u8>]) {
    let names: Vec<_> = (0..tensors.len())
        .map(|at| format!("h.{at}.weight"))
        .collect();
    let shape = [ROWS, ROW];
    let tensors: Vec<Tensor<'_>> = names
        .iter()
        .zip(tensors)
        .map(|(name, data)| (name.as_str(), "BF16", shape.as_slice(), data.as_slice()))
        .collect();
    batch.file(&format!("{model}/model.safetensors"), safetensors(&tensors));
}

/// A batch without a base map.
fn unhinted(ids: &[&str]) -> Batch {
    let batch = Batch::new(ids);
    batch.bases(&json!({}));
    batch
}

fn store(batch: &Batch) -> Value {
    batch.zipllm(&["--json"]).expect(0).json()
}

fn object_bytes(batch: &Batch) -> u64 {
    let length = |entry: &Entry| match entry {
        Entry::File { length, .. } => *length,
        Entry::Directory => 0,
    };
    tree(&batch.path("store/objects"))
        .values()
        .map(length)
        .sum()
}

/// Stored bytes of each object, and its depth.
fn objects(batch: &Batch) -> BTreeMap<String, (u64, u8)> {
    let store = Store::open(&batch.path("store")).unwrap();
    let index = store.index().unwrap();
    let entry = |(name, record): (&zipllm::hash::Hash, &zipllm::store::index::Record)| {
        (name.to_string(), (record.stored_len, record.depth))
    };
    index.iter().map(entry).collect()
}

/// `weights` with a change to some of the elements: `share` in 256 get other low bits, and those of `far` another value.
fn mixed(base: &[u8], share: u8, far: u8, seed: u64) -> Vec<u8> {
    let (near, other) = (tuned(base, seed), weights(seed + 1, base.len() / 2));
    let dice = noise(seed + 2, base.len() / 2);
    let pick = |(at, dice): (usize, &u8)| {
        let word = 2 * at..2 * at + 2;
        if *dice < far {
            other[word].to_vec()
        } else if *dice < far.saturating_add(share) {
            near[word].to_vec()
        } else {
            base[word].to_vec()
        }
    };
    dice.iter().enumerate().flat_map(pick).collect()
}

/// From nearly equal to hardly related: what a base gains falls to nothing, and never below.
#[test]
fn no_tensor_is_larger_than_alone_or_raw_however_far_its_base_is() {
    let base = weights(1, COUNT);
    let levels: [(u8, u8); 9] = [
        (3, 0),
        (60, 0),
        (255, 0),
        (200, 30),
        (150, 90),
        (100, 140),
        (50, 200),
        (10, 240),
        (0, 255),
    ];
    let mut sizes = Vec::new();
    for (share, far) in levels {
        let tensor = mixed(&base, share, far, 50 + u64::from(far));
        let batch = unhinted(&["a/base", "b/second"]);
        write(&batch, "a/base", std::slice::from_ref(&base));
        write(&batch, "b/second", std::slice::from_ref(&tensor));
        // What people say is believed no more than what is measured.
        batch.bases(&json!({"a/base": ["b/second"]}));
        store(&batch);
        batch.assert_clean();
        let name = zipllm::hash::Hash::of(&tensor).to_string();
        let (with, depth) = objects(&batch)[&name];
        let alone = unhinted(&["b/second"]);
        write(&alone, "b/second", std::slice::from_ref(&tensor));
        store(&alone);
        let (without, _) = objects(&alone)[&name];
        assert!(with <= without, "{share} {far}: {with} of {without}");
        assert!(with <= 2 * COUNT as u64 + 176, "{share} {far}");
        assert!(depth == 1 || with == without, "{share} {far}");
        sizes.push(with);
    }
    // But for noise of a part in 100: they are other elements each time.
    assert!(
        sizes.is_sorted_by(|one, next| *one <= next + next / 100),
        "{sizes:?}"
    );
    assert!(sizes[0] * 10 < sizes[8], "{sizes:?}");
    // An eighth of the elements are strangers: the others gain all the same.
    assert!(sizes[3] * 3 < sizes[8] * 2, "{sizes:?}");
}

/// A fine-tune of a fine-tune is near to both; whichever came first, none is out of reach for those after it.
#[test]
fn a_base_that_is_a_difference_serves_and_depth_is_bounded() {
    let base = weights(1, COUNT);
    let mut models = vec![("m/0".to_owned(), base.clone())];
    for at in 1..8 {
        let last = &models[at - 1].1;
        // Each changes some elements more, so that the one before is the nearest by far.
        models.push((format!("m/{at}"), mixed(last, 20, 0, 1000 * at as u64)));
    }
    let ids: Vec<_> = models.iter().map(|(id, _)| id.as_str()).collect();
    let mut totals = Vec::new();
    for turn in [0, 3, 7] {
        let order: Vec<_> = ids[turn..].iter().chain(&ids[..turn]).copied().collect();
        let batch = unhinted(&order);
        for (id, data) in &models {
            write(&batch, id, std::slice::from_ref(data));
        }
        store(&batch);
        let depths: Vec<_> = objects(&batch).values().map(|(_, depth)| *depth).collect();
        assert!(depths.iter().all(|depth| *depth <= 2), "{depths:?}");
        assert_eq!(
            depths.iter().filter(|depth| **depth > 0).count(),
            7,
            "{depths:?}"
        );
        batch.report("optimize", &[]);
        batch.assert_clean();
        totals.push(object_bytes(&batch));
    }
    let (least, most) = (totals.iter().min().unwrap(), totals.iter().max().unwrap());
    // Published: 15 % from one order to another.
    assert!(most * 100 <= least * 105, "{totals:?}");
}

#[test]
fn the_same_input_gives_the_same_store_whatever_the_threads() {
    let stored = |threads: &str| {
        let batch = unhinted(&["a/base", "b/second", "c/third", "d/other"]);
        let base: Vec<_> = (0..3).map(|seed| weights(seed, COUNT)).collect();
        let change = |seed: u64| base.iter().map(|one| tuned(one, seed)).collect::<Vec<_>>();
        write(&batch, "a/base", &base);
        write(&batch, "b/second", &change(7));
        write(&batch, "c/third", &change(8));
        write(&batch, "d/other", &[weights(90, COUNT), base[1].clone()]);
        let report = batch
            .zipllm(&["--json", "--threads", threads])
            .expect(0)
            .json();
        let bases: Vec<_> = report["models"]
            .as_array()
            .unwrap()
            .iter()
            .map(|model| model["bases"].clone())
            .collect();
        (tree(&batch.path("store/objects")), bases)
    };
    let one = stored("1");
    assert!(one == stored("1") && one == stored("3"));
}

/// Maps and cards that are wrong, broken or huge: the same objects, and a warning at most.
#[test]
fn broken_hints_change_nothing_but_warnings() {
    let base: Vec<_> = (0..2).map(|seed| weights(seed, COUNT)).collect();
    let second: Vec<_> = base.iter().map(|one| tuned(one, 7)).collect();
    let fresh = || {
        let batch = unhinted(&["a/base", "b/second"]);
        write(&batch, "a/base", &base);
        write(&batch, "b/second", &second);
        batch
    };
    let plain = fresh();
    store(&plain);
    let wanted = objects(&plain);
    let whole = |batch: &Batch, what: &str| {
        let report = store(batch);
        let found = objects(batch);
        for (name, object) in &wanted {
            assert_eq!(found.get(name), Some(object), "{what}");
        }
        assert_eq!(
            about(&report, "b/second")["bases"][0]["model"],
            "a/base",
            "{what}"
        );
        batch.assert_clean();
        for model in ["a/base", "b/second"] {
            batch.assert_restores(model, &tree(&batch.path("models").join(model)));
        }
        report
    };
    let huge = format!("---\nbase_model:\n{}", "- x/y\n".repeat(4 << 20));
    let deep = format!("---\nbase_model: {}\n---\n", "[".repeat(2 << 20));
    let anchors = format!(
        "---\na: &a [x]\n{}base_model: *a\n---\n",
        "b: [*a, *a, *a]\n".repeat(2000)
    );
    for (what, card) in [
        ("huge", huge.as_bytes()),
        ("deep", deep.as_bytes()),
        ("anchors", anchors.as_bytes()),
        ("no text", &noise(3, 100_000)),
        ("names itself", b"---\nbase_model: b/second\n---\n"),
        ("a path", b"---\nbase_model: ../../../etc/passwd\n---\n"),
        ("empty", b""),
    ] {
        let batch = fresh();
        batch.file("b/second/README.md", card);
        batch.file("b/second/config.json", card);
        // Each other's base, by their cards.
        batch.file("a/base/README.md", "---\nbase_model: b/second\n---\n");
        if what == "huge" {
            fs::remove_file(batch.path("models/a/base/README.md")).unwrap();
        }
        let report = store(&batch);
        assert_eq!(
            report["warnings"].as_array().map_or(0, Vec::len),
            0,
            "{what}"
        );
        batch.assert_clean();
        for model in ["a/base", "b/second"] {
            batch.assert_restores(model, &tree(&batch.path("models").join(model)));
        }
    }
    for (map, warned) in [
        (
            json!({"a/base": ["b/second"], "b/second": ["a/base"]}),
            "circle",
        ),
        (json!({"a/base": ["a/base", "b/second"]}), "a/base"),
    ] {
        let batch = fresh();
        batch.bases(&map);
        let report = whole(&batch, warned);
        let warnings = report["warnings"].to_string();
        assert!(warnings.contains(warned), "{warnings}");
    }
    // A base that nobody has, and isn't listed.
    let batch = fresh();
    batch.bases(&json!({"no/body": ["b/second"]}));
    batch.zipllm(&[]).expect(0);
    batch.assert_clean();
}

#[test]
fn a_tree_shows_what_is_kept_as_what() {
    // The base comes after its fine-tune by name: what they have in common is its own all the same.
    let batch = unhinted(&["m/base", "b/second", "z/copy", "d/stranger"]);
    let base: Vec<_> = (0..4).map(|seed| weights(seed, COUNT)).collect();
    let mut second = base.clone();
    second[0] = tuned(&base[0], 7);
    write(&batch, "m/base", &base);
    write(&batch, "b/second", &second);
    write(&batch, "z/copy", &base);
    write(&batch, "d/stranger", &[weights(90, COUNT)]);
    store(&batch);
    let report = batch.report("family", &[]);
    let of = |model: &str| about(&report, model).clone();
    assert_eq!(of("b/second")["parent"], "m/base");
    assert_eq!(
        of("b/second")["bases"],
        json!([{"model": "m/base", "tensors": 1, "bytes": 2 * COUNT, "why": "name"}])
    );
    for root in ["m/base", "d/stranger"] {
        assert_eq!(of(root).get("parent"), None, "{report:#}");
    }
    assert_eq!(of("b/second")["equal"][0]["tensors"], 3);
    assert_eq!(
        (of("z/copy").get("bases"), &of("z/copy")["parent"]),
        (None, &json!("m/base"))
    );
    assert_eq!(of("z/copy")["stored_bytes"], 0);
    let sum: u64 = ["m/base", "b/second", "z/copy", "d/stranger"]
        .map(|model| of(model)["stored_bytes"].as_u64().unwrap())
        .iter()
        .sum();
    // All but the headers of files.
    assert!(sum < object_bytes(&batch) && object_bytes(&batch) < sum + 4000);
    let text = batch.verb("family", &[]).expect(0).stdout;
    let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap();
    assert!(
        line("    b/second").contains("as differences to m/base (by name)"),
        "{text}"
    );
    assert!(line("d/stranger").ends_with(": on its own"), "{text}");
    assert!(
        text.find("m/base").unwrap() < text.find("    b/second").unwrap(),
        "{text}"
    );
}
