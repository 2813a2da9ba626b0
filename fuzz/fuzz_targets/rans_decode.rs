//! Any payload of a small chunk decodes to something or is refused, alike on every instruction set.
#![no_main]

#[path = "common/mod.rs"]
mod common;
#[path = "common/decode.rs"]
mod decode;
#[path = "common/forge.rs"]
mod forge;
#[path = "common/shared.rs"]
mod shared;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    decode::run(input, |byte| match byte {
        0..=127 => usize::from(byte),
        // Enough for row and column scales of a real chunk.
        255 => 4100,
        _ => usize::from(byte) * 3,
    });
});
