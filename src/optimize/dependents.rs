//! Which objects each object is the base of.

use std::collections::{BTreeSet, HashMap};

use crate::hash::Hash;
use crate::store::index::{Index, Record};

/// Objects by their base, kept up to date while bases change.
#[derive(Debug, Default)]
pub struct Dependents(HashMap<Hash, BTreeSet<Hash>>);

impl Dependents {
    /// Those of a whole index.
    pub fn of_index(index: &Index) -> Self {
        let mut dependents = Self::default();
        index.values().for_each(|record| dependents.add(record));
        dependents
    }

    /// Adds an object as it is stored now.
    pub fn add(&mut self, record: &Record) {
        if record.depth > 0 {
            let objects = self.0.entry(record.base).or_default();
            objects.insert(record.name);
        }
    }

    /// Takes an object out as it was stored before.
    pub fn remove(&mut self, record: &Record) {
        if let Some(objects) = self.0.get_mut(&record.base) {
            objects.remove(&record.name);
        }
    }

    /// The objects that `base` is the base of, by name.
    pub fn of(&self, base: &Hash) -> impl Iterator<Item = &Hash> {
        self.0.get(base).into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;

    fn record(name: u8, base: Option<u8>) -> Record {
        Record {
            name: Hash::of(&[name]),
            base: Hash::of(&[base.unwrap_or(0)]),
            raw_len: 1,
            stored_len: 1,
            codec: 4,
            dtype: DType::Bf16,
            depth: u8::from(base.is_some()),
        }
    }

    #[test]
    fn objects_move_from_base_to_base() {
        let records = [record(1, None), record(2, Some(1)), record(3, Some(1))];
        let index = records.iter().map(|record| (record.name, record.clone()));
        let mut dependents = Dependents::of_index(&index.collect());
        let of = |dependents: &Dependents, base: u8| dependents.of(&Hash::of(&[base])).count();
        assert_eq!((of(&dependents, 0), of(&dependents, 1)), (0, 2));
        dependents.remove(&record(2, Some(1)));
        dependents.add(&record(2, Some(3)));
        dependents.remove(&record(3, Some(1)));
        dependents.add(&record(3, None));
        assert_eq!((of(&dependents, 1), of(&dependents, 3)), (0, 1));
    }
}
