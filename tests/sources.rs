//! Models from anywhere, and model files that are deleted once they are stored (`add`, `--delete-source`).
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking"
)]

#[path = "common/batch.rs"]
mod batch;
#[path = "common/kill.rs"]
mod kill;
#[path = "common/tensors.rs"]
mod tensors;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use batch::{Batch, ZIPLLM, assert_same, names, tree};
use serde_json::json;
use tensors::{noise, safetensors, tuned, weights};

const IDS: [&str; 2] = ["lab/base", "lab/tune"];

fn family() -> Batch {
    let batch = Batch::new(&IDS);
    let base = weights(1, 5000);
    for (id, values) in [(IDS[0], base.clone()), (IDS[1], tuned(&base, 2))] {
        let file = safetensors(&[("w", "BF16", &[50, 100], &values)]);
        batch.file(&format!("{id}/sub/model.safetensors"), file);
        batch.file(&format!("{id}/empty.txt"), "");
        fs::create_dir(batch.path("models").join(id).join("nothing")).unwrap();
    }
    batch
}

#[test]
fn a_model_is_added_from_anywhere() {
    let batch = family();
    batch.bases(&json!({"lab/base": ["lab/other"]}));
    batch.zipllm(&[]).expect(0);
    let elsewhere = batch.path("elsewhere");
    let file = safetensors(&[("w", "BF16", &[50, 100], &tuned(&weights(1, 5000), 7))]);
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("model.safetensors"), file).unwrap();
    let path = elsewhere.to_str().unwrap();
    for (args, base) in [
        (&["--as", "lab/plain"][..], None),
        (
            &["--as", "lab/given", "--base", "lab/tune"],
            Some("lab/tune"),
        ),
        (&["--as", "lab/other"], Some("lab/base")),
    ] {
        let report = batch.report("add", &[&[path], args].concat());
        assert_eq!(report["models"][0]["status"], "stored");
        batch.assert_restores(args[1], &tree(&elsewhere));
        let detail = batch.report("list", &[args[1]]);
        assert_eq!(
            detail.get("base").and_then(|base| base.as_str()),
            base,
            "{args:?}"
        );
    }
    let again = batch.report("add", &[path, "--as", "lab/plain"]);
    assert_eq!(again["models"][0]["status"], "already_stored");
    fs::write(elsewhere.join("more"), "more").unwrap();
    let again = batch.report("add", &[path, "--as", "lab/plain"]);
    assert_eq!(again["models"][0]["version"], 2);
    batch.verb("add", &[path]).expect(2);
    batch
        .verb("add", &["/nowhere/at/all", "--as", "a/b"])
        .expect(1)
        .says(&["/nowhere/at/all"]);
    batch.verb("add", &[path, "--as", "../x"]).expect(2);
    batch
        .verb("add", &[path, "--as", "lab/x", "--base", "lab/bas"])
        .expect(1)
        .says(&["lab/bas", "did you mean lab/base?"]);
    batch
        .verb("add", &[path, "--as", "LAB/plain"])
        .expect(1)
        .says(&["only in case"]);
    batch.assert_clean();
}

/// What is no model is refused before anything is written.
#[test]
fn what_is_no_model_is_not_added() {
    let batch = family();
    batch.zipllm(&[]).expect(0);
    let cache = batch.path("hub");
    for folder in ["models--a--b", "models--c--d"] {
        for part in ["snapshots/1", "blobs", "refs"] {
            fs::create_dir_all(cache.join(folder).join(part)).unwrap();
        }
        fs::write(cache.join(folder).join("snapshots/1/config.json"), folder).unwrap();
    }
    fs::create_dir_all(batch.path("empty/nested")).unwrap();
    let before = batch.stored();
    for (place, said) in [
        ("hub", "a cache of 2 models"),
        ("empty", "there are no files"),
        ("store", "is the store, or in it"),
        ("store/objects", "is the store, or in it"),
        ("", "holds the store"),
    ] {
        let path = batch.path(place);
        batch
            .verb("add", &[path.to_str().unwrap(), "--as", "a/b"])
            .expect(2)
            .says(&[said]);
    }
    assert_same(&before, &batch.stored(), "after refusals");
    let one = batch.path("hub/models--a--b");
    batch
        .verb("add", &[one.to_str().unwrap(), "--as", "a/b"])
        .expect(0)
        .silent();
    // An empty directory of a stored model may be a disk that is not mounted; after --delete-source it is none.
    let empty = batch.path("empty");
    let args = [empty.to_str().unwrap(), "--as", "a/b"];
    let said = ["empty: nothing is there; version 1 is stored"];
    let run = batch.verb("add", &args).expect(0).says(&said);
    assert!(
        run.stdout.contains("already stored      1"),
        "{}",
        run.stdout
    );
    let args = [&args[..], &["--delete-source"]].concat();
    batch.verb("add", &args).expect(0).silent();
}

#[test]
fn sources_go_only_when_they_are_stored() {
    let batch = family();
    let originals = IDS.map(|id| tree(&batch.path("models").join(id)));
    let report = batch
        .zipllm(&["--delete-source", "--json"])
        .expect(0)
        .json();
    assert_eq!(report["deleted"][0]["files"], 2);
    assert_eq!(names(&batch.path("models/lab")), [""; 0]);
    batch.assert_clean();
    for (id, original) in IDS.iter().zip(&originals) {
        batch.assert_restores(id, original);
    }
    // The models are stored, and that is fine.
    let again = batch
        .zipllm(&["--delete-source", "--json"])
        .expect(0)
        .json();
    assert_eq!(
        (&again["models"][0]["status"], &again["deleted"]),
        (&json!("already_stored"), &json!([]))
    );
    batch.zipllm(&[]).expect(0).silent();
}

#[test]
fn nothing_is_deleted_that_the_store_does_not_give_back() {
    let batch = family();
    batch.zipllm(&[]).expect(0);
    let before = tree(&batch.path("models"));
    // Damage that only reading finds.
    let detail = batch.report("list", &["lab/base"]);
    let name = detail["files"][1]["segments"][1]["object"]
        .as_str()
        .unwrap()
        .to_owned();
    let object = batch.path("store/objects").join(&name[..2]).join(&name);
    let whole = fs::read(&object).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    fs::write(&object, damaged).unwrap();
    std::thread::sleep(Duration::from_millis(10));
    batch
        .zipllm(&["--delete-source"])
        .expect(3)
        .says(&["its files are not deleted", &name]);
    batch::assert_same(&before, &tree(&batch.path("models")), "after damage");
    fs::write(&object, whole).unwrap();
    // A model that is a link leads elsewhere.
    fs::rename(batch.path("models/lab/tune"), batch.path("kept")).unwrap();
    symlink(batch.path("kept"), batch.path("models/lab/tune")).unwrap();
    batch
        .zipllm(&["--delete-source"])
        .expect(1)
        .says(&["a link", "lab/tune"]);
    assert!(batch.path("kept/sub/model.safetensors").exists());
    assert_eq!(names(&batch.path("models/lab")), ["tune"]);
}

/// A kill leaves some of the files; the next run deletes the rest, but never what is not stored.
#[test]
fn a_deletion_that_was_stopped_goes_on() {
    let batch = family();
    batch.zipllm(&[]).expect(0);
    fs::remove_file(batch.path("models/lab/base/empty.txt")).unwrap();
    batch.zipllm(&[]).expect(1).says(&["--accept-missing"]);
    let odd = batch.file("lab/tune/extra.txt", "not stored");
    fs::remove_file(batch.path("models/lab/tune/empty.txt")).unwrap();
    batch
        .zipllm(&["--delete-source"])
        .expect(1)
        .says(&["--accept-missing"]);
    assert_eq!(names(&batch.path("models/lab")), ["tune"]);
    fs::remove_file(odd).unwrap();
    batch.zipllm(&["--delete-source"]).expect(0);
    assert_eq!(names(&batch.path("models/lab")), [""; 0]);
    batch.assert_clean();
}

#[test]
fn no_kill_loses_what_is_deleted() {
    let kills = kill::number("ZIPLLM_KILLS", 20);
    let mut killed = kill::DeletionKills::default();
    while killed.are_due(kills) {
        let batch = Batch::in_memory(&["lab/a"]);
        for file in 0..600 {
            batch.file(&format!("lab/a/{file:03}.bin"), noise(file, 100));
        }
        let directory = batch.path("models/lab/a");
        let original = tree(&directory);
        batch.zipllm(&[]).expect(0);
        let mut program = Command::new(ZIPLLM);
        let command = program
            .arg(batch.path("config.json"))
            .arg("--delete-source");
        killed.next(
            command,
            &directory.join("000.bin"),
            &directory.join("599.bin"),
        );
        batch.assert_restores("lab/a", &original);
        batch.zipllm(&["--delete-source"]).expect(0);
        assert!(!directory.exists());
        batch.assert_restores("lab/a", &original);
    }
    killed.assert_hits(kills);
}

/// Links inside a model's directory are files of the model, and go like them.
#[test]
fn links_go_with_what_they_lead_to() {
    let batch = Batch::new(&["lab/a"]);
    for (place, link, target) in [
        ("b.bin", "z.bin", "b.bin"),
        ("sub/c.bin", "a.bin", "sub/c.bin"),
    ] {
        let path = batch.file(&format!("lab/a/{place}"), noise(1, 100));
        symlink(target, batch.path("models/lab/a").join(link)).unwrap();
        assert!(path.exists());
    }
    let original = tree(&batch.path("models/lab/a"));
    let report = batch.zipllm(&["--delete-source", "--json"]).expect(0);
    assert_eq!(report.json()["deleted"][0]["files"], 4);
    assert_eq!(names(&batch.path("models/lab")), [""; 0]);
    batch.assert_restores("lab/a", &original);
}

/// A cache with two snapshots that share a file.
fn cache(batch: &Batch) {
    let cache = batch.path("models/models--lab--cached");
    for (blob, text) in [("b1", "shared"), ("b2", "old"), ("b3", "new")] {
        batch.file(&format!("models--lab--cached/blobs/{blob}"), text);
    }
    for (revision, blobs) in [
        ("aaa", [("x", "b1"), ("y", "b2")]),
        ("bbb", [("x", "b1"), ("y", "b3")]),
    ] {
        let snapshot = cache.join("snapshots").join(revision);
        fs::create_dir_all(&snapshot).unwrap();
        for (name, blob) in blobs {
            symlink(Path::new("../../blobs").join(blob), snapshot.join(name)).unwrap();
        }
    }
    fs::create_dir(cache.join("refs")).unwrap();
    fs::write(cache.join("refs/main"), "bbb").unwrap();
}

#[test]
fn in_a_cache_only_what_no_other_snapshot_has_is_deleted() {
    let batch = Batch::new(&["lab/cached"]);
    cache(&batch);
    let folder = batch.path("models/models--lab--cached");
    let original = tree(&folder.join("snapshots/bbb"));
    let old = tree(&folder.join("snapshots/aaa"));
    batch.zipllm(&["--delete-source"]).expect(0);
    assert_eq!(names(&folder.join("blobs")), ["b1", "b2"]);
    assert_eq!(tree(&folder.join("snapshots/aaa")), old);
    assert_eq!(batch.report("list", &["lab/cached"])["commit"], "bbb");
    batch.assert_restores("lab/cached", &original);
    batch.zipllm(&[]).expect(0).silent();
    // The other snapshot, given by its path, goes with the rest of the cache's folder.
    let snapshot = folder.join("snapshots/aaa");
    let args = [
        snapshot.to_str().unwrap(),
        "--as",
        "lab/old",
        "--delete-source",
    ];
    let report = batch.report("add", &args);
    assert_eq!(report["deleted"][0]["files"], 2);
    assert_eq!(batch.report("list", &["lab/old"])["commit"], "aaa");
    assert_eq!(names(&folder.join("blobs")), [""; 0]);
    batch.assert_restores("lab/old", &old);
    batch.assert_restores("lab/cached", &original);
    batch.zipllm(&["--delete-source"]).expect(0);
    batch.assert_clean();
}
