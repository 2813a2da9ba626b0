//! Bounded memory (T15): the peak of both programs does not grow with the tensors.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail the test"
)]

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

const MIB: u64 = 1 << 20;

/// Writes a safetensors file of one BF16 tensor; `tuning` changes a low bit now and then.
fn write_tensor(path: &Path, bytes: u64, tuning: bool) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut out = BufWriter::new(File::create(path).unwrap());
    let header = format!(
        r#"{{"w":{{"dtype":"BF16","shape":[{}],"data_offsets":[0,{bytes}]}}}}"#,
        bytes / 2
    );
    out.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    out.write_all(header.as_bytes()).unwrap();
    let mut state = 1u64;
    for _ in 0..bytes / 8 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Four numbers, each of random sign and mantissa and one of four exponents.
        let mut word = state & 0x80FF_80FF_80FF_80FF | 0x3C00_3C00_3C00_3C00;
        word |= state >> 3 & 0x0100_0100_0100_0100;
        if tuning {
            word ^= state >> 20 & state >> 40 & 0x0001_0001_0001_0001;
        }
        out.write_all(&word.to_le_bytes()).unwrap();
    }
    out.flush().unwrap();
}

/// Runs a program and returns the peak of its memory, in bytes, as it reports it.
fn peak(program: &str, args: &[&str]) -> u64 {
    let output = Command::new(program)
        .args(args)
        .arg("--json")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    report["peak_memory_bytes"].as_u64().unwrap()
}

/// Stores and restores a base and a fine-tune of one tensor each; returns the peaks of both programs.
fn peaks(tensor_bytes: u64) -> [u64; 2] {
    let dir = tempfile::tempdir().unwrap();
    let models = dir.path().join("models");
    for (name, tuning) in [("base", false), ("tuned", true)] {
        write_tensor(
            &models.join(name).join("model.safetensors"),
            tensor_bytes,
            tuning,
        );
    }
    fs::write(dir.path().join("list.txt"), "base\ntuned\n").unwrap();
    let config = dir.path().join("config.json");
    let text = r#"{"model_dir": "models", "storage_dir": "store", "models_to_process": "list.txt", "threads": 2}"#;
    fs::write(&config, text).unwrap();
    let (config, out) = (config.to_str().unwrap(), dir.path().join("out"));
    let stored = peak(env!("CARGO_BIN_EXE_zipllm"), &[config]);
    let restored = peak(
        env!("CARGO_BIN_EXE_restore"),
        &[config, "tuned", out.to_str().unwrap()],
    );
    let [before, after] = [models.join("tuned"), out].map(|dir| dir.join("model.safetensors"));
    assert!(fs::read(before).unwrap() == fs::read(after).unwrap());
    [stored, restored]
}

#[test]
fn memory_does_not_grow_with_the_tensors() {
    let (small, large) = (peaks(20 * MIB), peaks(160 * MIB));
    for (what, small, large) in [
        ("store", small[0], large[0]),
        ("restore", small[1], large[1]),
    ] {
        println!(
            "{what}: {} MiB for 20 MiB, {} MiB for 160 MiB",
            small / MIB,
            large / MIB
        );
        assert!(large < 300 * MIB, "{what}: {large}");
        // Eight times the tensor; what remains are buffers that a small one does not fill.
        assert!(large < small + 64 * MIB, "{what}: {small}, then {large}");
    }
}
