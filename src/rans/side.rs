//! Row and column scales as they lie in a payload: signed bytes through a small coder of their own.

use super::bits::{BitReader, BitWriter};
use super::kernel::{Coder, Isa, decode_codes, group_bytes};
use super::model::{BinMap, merge};
use super::table;
use super::token::{CLASSES, TOKENS, TokenMap};
use super::{Bad, FEW_LANES, LANES, LOW};

/// Slots of the tables, as a power of two.
const TABLE_BITS: u32 = 11;

/// Appends two runs of scales, each with a table of its own where that is shorter.
#[allow(clippy::indexing_slicing, reason = "there is a count for every byte")]
pub(super) fn write(runs: [&[i8]; 2], out: &mut Vec<u8>) {
    let mut counts = [[0u32; TOKENS]; 2];
    let mut tokens = Vec::with_capacity(runs[0].len() + runs[1].len());
    for (run, counts) in runs.iter().zip(&mut counts) {
        for &value in *run {
            let token = zigzag(value);
            counts[usize::from(token)] += 1;
            tokens.push(token);
        }
    }
    let merged = merge::<2>(&counts, 2);
    let mut ctx = vec![merged.map.0[0]; runs[0].len()];
    ctx.resize(tokens.len(), merged.map.0[1]);
    let map = TokenMap::bytes();
    let mut writer = BitWriter::new(out);
    merged.map.write(&mut writer);
    let mut encoder = Vec::new();
    table::write_all(&merged.counts, &map, TABLE_BITS, &mut writer, &mut encoder);
    writer.finish();
    let coder = Coder {
        table: &encoder,
        table_bits: TABLE_BITS,
        map: &map,
        planes: 0,
    };
    let mut states = [LOW; FEW_LANES];
    let mut words = vec![0; 2 * tokens.len()];
    let at = Isa::Scalar.encode(
        &coder,
        &mut states,
        &ctx,
        &mut tokens,
        &mut Default::default(),
        &mut words,
    );
    let words = words.get(at..).unwrap_or_default();
    out.extend_from_slice(&(words.len() as u32).to_le_bytes());
    out.extend(states.iter().flat_map(|x| x.to_le_bytes()));
    out.extend_from_slice(words);
}

/// Reads two runs of scales of the given lengths and returns them with the bytes behind them.
pub(super) fn read(bytes: &[u8], lengths: [usize; 2]) -> Result<([Vec<i8>; 2], &[u8]), Bad> {
    let mut reader = BitReader::new(bytes);
    let contexts = BinMap::<2>::read(&mut reader)?;
    let mut decoder = Vec::new();
    table::read_all(
        &mut reader,
        contexts.contexts(),
        TOKENS,
        TABLE_BITS,
        &mut decoder,
    )?;
    let rest = reader.rest()?;
    let (length, rest) = rest.split_first_chunk().ok_or(Bad::Truncated)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| Bad::Truncated)?;
    let (mut states, rest) = read_lanes(FEW_LANES, rest)?;
    let (words, rest) = rest.split_at_checked(length).ok_or(Bad::Truncated)?;
    // The last group may look for words behind the end.
    let mut padded = words.to_vec();
    padded.resize(length + group_bytes(FEW_LANES, 0), 0);
    let map = TokenMap::bytes();
    let coder = Coder {
        table: &decoder,
        table_bits: TABLE_BITS,
        map: &map,
        planes: 0,
    };
    let mut ctx = vec![contexts.0[0]; lengths[0]];
    ctx.resize(lengths[0] + lengths[1], contexts.0[1]);
    let mut codes = vec![0u16; ctx.len()];
    let mut position = 0;
    let done = decode_codes(
        &coder,
        states.get_mut(..FEW_LANES).unwrap_or_default(),
        &padded,
        &mut position,
        &ctx,
        &mut codes,
    );
    if done != codes.len() || position != length || states.iter().any(|&x| x != LOW) {
        return Err(Bad::Malformed("scales"));
    }
    let mut rows: Vec<i8> = codes.iter().map(|&code| unzigzag(code as u8)).collect();
    let columns = rows.split_off(lengths[0]);
    Ok(([rows, columns], rest))
}

/// Reads the scales of classes; of words alone there are none.
pub(super) fn read_classes(is_delta: bool, bytes: &mut &[u8]) -> Result<[i8; CLASSES], Bad> {
    if !is_delta {
        return Ok([64; CLASSES]);
    }
    let (scales, rest) = bytes.split_first_chunk().ok_or(Bad::Truncated)?;
    *bytes = rest;
    Ok(scales.map(u8::cast_signed))
}

/// Reads the states of so many lanes; others are where lanes start and end.
pub(super) fn read_lanes(lanes: usize, bytes: &[u8]) -> Result<([u32; LANES], &[u8]), Bad> {
    let (head, rest) = bytes.split_at_checked(4 * lanes).ok_or(Bad::Truncated)?;
    let mut states = [LOW; LANES];
    for (state, bytes) in states.iter_mut().zip(head.as_chunks::<4>().0) {
        *state = u32::from_le_bytes(*bytes);
        if *state < LOW {
            return Err(Bad::Malformed("state"));
        }
    }
    Ok((states, rest))
}

fn zigzag(value: i8) -> u8 {
    ((value << 1) ^ (value >> 7)) as u8
}

fn unzigzag(value: u8) -> i8 {
    ((value >> 1) ^ 0u8.wrapping_sub(value & 1)) as i8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_come_back() {
        let all: Vec<i8> = (i8::MIN..=i8::MAX).collect();
        let narrow: Vec<i8> = (0..1500).map(|i| (i * i % 7) as i8 - 3).collect();
        for (rows, columns) in [
            (&all[..], &narrow[..]),
            (&[][..], &[5][..]),
            (&narrow, &narrow[..700]),
            (&[], &[]),
        ] {
            let mut bytes = Vec::new();
            write([rows, columns], &mut bytes);
            bytes.extend_from_slice(b"rest");
            let (have, rest) = read(&bytes, [rows.len(), columns.len()]).unwrap();
            assert_eq!(have, [rows.to_vec(), columns.to_vec()]);
            assert_eq!(rest, b"rest");
            for end in 0..bytes.len() - 4 {
                assert!(read(&bytes[..end], [rows.len(), columns.len()]).is_err());
            }
        }
    }
}
