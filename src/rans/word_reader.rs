//! States and words of a payload, as a decoder takes them.

use super::kernel::{Coder, Isa, Relation, Word, group_bytes};
use super::{Bad, LANES, LOW};

/// The states and words of a payload, with room behind the last one so that loops need not look at every word.
pub(super) struct WordReader<'a> {
    states: [u32; LANES],
    lanes: usize,
    bytes: &'a [u8],
    position: usize,
    tail: [u8; TAIL],
    /// Bytes of words in the tail, once it is in use.
    in_tail: Option<usize>,
}

/// Room for the words of two groups of the widest kind.
const TAIL: usize = 2 * group_bytes(LANES, 4) + 64;

impl<'a> WordReader<'a> {
    /// Words of a payload with these states, of which so many lanes are in use.
    pub(super) fn new(states: [u32; LANES], lanes: usize, bytes: &'a [u8]) -> Self {
        Self {
            states,
            lanes,
            bytes,
            position: 0,
            tail: [0; TAIL],
            in_tail: None,
        }
    }

    /// Decodes elements that follow those decoded so far, whole groups of lanes, to `out`; `codes` is scratch.
    pub(super) fn decode<W: Word>(
        &mut self,
        isa: Isa,
        coder: &Coder<'_>,
        ctx: &[u8],
        relation: Relation<'_>,
        codes: &mut [W],
        out: &mut [u8],
    ) -> Result<(), Bad> {
        let mut done = 0;
        let states = self.states.get_mut(..self.lanes).unwrap_or_default();
        let at = &mut self.position;
        if self.in_tail.is_none() {
            done = isa.decode(coder, states, self.bytes, at, ctx, relation, codes, out);
            if done == codes.len() {
                return Ok(());
            }
            let left = self.bytes.get(*at..).ok_or(Bad::Truncated)?;
            let tail = self.tail.get_mut(..left.len()).ok_or(Bad::Truncated)?;
            tail.copy_from_slice(left);
            self.in_tail = Some(left.len());
            *at = 0;
        }
        let start = done * (out.len() / codes.len().max(1));
        let (ctx, relation) = (ctx.get(done..).unwrap_or_default(), relation.after(start));
        let codes = codes.get_mut(done..).unwrap_or_default();
        let out = out.get_mut(start..).unwrap_or_default();
        let more = isa.decode(coder, states, &self.tail, at, ctx, relation, codes, out);
        if more == codes.len() {
            Ok(())
        } else {
            Err(Bad::Truncated)
        }
    }

    /// Checks that all words were used and that states are where encoders start.
    pub(super) fn finish(&self) -> Result<(), Bad> {
        let is_done = self.position == self.in_tail.unwrap_or(self.bytes.len());
        if is_done && self.states.iter().all(|&x| x == LOW) {
            Ok(())
        } else {
            Err(Bad::Malformed("words"))
        }
    }
}
