//! Every instruction set gives the bits of the reference, at the edges of every field too.

use super::finish::{Bf16, F16, F32};
use super::*;
use crate::dtype::DType;
use crate::float::convert;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 32) as u32
    }

    /// A factor: any, or one of the extremes.
    fn factor(&mut self, extreme: bool) -> i16 {
        let any = (self.next() % 4095) as i16 - 2047;
        if extreme { any.signum() * 2047 } else { any }
    }

    fn factors(&mut self, count: usize, extreme: bool) -> Vec<u32> {
        (0..count)
            .map(|_| pair(self.factor(extreme), self.factor(extreme)))
            .collect()
    }
}

#[test]
fn sums_are_equal_and_right() {
    let mut random = Random(1);
    for (rank, columns) in [(1, 1), (2, 63), (8, 64), (8, 200), (16, 321), (64, 131)] {
        for extreme in [false, true] {
            let pairs = Pairs {
                words: random.factors(rank * columns, extreme),
                columns,
            };
            let row = random.factors(rank, extreme);
            for first in [0, 1, columns / 2, columns] {
                let want: Vec<i32> = (first..columns)
                    .map(|j| {
                        (0..rank)
                            .map(|k| scalar::dot(row[k], pairs.words[k * columns + j]))
                            .sum()
                    })
                    .collect();
                for isa in Isa::all() {
                    let mut have = vec![7; columns - first];
                    pairs.sums(isa, &row, first, &mut have);
                    assert_eq!(have, want, "{isa:?} {rank} {columns} {first}");
                }
            }
        }
    }
}

#[test]
fn columns_that_are_not_there_give_nothing() {
    let pairs = Pairs {
        words: vec![1; 10],
        columns: 5,
    };
    let mut out = [7; 4];
    pairs.sums(Isa::detect(), &[1, 1], 2, &mut out);
    assert_eq!(out, [0; 4]);
}

/// Sums and words at all edges, and the targets' scales.
fn cases() -> (Vec<i32>, Vec<u32>) {
    let mut random = Random(2);
    let edge = [
        0,
        1,
        -1,
        2047 * 2047 * 128,
        -2047 * 2047 * 128,
        1 << 24,
        (1 << 24) + 1,
    ];
    let mut sums = Vec::new();
    let mut words = Vec::new();
    for i in 0..40_000u32 {
        sums.push(if i % 3 == 0 {
            edge[i as usize % edge.len()]
        } else {
            random.next().cast_signed() >> (i % 31)
        });
        // All exponents, signs, zeros, infinities and NaNs come up.
        words.push(if i % 5 == 0 {
            (i << 16) | 0x8000
        } else {
            random.next()
        });
    }
    (sums, words)
}

/// Compares the instruction sets of this machine; returns what tells whether other machines do the same.
fn check<W: Word>(widen: impl Fn(u32) -> Vec<u8>) -> u64 {
    let mut digest = 0xCBF2_9CE4_8422_2325;
    let (sums, words) = cases();
    let base: Vec<u8> = words.iter().flat_map(|&word| widen(word)).collect();
    for rounded in [false, true] {
        for exponent in [1u32, 60, 100, 110, 127, 200, 254] {
            let target = Target {
                scale: f32::from_bits(exponent << 23),
                rounded,
            };
            let mut want = (vec![0; base.len()], vec![0; sums.len()]);
            finish::<W>(Isa::Scalar, target, &sums, &base, &mut want.0, &mut want.1);
            for isa in Isa::all() {
                let mut have = (vec![1; base.len()], vec![1; sums.len()]);
                finish::<W>(isa, target, &sums, &base, &mut have.0, &mut have.1);
                assert!(have == want, "{isa:?} {target:?}");
            }
            for byte in want.0.iter().chain(&want.1) {
                digest = (digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
            }
        }
    }
    digest
}

#[test]
fn words_and_hints_are_equal() {
    let half = |word: u32| word.to_le_bytes()[2..].to_vec();
    let digests = [
        check::<Bf16>(half),
        check::<F16>(half),
        check::<F32>(|word| word.to_le_bytes().to_vec()),
    ];
    // The same on every machine.
    assert_eq!(
        digests,
        [
            15_669_092_665_589_885_091,
            9_205_337_790_400_141_732,
            15_792_739_049_634_133_669
        ]
    );
}

/// F16 is widened and rounded as everywhere else, at all words and at what lies between them.
#[test]
fn f16_is_converted_as_elsewhere() {
    let round = |value: f32| {
        let mut out = [0; 2];
        convert(DType::F32, &value.to_le_bytes(), DType::F16, &mut out);
        u32::from(u16::from_le_bytes(out))
    };
    for word in 0..=u16::MAX {
        let mut wide = [0; 4];
        convert(DType::F16, &word.to_le_bytes(), DType::F32, &mut wide);
        let wide = f32::from_le_bytes(wide);
        let word = u32::from(word);
        assert_eq!(F16::widen(word).is_nan(), wide.is_nan());
        if wide.is_nan() {
            continue;
        }
        assert_eq!(F16::widen(word).to_bits(), wide.to_bits());
        for step in [-0x1001, -0x1000, -0xFFF, -1, 0, 1, 0xFFF, 0x1000, 0x1001] {
            let near = f32::from_bits(wide.to_bits().wrapping_add_signed(step));
            if near.is_finite() {
                assert_eq!(F16::round(near), round(near), "{near}");
            }
        }
    }
    for bits in (0..0x7F80_0000u32).step_by(9973) {
        let value = -f32::from_bits(bits);
        assert_eq!(F16::round(value), round(value), "{value}");
    }
}

#[test]
fn hints_tell_side_and_distance() {
    // 1.0 is 0x3F80; a step of the last place is 2^-7, or 65536 units of 2^-23.
    let target = Target {
        scale: f32::from_bits((127 - 23) << 23),
        rounded: false,
    };
    for (units, word, hint) in [
        (0, 0x3F80, 7),
        (0x7F00, 0x3F80, 0),
        (0x4000, 0x3F80, 6),
        (0x8100, 0x3F81, 0x80 | 1),
        (0xFF00, 0x3F81, 0x80 | 7),
        (0x17F00, 0x3F81, 0),
    ] {
        let (mut out, mut hints) = ([0; 2], [0]);
        finish::<Bf16>(
            Isa::Scalar,
            target,
            &[units],
            &[0x80, 0x3F],
            &mut out,
            &mut hints,
        );
        assert_eq!(
            (u16::from_le_bytes(out), hints[0]),
            (word, hint),
            "{units:#x}"
        );
        let (mut out, mut hints) = ([0; 2], [0]);
        finish::<Bf16>(
            Isa::Scalar,
            target,
            &[units],
            &[0x80, 0x7F],
            &mut out,
            &mut hints,
        );
        assert_eq!((out, hints[0]), ([0x80, 0x7F], 7), "infinity stays");
    }
}
