//! `zipllm recode`, and the settings that choose codecs, through the real programs.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking"
)]

#[path = "common/batch.rs"]
mod batch;

use batch::{Batch, tree};
use serde_json::{Value, json};

/// The cut of the real family, stored with these settings.
fn stored(settings: &Value) -> Batch {
    let batch = Batch::real();
    batch.configure(settings);
    batch.zipllm(&[]).expect(0);
    batch
}

fn recode(batch: &Batch, args: &[&str]) -> Value {
    let config = batch.path("config.json");
    let mut command = std::process::Command::new(batch::ZIPLLM);
    command.arg("recode").arg(config).arg("--json").args(args);
    batch::Run::of(&mut command).expect(0).json()
}

fn object_bytes(batch: &Batch) -> u64 {
    let objects = tree(&batch.path("store/objects"));
    let length = |entry: &batch::Entry| match entry {
        batch::Entry::File { length, .. } => *length,
        batch::Entry::Directory => 0,
    };
    objects.values().map(length).sum()
}

#[test]
fn a_store_of_bitx_becomes_what_auto_would_have_made_of_it() {
    let old = stored(&json!({"codec": "bitx"}));
    let new = stored(&json!({}));
    let (before, wanted) = (object_bytes(&old), object_bytes(&new));
    assert!(wanted * 10 < before * 9, "{wanted} of {before}");
    old.configure(&json!({"codec": "auto"}));
    let report = recode(&old, &[]);
    assert_eq!(report["bytes_before"], before);
    assert_eq!(report["bytes_after"], object_bytes(&old));
    assert!(report["replaced"].as_u64() > Some(10), "{report}");
    assert!(
        object_bytes(&old) <= wanted,
        "{} {wanted}",
        object_bytes(&old)
    );
    old.assert_clean();
    for id in batch::ids(&std::fs::read_to_string(old.path("list.txt")).unwrap()) {
        let source = old.path("models").join(id.replace('/', "_"));
        old.assert_restores(id, &tree(&source));
    }
    let again = recode(&old, &[]);
    assert_eq!(again["replaced"], 0, "{again}");
}

#[test]
fn recode_never_makes_anything_larger() {
    let batch = stored(&json!({"effort": "max"}));
    let before = object_bytes(&batch);
    let report = recode(&batch, &["--all", "--effort", "fast"]);
    assert_eq!(report["tried"], report["objects"]);
    assert!(object_bytes(&batch) <= before);
    batch.assert_clean();
}

#[test]
fn efforts_are_ordered_and_all_restore() {
    let sizes: Vec<u64> = ["fast", "default", "max"]
        .iter()
        .map(|effort| object_bytes(&stored(&json!({"effort": effort}))))
        .collect();
    assert!(sizes[2] <= sizes[1] && sizes[1] <= sizes[0], "{sizes:?}");
}

#[test]
fn a_store_that_is_not_there_is_not_made() {
    let batch = Batch::real();
    let config = batch.path("config.json");
    let mut command = std::process::Command::new(batch::ZIPLLM);
    command.arg("recode").arg(config);
    batch::Run::of(&mut command)
        .expect(1)
        .says(&["there is no store here"]);
    assert!(!batch.path("store").exists());
}

/// An object that cannot be read, and those encoded against it, stay as they are and are named; the others are replaced.
#[test]
fn a_damaged_base_hurts_only_what_needs_it() {
    let batch = stored(&json!({"codec": "bitx"}));
    batch.configure(&json!({"codec": "auto"}));
    let store = zipllm::store::Store::open(&batch.path("store")).unwrap();
    let index = store.index().unwrap();
    let base = index
        .values()
        .find(|record| record.depth == 1)
        .unwrap()
        .base;
    let needs_it =
        |record: &&zipllm::store::index::Record| record.base == base || record.name == base;
    let hurt: Vec<_> = index.values().filter(needs_it).collect();
    let path = store.layout().object(&base);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&path, bytes).unwrap();
    let file = |record: &zipllm::store::index::Record| {
        std::fs::read(store.layout().object(&record.name)).unwrap()
    };
    let before: Vec<_> = hurt.iter().map(|record| file(record)).collect();

    let mut command = std::process::Command::new(batch::ZIPLLM);
    let command = command
        .arg("recode")
        .arg(batch.path("config.json"))
        .arg("--json");
    let report = batch::Run::of(command)
        .expect(3)
        .says(&[&base.to_string()])
        .json();
    assert!(hurt.len() > 1);
    let errors = report["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "told once, not for each: {report:#}");
    assert!(report["replaced"].as_u64() > Some(10), "{report:#}");
    for (record, before) in hurt.iter().zip(&before) {
        assert!(file(record) == *before, "{} was replaced", record.name);
    }
    // What was damaged before is damaged still, and nothing else is.
    let damage = batch.check().expect(3).json();
    assert_eq!(damage["damage"].as_array().unwrap().len(), 1, "{damage:#}");
}

#[test]
fn who_reads_beside_a_recode_reads_what_was_stored() {
    let batch = stored(&json!({"codec": "bitx"}));
    batch.configure(&json!({"codec": "auto", "effort": "max"}));
    let list = std::fs::read_to_string(batch.path("list.txt")).unwrap();
    let originals: Vec<_> = batch::ids(&list)
        .into_iter()
        .map(|id| (id, tree(&batch.path("models").join(id.replace('/', "_")))))
        .collect();
    let mut command = std::process::Command::new(batch::ZIPLLM);
    let command = command
        .arg("recode")
        .arg(batch.path("config.json"))
        .args(["--threads", "1"]);
    let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    let mut reads = 0;
    while child.try_wait().unwrap().is_none() {
        let (id, original) = &originals[reads % originals.len()];
        batch.assert_restores(id, original);
        batch.check().expect(0);
        reads += 1;
    }
    assert!(child.wait().unwrap().success());
    println!("{reads} restores and checks meanwhile");
    assert!(reads > 0);
    batch.assert_clean();
}
