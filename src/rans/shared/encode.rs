//! Codes a chunk with what its object's chunks have in common.

use super::super::bits::BitWriter;
use super::super::choose;
use super::super::contexts::Contexts;
use super::super::encode::{Plan, Task, cut_as, write_tables, write_words};
use super::super::fit::{self, Scales};
use super::super::log2::{self, xlog2};
use super::super::model::BinMap;
use super::super::table::Counts;
use super::super::token::TOKENS;
use super::super::{Grid, Scratch, flags, phased, side, tails};
use super::{Learnt, Shared};

/// How well what is shared suits a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Fit {
    /// Nothing was written: it is of other chunks.
    None,
    /// So badly that the chunk may be smaller on its own.
    Poor,
    /// Well.
    Good,
}

/// Appends a payload that uses what is shared, if that is of chunks like this one, to `out`.
pub(in super::super) fn encode(task: &Task<'_>, scratch: &mut Scratch, out: &mut Vec<u8>) -> Fit {
    let shared = task.chunk.shared.filter(|shared| {
        shared.is_for(task.chunk)
            && task.hints.is_some() == matches!(shared.contexts, Contexts::Cells(_))
            && task.elements() <= choose::MOST_ELEMENTS
    });
    let Some((shared, learnt)) = shared.and_then(|it| Some((it, it.learnt.as_ref()?))) else {
        return Fit::None;
    };
    let coder = Common {
        task,
        shared,
        learnt,
        grid: task.grid(),
    };
    coder.encode(scratch, out)
}

/// A chunk being coded with what is shared.
struct Common<'a> {
    task: &'a Task<'a>,
    shared: &'a Shared,
    learnt: &'a Learnt,
    grid: Grid,
}

impl Common<'_> {
    fn encode(&self, scratch: &mut Scratch, out: &mut Vec<u8>) -> Fit {
        let plan = self.plan();
        cut_as(self.task, &plan, scratch);
        let mut scales = self.shared.scales.clone();
        let gain = scales
            .as_mut()
            .map_or(0, |scales| self.fit_rows(scales, scratch));
        self.put_contexts(scales.as_ref(), scratch);
        let loss = self.loss(gain, scratch);
        let has_own_tables = loss.is_over_tables() && scales.is_some();
        let kind = self.shared.kind | flags::SHARED;
        let tables = if has_own_tables {
            0
        } else {
            flags::SHARED_TABLES
        };
        out.push(kind | tables);
        if let Some(scales) = &scales {
            side::write([&scales.rows, &[]], out);
        }
        let table = if let Some(scales) = scales.filter(|_| has_own_tables) {
            self.write_tables(&plan, &scales, scratch, out);
            None
        } else {
            Some(self.learnt.table.as_slice())
        };
        write_words(self.task.isa, &plan, table, self.task.raw, scratch, out);
        if loss.is_great() || loss.is_over_tables() && !has_own_tables {
            Fit::Poor
        } else {
            Fit::Good
        }
    }

    fn plan(&self) -> Plan {
        let (window, kind) = (self.shared.window, self.shared.kind);
        Plan {
            map: self.learnt.map.clone(),
            link: self.learnt.link.clone(),
            planes: self.task.format.planes(),
            flags: kind,
            window,
            first: self.learnt.first,
            classes: self.shared.is_delta,
        }
    }

    /// Fits row scales; returns about how many bits other column scales would save.
    fn fit_rows(&self, scales: &mut Scales, scratch: &Scratch) -> i64 {
        let sweeps = choose::sweeps(self.shared.is_delta);
        let (parts, link) = (&scratch.parts, &self.learnt.link);
        let swept = fit::fit_rows(self.task.isa, parts, self.grid, link, scales, sweeps);
        swept.column_gain()
    }

    /// Writes each element's context to `scratch.ctx`.
    fn put_contexts(&self, scales: Option<&Scales>, scratch: &mut Scratch) {
        let isa = self.task.isa;
        let classes = &scratch.parts.classes;
        let ctx = &mut scratch.ctx;
        ctx.resize(classes.len(), 0);
        let contexts = &self.shared.contexts;
        if let Some(scales) = scales {
            let map = BinMap(contexts.by_bin());
            choose::contexts(isa, self.grid, scales, classes, &map, ctx);
        } else {
            ctx.copy_from_slice(classes);
            isa.plain_contexts(&contexts.by_class(), ctx);
        }
        if let (Contexts::Cells(map), Some(hints)) = (contexts, self.task.hints) {
            isa.phase_contexts(map, hints, ctx);
        }
    }

    /// Makes contexts and tables for this chunk alone, and writes them.
    fn write_tables(&self, plan: &Plan, scales: &Scales, scratch: &mut Scratch, out: &mut Vec<u8>) {
        let (isa, effort, grid) = (self.task.isa, self.task.effort, self.grid);
        let (contexts, counts) = match self.task.hints {
            Some(hints) => phased::merge_scaled(isa, effort, grid, scales, hints, scratch),
            None => choose::merge_scaled(isa, effort, grid, scales, scratch),
        };
        let mut writer = BitWriter::new(out);
        contexts.write(plan.classes, &mut writer);
        write_tables(plan, &counts, writer, &mut scratch.table);
    }

    /// Bits of flat tails that say nothing new, in units of 2^-16.
    fn idle_tails(&self, counts: &Counts) -> u64 {
        let map = &self.learnt.map;
        let bits = if map.is_flat() { map.tail_bits() } else { 0 };
        (u64::from(bits) * tails::zeros(map, counts)) << log2::FRACTION
    }

    /// Estimates from a sample what the tables in common cost over the chunk's own ones.
    fn loss(&self, column_gain: i64, scratch: &mut Scratch) -> Loss {
        let parts = &mut scratch.parts;
        let elements = parts.tokens.len();
        let seen = choose::count_sample(&scratch.ctx, parts);
        let (mut bits, mut own, mut used, mut idle) = (0u64, 0u64, 0u64, 0u64);
        let (costs, _) = self.learnt.costs.as_chunks::<TOKENS>();
        for (counts, costs) in parts.counts.iter().zip(costs) {
            let mut total = 0;
            let mut apart = 0;
            for (&count, &cost) in counts.iter().zip(costs).filter(|(count, _)| **count > 0) {
                bits += u64::from(count) * u64::from(cost);
                apart += xlog2(count);
                total += count;
                used += 1;
            }
            own += xlog2(total).saturating_sub(apart) + u64::from(total) * SLOT_BITS;
            idle += self.idle_tails(counts);
        }
        let is_sample = seen < elements;
        let whole = |of_sample: u64| of_sample / seen.max(1) as u64 * elements as u64;
        // A table made from a sample suits the sample better than it would the whole: by half a nat a slot, and as much
        // again for the tokens that the sample lacks. Those take slots too.
        own += if is_sample { used * A_NAT } else { 0 };
        Loss {
            bits: whole(bits),
            excess: whole(bits.saturating_sub(own)),
            idle: whole(idle),
            tables: used * TABLE_ENTRY * if is_sample { 2 } else { 1 },
            is_of_other_columns: column_gain > COLUMN_BITS * self.grid.row_len as i64,
        }
    }
}

/// In units of 2^-16 bits.
const A_NAT: u64 = 94_548;
/// What a slot costs in a written table, in units of 2^-16 bits.
const TABLE_ENTRY: u64 = 7 << 16;
/// What a column's scale costs in a payload, in bits.
const COLUMN_BITS: i64 = 4;
/// What even the likeliest token costs where another has one of 2^11 slots, in units of 2^-16 bits.
const SLOT_BITS: u64 = 46;

/// What a chunk would pay for tables in common, in units of 2^-16 bits.
struct Loss {
    /// All tokens.
    bits: u64,
    /// Of these, what tables of its own would save.
    excess: u64,
    /// What those would cost.
    tables: u64,
    /// What the flat tails of zeros cost.
    idle: u64,
    /// Whether column scales of its own would save more than they cost.
    is_of_other_columns: bool,
}

impl Loss {
    fn is_over_tables(&self) -> bool {
        self.excess > self.tables + self.bits / 1024
    }

    /// Tells whether the scales are to be doubted too.
    fn is_great(&self) -> bool {
        self.is_of_other_columns || self.excess + self.idle > self.tables + self.bits / 32
    }
}
