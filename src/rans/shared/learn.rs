//! Learns what chunks have in common from a sample of an object's rows.

use std::mem::take;

use super::super::choose::{self, Choice, Fitting};
use super::super::encode::{self, Effort, Plan, Task};
use super::super::fit::{self, ColumnSums, Scales};
use super::super::kernel::Isa;
use super::super::table::{self, Counts};
use super::super::token::{Format, TOKENS, TokenMap};
use super::super::{Chunk, Grid, Scratch, log2, may_skip, phased, skips};
use super::{Learnt, MOST_COLUMNS, SHARE_BITS, Shared};
use crate::dtype::DType;

/// Some whole rows of an object, one after the other; at most as many elements as a chunk has.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// How the elements are to be read.
    pub dtype: DType,
    /// Elements in a row.
    pub row_len: u64,
    /// The rows' bytes.
    pub raw: &'a [u8],
    /// As many bytes of the base, or of what is predicted; without it words are coded alone.
    pub base: Option<&'a [u8]>,
    /// What a prediction says of its elements, if there is one.
    pub hints: Option<&'a [u8]>,
}

/// Most times that a sample's counts are taken; from there on more contexts would not pay either.
const MOST_PARTS: u64 = 64;

impl Shared {
    /// Tells whether chunks of this type and such rows may have anything in common: elements of at least 16 bits, at any
    /// effort but [`Effort::Fast`].
    pub fn may_learn(effort: Effort, dtype: DType, row_len: u64) -> bool {
        let format = Format::of(dtype).filter(|format| format.has_escapes());
        let rows = choose::LEAST_SIDE as u64..=MOST_COLUMNS;
        format.is_some() && effort != Effort::Fast && rows.contains(&row_len)
    }

    fn of(sample: &Sample<'_>, plan: Plan, choice: Choice) -> Self {
        let table_bits = plan.table_bits();
        let counts = choice.counts.iter();
        let frequencies: Vec<_> = counts
            .map(|counts| {
                table::normalise(&with_escapes(counts, &plan.map, table_bits), table_bits)
            })
            .collect();
        let (mut decoder, mut encoder) = (Vec::new(), Vec::new());
        for frequencies in &frequencies {
            table::lay_out_decoder(frequencies, &mut decoder);
            table::lay_out_encoder(frequencies, &plan.map, &mut encoder);
        }
        Self {
            dtype: sample.dtype,
            row_len: sample.row_len,
            is_delta: plan.classes,
            kind: plan.flags | choice.flags(),
            window: plan.window,
            scales: choice.scales.map(|(mut scales, _)| {
                scales.rows = Vec::new();
                scales
            }),
            contexts: choice.contexts,
            table: decoder,
            learnt: Some(Learnt {
                first: plan.first,
                link: plan.link,
                costs: costs(&encoder, &plan.map, table_bits),
                map: plan.map,
                frequencies,
                table: encoder,
                share: 0,
            }),
        }
    }
}

/// Learns what the chunks of an object have in common from samples of its rows, one after the other.
///
/// Scales are fitted to the first sample; the others, with row scales of their own, tell by how much those of columns are
/// wrong. Contexts and tables are those of the last.
pub struct Learner {
    isa: Isa,
    effort: Effort,
    so_far: Option<SoFar>,
    samples: usize,
}

struct SoFar {
    plan: Plan,
    /// Of classes and columns, and of the last sample's rows.
    scales: Scales,
    /// What all samples say of columns.
    sums: ColumnSums,
}

impl Learner {
    /// One that has seen nothing.
    pub fn new(isa: Isa, effort: Effort) -> Self {
        Self {
            isa,
            effort,
            so_far: None,
            samples: 0,
        }
    }

    /// Looks at a sample; one of which nothing can be learnt is passed over.
    pub fn add(&mut self, sample: &Sample<'_>, scratch: &mut Scratch) {
        if let Some((format, grid)) = self.grid(sample) {
            self.fit(format, grid, sample, scratch);
        }
    }

    /// Looks at the last sample, of an object of so many elements; `None` where nothing can be learnt of it.
    pub fn finish(
        mut self,
        sample: &Sample<'_>,
        elements: u64,
        scratch: &mut Scratch,
    ) -> Option<Shared> {
        let (format, grid) = self.grid(sample)?;
        self.fit(format, grid, sample, scratch);
        // Tables of all elements do not suit chunks that skip most of them.
        if self.may_skip(sample) && skips::pay(&scratch.parts.tokens) {
            return None;
        }
        let SoFar {
            mut plan,
            mut scales,
            sums,
        } = self.so_far?;
        if self.samples > 1 {
            sums.update(&mut scales.columns);
        }
        let fitting = Fitting {
            isa: self.isa,
            effort: self.effort,
            grid,
            link: &plan.link,
            classes: plan.classes,
        };
        let seen = (sample.raw.len() / format.bytes()).max(1) as u64;
        let part = (elements / seen).clamp(1, MOST_PARTS) as u32;
        let hints = sample.hints.filter(|_| format.bits == 16);
        let choice = match hints {
            Some(hints) => phased::choose_shared(&fitting, scales, hints, part, scratch),
            None => choose::choose_shared(&fitting, scales, part, scratch),
        };
        plan.lay_flat(elements, &choice.counts);
        let mut shared = Shared::of(sample, plan, choice);
        let written = shared.to_bytes().len() as u64;
        if let Some(learnt) = &mut shared.learnt {
            learnt.share = (written << SHARE_BITS) / elements.max(1);
        }
        Some(shared)
    }

    /// Tells whether chunks like the sample may have skips: predicted ones, which come with hints, never do.
    fn may_skip(&self, sample: &Sample<'_>) -> bool {
        sample.base.is_some() && sample.hints.is_none() && may_skip(self.effort)
    }

    fn grid(&self, sample: &Sample<'_>) -> Option<(Format, Grid)> {
        let format = Format::of(sample.dtype)?;
        let chunk = sample.chunk();
        let elements = sample.raw.len() / format.bytes();
        let grid = chunk.grid(elements);
        let is_fit = Shared::may_learn(self.effort, sample.dtype, sample.row_len)
            && sample.raw.len().is_multiple_of(format.bytes())
            && chunk.fits(sample.raw.len())
            && choose::is_scalable(grid, elements)
            && sample.base != Some(sample.raw);
        is_fit.then_some((format, grid))
    }

    /// Fits scales to a sample, whose parts are left in `scratch`.
    fn fit(&mut self, format: Format, grid: Grid, sample: &Sample<'_>, scratch: &mut Scratch) {
        let mut reflected = take(&mut scratch.reflected);
        let raw = match (sample.base, sample.hints.filter(|_| format.bits == 16)) {
            (Some(predicted), Some(hints)) => {
                reflected.clear();
                reflected.extend_from_slice(sample.raw);
                self.isa.reflect(predicted, hints, &mut reflected);
                &reflected
            }
            _ => sample.raw,
        };
        self.fit_words(format, grid, &Sample { raw, ..*sample }, scratch);
        scratch.reflected = reflected;
    }

    fn fit_words(
        &mut self,
        format: Format,
        grid: Grid,
        sample: &Sample<'_>,
        scratch: &mut Scratch,
    ) {
        let isa = self.isa;
        let task = Task {
            isa,
            effort: self.effort,
            format,
            chunk: &sample.chunk(),
            hints: None,
            may_skip: false,
            raw: sample.raw,
        };
        self.samples += 1;
        let Some(so_far) = &mut self.so_far else {
            let plan = encode::plan(&task, scratch);
            let mut scales = choose::fit_scales(&Fitting::new(&task, &plan), scratch);
            let mut sums = ColumnSums::default();
            let (parts, link) = (&scratch.parts, &plan.link);
            sums.add(&fit::fit_rows(isa, parts, grid, link, &mut scales, 1));
            self.so_far = Some(SoFar { plan, scales, sums });
            return;
        };
        let SoFar { plan, scales, sums } = so_far;
        encode::cut_as(&task, plan, scratch);
        let sweeps = choose::sweeps(plan.classes);
        let (parts, link) = (&scratch.parts, &plan.link);
        sums.add(&fit::fit_rows(isa, parts, grid, link, scales, sweeps));
    }
}

impl<'a> Sample<'a> {
    fn chunk(&self) -> Chunk<'a> {
        Chunk {
            dtype: self.dtype,
            row_len: self.row_len,
            first_element: 0,
            base: self.base,
            shared: None,
        }
    }
}

/// Counts that give every token a way out: rare ones, and those that the sample does not have, are said with escapes.
fn with_escapes(counts: &Counts, map: &TokenMap, table_bits: u32) -> Counts {
    let mut counts = *counts;
    table::fold_rare(&mut counts, map, table_bits);
    let escapes = counts.get_mut(map.escape..map.alphabet).unwrap_or_default();
    escapes
        .iter_mut()
        .for_each(|count| *count = (*count).max(1));
    counts
}

/// Bits of each token in each context, in units of 2^-16; of one without slots those of an escape, and how much more raw
/// bits that has.
#[allow(
    clippy::indexing_slicing,
    reason = "tables have an entry for every token"
)]
fn costs(encoder: &[u32], map: &TokenMap, table_bits: u32) -> Vec<u32> {
    let bits = |frequency: u32| (table_bits << log2::FRACTION) - log2::log2(frequency);
    let of_context = |table: &[u32; TOKENS]| -> [u32; TOKENS] {
        std::array::from_fn(|token| {
            let frequency = table[token] & 0xFFF;
            if frequency > 0 || token >= map.alphabet {
                return bits(frequency);
            }
            let (escape, _) = map.escaped(token as u8, 0);
            let escape = usize::from(escape);
            let longer = map.raw_bits[escape].saturating_sub(map.raw_bits[token]);
            bits(table[escape] & 0xFFF) + (u32::from(longer) << log2::FRACTION)
        })
    };
    let (tables, _) = encoder.as_chunks::<TOKENS>();
    tables.iter().flat_map(of_context).collect()
}
