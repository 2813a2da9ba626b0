//! Which directories are models, and what is in them: ids, links, caches, names and what is no file.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking"
)]

#[path = "common/batch.rs"]
mod batch;
#[path = "common/lab.rs"]
mod lab;
#[path = "common/tensors.rs"]
mod tensors;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use batch::{Batch, Entry, Run, names, tree};
use lab::{family, model};
use tensors::safetensors;

#[test]
fn ids_that_cannot_be_told_apart_fail() {
    // Two ids for one directory.
    let batch = Batch::new(&["a/b_c", "a_b/c", "other"]);
    batch.file("a_b_c/f.txt", "x");
    batch.file("other/f.txt", "y");
    batch.zipllm(&[]).expect(1).says(&[
        "a/b_c",
        "a_b/c",
        "it has the same directory as",
        "list one of them",
    ]);
    assert_eq!(names(&batch.path("store/models")), ["other"]);

    // Two that differ only in case, in one list and in two.
    let batch = Batch::new(&["Lab/A", "lab/a"]);
    batch.file("Lab/A/f.txt", "x");
    batch.file("lab/a/f.txt", "y");
    batch
        .zipllm(&[])
        .expect(1)
        .says(&["differs only in case from"]);
    assert_eq!(names(&batch.path("store/models")), [""; 0]);
    batch.list(&["Lab/A"]);
    batch.zipllm(&[]).expect(0);
    batch.list(&["lab/a"]);
    batch
        .zipllm(&[])
        .expect(1)
        .says(&["it differs only in case from Lab/A, which is in the store"]);
    assert_eq!(names(&batch.path("store/models")), ["Lab--A"]);

    // A repeated line is only a warning.
    batch.list(&["Lab/A", "Lab/A"]);
    batch.zipllm(&[]).expect(0).says(&["is already on line 1"]);
}

#[test]
fn links_inside_are_followed_and_links_outside_fail_the_model() {
    let batch = family();
    let tune = batch.path("models/lab/tune");
    symlink("sub/card.md", tune.join("inside.md")).unwrap();
    symlink("sub", tune.join("linked")).unwrap();
    let expected = model(&batch, "lab/tune");
    assert!(matches!(
        expected[Path::new("linked/card.md")],
        Entry::File { .. }
    ));
    batch.zipllm(&[]).expect(0).silent();
    batch.assert_restores("lab/tune", &expected);

    for (target, said) in [
        ("../../../secret", "leads out of"),
        ("/etc/hostname", "leads out of"),
        ("../base/model.safetensors", "leads out of"),
        ("nowhere", "which is not there"),
        ("outside", "in a circle"),
        (".", "which it is in"),
    ] {
        let batch = family();
        fs::write(batch.path("secret"), "secret").unwrap();
        let place = batch.path("models/lab/tune/outside");
        symlink(target, &place).unwrap();
        batch
            .zipllm(&[])
            .expect(1)
            .says(&["lab/tune/outside", said]);
        assert_eq!(
            names(&batch.path("store/models")),
            ["lab--base"],
            "{target}"
        );
    }
}

#[test]
fn a_hugging_face_cache_is_stored_as_files() {
    let batch = Batch::new(&["org/cached"]);
    let root = batch.path("models/models--org--cached");
    let snapshot = root.join("snapshots/0123abcd");
    batch.file("models--org--cached/refs/main", "0123abcd\n");
    batch.file(
        "models--org--cached/blobs/b1",
        safetensors(&[("w", "I8", &[3], b"abc")]),
    );
    fs::create_dir_all(snapshot.join("sub")).unwrap();
    symlink("../../blobs/b1", snapshot.join("model.safetensors")).unwrap();
    symlink("../../../blobs/b1", snapshot.join("sub/again.safetensors")).unwrap();
    batch.zipllm(&[]).expect(0).silent();
    assert_eq!(batch.manifest("org--cached", 1)["commit"], "0123abcd");
    batch.assert_restores("org/cached", &tree(&snapshot));
    batch.restore("org/cached", "out", &[]).expect(0);
    assert!(!batch.path("out/model.safetensors").is_symlink());

    fs::write(batch.path("secret"), "secret").unwrap();
    symlink("../../../../secret", snapshot.join("out")).unwrap();
    batch.zipllm(&[]).expect(1).says(&["leads out of"]);
}

#[test]
fn names_that_are_not_utf8_fail_the_model() {
    let batch = family();
    let name = OsStr::from_bytes(b"bad\xff.bin");
    fs::write(batch.path("models/lab/tune").join(name), "x").unwrap();
    batch
        .zipllm(&[])
        .expect(1)
        .says(&["lab/tune", r"bad\xff.bin", "is not UTF-8"]);
    batch.assert_restores("lab/base", &model(&batch, "lab/base"));
    assert_eq!(names(&batch.path("store/models")), ["lab--base"]);
}

#[test]
fn what_is_no_file_is_passed_over_with_a_warning() {
    let batch = family();
    let original = model(&batch, "lab/tune");
    let fifo = batch.path("models/lab/tune/pipe");
    Run::of(Command::new("mkfifo").arg(&fifo)).expect(0);
    batch
        .zipllm(&[])
        .expect(0)
        .says(&["warning: lab/tune: pipe: a FIFO is not stored"]);
    batch.assert_restores("lab/tune", &original);
}

#[test]
fn a_model_directory_that_is_a_file_fails_the_model() {
    let batch = family();
    fs::remove_dir_all(batch.path("models/lab/tune")).unwrap();
    batch.file("lab/tune", "not a directory");
    batch
        .zipllm(&[])
        .expect(1)
        .says(&["lab/tune", "not a directory"]);
    batch.assert_restores("lab/base", &model(&batch, "lab/base"));
}
