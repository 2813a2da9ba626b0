//! What a build without the feature `hub` says to those who would fetch models.
#![cfg(not(feature = "hub"))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking"
)]

#[path = "common/batch.rs"]
mod batch;

use std::process::Command;

use batch::{Batch, Run, ZIPLLM};

#[test]
fn fetching_is_refused_with_the_way_out() {
    let batch = Batch::new(&["lab/base"]);
    let config = batch.path("config.json");
    let config = config.to_str().unwrap();
    for args in [
        &["download", config, "--exclude", "onnx/"][..],
        &[config, "--download"],
    ] {
        let run = Run::of(Command::new(ZIPLLM).args(args)).expect(2);
        assert!(
            run.stderr.contains("without the feature `hub`"),
            "{}",
            run.stderr
        );
        assert!(!batch.path("store").exists());
    }
}
