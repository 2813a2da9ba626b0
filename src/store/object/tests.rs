//! Frames there and back, and what is wrong with them.

use super::FrameError::{Corrupt, Newer};
use super::*;
use crate::hash::Hash;

fn sample(raw: &[u8], base: bool) -> (Hash, Frame) {
    let name = Hash::of(raw);
    let bases = base.then(|| BaseRef {
        name: Hash::of(b"base"),
        dtype: DType::Bf16,
        start: 0,
        count: raw.len() as u64 / 2,
        target_start: 0,
    });
    let head = Head {
        codec: 2,
        dtype: DType::Bf16,
        depth: u8::from(base),
        required: 0,
        optional: 0,
        raw_len: raw.len() as u64,
        row_len: 3,
        shared_len: 0,
        bases: bases.into_iter().collect(),
    };
    let size = DType::Bf16.chunk_bytes();
    let chunks = raw
        .chunks(size)
        .enumerate()
        .map(|(i, chunk)| ChunkEntry {
            codec: 2,
            encoded_len: 7,
            checksum: checksum(chunk),
            chaining_value: if raw.len() > size {
                crate::hash::chunk_chaining_value((i * size) as u64, chunk)
            } else {
                [0; 32]
            },
        })
        .collect();
    (
        name,
        Frame {
            head,
            shared_checksum: [0; 8],
            chunks,
        },
    )
}

fn parse(name: &Hash, frame: &Frame) -> Result<Frame, FrameError> {
    let head = Head::parse(&frame.head.to_bytes())?;
    Frame::parse_tail(name, head, &frame.tail_bytes(name), frame.file_len())
}

#[test]
fn frames_round_trip_and_stay_small() {
    for base in [false, true] {
        for len in [
            6usize,
            DType::Bf16.chunk_bytes(),
            DType::Bf16.chunk_bytes() * 2 + 2,
        ] {
            let (name, frame) = sample(&vec![1u8; len], base);
            assert_eq!(parse(&name, &frame).unwrap(), frame);
            let overhead = frame.file_len() - frame.encoded_bytes();
            assert!(
                overhead <= 128 + 48 * frame.chunks.len() as u64,
                "{overhead}"
            );
            if !base && frame.chunks.len() == 1 {
                assert!(overhead <= 64, "{overhead}");
            }
        }
    }
}

#[test]
fn every_flipped_bit_of_head_and_tail_is_found() {
    for base in [false, true] {
        let (name, frame) = sample(&[1u8; 6], base);
        let (head, tail) = (frame.head.to_bytes(), frame.tail_bytes(&name));
        for bit in 0..(head.len() + tail.len()) * 8 {
            let (mut head, mut tail) = (head.clone(), tail.clone());
            let at = bit / 8;
            if at < head.len() {
                head[at] ^= 1 << (bit % 8);
            } else {
                tail[at - head.len()] ^= 1 << (bit % 8);
            }
            let parsed = Head::parse(&head)
                .and_then(|h| Frame::parse_tail(&name, h, &tail, frame.file_len()));
            assert!(parsed.is_err(), "bit {bit}");
        }
    }
}

#[test]
fn a_frame_under_another_name_is_refused() {
    let (name, frame) = sample(&[1u8; 6], false);
    let tail = frame.tail_bytes(&name);
    let other = Hash::of(b"other");
    assert!(Frame::parse_tail(&other, frame.head.clone(), &tail, frame.file_len()).is_err());
}

#[test]
fn predicted_parts_need_parts_and_factors() {
    let (_, frame) = sample(&[1u8; 6], true);
    let with = |required, shared_len| {
        let head = Head {
            required,
            shared_len,
            ..frame.head.clone()
        };
        Head::parse(&head.to_bytes()).map(|_| ())
    };
    assert_eq!(with(PARTS | PREDICTED_PARTS, 1), Ok(()));
    assert_eq!(
        with(PARTS | PREDICTED_PARTS, 0),
        Err(Corrupt("nothing to predict parts with"))
    );
    assert_eq!(
        with(PREDICTED_PARTS, 1),
        Err(Corrupt("predicted parts without parts"))
    );
}

#[test]
fn newer_objects_are_named_as_such() {
    let (_, frame) = sample(&[1u8; 6], false);
    let mut bytes = frame.head.to_bytes();
    bytes[4] = 2;
    assert_eq!(
        Head::parse(&bytes),
        Err(Newer("object format version 2".into()))
    );
    bytes[4] = 1;
    bytes[10] = 4;
    assert!(matches!(Head::parse(&bytes), Err(Newer(what)) if what.contains("features")));
}

/// The seal is right and the table is not: whoever wrote it did not have the bytes.
#[test]
fn a_table_that_does_not_give_the_name_is_refused() {
    let (name, mut frame) = sample(&vec![1u8; DType::Bf16.chunk_bytes() + 2], false);
    frame.chunks[1].chaining_value[0] ^= 1;
    assert_eq!(
        parse(&name, &frame),
        Err(Corrupt("chunk table does not give the name"))
    );
}
