//! Decodes a chunk, trusting nothing.

use super::bits::BitReader;
use super::contexts::Contexts;
use super::fit::Scales;
use super::kernel::{Coder, Isa, Relation, RunScales, Word, group_bytes};
use super::phased::Predict;
use super::shared::Shared;
use super::side;
use super::table;
use super::tails;
use super::token::{Format, TokenMap};
use super::{Bad, Chunk, Grid, LANES, LOW, Scratch, flags, lanes_of};

/// Elements that are decoded at a time; whole groups, small enough for the first cache.
const BLOCK: usize = 4096;

/// Decodes `payload` into `out`; any bytes may be passed.
pub fn decode(
    isa: Isa,
    chunk: &Chunk<'_>,
    payload: &[u8],
    out: &mut [u8],
    scratch: &mut Scratch,
) -> Result<(), Bad> {
    decode_with(isa, chunk, None, payload, out, scratch)
}

/// Decodes `payload`, whose elements `predict` foretells from the chunk's base, into `out`; any bytes may be passed.
pub fn decode_predicted(
    isa: Isa,
    chunk: &Chunk<'_>,
    predict: &dyn Predict,
    payload: &[u8],
    out: &mut [u8],
    scratch: &mut Scratch,
) -> Result<(), Bad> {
    chunk.base.ok_or(Bad::Base)?;
    decode_with(isa, chunk, Some(predict), payload, out, scratch)
}

fn decode_with(
    isa: Isa,
    chunk: &Chunk<'_>,
    predict: Option<&dyn Predict>,
    payload: &[u8],
    out: &mut [u8],
    scratch: &mut Scratch,
) -> Result<(), Bad> {
    let (&kind, rest) = payload.split_first().ok_or(Bad::Truncated)?;
    if kind == flags::STORED {
        return copy(rest, out);
    }
    if !chunk.fits(out.len()) {
        return Err(Bad::Base);
    }
    if kind == flags::EQUAL {
        let base = chunk.base.ok_or(Bad::Base)?;
        match predict {
            None => out.copy_from_slice(base),
            Some(predict) => {
                scratch.hints.resize(out.len() / chunk.dtype.size(), 0);
                predict.predict(0, base, out, &mut scratch.hints);
            }
        }
        return if rest.is_empty() {
            Ok(())
        } else {
            Err(Bad::Trailing)
        };
    }
    let format = Format::of(chunk.dtype).ok_or(Bad::Malformed("element type"))?;
    let size = format.bytes();
    if !out.len().is_multiple_of(size) {
        return Err(Bad::Malformed("length"));
    }
    let stream = Stream::parse(
        format,
        chunk,
        predict,
        kind,
        rest,
        out.len() / size,
        &mut scratch.table,
    )?;
    match size {
        1 | 2 => stream.run(isa, chunk.base, out, &mut scratch.ctx, &mut scratch.codes16),
        4 => stream.run(isa, chunk.base, out, &mut scratch.ctx, &mut scratch.codes32),
        _ => stream.run(isa, chunk.base, out, &mut scratch.ctx, &mut scratch.codes64),
    }
}

fn copy(from: &[u8], to: &mut [u8]) -> Result<(), Bad> {
    match from.len().cmp(&to.len()) {
        std::cmp::Ordering::Less => Err(Bad::Truncated),
        std::cmp::Ordering::Greater => Err(Bad::Trailing),
        std::cmp::Ordering::Equal => {
            to.copy_from_slice(from);
            Ok(())
        }
    }
}

/// A parsed payload.
struct Stream<'a> {
    predict: Option<&'a dyn Predict>,
    format: Format,
    grid: Grid,
    top: u32,
    map: TokenMap,
    scales: Option<Scales>,
    contexts: Contexts,
    /// Entries of all contexts.
    table: &'a [u32],
    table_bits: u32,
    /// Those that lie flat.
    tails: &'a [u8],
    states: [u32; LANES],
    words: &'a [u8],
}

impl<'a> Stream<'a> {
    fn parse(
        format: Format,
        chunk: &Chunk<'a>,
        predict: Option<&'a dyn Predict>,
        kind: u8,
        rest: &'a [u8],
        elements: usize,
        table: &'a mut Vec<u32>,
    ) -> Result<Self, Bad> {
        let is_delta = chunk.base.is_some();
        let known = known_flags(format, is_delta, predict.is_some());
        if kind & flags::CODED == 0 || kind & !known != 0 {
            return Err(Bad::Malformed("kind"));
        }
        let shared = shared_of(chunk, kind)?;
        let (window, mut rest) = match shared {
            Some(shared) => (shared.window(), rest),
            None => read_window(rest)?,
        };
        let map = TokenMap::of(format, is_delta, kind, window)?;
        let grid = chunk.grid(elements);
        let scales = match shared {
            _ if kind & flags::SCALED == 0 => None,
            Some(shared) => Some(shared.read_rows(grid.rows(elements), &mut rest)?),
            None => Some(read_scales(is_delta, grid, elements, &mut rest)?),
        };
        let is_common = kind & flags::SHARED_TABLES != 0;
        let (contexts, table, rest) = if let Some(shared) = shared.filter(|_| is_common) {
            (shared.contexts().clone(), shared.table(), rest)
        } else {
            let (contexts, rest) = read_tables(kind, is_delta, &map, rest, table)?;
            (contexts, table.as_slice(), rest)
        };
        let mut rest = rest;
        let tails = if map.is_flat() {
            tails::read(format, &map, elements, &mut rest)?
        } else {
            &[]
        };
        let (states, words) = side::read_lanes(lanes_of(elements), rest)?;
        Ok(Self {
            predict,
            format,
            grid,
            top: u32::from(window),
            map,
            scales,
            contexts,
            table,
            table_bits: table::bits_of(kind),
            tails,
            states,
            words,
        })
    }

    fn run<W: Word>(
        mut self,
        isa: Isa,
        base: Option<&[u8]>,
        out: &mut [u8],
        ctx: &mut Vec<u8>,
        codes: &mut Vec<W>,
    ) -> Result<(), Bad> {
        ctx.resize(2 * BLOCK, 0);
        let (ctx, classes) = ctx.split_at_mut(BLOCK);
        codes.resize(BLOCK, W::default());
        let size = self.format.bytes();
        let lanes = lanes_of(out.len() / size);
        let coder = Coder {
            table: self.table,
            table_bits: self.table_bits,
            map: &self.map,
            planes: self.format.planes(),
        };
        let mut words = Words::new(self.words);
        let block = if self.predict.is_some() { BLOCK } else { 0 };
        let (mut predicted, mut hints) = (vec![0; block * size], vec![0; block]);
        for (number, out) in out.chunks_mut(BLOCK * size).enumerate() {
            let elements = out.len() / size;
            let start = number * BLOCK;
            let base = base
                .and_then(|base| base.get(start * size..))
                .and_then(|base| base.get(..out.len()));
            let predicted = predicted.get_mut(..out.len()).unwrap_or_default();
            let hints = hints.get_mut(..elements).unwrap_or_default();
            let base = match (self.predict, base) {
                (Some(predict), Some(base)) => {
                    predict.predict(start, base, predicted, hints);
                    Some(&*predicted)
                }
                _ => base,
            };
            let ctx = ctx.get_mut(..elements).ok_or(Bad::Truncated)?;
            let classes = classes.get_mut(..elements).ok_or(Bad::Truncated)?;
            let codes = codes.get_mut(..elements).ok_or(Bad::Truncated)?;
            contexts(isa, &self, base, start, classes, ctx)?;
            if let Contexts::Cells(map) = &self.contexts {
                isa.phase_contexts(map, hints, ctx);
            }
            let relation = base.map_or(Relation::Solo, Relation::Delta);
            let states = self.states.get_mut(..lanes).ok_or(Bad::Truncated)?;
            words.decode(isa, &coder, states, ctx, relation, codes, out)?;
            if self.map.is_flat() {
                let tails = tails::after(&self.map, self.tails, start);
                isa.add_tails(self.map.tail_bits(), tails, out);
            }
            if let (Contexts::Cells(_), Some(predicted)) = (&self.contexts, base) {
                isa.reflect(predicted, hints, out);
            }
        }
        if !words.is_done() || self.states.iter().any(|&x| x != LOW) {
            return Err(Bad::Malformed("words"));
        }
        Ok(())
    }
}

/// The bits that a payload's kind may have.
fn known_flags(format: Format, delta: bool, predicted: bool) -> u8 {
    let mut known = flags::CODED | flags::SCALED | flags::FINE_TABLE;
    if format.has_escapes() {
        known |= flags::SHARED | flags::SHARED_TABLES;
    }
    if delta {
        known |= flags::FINE;
    } else if format.has_escapes() {
        known |= flags::FLAT;
    }
    if predicted && format.bits == 16 {
        known |= flags::PHASED;
    }
    known
}

/// What the object's chunks have in common, if a payload of this kind uses it.
fn shared_of<'a>(chunk: &Chunk<'a>, kind: u8) -> Result<Option<&'a Shared>, Bad> {
    match kind & (flags::SHARED | flags::SHARED_TABLES) {
        0 => Ok(None),
        flags::SHARED_TABLES => Err(Bad::Malformed("kind")),
        _ => {
            let fits = |shared: &&Shared| shared.is_for(chunk) && shared.has(kind);
            let shared = chunk.shared.filter(fits);
            Ok(Some(shared.ok_or(Bad::Malformed("shared section"))?))
        }
    }
}

/// Reads contexts, and their tables to the place of what was in `table`; returns what follows them.
fn read_tables<'a>(
    kind: u8,
    is_delta: bool,
    map: &TokenMap,
    bytes: &'a [u8],
    table: &mut Vec<u32>,
) -> Result<(Contexts, &'a [u8]), Bad> {
    let mut reader = BitReader::new(bytes);
    let (contexts, count) = Contexts::read(kind, is_delta, &mut reader)?;
    table.clear();
    for _ in 0..count {
        let frequencies = table::read(&mut reader, map.alphabet, table::bits_of(kind))?;
        table::lay_out_decoder(&frequencies, table);
    }
    Ok((contexts, reader.rest()?))
}

fn read_window(bytes: &[u8]) -> Result<(u16, &[u8]), Bad> {
    let (window, rest) = bytes.split_first_chunk().ok_or(Bad::Truncated)?;
    Ok((u16::from_le_bytes(*window), rest))
}

fn read_scales(delta: bool, grid: Grid, elements: usize, rest: &mut &[u8]) -> Result<Scales, Bad> {
    let class = side::read_classes(delta, rest)?;
    // Long rows have more columns than the chunk has elements; no encoder scales those.
    if grid.row_len > elements {
        return Err(Bad::Malformed("scales"));
    }
    let ([rows, columns], tail) = side::read(rest, [grid.rows(elements), grid.row_len])?;
    *rest = tail;
    Ok(Scales {
        class,
        rows,
        columns,
    })
}

/// Writes the contexts of the elements from `start` on, by phase their first cells; `classes` is scratch of the same length.
#[allow(clippy::too_many_arguments)]
fn contexts(
    isa: Isa,
    stream: &Stream<'_>,
    base: Option<&[u8]>,
    start: usize,
    classes: &mut [u8],
    out: &mut [u8],
) -> Result<(), Bad> {
    let class = |out: &mut [u8]| match base {
        Some(base) => isa.classes(stream.format, stream.top, base, out),
        None => out.fill(0),
    };
    let Some(scales) = &stream.scales else {
        class(out);
        isa.plain_contexts(&stream.contexts.by_class(), out);
        return Ok(());
    };
    class(classes);
    let map = stream.contexts.by_bin();
    scaled(isa, stream.grid, scales, &map, start, classes, out)
}

/// Writes what `map` has for the scales of the elements from `start` on.
fn scaled(
    isa: Isa,
    grid: Grid,
    scales: &Scales,
    map: &[u8; 64],
    start: usize,
    classes: &[u8],
    out: &mut [u8],
) -> Result<(), Bad> {
    const MISSING: Bad = Bad::Malformed("scales");
    for (from, to, row, column) in grid.runs(start, start + out.len()) {
        let columns = scales.columns.get(column..column + (to - from));
        let run = RunScales {
            class: &scales.class,
            columns: columns.ok_or(MISSING)?,
            row: *scales.rows.get(row).ok_or(MISSING)?,
        };
        let here = from - start..to - start;
        let classes = classes.get(here.clone()).ok_or(MISSING)?;
        let out = out.get_mut(here).ok_or(MISSING)?;
        isa.scaled_contexts(classes, &run, map, out);
    }
    Ok(())
}

/// The words of a payload, with room behind the last one so that loops need not look at every word.
struct Words<'a> {
    bytes: &'a [u8],
    position: usize,
    tail: [u8; TAIL],
    /// Bytes of words in the tail, once it is in use.
    in_tail: Option<usize>,
}

/// Room for the words of two groups of the widest kind.
const TAIL: usize = 2 * group_bytes(LANES, 4) + 64;

impl<'a> Words<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            position: 0,
            tail: [0; TAIL],
            in_tail: None,
        }
    }

    /// Decodes a block to `out`; `codes` is scratch.
    #[allow(clippy::too_many_arguments)]
    fn decode<W: Word>(
        &mut self,
        isa: Isa,
        coder: &Coder<'_>,
        states: &mut [u32],
        ctx: &[u8],
        relation: Relation<'_>,
        codes: &mut [W],
        out: &mut [u8],
    ) -> Result<(), Bad> {
        let mut done = 0;
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

    fn is_done(&self) -> bool {
        self.position == self.in_tail.unwrap_or(self.bytes.len())
    }
}
