//! The reference kernels, in safe Rust that the compiler vectorises itself.
//!
//! See [`super::Isa`] for what they do; an empty `base` is none.

/// Writes the kernels for one element type and its size in bytes.
macro_rules! kernels {
    ($split:ident, $merge:ident, $word:ty, $size:literal) => {
        pub(super) fn $split(rotate: bool, base: &[u8], raw: &[u8], planes: [&mut [u8]; $size]) {
            let turn = u32::from(rotate);
            let raw = raw.as_chunks::<$size>().0;
            let base = base.as_chunks::<$size>().0;
            for (k, plane) in planes.into_iter().enumerate() {
                // Only the low byte of the shifted element is meant.
                #[allow(clippy::cast_possible_truncation)]
                let byte = |x: $word| (x.rotate_left(turn) >> (8 * k)) as u8;
                if base.is_empty() {
                    for (to, x) in plane.iter_mut().zip(raw) {
                        *to = byte(<$word>::from_le_bytes(*x));
                    }
                } else {
                    for ((to, x), b) in plane.iter_mut().zip(raw).zip(base) {
                        *to = byte(<$word>::from_le_bytes(*x) ^ <$word>::from_le_bytes(*b));
                    }
                }
            }
        }

        pub(super) fn $merge(rotate: bool, base: &[u8], planes: [&[u8]; $size], out: &mut [u8]) {
            let turn = u32::from(rotate);
            let mut planes = planes.map(|plane| plane.iter());
            let mut base = base.as_chunks::<$size>().0.iter();
            for to in out.as_chunks_mut::<$size>().0 {
                let x = planes
                    .each_mut()
                    .map(|plane| plane.next().copied().unwrap_or_default());
                let b = base.next().map_or(0, |b| <$word>::from_le_bytes(*b));
                *to = (<$word>::from_le_bytes(x).rotate_right(turn) ^ b).to_le_bytes();
            }
        }
    };
}

kernels!(split1, merge1, u8, 1);
kernels!(split2, merge2, u16, 2);
kernels!(split4, merge4, u32, 4);
kernels!(split8, merge8, u64, 8);
