//! Where an object's bytes may still be: in the files that it was made from.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;

use crate::checkpoint::segment;
use crate::dtype::DType;
use crate::error::Result;
use crate::hash::Hash;
use crate::object_writer::{Digest, digest_chunk};
use crate::source::{Listing, OpenFile, SourceFile, locate};
use crate::store::Store;
use crate::store::manifest::FileEntry;

/// A run of bytes of a file that may be an object's.
#[derive(Clone)]
pub struct RawBytes {
    source: SourceFile,
    start: u64,
    /// Bytes.
    pub length: u64,
    /// How to code them.
    pub dtype: DType,
    /// Elements in a row; 0 where there are no rows.
    pub row_len: u64,
}

/// By object, where its bytes may be.
#[derive(Default)]
pub struct Places(HashMap<Hash, Vec<RawBytes>>);

impl Places {
    /// Finds the files that the manifests of `store` name as having the objects, as far as they are in `model_dir`.
    ///
    /// What cannot be listed or split is no place; only the store has to be readable.
    pub fn of(store: &Store, model_dir: &Path, objects: BTreeSet<Hash>) -> Result<Self> {
        let mut places = Self::default();
        for model in store.models()? {
            let Ok(Some(directory)) = locate(model_dir, &model.id) else {
                continue;
            };
            let Ok(listing) = directory.scan() else {
                continue;
            };
            for version in &model.versions {
                // A damaged manifest names nothing.
                let manifest = store.manifest(&model.id, *version).ok().flatten();
                let files = manifest.into_iter().flat_map(|manifest| manifest.files);
                files.for_each(|file| places.add(&listing, &file, &objects));
            }
        }
        Ok(places)
    }

    fn add(&mut self, listing: &Listing, file: &FileEntry, objects: &BTreeSet<Hash>) {
        let has_any = file
            .segments
            .iter()
            .any(|one| objects.contains(&one.object));
        let same = |source: &&SourceFile| source.path == file.path && source.size == file.size;
        let Some(source) = listing.files.iter().filter(|_| has_any).find(same) else {
            return;
        };
        let layout = source
            .open()
            .and_then(|open| segment(source.path.as_str(), &open));
        let Ok(layout) = layout else { return };
        let mut start = 0;
        for one in &file.segments {
            let span = layout
                .spans
                .iter()
                .find(|span| span.start == start && span.length == one.length);
            if let (true, Some(span)) = (objects.contains(&one.object), span) {
                self.0.entry(one.object).or_default().push(RawBytes {
                    source: source.clone(),
                    start,
                    length: one.length,
                    dtype: span.dtype,
                    row_len: span.row_len,
                });
            }
            start += one.length;
        }
    }

    /// Takes the places of an object.
    pub fn take(&mut self, object: &Hash) -> Vec<RawBytes> {
        self.0.remove(object).unwrap_or_default()
    }
}

impl RawBytes {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.source.absolute
    }

    /// Fills `out` with bytes from `offset` on.
    pub fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        self.source.open()?.read_exact_at(self.start + offset, out)
    }

    /// Hashes all bytes, in the current thread pool; `None` where there are none.
    pub fn digest(&self) -> Result<Option<Digest>> {
        let file: Arc<OpenFile> = Arc::new(self.source.open()?);
        let size = self.dtype.chunk_bytes() as u64;
        let chunks = (0..self.length.div_ceil(size))
            .into_par_iter()
            .map(|index| {
                let offset = index * size;
                let length = (self.length - offset).min(size);
                let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
                file.read_exact_at(self.start + offset, &mut bytes)?;
                Ok(digest_chunk(self.length, self.dtype, offset, &bytes))
            });
        Ok(Digest::join(chunks.collect::<Result<Vec<_>>>()?))
    }
}
