//! Decodes chunks of which every element is coded.

use super::super::Bad;
use super::super::contexts::Contexts;
use super::super::kernel::{Isa, Relation, Word};
use super::super::tails;
use super::stream::Stream;
use super::{BLOCK, carve, contexts};

/// Decodes to `out`, block by block; `codes` is scratch of a block.
pub(super) fn run<W: Word>(
    isa: Isa,
    stream: &Stream<'_>,
    base: Option<&[u8]>,
    out: &mut [u8],
    memory: &mut Vec<u8>,
    codes: &mut [W],
) -> Result<(), Bad> {
    let size = stream.format.bytes();
    let block = if stream.predict.is_some() { BLOCK } else { 0 };
    let lengths = [BLOCK, BLOCK, block * size, block];
    let [ctx, classes, predicted, hints] = carve(memory, lengths);
    let (coder, mut words) = (stream.coder(), stream.words());
    for (number, out) in out.chunks_mut(BLOCK * size).enumerate() {
        let elements = out.len() / size;
        let start = number * BLOCK;
        let base = base
            .and_then(|base| base.get(start * size..))
            .and_then(|base| base.get(..out.len()));
        let predicted = predicted.get_mut(..out.len()).unwrap_or_default();
        let hints = hints.get_mut(..elements).unwrap_or_default();
        let base = match (stream.predict, base) {
            (Some(predict), Some(base)) => {
                predict.predict(start, base, predicted, hints);
                Some(&*predicted)
            }
            _ => base,
        };
        let ctx = ctx.get_mut(..elements).ok_or(Bad::Truncated)?;
        let classes = classes.get_mut(..elements).ok_or(Bad::Truncated)?;
        let codes = codes.get_mut(..elements).ok_or(Bad::Truncated)?;
        contexts::put(isa, stream, base, start, classes, ctx)?;
        if let Contexts::Cells(map) = &stream.tables.contexts {
            isa.phase_contexts(map, hints, ctx);
        }
        let relation = base.map_or(Relation::Solo, Relation::Delta);
        words.decode(isa, &coder, ctx, relation, codes, out)?;
        if stream.map.is_flat() {
            let tails = tails::after(&stream.map, stream.tails, start);
            isa.add_tails(stream.map.tail_bits(), tails, out);
        }
        if let (Contexts::Cells(_), Some(predicted)) = (&stream.tables.contexts, base) {
            isa.reflect(predicted, hints, out);
        }
    }
    words.finish()
}
