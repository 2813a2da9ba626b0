//! The reference: what every other instruction set has to equal.

use super::super::LOW;
use super::tile::MOST;
use super::{Coder, Link, RunScales, group_bytes};

/// An unsigned integer as wide as an element, or wider.
pub(in super::super) trait Word: Copy + Default {
    /// Cuts a code to this width.
    fn from_u64(value: u64) -> Self;
    /// Widens it again.
    fn to_u64(self) -> u64;
    /// The codes with their width told.
    fn codes(codes: &mut [Self]) -> Codes<'_>;
}

/// Codes of one of the widths.
pub(in super::super) enum Codes<'a> {
    /// Codes of at most 16 bits.
    Narrow(&'a mut [u16]),
    /// Codes of 32 bits.
    Wide(&'a mut [u32]),
    /// Codes of 64 bits.
    Long(&'a mut [u64]),
}

impl Codes<'_> {
    /// The number of codes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Narrow(codes) => codes.len(),
            Self::Wide(codes) => codes.len(),
            Self::Long(codes) => codes.len(),
        }
    }
}

/// Where a loop over vectors puts what it decodes.
pub(super) enum Target<'a> {
    /// Codes, which are yet to be turned into words.
    Codes(Codes<'a>),
    /// Words of 16 bits.
    Words(Relation<'a>, &'a mut [u8]),
}

#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    expect(dead_code, reason = "only loops over vectors need it")
)]
impl Target<'_> {
    /// The number of elements that there is room for.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Codes(codes) => codes.len(),
            Self::Words(Relation::Delta(base), out) => base.len().min(out.len()) / 2,
            Self::Words(Relation::Solo, out) => out.len() / 2,
        }
    }
}

macro_rules! word {
    ($($t:ty, $form:ident);*) => {$(
        impl Word for $t {
            fn codes(codes: &mut [Self]) -> Codes<'_> {
                Codes::$form(codes)
            }
            #[inline(always)]
            fn from_u64(value: u64) -> Self {
                value as Self
            }
            #[inline(always)]
            fn to_u64(self) -> u64 {
                u64::from(self)
            }
        }
    )*};
}

word!(u16, Narrow; u32, Wide);

impl Word for u64 {
    fn codes(codes: &mut [Self]) -> Codes<'_> {
        Codes::Long(codes)
    }
    #[inline(always)]
    fn from_u64(value: u64) -> Self {
        value
    }
    #[inline(always)]
    fn to_u64(self) -> u64 {
        self
    }
}

/// The bin of an element before the context map: half its scale in 1/8 octaves.
#[inline(always)]
pub(super) fn bin(class: u8, column: i8, scales: &RunScales<'_>) -> usize {
    let scale = scales.class[usize::from(class & 31)]
        .saturating_add(column)
        .saturating_add(scales.row);
    usize::from(scale.max(0) as u8 >> 1)
}

pub(super) fn scaled_contexts(
    classes: &[u8],
    scales: &RunScales<'_>,
    map: &[u8; 64],
    out: &mut [u8],
) {
    for ((&class, &column), ctx) in classes.iter().zip(scales.columns).zip(out) {
        *ctx = map[bin(class, column, scales)];
    }
}

pub(super) fn bin_contexts(map: &[u8; 64], bins: &mut [u8]) {
    for bin in bins {
        *bin = map[usize::from(*bin & 63)];
    }
}

pub(super) fn residuals(
    magnitudes: &[u16],
    classes: &[u8],
    scales: &RunScales<'_>,
    link: &Link,
    columns: (&mut [i32], &mut [u32]),
) -> (i32, u32) {
    let (mut residual_sum, mut slope_sum) = (0i32, 0u32);
    let sums = columns.0.iter_mut().zip(columns.1);
    for (((&magnitude, &class), &column), (residuals, slopes)) in
        magnitudes.iter().zip(classes).zip(scales.columns).zip(sums)
    {
        let bin = bin(class, column, scales);
        let above = (magnitude as i16)
            .wrapping_sub(link.offset)
            .clamp(-2047, 2047);
        let residual = (above << 4)
            .saturating_sub(link.mean[bin])
            .clamp(-MOST, MOST);
        *residuals += i32::from(residual);
        *slopes += u32::from(link.slope[bin]);
        residual_sum += i32::from(residual);
        slope_sum += u32::from(link.slope[bin]);
    }
    (residual_sum, slope_sum)
}

pub(super) fn encode(
    coder: &Coder<'_>,
    states: &mut [u32],
    ctx: &[u8],
    tokens: &mut [u8],
    raw: &mut [Vec<u16>; 4],
    words: &mut [u8],
) -> usize {
    let lanes = states.len();
    let mut at = words.len();
    let mut end = tokens.len();
    while end > 0 {
        let start = (end - 1) / lanes * lanes;
        encode_group(coder, states, ctx, tokens, raw, start..end, words, &mut at);
        end = start;
    }
    at
}

#[allow(clippy::too_many_arguments)]
pub(super) fn encode_group(
    coder: &Coder<'_>,
    states: &mut [u32],
    ctx: &[u8],
    tokens: &mut [u8],
    raw: &mut [Vec<u16>; 4],
    group: std::ops::Range<usize>,
    words: &mut [u8],
    at: &mut usize,
) {
    patch_group(coder, ctx, tokens, raw, group.clone());
    if coder.map.is_flat() {
        drop_tails(coder, tokens, raw, group.clone());
    }
    let mut emit = |x: &mut u32| {
        *at -= 2;
        words[*at..*at + 2].copy_from_slice(&(*x as u16).to_le_bytes());
        *x >>= 16;
    };
    for plane in (0..coder.planes).rev() {
        for i in group.clone().rev() {
            let x = &mut states[i - group.start];
            let bits = u32::from(coder.map.raw_bits[usize::from(tokens[i])])
                .saturating_sub(16 * plane as u32)
                .min(16);
            if bits > 0 {
                if *x >> (32 - bits) != 0 {
                    emit(x);
                }
                *x = (*x << bits) | u32::from(raw[plane][i]);
            }
        }
    }
    for i in group.clone().rev() {
        let x = &mut states[i - group.start];
        let entry = coder.table[(usize::from(ctx[i]) << 8) | usize::from(tokens[i])];
        let (frequency, start) = (entry & 0xFFF, (entry >> 12) & 0xFFF);
        if *x >> (32 - coder.table_bits) >= frequency {
            emit(x);
        }
        *x = ((*x / frequency) << coder.table_bits) + *x % frequency + start;
    }
}

/// Puts escapes in the place of the tokens of a group that have no slots.
#[cold]
#[inline(never)]
pub(super) fn patch_group(
    coder: &Coder<'_>,
    ctx: &[u8],
    tokens: &mut [u8],
    raw: &mut [Vec<u16>; 4],
    group: std::ops::Range<usize>,
) {
    for i in group {
        patch(coder, ctx[i], &mut tokens[i], raw, i);
    }
}

/// Takes the tails from the raw bits of a group: only what is above them of escapes is coded.
#[cold]
#[inline(never)]
pub(super) fn drop_tails(
    coder: &Coder<'_>,
    tokens: &[u8],
    raw: &mut [Vec<u16>; 4],
    group: std::ops::Range<usize>,
) {
    for i in group {
        let is_escape = usize::from(tokens[i]) >= coder.map.escape;
        let code = if is_escape { raw_of(coder, raw, i) } else { 0 };
        set_raw(coder, raw, i, code >> coder.map.up);
    }
}

/// The raw bits of an element, of all planes.
fn raw_of(coder: &Coder<'_>, raw: &[Vec<u16>; 4], i: usize) -> u64 {
    let planes = raw.iter().enumerate().take(coder.planes);
    planes.fold(0, |all, (plane, half)| {
        all | u64::from(half[i]) << (16 * plane)
    })
}

fn set_raw(coder: &Coder<'_>, raw: &mut [Vec<u16>; 4], i: usize, bits: u64) {
    for (plane, half) in raw.iter_mut().enumerate().take(coder.planes) {
        half[i] = (bits >> (16 * plane)) as u16;
    }
}

/// Puts the escape token in the place of a token without a slot.
#[inline(always)]
fn patch(coder: &Coder<'_>, ctx: u8, token: &mut u8, raw: &mut [Vec<u16>; 4], i: usize) {
    let frequency = coder.table[(usize::from(ctx) << 8) | usize::from(*token)] & 0xFFF;
    if frequency == 0 {
        let (escape, tail) = coder.map.escaped(*token, raw_of(coder, raw, i));
        *token = escape;
        set_raw(coder, raw, i, tail);
    }
}

/// Decodes codes, as far as `words` surely suffices; returns how many.
pub(in super::super) fn decode<W: Word>(
    coder: &Coder<'_>,
    states: &mut [u32],
    words: &[u8],
    position: &mut usize,
    ctx: &[u8],
    codes: &mut [W],
) -> usize {
    let lanes = states.len();
    let need = group_bytes(lanes, coder.planes);
    let plain = coder.map.raw_bits.iter().position(|&bits| bits > 0);
    let plain = plain.unwrap_or(usize::from(u8::MAX)) as u8;
    let mut done = 0;
    for (ctx, codes) in ctx.chunks(lanes).zip(codes.chunks_mut(lanes)) {
        let Some(group) = words.get(*position..).and_then(|rest| rest.get(..need)) else {
            break;
        };
        *position += decode_group(coder, plain, states, group, ctx, codes);
        done += codes.len();
    }
    done
}

/// Decodes one group, whole or short, and returns the bytes taken of `words`, which holds enough for any. Tokens below `plain` have
/// no raw bits.
#[inline(always)]
fn decode_group<W: Word>(
    coder: &Coder<'_>,
    plain: u8,
    states: &mut [u32],
    words: &[u8],
    ctx: &[u8],
    codes: &mut [W],
) -> usize {
    let mask = (1u32 << coder.table_bits) - 1;
    let mut at = 0;
    let mut tokens = [0u8; super::super::LANES];
    let mut refill = |x: u32| {
        let word = words
            .get(at..at + 2)
            .map_or(0, |w| u32::from(w[0]) | (u32::from(w[1]) << 8));
        let low = x < LOW;
        at += 2 * usize::from(low);
        if low { (x << 16) | word } else { x }
    };
    for ((x, &ctx), token) in states.iter_mut().zip(ctx).zip(&mut tokens) {
        let slot = (usize::from(ctx) << coder.table_bits) | (*x & mask) as usize;
        let entry = coder.table.get(slot).copied().unwrap_or(0);
        *token = entry as u8;
        *x = refill(
            ((entry >> 8) & 0xFFF)
                .wrapping_mul(*x >> coder.table_bits)
                .wrapping_add(entry >> 20),
        );
    }
    for (code, &token) in codes.iter_mut().zip(&tokens) {
        *code = W::from_u64(coder.map.base[usize::from(token)]);
    }
    let tokens = &tokens[..codes.len().min(states.len())];
    let tailed = tokens.iter().filter(|&&token| token >= plain).count();
    if tailed == 0 {
        return at;
    }
    let is_often = tailed * OFTEN >= tokens.len();
    for plane in 0..coder.planes {
        let lanes = states.iter_mut().zip(codes.iter_mut()).zip(tokens);
        for ((x, code), &token) in lanes {
            let left =
                u32::from(coder.map.raw_bits[usize::from(token)]).saturating_sub(16 * plane as u32);
            // A state is at least `LOW` after a refill, whatever the payload, so that taking no bits leaves it as it is.
            if left > 0 || (is_often && plane == 0) {
                let bits = left.min(16);
                let raw = u64::from(*x & ((1 << bits) - 1));
                *code = W::from_u64(
                    code.to_u64()
                        .wrapping_add(raw << (16 * plane as u32 + coder.map.up)),
                );
                *x = refill(*x >> bits);
            }
        }
    }
    at
}

/// From one lane in so many with raw bits on it takes less time to go through all of them than to guess which have some.
const OFTEN: usize = 4;

/// Which words an encoder or decoder turns into codes.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Relation<'a> {
    /// Differences to these bytes.
    Delta(&'a [u8]),
    /// Words alone.
    Solo,
}

impl Relation<'_> {
    /// The relation of the elements from byte `start` on.
    pub(in super::super) fn after(self, start: usize) -> Self {
        match self {
            Self::Delta(base) => Self::Delta(base.get(start..).unwrap_or_default()),
            Self::Solo => Self::Solo,
        }
    }
}

/// Reads an element of one, two, four or eight bytes, lowest first.
#[inline(always)]
pub(in super::super) fn load(bytes: &[u8]) -> u64 {
    match *bytes {
        [a] => u64::from(a),
        [a, b] => u64::from(u16::from_le_bytes([a, b])),
        [a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => 0,
    }
}
