//! Runs of small integers, such as the factors of a prediction, through a coder of their own.

use super::bits::{BitReader, BitWriter};
use super::kernel::{Coder, Relation, group_bytes};
use super::model::merge;
use super::side::read_lanes;
use super::table::{self, Counts};
use super::token::{Format, TOKENS, TokenMap};
use super::{Bad, FEW_LANES, Isa, LANES, LOW};
use crate::dtype::DType;

/// Kinds of run that may have tables of their own.
pub const MOST_KINDS: usize = 128;

/// Slots of the tables, as a power of two.
const TABLE_BITS: u32 = 11;

/// Most tables; neighbouring kinds share one where that is shorter.
const MOST_TABLES: usize = 16;

/// Integers from which there are as many lanes as in a large chunk: their states take 240 bytes more.
const WIDE: usize = 8192;

fn lanes(count: usize) -> usize {
    if count >= WIDE { LANES } else { FEW_LANES }
}

/// A run of integers: its kind, below [`MOST_KINDS`], and how many they are.
pub type Run = (usize, usize);

/// The tokens of integers, which are coded like the differences of 16-bit floats.
fn tokens() -> Option<TokenMap> {
    Some(TokenMap::delta(Format::of(DType::Bf16)?, false))
}

fn kinds(runs: &[Run]) -> usize {
    runs.iter()
        .map(|run| run.0 + 1)
        .max()
        .unwrap_or(0)
        .min(MOST_KINDS)
}

/// Appends `values`, which are the integers of all runs in order.
#[allow(
    clippy::indexing_slicing,
    reason = "kinds are below their limit, and the coder says where words start"
)]
pub fn write_integers(isa: Isa, runs: &[Run], values: &[i16], out: &mut Vec<u8>) {
    let Some(map) = tokens().filter(|_| !values.is_empty()) else {
        return;
    };
    let mut all_tokens = Vec::with_capacity(values.len());
    let mut raw: [Vec<u16>; 4] = Default::default();
    for &value in values {
        let code = ((value << 1) ^ (value >> 15)).cast_unsigned();
        let (token, tail) = map.split(u64::from(code));
        all_tokens.push(token);
        raw[0].push(tail as u16);
    }
    let mut counts: Vec<Counts> = vec![[0; TOKENS]; kinds(runs)];
    let mut at = 0;
    for &(kind, length) in runs {
        for &token in all_tokens.iter().skip(at).take(length) {
            counts[kind][usize::from(token)] += 1;
        }
        at += length;
    }
    let merged = merge::<MOST_KINDS>(&counts, MOST_TABLES);
    let mut writer = BitWriter::new(out);
    for pair in merged.map.0[..counts.len()].windows(2) {
        writer.put(u32::from(pair[1] != pair[0]), 1);
    }
    let mut encoder = Vec::new();
    table::write_all(&merged.counts, &map, TABLE_BITS, &mut writer, &mut encoder);
    writer.finish();
    let ctx = contexts(runs, &merged.map.0);
    let coder = Coder {
        table: &encoder,
        table_bits: TABLE_BITS,
        map: &map,
        planes: 1,
    };
    let mut states = [LOW; LANES];
    let states = &mut states[..lanes(values.len())];
    let mut words = vec![0; coder.room(values.len())];
    let at = isa.encode(&coder, states, &ctx, &mut all_tokens, &mut raw, &mut words);
    out.extend_from_slice(&((words.len() - at) as u32).to_le_bytes());
    out.extend(states.iter().flat_map(|x| x.to_le_bytes()));
    out.extend_from_slice(&words[at..]);
}

/// The context of each integer.
fn contexts(runs: &[Run], map: &[u8; MOST_KINDS]) -> Vec<u8> {
    let mut out = Vec::with_capacity(runs.iter().map(|run| run.1).sum());
    for &(kind, length) in runs {
        let context = map.get(kind).or(map.last()).copied();
        out.resize(out.len() + length, context.unwrap_or_default());
    }
    out
}

/// Reads the integers of all runs and returns them with the bytes behind them.
///
/// The caller bounds the number of integers; there is no other limit to the memory that this takes.
pub fn read_integers<'a>(
    isa: Isa,
    runs: &[Run],
    bytes: &'a [u8],
) -> Result<(Vec<i16>, &'a [u8]), Bad> {
    let count: usize = runs.iter().map(|run| run.1).sum();
    let map = tokens().ok_or(Bad::Malformed("integers"))?;
    if count == 0 {
        return Ok((Vec::new(), bytes));
    }
    let mut reader = BitReader::new(bytes);
    let mut bins = [0u8; MOST_KINDS];
    let mut context = 0;
    for bin in bins.iter_mut().take(kinds(runs)).skip(1) {
        context += reader.take(1)? as u8;
        *bin = context;
    }
    let mut decoder = Vec::new();
    let tables = usize::from(context) + 1;
    table::read_all(&mut reader, tables, map.alphabet, TABLE_BITS, &mut decoder)?;
    let rest = reader.rest()?;
    let (length, rest) = rest.split_first_chunk().ok_or(Bad::Truncated)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| Bad::Truncated)?;
    let lanes = lanes(count);
    let (mut states, rest) = read_lanes(lanes, rest)?;
    let (words, rest) = rest.split_at_checked(length).ok_or(Bad::Truncated)?;
    // The last groups may look for words behind the end.
    let mut padded = words.to_vec();
    padded.resize(length + 2 * group_bytes(lanes, 1) + 64, 0);
    let coder = Coder {
        table: &decoder,
        table_bits: TABLE_BITS,
        map: &map,
        planes: 1,
    };
    let ctx = contexts(runs, &bins);
    let mut codes = vec![0u16; count];
    let (zeros, mut out) = (vec![0; 2 * count], vec![0; 2 * count]);
    let mut position = 0;
    let done = isa.decode(
        &coder,
        states.get_mut(..lanes).unwrap_or_default(),
        &padded,
        &mut position,
        &ctx,
        Relation::Delta(&zeros),
        &mut codes,
        &mut out,
    );
    if done != count || position != length || states.iter().any(|&x| x != LOW) {
        return Err(Bad::Malformed("integers"));
    }
    let words = out.as_chunks().0.iter();
    let values = words.map(|word| from_zero(u16::from_le_bytes(*word)));
    Ok((values.collect(), rest))
}

/// The difference of a 16-bit float to +0, counted in representable numbers.
fn from_zero(word: u16) -> i16 {
    if word < 0x8000 {
        word.cast_signed()
    } else {
        (!word).wrapping_sub(0x8000).cast_signed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_come_back() {
        let wide: Vec<i16> = (0..70_000i64)
            .map(|i| ((i * i % 4093) - 2046) as i16)
            .collect();
        let edges = [i16::MIN, i16::MAX, 0, -1, 1, 2047, -2047];
        for isa in Isa::all() {
            for (runs, values) in [
                (vec![(0, 7)], edges.to_vec()),
                (vec![(0, 1)], vec![5]),
                (vec![(0, 30_000), (1, 40_000)], wide.clone()),
                (
                    (0..128).map(|kind| (kind, 100)).collect(),
                    wide[..12_800].to_vec(),
                ),
                (
                    vec![(0, 3), (1, 0), (2, 4), (0, 10), (2, 10)],
                    wide[..27].to_vec(),
                ),
                (vec![], vec![]),
            ] {
                let mut bytes = Vec::new();
                write_integers(isa, &runs, &values, &mut bytes);
                let length = bytes.len();
                bytes.extend_from_slice(b"rest");
                let (have, rest) = read_integers(isa, &runs, &bytes).unwrap();
                assert!(have == values && rest == b"rest");
                for end in (0..length).step_by(length / 50 + 1) {
                    assert!(read_integers(isa, &runs, &bytes[..end]).is_err());
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_survived() {
        let mut state = 1u32;
        let mut bytes: Vec<u8> = (0..3000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        for at in 0..bytes.len() - 100 {
            bytes[at] ^= 0x5A;
            let _ = read_integers(Isa::detect(), &[(0, 100), (1, 40_000)], &bytes[at..]);
        }
    }
}
