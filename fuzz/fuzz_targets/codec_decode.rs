//! Any payload of any codec is decoded to exactly the chunk's length or refused.
//!
//! The input: codec, dtype, log2 of the length, base, perhaps a shared section; then the payload, as it is, or XORed over that of a real chunk, or
//! put behind the lengths and modes of byte planes.
#![no_main]

#[path = "common/mod.rs"]
mod common;

use common::{Input, any_dtype, base};
use zipllm::codec::{ChunkView, EncodeOptions, Prepared, REGISTRY, Workspace};

thread_local! {
    static WORKSPACE: std::cell::RefCell<Workspace> = std::cell::RefCell::default();
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    let codec = REGISTRY[usize::from(input.byte()) % REGISTRY.len()];
    let (dtype, origin, length) = (any_dtype(input.byte()), input.byte(), input.number() % 3000);
    let base = base(length);
    let with_base = codec.uses_base() || origin & 4 == 0;
    let view = ChunkView {
        dtype,
        row_len: 20,
        first_element: 0,
        base: with_base.then_some(&base[..]),
    };
    let prepared = match origin & 24 {
        0 => {
            let length = usize::from(input.byte());
            let section = input.bytes(length);
            Prepared::parse(section, origin & 32 == 0, dtype, 20).unwrap_or_default()
        }
        _ => Prepared::default(),
    };
    WORKSPACE.with_borrow_mut(|ws| {
        let whole = length.is_multiple_of(dtype.size());
        let payload = match origin & 3 {
            0 if whole => {
                let raw: Vec<u8> = base.iter().map(|b| b ^ (b >> 5)).collect();
                let mut payload = Vec::new();
                codec.encode(&EncodeOptions::default(), &view, &raw, ws, &mut payload);
                let at = input.number() % (payload.len() + 1);
                payload
                    .iter_mut()
                    .skip(at)
                    .zip(input.0)
                    .for_each(|(to, from)| *to ^= from);
                payload
            }
            1 => planes(length, dtype.size(), &mut input),
            _ => input.0.to_vec(),
        };
        let mut out = vec![0; length];
        let _ = codec.decode(&prepared, &view, &payload, &mut out, ws);
    });
});

/// Planes with right lengths, mostly: raw, constant, and frames of zstd cut short.
fn planes(length: usize, size: usize, input: &mut Input<'_>) -> Vec<u8> {
    let elements = length / size;
    let mut out = Vec::new();
    for _ in 0..size {
        let mode = input.byte();
        let stored = match mode & 3 {
            0 => elements,
            2 => 1,
            _ => usize::from(input.byte()),
        };
        let [a, b, ..] = stored.to_le_bytes();
        out.extend([a, b, 0, if mode > 250 { mode } else { mode & 3 }]);
        let start = out.len();
        if mode & 3 == 1 {
            // A frame header without a content size, so that the input goes on with blocks.
            out.extend([0x28, 0xB5, 0x2F, 0xFD, 0x00, 0x00]);
        }
        out.extend_from_slice(input.bytes(stored.saturating_sub(out.len() - start)));
        out.resize(start + stored, 0x55);
    }
    out
}
