//! Decodes a payload on every instruction set and compares what is accepted.

use zipllm::dtype::DType;
use zipllm::rans::{Chunk, Effort, Isa, Scratch, decode, encode};

use super::common::{FLOATS, Input, base};
use super::forge::{Shape, payload};
use super::shared::{self, with_learnt};

thread_local! {
    static SCRATCH: std::cell::RefCell<Scratch> = std::cell::RefCell::default();
}

/// Reads dtype, origin of the payload, row length and base from the input; then the payload, which is the input's
/// bytes, or made of them field by field, or that of a real chunk with the input XORed over it.
pub fn run(input: &[u8], elements: impl Fn(u8) -> usize) {
    let mut input = Input(input);
    let dtype = FLOATS[usize::from(input.byte()) % FLOATS.len()];
    let (origin, with_base) = (input.byte(), input.byte() & 1 == 0);
    let elements = elements(input.byte());
    let row_len = input.number() % 400;
    let bytes = elements * dtype.size();
    let base = base(bytes);
    let chunk = Chunk {
        dtype,
        row_len: row_len as u64,
        first_element: 5,
        base: with_base.then_some(&base[..]),
        shared: None,
    };
    if origin & 64 == 0 {
        return SCRATCH.with_borrow_mut(|scratch| {
            let payload = any_payload(&chunk, &base, origin, elements, &mut input, scratch);
            decode_everywhere(&chunk, &payload, bytes, scratch);
        });
    }
    let effort = if origin & 32 == 0 {
        Effort::Default
    } else {
        Effort::Max
    };
    with_learnt(dtype, row_len as u64, with_base, effort, |learnt| {
        let decoder = learnt.and_then(|it| shared::changed(it, dtype, row_len as u64, &mut input));
        SCRATCH.with_borrow_mut(|scratch| {
            let chunk = Chunk {
                shared: learnt,
                ..chunk
            };
            let payload = any_payload(&chunk, &base, origin, elements, &mut input, scratch);
            let chunk = Chunk {
                shared: decoder.as_ref(),
                ..chunk
            };
            decode_everywhere(&chunk, &payload, bytes, scratch);
        });
    });
}

fn any_payload(
    chunk: &Chunk<'_>,
    base: &[u8],
    origin: u8,
    elements: usize,
    input: &mut Input<'_>,
    scratch: &mut Scratch,
) -> Vec<u8> {
    match origin & 3 {
        0 => input.0.to_vec(),
        1 => changed(chunk, base, origin, input, scratch),
        _ => payload(&shape(chunk, elements), input),
    }
}

fn decode_everywhere(chunk: &Chunk<'_>, payload: &[u8], bytes: usize, scratch: &mut Scratch) {
    let results: Vec<_> = Isa::all()
        .into_iter()
        .map(|isa| {
            let mut out = vec![0; bytes];
            let result = decode(isa, chunk, payload, &mut out, scratch);
            result.ok().map(|()| out)
        })
        .collect();
    assert!(results.windows(2).all(|pair| pair[0] == pair[1]));
}

fn shape(chunk: &Chunk<'_>, elements: usize) -> Shape {
    let row_len = match chunk.row_len as usize {
        0 => elements.max(1),
        row_len => row_len,
    };
    Shape {
        delta: chunk.base.is_some(),
        bits: 8 * chunk.dtype.size(),
        grid: [(5 % row_len + elements).div_ceil(row_len), row_len],
        elements,
        tail_bits: match chunk.dtype {
            DType::Bf16 => 6,
            DType::F16 => 9,
            DType::F32 => 21,
            DType::F64 => 51,
            _ => 0,
        },
        lanes: if elements < 32_768 { 4 } else { 64 },
        shared: chunk
            .shared
            .and_then(|shared| shared.to_bytes().get(1).copied()),
    }
}

/// The payload of a chunk near to its base, changed from some byte on.
fn changed(
    chunk: &Chunk<'_>,
    base: &[u8],
    origin: u8,
    input: &mut Input<'_>,
    scratch: &mut Scratch,
) -> Vec<u8> {
    let raw: Vec<u8> = base
        .iter()
        .enumerate()
        .map(|(i, b)| if i % 5 == 0 { b ^ 1 } else { *b })
        .collect();
    let effort = [Effort::Fast, Effort::Default, Effort::Max][usize::from(origin >> 2) % 3];
    let at = input.number();
    let mut payload = Vec::new();
    encode(Isa::detect(), effort, chunk, &raw, scratch, &mut payload);
    let at = at % (payload.len() + 1);
    payload
        .iter_mut()
        .skip(at)
        .zip(input.0)
        .for_each(|(to, from)| *to ^= from);
    payload
}
