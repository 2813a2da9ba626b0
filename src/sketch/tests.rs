//! Sketches of weights made up here.

use super::*;

/// Numbers near a bell curve, as BF16 words, with noise of `noise` times their deviation from `seed`.
fn weights(seed: u64, elements: usize, noise: f32) -> Vec<u16> {
    let bell = |seed: u64, at: usize| {
        let sum: u64 = (0..4)
            .map(|part| mix(seed ^ mix(at as u64 * 4 + part)) >> 40)
            .sum();
        #[allow(clippy::cast_precision_loss)]
        let value = sum as f32 / 33_554_432.0 - 1.0;
        value
    };
    let value = |at| 0.05 * (bell(1, at) + noise * bell(seed, at));
    (0..elements)
        .map(|at| u16::try_from((value(at).to_bits() + 0x8000) >> 16).unwrap())
        .collect()
}

fn bytes_of(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Takes a sketch in chunks of `chunk` elements.
fn take(dtype: DType, row_len: u64, bytes: &[u8], chunk: usize) -> Sketch {
    let elements = (bytes.len() / dtype.size()) as u64;
    let sampler = Sampler {
        dtype,
        elements,
        row_len,
        places: &Places::new(elements / row_len, row_len),
    };
    let chunks = bytes.chunks(chunk * dtype.size()).enumerate();
    let parts: Vec<_> = chunks
        .map(|(at, bytes)| sampler.take((at * chunk) as u64, bytes))
        .collect();
    sampler.join(Hash::of(bytes), parts)
}

fn sketch(words: &[u16], row_len: u64) -> Sketch {
    take(DType::Bf16, row_len, &bytes_of(words), 1 << 20)
}

const ROW: u64 = 100;
const COUNT: usize = 100_000;

#[test]
fn a_sketch_does_not_depend_on_the_chunks() {
    let bytes = bytes_of(&weights(0, COUNT, 0.0));
    let whole = take(DType::Bf16, ROW, &bytes, 1 << 20);
    assert_eq!(whole.marks().len(), MARKS);
    assert!(whole.samples.iter().all(|sample| *sample != 0));
    for chunk in [100, 1000, 30_000] {
        assert_eq!(take(DType::Bf16, ROW, &bytes, chunk), whole, "{chunk}");
    }
}

#[test]
fn records_round_trip_and_damage_is_found() {
    let sketch = sketch(&weights(0, COUNT, 0.0), ROW);
    let bytes = sketch.to_bytes();
    assert_eq!(bytes.len(), RECORD_LEN);
    assert_eq!(Sketch::parse(&bytes), Some(sketch));
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Sketch::parse(&flipped), None, "bit {bit}");
    }
    assert_eq!(Sketch::parse(&bytes[1..]), None);
}

#[test]
fn the_estimate_grows_with_the_distance() {
    let base = sketch(&weights(0, COUNT, 0.0), ROW);
    let solo = solo_bits(&base);
    assert!((10 * SCALE..12 * SCALE).contains(&solo), "{solo}");
    let mut last = 0;
    for noise in [0.0, 0.001, 0.003, 0.01, 0.03, 0.1] {
        let bits = delta_bits(&sketch(&weights(7, COUNT, noise), ROW), &base).unwrap();
        assert!(bits > last || noise == 0.0 && bits == 0, "{noise} {bits}");
        last = bits;
    }
    assert!(last < solo * 4 / 5, "{last}");
    let mut other = weights(0, COUNT, 0.0);
    other.reverse();
    assert!(delta_bits(&sketch(&other, ROW), &base).unwrap() > solo);
}

#[test]
fn tensors_with_more_rows_meet() {
    let long = weights(0, 3 * COUNT, 0.0);
    let whole = sketch(&long, ROW);
    for rows in [1000, 1007, 2000, 2999] {
        let other = sketch(&long[..100 * rows], ROW);
        assert_eq!(delta_bits(&whole, &other), Some(0), "{rows}");
    }
    assert_eq!(delta_bits(&whole, &sketch(&long, ROW * 2)), None);
    // Too few rows in common to say anything.
    assert_eq!(delta_bits(&whole, &sketch(&long[..6400], ROW)), None);
}

#[test]
fn float_types_meet() {
    let words = weights(0, COUNT, 0.0);
    let base = sketch(&words, ROW);
    for dtype in [DType::F32, DType::F16, DType::F8E4M3, DType::F8E5M2] {
        let mut bytes = vec![0; COUNT * dtype.size()];
        crate::float::convert(DType::Bf16, &bytes_of(&words), dtype, &mut bytes);
        let cast = take(dtype, ROW, &bytes, 1 << 20);
        assert_eq!(delta_bits(&cast, &base), Some(0), "{dtype}");
        assert_eq!(shift(&cast, &base), Some(0), "{dtype}");
        let back = delta_bits(&base, &cast).unwrap();
        assert!(back < solo_bits(&base) * 3 / 4, "{dtype} {back}");
    }
}

/// BF16 words divided by a scale for each block of so many elements, as FP8: the block's greatest becomes 448.
fn scaled(words: &[u16], block: usize) -> Vec<u8> {
    let wide = |word: &u16| f32::from_bits(u32::from(*word) << 16);
    let quantise = |block: &[u16]| {
        let most = block
            .iter()
            .map(wide)
            .fold(0f32, |most, one| most.max(one.abs()));
        let floats: Vec<_> = block
            .iter()
            .flat_map(|word| (wide(word) * (448.0 / most)).to_le_bytes())
            .collect();
        let mut out = vec![0; block.len()];
        crate::float::convert(DType::F32, &floats, DType::F8E4M3, &mut out);
        out
    };
    words.chunks(block).flat_map(quantise).collect()
}

#[test]
fn scaled_copies_are_told_by_their_signs() {
    let words = weights(0, COUNT, 0.0);
    let base = sketch(&words, ROW);
    for block in [COUNT, 100, 128] {
        let copy = take(DType::F8E4M3, ROW, &scaled(&words, block), 1 << 20);
        assert!(may_be_scaled(&copy, &base), "{block}");
        assert!(!may_be_scaled(&base, &copy));
        let other = sketch(&weights(9, COUNT, 20.0), ROW);
        assert!(!may_be_scaled(&copy, &other), "{block}");
        let longer = sketch(&weights(0, COUNT + 100, 0.0), ROW);
        assert!(!may_be_scaled(&copy, &longer), "{block}");
    }
}

#[test]
fn a_tensor_of_which_some_rows_are_new_is_mostly_near() {
    let base = sketch(&weights(0, COUNT, 0.0), ROW);
    let (tuned, other) = (weights(7, COUNT, 0.01), weights(9, COUNT, 20.0));
    let mix = |new: usize| {
        let rows = tuned.chunks(100).zip(other.chunks(100)).enumerate();
        let rows = rows.map(|(at, (old, other))| if at % 10 < new { other } else { old });
        sketch(&rows.collect::<Vec<_>>().concat(), ROW)
    };
    assert!(is_mostly_near(&mix(0), &base) && is_mostly_near(&mix(2), &base));
    assert!(!is_mostly_near(&mix(10), &base) && !is_mostly_near(&base, &mix(10)));
}

#[test]
fn moved_rows_are_found() {
    let words = weights(0, COUNT, 0.0);
    let base = sketch(&words, ROW);
    let tuned = weights(7, COUNT, 0.001);
    for rows in [1usize, 7, 300] {
        let moved = sketch(&tuned[rows * 100..], ROW);
        let by = i64::try_from(rows).unwrap();
        assert_eq!(shift(&moved, &base), Some(-by));
        assert_eq!(shift(&base, &moved), Some(by));
    }
    let mut other = words;
    other.reverse();
    assert_eq!(shift(&sketch(&other, ROW), &base), None);
}

#[test]
fn a_slot_keeps_its_row_when_rows_are_added() {
    for rows in [1u64, 2, 100, 32_000, 150_000] {
        let moved =
            (0..SLOTS).filter(|slot| places::row(*slot, rows) != places::row(*slot, rows + 1));
        let moved = moved.count() as u64;
        assert!(moved <= 3 + 2 * SLOTS as u64 / rows, "{rows} {moved}");
        let mean = (0..SLOTS).map(|slot| places::row(slot, rows)).sum::<u64>() / SLOTS as u64;
        assert!(
            mean <= rows * 6 / 10 && mean >= (rows - 1) * 4 / 10,
            "{rows} {mean}"
        );
    }
}
