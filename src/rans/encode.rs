//! Encodes a chunk: cuts it into parts, has contexts chosen, writes tables and words.
#![allow(
    clippy::indexing_slicing,
    reason = "lanes and words are those that the coder was given"
)]

use std::mem::take;

use super::bits::BitWriter;
use super::choose::{Choice, Fitting, choose};
use super::fit;
use super::kernel::{Coder, Isa, Link, Relation};
use super::parts::{self, Parts, cut};
use super::phased::{self, Predict};
use super::shared::{self, Fit};
use super::skips::{self, Kept};
use super::table::{self, Counts};
use super::token::{Format, TokenMap};
use super::word_writer::WordWriter;
use super::{Chunk, Grid, Scratch, flags, lanes_of, may_skip, tails};

/// How much time an encoder may take for how small a result; the decoder does not care.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Effort {
    /// Contexts from the base's exponent alone.
    Fast,
    /// Row and column scales too.
    #[default]
    Default,
    /// More contexts and finer tables, chosen exactly.
    Max,
}

impl Effort {
    /// Most contexts of a chunk; the tables of the lower number fit the second-level cache of most machines.
    pub(super) fn most_contexts(self) -> usize {
        if self == Self::Max { 40 } else { 24 }
    }

    /// Sweeps that fit scales look at one of so many parts of a chunk, but for the last: what they only guess that one mends.
    pub(super) fn sampled_part(self) -> usize {
        if self == Self::Max { 1 } else { 4 }
    }
}

/// How the parts of a chunk are to be coded.
pub(super) struct Plan {
    pub(super) map: TokenMap,
    pub(super) link: Link,
    pub(super) planes: usize,
    pub(super) flags: u8,
    /// The top of the exponents' classes, or the start of the window of tokens.
    pub(super) window: u16,
    /// Where scales begin, as for [`cut`].
    pub(super) first: u32,
    /// Whether there is a base with classes.
    pub(super) classes: bool,
}

impl Plan {
    /// Slots of a table, as a power of two.
    pub(super) fn table_bits(&self) -> u32 {
        table::bits_of(self.flags)
    }

    /// Lays tails flat if that pays where tokens are counted so.
    pub(super) fn lay_flat(&mut self, elements: u64, counts: &[Counts]) {
        if tails::pay(&self.map, elements, counts) {
            self.map.lay_flat();
            self.flags |= flags::FLAT;
        }
    }
}

/// A chunk to be encoded.
#[derive(Clone, Copy)]
pub(super) struct Task<'a> {
    pub(super) isa: Isa,
    pub(super) effort: Effort,
    pub(super) format: Format,
    pub(super) chunk: &'a Chunk<'a>,
    /// Of predicted elements of 16 bits, each one's phase and side.
    pub(super) hints: Option<&'a [u8]>,
    /// Whether runs may be skipped: those of predicted elements never are.
    pub(super) may_skip: bool,
    /// The chunk's bytes, whole elements.
    pub(super) raw: &'a [u8],
}

impl Task<'_> {
    pub(super) fn elements(&self) -> usize {
        self.raw.len() / self.format.bytes()
    }

    pub(super) fn grid(&self) -> Grid {
        self.chunk.grid(self.elements())
    }
}

/// Appends the payload of `raw` to `out`: at most one byte more than `raw`.
///
/// A chunk of a dtype that the coder does not take, of a part of an element, or whose base has another length, is
/// stored as it is.
pub fn encode(
    isa: Isa,
    effort: Effort,
    chunk: &Chunk<'_>,
    raw: &[u8],
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) {
    let start = out.len();
    let coded = match Format::of(chunk.dtype) {
        _ if chunk.base == Some(raw) => {
            out.push(flags::EQUAL);
            true
        }
        Some(format) if raw.len().is_multiple_of(format.bytes()) && chunk.fits(raw.len()) => {
            let task = Task {
                isa,
                effort,
                format,
                chunk,
                hints: None,
                may_skip: may_skip(effort),
                raw,
            };
            encode_elements(&task, scratch, out);
            out.len() - start <= raw.len()
        }
        _ => false,
    };
    if !coded {
        out.truncate(start);
        out.push(flags::STORED);
        out.extend_from_slice(raw);
    }
}

/// Appends the payload of `raw`, whose elements `predict` foretells from the chunk's base, to `out`.
///
/// As [`encode`] otherwise; a chunk without a base is stored as it is.
pub fn encode_predicted(
    isa: Isa,
    effort: Effort,
    chunk: &Chunk<'_>,
    predict: &dyn Predict,
    raw: &[u8],
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) {
    let start = out.len();
    let format = Format::of(chunk.dtype).filter(|format| raw.len().is_multiple_of(format.bytes()));
    if let (Some(format), Some(base), true) = (format, chunk.base, chunk.fits(raw.len())) {
        let (mut predicted, mut hints, mut reflected) = (
            take(&mut scratch.predicted),
            take(&mut scratch.hints),
            take(&mut scratch.reflected),
        );
        predicted.resize(raw.len(), 0);
        hints.resize(raw.len() / format.bytes(), 0);
        predict.predict(0, base, &mut predicted, &mut hints);
        reflected.clear();
        reflected.extend_from_slice(raw);
        if predicted == raw {
            out.push(flags::EQUAL);
        } else {
            let phased = format.bits == 16;
            if phased {
                isa.reflect(&predicted, &hints, &mut reflected);
            }
            let chunk = Chunk {
                base: Some(&predicted),
                ..*chunk
            };
            let task = Task {
                isa,
                effort,
                format,
                chunk: &chunk,
                hints: phased.then_some(hints.as_slice()),
                may_skip: false,
                raw: &reflected,
            };
            encode_elements(&task, scratch, out);
        }
        (scratch.predicted, scratch.hints, scratch.reflected) = (predicted, hints, reflected);
    }
    if out.len() == start || out.len() - start > raw.len() {
        out.truncate(start);
        out.push(flags::STORED);
        out.extend_from_slice(raw);
    }
}

/// Appends the smallest payload found.
fn encode_elements(task: &Task<'_>, scratch: &mut Scratch, out: &mut Vec<u8>) {
    let start = out.len();
    let fit = shared::encode(task, scratch, out);
    if fit == Fit::Good && task.effort != Effort::Max {
        return;
    }
    let end = out.len();
    encode_alone(task, scratch, out);
    if fit == Fit::None {
        return;
    }
    let shared = task.chunk.shared;
    let share = shared.map_or(0, |shared| shared.share(task.elements()));
    if out.len() - end < end - start + share {
        out.drain(start..end);
    } else {
        out.truncate(end);
    }
}

/// Appends a payload that nothing but the base is needed for.
fn encode_alone(task: &Task<'_>, scratch: &mut Scratch, out: &mut Vec<u8>) {
    let mut plan = plan(task, scratch);
    let fitting = Fitting::new(task, &plan);
    let choice = match task.hints {
        Some(hints) => phased::choose(&fitting, hints, scratch),
        None => choose(&fitting, scratch),
    };
    plan.lay_flat(task.elements() as u64, &choice.counts);
    let kept = keep(task, &plan, &choice, scratch);
    let skips = if kept.is_some() { flags::SKIPS } else { 0 };
    out.push(plan.flags | choice.flags() | skips);
    out.extend_from_slice(&plan.window.to_le_bytes());
    if let Some((scales, side)) = &choice.scales {
        if plan.classes {
            out.extend(scales.class.map(i8::cast_unsigned));
        }
        out.extend_from_slice(side);
    }
    let mut writer = BitWriter::new(out);
    choice.contexts.write(plan.classes, &mut writer);
    if let Some(kept) = kept {
        write_tables(&plan, &kept.counts, writer, &mut scratch.table);
        write_kept(task, &plan, kept, scratch, out);
    } else {
        write_tables(&plan, &choice.counts, writer, &mut scratch.table);
        write_words(task.isa, &plan, None, task.raw, scratch, out);
    }
}

/// Takes together what is kept of the chunk in `scratch`, if it is to be coded with skips.
fn keep(task: &Task<'_>, plan: &Plan, choice: &Choice, scratch: &mut Scratch) -> Option<Kept> {
    let tokens = &scratch.parts.tokens;
    let pays = plan.classes && task.may_skip && skips::pay(tokens);
    let contexts = choice.counts.len();
    pays.then(|| {
        skips::keep(
            task.isa,
            contexts,
            plan.planes,
            &mut scratch.parts,
            &mut scratch.ctx,
        )
    })
}

/// Codes flags, and the elements that are kept, with the table in `scratch`.
fn write_kept(
    task: &Task<'_>,
    plan: &Plan,
    mut kept: Kept,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) {
    let flag_table = kept.write_tables(plan.table_bits(), out);
    let coder = Coder {
        table: &scratch.table,
        table_bits: plan.table_bits(),
        map: &plan.map,
        planes: plan.planes,
    };
    let of_flags = Coder {
        table: &flag_table,
        map: &TokenMap::bytes(),
        planes: 0,
        ..coder
    };
    let Parts { tokens, raw, .. } = &mut scratch.parts;
    let lanes = lanes_of(tokens.len());
    let room = coder.room(kept.elements) + of_flags.room(kept.flags.len());
    let mut words = WordWriter::new(lanes, room, &mut scratch.words);
    let (ctx, tokens) = (&scratch.ctx[..kept.elements], &mut tokens[..kept.elements]);
    words.put(task.isa, &coder, ctx, tokens, raw);
    let (ctx, flags) = (&kept.flag_contexts, &mut kept.flags);
    words.put(task.isa, &of_flags, ctx, flags, &mut Default::default());
    words.write(out);
}

/// Cuts a chunk as another one was cut.
pub(super) fn cut_as(task: &Task<'_>, plan: &Plan, scratch: &mut Scratch) {
    let &Task {
        isa, format, raw, ..
    } = task;
    let relation = task.chunk.base.map_or(Relation::Solo, Relation::Delta);
    let parts = &mut scratch.parts;
    cut(isa, format, &plan.map, relation, plan.first, raw, parts);
}

/// Cuts a chunk into the parts in `scratch`, windows where most of it lies.
pub(super) fn plan(task: &Task<'_>, scratch: &mut Scratch) -> Plan {
    let mut plan = match task.chunk.base {
        Some(base) => plan_delta(task, base, scratch),
        None => plan_solo(task, scratch),
    };
    if task.effort == Effort::Max {
        plan.flags |= flags::FINE_TABLE;
    }
    plan
}

fn plan_delta(task: &Task<'_>, base: &[u8], scratch: &mut Scratch) -> Plan {
    let &Task {
        isa, format, raw, ..
    } = task;
    let top = parts::top_exponent(format, base);
    let fine = parts::fine_pays(format, raw, base);
    let map = TokenMap::delta(format, fine);
    cut(
        isa,
        format,
        &map,
        Relation::Delta(base),
        top,
        raw,
        &mut scratch.parts,
    );
    let link = fit::delta_link(parts::window_octaves(format, &scratch.parts));
    let fine = if fine { flags::FINE } else { 0 };
    Plan {
        map,
        link,
        planes: format.planes(),
        flags: flags::CODED | fine,
        window: top as u16,
        first: top,
        classes: true,
    }
}

fn plan_solo(task: &Task<'_>, scratch: &mut Scratch) -> Plan {
    let &Task {
        isa, format, raw, ..
    } = task;
    let range = parts::solo_range(format, raw);
    let map = TokenMap::solo(format, range.window);
    cut(
        isa,
        format,
        &map,
        Relation::Solo,
        range.floor,
        raw,
        &mut scratch.parts,
    );
    let link = fit::solo_link(parts::mean_magnitude(&scratch.parts));
    Plan {
        map,
        link,
        planes: format.planes(),
        flags: flags::CODED,
        window: range.window as u16,
        first: range.floor,
        classes: false,
    }
}

/// Writes a table for each context, and lays it out for [`write_words`].
pub(super) fn write_tables(
    plan: &Plan,
    counts: &[Counts],
    mut writer: BitWriter<'_>,
    encoder: &mut Vec<u32>,
) {
    table::write_all(counts, &plan.map, plan.table_bits(), &mut writer, encoder);
    writer.finish();
}

/// Codes what is in `scratch`, the parts of `raw`, by its contexts; with the table there if no other is given.
pub(super) fn write_words(
    isa: Isa,
    plan: &Plan,
    table: Option<&[u32]>,
    raw: &[u8],
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) {
    if plan.map.is_flat() {
        tails::write(isa, &plan.map, raw, out);
    }
    let coder = Coder {
        table: table.unwrap_or(&scratch.table),
        table_bits: plan.table_bits(),
        map: &plan.map,
        planes: plan.planes,
    };
    let Parts { tokens, raw, .. } = &mut scratch.parts;
    let lanes = lanes_of(tokens.len());
    let mut words = WordWriter::new(lanes, coder.room(tokens.len()), &mut scratch.words);
    words.put(isa, &coder, &scratch.ctx, tokens, raw);
    words.write(out);
}
