//! `Buckets`: from keys to the tensors that have them, in a few bytes a key.

use crate::sketch::mix;

/// No entry.
const NONE: u32 = u32::MAX;

/// Chains of entries by hash; entries of other keys may be among those of a key.
#[derive(Debug)]
pub struct Buckets {
    /// First entry of each chain; as many as a power of two.
    heads: Vec<u32>,
    /// Key, owner and next entry.
    entries: Vec<(u32, u32, u32)>,
}

impl Default for Buckets {
    fn default() -> Self {
        Self {
            heads: vec![NONE; 1 << 10],
            entries: Vec::new(),
        }
    }
}

impl Buckets {
    /// Adds an owner of a key.
    pub fn insert(&mut self, key: u64, owner: u32) {
        if self.entries.len() >= self.heads.len() {
            self.grow();
        }
        let place = self.place(fold(key));
        let entry = u32::try_from(self.entries.len()).unwrap_or(NONE);
        if let Some(head) = self.heads.get_mut(place) {
            self.entries.push((fold(key), owner, *head));
            *head = entry;
        }
    }

    /// Returns the owners of a key, the latest first.
    pub fn owners(&self, key: u64) -> impl Iterator<Item = u32> {
        let key = fold(key);
        let mut next = self.heads.get(self.place(key)).copied().unwrap_or(NONE);
        let chain = std::iter::from_fn(move || {
            let entry = self.entries.get(usize::try_from(next).ok()?)?;
            next = entry.2;
            Some(entry)
        });
        chain
            .filter(move |entry| entry.0 == key)
            .map(|entry| entry.1)
    }

    fn place(&self, key: u32) -> usize {
        usize::try_from(key).unwrap_or(0) & (self.heads.len() - 1)
    }

    fn grow(&mut self) {
        self.heads = vec![NONE; self.heads.len() * 2];
        for at in 0..self.entries.len() {
            let key = self.entries.get(at).map_or(0, |entry| entry.0);
            let place = self.place(key);
            let (head, entry) = (self.heads.get_mut(place), self.entries.get_mut(at));
            if let (Some(head), Some(entry)) = (head, entry) {
                entry.2 = std::mem::replace(head, u32::try_from(at).unwrap_or(NONE));
            }
        }
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
        let mut buckets = Buckets::default();
        for owner in 0..10_000u32 {
            buckets.insert(u64::from(owner / 2), owner);
        }
        for key in 0..5000u32 {
            let owners: Vec<_> = buckets.owners(key.into()).collect();
            assert_eq!(owners, [2 * key + 1, 2 * key]);
        }
        assert_eq!(buckets.owners(5000).next(), None);
    }
}
