//! Any words come back, from one payload on every instruction set, and it is at most one byte longer than they are.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zipllm::dtype::DType;
use zipllm::rans::{Chunk, Effort, Isa, Scratch, decode, encode};

const DTYPES: [DType; 7] = [
    DType::Bf16,
    DType::F16,
    DType::F32,
    DType::F64,
    DType::F8E4M3,
    DType::F8E5M2,
    DType::Opaque,
];

fuzz_target!(|input: &[u8]| {
    let Some((head, rest)) = input.split_first_chunk::<4>() else {
        return;
    };
    let dtype = DTYPES[usize::from(head[0]) % DTYPES.len()];
    let effort = [Effort::Fast, Effort::Default, Effort::Max][usize::from(head[1]) % 3];
    let times = if head[2] & 1 == 0 {
        1
    } else {
        1 + 70_000 / rest.len().max(1)
    };
    let words = rest.repeat(times);
    let words = &words[..words.len() / 2 / dtype.size() * 2 * dtype.size()];
    let (raw, base) = words.split_at(words.len() / 2);
    let chunk = Chunk {
        dtype,
        row_len: u64::from(head[3]),
        first_element: 3,
        base: (head[2] & 2 == 0).then_some(base),
    };
    let mut scratch = Scratch::default();
    let mut first: Option<Vec<u8>> = None;
    for isa in Isa::all() {
        let mut payload = Vec::new();
        encode(isa, effort, &chunk, raw, &mut scratch, &mut payload);
        assert!(payload.len() <= raw.len() + 1);
        let mut out = vec![0; raw.len()];
        assert_eq!(
            decode(isa, &chunk, &payload, &mut out, &mut scratch),
            Ok(())
        );
        assert!(out == raw);
        assert!(first.get_or_insert_with(|| payload.clone()) == &payload);
    }
});
