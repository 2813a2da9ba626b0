//! Round trips of every codec over dtypes, lengths and values, and decoders on garbage.

use proptest::prelude::*;
use proptest::sample::select;

use super::select::Family;
use super::*;
use crate::dtype::DType;

/// Bytes without a pattern, from splitmix64.
pub(super) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let word = |i: u64| {
        let x = (seed << 32 | i).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (x ^ x >> 27)
            .wrapping_mul(0x94d0_49bb_1331_11eb)
            .to_le_bytes()
    };
    (0..length.div_ceil(8) as u64)
        .flat_map(word)
        .take(length)
        .collect()
}

/// Elements whose top byte takes few values, like the exponents of weights.
pub(super) fn weights(dtype: DType, length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = noise(length, seed);
    for element in bytes.chunks_exact_mut(dtype.size()) {
        if let Some(top) = element.last_mut() {
            *top = 0x3c | (*top & 0x81) | (*top >> 6 & 1);
        }
    }
    bytes
}

/// `bytes` with one byte in `every` changed.
pub(super) fn changed(bytes: &[u8], every: usize) -> Vec<u8> {
    let change = |(i, byte): (usize, &u8)| if i % every == 0 { byte ^ 5 } else { *byte };
    bytes.iter().enumerate().map(change).collect()
}

pub(super) fn view(dtype: DType, base: Option<&[u8]>) -> ChunkView<'_> {
    ChunkView {
        dtype,
        row_len: 64,
        first_element: 0,
        base,
    }
}

/// Encodes with the chosen codec, decodes again, and returns the codec and the payload.
fn round_trip(view: &ChunkView<'_>, raw: &[u8], ws: &mut Workspace) -> (CodecId, Vec<u8>) {
    round_trip_with(Family::BitX, view, raw, ws);
    round_trip_with(Family::Auto, view, raw, ws)
}

fn round_trip_with(
    family: Family,
    view: &ChunkView<'_>,
    raw: &[u8],
    ws: &mut Workspace,
) -> (CodecId, Vec<u8>) {
    let what = || {
        format!(
            "{:?} of {} bytes, base {}",
            view.dtype,
            raw.len(),
            view.base.is_some()
        )
    };
    let mut out = b"kept".to_vec();
    let options = EncodeOptions {
        family,
        ..EncodeOptions::default()
    };
    let id = encode_chunk(&options, view, raw, ws, &mut out);
    let payload = out.split_off(4);
    assert_eq!(out, b"kept", "{}", what());
    assert!(
        payload.len() <= raw.len(),
        "{} grew: {}",
        payload.len(),
        what()
    );
    let mut decoded = vec![0xee; raw.len()];
    let result = find(id)
        .unwrap()
        .decode(&Prepared::default(), view, &payload, &mut decoded, ws);
    assert_eq!(result, Ok(()), "{}", what());
    assert!(decoded == raw, "{}", what());
    (id, payload)
}

fn values(dtype: DType, length: usize, seed: u64) -> [Vec<u8>; 6] {
    let random = noise(length, seed);
    [
        weights(dtype, length, seed),
        vec![0; length],
        // NaNs with payloads, of every float dtype.
        random.iter().map(|byte| byte | 0x7f).collect(),
        random
            .iter()
            .take(dtype.size())
            .copied()
            .cycle()
            .take(length)
            .collect(),
        changed(&vec![7; length], 97),
        random,
    ]
}

#[test]
fn ids_and_names() {
    let rows: Vec<_> = REGISTRY
        .iter()
        .map(|codec| (codec.id().0, codec.name()))
        .collect();
    assert_eq!(
        rows,
        [
            (0, "raw"),
            (1, "zstd"),
            (2, "solo"),
            (3, "bitx"),
            (4, "delta"),
            (5, "solo-rans"),
            (6, "lowrank"),
            (7, "parts")
        ]
    );
    assert!(find(CodecId(8)).is_none());
}

#[test]
fn every_dtype_and_length() {
    let mut ws = Workspace::default();
    for dtype in DType::all() {
        for length in (0..=4097).step_by(dtype.size()) {
            let seed = length as u64;
            let kinds = values(dtype, length, seed);
            let raw = &kinds[length / dtype.size() % kinds.len()];
            round_trip(&view(dtype, None), raw, &mut ws);
            round_trip(&view(dtype, Some(&changed(raw, 50))), raw, &mut ws);
        }
    }
}

#[test]
fn every_value_and_base() {
    let mut ws = Workspace::default();
    for dtype in DType::all() {
        let length = 3000 * dtype.size();
        let kinds = values(dtype, length, 5);
        for raw in &kinds {
            round_trip(&view(dtype, None), raw, &mut ws);
            for base in &kinds {
                round_trip(&view(dtype, Some(base)), raw, &mut ws);
            }
        }
    }
}

#[test]
fn several_blocks_and_a_short_one() {
    let mut ws = Workspace::default();
    for dtype in [DType::Bf16, DType::F32, DType::F64, DType::U8] {
        for count in [(1 << 18) - 1, 1 << 18, (1 << 18) + 1, (1 << 19) + 77] {
            let raw = weights(dtype, count * dtype.size(), 1);
            round_trip(&view(dtype, None), &raw, &mut ws);
            round_trip(&view(dtype, Some(&changed(&raw, 9))), &raw, &mut ws);
        }
    }
}

/// What, its dtype, its base, its bytes, and the codec to be chosen in each family.
type Case<'a> = (&'a str, DType, Option<&'a [u8]>, &'a [u8], [&'a str; 2]);

#[test]
fn chooses_what_pays() {
    let length = 1 << 16;
    let bf16 = weights(DType::Bf16, length, 1);
    let text: Vec<u8> = b"a text that says the same thing "
        .iter()
        .copied()
        .cycle()
        .take(length)
        .collect();
    let far = [noise(length, 8), noise(length, 8)].concat();
    let random = noise(length, 2);
    let near = changed(&bf16, 40);
    let cases: [Case<'_>; 8] = [
        ("weights", DType::Bf16, None, &bf16, ["solo", "solo-rans"]),
        (
            "fine-tuned weights",
            DType::Bf16,
            Some(&near),
            &bf16,
            ["bitx", "delta"],
        ),
        (
            "a base that does not help",
            DType::Bf16,
            Some(&random),
            &bf16,
            ["solo", "solo-rans"],
        ),
        (
            "a base of another length",
            DType::Bf16,
            Some(&near[2..]),
            &bf16,
            ["solo", "solo-rans"],
        ),
        ("text", DType::Opaque, None, &text, ["zstd", "zstd"]),
        (
            "opaque bytes with a base",
            DType::Opaque,
            Some(&near),
            &bf16,
            ["bitx", "bitx"],
        ),
        (
            "random bytes",
            DType::Bf16,
            Some(&bf16),
            &random,
            ["raw", "raw"],
        ),
        (
            "an element cut in two",
            DType::F32,
            None,
            &text[1..],
            ["zstd", "zstd"],
        ),
    ];
    let mut ws = Workspace::default();
    for (what, dtype, base, raw, want) in cases {
        for (family, want) in [Family::BitX, Family::Auto].into_iter().zip(want) {
            let (id, _) = round_trip_with(family, &view(dtype, base), raw, &mut ws);
            assert_eq!(find(id).unwrap().name(), want, "{what}");
        }
    }
    let (id, payload) = round_trip(&view(DType::F32, None), &far, &mut ws);
    assert!(
        payload.len() < far.len() * 6 / 10,
        "repeats are found by {id:?}"
    );
}

#[test]
fn bytes_of_few_values_are_coded_at_their_entropy() {
    let random = noise(300_000, 21);
    let one_in = |n: u8| {
        random
            .iter()
            .map(|&byte| u8::from(byte < n))
            .collect::<Vec<_>>()
    };
    let regular: Vec<u8> = (0..300_000).map(|i| u8::from(i % 512 > i / 512)).collect();
    let (planes, coder) = (CodecId(2), CodecId(5));
    let mut ws = Workspace::default();
    for (dtype, raw, codec, most) in [
        // One in 10: .469 bits each.
        (DType::Bool, one_in(26), coder, 61),
        (DType::U8, one_in(26), coder, 61),
        (DType::I8, one_in(64), coder, 103),
        (DType::Bool, regular, planes, 10),
        (
            DType::U8,
            random.iter().map(|byte| byte & 0x3F).collect(),
            planes,
            760,
        ),
    ] {
        let (id, payload) = round_trip(&view(dtype, None), &raw, &mut ws);
        let per_mille = payload.len() * 1000 / raw.len();
        assert!(
            id == codec && per_mille <= most,
            "{dtype} {id:?} {per_mille}"
        );
    }
}

#[test]
fn equal_to_the_base_is_almost_free() {
    let raw = weights(DType::F32, 4 << 20, 3);
    let (view, mut ws) = (view(DType::F32, Some(&raw)), Workspace::default());
    let length = |family, ws: &mut Workspace| round_trip_with(family, &view, &raw, ws).1.len();
    assert_eq!(length(Family::BitX, &mut ws), 4 * 4 * 5);
    assert_eq!(length(Family::Auto, &mut ws), 1);
}

#[test]
fn floats_widened_from_a_shorter_type_cost_what_the_shorter_ones_do() {
    let mut ws = Workspace::default();
    for (size, dtype) in [(4, DType::F32), (8, DType::F64)] {
        let narrow = weights(DType::Bf16, 1 << 16, 4);
        let wide: Vec<u8> = narrow
            .chunks(2)
            .flat_map(|word| [vec![0; size - 2], word.to_vec()].concat())
            .collect();
        let (_, payload) = round_trip(&view(dtype, None), &wide, &mut ws);
        assert!(payload.len() < narrow.len(), "{dtype}: {}", payload.len());
        let (_, payload) = round_trip(&view(dtype, Some(&changed(&wide, 8 * 41))), &wide, &mut ws);
        assert!(
            payload.len() < narrow.len() / 2,
            "{dtype}: {}",
            payload.len()
        );
    }
}

/// What, its dtype, its base and its bytes.
type Chunk<'a> = (&'a str, DType, Option<&'a [u8]>, &'a [u8]);

#[test]
fn no_family_is_much_worse_than_the_other() {
    let mut ws = Workspace::default();
    let row = weights(DType::Bf16, 768, 5);
    let rows = row.repeat(100);
    let mut pruned = weights(DType::Bf16, 1 << 16, 6);
    pruned
        .chunks_exact_mut(4)
        .for_each(|pair| pair[..2].fill(0));
    let widened: Vec<u8> = row.chunks(2).flat_map(|w| [0, 0, w[0], w[1]]).collect();
    let native = weights(DType::F32, widened.len(), 7);
    let unrelated = weights(DType::Bf16, rows.len(), 8);
    let cases: [Chunk<'_>; 5] = [
        ("equal rows", DType::Bf16, None, &rows),
        (
            "equal rows, another base",
            DType::Bf16,
            Some(&unrelated),
            &rows,
        ),
        ("half of it pruned", DType::Bf16, None, &pruned),
        (
            "pruned, with a base",
            DType::Bf16,
            Some(&noise(1 << 16, 9)),
            &pruned,
        ),
        (
            "widened, the base is not",
            DType::F32,
            Some(&native),
            &widened,
        ),
    ];
    for (what, dtype, base, raw) in cases {
        let planes = round_trip_with(Family::BitX, &view(dtype, base), raw, &mut ws)
            .1
            .len();
        let auto = round_trip_with(Family::Auto, &view(dtype, base), raw, &mut ws)
            .1
            .len();
        assert!(auto <= planes, "{what}: {auto} instead of {planes}");
    }
}

#[test]
fn every_codec_decodes_what_it_encodes() {
    let mut ws = Workspace::default();
    for (dtype, codec) in [DType::Bf16, DType::F8E4M3]
        .into_iter()
        .flat_map(|dtype| REGISTRY.map(|codec| (dtype, codec)))
        .filter(|(_, codec)| codec.name() != "lowrank")
    {
        let raw = weights(dtype, 4096, 4);
        let base = changed(&raw, 30);
        let view = view(dtype, Some(&base));
        let (mut payload, mut out) = (b"kept".to_vec(), vec![0; raw.len()]);
        codec.encode(
            &EncodeOptions::default(),
            &view,
            &raw,
            &mut ws,
            &mut payload,
        );
        let payload = payload.strip_prefix(b"kept").unwrap();
        let result = codec.decode(&Prepared::default(), &view, payload, &mut out, &mut ws);
        assert_eq!(
            (result, out == raw),
            (Ok(()), true),
            "{} {dtype}",
            codec.name()
        );
        assert!(payload.len() <= raw.len() + 16, "{} {dtype}", codec.name());
    }
}

/// One payload of each codec and mode, with what it decodes from.
fn samples() -> Vec<(CodecId, DType, Vec<u8>, Vec<u8>)> {
    let mut ws = Workspace::default();
    let mut samples = Vec::new();
    for dtype in [DType::Bf16, DType::F64, DType::I32, DType::U8] {
        let raw = weights(dtype, 256 * dtype.size(), 4);
        let base = changed(&raw, 30);
        for codec in REGISTRY {
            let mut payload = Vec::new();
            let options = EncodeOptions::default();
            codec.encode(
                &options,
                &view(dtype, Some(&base)),
                &raw,
                &mut ws,
                &mut payload,
            );
            samples.push((codec.id(), dtype, base.clone(), payload));
        }
    }
    samples
}

fn decodes(
    id: CodecId,
    view: &ChunkView<'_>,
    payload: &[u8],
    length: usize,
) -> Result<(), CodecError> {
    let mut out = vec![0; length];
    find(id).unwrap().decode(
        &Prepared::default(),
        view,
        payload,
        &mut out,
        &mut Workspace::default(),
    )
}

#[test]
fn truncated_and_extended_payloads_are_refused() {
    for (id, dtype, base, payload) in samples() {
        let view = view(dtype, Some(&base));
        for length in 0..payload.len() {
            let result = decodes(id, &view, &payload[..length], base.len());
            assert!(
                result.is_err(),
                "{id:?} {dtype} cut to {length} of {}",
                payload.len()
            );
        }
        let longer = [payload.as_slice(), &[0]].concat();
        assert!(
            decodes(id, &view, &longer, base.len()).is_err(),
            "{id:?} {dtype} and a byte"
        );
        for length in [
            0,
            dtype.size(),
            base.len() - 1,
            base.len() + 1,
            2 * base.len(),
        ] {
            let base = noise(length, 1);
            let result = decodes(
                id,
                &ChunkView {
                    base: Some(&base),
                    ..view
                },
                &payload,
                length,
            );
            assert!(result.is_err(), "{id:?} {dtype} into {length} bytes");
        }
    }
}

#[test]
fn flipped_bits_never_panic() {
    for (id, dtype, base, payload) in samples() {
        let mut ws = Workspace::default();
        let mut out = vec![0; base.len()];
        for at in 0..payload.len() * 8 {
            let mut payload = payload.clone();
            payload[at / 8] ^= 1 << (at % 8);
            let view = view(dtype, Some(&base));
            let _ =
                find(id)
                    .unwrap()
                    .decode(&Prepared::default(), &view, &payload, &mut out, &mut ws);
        }
    }
}

#[test]
fn malformed_planes_are_named() {
    let base = [0; 8];
    let raw = |bytes: &[u8]| [&[4, 0, 0, 0], bytes].concat();
    let good = [raw(b"abcd"), vec![1, 0, 0, 2, b'x']].concat();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let cases: [(Vec<u8>, Result<(), CodecError>); 8] = [
        (good.clone(), Ok(())),
        (with(0, 3), Err(CodecError::Malformed("length of a plane"))),
        (with(2, 255), Err(CodecError::Truncated)),
        (with(3, 1), Err(CodecError::Malformed("zstd frame"))),
        (with(3, 3), Err(CodecError::Malformed("mode of a plane"))),
        (with(8, 0), Err(CodecError::Malformed("length of a plane"))),
        ([good.as_slice(), &[0]].concat(), Err(CodecError::Trailing)),
        (Vec::new(), Err(CodecError::Truncated)),
    ];
    for (payload, want) in cases {
        let result = decodes(CodecId(2), &view(DType::Bf16, None), &payload, base.len());
        assert_eq!(result, want, "{payload:?}");
    }
    let bitx = |base| decodes(CodecId(3), &view(DType::Bf16, base), &good, 8);
    assert_eq!(bitx(Some(&base[..])), Ok(()));
    assert_eq!(bitx(Some(&base[..6])), Err(CodecError::Base));
    assert_eq!(bitx(None), Err(CodecError::Base));
}

proptest! {
    #[test]
    fn any_bytes_round_trip(
        dtype in select(DType::all().collect::<Vec<_>>()),
        raw in proptest::collection::vec(any::<u8>(), 0..600),
        base in proptest::option::of(proptest::collection::vec(any::<u8>(), 600)),
        level in -7..=9,
    ) {
        let base = base.as_ref().map(|base| &base[..raw.len()]);
        let view = view(dtype, base);
        let mut ws = Workspace::default();
        let mut payload = Vec::new();
        let options = EncodeOptions { zstd_level: level, ..EncodeOptions::default() };
        let id = encode_chunk(&options, &view, &raw, &mut ws, &mut payload);
        let mut out = vec![0; raw.len()];
        prop_assert_eq!(find(id).unwrap().decode(&Prepared::default(), &view, &payload, &mut out, &mut ws), Ok(()));
        prop_assert_eq!(out, raw);
    }

    #[test]
    fn any_payload_is_decoded_or_refused(
        id in select(vec![0, 1, 2, 3, 4, 5, 7u8]),
        dtype in select(DType::all().collect::<Vec<_>>()),
        payload in proptest::collection::vec(prop_oneof![any::<u8>(), 0..3u8], 0..100),
        length in 0..40usize,
    ) {
        let base = vec![1; length];
        let _ = decodes(CodecId(id), &view(dtype, Some(&base)), &payload, length);
    }
}
