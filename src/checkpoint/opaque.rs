//! The format of every other file: one span of bytes.

use super::{Fault, Layout, ReadAt, Segmenter};

pub(super) struct Opaque;

impl Segmenter for Opaque {
    fn name(&self) -> &'static str {
        "opaque"
    }

    fn claims(&self, _name: &str, _head: &[u8]) -> bool {
        true
    }

    fn split(&self, input: &dyn ReadAt) -> Result<Layout, Fault> {
        Ok(Layout::opaque(input.len()))
    }
}
