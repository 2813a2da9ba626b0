//! Tails that lie flat, taken apart and put together: loops that the compiler turns into vectors.
//!
//! The bits of a tail are cut into fields of a power of two, the widest lowest; each field of a group of 64 elements lies
//! together. Fields of bytes stand one behind the other; of narrower ones, of `p` bits, element `i`'s is in byte `i mod 8p`,
//! `p * (i / 8p)` bits up, so that registers of any width take them apart with shifts and masks.

/// Elements whose tails lie together.
pub(in super::super) const GROUP: usize = 64;

/// Does `$body` for each field of tails of `$bits` bits: its width as a constant, and the bits of those before it.
///
/// Written out, since only widths that are constants become vectors.
macro_rules! each_field {
    ($bits:ident, $field:ident, $before:ident => $body:expr) => {
        each_field!($bits, $field, $before => $body; 32, 16, 8, 4, 2, 1)
    };
    ($bits:ident, $field:ident, $before:ident => $body:expr; $($width:literal),*) => {$(
        if $bits & $width != 0 {
            const $field: usize = $width;
            let $before = $bits & !(2 * $width - 1);
            $body
        }
    )*};
}

/// The loops over tails of words of one width.
macro_rules! width {
    ($name:ident, $word:ty) => {
        mod $name {
            use super::GROUP;

            const SIZE: usize = size_of::<$word>();

            /// Adds to each word its tail.
            #[inline(always)]
            pub(super) fn add<const BITS: usize>(tails: &[u8], words: &mut [u8]) {
                let (groups, rest) = words.as_chunks_mut::<{ GROUP * SIZE }>();
                let mut tails = tails.chunks_exact(8 * BITS);
                for (words, tails) in groups.iter_mut().zip(&mut tails) {
                    add_group::<BITS>(tails, words);
                }
                if let Some(tails) = tails.next().filter(|_| !rest.is_empty()) {
                    let mut words = [0; GROUP * SIZE];
                    words[..rest.len()].copy_from_slice(rest);
                    add_group::<BITS>(tails, &mut words);
                    rest.copy_from_slice(&words[..rest.len()]);
                }
            }

            #[inline(always)]
            fn add_group<const BITS: usize>(tails: &[u8], words: &mut [u8; GROUP * SIZE]) {
                let tails = unpack::<BITS>(tails);
                for (word, tail) in words.as_chunks_mut::<SIZE>().0.iter_mut().zip(tails) {
                    *word = (<$word>::from_le_bytes(*word) | tail.rotate_right(1)).to_le_bytes();
                }
            }

            /// Packs the tails of words; `tails` is zero before.
            #[inline(always)]
            pub(super) fn pack<const BITS: usize>(words: &[u8], tails: &mut [u8]) {
                let (groups, rest) = words.as_chunks::<{ GROUP * SIZE }>();
                let mut tails = tails.chunks_exact_mut(8 * BITS);
                for (words, tails) in groups.iter().zip(&mut tails) {
                    pack_group::<BITS>(words, tails);
                }
                if let Some(tails) = tails.next() {
                    let mut words = [0; GROUP * SIZE];
                    words[..rest.len()].copy_from_slice(rest);
                    pack_group::<BITS>(&words, tails);
                }
            }

            #[inline(always)]
            fn unpack<const BITS: usize>(tails: &[u8]) -> [$word; GROUP] {
                let mut out = [0; GROUP];
                each_field!(BITS, FIELD, before => {
                    unpack_field::<FIELD>(&tails[8 * before..][..8 * FIELD], before, &mut out);
                });
                out
            }

            #[inline(always)]
            fn unpack_field<const FIELD: usize>(bytes: &[u8], up: usize, out: &mut [$word; GROUP]) {
                if FIELD >= 8 {
                    for (tail, bytes) in out.iter_mut().zip(bytes.chunks_exact(FIELD / 8)) {
                        let mut word = [0; SIZE];
                        word[..FIELD / 8].copy_from_slice(bytes);
                        *tail |= <$word>::from_le_bytes(word) << up;
                    }
                    return;
                }
                for (number, out) in out.chunks_exact_mut(8 * FIELD).enumerate() {
                    for (tail, &byte) in out.iter_mut().zip(bytes) {
                        let value = (byte >> (number * FIELD)) & ((1 << FIELD) - 1);
                        *tail |= <$word>::from(value) << up;
                    }
                }
            }

            #[inline(always)]
            fn pack_group<const BITS: usize>(words: &[u8; GROUP * SIZE], tails: &mut [u8]) {
                let mut codes = [0; GROUP];
                for (code, word) in codes.iter_mut().zip(words.as_chunks::<SIZE>().0) {
                    *code = <$word>::from_le_bytes(*word).rotate_left(1);
                }
                each_field!(BITS, FIELD, before => {
                    pack_field::<FIELD>(&codes, before, &mut tails[8 * before..][..8 * FIELD]);
                });
            }

            #[inline(always)]
            fn pack_field<const FIELD: usize>(codes: &[$word; GROUP], up: usize, bytes: &mut [u8]) {
                if FIELD >= 8 {
                    for (code, bytes) in codes.iter().zip(bytes.chunks_exact_mut(FIELD / 8)) {
                        bytes.copy_from_slice(&(code >> up).to_le_bytes()[..FIELD / 8]);
                    }
                    return;
                }
                for (number, codes) in codes.chunks_exact(8 * FIELD).enumerate() {
                    for (code, byte) in codes.iter().zip(&mut *bytes) {
                        let value = (code >> up) as u8 & ((1 << FIELD) - 1);
                        *byte |= value << (number * FIELD);
                    }
                }
            }
        }
    };
}

width!(w16, u16);
width!(w32, u32);
width!(w64, u64);

/// Adds to each of `words`, whose tails are zero, its tail of so many bits.
#[inline(always)]
pub(super) fn add(bits: u32, tails: &[u8], words: &mut [u8]) {
    match bits {
        6 => w16::add::<6>(tails, words),
        9 => w16::add::<9>(tails, words),
        21 => w32::add::<21>(tails, words),
        51 => w64::add::<51>(tails, words),
        _ => {}
    }
}

/// Packs the tails of `words`, of so many bits, to `tails`, which is zero before.
#[inline(always)]
pub(super) fn pack(bits: u32, words: &[u8], tails: &mut [u8]) {
    match bits {
        6 => w16::pack::<6>(words, tails),
        9 => w16::pack::<9>(words, tails),
        21 => w32::pack::<21>(words, tails),
        51 => w64::pack::<51>(words, tails),
        _ => {}
    }
}
