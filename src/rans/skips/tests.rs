//! Chunks with skips come back, on every instruction set alike; whatever else has the bit is refused.

use super::super::kernel::{Isa, RUN};
use super::super::tests::{Noise, check, chunk, pack, word};
use super::super::{Bad, Chunk, Effort, Learner, Predict, Sample, Scratch, Shared, WIDE};
use super::super::{decode, decode_predicted, encode, encode_predicted, flags, has_skips};
use super::{elements_of, gather, numbers, pay, scatter};
use crate::dtype::DType;

const DTYPES: [DType; 8] = [
    DType::Bf16,
    DType::F16,
    DType::F32,
    DType::F64,
    DType::F8E4M3,
    DType::F8E5M2,
    DType::Bool,
    DType::U8,
];

/// A chunk and its base, of which about one element in `rare` differs: by little, or by anything.
fn nearly_equal(dtype: DType, elements: usize, rare: u64) -> (Vec<u8>, Vec<u8>) {
    let mut noise = Noise(elements as u64 ^ rare);
    let base: Vec<u64> = (0..elements)
        .map(|_| word(dtype, noise.normal() * 0.02))
        .collect();
    let change = |&word: &u64| match noise.next() {
        x if !x.is_multiple_of(rare) => word,
        x if x >> 60 == 0 => noise.next(),
        x => word ^ (1 + (x >> 20 & 3)),
    };
    let raw: Vec<u64> = base.iter().map(change).collect();
    let [raw, base] = [raw, base].map(|words| pack(dtype, words.into_iter()));
    (raw, base)
}

#[test]
fn nearly_equal_chunks_come_back_with_skips() {
    for dtype in DTYPES {
        for (elements, row_len, rare) in [
            (WIDE, 0, 300),
            (WIDE + 1, 0, 300),
            (WIDE + 15, 128, 500),
            (WIDE + 16, 1000, 100),
            (WIDE + 1039, 97, 3000),
            (70_003, 256, 200),
        ] {
            let (raw, base) = nearly_equal(dtype, elements, rare);
            let chunk = chunk(dtype, row_len, 5, Some(&base));
            for effort in [Effort::Fast, Effort::Default, Effort::Max] {
                let what = format!("{elements} of {dtype}, {effort:?}");
                let payload = check(&chunk, effort, &raw, &what);
                assert_eq!(has_skips(&payload), effort != Effort::Max, "{what}");
            }
        }
    }
}

#[test]
fn skips_go_with_scales() {
    let (elements, row_len) = (1 << 19, 256);
    let (raw, base) = nearly_equal(DType::Bf16, elements, 2);
    let mut noise = Noise(2);
    // The farther to the right, the rarer.
    let raw: Vec<u8> = (0..elements)
        .flat_map(|i| {
            let rare = noise.next().is_multiple_of(4 << (i % row_len / 16));
            let from = if rare { &raw } else { &base };
            from[2 * i..][..2].to_vec()
        })
        .collect();
    let chunk = chunk(DType::Bf16, row_len as u64, 0, Some(&base));
    let payload = check(&chunk, Effort::Default, &raw, "columns");
    assert!(has_skips(&payload), "kind {}", payload[0]);
    assert_ne!(payload[0] & flags::SCALED, 0, "kind {}", payload[0]);
    let fast = check(&chunk, Effort::Fast, &raw, "columns");
    assert!(payload.len() < fast.len());
}

#[test]
fn a_chunk_has_skips_if_three_runs_of_four_equal_the_base() {
    let runs = 2 * WIDE / RUN;
    let tokens = |kept: usize| -> Vec<u8> {
        let run = |run: usize| (0..RUN).map(move |i| u8::from(run < kept && i == run % RUN));
        (0..runs).flat_map(run).collect()
    };
    for (kept, short, want) in [
        (runs / 4, 0, true),
        (runs / 4 + 1, 0, false),
        (1, WIDE, true),
        (1, WIDE + 1, false),
    ] {
        let tokens = &tokens(kept)[short..];
        assert_eq!(pay(tokens), want, "{kept} kept, {short} fewer");
    }
}

#[test]
fn runs_go_where_they_came_from() {
    let mut noise = Noise(3);
    for elements in (0..200).chain([1023, 1024, 1025, 4096, 5000]) {
        let runs = super::runs(elements);
        let flags: Vec<u8> = (0..runs).map(|_| (noise.next() as u8) & 0x80).collect();
        let expected: Vec<u32> = (0..runs as u32)
            .filter(|&run| flags[run as usize] != 0)
            .collect();
        let numbers = numbers(&flags);
        assert_eq!(numbers, expected, "{elements}");
        for size in [1, 2, 4, 8] {
            let all: Vec<u8> = (0..elements * size).map(|_| noise.next() as u8).collect();
            let kept: Vec<u8> = all
                .chunks(RUN * size)
                .zip(&flags)
                .filter(|(_, flag)| **flag != 0)
                .flat_map(|(run, _)| run.to_vec())
                .collect();
            assert_eq!(kept.len(), elements_of(&numbers, elements) * size);
            let mut gathered = vec![0; kept.len()];
            gather(&numbers, size, &all, &mut gathered);
            assert!(gathered == kept, "{elements} of {size} bytes");
            let mut back = vec![0; all.len()];
            scatter(&numbers, size, &kept, &mut back);
            for ((back, all), flag) in back
                .chunks(RUN * size)
                .zip(all.chunks(RUN * size))
                .zip(&flags)
            {
                let expected = if *flag == 0 {
                    vec![0; all.len()]
                } else {
                    all.to_vec()
                };
                assert_eq!(back, expected, "{elements} of {size} bytes");
            }
        }
    }
}

#[test]
fn highest_contexts_are_those_of_the_plain_loop() {
    let mut noise = Noise(4);
    for elements in (0..700).chain([4096, 5003]) {
        let ctx: Vec<u8> = (0..elements).map(|_| (noise.next() as u8) & 63).collect();
        let expected: Vec<u8> = ctx
            .chunks(RUN)
            .map(|run| run.iter().copied().max().unwrap())
            .collect();
        for isa in Isa::all() {
            let mut out = vec![0xAA; expected.len()];
            isa.highest_contexts(&ctx, &mut out);
            assert_eq!(out, expected, "{isa:?}, {elements}");
        }
    }
}

fn payload_of(chunk: &Chunk<'_>, raw: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    let scratch = &mut Scratch::default();
    encode(
        Isa::Scalar,
        Effort::Default,
        chunk,
        raw,
        scratch,
        &mut payload,
    );
    payload
}

/// Foretells that elements are the base's.
struct Same;

impl Predict for Same {
    fn predict(&self, _: usize, base: &[u8], predicted: &mut [u8], hints: &mut [u8]) {
        predicted.copy_from_slice(base);
        hints.fill(0);
    }
}

#[test]
fn predicted_chunks_have_no_skips() {
    // Found in review: only elements of 16 bits have hints, and F32 got skips that no decoder takes.
    for dtype in [DType::Bf16, DType::F16, DType::F32] {
        let (raw, base) = nearly_equal(dtype, WIDE + 100, 300);
        let chunk = chunk(dtype, 128, 0, Some(&base));
        for effort in [Effort::Fast, Effort::Default, Effort::Max] {
            let (mut payload, scratch) = (Vec::new(), &mut Scratch::default());
            let isa = Isa::detect();
            encode_predicted(isa, effort, &chunk, &Same, &raw, scratch, &mut payload);
            assert!(!has_skips(&payload), "{dtype} {effort:?}");
            let mut out = vec![0; raw.len()];
            let done = decode_predicted(isa, &chunk, &Same, &payload, &mut out, scratch);
            assert_eq!(done, Ok(()), "{dtype} {effort:?}");
            assert!(out == raw, "{dtype} {effort:?}");
        }
    }
}

/// What the rows of a pair have in common, most of whose elements differ.
fn learnt(dtype: DType, row_len: u64) -> Shared {
    let (raw, base) = nearly_equal(dtype, WIDE, 2);
    let sample = Sample {
        dtype,
        row_len,
        raw: &raw,
        base: Some(&base),
        hints: None,
    };
    let learner = Learner::new(Isa::Scalar, Effort::Default);
    let scratch = &mut Scratch::default();
    learner.finish(&sample, 1 << 24, scratch).unwrap()
}

#[test]
fn nothing_is_learnt_of_what_is_skipped() {
    let (raw, base) = nearly_equal(DType::Bf16, WIDE, 300);
    let sample = Sample {
        dtype: DType::Bf16,
        row_len: 128,
        raw: &raw,
        base: Some(&base),
        hints: None,
    };
    for (effort, want) in [(Effort::Default, false), (Effort::Max, true)] {
        let learner = Learner::new(Isa::Scalar, effort);
        let shared = learner.finish(&sample, 1 << 24, &mut Scratch::default());
        assert_eq!(shared.is_some(), want, "{effort:?}");
    }
}

#[test]
fn what_no_encoder_writes_is_refused() {
    let (raw, base) = nearly_equal(DType::Bf16, WIDE, 300);
    let shared = learnt(DType::Bf16, 128);
    let with_base = Chunk {
        shared: Some(&shared),
        ..chunk(DType::Bf16, 128, 0, Some(&base))
    };
    let good = payload_of(&chunk(DType::Bf16, 128, 0, Some(&base)), &raw);
    assert!(has_skips(&good));
    let (mut out, scratch) = (vec![0; raw.len()], &mut Scratch::default());
    let isa = Isa::detect();
    let mut run =
        |chunk: &Chunk<'_>, payload: &[u8]| decode(isa, chunk, payload, &mut out, scratch);
    assert_eq!(run(&with_base, &good), Ok(()));
    // With what is in common a payload has the rest of its kind, and neither window nor scales of columns.
    let in_common = {
        let (raw, base) = nearly_equal(DType::Bf16, WIDE, 2);
        let chunk = Chunk {
            base: Some(&base),
            ..with_base
        };
        let payload = payload_of(&chunk, &raw);
        assert_ne!(payload[0] & flags::SHARED, 0);
        assert_eq!(run(&chunk, &payload), Ok(()));
        payload
    };
    let skipping = |payload: &[u8], bit: u8| [&[payload[0] ^ bit], &payload[1..]].concat();
    for (what, payload, why) in [
        (
            "uncoded",
            skipping(&good, flags::CODED | flags::SCALED),
            "kind",
        ),
        ("by phase", skipping(&good, flags::PHASED), "kind"),
        (
            "in common",
            skipping(&in_common, flags::SKIPS),
            "shared section",
        ),
    ] {
        assert_eq!(
            run(&with_base, &payload),
            Err(Bad::Malformed(why)),
            "{what}"
        );
    }
    let alone = chunk(DType::Bf16, 128, 0, None);
    assert_eq!(run(&alone, &good), Err(Bad::Malformed("kind")));
    for end in 0..good.len() {
        assert!(run(&with_base, &good[..end]).is_err(), "{end} bytes");
    }
    let longer = [&good[..], &[0, 0]].concat();
    assert_eq!(run(&with_base, &longer), Err(Bad::Malformed("words")));
    let predicted = decode_predicted(isa, &with_base, &Same, &good, &mut out, scratch);
    assert_eq!(predicted, Err(Bad::Malformed("kind")));
}

#[test]
fn damage_is_refused_or_another_chunk_on_every_instruction_set_alike() {
    let (raw, base) = nearly_equal(DType::Bf16, WIDE + 3, 300);
    let chunk = chunk(DType::Bf16, 128, 0, Some(&base));
    let good = payload_of(&chunk, &raw);
    let mut noise = Noise(7);
    for round in 0..400 {
        let mut bad = good.clone();
        let at = match round % 2 {
            0 => noise.next() as usize % bad.len(),
            // Tables, and what else is at the front.
            _ => noise.next() as usize % bad.len().min(150),
        };
        bad[at] ^= 1 << (noise.next() % 8);
        let results = Isa::all().into_iter().map(|isa| {
            let mut out = vec![0; raw.len()];
            let done = decode(isa, &chunk, &bad, &mut out, &mut Scratch::default());
            done.map(|()| out)
        });
        let results: Vec<_> = results.collect();
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{at}");
    }
}
