//! `Buckets`: from keys to the tensors that have them, in a few bytes a key.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::sketch::mix;

/// Owners that are looked up in a hash table, until they are sorted in among the others.
const MOST_RECENT: usize = 1 << 16;

/// Owners by key: sorted, so that those of a key stand together and a look-up waits for memory once; the latest in a
/// table of their own.
#[derive(Debug, Default)]
pub struct Buckets {
    /// Keys and owners, by key, then the latest first.
    sorted: Vec<(u32, u32)>,
    /// Where the keys begin that have the same upper bits; one more than there are such bits.
    starts: Vec<u32>,
    /// The upper bits lie above so many others.
    shift: u32,
    recent: HashMap<u32, Vec<u32>>,
    recent_count: usize,
}

impl Buckets {
    /// Adds an owner of a key; owners come in ascending order.
    pub fn insert(&mut self, key: u64, owner: u32) {
        self.recent.entry(fold(key)).or_default().push(owner);
        self.recent_count += 1;
        if self.recent_count >= MOST_RECENT {
            self.settle();
        }
    }

    /// Sorts the latest owners in among the others.
    pub fn settle(&mut self) {
        let recent = std::mem::take(&mut self.recent).into_iter();
        self.recent_count = 0;
        let pairs = recent.flat_map(|(key, owners)| owners.into_iter().map(move |one| (key, one)));
        self.sorted.extend(pairs);
        // Stable, for that is quick where most is in order.
        self.sorted
            .sort_by_key(|(key, owner)| (*key, Reverse(*owner)));
        let bits = (self.sorted.len() / 2).max(1).ilog2();
        self.shift = 32 - bits;
        self.starts.clear();
        for (at, (key, _)) in (0..).zip(&self.sorted) {
            let place = self.place(*key);
            self.starts.resize(self.starts.len().max(place + 1), at);
        }
        let end = u32::try_from(self.sorted.len()).unwrap_or(u32::MAX);
        self.starts.resize((1 << bits) + 1, end);
    }

    /// Returns the owners of a key, the latest first.
    pub fn owners(&self, key: u64) -> impl Iterator<Item = u32> {
        let key = fold(key);
        let recent = self.recent.get(&key).into_iter().flatten().rev().copied();
        let place = self.place(key);
        let bound = |at: usize| {
            let start = self.starts.get(at).copied().unwrap_or(0);
            usize::try_from(start).unwrap_or(usize::MAX)
        };
        let pairs = self.sorted.get(bound(place)..bound(place + 1));
        let pairs = pairs.unwrap_or_default().iter();
        let mine = pairs
            .skip_while(move |pair| pair.0 < key)
            .take_while(move |pair| pair.0 == key);
        recent.chain(mine.map(|pair| pair.1))
    }

    /// The upper bits of a key.
    fn place(&self, key: u32) -> usize {
        usize::try_from(key.checked_shr(self.shift).unwrap_or(0)).unwrap_or(0)
    }
}

/// The 32 bits of a key that are kept.
fn fold(key: u64) -> u32 {
    u32::try_from(mix(key) >> 32).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_found_latest_first_however_many_keys_there_are() {
        for (count, settled) in [(0, 0), (1, 1), (3, 0), (10_000, 7000), (200_000, 200_000)] {
            let mut buckets = Buckets::default();
            for owner in 0..count {
                buckets.insert(u64::from(owner / 2), owner);
                if owner + 1 == settled {
                    buckets.settle();
                }
            }
            for key in 0..count.div_ceil(2) {
                let owners: Vec<_> = buckets.owners(key.into()).collect();
                let wanted: Vec<_> = [2 * key + 1, 2 * key]
                    .into_iter()
                    .filter(|one| *one < count)
                    .collect();
                assert_eq!(owners, wanted, "{key} of {count}");
            }
            assert_eq!(buckets.owners(u64::from(count)).next(), None);
        }
    }

    #[test]
    fn many_owners_of_a_key_are_in_order_when_they_are_sorted_in_later() {
        let mut buckets = Buckets::default();
        for owner in 0..100_000 {
            buckets.insert(u64::from(owner % 3), owner);
        }
        for key in 0..3 {
            let owners: Vec<_> = buckets.owners(key).collect();
            assert!(owners.is_sorted_by(|one, next| one > next));
            assert!((33_333..=33_334).contains(&owners.len()));
        }
    }
}
