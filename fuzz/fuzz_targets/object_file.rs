//! An object file, whatever is wrong with it, is refused or gives the bytes that its name stands for.
//!
//! The input chooses dtype, codec, length and base of an honest object of one chunk or of a short one behind others; the
//! rest is XORed over the file at a place that it also chooses. Two in three files are sealed again afterwards.
#![no_main]

#[path = "common/mod.rs"]
mod common;
#[path = "common/disk.rs"]
mod disk;

use std::path::Path;
use std::sync::Arc;

use common::{Input, any_dtype, base};
use disk::Files;
use zipllm::codec::{ChunkView, EncodeOptions, REGISTRY, Workspace};
use zipllm::dtype::DType;
use zipllm::hash::{ChainingValue, Hash, chunk_chaining_value, merge_chunks};
use zipllm::object_reader::ObjectReader;
use zipllm::store::object::{BaseRef, ChunkEntry, Frame, Head, checksum};
use zipllm::store::{Marker, Store, sealed};

/// The head of an object without bases; each base adds `BASE`.
const HEAD: usize = 36;
const BASE: usize = 60;

thread_local! {
    static WORKSPACE: std::cell::RefCell<Workspace> = std::cell::RefCell::default();
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    let codec = usize::from(input.byte()) % REGISTRY.len();
    let (dtype, mode) = (any_dtype(input.byte()), input.byte());
    let length = (1 + input.number() % 300) * dtype.size();
    let before = u64::from(mode >> 2 & 3);
    let based = REGISTRY[codec].uses_base();
    let files = Files::default();
    let root = Path::new("/store");
    files.put(
        root.join("zipllm.json"),
        sealed::to_bytes(&Marker::new()).unwrap(),
    );
    let Ok(store) = Store::open_on(Arc::new(files.clone()), root) else {
        panic!("the marker is refused");
    };
    let base = base(length);
    let base_name = Hash::of(&base);
    let (frame, payload) = object(dtype, 0, None, 0, base.clone(), &base);
    files.put(
        store.layout().object(&base_name),
        file(&base_name, &frame, payload),
    );

    let raw: Vec<u8> = base.iter().map(|b| b ^ (b >> 5) ^ 1).collect();
    let reference = based.then_some(base_name);
    // Without chunks in front, a base can be as long as the object.
    let before = if based { 0 } else { before };
    let (frame, payload) = object(dtype, codec, reference, before, base, &raw);
    let name = if before == 0 {
        Hash::of(&raw)
    } else {
        let values: Vec<ChainingValue> = frame.chunks.iter().map(|c| c.chaining_value).collect();
        merge_chunks(&values).unwrap()
    };
    let mut bytes = file(&name, &frame, payload);
    let at = input.number() % (bytes.len() + 1);
    let end = if mode & 3 == 3 {
        bytes.len()
    } else {
        bytes.len() - 8
    };
    let changed = input.0.iter().any(|&byte| byte != 0);
    bytes[..end]
        .iter_mut()
        .skip(at)
        .zip(input.0)
        .for_each(|(to, from)| *to ^= from);
    if mode & 3 < 2 {
        reseal(&name, &mut bytes);
    }
    if mode & 3 == 1 {
        bytes.truncate(bytes.len() - usize::from(mode >> 5));
    }
    files.put(store.layout().object(&name), bytes);

    let reader = ObjectReader::new(store);
    let Ok(object) = reader.open(&name) else {
        assert!(changed || mode & 3 == 1, "an honest file is refused");
        return;
    };
    let last = object.file.frame.head.chunk_count() - 1;
    let (_, length) = object.file.frame.head.chunk_range(last);
    if length > 8 << 20 {
        return;
    }
    let mut out = vec![0; length];
    match reader.read_chunk(&name, last, &mut out) {
        Ok(()) => assert!(out == raw, "wrong bytes are accepted"),
        Err(_) => assert!(changed, "an honest chunk is refused"),
    }
});

/// An object whose last chunk is `raw`, with `before` full chunks in front that nobody reads.
fn object(
    dtype: DType,
    codec: usize,
    reference: Option<Hash>,
    before: u64,
    base: Vec<u8>,
    raw: &[u8],
) -> (Frame, Vec<u8>) {
    let elements = (raw.len() / dtype.size()) as u64;
    let bases = reference.map(|name| BaseRef {
        name,
        dtype,
        start: 0,
        count: elements,
        target_start: 0,
    });
    let head = Head {
        codec: codec as u8,
        dtype,
        depth: u8::from(reference.is_some()),
        required: 0,
        optional: 0,
        raw_len: before * dtype.chunk_bytes() as u64 + raw.len() as u64,
        row_len: elements.min(20),
        shared_len: 0,
        bases: bases.into_iter().collect(),
    };
    let view = ChunkView {
        dtype,
        row_len: head.row_len,
        first_element: before << 20,
        base: reference.map(|_| &base[..]),
    };
    let mut payload = Vec::new();
    WORKSPACE.with_borrow_mut(|ws| {
        REGISTRY[codec].encode(&EncodeOptions::default(), &view, raw, ws, &mut payload);
    });
    let (offset, _) = head.chunk_range(before);
    let mut chunks: Vec<_> = (0..before)
        .map(|index| ChunkEntry {
            codec: 0,
            encoded_len: 0,
            checksum: checksum(&[]),
            chaining_value: [index as u8; 32],
        })
        .collect();
    chunks.push(ChunkEntry {
        codec: codec as u8,
        encoded_len: payload.len() as u32,
        checksum: checksum(&payload),
        chaining_value: if before == 0 {
            [0; 32]
        } else {
            chunk_chaining_value(offset, raw)
        },
    });
    (
        Frame {
            head,
            shared_checksum: [0; 8],
            chunks,
        },
        payload,
    )
}

fn file(name: &Hash, frame: &Frame, payload: Vec<u8>) -> Vec<u8> {
    [frame.head.to_bytes(), payload, frame.tail_bytes(name)].concat()
}

/// Writes the seal that head and table should have, as far as a reader of them would find one.
fn reseal(name: &Hash, bytes: &mut [u8]) {
    let Ok(head) = Head::parse(bytes) else {
        return;
    };
    let head_len = HEAD + BASE * head.bases.len();
    let (Ok(tail), length) = (usize::try_from(head.tail_len()), bytes.len()) else {
        return;
    };
    if tail < 8 || head_len + tail > length {
        return;
    }
    let table = &bytes[length - tail..length - 8];
    let seal = Hash::of(&[&name.as_bytes()[..], &bytes[..head_len], table].concat());
    bytes[length - 8..].copy_from_slice(&seal.as_bytes()[..8]);
}
