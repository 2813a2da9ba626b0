//! Models that change, shrink or go; stores and objects of a newer format.
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
use std::path::Path;

use batch::{Batch, Tree, about, assert_same, names, set_executable, tree};
use serde_json::{Value, json};
use tensors::{safetensors, tuned, weights};
use zipllm::store::object::KNOWN_FEATURES;

const MODEL: &str = "lab/tune";

fn family() -> Batch {
    let batch = Batch::new(&["lab/base", MODEL]);
    let base = weights(1, 5000);
    for (model, values) in [("base", base.clone()), ("tune", tuned(&base, 2))] {
        let file = safetensors(&[("w", "BF16", &[50, 100], &values)]);
        batch.file(&format!("lab/{model}/model.safetensors"), file);
        batch.file(&format!("lab/{model}/card.md"), model);
    }
    batch
}

fn model(batch: &Batch) -> Tree {
    tree(&batch.path("models").join(MODEL))
}

/// Runs `zipllm` and returns status and version of the model.
#[track_caller]
fn store(batch: &Batch) -> (String, u64) {
    let report = batch.zipllm(&["--json"]).expect(0).json();
    let model = about(&report, MODEL);
    (
        model["status"].as_str().unwrap().to_owned(),
        model["version"].as_u64().unwrap(),
    )
}

/// Whatever changes, the model becomes a new version, and the old one stays.
#[test]
fn a_change_on_disk_is_a_new_version() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 9] = [
        ("another content", |dir| {
            fs::write(dir.join("card.md"), "TUNE").unwrap();
        }),
        ("one bit", |dir| {
            let path = dir.join("model.safetensors");
            let mut bytes = fs::read(&path).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            fs::write(path, bytes).unwrap();
        }),
        ("a longer file", |dir| {
            fs::write(dir.join("card.md"), "tune and more").unwrap();
        }),
        ("a new file", |dir| fs::write(dir.join("new"), "").unwrap()),
        ("an execute bit", |dir| {
            set_executable(&dir.join("card.md"), true);
        }),
        ("a new empty directory", |dir| {
            fs::create_dir(dir.join("empty")).unwrap();
        }),
        ("an empty file", |dir| {
            fs::write(dir.join("card.md"), "").unwrap();
        }),
        ("a truncated file", |dir| {
            let file = fs::File::options()
                .write(true)
                .open(dir.join("model.safetensors"));
            file.unwrap().set_len(3000).unwrap();
        }),
        ("another file of the same length and times", |dir| {
            let path = dir.join("card.md");
            let times = fs::metadata(&path).unwrap().modified().unwrap();
            fs::write(&path, "enut").unwrap();
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_modified(times).unwrap();
        }),
    ];
    for (what, change) in changes {
        let batch = family();
        let first = model(&batch);
        assert_eq!(store(&batch), ("stored".into(), 1), "{what}");
        change(&batch.path("models").join(MODEL));
        let second = model(&batch);
        assert_ne!(first, second, "{what}");
        assert_eq!(store(&batch), ("stored".into(), 2), "{what}");
        assert_eq!(store(&batch), ("already_stored".into(), 2), "{what}");
        batch.assert_clean();
        batch.assert_restores("lab/tune@1", &first);
        batch.assert_restores("lab/tune@2", &second);
        batch.assert_restores("lab/tune", &second);
    }
}

/// A download that was cut short is stored as it is; the whole file later becomes a version of its own.
#[test]
fn a_truncated_file_is_later_replaced_by_a_whole_one() {
    let batch = family();
    let path = batch.path("models/lab/tune/model.safetensors");
    let (whole_tree, whole) = (model(&batch), fs::read(&path).unwrap());
    for (version, length) in [0, 1, 8, 60, whole.len() / 2, whole.len() - 1]
        .iter()
        .enumerate()
    {
        fs::write(&path, &whole[..*length]).unwrap();
        let cut = model(&batch);
        assert_eq!(store(&batch), ("stored".into(), version as u64 + 1));
        batch.assert_restores(MODEL, &cut);
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(store(&batch), ("stored".into(), 7));
    batch.assert_clean();
    batch.assert_restores(MODEL, &whole_tree);
    // The whole tensors are encoded against the base's.
    let report = batch.check().expect(0).json();
    assert_eq!(report["versions"], 8);
}

#[test]
fn lost_files_have_to_be_accepted() {
    let batch = family();
    let whole = model(&batch);
    store(&batch);
    fs::remove_file(batch.path("models/lab/tune/card.md")).unwrap();
    let stored = batch.stored();
    batch.zipllm(&[]).expect(1).says(&[
        "lab/tune",
        "the stored version 1 has card.md, which the directory lacks now",
        "--accept-missing",
    ]);
    assert_same(&stored, &batch.stored(), "refused");
    batch.assert_restores(MODEL, &whole);

    let report = batch
        .zipllm(&["--accept-missing", "--json"])
        .expect(0)
        .json();
    assert_eq!(about(&report, MODEL)["version"], 2);
    batch.assert_restores(MODEL, &model(&batch));
    batch.assert_restores("lab/tune@1", &whole);
    assert_eq!(store(&batch), ("already_stored".into(), 2));
}

#[test]
fn a_model_that_is_gone_from_disk_is_already_stored() {
    let batch = family();
    let whole = model(&batch);
    store(&batch);
    let stored = batch.stored();
    fs::remove_dir_all(batch.path("models/lab")).unwrap();
    assert_eq!(store(&batch), ("already_stored".into(), 1));
    assert_same(&stored, &batch.stored(), "gone from disk");
    batch.assert_restores(MODEL, &whole);
}

/// What a base becomes later is no concern of the fine-tunes that were encoded against it.
#[test]
fn a_base_that_changes_leaves_its_fine_tunes_whole() {
    let batch = family();
    let whole = model(&batch);
    store(&batch);
    let other = safetensors(&[("w", "BF16", &[50, 100], &weights(77, 5000))]);
    batch.file("lab/base/model.safetensors", other);
    let report = batch.zipllm(&["--json"]).expect(0).json();
    assert_eq!(about(&report, "lab/base")["version"], 2);
    assert_eq!(about(&report, MODEL)["status"], "already_stored");
    batch.assert_clean();
    batch.assert_restores(MODEL, &whole);
}

/// Rewrites a sealed document with a change, its checksum made right again.
fn reseal(path: &Path, change: impl FnOnce(&mut Value)) {
    let text = fs::read_to_string(path).unwrap();
    let (body, _) = text.rsplit_once(",\"checksum\":").unwrap();
    let mut document: Value = serde_json::from_str(&format!("{body}}}")).unwrap();
    change(&mut document);
    let body = document.to_string();
    let body = body.strip_suffix('}').unwrap();
    let checksum = blake3::hash(body.as_bytes());
    fs::write(path, format!("{body},\"checksum\":\"{checksum}\"}}\n")).unwrap();
}

#[test]
fn stores_of_a_newer_format_are_refused_by_name() {
    for (change, said) in [
        (json!({"format": 2}), "store format 2"),
        (
            json!({"required_features": ["warp"]}),
            "store feature \"warp\"",
        ),
    ] {
        let batch = family();
        store(&batch);
        let marker = batch.path("store/zipllm.json");
        reseal(&marker, |document| {
            for (key, value) in change.as_object().unwrap() {
                document[key] = value.clone();
            }
        });
        let before = batch.stored();
        for run in [
            batch.zipllm(&[]),
            batch.check(),
            batch.restore(MODEL, "out", &[]),
        ] {
            run.expect(1)
                .says(&["store/zipllm.json", said, "a newer zipllm wrote it"]);
        }
        assert_same(&before, &batch.stored(), said);
        assert!(!batch.path("out").exists());
    }
    // What a reader may ignore, it ignores.
    let batch = family();
    store(&batch);
    reseal(&batch.path("store/zipllm.json"), |document| {
        document["optional_features"] = json!(["sparkle"]);
    });
    batch.assert_restores(MODEL, &model(&batch));
}

#[test]
fn a_manifest_of_a_newer_format_is_refused_and_the_others_are_read() {
    let batch = family();
    store(&batch);
    let path = batch.path("store/models/lab--tune/000001.json");
    // A newer format may well have members that this one does not know.
    for change in [json!({"format": 2}), json!({"format": 2, "aliases": ["x"]})] {
        reseal(&path, |document| {
            for (key, value) in change.as_object().unwrap() {
                document[key] = value.clone();
            }
        });
        let said = [
            "000001.json",
            "manifest format 2",
            "a newer zipllm wrote it",
        ];
        batch.restore(MODEL, "out", &[]).expect(1).says(&said);
        assert_eq!(names(&batch.path("out")), [""; 0]);
        batch.zipllm(&[]).expect(1).says(&said);
        batch.assert_restores("lab/base", &tree(&batch.path("models/lab/base")));
        let report = batch.check().json();
        assert!(
            report["damage"].to_string().contains("manifest format 2"),
            "{report:#}"
        );
    }
    assert_eq!(
        names(&batch.path("store/models/lab--tune")),
        ["000001.json"]
    );
}

/// Changes bytes of an object's head and makes its seal right again, as a newer program would.
fn forge_object(batch: &Batch, object: &str, at: usize, value: u8) {
    let path = batch.path(format!("store/objects/{}/{object}", &object[..2]));
    let mut bytes = fs::read(&path).unwrap();
    bytes[at] = value;
    let name: Vec<u8> = (0..32)
        .map(|byte| u8::from_str_radix(&object[2 * byte..2 * byte + 2], 16).unwrap())
        .collect();
    // Objects of one chunk: 12 bytes of table, 8 of seal.
    let head = 36 + 60 * usize::from(bytes[9]);
    let (table, seal) = (bytes.len() - 20, bytes.len() - 8);
    let sealed = [&name[..], &bytes[..head], &bytes[table..seal]].concat();
    let checksum = blake3::hash(&sealed);
    bytes[seal..].copy_from_slice(&checksum.as_bytes()[..8]);
    fs::write(path, bytes).unwrap();
}

#[test]
fn objects_of_a_newer_format_are_refused_by_name() {
    let next = u8::try_from(KNOWN_FEATURES + 1).unwrap();
    for (at, value, said) in [
        (4, 2, "version 2"),
        (10, next, "feature"),
        (11, 0x80, "feature"),
    ] {
        let batch = family();
        store(&batch);
        let manifest = batch.manifest("lab--tune", 1);
        let object = manifest["files"][1]["segments"][1]["object"]
            .as_str()
            .unwrap();
        forge_object(&batch, object, at, value);
        batch
            .restore(MODEL, "out", &[])
            .expect(1)
            .says(&[object, said, "a newer zipllm wrote it"]);
        assert_eq!(names(&batch.path("out")), ["card.md"], "{said}");
        batch.assert_restores("lab/base", &tree(&batch.path("models/lab/base")));
        let report = batch.check().json();
        assert!(report["damage"].to_string().contains(said), "{report:#}");
        let before = batch.stored();
        batch.file("lab/tune/card.md", "other");
        batch.zipllm(&[]).expect(1).says(&[object, said]);
        assert_same(
            &before,
            &batch.stored(),
            "nothing that is newer is replaced",
        );
    }
    // Optional bits are for whoever knows them.
    let batch = family();
    store(&batch);
    let manifest = batch.manifest("lab--tune", 1);
    let object = manifest["files"][1]["segments"][1]["object"]
        .as_str()
        .unwrap();
    forge_object(&batch, object, 13, 0x80);
    batch.assert_restores(MODEL, &model(&batch));
}
