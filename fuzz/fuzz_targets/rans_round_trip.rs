//! Any words of a small chunk come back, from one payload on every instruction set, at every effort.
#![no_main]

#[path = "common/mod.rs"]
mod common;
#[path = "common/round_trip.rs"]
mod round_trip;
#[path = "common/shared.rs"]
mod shared;

libfuzzer_sys::fuzz_target!(|input: &[u8]| round_trip::run(input, 0));
