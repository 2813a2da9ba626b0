//! Every instruction set of this processor against definitions written out byte by byte.

use super::{Isa, Layout};

const LAYOUTS: [Layout; 7] = [
    Layout {
        size: 1,
        rotate: false,
    },
    Layout {
        size: 2,
        rotate: false,
    },
    Layout {
        size: 2,
        rotate: true,
    },
    Layout {
        size: 4,
        rotate: false,
    },
    Layout {
        size: 4,
        rotate: true,
    },
    Layout {
        size: 8,
        rotate: false,
    },
    Layout {
        size: 8,
        rotate: true,
    },
];

/// A byte that no test data need contain: what a kernel must not touch keeps it.
const PAINT: u8 = 0xa5;

/// Bytes without a pattern, from xorshift64.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2) + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

/// The definition: one element after the other, in 64-bit arithmetic.
fn planes_of(layout: Layout, base: Option<&[u8]>, raw: &[u8]) -> Vec<u8> {
    let Layout { size, rotate } = layout;
    let word = |bytes: &[u8]| {
        bytes
            .iter()
            .rev()
            .fold(0u64, |x, byte| x << 8 | u64::from(*byte))
    };
    let count = raw.len() / size;
    let mut planes = vec![0; raw.len()];
    for i in 0..count {
        let at = i * size..(i + 1) * size;
        let x = word(&raw[at.clone()]) ^ base.map_or(0, |base| word(&base[at]));
        let top = x >> (8 * size - 1);
        let x = if rotate { x << 1 | top } else { x };
        for k in 0..size {
            planes[k * count + i] = x.to_le_bytes()[k];
        }
    }
    planes
}

/// Splits and merges with one instruction set, in buffers painted on both sides.
fn check(isa: Isa, layout: Layout, base: Option<&[u8]>, raw: &[u8], want: &[u8]) {
    let what = || {
        format!(
            "{isa:?} {layout:?} base {} of {} bytes",
            base.is_some(),
            raw.len()
        )
    };
    let edge = 64;
    let mut target = vec![PAINT; raw.len() + 2 * edge];
    let inside = edge..edge + raw.len();
    isa.split(layout, base, raw, &mut target[inside.clone()]);
    assert!(target[inside.clone()] == *want, "split {}", what());
    assert!(painted(&target, edge), "split wrote outside: {}", what());

    let planes: Vec<&[u8]> = match raw.len() / layout.size {
        0 => vec![&[]; layout.size],
        count => want.chunks_exact(count).collect(),
    };
    let mut target = vec![PAINT; raw.len() + 2 * edge];
    isa.merge(layout, base, &planes, &mut target[inside.clone()]);
    assert!(target[inside] == *raw, "merge {}", what());
    assert!(painted(&target, edge), "merge wrote outside: {}", what());
}

fn painted(target: &[u8], edge: usize) -> bool {
    let after = &target[target.len() - edge..];
    target[..edge]
        .iter()
        .chain(after)
        .all(|byte| *byte == PAINT)
}

fn check_all(layout: Layout, base: &[u8], raw: &[u8]) {
    for base in [None, Some(base)] {
        let want = planes_of(layout, base, raw);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            check(isa, layout, base, raw, &want);
        }
    }
}

#[test]
fn every_length() {
    for layout in LAYOUTS {
        for count in (0..=300).chain([511, 512, 513, 1023, 1024, 1025, 4096, 4099]) {
            let length = count * layout.size;
            check_all(layout, &noise(length, 7), &noise(length, count as u64));
        }
    }
}

#[test]
fn every_offset() {
    let (raw, base) = (noise(2048, 1), noise(2048, 2));
    for layout in LAYOUTS {
        for offset in 0..64 {
            let at = |start: usize| start..start + 149 * layout.size;
            check_all(layout, &base[at(63 - offset)], &raw[at(offset)]);
        }
    }
}

#[test]
fn every_u16() {
    let raw: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let base = noise(raw.len(), 3);
    for layout in LAYOUTS {
        check_all(layout, &base, &raw);
    }
}

#[test]
fn top_plane_of_a_float_is_its_exponent() {
    let bf16 = Layout {
        size: 2,
        rotate: true,
    };
    let mut planes = [0; 4];
    // -1.5 and 2^-126 in BF16.
    Isa::detect().split(bf16, None, &[0xc0, 0xbf, 0x80, 0x00], &mut planes);
    assert_eq!(planes, [0x81, 0x00, 127, 1]);
}

#[test]
fn lengths_that_disagree_are_harmless() {
    let raw = noise(1000, 4);
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        for layout in LAYOUTS {
            for (base, length) in [(0, 1000), (500, 1000), (1000, 17), (8, 0)] {
                let mut target = vec![PAINT; length];
                isa.split(layout, Some(&raw[..base]), &raw, &mut target);
                let planes: Vec<&[u8]> = (0..layout.size).map(|k| &raw[..100 + 50 * k]).collect();
                isa.merge(layout, Some(&raw[..base]), &planes, &mut target);
                isa.merge(layout, None, &planes[1..], &mut target);
            }
        }
    }
}
