//! `Joined`: some runs of a tensor's rows as a matrix of their own, where its base covers no others.

use std::ops::Range;

use super::Tensor;

/// The rows of `runs`, one run after another.
pub struct Joined<'a, T> {
    /// The whole tensor.
    pub tensor: &'a T,
    /// Rows of it, in order.
    pub runs: &'a [Range<u64>],
    /// Bytes in a row.
    pub row_bytes: u64,
    /// Bytes of an element.
    pub size: usize,
}

impl<T: Tensor> Tensor for Joined<'_, T> {
    type Error = T::Error;
    fn read(
        &self,
        first_element: u64,
        mut target: &mut [u8],
        mut base: &mut [u8],
    ) -> Result<(), T::Error> {
        let size = self.size.max(1) as u64;
        // Bytes of the joined rows that lie before what is left to read.
        let mut skip = first_element * size;
        for run in self.runs {
            let length = (run.end - run.start) * self.row_bytes;
            if skip >= length {
                skip -= length;
                continue;
            }
            let here = usize::try_from(length - skip).unwrap_or(usize::MAX);
            let (part, rest) = target.split_at_mut(here.min(target.len()));
            let (of_base, rest_of_base) = base.split_at_mut(here.min(base.len()));
            let first = (run.start * self.row_bytes + skip) / size;
            self.tensor.read(first, part, of_base)?;
            (target, base, skip) = (rest, rest_of_base, 0);
            if target.is_empty() {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its bytes are their places, the base's one more.
    struct Places;

    impl Tensor for Places {
        type Error = ();
        fn read(&self, first: u64, target: &mut [u8], base: &mut [u8]) -> Result<(), ()> {
            for (at, (target, base)) in target.iter_mut().zip(base).enumerate() {
                *target = (2 * first) as u8 + at as u8;
                *base = *target + 1;
            }
            Ok(())
        }
    }

    #[test]
    fn rows_of_all_runs_are_read_as_if_they_stood_together() {
        let joined = Joined {
            tensor: &Places,
            runs: &[1..3, 5..6, 8..10],
            row_bytes: 4,
            size: 2,
        };
        let whole: Vec<u8> = [4..12, 20..24, 32..40].into_iter().flatten().collect();
        for first in 0..10 {
            for end in first..=10 {
                let wanted = &whole[2 * first..2 * end];
                let (mut target, mut base) = (vec![0; wanted.len()], vec![0; wanted.len()]);
                joined.read(first as u64, &mut target, &mut base).unwrap();
                assert_eq!(target, wanted);
                assert!(
                    target
                        .iter()
                        .zip(&base)
                        .all(|(one, other)| one + 1 == *other)
                );
            }
        }
    }
}
