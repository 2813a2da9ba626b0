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
