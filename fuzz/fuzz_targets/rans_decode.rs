//! Any payload decodes to something or is refused, alike on every instruction set.
//!
//! The input: dtype, kind of payload, log2 of the elements, row length, base or none; then the payload. One input in
//! two has its payload taken from a real chunk and only the input's bytes XORed over it, so that deep states are reached.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zipllm::dtype::DType;
use zipllm::rans::{Chunk, Effort, Isa, Scratch, decode, encode};

const DTYPES: [DType; 6] = [
    DType::Bf16,
    DType::F16,
    DType::F32,
    DType::F64,
    DType::F8E4M3,
    DType::F8E5M2,
];

thread_local! {
    static SCRATCH: std::cell::RefCell<Scratch> = std::cell::RefCell::default();
}

fuzz_target!(|input: &[u8]| {
    let Some((head, rest)) = input.split_first_chunk::<6>() else {
        return;
    };
    let dtype = DTYPES[usize::from(head[0]) % DTYPES.len()];
    // Around the least chunk with many lanes, or small.
    let elements = if head[2] & 1 == 0 {
        32_768 + usize::from(head[3])
    } else {
        usize::from(head[3]) * 8
    };
    let bytes = elements * dtype.size();
    let base: Vec<u8> = (0..bytes)
        .map(|i| (i as u32).wrapping_mul(0x9E37_79B1).rotate_right(9) as u8 & 0x3F)
        .collect();
    let chunk = Chunk {
        dtype,
        row_len: u64::from(head[4]),
        first_element: 5,
        base: (head[5] & 1 == 0).then_some(&base[..]),
    };
    SCRATCH.with_borrow_mut(|scratch| {
        let mut payload = rest.to_vec();
        if head[5] & 2 == 0 {
            let raw: Vec<u8> = base
                .iter()
                .enumerate()
                .map(|(i, b)| if i % 5 == 0 { b ^ 1 } else { *b })
                .collect();
            payload.clear();
            encode(
                Isa::detect(),
                Effort::Default,
                &chunk,
                &raw,
                scratch,
                &mut payload,
            );
            let at = usize::from(head[1]) * 2;
            payload
                .iter_mut()
                .skip(at)
                .zip(rest)
                .for_each(|(to, from)| *to ^= from);
        }
        let mut results = Vec::new();
        for isa in Isa::all() {
            let mut out = vec![0; bytes];
            let result = decode(isa, &chunk, &payload, &mut out, scratch);
            results.push(result.map(|()| out));
        }
        // What is accepted is the same everywhere.
        let accepted: Vec<_> = results.iter().map(|result| result.as_ref().ok()).collect();
        assert!(accepted.windows(2).all(|pair| pair[0] == pair[1]));
    });
});
