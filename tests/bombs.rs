//! Bombs (T14): payloads that decode to more than they may are refused in bounded memory.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail the test"
)]

#[path = "common/disk.rs"]
mod disk;
#[path = "common/forge.rs"]
mod forge;
#[path = "common/random.rs"]
mod random;
#[path = "common/small.rs"]
mod small;

use std::collections::BTreeMap;
use std::io::{Read, Write};

use disk::MemDisk;
use forge::Forged;
use random::Random;
use small::{Family, Files, check, job};
use zipllm::hash::Hash;

const MIB: u64 = 1 << 20;

/// A zstd frame of so many zeros.
fn zeros(count: u64, with_length: bool, window_log: u32) -> Vec<u8> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(window_log).unwrap();
    encoder.include_contentsize(with_length).unwrap();
    if with_length {
        encoder.set_pledged_src_size(Some(count)).unwrap();
    }
    std::io::copy(&mut std::io::repeat(0).take(count), &mut encoder).unwrap();
    encoder.flush().unwrap();
    encoder.finish().unwrap()
}

/// A payload of one byte plane in this mode.
fn plane(mode: u8, bytes: &[u8]) -> Vec<u8> {
    let [a, b, c, _] = u32::try_from(bytes.len()).unwrap().to_le_bytes();
    [&[a, b, c, mode][..], bytes].concat()
}

/// The greatest memory that this process has had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        << 10
}

#[test]
fn payloads_that_swell_are_refused_in_bounded_memory() {
    let raw = [1, 2].map(|seed| Random::new(seed).bytes(64));
    let names = raw.each_ref().map(|raw| Hash::of(raw));
    let files = ["a.bin", "b.bin"].map(str::to_owned);
    let files: Files = files
        .into_iter()
        .zip(raw.clone().map(|raw| (raw, false)))
        .collect();
    let models = BTreeMap::from([("m".to_owned(), files)]);
    let family = Family::of(models, vec![job("m", None)]);
    let disk = MemDisk::new(&family.store());
    family.ingest(&disk);
    let path = family.open(&disk).unwrap().layout().object(&names[0]);

    let bomb = zeros(256 * MIB, true, 20);
    let unsized_bomb = zeros(256 * MIB, false, 20);
    let wide = zeros(256 * MIB, false, 27);
    let exact = zstd::bulk::compress(&raw[0], 3).unwrap();
    let two = [&exact[..], &exact].concat();
    // RFC 8878, 3.1.1: a frame with a content size of 2^64 - 1, and one with a window of 2^41 bytes.
    let claims = [&[0x28, 0xB5, 0x2F, 0xFD, 0xE0][..], &[0xFF; 8], &[1, 0, 0]].concat();
    let window = [0x28, 0xB5, 0x2F, 0xFD, 0x00, 0xFF, 1, 0, 0].to_vec();
    // Section 3.1.2: a frame to be skipped, of 2^32 - 1 bytes.
    let skipped = [0x50, 0x2A, 0x4D, 0x18, 0xFF, 0xFF, 0xFF, 0xFF].to_vec();
    let frames = [
        ("256 MiB of zeros", bomb),
        ("256 MiB of zeros, unsaid", unsized_bomb),
        ("256 MiB of zeros in a window of 128 MiB", wide),
        ("one byte more", zeros(65, true, 20)),
        ("one byte less", zeros(63, true, 20)),
        ("a frame twice", two),
        ("2^64 - 1 bytes claimed", claims),
        ("a window of 2^41 bytes", window),
        ("a skippable frame of 4 GiB", skipped),
        ("no frame at all", Vec::new()),
    ];
    let mut cases = Vec::new();
    for (what, frame) in &frames {
        assert!(frame.len() < 64 << 10, "{what}: {} bytes", frame.len());
        cases.push((format!("zstd: {what}"), Forged::new(64, 1, frame)));
        cases.push((
            format!("solo: {what}"),
            Forged::new(64, 2, &plane(1, frame)),
        ));
        let based = Forged::new(64, 3, &plane(1, frame)).with_base(1, &names[1], 64);
        cases.push((format!("bitx: {what}"), based));
    }
    for (what, payload) in [
        ("a raw plane that is longer", plane(0, &[7; 65])),
        ("a raw plane that is shorter", plane(0, &[7; 63])),
        ("a constant plane of two bytes", plane(2, &[7, 7])),
        ("a plane of an unknown mode", plane(9, &[7; 64])),
        (
            "a plane of 16 MiB that is not there",
            vec![0xFF, 0xFF, 0xFF, 0],
        ),
        ("a plane more", [plane(2, &[7]), plane(2, &[7])].concat()),
        ("half a plane's head", vec![1, 0]),
    ] {
        cases.push((format!("solo: {what}"), Forged::new(64, 2, &payload)));
    }
    cases.push((
        "raw: 16 MiB for 64 bytes".into(),
        Forged::new(64, 0, &vec![7; (16 << 20) - 1]),
    ));

    let before = peak();
    for (what, forged) in &cases {
        disk.put(&path, forged.bytes(&names[0]));
        let store = family.open(&disk).unwrap();
        let error = family.restores(&store, "m").expect_err(what).to_string();
        assert!(error.contains(&names[0].to_string()), "{what}: {error}");
        let damage = check(&store).damage;
        let reported = damage.iter().any(|damage| damage.hurts == ["m@1: a.bin"]);
        assert!(reported, "{what}: {damage:?}");
    }
    let grown = peak() - before;
    println!(
        "{} bombs refused, peak memory grew by {} MiB",
        cases.len(),
        grown / MIB
    );
    assert!(grown < 96 * MIB, "{grown} bytes");
}
