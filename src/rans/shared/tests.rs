//! What chunks have in common: learnt, written, read back; and chunks coded with it.

use super::super::tests::{Noise, contents, pack, word};
use super::super::{Chunk, Effort, Isa, Predict, Scratch, WIDE, decode, decode_predicted};
use super::super::{encode, encode_predicted};
use super::*;

const DTYPES: [DType; 4] = [DType::Bf16, DType::F16, DType::F32, DType::F64];
const ROW: usize = 96;
/// The bits of a kind that uses all that is shared.
const ALL: u8 = flags::SHARED | flags::SHARED_TABLES;

/// Rows of weights whose columns differ in size, and the same after training: that too differs by row and column.
fn pair(dtype: DType, rows: usize, seed: u64) -> (Vec<u8>, Vec<u8>) {
    let mut noise = Noise(seed);
    let (mut raw, mut base) = (Vec::new(), Vec::new());
    for at in 0..rows * ROW {
        let (row, column) = (at / ROW, at % ROW);
        let weight = noise.normal() * 0.02 * (1 + column % 5) as f64;
        let size = (1 + row % 3) << (column % 4);
        let change = noise.normal() * 1e-4 * size as f64;
        raw.push(word(dtype, weight + change));
        base.push(word(dtype, weight));
    }
    (pack(dtype, raw.into_iter()), pack(dtype, base.into_iter()))
}

fn sample<'a>(dtype: DType, raw: &'a [u8], base: Option<&'a [u8]>) -> Sample<'a> {
    Sample {
        dtype,
        row_len: ROW as u64,
        raw,
        base,
        hints: None,
    }
}

/// Learns from two samples; on every instruction set the same.
fn learn(effort: Effort, samples: [&Sample<'_>; 2], rows: u64) -> Option<Shared> {
    let learn = |isa| {
        let scratch = &mut Scratch::default();
        let mut learner = Learner::new(isa, effort);
        learner.add(samples[0], scratch);
        learner.finish(samples[1], rows * ROW as u64, scratch)
    };
    let first = learn(Isa::Scalar);
    let bytes = |shared: &Option<Shared>| shared.as_ref().map(Shared::to_bytes);
    for isa in Isa::all() {
        assert_eq!(bytes(&learn(isa)), bytes(&first), "{isa:?}");
    }
    first
}

/// What is learnt of a tensor of very many rows, so that what is written once costs a chunk next to nothing.
fn learnt(dtype: DType, effort: Effort, has_base: bool) -> Shared {
    let pairs = [pair(dtype, 600, 1), pair(dtype, 600, 2)];
    let [one, two] = [0, 1].map(|i: usize| {
        let (raw, base) = &pairs[i];
        sample(dtype, raw, has_base.then_some(base.as_slice()))
    });
    learn(effort, [&one, &two], 3_000_000).unwrap()
}

fn parsed(shared: &Shared) -> Shared {
    let parsed = Shared::parse(shared.dtype, shared.row_len, &shared.to_bytes()).unwrap();
    assert!(parsed.decodes_as(shared));
    parsed
}

/// Encodes on every instruction set, demands one payload, and decodes it on every set with what was parsed.
fn round_trip(shared: &Shared, effort: Effort, chunk: &Chunk<'_>, raw: &[u8]) -> Vec<u8> {
    let (parsed, scratch) = (parsed(shared), &mut Scratch::default());
    let with = |shared| Chunk {
        shared: Some(shared),
        ..*chunk
    };
    let mut payload = Vec::new();
    encode(
        Isa::Scalar,
        effort,
        &with(shared),
        raw,
        scratch,
        &mut payload,
    );
    for isa in Isa::all() {
        let mut again = vec![7];
        encode(isa, effort, &with(shared), raw, scratch, &mut again);
        assert!(again[1..] == payload, "{isa:?} encodes differently");
        let mut out = vec![0xAA; raw.len()];
        let done = decode(isa, &with(&parsed), &payload, &mut out, scratch);
        assert_eq!(done, Ok(()), "{isa:?}");
        assert!(out == raw, "{isa:?} decodes differently");
    }
    payload
}

fn chunk(dtype: DType, first_element: u64, base: Option<&[u8]>) -> Chunk<'_> {
    Chunk {
        dtype,
        row_len: ROW as u64,
        first_element,
        base,
        shared: None,
    }
}

fn alone(effort: Effort, chunk: &Chunk<'_>, raw: &[u8]) -> usize {
    let mut payload = Vec::new();
    let scratch = &mut Scratch::default();
    encode(Isa::detect(), effort, chunk, raw, scratch, &mut payload);
    payload.len()
}

#[test]
fn chunks_like_the_samples_use_all_of_it_and_take_less() {
    for dtype in DTYPES {
        for (effort, has_base) in [
            (Effort::Default, true),
            (Effort::Default, false),
            (Effort::Max, true),
        ] {
            let shared = learnt(dtype, effort, has_base);
            let is_flat = !has_base && shared.kind & flags::FLAT != 0;
            assert_eq!(is_flat, !has_base, "tails of words alone lie flat");
            let (raw, base) = pair(dtype, 370, 9);
            // It begins and ends within a row.
            let part = 31 * dtype.size()..(31 + 35_000) * dtype.size();
            let (raw, base) = (&raw[part.clone()], &base[part]);
            let chunk = chunk(dtype, 31, has_base.then_some(base));
            let payload = round_trip(&shared, effort, &chunk, raw);
            let what = format!("{dtype} {effort:?} {has_base}");
            assert_eq!(payload[0] & ALL, ALL, "{what}: kind {}", payload[0]);
            assert!(Shared::is_used_by(&payload));
            let alone = alone(effort, &chunk, raw);
            assert!(payload.len() < alone, "{what}: {} {alone}", payload.len());
        }
    }
}

#[test]
fn every_kind_of_content_comes_back_with_it() {
    for dtype in DTYPES {
        for has_base in [true, false] {
            let shared = learnt(dtype, Effort::Default, has_base);
            for elements in [1, 5, 95, 97, 4097, WIDE + 3] {
                for (name, raw, base) in contents(dtype, elements) {
                    let chunk = chunk(dtype, 77, has_base.then_some(&base[..]));
                    let payload = round_trip(&shared, Effort::Default, &chunk, &raw);
                    let what = format!("{name}, {elements} of {dtype}, {has_base}");
                    // What does not suit costs at most a chunk's share of what is written once, and what a doubt allows.
                    let alone = alone(Effort::Default, &chunk, &raw);
                    let most = alone + alone / 20 + shared.share(elements) + 150;
                    assert!(payload.len() <= most, "{what}: {} {alone}", payload.len());
                }
            }
        }
    }
}

#[test]
fn tables_that_do_not_suit_are_not_used() {
    let shared = learnt(DType::Bf16, Effort::Default, true);
    let (raw, base) = pair(DType::Bf16, 400, 5);
    // All changes four times as large, and half of them none.
    let words = raw.chunks_exact(2).zip(base.chunks_exact(2)).enumerate();
    let raw: Vec<u8> = words
        .flat_map(|(i, (raw, base))| {
            let [raw, base] = [raw, base].map(|word| u16::from_le_bytes([word[0], word[1]]));
            let change = raw
                .wrapping_sub(base)
                .wrapping_mul(if i % 2 == 0 { 4 } else { 0 });
            base.wrapping_add(change).to_le_bytes()
        })
        .collect();
    let chunk = chunk(DType::Bf16, 0, Some(&base));
    let payload = round_trip(&shared, Effort::Default, &chunk, &raw);
    assert_ne!(payload[0] & ALL, ALL, "kind {}", payload[0]);
    let alone = alone(Effort::Default, &chunk, &raw);
    assert!(
        payload.len() <= alone + alone / 100,
        "{} {alone}",
        payload.len()
    );
}

/// As where matrices are stacked: rows and tables are as in the samples, and only columns are others.
#[test]
fn columns_that_do_not_suit_are_not_used() {
    for (dtype, has_base) in [
        (DType::Bf16, true),
        (DType::Bf16, false),
        (DType::F32, true),
    ] {
        let shared = learnt(dtype, Effort::Default, has_base);
        let (mut raw, mut base) = pair(dtype, 400, 5);
        for bytes in [&mut raw, &mut base] {
            let rows = bytes.chunks_exact_mut(ROW * dtype.size());
            rows.for_each(|row| row.rotate_left(2 * dtype.size()));
        }
        let chunk = chunk(dtype, 0, has_base.then_some(&base[..]));
        let payload = round_trip(&shared, Effort::Default, &chunk, &raw);
        let alone = alone(Effort::Default, &chunk, &raw);
        let what = format!("{dtype} {has_base}: {} {alone}", payload.len());
        assert!(payload.len() <= alone, "{what}");
        assert_eq!(payload[0] & ALL, 0, "{what}");
    }
}

#[test]
fn at_the_highest_effort_no_chunk_is_larger_than_alone() {
    let shared = learnt(DType::Bf16, Effort::Max, true);
    for (name, raw, base) in contents(DType::Bf16, WIDE + 500) {
        let chunk = chunk(DType::Bf16, 0, Some(&base));
        let payload = round_trip(&shared, Effort::Max, &chunk, &raw);
        assert!(payload.len() <= alone(Effort::Max, &chunk, &raw), "{name}");
    }
}

/// Foretells elements a little above the base's.
struct Above;

impl Predict for Above {
    fn predict(&self, start: usize, base: &[u8], predicted: &mut [u8], hints: &mut [u8]) {
        predicted.copy_from_slice(base);
        for (i, hint) in hints.iter_mut().enumerate() {
            let at = start + i;
            predicted[2 * i] ^= 1;
            *hint = ((at * at % 11) as u8 & 7) | ((at % 2) as u8) << 7;
        }
    }
}

#[test]
fn predicted_chunks_have_phases_in_common() {
    let predict = |(raw, base): (Vec<u8>, Vec<u8>)| {
        let (mut predicted, mut hints) = (base.clone(), vec![0; base.len() / 2]);
        Above.predict(0, &base, &mut predicted, &mut hints);
        (raw, predicted, hints)
    };
    let pairs = [1, 2].map(|seed| predict(pair(DType::Bf16, 300, seed)));
    let [one, two] = [0, 1].map(|i: usize| Sample {
        hints: Some(&pairs[i].2),
        ..sample(DType::Bf16, &pairs[i].0, Some(&pairs[i].1))
    });
    let shared = learn(Effort::Default, [&one, &two], 30_000).unwrap();
    let (raw, base) = pair(DType::Bf16, 340, 9);
    let chunk = Chunk {
        shared: Some(&shared),
        ..chunk(DType::Bf16, 0, Some(&base))
    };
    let (parsed, scratch) = (parsed(&shared), &mut Scratch::default());
    let mut payload = Vec::new();
    encode_predicted(
        Isa::Scalar,
        Effort::Default,
        &chunk,
        &Above,
        &raw,
        scratch,
        &mut payload,
    );
    assert_eq!(
        payload[0] & (ALL | flags::PHASED),
        ALL | flags::PHASED,
        "kind {}",
        payload[0]
    );
    for isa in Isa::all() {
        let mut again = Vec::new();
        encode_predicted(
            isa,
            Effort::Default,
            &chunk,
            &Above,
            &raw,
            scratch,
            &mut again,
        );
        assert!(again == payload, "{isa:?}");
        let chunk = Chunk {
            shared: Some(&parsed),
            ..chunk
        };
        let mut out = vec![0; raw.len()];
        let done = decode_predicted(isa, &chunk, &Above, &payload, &mut out, scratch);
        assert_eq!(done, Ok(()), "{isa:?}");
        assert!(out == raw, "{isa:?}");
    }
}

#[test]
fn a_payload_without_what_it_needs_is_refused() {
    let shared = learnt(DType::Bf16, Effort::Default, true);
    let (raw, base) = pair(DType::Bf16, 400, 3);
    let chunk = chunk(DType::Bf16, 0, Some(&base));
    let payload = round_trip(&shared, Effort::Default, &chunk, &raw);
    let max = parsed(&learnt(DType::Bf16, Effort::Max, true));
    let alone = parsed(&learnt(DType::Bf16, Effort::Default, false));
    let other = parsed(&learnt(DType::F16, Effort::Default, true));
    let longer = Shared {
        row_len: 2 * ROW as u64,
        ..parsed(&shared)
    };
    let scratch = &mut Scratch::default();
    let mut out = vec![0; raw.len()];
    for with in [None, Some(&max), Some(&alone), Some(&other), Some(&longer)] {
        let chunk = Chunk {
            shared: with,
            ..chunk
        };
        let done = decode(Isa::detect(), &chunk, &payload, &mut out, scratch);
        assert_eq!(done, Err(Bad::Malformed("shared section")));
    }
    let mut tables_alone = payload;
    tables_alone[0] &= !flags::SHARED;
    let done = decode(Isa::detect(), &chunk, &tables_alone, &mut out, scratch);
    assert_eq!(done, Err(Bad::Malformed("kind")));
}

#[test]
fn nothing_is_learnt_where_nothing_is_in_common() {
    let (raw, base) = pair(DType::Bf16, 300, 1);
    let whole = sample(DType::Bf16, &raw, Some(&base));
    let learn = |effort, sample: &Sample<'_>| learn(effort, [sample, sample], 1000).is_some();
    assert!(learn(Effort::Default, &whole));
    let cases = [
        (Effort::Fast, whole),
        (
            Effort::Default,
            sample(DType::Bf16, &raw[..2 * ROW * 15], None),
        ),
        (
            Effort::Default,
            sample(DType::Bf16, &raw[..raw.len() - 1], None),
        ),
        (Effort::Default, sample(DType::Bf16, &raw, Some(&base[2..]))),
        (Effort::Default, sample(DType::Bf16, &raw, Some(&raw))),
        (Effort::Default, sample(DType::F8E4M3, &raw, None)),
        (Effort::Default, sample(DType::I32, &raw, None)),
        (
            Effort::Default,
            Sample {
                row_len: 0,
                ..whole
            },
        ),
        (
            Effort::Default,
            Sample {
                row_len: 8,
                ..whole
            },
        ),
        (
            Effort::Default,
            Sample {
                row_len: 1 << 21,
                ..whole
            },
        ),
    ];
    for (effort, sample) in cases {
        assert!(!learn(effort, &sample), "{effort:?} {sample:?}");
    }
}

#[test]
fn any_bytes_are_parsed_or_refused() {
    for has_base in [true, false] {
        let shared = learnt(DType::Bf16, Effort::Default, has_base);
        let bytes = shared.to_bytes();
        let parse = |bytes: &[u8]| Shared::parse(DType::Bf16, ROW as u64, bytes);
        for end in 0..bytes.len() {
            assert!(parse(&bytes[..end]).is_err(), "{end}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(parse(&longer).map(drop), Err(Bad::Trailing));
        for (at, byte, why) in [
            (0, 2, "kind"),
            (1, 0, "kind"),
            (1, 67, "kind"),
            (3, 255, "window"),
        ] {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            assert_eq!(
                parse(&bytes).map(drop),
                Err(Bad::Malformed(why)),
                "{at} {byte}"
            );
        }
        let other = |dtype, row_len| Shared::parse(dtype, row_len, &bytes).map(drop);
        assert_eq!(
            other(DType::F8E4M3, 96),
            Err(Bad::Malformed("element type"))
        );
        assert_eq!(other(DType::Bf16, 0), Err(Bad::Malformed("scales")));
        assert_eq!(other(DType::Bf16, u64::MAX), Err(Bad::Malformed("scales")));
        let mut noise = Noise(8);
        let (raw, base) = pair(DType::Bf16, 50, 4);
        let chunk = chunk(DType::Bf16, 0, has_base.then_some(&base[..]));
        let payload = round_trip(&shared, Effort::Default, &chunk, &raw);
        let scratch = &mut Scratch::default();
        for _ in 0..2000 {
            let mut bytes = bytes.clone();
            let at = noise.next() as usize % bytes.len();
            bytes[at] ^= noise.next() as u8;
            let Ok(changed) = parse(&bytes) else { continue };
            let chunk = Chunk {
                shared: Some(&changed),
                ..chunk
            };
            let mut outs = Isa::all().into_iter().map(|isa| {
                let mut out = vec![0; raw.len()];
                let done = decode(isa, &chunk, &payload, &mut out, scratch);
                done.ok().map(|()| out)
            });
            let first = outs.next().unwrap();
            assert!(outs.all(|out| out == first));
        }
    }
}
