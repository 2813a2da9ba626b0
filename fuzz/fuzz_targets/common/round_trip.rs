//! Encodes and decodes on every instruction set.

use zipllm::rans::{Chunk, Effort, Isa, Scratch, Shared, decode, encode};

use super::common::{Input, any_dtype};
use super::shared::with_learnt;

thread_local! {
    static SCRATCH: std::cell::RefCell<Scratch> = std::cell::RefCell::default();
}

/// Any words come back, from one payload on every instruction set, and it is at most one byte longer than they are.
///
/// The input: dtype, effort, what the base is, row length; then the words, repeated up to about `most` elements.
pub fn run(input: &[u8], most: usize) {
    let mut input = Input(input);
    let dtype = any_dtype(input.byte());
    let effort = [Effort::Fast, Effort::Default, Effort::Max][usize::from(input.byte()) % 3];
    let (mode, row_len) = (input.byte(), input.number());
    let size = dtype.size();
    let times = 1 + most * size / input.0.len().max(1);
    let raw = input.0.repeat(if mode & 4 == 0 { times } else { 1 });
    let raw = &raw[..raw.len() / size * size];
    let mut base: Vec<u8> = raw.to_vec();
    match mode & 3 {
        0 => base.iter_mut().step_by(7).for_each(|b| *b ^= mode >> 3),
        1 => base.reverse(),
        _ => base.rotate_left(usize::from(mode >> 3) % raw.len().max(1)),
    }
    let chunk = Chunk {
        dtype,
        row_len: row_len as u64,
        first_element: 3,
        base: (mode & 3 != 3).then_some(&base[..]),
        shared: None,
    };
    let has_base = chunk.base.is_some();
    with_learnt(dtype, row_len as u64, has_base, effort, |learnt| {
        let chunk = Chunk {
            shared: learnt.filter(|_| mode & 8 != 0),
            ..chunk
        };
        SCRATCH.with_borrow_mut(|scratch| round_trip(&chunk, effort, raw, scratch));
    });
}

fn round_trip(chunk: &Chunk<'_>, effort: Effort, raw: &[u8], scratch: &mut Scratch) {
    let mut first: Option<Vec<u8>> = None;
    let parse = |it: &Shared| Shared::parse(chunk.dtype, chunk.row_len, &it.to_bytes()).unwrap();
    let parsed = chunk.shared.map(parse);
    let decoder = Chunk {
        shared: parsed.as_ref(),
        ..*chunk
    };
    for isa in Isa::all() {
        let mut payload = Vec::new();
        encode(isa, effort, chunk, raw, scratch, &mut payload);
        assert!(payload.len() <= raw.len() + 1);
        let mut out = vec![0; raw.len()];
        assert_eq!(decode(isa, &decoder, &payload, &mut out, scratch), Ok(()));
        assert!(out == raw);
        assert!(first.get_or_insert_with(|| payload.clone()) == &payload);
    }
}
