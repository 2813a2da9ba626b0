//! Properties of whole payloads: exact, alike on every instruction set, safe on any bytes.

use proptest::prelude::*;

use super::*;

const DTYPES: [DType; 7] = [
    DType::Bf16,
    DType::F16,
    DType::F32,
    DType::F64,
    DType::F8E4M3,
    DType::F8E5M2,
    DType::Bool,
];

/// Numbers that look random, the same in every run.
pub(super) struct Noise(pub(super) u64);

impl Noise {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    pub(super) fn normal(&mut self) -> f64 {
        (0..12)
            .map(|_| (self.next() >> 11) as f64 / (1u64 << 53) as f64)
            .sum::<f64>()
            - 6.0
    }
}

/// The bits of `value` in a dtype, rounded towards zero.
pub(super) fn word(dtype: DType, value: f64) -> u64 {
    let format = token::Format::of(dtype).unwrap();
    let exponent_bits = format.bits - 1 - format.mantissa;
    let (bits, bias) = (value.to_bits(), (1i64 << (exponent_bits - 1)) - 1);
    let exponent =
        (((bits >> 52) & 0x7FF) as i64 - 1023 + bias).clamp(0, (1 << exponent_bits) - 2) as u64;
    let fraction = (bits & ((1 << 52) - 1)) >> (52 - format.mantissa);
    ((bits >> 63) << (format.bits - 1)) | (exponent << format.mantissa) | fraction
}

pub(super) fn pack(dtype: DType, words: impl Iterator<Item = u64>) -> Vec<u8> {
    words
        .flat_map(|word| word.to_le_bytes().into_iter().take(dtype.size()))
        .collect()
}

/// The kinds of content: name, words of a chunk and of its base.
pub(super) fn contents(dtype: DType, elements: usize) -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let format = token::Format::of(dtype).unwrap();
    let top = 1u64 << (format.bits - 1);
    let infinity = u64::from(format.top_exponent()) << format.mantissa;
    let mut noise = Noise(elements as u64);
    let base: Vec<f64> = (0..elements)
        .map(|i| noise.normal() * 0.02 * (1 + i % 7) as f64)
        .collect();
    let words: Vec<u64> = base.iter().map(|&v| word(dtype, v)).collect();
    let tuned: Vec<u64> = base
        .iter()
        .map(|&v| word(dtype, v + noise.normal() * 3e-4))
        .collect();
    let far: Vec<u64> = (0..elements)
        .map(|_| word(dtype, noise.normal() * 40.0))
        .collect();
    let random: Vec<u64> = (0..elements).map(|_| noise.next()).collect();
    let special = [
        0,
        top,
        infinity,
        infinity | top,
        infinity + 1,
        (infinity + 3) | top,
        1,
        2 | top,
        top - 1,
        u64::MAX,
    ];
    let specials: Vec<u64> = (0..elements)
        .map(|_| special[(noise.next() % 10) as usize])
        .collect();
    let wild: Vec<u64> = tuned
        .iter()
        .map(|&w| {
            if noise.next().is_multiple_of(97) {
                noise.next()
            } else {
                w
            }
        })
        .collect();
    let sparse: Vec<u64> = words
        .iter()
        .map(|&w| {
            if noise.next().is_multiple_of(211) {
                w ^ 1
            } else {
                w
            }
        })
        .collect();
    let flipped: Vec<u64> = words.iter().map(|&w| w ^ top).collect();
    let same = vec![words[0]; elements];
    let pairs = [
        ("tuned", &tuned, &words),
        ("equal", &words, &words),
        ("unrelated", &far, &words),
        ("random", &random, &words),
        ("random base", &words, &random),
        ("specials", &specials, &words),
        ("special base", &words, &specials),
        ("wild", &wild, &words),
        ("sparse", &sparse, &words),
        ("signs", &flipped, &words),
        ("all alike", &same, &words),
    ];
    let bytes = |words: &Vec<u64>| pack(dtype, words.iter().copied());
    pairs
        .into_iter()
        .map(|(name, raw, base)| (name, bytes(raw), bytes(base)))
        .collect()
}

pub(super) fn chunk(
    dtype: DType,
    row_len: u64,
    first_element: u64,
    base: Option<&[u8]>,
) -> Chunk<'_> {
    Chunk {
        dtype,
        row_len,
        first_element,
        base,
        shared: None,
    }
}

/// Encodes on every instruction set, demands one payload, and decodes it on every set.
pub(super) fn check(chunk: &Chunk<'_>, effort: Effort, raw: &[u8], what: &str) -> Vec<u8> {
    let mut scratch = Scratch::default();
    let mut payload = Vec::new();
    encode(Isa::Scalar, effort, chunk, raw, &mut scratch, &mut payload);
    assert!(payload.len() <= raw.len() + 1, "{what}");
    for isa in Isa::all() {
        let mut again = vec![7];
        encode(isa, effort, chunk, raw, &mut scratch, &mut again);
        assert!(again[1..] == payload, "{what}: {isa:?} encodes differently");
        let mut out = vec![0xAA; raw.len()];
        assert_eq!(
            decode(isa, chunk, &payload, &mut out, &mut scratch),
            Ok(()),
            "{what} {isa:?}"
        );
        assert!(out == raw, "{what}: {isa:?} decodes differently");
    }
    payload
}

#[test]
fn every_kind_of_content_comes_back() {
    for dtype in DTYPES {
        for (elements, row_len, first) in [
            (1, 1, 0),
            (4097, 61, 17),
            (40_000, 128, 100),
            (33_000, 1000, 70),
            (70_003, 97, 5),
        ] {
            for (name, raw, base) in contents(dtype, elements) {
                for (base, effort) in [
                    (Some(&base[..]), Effort::Default),
                    (None, Effort::Default),
                    (Some(&base), Effort::Fast),
                ] {
                    let what = format!(
                        "{name}, {elements} of {dtype}, {effort:?}, base {}",
                        base.is_some()
                    );
                    check(&chunk(dtype, row_len, first, base), effort, &raw, &what);
                }
            }
        }
    }
}

#[test]
fn every_length_comes_back() {
    for dtype in [DType::Bf16, DType::F32] {
        let (_, raw, base) = contents(dtype, 4097).swap_remove(7);
        for elements in (0..600).chain([1023, 1024, 1025, 4095, 4096, 4097]) {
            let bytes = elements * dtype.size();
            for base in [Some(&base[..bytes]), None] {
                check(
                    &chunk(dtype, 24, 3, base),
                    Effort::Default,
                    &raw[..bytes],
                    &format!("{elements} of {dtype}"),
                );
            }
        }
    }
}

#[test]
fn every_length_of_many_lanes_comes_back() {
    let (_, raw, base) = contents(DType::Bf16, WIDE + 130).swap_remove(0);
    for elements in WIDE - 3..WIDE + 130 {
        let bytes = elements * 2;
        for base in [Some(&base[..bytes]), None] {
            check(
                &chunk(DType::Bf16, 512, 3, base),
                Effort::Fast,
                &raw[..bytes],
                &format!("{elements}"),
            );
        }
    }
}

#[test]
fn every_pair_of_neighbouring_words_comes_back() {
    // All 65,536 words against themselves moved by one, by a sign and by half the range.
    for dtype in [DType::Bf16, DType::F16] {
        let base = pack(dtype, 0..65_536);
        check(&chunk(dtype, 256, 0, None), Effort::Max, &base, "all words");
        for change in [1u64, 0x8000, 0xFFFF, 0x4001] {
            let raw = pack(dtype, (0..65_536u64).map(|w| w.wrapping_add(change)));
            check(
                &chunk(dtype, 256, 0, Some(&base)),
                Effort::Max,
                &raw,
                &format!("{dtype} {change:#x}"),
            );
        }
    }
}

/// Rows and columns of different scale, as in trained weights.
fn scaled(elements: usize, row_len: usize) -> (Vec<u8>, Vec<u8>) {
    let mut noise = Noise(3);
    let columns: Vec<f64> = (0..row_len)
        .map(|_| (1u64 << (noise.next() % 5)) as f64 / 4.0)
        .collect();
    let rows: Vec<f64> = (0..=elements / row_len)
        .map(|_| (1u64 << (noise.next() % 5)) as f64 / 4.0)
        .collect();
    let base: Vec<f64> = (0..elements)
        .map(|i| noise.normal() * 0.02 * columns[i % row_len] * rows[i / row_len])
        .collect();
    let raw = base
        .iter()
        .enumerate()
        .map(|(i, v)| v + noise.normal() * 2e-4 * columns[i % row_len] * rows[i / row_len]);
    let words = |values: &[f64]| pack(DType::Bf16, values.iter().map(|&v| word(DType::Bf16, v)));
    (words(&raw.collect::<Vec<_>>()), words(&base))
}

#[test]
fn scales_pay_where_there_are_some() {
    let (raw, base) = scaled(200_000, 400);
    for base in [Some(&base[..]), None] {
        let size = |effort| check(&chunk(DType::Bf16, 400, 0, base), effort, &raw, "scaled").len();
        let (fast, default, max) = (size(Effort::Fast), size(Effort::Default), size(Effort::Max));
        assert!(default * 100 < fast * 97, "{default} against {fast}");
        assert!(max * 100 < default * 101, "{max} against {default}");
    }
}

#[test]
fn a_few_wild_values_cost_little() {
    let (_, tuned, base) = contents(DType::Bf16, 1 << 18).swap_remove(0);
    let size = |raw: &[u8]| {
        check(
            &chunk(DType::Bf16, 512, 0, Some(&base)),
            Effort::Default,
            raw,
            "wild",
        )
        .len()
    };
    let before = size(&tuned);
    let mut noise = Noise(1);
    let mut wild = tuned.clone();
    let count = 256;
    for _ in 0..count {
        let at = (noise.next() % (1 << 18)) as usize * 2;
        wild[at..at + 2].copy_from_slice(&noise.next().to_le_bytes()[..2]);
    }
    let each = (size(&wild) - before) * 8 / count;
    assert!(each < 48, "{each} bits for each wild value");
}

#[test]
fn payloads_stay_as_they_are() {
    // Stored bytes must not change without a new version of the format.
    let (raw, base) = scaled(50_000, 100);
    for (base, effort, want) in [
        (Some(&base[..]), Effort::Default, "31d3f7aeb84d7848"),
        (Some(&base), Effort::Max, "a37d026db29a2802"),
        (Some(&base), Effort::Fast, "31d3f7aeb84d7848"),
        (None, Effort::Default, "1a9d277d957a78cc"),
    ] {
        let payload = check(&chunk(DType::Bf16, 100, 40, base), effort, &raw, "golden");
        assert_eq!(blake3::hash(&payload).to_hex()[..16], *want, "{effort:?}");
    }
    // Rows of which the first sweep takes a quarter, but for `max`.
    let (raw, base) = scaled(60_000, 600);
    for (effort, want) in [
        (Effort::Default, "3e6f6349577a0782"),
        (Effort::Max, "2b954953bfe3784e"),
    ] {
        let payload = check(
            &chunk(DType::Bf16, 600, 40, Some(&base)),
            effort,
            &raw,
            "wide",
        );
        assert_eq!(blake3::hash(&payload).to_hex()[..16], *want, "{effort:?}");
    }
}

/// A payload with what is needed to decode it: dtype, row length, chunk, base, payload.
type Sample = (DType, u64, Vec<u8>, Option<Vec<u8>>, Vec<u8>);

/// Payloads of several kinds.
fn samples() -> Vec<Sample> {
    let mut out = Vec::new();
    for (dtype, elements) in [
        (DType::Bf16, 33_000),
        (DType::Bf16, 300),
        (DType::F32, 33_000),
        (DType::F8E4M3, 5000),
        (DType::F64, 900),
    ] {
        let (_, raw, base) = contents(dtype, elements).swap_remove(7);
        for base in [Some(base), None] {
            let mut payload = Vec::new();
            let chunk = chunk(dtype, 100, 7, base.as_deref());
            encode(
                Isa::detect(),
                Effort::Default,
                &chunk,
                &raw,
                &mut Scratch::default(),
                &mut payload,
            );
            out.push((dtype, 100, raw.clone(), base, payload));
        }
    }
    let (raw, base) = scaled(60_000, 120);
    let mut payload = Vec::new();
    encode(
        Isa::detect(),
        Effort::Default,
        &chunk(DType::Bf16, 120, 7, Some(&base)),
        &raw,
        &mut Scratch::default(),
        &mut payload,
    );
    assert!(payload[0] & flags::SCALED != 0);
    out.push((DType::Bf16, 120, raw, Some(base), payload));
    out
}

#[test]
fn damage_is_refused_or_harmless_and_never_a_panic() {
    let mut scratch = Scratch::default();
    for (dtype, row_len, raw, base, payload) in samples() {
        let chunk = chunk(dtype, row_len, 7, base.as_deref());
        let step = (payload.len() / 400).max(1);
        // The head of a payload is where a bit matters most; the words get a sample.
        let places = (0..payload.len().min(1200)).chain((0..payload.len()).step_by(step));
        for at in places {
            for isa in Isa::all() {
                let mut bad = payload.clone();
                bad[at] ^= 1 << (at % 8);
                let mut out = vec![0; raw.len()];
                let _ = decode(isa, &chunk, &bad, &mut out, &mut scratch);
                assert!(
                    decode(isa, &chunk, &payload[..at], &mut out, &mut scratch).is_err(),
                    "{dtype} cut at {at}"
                );
            }
        }
        let mut out = vec![0; raw.len()];
        let longer = [&payload[..], &[0, 0]].concat();
        assert!(
            decode(Isa::detect(), &chunk, &longer, &mut out, &mut scratch).is_err(),
            "{dtype} with bytes behind"
        );
    }
}

#[test]
fn any_place_in_rows_of_any_length_is_coded() {
    let (_, raw, base) = contents(DType::Bf16, 5000).swap_remove(0);
    for row_len in [1, 4999, 5000, 5001, 1 << 40, u64::MAX - 1, u64::MAX] {
        for first in [0, 1, 1 << 40, u64::MAX - 2, u64::MAX] {
            for base in [Some(&base[..]), None] {
                let chunk = chunk(DType::Bf16, row_len, first, base);
                let what = format!("rows of {row_len} from {first}");
                check(&chunk, Effort::Default, &raw, &what);
            }
        }
    }
}

#[test]
fn sums_over_long_rows_do_not_overflow() {
    // Sixteen rows, every difference as large as can be: the sum of a row's residuals is the largest there is.
    for row_len in [1 << 16, 300_000] {
        let elements = 16 * row_len;
        let base = pack(DType::Bf16, (0..elements as u64).map(|i| i % 2));
        let raw = pack(DType::Bf16, (0..elements as u64).map(|i| 0xFFFF - i % 3));
        let chunk = chunk(DType::Bf16, row_len as u64, 0, Some(&base));
        check(&chunk, Effort::Default, &raw, &format!("rows of {row_len}"));
    }
}

#[test]
fn errors_name_what_is_wrong() {
    let base = [0u8; 8];
    let with = chunk(DType::Bf16, 2, 0, Some(&base));
    let without = chunk(DType::Bf16, 2, 0, None);
    let byte = chunk(DType::F8E4M3, 2, 0, Some(&base));
    let cases: [(&Chunk<'_>, &[u8], Bad); 14] = [
        (&with, &[], Bad::Truncated),
        (&with, &[0, 0], Bad::Trailing),
        (&without, &[0], Bad::Base),
        (&with, &[16, 1], Bad::Truncated),
        (&with, &[2], Bad::Malformed("kind")),
        (&without, &[33], Bad::Malformed("kind")),
        (
            &chunk(DType::F8E4M3, 2, 0, None),
            &[5],
            Bad::Malformed("kind"),
        ),
        (&without, &[5, 0], Bad::Truncated),
        (&without, &[1, 255, 255], Bad::Malformed("window")),
        (&with, &[1, 0, 1], Bad::Malformed("window")),
        (&byte, &[1, 16, 0], Bad::Malformed("window")),
        (&byte, &[1, 15, 0], Bad::Truncated),
        (&with, &[1, 0], Bad::Truncated),
        (
            &chunk(DType::I16, 2, 0, None),
            &[1],
            Bad::Malformed("element type"),
        ),
    ];
    for (chunk, payload, want) in cases {
        let mut out = [0u8; 8];
        assert_eq!(
            decode(
                Isa::Scalar,
                chunk,
                payload,
                &mut out,
                &mut Scratch::default()
            ),
            Err(want),
            "{payload:?}"
        );
    }
    let short = chunk(DType::Bf16, 2, 0, Some(&base[..6]));
    assert_eq!(
        decode(
            Isa::Scalar,
            &short,
            &[0],
            &mut [0; 8],
            &mut Scratch::default()
        ),
        Err(Bad::Base)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_bytes_decode_or_are_refused(
        mut payload in prop::collection::vec(any::<u8>(), 0..700),
        kind in 0u8..17,
        dtype in 0usize..6,
        elements in 0usize..3000,
        row_len in 0u64..200,
        with_base: bool,
    ) {
        if let Some(first) = payload.first_mut() {
            *first = kind;
        }
        let bytes = elements * DTYPES[dtype].size();
        let base = vec![0x3C; bytes];
        let chunk = chunk(DTYPES[dtype], row_len, 11, with_base.then_some(&base[..]));
        for isa in Isa::all() {
            let mut out = vec![0; bytes];
            let _ = decode(isa, &chunk, &payload, &mut out, &mut Scratch::default());
        }
    }

    #[test]
    fn any_words_come_back(
        raw in prop::collection::vec(any::<u8>(), 0..3000),
        seed: u64,
        dtype in 0usize..6,
        row_len in 0u64..70,
        first in 0u64..1000,
        share in 1u64..50,
    ) {
        let dtype = DTYPES[dtype];
        let raw = &raw[..raw.len() / dtype.size() * dtype.size()];
        let mut noise = Noise(seed);
        let base: Vec<u8> = raw.iter().map(|&b| if noise.next().is_multiple_of(share) { noise.next() as u8 } else { b }).collect();
        for base in [Some(&base[..]), None] {
            check(&chunk(dtype, row_len, first, base), Effort::Default, raw, "any words");
        }
    }
}
