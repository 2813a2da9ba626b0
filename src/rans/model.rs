//! Contexts: bins of elements with about the same expected magnitude, merged while that saves bits.
#![allow(clippy::indexing_slicing, reason = "groups are numbered here")]

use super::Bad;
use super::bits::{BitReader, BitWriter};
use super::table::{CONTEXTS, Counts, cost};
use super::token::TOKENS;

/// The context of each bin: 0 for the first, the same or one more for every next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BinMap<const N: usize>(pub(super) [u8; N]);

impl<const N: usize> BinMap<N> {
    /// Contexts in use.
    pub(super) fn contexts(&self) -> usize {
        usize::from(self.0[N - 1]) + 1
    }

    /// Writes one bit for every bin but the first: whether it starts a context.
    pub(super) fn write(&self, writer: &mut BitWriter<'_>) {
        for pair in self.0.windows(2) {
            writer.put(u32::from(pair[1] != pair[0]), 1);
        }
    }

    /// Reads what [`Self::write`] wrote.
    pub(super) fn read(reader: &mut BitReader<'_>) -> Result<Self, Bad> {
        let mut map = [0u8; N];
        let mut context = 0;
        for slot in map.iter_mut().skip(1) {
            context += reader.take(1)? as u8;
            *slot = context;
        }
        Ok(Self(map))
    }
}

/// Neighbouring bins merged to contexts.
pub(super) struct Merged<const N: usize> {
    /// The context of each bin.
    pub(super) map: BinMap<N>,
    /// Tokens counted in each context.
    pub(super) counts: Vec<Counts>,
    /// Bits of all tokens and tables, in units of 2^-16.
    pub(super) cost: u64,
}

struct Group {
    counts: Counts,
    bins: usize,
    cost: u64,
    /// Bits, in units of 2^-16, that merging with the next group saves.
    gain: i64,
}

/// Merges neighbours, the most profitable first, until none is and at most `most` contexts are left.
pub(super) fn merge<const N: usize>(bins: &[Counts], most: usize) -> Merged<N> {
    let mut groups: Vec<Group> = Vec::with_capacity(N);
    let mut lead = 0;
    for counts in bins.iter().take(N) {
        if counts.iter().all(|&count| count == 0) {
            match groups.last_mut() {
                Some(group) => group.bins += 1,
                None => lead += 1,
            }
            continue;
        }
        groups.push(Group {
            counts: *counts,
            bins: 1 + lead,
            cost: cost(counts),
            gain: i64::MIN,
        });
        lead = 0;
    }
    for i in 1..groups.len() {
        groups[i - 1].gain = gain(&groups[i - 1], &groups[i]);
    }
    while let Some((best, gain)) = groups
        .iter()
        .map(|g| g.gain)
        .enumerate()
        .max_by_key(|&(i, gain)| (gain, N - i))
    {
        if groups.len() < 2 || (gain <= 0 && groups.len() <= most.min(CONTEXTS)) {
            break;
        }
        join(&mut groups, best);
    }
    finish(&groups)
}

fn gain(left: &Group, right: &Group) -> i64 {
    (left.cost + right.cost) as i64 - cost(&sum(&left.counts, &right.counts)) as i64
}

fn sum(left: &Counts, right: &Counts) -> Counts {
    let mut out = [0; TOKENS];
    for ((out, left), right) in out.iter_mut().zip(left).zip(right) {
        *out = left + right;
    }
    out
}

fn join(groups: &mut Vec<Group>, at: usize) {
    let right = groups.remove(at + 1);
    let left = &mut groups[at];
    left.counts = sum(&left.counts, &right.counts);
    left.bins += right.bins;
    left.cost = (left.cost + right.cost).wrapping_add_signed(-left.gain);
    groups[at].gain = if at + 1 < groups.len() {
        gain(&groups[at], &groups[at + 1])
    } else {
        i64::MIN
    };
    if at > 0 {
        groups[at - 1].gain = gain(&groups[at - 1], &groups[at]);
    }
}

fn finish<const N: usize>(groups: &[Group]) -> Merged<N> {
    let mut map = [0u8; N];
    let mut at = 0;
    for (context, group) in groups.iter().enumerate() {
        let end = if context + 1 == groups.len() {
            N
        } else {
            at + group.bins
        };
        map[at..end].fill(context as u8);
        at = end;
    }
    let counts = if groups.is_empty() {
        vec![[0; TOKENS]]
    } else {
        groups.iter().map(|g| g.counts).collect()
    };
    Merged {
        map: BinMap(map),
        counts,
        cost: groups.iter().map(|g| g.cost).sum(),
    }
}
