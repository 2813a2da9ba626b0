//! Long writes in pieces.
//!
//! For a write of megabytes the kernel's cache takes pages of megabytes, and finding one can take longer than filling
//! it; and a page that a write fills in part is looked at twice. Pieces that begin and end at multiples of 256 KiB of the
//! file do without both. `docs/design.md` has the figures.

/// Where pieces begin and end, in bytes of the file.
const PIECE: u64 = 256 << 10;

/// Splits bytes that go to `offset` of a file at the file's multiples of 256 KiB; with each piece comes its offset.
pub fn pieces(offset: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let (mut at, mut rest) = (offset, bytes);
    std::iter::from_fn(move || {
        let (piece, later) = rest.split_at(first(at, rest));
        let start = at;
        at = at.saturating_add(piece.len() as u64);
        rest = later;
        (!piece.is_empty()).then_some((start, piece))
    })
}

/// The length of the first piece of bytes that go to `offset` of a file.
pub fn first(offset: u64, bytes: &[u8]) -> usize {
    let length = usize::try_from(PIECE - offset % PIECE).unwrap_or(usize::MAX);
    length.min(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_all_of_the_bytes_and_end_at_multiples() {
        let size = usize::try_from(PIECE).unwrap();
        let bytes: Vec<u8> = (0..=250).cycle().take(3 * size + 7).collect();
        for offset in [0, 1, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE - 3] {
            for length in [0, 1, 2, 3, size - 1, size, bytes.len()] {
                let wanted = bytes.get(..length).unwrap();
                let mut joined = Vec::new();
                for (at, piece) in pieces(offset, wanted) {
                    assert!(joined.is_empty() || at.is_multiple_of(PIECE));
                    assert_eq!(at, offset + joined.len() as u64);
                    assert!((1..=size).contains(&piece.len()));
                    joined.extend_from_slice(piece);
                }
                assert_eq!(joined, wanted, "{offset} {length}");
                let least = length.div_ceil(size);
                let count = pieces(offset, wanted).count();
                assert!((least..=least + 1).contains(&count));
            }
        }
    }
}
