//! Contexts and tables of a payload.

use super::super::Bad;
use super::super::bits::BitReader;
use super::super::contexts::Contexts;
use super::super::kernel::Coder;
use super::super::shared::Shared;
use super::super::skips::Skips;
use super::super::table;
use super::super::token::TokenMap;

/// What says which tokens elements, and flags of runs, probably have.
pub(super) struct Tables<'a> {
    /// Of elements.
    pub(super) contexts: Contexts,
    /// Of flags, where runs are skipped.
    pub(super) skips: Option<Skips>,
    /// Entries of all contexts of elements.
    entries: &'a [u32],
    /// Entries of all contexts of flags.
    flag_entries: &'a [u32],
    bits: u32,
}

impl<'a> Tables<'a> {
    /// Those that the object's chunks have in common.
    pub(super) fn of(shared: &'a Shared, kind: u8) -> Self {
        Self {
            contexts: shared.contexts().clone(),
            skips: None,
            entries: shared.table(),
            flag_entries: &[],
            bits: table::bits_of(kind),
        }
    }

    /// Takes those of a payload of this kind off `bytes`, entries to the place of what was in `memory`.
    pub(super) fn read(
        kind: u8,
        is_delta: bool,
        map: &TokenMap,
        bytes: &mut &'a [u8],
        memory: &'a mut Vec<u32>,
    ) -> Result<Self, Bad> {
        let bits = table::bits_of(kind);
        let mut reader = BitReader::new(bytes);
        let (contexts, count) = Contexts::read(kind, is_delta, &mut reader)?;
        memory.clear();
        table::read_all(&mut reader, count, map.alphabet, bits, memory)?;
        let of_elements = memory.len();
        let (skips, rest) = Skips::read(kind, reader.rest()?, memory)?;
        *bytes = rest;
        let (entries, flag_entries) = memory.split_at(of_elements);
        Ok(Self {
            contexts,
            skips,
            entries,
            flag_entries,
            bits,
        })
    }

    /// What elements are decoded with.
    pub(super) fn coder<'b>(&'b self, map: &'b TokenMap, planes: usize) -> Coder<'b> {
        Coder {
            table: self.entries,
            table_bits: self.bits,
            map,
            planes,
        }
    }

    /// What flags are decoded with, whose tokens are bytes.
    pub(super) fn flag_coder<'b>(&'b self, bytes: &'b TokenMap) -> Coder<'b> {
        Coder {
            table: self.flag_entries,
            ..self.coder(bytes, 0)
        }
    }
}
