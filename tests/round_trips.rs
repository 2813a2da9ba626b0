//! Every codec gives back every chunk: dtypes, lengths, contents, efforts, instruction sets, threads.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking"
)]

#[path = "common/contents.rs"]
mod contents;
#[path = "common/disk.rs"]
mod disk;
#[path = "common/random.rs"]
mod random;
#[path = "common/small.rs"]
mod small;
#[path = "common/tensors.rs"]
mod tensors;

use std::collections::BTreeMap;

use contents::{KINDS, content};
use zipllm::codec::select::Family;
use zipllm::codec::{
    ChunkView, Codec, CodecId, EncodeOptions, Prepared, REGISTRY, Workspace, encode_chunk, find,
};
use zipllm::dtype::DType;
use zipllm::rans::{self, Chunk, Effort, Isa, Scratch};
use zipllm::store::index::Record;

const EFFORTS: [Effort; 3] = [Effort::Fast, Effort::Default, Effort::Max];

/// Memory that all cases use after one another, as a program does.
#[derive(Default)]
struct Used {
    scratch: Scratch,
    workspace: Workspace,
    cases: usize,
}

/// One chunk, with and without its base.
struct Case {
    what: String,
    dtype: DType,
    raw: Vec<u8>,
    base: Vec<u8>,
    row_len: u64,
}

impl Case {
    fn new(dtype: DType, elements: usize, kind: usize) -> Self {
        let (raw, base) = content(kind, dtype, elements, elements as u64);
        Self {
            what: format!("{elements} of {dtype}, {}", KINDS[kind]),
            dtype,
            raw,
            base,
            row_len: 1 + elements as u64 / 40,
        }
    }

    fn view(&self, with_base: bool) -> ChunkView<'_> {
        ChunkView {
            dtype: self.dtype,
            row_len: self.row_len,
            first_element: 5,
            base: with_base.then_some(&self.base[..]),
        }
    }

    /// One payload from every instruction set, and the chunk from every one.
    fn through_the_coder(&self, with_base: bool, effort: Effort, used: &mut Used) {
        let view = self.view(with_base);
        let chunk = Chunk {
            dtype: view.dtype,
            row_len: view.row_len,
            first_element: view.first_element,
            base: view.base,
            shared: None,
        };
        let what = || format!("{}, base {with_base}, {effort:?}", self.what);
        let mut payload: Option<Vec<u8>> = None;
        for isa in Isa::all() {
            let (mut coded, mut out) = (Vec::new(), vec![0xAA; self.raw.len()]);
            let scratch = &mut used.scratch;
            rans::encode(isa, effort, &chunk, &self.raw, scratch, &mut coded);
            assert!(coded.len() <= self.raw.len() + 1, "{}", what());
            let first = payload.get_or_insert_with(|| coded.clone());
            assert!(*first == coded, "{}: {isa:?} encodes otherwise", what());
            let done = rans::decode(isa, &chunk, &coded, &mut out, scratch);
            assert_eq!(done, Ok(()), "{} {isa:?}", what());
            assert!(out == self.raw, "{}: {isa:?} decodes otherwise", what());
        }
        used.cases += 1;
    }

    fn comes_back(&self, codec: &dyn Codec, view: &ChunkView<'_>, payload: &[u8], used: &mut Used) {
        let mut out = vec![0xAA; self.raw.len()];
        let done = codec.decode(
            &Prepared::default(),
            view,
            payload,
            &mut out,
            &mut used.workspace,
        );
        assert_eq!(done, Ok(()), "{} {}", self.what, codec.name());
        assert!(out == self.raw, "{}: {}", self.what, codec.name());
        used.cases += 1;
    }

    /// Whatever codec is chosen, the chunk comes back and has not grown.
    fn through_the_chosen(&self, with_base: bool, options: &EncodeOptions, used: &mut Used) {
        let view = self.view(with_base);
        let mut payload = Vec::new();
        let id = encode_chunk(options, &view, &self.raw, &mut used.workspace, &mut payload);
        assert!(payload.len() <= self.raw.len(), "{} grew", self.what);
        self.comes_back(find(id).unwrap(), &view, &payload, used);
    }

    /// Each codec that applies, chosen or not.
    fn through_each_codec(&self, effort: Effort, used: &mut Used) {
        let options = options(Family::Auto, effort);
        for codec in REGISTRY {
            let view = self.view(codec.uses_base());
            let mut payload = Vec::new();
            let ws = &mut used.workspace;
            codec.encode(&options, &view, &self.raw, ws, &mut payload);
            self.comes_back(codec, &view, &payload, used);
        }
    }
}

fn options(family: Family, effort: Effort) -> EncodeOptions {
    EncodeOptions {
        family,
        effort,
        ..EncodeOptions::default()
    }
}

fn floats() -> impl Iterator<Item = DType> {
    DType::all().filter(|dtype| rans::takes(*dtype))
}

#[test]
fn every_length_of_bf16() {
    let mut used = Used::default();
    for elements in 0..=4097 {
        let case = Case::new(DType::Bf16, elements, elements % KINDS.len());
        let effort = EFFORTS[elements / KINDS.len() % 3];
        for with_base in [true, false] {
            case.through_the_coder(with_base, effort, &mut used);
        }
    }
    println!("{} cases", used.cases);
}

#[test]
fn every_float_and_content_at_chosen_lengths() {
    let mut used = Used::default();
    // All small ones, those around groups of lanes, and those from which row and column scales are fitted.
    let lengths = (0..=18).chain([63, 64, 65, 127, 129, 1000, 4095, 4096, 4097]);
    for (dtype, elements) in floats().flat_map(|dtype| lengths.clone().map(move |n| (dtype, n))) {
        for kind in 0..KINDS.len() {
            let case = Case::new(dtype, elements, kind);
            let efforts = if elements < 4095 {
                &EFFORTS[kind % 3..=kind % 3]
            } else {
                &EFFORTS[..]
            };
            for effort in efforts {
                case.through_the_coder(true, *effort, &mut used);
                case.through_the_coder(false, *effort, &mut used);
            }
        }
    }
    println!("{} cases", used.cases);
}

#[test]
fn every_dtype_family_and_effort() {
    let mut used = Used::default();
    for dtype in DType::all() {
        let lengths = (0..=12).chain((13..4097).step_by(241)).chain([4096, 4097]);
        for (number, elements) in lengths.enumerate() {
            for kind in 0..KINDS.len() {
                let case = Case::new(dtype, elements, kind);
                let effort = EFFORTS[(number + kind) % 3];
                for family in [Family::Auto, Family::BitX] {
                    let options = options(family, effort);
                    case.through_the_chosen(kind.is_multiple_of(2), &options, &mut used);
                }
                case.through_each_codec(effort, &mut used);
            }
        }
    }
    println!("{} cases", used.cases);
}

#[test]
fn chunks_that_end_within_an_element() {
    let mut used = Used::default();
    for dtype in DType::all().filter(|dtype| dtype.size() > 1) {
        for cut in 1..dtype.size() {
            let mut case = Case::new(dtype, 700, 0);
            case.raw.truncate(case.raw.len() - cut);
            case.base.truncate(case.raw.len());
            for (with_base, effort) in [true, false].into_iter().zip(EFFORTS) {
                case.through_the_coder(with_base, effort, &mut used);
                case.through_the_chosen(with_base, &options(Family::Auto, effort), &mut used);
            }
        }
    }
}

/// Payloads do not depend on the thread, nor on what its memory was used for before.
#[test]
fn payloads_are_the_same_on_every_thread() {
    let cases: Vec<Case> = DType::all()
        .flat_map(|dtype| (0..KINDS.len()).map(move |kind| (dtype, kind)))
        .map(|(dtype, kind)| Case::new(dtype, [4200, 90, 33_000][kind % 3], kind))
        .collect();
    let encode = |case: &Case, number: usize, ws: &mut Workspace| -> (CodecId, Vec<u8>) {
        let options = options(Family::Auto, EFFORTS[number % 3]);
        let mut payload = Vec::new();
        let view = case.view(!number.is_multiple_of(4));
        let id = encode_chunk(&options, &view, &case.raw, ws, &mut payload);
        (id, payload)
    };
    let fresh: Vec<_> = cases
        .iter()
        .enumerate()
        .map(|(number, case)| encode(case, number, &mut Workspace::default()))
        .collect();
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (cases, fresh) = (&cases, &fresh);
            scope.spawn(move || {
                let mut ws = Workspace::default();
                for step in 0..cases.len() {
                    // Each thread in an order of its own; 7 and 11 share no factor with the number of cases.
                    let number = (step * [1, 7, 11][thread] + thread * 50) % cases.len();
                    let payload = encode(&cases[number], number, &mut ws);
                    assert!(payload == fresh[number], "{}", cases[number].what);
                }
            });
        }
    });
}

/// A safetensors file with tensors of every dtype and content, and two of several chunks that nothing makes smaller; or
/// that of the base.
fn model(of_base: bool) -> Vec<u8> {
    let mut all = Vec::new();
    for dtype in DType::all().filter(|dtype| *dtype != DType::Opaque) {
        for (kind, name) in KINDS.iter().enumerate() {
            for elements in [1, 700] {
                let (raw, base) = content(kind, dtype, elements, 3);
                let bytes = if of_base { base } else { raw };
                all.push((format!("{dtype} {name} {elements}"), dtype, bytes));
            }
        }
    }
    for dtype in [DType::U8, DType::F8E5M2] {
        let (raw, base) = content(8, dtype, (2 << 20) + 1, 3);
        let bytes = if of_base { base } else { raw };
        all.push((format!("{dtype} long"), dtype, bytes));
    }
    let shapes: Vec<_> = all
        .iter()
        .map(|(_, dtype, bytes)| [(bytes.len() / dtype.size()) as u64])
        .collect();
    let tensors: Vec<tensors::Tensor<'_>> = all
        .iter()
        .zip(&shapes)
        .map(|((name, dtype, bytes), shape)| (&name[..], dtype.name(), &shape[..], &bytes[..]))
        .collect();
    tensors::safetensors(&tensors)
}

#[test]
fn no_object_file_is_much_longer_than_its_object() {
    let models = [("base", true), ("tune", false)].map(|(name, of_base)| {
        let files = small::Files::from([("m.safetensors".into(), (model(of_base), false))]);
        (name.to_owned(), files)
    });
    let jobs = vec![small::job("base", None), small::job("tune", Some("base"))];
    let mut family = small::Family::of(BTreeMap::from(models), jobs);
    let mut worst = 0;
    for (choice, effort) in [(Family::BitX, Effort::Default), (Family::Auto, Effort::Max)] {
        family.encode = options(choice, effort);
        let disk = disk::MemDisk::new(&family.store());
        family.ingest(&disk);
        family.assert_whole(&disk, "every content");
        let index = family.open(&disk).unwrap().index().unwrap();
        assert!(index.len() > 500 && index.values().any(|record| record.depth > 0));
        for Record {
            raw_len,
            stored_len,
            dtype,
            ..
        } in index.values()
        {
            let chunks = raw_len.div_ceil(dtype.chunk_bytes() as u64);
            assert!(
                *stored_len <= raw_len + 128 + 48 * chunks,
                "{stored_len} for {raw_len}"
            );
            worst = worst.max(stored_len.saturating_sub(raw_len + 48 * chunks));
        }
    }
    println!("at most {worst} bytes and 48 a chunk more");
}
