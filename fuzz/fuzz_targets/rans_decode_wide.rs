//! As `rans_decode`, for chunks with many lanes, which instruction sets decode each in their own way.
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
    decode::run(input, |byte| 32_768 + usize::from(byte));
});
