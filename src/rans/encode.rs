//! Encodes a chunk: cuts it into parts, has contexts chosen, writes tables and words.
#![allow(
    clippy::indexing_slicing,
    reason = "lanes and words are those that the coder was given"
)]

use std::mem::take;

use super::bits::BitWriter;
use super::choose::{Choice, choose};
use super::fit;
use super::kernel::{Coder, Isa, Link, Relation};
use super::parts::{self, cut};
use super::phased::{self, Phased, Predict};
use super::table::{self, Counts};
use super::token::{Format, TokenMap};
use super::{Chunk, LOW, Scratch, flags, lanes_of};

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
    /// Slots of a table, as a power of two.
    fn table_bits(self) -> u32 {
        if self == Self::Max { 12 } else { 11 }
    }

    /// Most contexts of a chunk; the tables of the lower number fit the second-level cache of most machines.
    pub(super) fn most_contexts(self) -> usize {
        if self == Self::Max { 40 } else { 24 }
    }
}

/// How the parts of a chunk are to be coded.
struct Plan {
    map: TokenMap,
    link: Link,
    planes: usize,
    flags: u8,
    /// The top of the exponents' classes, or the start of the window of tokens.
    window: u16,
    /// Whether there is a base with classes.
    classes: bool,
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
            encode_elements(isa, effort, format, chunk, None, raw, scratch, out);
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
            let hints = phased.then_some(hints.as_slice());
            encode_elements(isa, effort, format, &chunk, hints, &reflected, scratch, out);
        }
        (scratch.predicted, scratch.hints, scratch.reflected) = (predicted, hints, reflected);
    }
    if out.len() == start || out.len() - start > raw.len() {
        out.truncate(start);
        out.push(flags::STORED);
        out.extend_from_slice(raw);
    }
}

#[allow(clippy::too_many_arguments)]
fn encode_elements(
    isa: Isa,
    effort: Effort,
    format: Format,
    chunk: &Chunk<'_>,
    hints: Option<&[u8]>,
    raw: &[u8],
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) {
    let plan = match chunk.base {
        Some(base) => plan_delta(isa, format, raw, base, scratch),
        None => plan_solo(isa, format, raw, scratch),
    };
    let grid = chunk.grid(raw.len() / format.bytes());
    let choice = match hints {
        Some(hints) => Choice::Phased(phased::choose(
            isa, effort, grid, &plan.link, hints, scratch,
        )),
        None => choose(isa, effort, grid, &plan.link, plan.classes, scratch),
    };
    let mut flags = flags::CODED | plan.flags | choice.flags();
    flags |= if effort.table_bits() == 12 {
        flags::FINE_TABLE
    } else {
        0
    };
    out.push(flags);
    out.extend_from_slice(&plan.window.to_le_bytes());
    let (writer, counts) = write_contexts(isa, &plan, choice, scratch, out);
    write_tables(
        &plan.map,
        counts,
        effort.table_bits(),
        writer,
        &mut scratch.table,
    );
    write_words(isa, &plan, effort.table_bits(), scratch, out);
}

/// Writes scales and the map of contexts, and each element's context to `scratch`, where scaled choices have left their
/// bins or contexts; returns what goes on writing, and the tokens counted by context.
fn write_contexts<'a>(
    isa: Isa,
    plan: &Plan,
    choice: Choice,
    scratch: &mut Scratch,
    out: &'a mut Vec<u8>,
) -> (BitWriter<'a>, Vec<Counts>) {
    let classes = &scratch.parts.classes;
    let ctx = &mut scratch.ctx;
    ctx.resize(scratch.parts.tokens.len(), 0);
    if let Choice::Scaled(scales, _, side)
    | Choice::Phased(Phased {
        scales: Some((scales, side)),
        ..
    }) = &choice
    {
        if plan.classes {
            out.extend(scales.class.iter().map(|&scale| scale as u8));
        }
        out.extend_from_slice(side);
    }
    let mut writer = BitWriter::new(out);
    let counts = match choice {
        Choice::Plain(merged) => {
            if plan.classes {
                merged.map.write(&mut writer);
            }
            ctx.copy_from_slice(classes);
            isa.plain_contexts(&merged.map.0, ctx);
            merged.counts
        }
        Choice::Scaled(_, merged, _) => {
            merged.map.write(&mut writer);
            isa.bin_contexts(&merged.map.0, ctx);
            merged.counts
        }
        Choice::Phased(phased) => {
            phased::write_map(&phased.map, &mut writer);
            phased.counts
        }
    };
    (writer, counts)
}

fn plan_delta(isa: Isa, format: Format, raw: &[u8], base: &[u8], scratch: &mut Scratch) -> Plan {
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
    let flags = if fine { flags::FINE } else { 0 };
    Plan {
        map,
        link,
        planes: format.planes(),
        flags,
        window: top as u16,
        classes: true,
    }
}

fn plan_solo(isa: Isa, format: Format, raw: &[u8], scratch: &mut Scratch) -> Plan {
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
        flags: 0,
        window: range.window as u16,
        classes: false,
    }
}

fn write_tables(
    map: &TokenMap,
    counts: Vec<Counts>,
    table_bits: u32,
    mut writer: BitWriter<'_>,
    encoder: &mut Vec<u32>,
) {
    encoder.clear();
    for mut counts in counts {
        table::fold_rare(&mut counts, map, table_bits);
        let frequencies = table::normalise(&counts, table_bits);
        table::write(&frequencies, &mut writer);
        table::lay_out_encoder(&frequencies, map, encoder);
    }
    writer.finish();
}

fn write_words(isa: Isa, plan: &Plan, table_bits: u32, scratch: &mut Scratch, out: &mut Vec<u8>) {
    let coder = Coder {
        table: &scratch.table,
        table_bits,
        map: &plan.map,
        planes: plan.planes,
    };
    let parts = &mut scratch.parts;
    let mut states = [LOW; super::LANES];
    let states = &mut states[..lanes_of(parts.tokens.len())];
    // Longer than needed it stays, so that nothing is set to zero again.
    let room = coder.room(parts.tokens.len());
    if scratch.words.len() < room {
        scratch.words.resize(room, 0);
    }
    let words = &mut scratch.words[..room];
    let (tokens, raw) = (&mut parts.tokens, &mut parts.raw);
    let at = isa.encode(&coder, states, &scratch.ctx, tokens, raw, words);
    out.extend(states.iter().flat_map(|x| x.to_le_bytes()));
    out.extend_from_slice(&words[at..]);
}
