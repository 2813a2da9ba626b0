//! What the demo, the measurement of the whole job and the tests share; each takes a part.
#![allow(
    dead_code,
    reason = "each program that includes this takes a part of it"
)]

pub mod family;
pub mod measure;
pub mod programs;
pub mod random;
mod safetensors_file;
pub mod tree;
pub mod weights;
