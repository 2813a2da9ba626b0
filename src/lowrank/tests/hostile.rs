//! Shared sections and chunks that nobody wrote: refused, or harmless.

use super::*;

#[test]
fn shared_sections_are_bounded_and_checked() {
    let head = |flags: u8, set_rows: u64, count: u32, sets: &[[u8; 2]]| {
        let mut out = vec![flags];
        out.extend(set_rows.to_le_bytes());
        out.extend(count.to_le_bytes());
        out.extend(sets.iter().flatten());
        out
    };
    let parse =
        |row_len, bytes: &[u8]| Columns::parse(Isa::detect(), DType::Bf16, row_len, bytes).err();
    for (row_len, bytes, want) in [
        (64, vec![0], Bad::Truncated),
        (64, head(2, 1, 0, &[]), Bad::Malformed("shared section")),
        (64, head(0, 0, 0, &[]), Bad::Malformed("shared section")),
        (0, head(0, 1, 0, &[]), Bad::Malformed("shared section")),
        (64, head(0, 1, u32::MAX, &[]), Bad::Truncated),
        (64, head(0, 1, 1, &[[129, 100]]), Bad::Malformed("rank")),
        (64, head(0, 1, 1, &[[65, 100]]), Bad::Malformed("rank")),
        (64, head(0, 1, 1, &[[1, 0]]), Bad::Malformed("rank")),
        (64, head(0, 1, 1, &[[1, 255]]), Bad::Malformed("rank")),
        (
            1 << 60,
            head(0, 1, 1, &[[128, 100]]),
            Bad::Malformed("rank"),
        ),
        (
            1 << 20,
            head(0, 1, 2, &[[32, 100], [1, 100]]),
            Bad::Malformed("rank"),
        ),
        (64, head(0, 1, 1, &[[1, 100]]), Bad::Truncated),
    ] {
        assert_eq!(parse(row_len, &bytes), Some(want), "{row_len}");
    }
    let shape = Shape {
        dtype: DType::Bf16,
        elements: 6400,
        row_len: 64,
        set_rows: 100,
    };
    let mut good = any_factors(shape, &[5], false, true)
        .columns()
        .to_bytes(Isa::detect());
    assert_eq!(parse(64, &good), None);
    good.push(0);
    assert_eq!(parse(64, &good), Some(Bad::Trailing));
}

#[test]
fn a_factor_that_is_too_large_is_refused() {
    let shape = Shape {
        dtype: DType::Bf16,
        elements: 64,
        row_len: 4,
        set_rows: 16,
    };
    let mut fitted = any_factors(shape, &[2], false, false);
    let base = vec![0; 128];
    let chunk = Chunk {
        dtype: DType::Bf16,
        row_len: 4,
        first_element: 0,
        base: Some(&base),
        shared: None,
    };
    fitted.rows.words[3] = 2048;
    let mut payload = Vec::new();
    encode(
        Isa::detect(),
        Effort::Default,
        &fitted,
        &chunk,
        &base,
        &mut Scratch::default(),
        &mut payload,
    );
    let mut out = vec![0; 128];
    let done = decode(
        Isa::detect(),
        fitted.columns(),
        &chunk,
        &payload,
        &mut out,
        &mut Scratch::default(),
    );
    assert_eq!(done, Err(Bad::Malformed("factor")));
}

#[test]
fn damage_is_refused_or_harmless_and_never_a_panic() {
    let pair = Pair::new(DType::Bf16, 2, 60, 50, 2, 1e-4);
    let fitted = any_factors(pair.shape, &[2, 3], false, false);
    let chunk = Chunk {
        dtype: DType::Bf16,
        row_len: 50,
        first_element: 0,
        base: Some(&pair.base),
        shared: None,
    };
    let (mut scratch, mut payload) = (Scratch::default(), Vec::new());
    encode(
        Isa::detect(),
        Effort::Default,
        &fitted,
        &chunk,
        &pair.target,
        &mut scratch,
        &mut payload,
    );
    let shared = fitted.columns().to_bytes(Isa::detect());
    let mut out = vec![0; pair.target.len()];
    for end in 0..payload.len() {
        assert!(
            decode(
                Isa::detect(),
                fitted.columns(),
                &chunk,
                &payload[..end],
                &mut out,
                &mut scratch
            )
            .is_err()
        );
    }
    for bit in 0..payload.len().min(900) * 8 {
        payload[bit / 8] ^= 1 << (bit % 8);
        let _ = decode(
            Isa::detect(),
            fitted.columns(),
            &chunk,
            &payload,
            &mut out,
            &mut scratch,
        );
        payload[bit / 8] ^= 1 << (bit % 8);
    }
    for bit in 0..shared.len() * 8 {
        let mut shared = shared.clone();
        shared[bit / 8] ^= 1 << (bit % 8);
        if let Ok(columns) = Columns::parse(Isa::detect(), DType::Bf16, 50, &shared) {
            let _ = decode(
                Isa::detect(),
                &columns,
                &chunk,
                &payload,
                &mut out,
                &mut scratch,
            );
        }
    }
    // A chunk that lies elsewhere than its object says.
    let far = Chunk {
        first_element: u64::MAX - 5,
        ..chunk
    };
    assert!(
        decode(
            Isa::detect(),
            fitted.columns(),
            &far,
            &payload,
            &mut out,
            &mut scratch
        )
        .is_err()
    );
    let other = Chunk {
        row_len: 49,
        ..chunk
    };
    assert!(
        decode(
            Isa::detect(),
            fitted.columns(),
            &other,
            &payload,
            &mut out,
            &mut scratch
        )
        .is_err()
    );
}
