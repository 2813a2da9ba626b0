//! Payloads of the coder of floats stay readable: `testdata/payloads/v1`, one of each kind by dtype and lanes, with the hashes
//! of their chunks in `testdata/payloads/v1.txt`.
//!
//! They are written once, and never again; encoders may get better, decoders have to read these. Until a first release
//! `cargo test --test golden_payloads -- --ignored` writes them anew.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "helpers of tests fail by panicking"
)]

#[path = "common/random.rs"]
mod random;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use random::Random;
use zipllm::dtype::DType;
use zipllm::hash::Hash;
use zipllm::rans::{Chunk, Effort, Isa, Learner, Sample, Scratch, Shared, decode, encode};

const EQUAL: u8 = 0;
const STORED: u8 = 16;
const SCALED: u8 = 2;
const FINE: u8 = 4;
/// Of words alone.
const FLAT: u8 = 4;
const FINE_TABLE: u8 = 8;
/// Of differences.
const SKIPS: u8 = 16;
const SHARED: u8 = 64;
const SHARED_TABLES: u8 = 128;
/// The bits of a kind that say what is shared.
const ALL: u8 = SHARED | SHARED_TABLES;

/// The flat position of every chunk's first element.
const FIRST: u64 = 7;

/// Elements in a row where there are rows.
const ROW: usize = 200;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/payloads")
}

/// What a payload is of: dtype, kind, lanes, and whether it has a base.
#[derive(Clone, Copy)]
struct Case {
    dtype: DType,
    kind: u8,
    lanes: usize,
    delta: bool,
}

/// Every kind that an encoder writes, for each dtype; each with both numbers of lanes for BF16, with one for others.
fn cases() -> Vec<Case> {
    let dtypes = [
        DType::Bf16,
        DType::F16,
        DType::F32,
        DType::F64,
        DType::F8E4M3,
        DType::F8E5M2,
        DType::Bool,
        DType::U8,
    ];
    let mut cases = Vec::new();
    for (dtype, lanes) in dtypes.into_iter().flat_map(|d| [(d, 4), (d, 64)]) {
        for delta in [true, false] {
            // Only elements of 16 bits have fine tokens that differ from coarse ones.
            let fine = delta && dtype.size() == 2;
            let both = dtype == DType::Bf16;
            let coded = (1..16).filter(|kind| {
                kind & 1 == 1
                    && (fine || kind & FINE == 0)
                    && (both || (kind & FINE_TABLE != 0) == (lanes == 64))
            });
            cases.extend(coded.map(|kind| (dtype, kind, lanes, delta)));
        }
    }
    for dtype in [DType::Bf16, DType::F32, DType::F8E4M3] {
        cases.extend([(dtype, EQUAL, 4, true), (dtype, STORED, 4, true)]);
        cases.push((dtype, STORED, 4, false));
    }
    for (dtype, kind, lanes, delta) in [
        (DType::Bf16, 1 | ALL, 64, true),
        (DType::Bf16, 3 | ALL, 4, true),
        (DType::Bf16, 3 | ALL, 64, true),
        (DType::Bf16, 3 | SHARED, 64, true),
        (DType::Bf16, 7 | ALL, 64, true),
        (DType::Bf16, 3 | FINE_TABLE | ALL, 64, true),
        (DType::Bf16, 3 | ALL, 64, false),
        (DType::F16, 3 | ALL, 64, true),
        (DType::F32, 3 | ALL, 64, true),
        (DType::F32, 3 | ALL, 64, false),
        (DType::F64, 3 | ALL, 64, true),
        (DType::Bf16, 1 | FLAT, 64, false),
        (DType::Bf16, 3 | FLAT | FINE_TABLE, 64, false),
        (DType::Bf16, 3 | FLAT | ALL, 64, false),
        (DType::Bf16, 3 | FLAT | ALL, 4, false),
        (DType::F16, 3 | FLAT, 64, false),
        (DType::F32, 1 | FLAT, 64, false),
        (DType::F64, 1 | FLAT, 64, false),
        (DType::Bf16, 1 | SKIPS, 64, true),
        (DType::Bf16, 3 | SKIPS, 64, true),
        (DType::Bf16, 5 | SKIPS, 64, true),
        (DType::F16, 1 | SKIPS, 64, true),
        (DType::F32, 1 | SKIPS, 64, true),
        (DType::F64, 1 | SKIPS, 64, true),
        (DType::F8E4M3, 1 | SKIPS, 64, true),
    ] {
        cases.push((dtype, kind, lanes, delta));
    }
    let case = |(dtype, kind, lanes, delta)| Case {
        dtype,
        kind,
        lanes,
        delta,
    };
    cases.into_iter().map(case).collect()
}

impl Case {
    fn name(&self) -> String {
        let codec = if self.delta { "delta" } else { "solo-rans" };
        let dtype = self.dtype.name().to_lowercase();
        format!(
            "{dtype}-{codec}-kind{:02}-lanes{:02}",
            self.kind, self.lanes
        )
    }

    fn elements(&self) -> usize {
        match (self.kind, self.lanes) {
            (EQUAL | STORED, _) => 50,
            // Enough for scales and for fine tokens to pay where little changes.
            (kind, _) if self.has_skips() && kind & (SCALED | FINE) != 0 => 120_000,
            (_, 64) => 33_000,
            // Enough for scales and for fine tokens to pay.
            (kind, _) if kind & (FINE | SCALED) != 0 => 30_000,
            _ => 4_200,
        }
    }

    fn row_len(&self) -> u64 {
        if self.kind & (SCALED | SHARED) == 0 {
            0
        } else {
            ROW as u64
        }
    }

    /// The file of what the object's chunks have in common, if anything.
    fn shared_name(&self) -> Option<String> {
        (self.kind & SHARED != 0).then(|| format!("{}-shared", self.name()))
    }

    fn read_shared(&self) -> Option<Shared> {
        let bytes = fs::read(directory().join("v1").join(self.shared_name()?)).unwrap();
        Some(Shared::parse(self.dtype, self.row_len(), &bytes).unwrap())
    }

    /// Learns from the rows of a chunk of this kind, of which there are very many.
    fn learn(&self) -> Option<Shared> {
        self.shared_name()?;
        let (raw, base) = self.content();
        let size = self.dtype.size();
        // The first rows that are whole.
        let rows = (ROW - 7) * size..(ROW - 7 + 140 * ROW) * size;
        let sample = Sample {
            dtype: self.dtype,
            row_len: ROW as u64,
            raw: &raw[rows.clone()],
            base: self.delta.then_some(&base[rows]),
            hints: None,
        };
        let learner = Learner::new(Isa::Scalar, self.effort());
        learner.finish(&sample, 1 << 30, &mut Scratch::default())
    }

    /// The chunk and its base; where tables are not shared, of rows that change by four times as much.
    fn content_of_chunk(&self) -> (Vec<u8>, Vec<u8>) {
        let (mut raw, base) = self.content();
        if self.kind & ALL == SHARED {
            for (raw, base) in raw.chunks_mut(2).zip(base.chunks(2)) {
                let [new, old] = [&*raw, base].map(|word| u16::from_le_bytes([word[0], word[1]]));
                let larger = old.wrapping_add(new.wrapping_sub(old).wrapping_mul(4));
                raw.copy_from_slice(&larger.to_le_bytes());
            }
        }
        (raw, base)
    }

    fn effort(&self) -> Effort {
        if self.kind & FINE_TABLE == 0 {
            Effort::Default
        } else {
            Effort::Max
        }
    }

    /// The chunk and its base: few elements differ, so that payloads are short; of rows and columns only some do, where
    /// there are scales, and by much, where tokens are fine.
    fn content(&self) -> (Vec<u8>, Vec<u8>) {
        if self.is_flat() {
            return (
                self.flat_content(),
                vec![0; self.elements() * self.dtype.size()],
            );
        }
        let kind = self.kind & !ALL;
        let mut random = Random::new(u64::from(kind) * 64 + u64::from(self.dtype.code()));
        let bits = 8 * u32::try_from(self.dtype.size()).unwrap();
        let (mut raw, mut base) = (Vec::new(), Vec::new());
        for element in 0..self.elements() {
            let (row, column) = (element / ROW, (element + 7) % ROW);
            // Below 1 and above 2^-8, of either sign, in every one of the dtypes.
            let weight = match self.dtype {
                DType::F8E4M3 => 0x20 | random.next() & 0x8F,
                DType::F64 => 0x3FC << 52 | random.next() & !(0x1FF << 54),
                _ => {
                    (0x38 | random.next() & 0x83) << (bits - 8)
                        | random.next() & ((1 << (bits - 8)) - 1)
                }
            };
            let there = match (kind & SCALED == 0, kind & FINE == 0) {
                (true, true) if self.has_skips() => random.below(150) == 0,
                (true, false) if self.has_skips() => element / 16 % 5 == 0 && random.below(20) != 0,
                (false, _) if self.has_skips() => random.below(3) == 0 && column < 16,
                (false, true) if self.kind & SHARED != 0 => random.below(3 + column % 7 * 4) == 0,
                (false, false) if self.kind & SHARED != 0 => random.below(2 + column % 4 * 4) != 0,
                (true, true) => random.below(12) == 0,
                (false, true) => column % 8 == 0 && row % 3 != 0,
                (true, false) => random.below(20) != 0,
                (false, false) => column % 3 != 0,
            };
            let change = match random.below(6) as u64 {
                _ if kind & FINE != 0 => 16,
                small => small.wrapping_sub(3),
            };
            // Words alone have long tails.
            let dense = match (kind & SCALED == 0, bits) {
                (true, _) => random.below(bits as usize) < 8,
                (false, 8 | 16) => random.below(2) == 0,
                (false, _) => random.below(3) == 0,
            };
            let (word, other) = match (self.delta, kind) {
                (_, STORED) => (random.next(), random.next()),
                (_, EQUAL) => (weight, weight),
                (true, _) if there => (weight.wrapping_add(change), weight),
                (true, _) => (weight, weight),
                (false, _) if there && dense => (weight, 0),
                (false, _) => (0, 0),
            };
            raw.extend(&word.to_le_bytes()[..self.dtype.size()]);
            base.extend(&other.to_le_bytes()[..self.dtype.size()]);
        }
        (raw, base)
    }

    fn has_skips(&self) -> bool {
        self.delta && self.kind & (SKIPS | 1) == SKIPS | 1
    }

    fn is_flat(&self) -> bool {
        !self.delta && self.kind & FLAT != 0
    }

    /// Words of any sign whose tails are of few values; now and then a zero of either sign, or one far outside the window.
    fn flat_content(&self) -> Vec<u8> {
        let mut random = Random::new(u64::from(self.dtype.code()));
        let size = self.dtype.size();
        let word = |element: usize| {
            let column = (element as u64 + 7) % ROW as u64;
            let exponent = if self.kind & SCALED == 0 {
                random.next()
            } else {
                column
            };
            let exponent = if self.dtype == DType::F64 {
                0
            } else {
                exponent % 4
            };
            let head = 0x38 | exponent | random.next() & 0x80;
            let tail = random.next() % 8 * 0x2469_1357_9BDF % (1 << (8 * size - 8));
            let top = 1 << (8 * size - 1);
            let word = match element % 7000 {
                6997 => 0,
                6998 => top,
                6999 => top - 2,
                _ => head << (8 * size - 8) | tail,
            };
            word.to_le_bytes()
        };
        let words = (0..self.elements()).map(word);
        words.flat_map(|word| word.into_iter().take(size)).collect()
    }

    fn chunk<'a>(&self, base: &'a [u8], shared: Option<&'a Shared>) -> Chunk<'a> {
        Chunk {
            dtype: self.dtype,
            row_len: self.row_len(),
            first_element: FIRST,
            base: self.delta.then_some(base),
            shared,
        }
    }

    /// A line of the list: name, hash of the chunk, of the base, of the payload.
    fn line(&self, raw: &[u8], base: &[u8], payload: &[u8]) -> String {
        let [raw, base, payload] = [raw, base, payload].map(|bytes| Hash::of(bytes).to_string());
        format!("{} {raw} {base} {payload}\n", self.name())
    }
}

#[test]
fn every_golden_payload_decodes_to_the_pinned_bytes() {
    let mut lines = String::new();
    for case in cases() {
        let (raw, base) = case.content_of_chunk();
        let shared = case.read_shared();
        let name = case.name();
        let payload = fs::read(directory().join("v1").join(&name)).unwrap();
        assert_eq!(payload[0], case.kind, "{name}");
        for isa in Isa::all() {
            let mut out = vec![0xAA; raw.len()];
            let scratch = &mut Scratch::default();
            let chunk = case.chunk(&base, shared.as_ref());
            let done = decode(isa, &chunk, &payload, &mut out, scratch);
            assert_eq!(done, Ok(()), "{name} {isa:?}");
            assert!(out == raw, "{name}: {isa:?} decodes otherwise");
        }
        lines += &case.line(&raw, &base, &payload);
    }
    let pinned = fs::read_to_string(directory().join("v1.txt")).unwrap();
    assert!(
        lines == pinned,
        "chunks, bases or payloads are others than those of the list"
    );
}

#[test]
fn the_list_of_golden_payloads_is_complete() {
    let names = |case: &Case| std::iter::once(case.name()).chain(case.shared_name());
    let wanted: BTreeSet<String> = cases().iter().flat_map(names).collect();
    let entries = fs::read_dir(directory().join("v1")).unwrap();
    let there = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(there.collect::<BTreeSet<_>>(), wanted);
    let kinds = |delta: bool| -> BTreeSet<u8> {
        let cases = cases().into_iter().filter(|case| case.delta == delta);
        cases.map(|case| case.kind).collect()
    };
    let alone = [0, 1, 3, 5, 7, 9, 11, 13, 15, 16];
    let shared = [3 | SHARED, 1 | ALL, 3 | ALL, 7 | ALL, 3 | FINE_TABLE | ALL];
    let skipping = [1 | SKIPS, 3 | SKIPS, 5 | SKIPS];
    let of_differences = alone.into_iter().chain(shared).chain(skipping);
    assert_eq!(kinds(true), of_differences.collect());
    let flat = [1 | FLAT, 3 | FLAT, 3 | FLAT | FINE_TABLE, 3 | FLAT | ALL];
    let in_words = [1, 3, 9, 11, 16, 3 | ALL];
    assert_eq!(kinds(false), in_words.into_iter().chain(flat).collect());
}

/// Writes the payloads of this version anew, and pins their chunks.
#[test]
#[ignore = "writes to testdata; only for a format that is not released"]
fn write_the_golden_payloads() {
    let target = directory().join("v1");
    let _ = fs::remove_dir_all(&target);
    fs::create_dir_all(&target).unwrap();
    let mut lines = String::new();
    for case in cases() {
        let (raw, base) = case.content_of_chunk();
        let shared = case.learn();
        let mut payload = Vec::new();
        let scratch = &mut Scratch::default();
        encode(
            Isa::Scalar,
            case.effort(),
            &case.chunk(&base, shared.as_ref()),
            &raw,
            scratch,
            &mut payload,
        );
        assert_eq!(payload[0], case.kind, "{} has another kind", case.name());
        fs::write(target.join(case.name()), &payload).unwrap();
        if let (Some(name), Some(shared)) = (case.shared_name(), shared) {
            fs::write(target.join(name), shared.to_bytes()).unwrap();
        }
        lines += &case.line(&raw, &base, &payload);
    }
    fs::write(directory().join("v1.txt"), lines).unwrap();
}
