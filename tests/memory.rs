//! Bounded memory (T15): the peak of both programs does not grow with the tensors.
//!
//! `ZIPLLM_TENSOR_MIB=8192` sets the tensor that goes through a control group of 512 MiB, `ZIPLLM_CGROUP` the directory in
//! which that group is made. Space for two and a half such tensors is needed below `TMPDIR`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail the test"
)]

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const MIB: u64 = 1 << 20;

/// Writes a safetensors file of one BF16 tensor; `tuning` changes a low bit now and then.
fn write_tensor(path: &Path, bytes: u64, tuning: bool) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut out = BufWriter::new(File::create(path).unwrap());
    generate(bytes, tuning, |part| out.write_all(part).unwrap());
    out.flush().unwrap();
}

/// Hands on the bytes of the file, in order.
fn generate(bytes: u64, tuning: bool, mut take: impl FnMut(&[u8])) {
    let header = format!(
        r#"{{"w":{{"dtype":"BF16","shape":[{}],"data_offsets":[0,{bytes}]}}}}"#,
        bytes / 2
    );
    take(&(header.len() as u64).to_le_bytes());
    take(header.as_bytes());
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
        take(&word.to_le_bytes());
    }
}

/// Runs a program and returns the peak of its memory, in bytes, as it reports it.
fn peak(program: &str, args: &[&str]) -> u64 {
    peak_of(Command::new(program).args(args))
}

fn peak_of(command: &mut Command) -> u64 {
    let output = command.arg("--json").output().unwrap();
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

/// A control group with a limit on memory, page cache and all; gone when this is dropped.
struct Group(PathBuf);

impl Group {
    /// Makes one, in what `ZIPLLM_CGROUP` names or where systems have them; `None` where that is not allowed.
    fn new(limit: u64) -> Option<Self> {
        let named = std::env::var_os("ZIPLLM_CGROUP").map(PathBuf::from);
        let usual = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"].map(PathBuf::from);
        let parent = named.or_else(|| usual.into_iter().find(|path| path.is_dir()))?;
        let group = Self(parent.join(format!("zipllm-test-{}", std::process::id())));
        fs::create_dir(&group.0).ok()?;
        // Version 1 and version 2.
        let limits = ["memory.limit_in_bytes", "memory.max"];
        let file = limits
            .map(|name| group.0.join(name))
            .into_iter()
            .find(|file| file.exists())?;
        fs::write(file, limit.to_string()).ok()?;
        Some(group)
    }

    /// A program that runs in the group.
    fn run(&self, program: &str, args: &[&str]) -> u64 {
        let join = r#"echo $$ > "$0/cgroup.procs" && exec "$@""#;
        let mut command = Command::new("sh");
        peak_of(
            command
                .args(["-c", join])
                .arg(&self.0)
                .arg(program)
                .args(args),
        )
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Stores and restores one tensor in the group; returns the peaks of both programs.
fn peaks_within(group: &Group, tensor_bytes: u64) -> [u64; 2] {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("models/lone/model.safetensors");
    write_tensor(&model, tensor_bytes, false);
    fs::write(dir.path().join("list.txt"), "lone\n").unwrap();
    let config = dir.path().join("config.json");
    let text = r#"{"model_dir": "models", "storage_dir": "store", "models_to_process": "list.txt", "threads": 2}"#;
    fs::write(&config, text).unwrap();
    let (config, out) = (config.to_str().unwrap(), dir.path().join("out"));
    let stored = group.run(env!("CARGO_BIN_EXE_zipllm"), &[config]);
    fs::remove_file(model).unwrap();
    let args = [config, "lone", out.to_str().unwrap()];
    let restored = group.run(env!("CARGO_BIN_EXE_restore"), &args);
    let mut file = BufReader::new(File::open(out.join("model.safetensors")).unwrap());
    let mut read = Vec::new();
    generate(tensor_bytes, false, |part| {
        read.resize(part.len(), 0);
        file.read_exact(&mut read).unwrap();
        assert!(read == part, "restored otherwise");
    });
    assert_eq!(file.read(&mut [0]).unwrap(), 0);
    [stored, restored]
}

#[test]
fn a_tensor_larger_than_the_memory_goes_in_and_out() {
    let mib = std::env::var("ZIPLLM_TENSOR_MIB").map_or(320, |text| text.parse().unwrap());
    let limit = if mib > 512 { 512 } else { 256 };
    assert!(mib > limit, "a tensor that fits shows nothing");
    let Some(group) = Group::new(limit * MIB) else {
        println!("SKIP: this user can make no control group with a limit on memory");
        return;
    };
    let (small, large) = (
        peaks_within(&group, mib / 8 * MIB),
        peaks_within(&group, mib * MIB),
    );
    for (what, small, large) in [
        ("store", small[0], large[0]),
        ("restore", small[1], large[1]),
    ] {
        let [small, large] = [small, large].map(|bytes| bytes / MIB);
        println!(
            "{what}: {small} MiB for {} MiB, {large} MiB for {mib} MiB, under {limit} MiB",
            mib / 8
        );
        // A small tensor does not fill all buffers.
        let slack = if mib < 4096 { 64 } else { 0 };
        assert!(
            large <= small + small / 10 + slack,
            "{what}: {small}, then {large} MiB"
        );
    }
}
