//! Taking things out of a store: versions of models, and objects that nothing needs.

use std::collections::{BTreeSet, HashSet};
use std::io;

use super::{StoreWriter, replace};
use crate::error::Result;
use crate::hash::Hash;
use crate::name::ModelId;
use crate::store::index::Record;
use crate::store::lock::ReadLock;

impl StoreWriter {
    /// Removes a version of a model; its objects stay until they are collected.
    pub fn remove_version(&mut self, id: &ModelId, version: u32) -> Result<()> {
        let path = self.store.layout.manifest(id, version);
        let removed = self.store.disk.remove(&path);
        self.guard(removed, "remove", &path)?;
        self.sync_dir(&self.store.layout.model(id))
    }

    /// Removes what the index knows of a model, and its directory if that is empty.
    pub fn forget(&mut self, id: &ModelId) -> Result<()> {
        let path = self.store.layout.scan(id);
        let removed = match self.store.disk.remove(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        self.guard(removed, "remove", &path)?;
        if self.store.versions(id)?.is_empty() {
            // A directory that stays is no model.
            let _ = self.store.disk.remove_dir(&self.store.layout.model(id));
        }
        Ok(())
    }

    /// Prepares for deleting: says in the store that the index may be wrong, and makes sure that nobody reads
    /// who may have read a manifest that is gone. Whoever comes later finds the manifests of now.
    pub fn drain_readers(&mut self, wait: bool) -> Result<()> {
        let layout = self.store.layout.clone();
        let alone = ReadLock::alone(&layout.readers(), layout.root(), wait)?;
        self.mark_dirty()?;
        drop(alone);
        Ok(())
    }

    /// Deletes objects, and takes them out of the index. [`Self::drain_readers`] has to come before.
    ///
    /// A kill on the way leaves some of them, and an index that the next writer makes anew.
    pub fn delete_objects(&mut self, names: &[Hash]) -> Result<()> {
        self.barrier()?;
        let mut shards = BTreeSet::new();
        for name in names {
            let path = self.store.layout.object(name);
            let removed = self.store.disk.remove(&path);
            self.guard(removed, "remove", &path)?;
            shards.insert(self.store.layout.shard(name));
        }
        self.sync_shards(shards)?;
        self.drop_from_index(names)
    }

    fn drop_from_index(&mut self, names: &[Hash]) -> Result<()> {
        let gone: HashSet<_> = names.iter().collect();
        let index = match self.store.index_as_it_is()? {
            Some(index) => index,
            None => self.store.scan_heads()?,
        };
        let kept = index.values().filter(|record| !gone.contains(&record.name));
        let bytes: Vec<u8> = kept.flat_map(Record::to_bytes).collect();
        let (temp, path) = (self.next_temp(), self.store.layout.object_log());
        let written = replace(&*self.store.disk, &temp, &path, &bytes);
        self.poisoned |= written.is_err();
        written
    }
}
