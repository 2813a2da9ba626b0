//! Every revision of a model in a Hugging Face cache, through the real programs (`--all-revisions`).
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

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use batch::{Batch, Tree, ZIPLLM, names, tree};
use serde_json::{Value, json};
use tensors::{noise, safetensors, tuned, weights};

const ID: &str = "lab/cached";
const FOLDER: &str = "models/models--lab--cached";

/// A revision's name, and its files with the blobs behind them.
type Snapshot<'a> = (&'a str, &'a [(&'a str, &'a str)]);

/// The oldest first; `main` is the middle one, as after going back to it.
const SNAPSHOTS: [Snapshot<'_>; 3] = [
    (
        "ccc",
        &[
            ("model.safetensors", "w1"),
            ("sub/notes.txt", "n"),
            ("README.md", "r1"),
        ],
    ),
    (
        "aaa",
        &[
            ("model.safetensors", "w2"),
            ("README.md", "r2"),
            ("same.bin", "s"),
        ],
    ),
    (
        "bbb",
        &[
            ("model.safetensors", "w1"),
            ("README.md", "r2"),
            ("same.bin", "s"),
        ],
    ),
];
const MAIN: &str = "aaa";

fn blobs() -> Vec<(&'static str, Vec<u8>)> {
    let base = weights(1, 20_000);
    let file = |values: &[u8]| safetensors(&[("w", "BF16", &[200, 100], values)]);
    vec![
        ("w1", file(&base)),
        ("w2", file(&tuned(&base, 2))),
        ("n", noise(9, 2000)),
        ("r1", b"old".to_vec()),
        ("r2", b"new".to_vec()),
        ("s", noise(3, 2000)),
    ]
}

/// A cache of three snapshots that share files.
fn cache(batch: &Batch) -> [Tree; 3] {
    let folder = batch.path(FOLDER);
    for (name, bytes) in blobs() {
        batch.file(&format!("models--lab--cached/blobs/{name}"), bytes);
    }
    for (at, (revision, files)) in (0..).zip(SNAPSHOTS) {
        let snapshot = folder.join("snapshots").join(revision);
        for (path, blob) in files {
            let place = snapshot.join(path);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            let up = "../".repeat(path.matches('/').count() + 2);
            symlink(format!("{up}blobs/{blob}"), place).unwrap();
        }
        let time = SystemTime::now() - Duration::from_secs(3000 - at * 1000);
        File::open(snapshot).unwrap().set_modified(time).unwrap();
    }
    fs::create_dir_all(folder.join("refs/pr")).unwrap();
    fs::write(folder.join("refs/main"), MAIN).unwrap();
    fs::write(folder.join("refs/pr/1"), "bbb").unwrap();
    SNAPSHOTS.map(|(revision, _)| tree(&folder.join("snapshots").join(revision)))
}

fn cached() -> (Batch, [Tree; 3]) {
    let batch = Batch::new(&[ID]);
    let snapshots = cache(&batch);
    (batch, snapshots)
}

fn run(batch: &Batch, args: &[&str]) -> Value {
    let args = [&["--all-revisions", "--json"], args].concat();
    batch.zipllm(&args).expect(0).json()
}

/// What became of each revision: its commit, status and version.
fn rows(report: &Value) -> Vec<(String, String, u64)> {
    let rows = report["models"].as_array().unwrap().iter();
    let row = |row: &Value| {
        assert_eq!(row["model"], ID);
        let text = |key: &str| row[key].as_str().unwrap().to_owned();
        (
            text("commit"),
            text("status"),
            row["version"].as_u64().unwrap(),
        )
    };
    rows.map(row).collect()
}

fn expected(rows: &[(&str, &str, u64)]) -> Vec<(String, String, u64)> {
    let row = |(commit, status, version): &(&str, &str, u64)| {
        ((*commit).to_owned(), (*status).to_owned(), *version)
    };
    rows.iter().map(row).collect()
}

fn assert_versions(batch: &Batch, versions: &[(u32, &Tree)], newest: &Tree) {
    for (version, snapshot) in versions {
        batch.assert_restores(&format!("{ID}@{version}"), snapshot);
    }
    batch.assert_restores(ID, newest);
    batch.assert_clean();
}

#[test]
fn every_snapshot_becomes_a_version_and_main_is_the_newest() {
    let (batch, [ccc, aaa, bbb]) = cached();
    let report = run(&batch, &[]);
    let stored = [
        ("ccc", "stored", 1),
        ("bbb", "stored", 2),
        ("aaa", "stored", 3),
    ];
    assert_eq!(rows(&report), expected(&stored));
    // One revision's weights are a difference to another's.
    assert!(
        report["savings"]["delta"]["raw_bytes"].as_u64().unwrap() >= 40_000,
        "{report:#}"
    );
    assert_versions(&batch, &[(1, &ccc), (2, &bbb), (3, &aaa)], &aaa);
    let detail = batch.report("list", &[ID]);
    assert_eq!(
        detail["commits"],
        json!({"1": "ccc", "2": "bbb", "3": "aaa"})
    );
    assert_eq!(batch.report("list", &[&format!("{ID}@1")])["commit"], "ccc");
    let text = batch.verb("list", &[ID]).expect(0).stdout;
    assert!(
        text.contains("version 1 is ccc, 2 is bbb, 3 is aaa"),
        "{text}"
    );

    // Again, and without the switch: nothing is new.
    let before = batch.stored();
    let again = stored.map(|(commit, _, version)| (commit, "already_stored", version));
    assert_eq!(rows(&run(&batch, &[])), expected(&again));
    batch.zipllm(&[]).expect(0).silent();
    assert_eq!(batch.stored(), before);

    // A revision that comes later is a version too, and main stays the newest.
    let snapshot = batch.path(FOLDER).join("snapshots/ddd");
    fs::create_dir(&snapshot).unwrap();
    symlink("../../blobs/n", snapshot.join("README.md")).unwrap();
    let ddd = tree(&snapshot);
    let rows = rows(&run(&batch, &[]));
    assert!(
        rows.contains(&("ddd".into(), "stored".into(), 4)),
        "{rows:?}"
    );
    assert!(
        rows.contains(&("aaa".into(), "stored".into(), 5)),
        "{rows:?}"
    );
    assert_versions(
        &batch,
        &[(1, &ccc), (2, &bbb), (3, &aaa), (4, &ddd), (5, &aaa)],
        &aaa,
    );
}

#[test]
fn an_estimate_counts_every_snapshot() {
    let (batch, _) = cached();
    let models = |report: &Value, member: &str| -> Vec<Value> {
        let models = report["models"].as_array().unwrap().iter();
        models.map(|model| model[member].clone()).collect()
    };
    let guess = batch.report("estimate", &["--all-revisions"]);
    assert_eq!(models(&guess, "commit"), ["ccc", "bbb", "aaa"]);
    assert_eq!(models(&guess, "status"), ["new", "new", "new"]);
    assert!(!batch.path("store").exists());
    let stored = run(&batch, &[]);
    let known = |report: &Value| -> Vec<Value> {
        let savings = models(report, "savings").into_iter();
        savings.map(|one| one["file_dedup_bytes"].clone()).collect()
    };
    assert_eq!(known(&guess), known(&stored));
    let bytes = |report: &Value| report["stored_bytes"].as_u64().unwrap();
    let (guessed, real) = (bytes(&guess), bytes(&stored));
    // Tensors as short as these are taken alone.
    assert!((real..2 * real).contains(&guessed), "{guessed} {real}");
    let again = batch.report("estimate", &["--all-revisions"]);
    assert_eq!(models(&again, "status"), ["already_stored"; 3]);
    let text = batch
        .verb("estimate", &["--all-revisions"])
        .expect(0)
        .stdout;
    assert!(text.contains(ID), "{text}");
    // Without the switch it is the current one alone.
    assert_eq!(models(&batch.report("estimate", &[]), "commit"), ["aaa"]);
}

/// Files that have not changed since are not read again, whichever revision they are of.
#[test]
fn what_has_not_changed_is_not_read_again() {
    let (batch, _) = cached();
    std::thread::sleep(Duration::from_millis(3100));
    run(&batch, &[]);
    let log = batch.path("strace");
    let mut command = Command::new("strace");
    let command = command
        .args(["-f", "-y", "-e", "trace=pread64,read", "-o"])
        .arg(&log);
    let command = command
        .arg(ZIPLLM)
        .arg(batch.path("config.json"))
        .arg("--all-revisions");
    if command.stdin(Stdio::null()).output().is_err() {
        println!("skipped: there is no strace");
        return;
    }
    let calls = fs::read_to_string(log).unwrap();
    assert!(
        calls.contains("zipllm.json"),
        "the trace is of nothing:\n{calls}"
    );
    assert!(!calls.contains("/blobs/"), "{calls}");
}

#[test]
fn main_stays_the_newest_when_it_was_stored_first() {
    let (batch, [ccc, aaa, bbb]) = cached();
    batch.zipllm(&[]).expect(0);
    let report = run(&batch, &[]);
    let all = [
        ("ccc", "stored", 2),
        ("bbb", "stored", 3),
        ("aaa", "stored", 4),
    ];
    assert_eq!(rows(&report), expected(&all));
    assert_versions(&batch, &[(1, &aaa), (2, &ccc), (3, &bbb), (4, &aaa)], &aaa);
    batch.zipllm(&[]).expect(0).silent();
    let again = all.map(|(commit, _, version)| (commit, "already_stored", version));
    assert_eq!(rows(&run(&batch, &[])), expected(&again));
    // Main moves to a revision that is stored, and that lacks a file.
    fs::write(batch.path(FOLDER).join("refs/main"), "bbb").unwrap();
    fs::remove_file(batch.path(FOLDER).join("snapshots/bbb/same.bin")).unwrap();
    batch
        .zipllm(&["--all-revisions"])
        .expect(1)
        .says(&["same.bin", "--accept-missing"]);
    batch
        .zipllm(&["--all-revisions", "--accept-missing"])
        .expect(0);
    let less = tree(&batch.path(FOLDER).join("snapshots/bbb"));
    assert_versions(&batch, &[(3, &bbb), (4, &aaa)], &less);
}

/// A plain directory has one revision; it is stored as ever.
#[test]
fn other_models_are_stored_as_without_it() {
    let (batch, _) = cached();
    batch.list(&["lab/plain", "lab/linked"]);
    batch.file("lab/plain/a.bin", noise(8, 500));
    let snapshot = batch.path(FOLDER).join("snapshots/ccc");
    symlink(&snapshot, batch.path("models/lab/linked")).unwrap();
    let report = run(&batch, &[]);
    assert_eq!(batch::about(&report, "lab/plain")["version"], 1);
    assert_eq!(batch::about(&report, "lab/plain").get("commit"), None);
    assert_eq!(batch::about(&report, "lab/linked")["commit"], "ccc");
    assert_eq!(report["models"].as_array().unwrap().len(), 2);
    batch.assert_restores("lab/plain", &tree(&batch.path("models/lab/plain")));
    batch.assert_restores("lab/linked", &tree(&snapshot));
    batch.assert_clean();
}

#[test]
fn a_cache_folder_is_added_with_all_its_revisions() {
    let (batch, [ccc, aaa, bbb]) = cached();
    let moved = batch.path("elsewhere");
    fs::rename(batch.path(FOLDER), &moved).unwrap();
    let path = moved.to_str().unwrap();
    let report = batch.report("add", &[path, "--as", "lab/new", "--all-revisions"]);
    assert_eq!(report["models"].as_array().unwrap().len(), 3);
    for (version, snapshot) in [(1, &ccc), (2, &bbb), (3, &aaa)] {
        batch.assert_restores(&format!("lab/new@{version}"), snapshot);
    }
    let args = [
        path,
        "--as",
        "lab/new",
        "--all-revisions",
        "--delete-source",
    ];
    let report = batch.report("add", &args);
    assert_eq!(report["deleted"].as_array().unwrap().len(), 3);
    assert!(!moved.exists());
    // What is no such folder has no revisions.
    let plain = batch.path("plain");
    fs::create_dir(&plain).unwrap();
    fs::write(plain.join("a"), "a").unwrap();
    let args = [
        plain.to_str().unwrap(),
        "--as",
        "lab/plain",
        "--all-revisions",
    ];
    batch
        .verb("add", &args)
        .expect(1)
        .says(&["no folder of a Hugging Face cache"]);
}

#[test]
fn the_whole_cache_goes_when_all_revisions_are_stored() {
    let (batch, [ccc, aaa, bbb]) = cached();
    let report = run(&batch, &["--delete-source"]);
    assert_eq!(report["deleted"].as_array().unwrap().len(), 3, "{report:#}");
    let sum = |of: &str| -> u64 {
        let deleted = report["deleted"].as_array().unwrap().iter();
        deleted.map(|one| one[of].as_u64().unwrap()).sum()
    };
    assert_eq!(sum("files"), 9);
    let bytes: usize = blobs().iter().map(|(_, bytes)| bytes.len()).sum();
    assert_eq!(sum("bytes"), bytes as u64, "each blob counts once");
    assert_eq!(names(&batch.path("models")), [""; 0]);
    assert_versions(&batch, &[(1, &ccc), (2, &bbb), (3, &aaa)], &aaa);
    for args in [
        &["--all-revisions", "--delete-source"][..],
        &["--all-revisions"],
        &[],
    ] {
        batch.zipllm(args).expect(0).silent();
    }
}

/// What the hub's tools keep beside the snapshots stays, and does not make the model a broken one.
#[test]
fn notes_of_other_tools_are_left_alone() {
    let (batch, _) = cached();
    batch.file("models--lab--cached/.no_exist/aaa/adapter_config.json", "");
    batch.file("models--lab--cached/blobs/w9.incomplete", "half");
    run(&batch, &["--delete-source"]);
    assert_eq!(names(&batch.path(FOLDER)), [".no_exist", "blobs"]);
    assert_eq!(names(&batch.path(FOLDER).join("blobs")), ["w9.incomplete"]);
    batch.zipllm(&[]).expect(0).silent();
    batch.zipllm(&["--all-revisions"]).expect(0).silent();
}

/// Of a revision that could not be stored, everything stays; the others go without what it shares with them.
#[test]
fn what_a_revision_needs_that_is_not_stored_stays() {
    let (batch, [ccc, aaa, _]) = cached();
    let folder = batch.path(FOLDER);
    symlink("/etc/hostname", folder.join("snapshots/bbb/out")).unwrap();
    let told = batch
        .zipllm(&["--all-revisions", "--delete-source"])
        .expect(1);
    told.says(&["bbb/out", "leads out of"]);
    assert_eq!(names(&folder.join("blobs")), ["r2", "s", "w1"]);
    assert_eq!(names(&folder.join("snapshots/aaa")), [""; 0]);
    assert_eq!(names(&folder.join("snapshots/ccc")), [""; 0]);
    fs::remove_file(folder.join("snapshots/bbb/out")).unwrap();
    let bbb = tree(&folder.join("snapshots/bbb"));
    let report = run(&batch, &["--delete-source"]);
    let all = [("bbb", "stored", 3), ("aaa", "stored", 4)];
    assert_eq!(rows(&report), expected(&all));
    assert!(!folder.exists());
    assert_versions(&batch, &[(1, &ccc), (2, &aaa), (3, &bbb)], &aaa);
}

/// Damage to what one revision needs keeps all of them.
#[test]
fn nothing_goes_while_a_revision_does_not_come_back() {
    let (batch, snapshots) = cached();
    run(&batch, &[]);
    let detail = batch.report("list", &[&format!("{ID}@1")]);
    let notes = detail["files"].as_array().unwrap().iter();
    let notes = notes
        .into_iter()
        .find(|file| file["path"] == "sub/notes.txt")
        .unwrap();
    let name = notes["segments"][0]["object"].as_str().unwrap().to_owned();
    let object = batch.path("store/objects").join(&name[..2]).join(&name);
    let mut damaged = fs::read(&object).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&object, damaged).unwrap();
    std::thread::sleep(Duration::from_millis(10));
    let told = batch
        .zipllm(&["--all-revisions", "--delete-source"])
        .expect(3);
    told.says(&["its files are not deleted"]);
    let folder = batch.path(FOLDER);
    let left = SNAPSHOTS.map(|(revision, _)| tree(&folder.join("snapshots").join(revision)));
    assert_eq!(left, snapshots);
}

#[test]
fn no_kill_loses_a_revision() {
    let kills = kill::number("ZIPLLM_KILLS", 12);
    let mut killed = kill::DeletionKills::default();
    while killed.are_due(kills) {
        let batch = Batch::in_memory(&[ID]);
        let folder = many(&batch);
        let snapshots = ["aaa", "bbb"].map(|name| tree(&folder.join("snapshots").join(name)));
        run(&batch, &[]);
        let mut program = Command::new(ZIPLLM);
        let command = program.arg(batch.path("config.json"));
        let command = command.args(["--all-revisions", "--delete-source"]);
        let first = folder.join("snapshots/aaa/0.bin");
        killed.next(command, &first, &folder.join("blobs/449"));
        let versions = [(1, &snapshots[0]), (2, &snapshots[1])];
        assert_versions(&batch, &versions, &snapshots[1]);
        batch
            .zipllm(&["--all-revisions", "--delete-source"])
            .expect(0);
        assert!(!folder.exists(), "{:?}", tree(&folder));
        assert_versions(&batch, &versions, &snapshots[1]);
    }
    killed.assert_hits(kills);
}

/// Two snapshots of 300 files each, half of them shared.
fn many(batch: &Batch) -> PathBuf {
    let folder = batch.path(FOLDER);
    for blob in 0..450 {
        batch.file(
            &format!("models--lab--cached/blobs/{blob:03}"),
            noise(blob, 100),
        );
    }
    for (name, first) in [("aaa", 0), ("bbb", 150)] {
        let snapshot = folder.join("snapshots").join(name);
        fs::create_dir_all(&snapshot).unwrap();
        for blob in first..first + 300 {
            let target = Path::new("../../blobs").join(format!("{blob:03}"));
            symlink(target, snapshot.join(format!("{blob}.bin"))).unwrap();
        }
    }
    fs::create_dir(folder.join("refs")).unwrap();
    fs::write(folder.join("refs/main"), "bbb").unwrap();
    folder
}
