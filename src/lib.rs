//! zipllm keeps families of LLM checkpoints in one store, losslessly, in a fraction of the space.

pub mod codec;
pub mod dtype;
pub mod error;
pub mod hash;
pub mod kernel;
pub mod name;
pub mod rans;

pub use error::{Error, ErrorKind, Result};
