//! Reading the index of all objects, or making it anew from their heads.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rayon::prelude::*;

use super::Store;
use super::fs::ReadFile;
use super::index::{self, Index, Record};
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;

/// Bytes of the index that are read at a time: whole records.
const INDEX_PART_BYTES: u64 = 4096 * index::RECORD_LEN as u64;

/// Parts of the index that are worked on together.
const PARTS_AT_ONCE: usize = 32;

impl Store {
    /// Reads the index, or makes it from the objects' heads where it is damaged or may lack some.
    pub fn index(&self) -> Result<Index> {
        match self.stored_index()? {
            Some(index) => Ok(index),
            None => self.scan_heads(),
        }
    }

    /// Reads the index as it is stored; `None` where it is damaged or may lack some.
    pub fn stored_index(&self) -> Result<Option<Index>> {
        if self.exists(&self.layout.dirty())? {
            return Ok(None);
        }
        self.index_as_it_is()
    }

    /// Reads the index as it is stored, by name, in the current thread pool; `None` where it is damaged or missing.
    pub fn stored_records(&self) -> Result<Option<Vec<Record>>> {
        let Some(mut records) = self.map_parts(&Record::clone)? else {
            return Ok(None);
        };
        // Of several records of an object the last one counts: it comes first once all is turned round.
        records.par_sort_by_key(|record| record.name);
        records.reverse();
        records.dedup_by_key(|record| record.name);
        records.reverse();
        Ok(Some(records))
    }

    /// Reads the index even if it may lack some; `None` where it is missing or damaged.
    pub(super) fn index_as_it_is(&self) -> Result<Option<Index>> {
        // A part at a time, so that a damaged length costs no memory.
        let mut index = Index::new();
        let Some(parts) = self.index_parts()? else {
            return Ok(None);
        };
        for part in parts {
            let Some(records) = part.read()? else {
                return Ok(None);
            };
            index.extend(records.into_iter().map(|record| (record.name, record)));
        }
        Ok(Some(index))
    }

    /// The parts of the stored index, in order; `None` without one.
    fn index_parts(&self) -> Result<Option<Vec<IndexPart>>> {
        let path = self.layout.object_log();
        let file = match self.disk.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(Error::io("open", &path))?,
        };
        let len = file.len().map_err(Error::io("read", &path))?;
        let file: Arc<dyn ReadFile> = Arc::from(file);
        let starts = (0..len).step_by(usize::try_from(INDEX_PART_BYTES).unwrap_or(1));
        let parts = starts.map(|start| IndexPart {
            file: file.clone(),
            path: path.clone(),
            start,
            len: (len - start).min(INDEX_PART_BYTES),
        });
        Ok(Some(parts.collect()))
    }

    /// Makes a row of every record of the index, in the current thread pool, without holding the records: in
    /// the order in which objects were written, so that of several rows of an object the last one counts.
    pub fn map_index<T: Send>(&self, row: impl Fn(&Record) -> T + Sync) -> Result<Vec<T>> {
        if !self.exists(&self.layout.dirty())?
            && let Some(rows) = self.map_parts(&row)?
        {
            return Ok(rows);
        }
        Ok(self.scan_heads()?.values().map(row).collect())
    }

    fn map_parts<T: Send>(&self, row: &(impl Fn(&Record) -> T + Sync)) -> Result<Option<Vec<T>>> {
        let parts = self.index_parts()?;
        let bytes = parts.iter().flatten().map(|part| part.len).sum::<u64>();
        let count = usize::try_from(bytes / index::RECORD_LEN as u64).unwrap_or(0);
        let mut rows = Vec::with_capacity(count);
        let map = |part: &IndexPart| {
            let records = part.read();
            records.map(|records| records.map(|r| r.iter().map(row).collect::<Vec<_>>()))
        };
        for some in parts.as_deref().unwrap_or_default().chunks(PARTS_AT_ONCE) {
            let mapped = some
                .par_iter()
                .map(map)
                .collect::<Result<Option<Vec<_>>>>()?;
            let Some(mapped) = mapped else {
                return Ok(None);
            };
            rows.extend(mapped.into_iter().flatten());
        }
        Ok(parts.map(|_| rows))
    }

    /// Makes the index anew. Damaged objects are left out, `check` is what reports them; one that cannot
    /// be read just now is an error, for an index without it would be taken for whole.
    pub(super) fn scan_heads(&self) -> Result<Index> {
        let names = self.objects()?.0;
        let head = |name: &Hash| match self.object(name) {
            Ok(object) => Ok(Some((*name, Record::of(name, &object.frame)))),
            Err(error) if error.kind() == ErrorKind::Io => Err(error),
            Err(_) => Ok(None),
        };
        let found = names.par_iter().map(head).collect::<Result<Vec<_>>>()?;
        Ok(found.into_iter().flatten().collect())
    }
}

/// Some records of the stored index.
struct IndexPart {
    file: Arc<dyn ReadFile>,
    path: PathBuf,
    start: u64,
    len: u64,
}

impl IndexPart {
    /// Reads the records; `None` if any of them is damaged.
    fn read(&self) -> Result<Option<Vec<Record>>> {
        let mut bytes = vec![0; usize::try_from(self.len).unwrap_or(0)];
        self.file
            .read_exact_at(&mut bytes, self.start)
            .map_err(Error::io("read", &self.path))?;
        Ok(index::parse(&bytes))
    }
}
