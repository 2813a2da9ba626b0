//! Decodes chunks of which only some runs are coded; the others are the base's.

use super::super::Bad;
use super::super::kernel::{Isa, Relation, Word};
use super::super::skips::{self, Skips};
use super::super::token::TokenMap;
use super::super::word_reader::WordReader;
use super::stream::Stream;
use super::{BLOCK, carve, contexts};

/// What a chunk is decoded from.
pub(super) struct Decoder<'a> {
    pub(super) isa: Isa,
    pub(super) stream: &'a Stream<'a>,
    pub(super) skips: &'a Skips,
    pub(super) base: &'a [u8],
}

impl Decoder<'_> {
    /// Decodes to `out`; `codes` is scratch of a block.
    pub(super) fn run<W: Word>(
        &self,
        out: &mut [u8],
        memory: &mut Vec<u8>,
        codes: &mut [W],
    ) -> Result<(), Bad> {
        let size = self.stream.format.bytes();
        let elements = out.len() / size;
        let runs = skips::runs(elements);
        let lengths = [elements, runs, runs, BLOCK, 2 * size * BLOCK];
        let [ctx, flag_ctx, flags, some_ctx, some] = carve(memory, lengths);
        self.put_contexts(out, ctx, flag_ctx, some_ctx)?;
        let mut words = self.stream.words();
        self.decode_flags(&mut words, flag_ctx, flags)?;
        let coder = self.stream.coder();
        let (some_base, some_out) = some.split_at_mut(size * BLOCK);
        for numbers in skips::numbers(flags).chunks(skips::runs(BLOCK)) {
            let kept = skips::elements_of(numbers, elements);
            let ctx_of = some_ctx.get_mut(..kept).ok_or(Bad::Truncated)?;
            let base_of = some_base.get_mut(..size * kept).ok_or(Bad::Truncated)?;
            let out_of = some_out.get_mut(..size * kept).ok_or(Bad::Truncated)?;
            let codes = codes.get_mut(..kept).ok_or(Bad::Truncated)?;
            skips::gather(numbers, 1, ctx, ctx_of);
            skips::gather(numbers, size, self.base, base_of);
            let relation = Relation::Delta(base_of);
            words.decode(self.isa, &coder, ctx_of, relation, codes, out_of)?;
            skips::scatter(numbers, size, out_of, out);
        }
        words.finish()
    }

    /// Writes the contexts of all elements and flags, and the base to `out` while it is at hand; `classes` is scratch of a block.
    fn put_contexts(
        &self,
        out: &mut [u8],
        ctx: &mut [u8],
        flag_ctx: &mut [u8],
        classes: &mut [u8],
    ) -> Result<(), Bad> {
        let block = self.stream.format.bytes() * BLOCK;
        let words = out.chunks_mut(block).zip(self.base.chunks(block));
        let flag_ctx = flag_ctx.chunks_mut(skips::runs(BLOCK));
        let blocks = words.zip(ctx.chunks_mut(BLOCK).zip(flag_ctx));
        for (number, ((out, base), (ctx, flag_ctx))) in blocks.enumerate() {
            let classes = classes.get_mut(..ctx.len()).ok_or(Bad::Truncated)?;
            let start = number * BLOCK;
            contexts::put(self.isa, self.stream, Some(base), start, classes, ctx)?;
            self.skips.put_contexts(self.isa, ctx, flag_ctx);
            out.copy_from_slice(base);
        }
        Ok(())
    }

    fn decode_flags(
        &self,
        words: &mut WordReader<'_>,
        flag_ctx: &[u8],
        flags: &mut [u8],
    ) -> Result<(), Bad> {
        let map = TokenMap::bytes();
        let coder = self.stream.tables.flag_coder(&map);
        let mut codes = [0u16; BLOCK];
        for (flags, ctx) in flags.chunks_mut(BLOCK).zip(flag_ctx.chunks(BLOCK)) {
            let codes = codes.get_mut(..ctx.len()).ok_or(Bad::Truncated)?;
            words.decode(self.isa, &coder, ctx, Relation::Solo, codes, flags)?;
        }
        Ok(())
    }
}
