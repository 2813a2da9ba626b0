//! Takes together what an encoder keeps.

use super::super::WIDE;
use super::super::bits::BitWriter;
use super::super::choose;
use super::super::kernel::Isa;
use super::super::model::{BinMap, merge};
use super::super::parts::Parts;
use super::super::table::{self, CONTEXTS, Counts};
use super::super::token::TokenMap;
use super::RUN;

/// Of so many runs all but one have to be skipped: a chunk then takes up to a seventh more bytes, of the few that it has, and two thirds
/// of the time to decode.
const PART: usize = 4;

/// Tells whether a chunk of differences with these tokens is to be coded with skips.
pub(in super::super) fn pay(tokens: &[u8]) -> bool {
    let (runs, _) = tokens.as_chunks::<RUN>();
    let kept = runs.iter().filter(|run| !is_skipped(*run)).count();
    tokens.len() >= WIDE && kept * PART <= runs.len()
}

/// Code 0, no difference, is token 0 of every element type.
fn is_skipped(tokens: &[u8]) -> bool {
    tokens.iter().fold(0, |any, &token| any | token) == 0
}

/// What is kept of a chunk whose parts, at the front of them, were taken together.
pub(in super::super) struct Kept {
    /// Elements kept.
    pub(in super::super) elements: usize,
    /// Tokens of those, counted by context.
    pub(in super::super) counts: Vec<Counts>,
    /// The flag of each run, as a token.
    pub(in super::super) flags: Vec<u8>,
    /// The context of each flag.
    pub(in super::super) flag_contexts: Vec<u8>,
    merged: BinMap<CONTEXTS>,
    flag_counts: Vec<Counts>,
}

/// Takes the elements of runs that are kept, tokens and so many planes of raw bits, to the front of `parts` and their contexts,
/// of which there are so many, to the front of `ctx`.
pub(in super::super) fn keep(
    isa: Isa,
    contexts: usize,
    planes: usize,
    parts: &mut Parts,
    ctx: &mut [u8],
) -> Kept {
    let mut flag_contexts = vec![0; ctx.len().div_ceil(RUN)];
    isa.highest_contexts(ctx, &mut flag_contexts);
    let runs = parts.tokens.chunks(RUN);
    let flags: Vec<u8> = runs.map(|run| u8::from(!is_skipped(run))).collect();
    let elements = move_to_front(&flags, planes, parts, ctx);
    let (tables, counts) = (&mut parts.tables, &mut parts.counts);
    choose::count(
        &parts.tokens,
        ctx,
        std::iter::once(0..elements),
        tables,
        counts,
    );
    let kept = counts.iter().take(contexts).copied().collect();
    let all = std::iter::once(0..flags.len());
    choose::count(&flags, &flag_contexts, all, tables, counts);
    let merged = merge::<CONTEXTS>(counts, CONTEXTS);
    isa.bin_contexts(&merged.map.0, &mut flag_contexts);
    Kept {
        elements,
        counts: kept,
        flags,
        flag_contexts,
        merged: merged.map,
        flag_counts: merged.counts,
    }
}

/// Moves what is of runs with a flag to the front; returns how many elements that is.
fn move_to_front(flags: &[u8], planes: usize, parts: &mut Parts, ctx: &mut [u8]) -> usize {
    let all = parts.tokens.len();
    let mut elements = 0;
    let starts = (0..).step_by(RUN).zip(flags);
    for (start, _) in starts.filter(|(_, flag)| **flag != 0) {
        let run = start..all.min(start + RUN);
        parts.tokens.copy_within(run.clone(), elements);
        ctx.copy_within(run.clone(), elements);
        for plane in parts.raw.iter_mut().take(planes) {
            plane.copy_within(run.clone(), elements);
        }
        elements += run.len();
    }
    elements
}

impl Kept {
    /// Writes the contexts and tables of flags; returns the tables as an encoder reads them.
    pub(in super::super) fn write_tables(&self, table_bits: u32, out: &mut Vec<u8>) -> Vec<u32> {
        let mut writer = BitWriter::new(out);
        self.merged.write(&mut writer);
        let (map, mut encoder) = (TokenMap::bytes(), Vec::new());
        table::write_all(
            &self.flag_counts,
            &map,
            table_bits,
            &mut writer,
            &mut encoder,
        );
        writer.finish();
        encoder
    }
}
