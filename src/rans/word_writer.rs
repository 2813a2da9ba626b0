//! States and words of a payload, as an encoder writes them.
#![allow(
    clippy::indexing_slicing,
    reason = "lanes and words are those that the coder was given"
)]

use super::kernel::{Coder, Isa};
use super::{LANES, LOW};

/// The coder's words of a payload, which come from the last element to the first.
pub(super) struct WordWriter<'a> {
    states: [u32; LANES],
    lanes: usize,
    bytes: &'a mut [u8],
    /// Where those that are there start.
    at: usize,
}

impl<'a> WordWriter<'a> {
    /// None yet, and room for so many bytes.
    pub(super) fn new(lanes: usize, room: usize, bytes: &'a mut Vec<u8>) -> Self {
        // Longer than needed it stays, so that nothing is set to zero again.
        if bytes.len() < room {
            bytes.resize(room, 0);
        }
        Self {
            states: [LOW; LANES],
            lanes,
            bytes: &mut bytes[..room],
            at: room,
        }
    }

    /// Codes elements before those that are there.
    pub(super) fn put(
        &mut self,
        isa: Isa,
        coder: &Coder<'_>,
        ctx: &[u8],
        tokens: &mut [u8],
        raw: &mut [Vec<u16>; 4],
    ) {
        let (states, bytes) = (&mut self.states[..self.lanes], &mut self.bytes[..self.at]);
        self.at = isa.encode(coder, states, ctx, tokens, raw, bytes);
    }

    /// Appends states and words.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        let states = self.states.iter().take(self.lanes);
        out.extend(states.flat_map(|x| x.to_le_bytes()));
        out.extend_from_slice(&self.bytes[self.at..]);
    }
}
