//! Payloads of the coder of floats made field by field, so that most of them are parsed to the end.

use super::common::Input;

/// What a decoder knows of the chunk.
pub struct Shape {
    /// Whether there is a base.
    pub delta: bool,
    /// Bits of an element.
    pub bits: usize,
    /// Rows and columns that the chunk touches.
    pub grid: [usize; 2],
    /// Lanes of the chunk.
    pub lanes: usize,
    /// Its elements, and the bits of a tail that may lie flat.
    pub elements: usize,
    pub tail_bits: usize,
    /// The kind of what its object's chunks have in common.
    pub shared: Option<u8>,
}

const SCALED: u8 = 2;
const FINE: u8 = 4;
/// Of words alone.
const FLAT: u8 = 4;
const FINE_TABLE: u8 = 8;
/// Of differences.
const SKIPS: u8 = 16;
const SHARED: u8 = 64;
const SHARED_TABLES: u8 = 128;

/// A payload whose tables, scales and states are well-formed; its words are the input's.
pub fn payload(shape: &Shape, input: &mut Input<'_>) -> Vec<u8> {
    let given = input.byte();
    let kind = match shape.shared {
        Some(kind) if given & SHARED != 0 => kind | given & (SHARED | SHARED_TABLES),
        _ if shape.delta => 1 | given & (SCALED | FINE | FINE_TABLE | SKIPS),
        _ if shape.tail_bits > 0 => 1 | given & (SCALED | FLAT | FINE_TABLE),
        _ => 1 | given & (SCALED | FINE_TABLE),
    };
    let mut out = vec![kind];
    if kind & SHARED == 0 {
        out.extend([input.byte(), 0]);
    }
    if kind & SCALED != 0 {
        if shape.delta && kind & SHARED == 0 {
            out.extend((0..32).map(|_| input.byte()));
        }
        let columns = if kind & SHARED == 0 { shape.grid[1] } else { 0 };
        scales(shape.grid[0] + columns, input, &mut out);
    }
    if kind & SHARED_TABLES == 0 {
        tables(shape, kind, input, &mut out);
    }
    if kind & SKIPS != 0 {
        flags(kind, input, &mut out);
    }
    if !shape.delta && kind & FLAT != 0 {
        tails(shape, input, &mut out);
    }
    for _ in 0..shape.lanes {
        out.extend([input.byte(), input.byte(), input.byte() | 1, input.byte()]);
    }
    out.extend_from_slice(input.0);
    out
}

/// Tails of a few bytes again and again; those of a group that is not whole are zeros.
fn tails(shape: &Shape, input: &mut Input<'_>, out: &mut Vec<u8>) {
    let given = input.bytes(16).to_vec();
    let bytes = |groups: usize| groups * 8 * shape.tail_bits;
    let whole = bytes(shape.elements / 64);
    out.extend((0..whole).map(|i| given.get(i % 17).copied().unwrap_or(0)));
    out.resize(out.len() + bytes(shape.elements.div_ceil(64)) - whole, 0);
}

/// Contexts and their tables.
fn tables(shape: &Shape, kind: u8, input: &mut Input<'_>, out: &mut Vec<u8>) {
    let mut bits = Bits(Vec::new());
    let bins = match (kind & SCALED != 0, shape.delta) {
        (true, _) => 64,
        (false, true) => 32,
        (false, false) => 1,
    };
    let contexts = bin_map(bins, input, &mut bits);
    let table_bits = if kind & FINE_TABLE == 0 { 11 } else { 12 };
    for _ in 0..contexts {
        table(alphabet(shape, kind), table_bits, input, &mut bits);
    }
    out.extend(bits.bytes());
}

/// Contexts of flags, and their tables.
fn flags(kind: u8, input: &mut Input<'_>, out: &mut Vec<u8>) {
    let mut bits = Bits(Vec::new());
    let contexts = bin_map(64, input, &mut bits);
    let table_bits = if kind & FINE_TABLE == 0 { 11 } else { 12 };
    for _ in 0..contexts {
        table(2, table_bits, input, &mut bits);
    }
    out.extend(bits.bytes());
}

fn alphabet(shape: &Shape, kind: u8) -> usize {
    match (shape.bits, shape.delta) {
        (8, _) => 256,
        (16, true) if kind & FINE == 0 => 122,
        (16, true) => 210,
        (32, true) => 250,
        (_, true) => 254,
        (_, false) => 127,
    }
}

/// Starts few contexts, or as many as the input says.
fn bin_map(bins: usize, input: &mut Input<'_>, bits: &mut Bits) -> usize {
    let mask = input.byte();
    let mut contexts = 1;
    for bin in 1..bins {
        let starts = if mask & 1 == 0 {
            usize::from(mask) == 2 * bin
        } else {
            input.byte() & mask & 0x82 != 0
        };
        bits.put(usize::from(starts), 1);
        contexts += usize::from(starts);
    }
    contexts
}

/// Two to seventeen tokens with slots.
fn table(alphabet: usize, table_bits: usize, input: &mut Input<'_>, bits: &mut Bits) {
    let mut slots = vec![0; alphabet];
    let mut left = (1 << table_bits) - 2;
    let first = usize::from(input.byte()) % alphabet;
    let second = (first + 1 + usize::from(input.byte()) % (alphabet - 1)) % alphabet;
    for _ in 0..input.byte() & 15 {
        let share = left * usize::from(input.byte()) / 256;
        slots[usize::from(input.byte()) % alphabet] += share;
        left -= share;
    }
    slots[first] += 1 + left;
    slots[second] += 1;
    write_table(&slots, bits);
}

fn write_table(slots: &[usize], bits: &mut Bits) {
    let last = slots.iter().rposition(|&f| f > 0).unwrap_or(0);
    bits.put(last, 8);
    for &slots in &slots[..=last] {
        let length = (usize::BITS - slots.leading_zeros()) as usize;
        bits.put(length, 4);
        bits.put(slots, length.saturating_sub(1));
    }
}

/// So many row and column scales of the input, each token with 8 of 2048 slots; now and then with a wrong byte.
fn scales(count: usize, input: &mut Input<'_>, out: &mut Vec<u8>) {
    let given = input.bytes(count.min(64));
    let tokens: Vec<u32> = (0..count)
        .map(|i| given.get(i % 64).map_or(0, |&token| u32::from(token)))
        .collect();
    let mut bits = Bits(Vec::new());
    bits.put(0, 1);
    write_table(&[8; 256], &mut bits);
    let mut states = [1u32 << 16; 4];
    let mut words = Vec::new();
    for (i, token) in tokens.iter().enumerate().rev() {
        let x = &mut states[i % 4];
        if *x >= 1 << 24 {
            words.push(*x as u16);
            *x >>= 16;
        }
        *x = (*x / 8 << 11) + *x % 8 + 8 * token;
    }
    words.reverse();
    let start = out.len();
    out.extend(bits.bytes());
    out.extend((2 * words.len() as u32).to_le_bytes());
    out.extend(states.iter().flat_map(|x| x.to_le_bytes()));
    out.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    if input.byte() & 15 == 15 {
        let at = start + input.number() % (out.len() - start);
        out[at] ^= input.byte();
    }
}

/// Bit fields, lowest bit first.
struct Bits(Vec<bool>);

impl Bits {
    fn put(&mut self, value: usize, count: usize) {
        self.0.extend((0..count).map(|bit| value >> bit & 1 == 1));
    }

    fn bytes(&self) -> Vec<u8> {
        let byte = |bits: &[bool]| {
            bits.iter()
                .enumerate()
                .fold(0, |byte, (at, &bit)| byte | u8::from(bit) << at)
        };
        self.0.chunks(8).map(byte).collect()
    }
}
