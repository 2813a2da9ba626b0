//! Calls the version of each loop that belongs to an instruction set.
#![allow(unsafe_code)]

use super::super::LANES;
use super::super::phased::{self, CELLS};
use super::super::token::{Format, Shape, TokenMap};
#[cfg(target_arch = "aarch64")]
use super::neon;
use super::scalar::Target;
use super::{
    Coder, CutRun, Isa, Link, Relation, RunScales, Sums, Tile, Word, narrow, runs, scalar, tails,
};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};

/// Calls `$module::$name` of the instruction set, or the plain version.
macro_rules! by_isa {
    ($isa:expr, $name:ident $(::<$generic:literal>)? ($($argument:expr),*), $plain:expr) => {
        match $isa {
            Isa::Scalar => $plain,
            // SAFETY: these values exist only where the machine has the instructions.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { avx2::$name $(::<$generic>)? ($($argument),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { avx512::$name $(::<$generic>)? ($($argument),*) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => unsafe { neon::$name $(::<$generic>)? ($($argument),*) },
        }
    };
}

impl Isa {
    /// Writes each element's context: `map` of half the sum of its scales, cut to a byte and at zero.
    pub(in super::super) fn scaled_contexts(
        self,
        classes: &[u8],
        scales: &RunScales<'_>,
        map: &[u8; 64],
        out: &mut [u8],
    ) {
        by_isa!(
            self,
            scaled_contexts(classes, scales, map, out),
            scalar::scaled_contexts(classes, scales, map, out)
        );
    }

    /// Replaces each class by its context.
    pub(in super::super) fn plain_contexts(self, map: &[u8; 32], classes: &mut [u8]) {
        let mut twice = [0; 64];
        for (slot, &context) in twice.iter_mut().zip(map.iter().chain(map)) {
            *slot = context;
        }
        #[cfg(target_arch = "x86_64")]
        if self == Self::Avx2 {
            // SAFETY: this value exists only where the machine has the instructions.
            return unsafe { avx2::plain_contexts(&twice, classes) };
        }
        self.bin_contexts(&twice, classes);
    }

    /// Replaces each bin by its context.
    pub(in super::super) fn bin_contexts(self, map: &[u8; 64], bins: &mut [u8]) {
        by_isa!(
            self,
            bin_contexts(map, bins),
            scalar::bin_contexts(map, bins)
        );
    }

    /// Writes the highest context of each run.
    pub(in super::super) fn highest_contexts(self, ctx: &[u8], out: &mut [u8]) {
        by_isa!(self, highest(ctx, out), runs::highest(ctx, out));
    }

    /// Replaces the first cell of each element by the context that `map` has for its phase.
    pub(in super::super) fn phase_contexts(
        self,
        map: &[u8; CELLS],
        hints: &[u8],
        cells: &mut [u8],
    ) {
        by_isa!(
            self,
            phase_contexts(map, hints, cells),
            phased::look_up(map, hints, cells)
        );
    }

    /// Reflects words of 16 bits at their predictions where hints say so.
    pub(in super::super) fn reflect(self, predicted: &[u8], hints: &[u8], words: &mut [u8]) {
        by_isa!(
            self,
            reflect(predicted, hints, words),
            phased::reflect(predicted, hints, words)
        );
    }

    /// Adds each element's residual and slope to its column's, and writes the sums of each row.
    pub(in super::super) fn sum_residuals(
        self,
        tile: &Tile<'_>,
        link: &Link,
        columns: (&mut [i32], &mut [u32]),
        rows: &mut [Sums],
    ) {
        #[cfg(target_arch = "x86_64")]
        if let Ok(rows) = <&mut [Sums; super::TILE_ROWS]>::try_from(&mut *rows) {
            // SAFETY: these values exist only where the machine has the instructions.
            match self {
                Self::Avx512 => {
                    return *rows = unsafe { avx512::sum_residuals(tile, link, columns) };
                }
                Self::Avx2 => return *rows = unsafe { avx2::sum_residuals(tile, link, columns) },
                Self::Scalar => {}
            }
        }
        for (sums, (magnitudes, classes, scales)) in rows.iter_mut().zip(tile.runs()) {
            let columns = (&mut *columns.0, &mut *columns.1);
            *sums = self.residuals(magnitudes, classes, &scales, link, columns);
        }
    }

    /// Adds each element's residual and slope to its column's and returns the sums of the run.
    fn residuals(
        self,
        magnitudes: &[u16],
        classes: &[u8],
        scales: &RunScales<'_>,
        link: &Link,
        columns: (&mut [i32], &mut [u32]),
    ) -> (i32, u32) {
        by_isa!(
            self,
            residuals(magnitudes, classes, scales, link, columns),
            scalar::residuals(magnitudes, classes, scales, link, columns)
        )
    }

    /// Writes the class of each word of `base`.
    pub(in super::super) fn classes(self, format: Format, top: u32, base: &[u8], out: &mut [u8]) {
        by_isa!(
            self,
            classes(format, top, base, out),
            narrow::classes(format, top, base, out)
        );
    }

    /// Cuts 16-bit elements into tokens, raw bits and, for differences, log magnitudes.
    pub(in super::super) fn cut(
        self,
        map: &TokenMap,
        relation: Relation<'_>,
        raw: &[u8],
        out: &mut CutRun<'_>,
    ) {
        by_isa!(
            self,
            cut(map, relation, raw, out),
            narrow::cut(map, relation, raw, out)
        );
    }

    /// Writes the log magnitudes of 16-bit words alone.
    pub(in super::super) fn solo_magnitudes(
        self,
        mantissa: u32,
        floor: u16,
        raw: &[u8],
        out: &mut [u16],
    ) {
        by_isa!(
            self,
            solo_magnitudes(mantissa, floor, raw, out),
            narrow::solo_magnitudes(mantissa, floor, raw, out)
        );
    }

    /// Adds to each of `words`, whose tails are zero, its tail of `bits` bits.
    pub(in super::super) fn add_tails(self, bits: u32, tails: &[u8], words: &mut [u8]) {
        by_isa!(
            self,
            add_tails(bits, tails, words),
            tails::add(bits, tails, words)
        );
    }

    /// Packs the tails of `words`, of `bits` bits, to `tails`, which is zero before.
    pub(in super::super) fn pack_tails(self, bits: u32, words: &[u8], tails: &mut [u8]) {
        by_isa!(
            self,
            pack_tails(bits, words, tails),
            tails::pack(bits, words, tails)
        );
    }

    /// Writes the words of `codes`, of `bits` bits, to `out`.
    fn apply<W: Word>(self, relation: Relation<'_>, bits: u32, codes: &mut [W], out: &mut [u8]) {
        let codes = W::codes(codes);
        by_isa!(
            self,
            apply(relation, bits, &codes, out),
            narrow::apply(relation, bits, &codes, out)
        );
    }

    /// Codes elements from the last to the first; words grow downwards from the end of `words`.
    /// Returns where they start.
    pub(in super::super) fn encode(
        self,
        coder: &Coder<'_>,
        states: &mut [u32],
        ctx: &[u8],
        tokens: &mut [u8],
        raw: &mut [Vec<u16>; 4],
        words: &mut [u8],
    ) -> usize {
        let mut at = words.len();
        if let (Ok(states), 0..=2, true) = (
            <&mut [u32; LANES]>::try_from(&mut *states),
            coder.planes,
            self != Self::Scalar,
        ) {
            let whole = tokens.len() / LANES * LANES;
            if whole < tokens.len() {
                scalar::encode_group(
                    coder,
                    states,
                    ctx,
                    tokens,
                    raw,
                    whole..tokens.len(),
                    words,
                    &mut at,
                );
            }
            return self.encode_wide(
                coder,
                states,
                &ctx[..whole],
                &mut tokens[..whole],
                raw,
                words,
                at,
            );
        }
        scalar::encode(coder, states, ctx, tokens, raw, words)
    }

    #[allow(clippy::too_many_arguments)]
    #[cfg_attr(
        not(any(target_arch = "x86_64", target_arch = "aarch64")),
        expect(unused_variables, reason = "only loops over vectors take them")
    )]
    fn encode_wide(
        self,
        coder: &Coder<'_>,
        states: &mut [u32; LANES],
        ctx: &[u8],
        tokens: &mut [u8],
        raw: &mut [Vec<u16>; 4],
        words: &mut [u8],
        end: usize,
    ) -> usize {
        macro_rules! run {
            ($planes:literal) => {
                by_isa!(
                    self,
                    encode::<$planes>(coder, states, ctx, tokens, raw, words, end),
                    end
                )
            };
        }
        match coder.planes {
            0 => run!(0),
            1 => run!(1),
            _ => run!(2),
        }
    }

    /// Decodes whole groups, as far as `words` surely suffices, and a short one at the end, to words in `out`; returns
    /// how many elements that were. `codes` is scratch, an entry an element.
    #[allow(clippy::too_many_arguments)]
    pub(in super::super) fn decode<W: Word>(
        self,
        coder: &Coder<'_>,
        states: &mut [u32],
        words: &[u8],
        position: &mut usize,
        ctx: &[u8],
        relation: Relation<'_>,
        codes: &mut [W],
        out: &mut [u8],
    ) -> usize {
        let bits = coder.map.bits;
        let size = bits as usize / 8;
        let mut done = 0;
        if let Ok(states) = <&mut [u32; LANES]>::try_from(&mut *states) {
            let target = if bits == 16 {
                Target::Words(relation, &mut *out)
            } else {
                Target::Codes(W::codes(codes))
            };
            done = self.decode_wide(coder, states, words, position, ctx, target);
            if bits != 16 {
                self.apply(relation, bits, &mut codes[..done], &mut out[..done * size]);
            }
        }
        let (ctx, codes) = (&ctx[done..], &mut codes[done..]);
        let more = scalar::decode(coder, states, words, position, ctx, codes);
        let out = &mut out[done * size..][..more * size];
        self.apply(relation.after(done * size), bits, &mut codes[..more], out);
        done + more
    }

    #[cfg_attr(
        not(any(target_arch = "x86_64", target_arch = "aarch64")),
        expect(unused_variables, reason = "only loops over vectors take them")
    )]
    fn decode_wide(
        self,
        coder: &Coder<'_>,
        states: &mut [u32; LANES],
        words: &[u8],
        position: &mut usize,
        ctx: &[u8],
        target: Target<'_>,
    ) -> usize {
        macro_rules! run {
            ($planes:literal, $solo:literal) => {
                match self {
                    Isa::Scalar => 0,
                    // SAFETY: these values exist only where the machine has the instructions.
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => unsafe {
                        avx2::decode::<$planes, $solo>(coder, states, words, position, ctx, target)
                    },
                    // SAFETY: as above.
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 => unsafe {
                        avx512::decode::<$planes, $solo>(
                            coder, states, words, position, ctx, target,
                        )
                    },
                    // SAFETY: as above.
                    #[cfg(target_arch = "aarch64")]
                    Isa::Neon => unsafe {
                        neon::decode::<$planes, $solo>(coder, states, words, position, ctx, target)
                    },
                }
            };
        }
        match (
            coder.planes,
            matches!(coder.map.shape, Shape::Window { .. }),
        ) {
            (0 | 1, false) => run!(1, false),
            (0 | 1, true) => run!(1, true),
            (2, false) => run!(2, false),
            (2, true) => run!(2, true),
            _ => 0,
        }
    }
}
