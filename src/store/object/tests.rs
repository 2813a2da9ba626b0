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
fn what_chunks_have_in_common_has_to_be_there() {
    let (_, frame) = sample(&[1u8; 6], false);
    let with = |more, shared_len| {
        let head = Head {
            required: COMMON | more,
            shared_len,
            ..frame.head.clone()
        };
        Head::parse(&head.to_bytes()).map(|_| ())
    };
    assert_eq!(with(0, 4), Ok(()));
    assert_eq!(with(0, 0), Err(Corrupt("nothing in common")));
    assert_eq!(with(PARTS, 4), Err(Corrupt("nothing in common")));
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
    bytes[10] = u8::try_from(KNOWN_FEATURES + 1).unwrap();
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

/// A head of `raw_len` bytes of BF16 with these bases: their first element, count, and place in the object.
fn head_of(required: u16, raw_len: u64, bases: &[(u64, u64, u64)]) -> Head {
    let base = |&(start, count, target_start): &(u64, u64, u64)| BaseRef {
        name: Hash::of(b"base"),
        dtype: DType::Bf16,
        start,
        count,
        target_start,
    };
    Head {
        required,
        raw_len,
        depth: u8::from(!bases.is_empty()),
        bases: bases.iter().map(base).collect(),
        ..sample(&[1; 6], false).1.head
    }
}

/// Why a head is refused, if it is; one that is not has to be the same again.
fn refused(head: &Head) -> Option<&'static str> {
    match Head::parse(&head.to_bytes()) {
        Err(Corrupt(reason)) => Some(reason),
        again => {
            assert_eq!(again.as_ref(), Ok(head));
            None
        }
    }
}

#[test]
fn heads_are_taken_up_to_their_limits() {
    let plain = head_of(0, 6, &[]);
    let deep = head_of(0, 6, &[(0, 3, 0)]);
    let many = head_of(PARTS, 40, &[(0, 1, 0); 1]);
    let parts = |count: u64| Head {
        bases: (0..count)
            .map(|at| BaseRef {
                target_start: at,
                ..many.bases[0].clone()
            })
            .collect(),
        ..many.clone()
    };
    let length = Some("impossible length");
    let depth = Some("impossible depth");
    for (head, want) in [
        (
            Head {
                raw_len: 0,
                row_len: 0,
                ..plain.clone()
            },
            length,
        ),
        (
            Head {
                raw_len: 7,
                ..plain.clone()
            },
            length,
        ),
        (
            Head {
                row_len: 4,
                ..plain.clone()
            },
            length,
        ),
        (
            Head {
                shared_len: MAX_SHARED,
                ..plain.clone()
            },
            None,
        ),
        (
            Head {
                shared_len: MAX_SHARED + 1,
                ..plain.clone()
            },
            Some("shared section over 64 MiB"),
        ),
        (
            Head {
                depth: MAX_DEPTH,
                ..deep.clone()
            },
            None,
        ),
        (
            Head {
                depth: MAX_DEPTH + 1,
                ..deep.clone()
            },
            depth,
        ),
        (Head { depth: 0, ..deep }, depth),
        (Head { depth: 1, ..plain }, depth),
        (parts(16), None),
        (parts(17), Some("malformed head")),
    ] {
        assert_eq!(refused(&head), want, "{head:?}");
    }
}

#[test]
fn bases_cover_the_object_or_lie_within_it_in_order() {
    let part = Some("a base that does not fit the object");
    let whole = Some("a base that does not cover the object");
    for (required, bases, want) in [
        (0, vec![(0, 10, 0)], None),
        (0, vec![(1, 10, 0)], whole),
        (0, vec![(0, 9, 0)], whole),
        (0, vec![(0, 10, 1)], whole),
        (0, vec![(0, 10, 0); 2], whole),
        (PARTS, vec![(7, 3, 0), (0, 7, 3)], None),
        (PARTS, vec![(7, 3, 0), (0, 7, 2)], part),
        (PARTS, vec![(0, 3, 8)], part),
        (PARTS, vec![(0, 0, 8)], part),
        (PARTS, vec![(0, u64::MAX, 8)], part),
    ] {
        assert_eq!(refused(&head_of(required, 20, &bases)), want, "{bases:?}");
    }
    let mut head = head_of(PARTS, 20, &[(0, 3, 0), (0, 3, 4)]);
    head.bases[1].name = Hash::of(b"another");
    assert_eq!(refused(&head), part);
    let mut head = head_of(PARTS, 20, &[(0, 3, 0)]);
    head.bases[0].dtype = DType::F32;
    assert_eq!(refused(&head), None);
    head.bases[0].dtype = DType::I32;
    assert_eq!(refused(&head), part);
}

#[test]
fn a_base_has_the_length_of_the_object_or_of_the_parts() {
    let whole = head_of(0, 20, &[(0, 10, 0)]);
    let mut parts = head_of(PARTS, 20, &[(4, 3, 0), (7, 5, 3)]);
    for (head, length, want) in [
        (&whole, 20, true),
        (&whole, 18, false),
        (&whole, 22, false),
        (&parts, 23, false),
        (&parts, 24, true),
        (&parts, 30, true),
    ] {
        assert_eq!(head.fits_base(length), want, "{length}");
    }
    parts.bases[0].start = u64::MAX;
    assert!(!parts.fits_base(u64::MAX));
    parts.bases[0].start = u64::MAX / 2;
    assert!(!parts.fits_base(u64::MAX));
}

#[test]
fn lengths_are_those_of_the_bytes() {
    let chunk = DType::Bf16.chunk_bytes();
    for (len, shared_len) in [
        (6, 0),
        (6, 5),
        (chunk, 5),
        (chunk + 2, 0),
        (2 * chunk + 2, 5),
    ] {
        for base in [false, true] {
            let (name, mut frame) = sample(&vec![1; len], base);
            frame.head.shared_len = shared_len;
            frame.shared_checksum = if shared_len > 0 { [7; 8] } else { [0; 8] };
            let (head, tail) = (frame.head.to_bytes(), frame.tail_bytes(&name));
            let payloads = 7 * frame.chunks.len() as u64;
            let before = head.len() as u64 + u64::from(shared_len);
            assert_eq!(frame.head.encoded_len(), head.len());
            assert_eq!(frame.head.tail_len(), tail.len() as u64);
            assert_eq!(frame.encoded_bytes(), payloads);
            assert_eq!(frame.payload_start(), before);
            assert_eq!(frame.file_len(), before + payloads + tail.len() as u64);
            assert_eq!(is_chunked(len as u64, DType::Bf16), frame.chunks.len() > 1);
            assert_eq!(parse(&name, &frame), Ok(frame));
        }
    }
}

#[test]
fn chunks_tile_the_object() {
    let size = DType::Bf16.chunk_bytes() as u64;
    let head = head_of(0, 2 * size + 6, &[]);
    let ranges: Vec<_> = (0..5).map(|index| head.chunk_range(index)).collect();
    let full = usize::try_from(size).unwrap();
    let end = 2 * size + 6;
    let want = [(0, full), (size, full), (2 * size, 6), (end, 0), (end, 0)];
    assert_eq!(ranges, want);
    assert_eq!(head.chunk_range(u64::MAX), (end, 0));
    assert_eq!(head.elements(), size + 3);
}
