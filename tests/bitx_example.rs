//! Drives the `bitx` example as its users do.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The example, which cargo builds beside the tests: `target/PROFILE/{deps/THIS,examples/bitx}`.
fn bitx(directory: &Path, args: &[&str]) -> Output {
    let this = std::env::current_exe().unwrap();
    let profile = this.parent().unwrap().parent().unwrap();
    let program = profile
        .join("examples")
        .join("bitx")
        .with_extension(std::env::consts::EXE_EXTENSION);
    assert!(
        program.exists(),
        "cargo test without --test builds it, as does cargo build --example bitx"
    );
    Command::new(program)
        .args(args)
        .current_dir(directory)
        .output()
        .unwrap()
}

const STREAMS: [&str; 4] = ["--compressed-exp", "exp.zst", "--compressed-sm", "sm.zst"];

fn ok(directory: &Path, args: &[&str]) -> String {
    let output = bitx(directory, args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{args:?}: {stderr}");
    stderr
}

fn fails(directory: &Path, args: &[&str], code: i32, message: &str) {
    let output = bitx(directory, args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    assert!(stderr.contains(message), "{args:?}: {stderr}");
}

fn bytes(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

fn files(base: &[u8], tuned: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_path_buf();
    std::fs::write(path.join("base"), base).unwrap();
    std::fs::write(path.join("tuned"), tuned).unwrap();
    (directory, path)
}

fn compress_args<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["base", "tuned", "--compress"], &STREAMS[..], more].concat()
}

fn decompress_args<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["base", "back", "--decompress"], &STREAMS[..], more].concat()
}

#[test]
fn every_pair_of_lengths_round_trips() {
    let block = 1 << 18;
    let lengths = [
        0,
        1,
        2,
        3,
        1000,
        block - 1,
        block,
        block + 1,
        2 * block,
        2 * block + 3,
    ];
    for (i, base_length) in lengths.into_iter().enumerate() {
        for tuned_length in [lengths[i], lengths[(i + 1) % 10], lengths[(i + 6) % 10]] {
            let (base, tuned) = (bytes(base_length, 1), bytes(tuned_length, 2));
            let (_keep, path) = files(&base, &tuned);
            ok(&path, &compress_args(&["--xor-output", "xor"]));
            ok(&path, &decompress_args(&[]));
            let what = format!("base of {base_length}, {tuned_length} bytes");
            assert!(std::fs::read(path.join("back")).unwrap() == tuned, "{what}");
            let base = base.into_iter().chain(std::iter::repeat(0));
            let xor: Vec<u8> = tuned.iter().zip(base).map(|(a, b)| a ^ b).collect();
            assert!(std::fs::read(path.join("xor")).unwrap() == xor, "{what}");
        }
    }
}

#[test]
fn streams_are_plain_zstd() {
    // -1.5, 2^-126 and an odd byte, against zeros.
    let (_keep, path) = files(&[], &[0xc0, 0xbf, 0x80, 0x00, 0x42]);
    let summary = ok(&path, &compress_args(&["--level", "19"]));
    assert!(
        summary.contains("5 bytes") && summary.contains("ratio"),
        "{summary}"
    );
    let stream =
        |name: &str| zstd::decode_all(std::fs::File::open(path.join(name)).unwrap()).unwrap();
    assert_eq!(stream("exp.zst"), [127, 1, 0x42]);
    assert_eq!(stream("sm.zst"), [0x81, 0x00]);
}

#[test]
fn a_near_copy_becomes_small() {
    let base = bytes(1 << 20, 1);
    let mut tuned = base.clone();
    tuned.iter_mut().step_by(64).for_each(|byte| *byte ^= 1);
    let (_keep, path) = files(&base, &tuned);
    ok(&path, &compress_args(&[]));
    let size = |name: &str| path.join(name).metadata().unwrap().len();
    assert!(size("exp.zst") + size("sm.zst") < 1 << 16);
}

#[cfg(unix)]
#[test]
fn outputs_have_the_mode_of_new_files() {
    use std::os::unix::fs::MetadataExt;
    let (_keep, path) = files(&bytes(100, 1), &bytes(100, 2));
    ok(&path, &compress_args(&[]));
    let mode = |name: &str| path.join(name).metadata().unwrap().mode();
    assert_eq!(mode("exp.zst"), mode("base"));
}

#[test]
fn nothing_is_overwritten_unasked() {
    let (_keep, path) = files(&bytes(100, 1), &bytes(100, 2));
    ok(&path, &compress_args(&[]));
    fails(
        &path,
        &compress_args(&[]),
        1,
        "exp.zst exists; --force replaces it",
    );
    ok(&path, &compress_args(&["--force"]));
    ok(&path, &decompress_args(&[]));
    fails(&path, &decompress_args(&[]), 1, "back exists");
    ok(&path, &decompress_args(&["--force"]));
    fails(
        &path,
        &["base", "tuned", "--force", "--xor-output", "base"],
        1,
        "base is named twice",
    );
    assert_eq!(std::fs::read(path.join("base")).unwrap(), bytes(100, 1));
    let left = std::fs::read_dir(&path).unwrap().count();
    assert_eq!(left, 5, "no temporary file stays");
}

#[test]
fn errors_are_clear() {
    let (_keep, path) = files(&bytes(100, 1), &bytes(100, 2));
    ok(&path, &compress_args(&[]));
    fails(&path, &["base", "tuned"], 2, "required");
    fails(
        &path,
        &["base", "tuned", "--compress"],
        2,
        "--compressed-exp",
    );
    fails(
        &path,
        &compress_args(&["--decompress"]),
        2,
        "cannot be used with",
    );
    fails(
        &path,
        &["none", "tuned", "--xor-output", "xor"],
        1,
        "cannot read none",
    );
    let swapped = [
        "base",
        "back",
        "--decompress",
        "--compressed-exp",
        "sm.zst",
        "--compressed-sm",
        "tuned",
    ];
    fails(&path, &swapped, 1, "tuned");
    std::fs::write(
        path.join("sm.zst"),
        zstd::encode_all(&[0; 48][..], 3).unwrap(),
    )
    .unwrap();
    fails(&path, &decompress_args(&[]), 1, "do not belong together");
    let exp = std::fs::read(path.join("exp.zst")).unwrap();
    std::fs::write(path.join("exp.zst"), &exp[..exp.len() - 1]).unwrap();
    fails(&path, &decompress_args(&[]), 1, "exp.zst");
    assert!(!path.join("back").exists());
}
