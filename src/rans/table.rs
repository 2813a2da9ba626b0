//! Frequency tables: fitted to counts, written, read back and laid out for coding.

use super::bits::{BitReader, BitWriter};
use super::log2::{log2, xlog2};
use super::token::{TOKENS, TokenMap};
use super::{Bad, flags};

/// Occurrences of each token.
pub(super) type Counts = [u32; TOKENS];

/// Slots of each token; they sum to a power of two, at least two of them above zero.
pub(super) type Frequencies = [u16; TOKENS];

/// Most contexts of a chunk.
pub(super) const CONTEXTS: usize = 64;

/// Bits of a length class in a written table.
const CLASS_BITS: u32 = 4;

/// Bits of a token's number in a written table.
const TOKEN_BITS: u32 = 8;

/// Estimates the bits, in units of 2^-16, of coding `counts` with a table of their own.
pub(super) fn cost(counts: &[u32]) -> u64 {
    let mut total = 0u32;
    let mut sum = 0u64;
    let mut used = 0u64;
    // Most tokens are not in use, and those that are lie together.
    let blocks = counts.chunks(16);
    for block in blocks.filter(|block| block.iter().any(|&count| count > 0)) {
        for &count in block {
            total += count;
            sum += xlog2(count);
            used += u64::from(count > 0);
        }
    }
    xlog2(total).saturating_sub(sum) + ((used * 7) << 16)
}

/// Moves tokens that are not worth a slot to the escape token; returns whether any moved.
#[allow(clippy::indexing_slicing, reason = "tokens are below the alphabet")]
pub(super) fn fold_rare(counts: &mut Counts, map: &TokenMap, table_bits: u32) {
    if map.escape >= map.alphabet {
        return;
    }
    let total: u32 = counts.iter().sum();
    let slot = (u64::from(total) * 3 / 2) >> table_bits;
    let mut moved = [0u32; 2];
    let mut tokens = [0u32; 2];
    let mut rare = [false; TOKENS];
    for (token, &count) in counts.iter().enumerate().take(map.escape) {
        let (target, raw_bits) = escape_of(map, token);
        let longer = raw_bits.saturating_sub(u32::from(map.raw_bits[token]));
        if count > 0 && u64::from(count) * u64::from(longer) < slot + 6 {
            rare[token] = true;
            moved[target - map.escape] += count;
            tokens[target - map.escape] += 1;
        }
    }
    for (token, _) in rare.iter().enumerate().filter(|(_, rare)| **rare) {
        let (target, _) = escape_of(map, token);
        if tokens[target - map.escape] > 1 || counts[target] > 0 {
            counts[target] += counts[token];
            counts[token] = 0;
        }
    }
}

#[allow(clippy::indexing_slicing, reason = "tokens are below the alphabet")]
fn escape_of(map: &TokenMap, token: usize) -> (usize, u32) {
    let target = usize::from(map.escaped(token as u8, 0).0);
    (target, u32::from(map.raw_bits[target]))
}

/// Fits frequencies to counts; `table_bits` slots, as a power of two.
#[allow(clippy::indexing_slicing, reason = "tokens are below the alphabet")]
pub(super) fn normalise(counts: &Counts, table_bits: u32) -> Frequencies {
    let slots = 1i64 << table_bits;
    let mut counts = *counts;
    if counts.iter().filter(|&&count| count > 0).count() < 2 {
        let lone = counts.iter().position(|&count| count > 0).unwrap_or(0);
        counts[lone] = counts[lone].max(1);
        counts[usize::from(lone == 0)] = 1;
    }
    let mut out = proportional(&counts, slots as u64);
    let mut left = slots - out.iter().map(|&f| i64::from(f)).sum::<i64>();
    while left != 0 {
        let step = left.signum();
        let best = (0..TOKENS)
            .filter(|&t| counts[t] > 0 && (step > 0 || out[t] > 1))
            .min_by_key(|&t| change(counts[t], out[t], step));
        let Some(best) = best else { break };
        out[best] = (i64::from(out[best]) + step) as u16;
        left -= step;
    }
    out
}

/// The change in bits when a token with `frequency` slots gets one more or one less.
fn change(count: u32, frequency: u16, step: i64) -> i64 {
    let now = i64::from(log2(u32::from(frequency)));
    let then = i64::from(log2((i64::from(frequency) + step) as u32));
    (now - then) * i64::from(count)
}

/// Rounds each share, but no used token below one slot.
fn proportional(counts: &Counts, slots: u64) -> Frequencies {
    let mut total: u64 = counts.iter().map(|&c| u64::from(c)).sum();
    let mut share = slots;
    let mut out = [0u16; TOKENS];
    // Tokens of less than a slot get one; what that takes comes off the shares of the others.
    for _ in 0..4 {
        let before = share;
        for (slot, &count) in out.iter_mut().zip(counts) {
            if *slot == 0 && count > 0 && u64::from(count) * share < total {
                *slot = 1;
                share -= 1;
                total -= u64::from(count);
            }
        }
        if share == before {
            break;
        }
    }
    for (slot, &count) in out.iter_mut().zip(counts) {
        if *slot == 0 && count > 0 {
            *slot = ((u64::from(count) * share + total / 2) / total).max(1) as u16;
        }
    }
    out
}

/// Writes a table for each context, rare tokens moved to escapes, and lays them out for an encoder in `encoder`.
pub(super) fn write_all(
    counts: &[Counts],
    map: &TokenMap,
    table_bits: u32,
    writer: &mut BitWriter<'_>,
    encoder: &mut Vec<u32>,
) {
    encoder.clear();
    for counts in counts {
        let mut counts = *counts;
        fold_rare(&mut counts, map, table_bits);
        let frequencies = normalise(&counts, table_bits);
        write(&frequencies, writer);
        lay_out_encoder(&frequencies, map, encoder);
    }
}

/// Writes one table.
fn write(frequencies: &Frequencies, writer: &mut BitWriter<'_>) {
    let last = frequencies.iter().rposition(|&f| f > 0).unwrap_or(0);
    writer.put(last as u32, TOKEN_BITS);
    for &frequency in frequencies.iter().take(last + 1) {
        put(frequency, writer);
    }
}

fn put(frequency: u16, writer: &mut BitWriter<'_>) {
    let length = u16::BITS - frequency.leading_zeros();
    writer.put(length, CLASS_BITS);
    writer.put(u32::from(frequency), length.saturating_sub(1));
}

/// Writes one table with escapes before the others: tables for many chunks always have them, and they are the last tokens.
pub(super) fn write_escapes_first(
    frequencies: &Frequencies,
    map: &TokenMap,
    writer: &mut BitWriter<'_>,
) {
    let mut others = *frequencies;
    let escapes = others.get_mut(map.escape..map.alphabet).unwrap_or_default();
    for frequency in escapes {
        put(std::mem::take(frequency), writer);
    }
    write(&others, writer);
}

/// Reads the tables of so many contexts, of tokens below `alphabet`, and appends what a decoder makes of them to `decoder`.
pub(super) fn read_all(
    reader: &mut BitReader<'_>,
    contexts: usize,
    alphabet: usize,
    table_bits: u32,
    decoder: &mut Vec<u32>,
) -> Result<(), Bad> {
    for _ in 0..contexts {
        lay_out_decoder(&read(reader, alphabet, table_bits)?, decoder);
    }
    Ok(())
}

/// Reads one table of tokens below `alphabet` and checks its sum.
fn read(reader: &mut BitReader<'_>, alphabet: usize, table_bits: u32) -> Result<Frequencies, Bad> {
    let frequencies = take_up_to(reader, alphabet, table_bits)?;
    check(&frequencies, table_bits)?;
    Ok(frequencies)
}

/// Reads what [`write_escapes_first`] wrote.
pub(super) fn read_escapes_first(
    reader: &mut BitReader<'_>,
    map: &TokenMap,
    table_bits: u32,
) -> Result<Frequencies, Bad> {
    let mut escapes = Vec::new();
    for _ in map.escape..map.alphabet {
        escapes.push(take(reader, table_bits)?);
    }
    let mut frequencies = take_up_to(reader, map.escape, table_bits)?;
    let places = frequencies.iter_mut().skip(map.escape);
    places
        .zip(escapes)
        .for_each(|(place, escape)| *place = escape);
    check(&frequencies, table_bits)?;
    Ok(frequencies)
}

/// The frequencies of tokens below `alphabet`, whatever they sum up to.
fn take_up_to(
    reader: &mut BitReader<'_>,
    alphabet: usize,
    table_bits: u32,
) -> Result<Frequencies, Bad> {
    let last = reader.take(TOKEN_BITS)? as usize;
    if last >= alphabet {
        return Err(Bad::Malformed("token"));
    }
    let mut out = [0u16; TOKENS];
    for slot in out.iter_mut().take(last + 1) {
        *slot = take(reader, table_bits)?;
    }
    Ok(out)
}

fn take(reader: &mut BitReader<'_>, table_bits: u32) -> Result<u16, Bad> {
    let length = reader.take(CLASS_BITS)?;
    if length > table_bits {
        return Err(Bad::Malformed("frequency"));
    }
    let low = reader.take(length.saturating_sub(1))?;
    Ok(if length == 0 {
        0
    } else {
        (1 << (length - 1)) | low as u16
    })
}

fn check(frequencies: &Frequencies, table_bits: u32) -> Result<(), Bad> {
    let sum: u32 = frequencies.iter().map(|&f| u32::from(f)).sum();
    if sum == 1 << table_bits && frequencies.iter().all(|&f| u32::from(f) < sum) {
        Ok(())
    } else {
        Err(Bad::Malformed("frequency sum"))
    }
}

/// Slots of a context, as a power of two, in a payload of this kind.
pub(super) fn bits_of(kind: u8) -> u32 {
    if kind & flags::FINE_TABLE == 0 {
        11
    } else {
        12
    }
}

/// Appends the decode table of one context, one entry a slot:
/// token in bits 0..8, frequency in 8..20, the slot's place within the token's in 20..32.
pub(super) fn lay_out_decoder(frequencies: &Frequencies, out: &mut Vec<u32>) {
    for (token, &frequency) in frequencies.iter().enumerate().filter(|(_, f)| **f > 0) {
        let head = (u32::from(frequency) << 8) | token as u32;
        out.extend((0..u32::from(frequency)).map(|place| (place << 20) | head));
    }
}

/// Appends the encode table of one context, one entry a token:
/// frequency in bits 0..12, first slot in 12..24, raw bits in 24..31.
pub(super) fn lay_out_encoder(frequencies: &Frequencies, map: &TokenMap, out: &mut Vec<u32>) {
    let mut start = 0u32;
    for (&frequency, &raw_bits) in frequencies.iter().zip(&map.raw_bits) {
        out.push(u32::from(frequency) | (start << 12) | (u32::from(raw_bits) << 24));
        start += u32::from(frequency);
    }
}
