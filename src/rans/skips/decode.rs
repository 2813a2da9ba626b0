//! Puts together what was kept and what equals the base.

use super::super::bits::BitReader;
use super::super::kernel::Isa;
use super::super::model::BinMap;
use super::super::table::{self, CONTEXTS};
use super::super::{Bad, flags};
use super::RUN;

/// The tokens of flags.
const FLAGS: usize = 2;

/// The contexts of a payload's flags; their tables are behind those of elements.
pub(in super::super) struct Skips(BinMap<CONTEXTS>);

impl Skips {
    /// Reads what there is of flags in a payload of this kind, and appends their tables to `table`.
    pub(in super::super) fn read<'a>(
        kind: u8,
        bytes: &'a [u8],
        table: &mut Vec<u32>,
    ) -> Result<(Option<Self>, &'a [u8]), Bad> {
        if kind & flags::SKIPS == 0 {
            return Ok((None, bytes));
        }
        let mut reader = BitReader::new(bytes);
        let map = BinMap::read(&mut reader)?;
        let table_bits = table::bits_of(kind);
        table::read_all(&mut reader, map.contexts(), FLAGS, table_bits, table)?;
        Ok((Some(Self(map)), reader.rest()?))
    }

    /// Writes the context of each flag, from those of elements.
    pub(in super::super) fn put_contexts(&self, isa: Isa, ctx: &[u8], out: &mut [u8]) {
        isa.highest_contexts(ctx, out);
        isa.bin_contexts(&self.0.0, out);
    }
}

/// Runs of so many elements.
pub(in super::super) fn runs(elements: usize) -> usize {
    elements.div_ceil(RUN)
}

/// The numbers of runs whose flags, bytes of which only the top bit may be set, are set.
pub(in super::super) fn numbers(flags: &[u8]) -> Vec<u32> {
    const BLOCK: usize = 64;
    let mut out = Vec::with_capacity(flags.len() / 4);
    let (blocks, rest) = flags.as_chunks::<BLOCK>();
    let mut last = [0; BLOCK];
    last.iter_mut().zip(rest).for_each(|(to, flag)| *to = *flag);
    // Which of them are set is no guess that a processor gets right, but how many of a block nearly is.
    for (start, block) in (0..).step_by(BLOCK).zip(blocks.iter().chain([&last])) {
        let (eights, _) = block.as_chunks::<8>();
        let masks = eights.iter().rev();
        let mut set = masks.fold(0, |set, &eight| {
            set << 8 | top_bits(u64::from_le_bytes(eight))
        });
        while set != 0 {
            out.push(start + set.trailing_zeros());
            set &= set - 1;
        }
    }
    out
}

/// The top bits of eight bytes, the lowest byte's lowest.
fn top_bits(bytes: u64) -> u64 {
    // Every bit comes to the top byte by one of the multiplier's, and no two of them meet elsewhere.
    ((bytes >> 7) & 0x0101_0101_0101_0101).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

/// How many of so many elements the runs of these numbers, in ascending order, have.
pub(in super::super) fn elements_of(numbers: &[u32], elements: usize) -> usize {
    let missing = numbers.last().map_or(0, |&last| {
        ((last as usize + 1) * RUN).saturating_sub(elements)
    });
    numbers.len() * RUN - missing
}

/// Copies runs, of elements of `size` bytes, from where they lie in `all` to the front of `to`.
pub(in super::super) fn gather(numbers: &[u32], size: usize, all: &[u8], to: &mut [u8]) {
    match size {
        1 => gather_runs::<RUN>(numbers, all, to),
        2 => gather_runs::<{ 2 * RUN }>(numbers, all, to),
        4 => gather_runs::<{ 4 * RUN }>(numbers, all, to),
        _ => gather_runs::<{ 8 * RUN }>(numbers, all, to),
    }
}

/// Copies runs back from the front of `from` to where they lie in `all`.
pub(in super::super) fn scatter(numbers: &[u32], size: usize, from: &[u8], all: &mut [u8]) {
    match size {
        1 => scatter_runs::<RUN>(numbers, from, all),
        2 => scatter_runs::<{ 2 * RUN }>(numbers, from, all),
        4 => scatter_runs::<{ 4 * RUN }>(numbers, from, all),
        _ => scatter_runs::<{ 8 * RUN }>(numbers, from, all),
    }
}

fn gather_runs<const BYTES: usize>(numbers: &[u32], all: &[u8], to: &mut [u8]) {
    let (all, short) = all.as_chunks::<BYTES>();
    let (to, rest) = to.as_chunks_mut::<BYTES>();
    for (to, &number) in to.iter_mut().zip(numbers) {
        *to = *all.get(number as usize).unwrap_or(&[0; BYTES]);
    }
    if !rest.is_empty() && rest.len() == short.len() {
        rest.copy_from_slice(short);
    }
}

fn scatter_runs<const BYTES: usize>(numbers: &[u32], from: &[u8], all: &mut [u8]) {
    let (from, rest) = from.as_chunks::<BYTES>();
    let (all, short) = all.as_chunks_mut::<BYTES>();
    for (from, &number) in from.iter().zip(numbers) {
        if let Some(to) = all.get_mut(number as usize) {
            *to = *from;
        }
    }
    if !rest.is_empty() && rest.len() == short.len() {
        short.copy_from_slice(rest);
    }
}
