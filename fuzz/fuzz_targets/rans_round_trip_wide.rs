//! As `rans_round_trip`, for chunks with many lanes, and with row and column scales.
#![no_main]

#[path = "common/mod.rs"]
mod common;
#[path = "common/round_trip.rs"]
mod round_trip;
#[path = "common/shared.rs"]
mod shared;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let few = input.first().is_some_and(|byte| byte & 16 == 0);
    round_trip::run(input, if few { 4_096 } else { 32_768 });
});
