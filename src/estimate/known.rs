//! What is there: the store, and what the models that were estimated before would add to it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use rayon::prelude::*;

use crate::checkpoint::Span;
use crate::dtype::DType;
use crate::error::Result;
use crate::hash::Hash;
use crate::name::ModelId;
use crate::pairing::{BaseTensors, Catalog, Owners, owners};
use crate::sketch::{self, Sketch};
use crate::source::{OpenFile, SourceFile};
use crate::store::Store;
use crate::store::index::Index;
use crate::store::manifest::Manifest;

/// Objects by name. One that is not stored and was not read whole has the name of where it lies.
#[derive(Default)]
pub struct Known {
    /// The store; `None` where there is none yet.
    pub store: Option<Store>,
    /// The sketches.
    pub catalog: Catalog,
    /// The models that hold an object.
    pub owners: Owners,
    index: Index,
    /// What each model would become.
    manifests: BTreeMap<ModelId, Manifest>,
    /// Objects that would be added.
    added: HashSet<Hash>,
    /// Tensors by fingerprint.
    alike: HashMap<u64, Vec<Hash>>,
    /// Types and lengths of stored tensors that have no sketch.
    unsketched: HashSet<(u8, u64)>,
    /// Tensors that were not read whole.
    unread: HashMap<Hash, Unread>,
}

/// A tensor that was sampled only.
#[derive(Clone)]
struct Unread {
    file: SourceFile,
    span: Span,
    hash: Option<Hash>,
}

/// Hashes a span of a file.
///
/// # Errors
/// Those of reading.
pub fn hash(file: &OpenFile, span: &Span) -> Result<Hash> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut offset = 0;
    while offset < span.length {
        let length = (span.length - offset).min(1 << 20);
        buffer.truncate(usize::try_from(length).unwrap_or(0));
        file.read_exact_at(span.start + offset, &mut buffer)?;
        hasher.update(&buffer);
        offset += length;
    }
    Ok(Hash::from_bytes(*hasher.finalize().as_bytes()))
}

impl Known {
    /// Reads what `store` holds.
    ///
    /// # Errors
    /// Fails where the store cannot be read; damaged sketches count as missing.
    pub fn load(store: Option<Store>) -> Result<Self> {
        let Some(store) = store else {
            return Ok(Self::default());
        };
        let index = store.index()?;
        let catalog = Catalog::load(&store, &index)?;
        let mut alike: HashMap<u64, Vec<Hash>> = HashMap::new();
        for entry in catalog.entries() {
            let names = alike.entry(entry.sketch.fingerprint()).or_default();
            names.push(entry.sketch.name);
        }
        let lacking = index.values().filter(|record| {
            let applies = sketch::applies(record.dtype, record.raw_len);
            applies && catalog.get(&record.name).is_none()
        });
        let unsketched = lacking.map(|record| (record.dtype.code(), record.raw_len));
        Ok(Self {
            unsketched: unsketched.collect(),
            owners: Owners::load(&store)?,
            store: Some(store),
            catalog,
            index,
            alike,
            ..Self::default()
        })
    }

    /// Tells whether a tensor has to be read whole, for one like it may be stored without a sketch.
    pub fn is_obscure(&self, dtype: DType, raw_len: u64) -> bool {
        self.unsketched.contains(&(dtype.code(), raw_len))
    }

    /// Tells whether an object of this name is stored, or would be.
    pub fn holds(&self, name: &Hash) -> bool {
        self.added.contains(name) || self.index.contains_key(name)
    }

    /// Returns the tensors that look the same in all that was sampled.
    pub fn alike(&self, sketch: &Sketch) -> &[Hash] {
        self.alike
            .get(&sketch.fingerprint())
            .map_or(&[], Vec::as_slice)
    }

    /// Reads tensors whole that were only sampled, in the current thread pool, to compare others with them.
    pub fn read_whole(&mut self, names: &[Hash]) -> Result<()> {
        let hashed = names.par_iter().filter_map(|name| {
            let unread = self.unread.get(name)?;
            let hashed = || hash(&unread.file.open()?, &unread.span);
            unread.hash.is_none().then(|| Ok((*name, hashed()?)))
        });
        let hashed: Vec<_> = hashed.collect::<Result<_>>()?;
        for (name, hash) in hashed {
            if let Some(unread) = self.unread.get_mut(&name) {
                unread.hash = Some(hash);
            }
        }
        Ok(())
    }

    /// Returns the name by which a tensor that is `name` by its content is known.
    pub fn known_as(&self, name: &Hash, sketch: Option<&Sketch>) -> Option<Hash> {
        let by_content = self.holds(name).then_some(*name);
        let alike = || sketch.map_or(&[][..], |sketch| self.alike(sketch)).iter();
        let unread = |other: &&Hash| {
            let unread = self.unread.get(*other);
            unread.is_some_and(|unread| unread.hash.as_ref() == Some(name))
        };
        by_content.or_else(|| alike().find(unread).copied())
    }

    /// Returns the base of an object that is stored, or would be.
    pub fn base_of(&self, name: &Hash) -> Option<Hash> {
        let stored = self.index.get(name).filter(|record| record.depth > 0);
        let entry = || self.catalog.get(name).and_then(|entry| entry.base);
        stored.map(|record| record.base).or_else(entry)
    }

    /// Adds an object that would be stored.
    pub fn add(&mut self, name: Hash, sketch: Option<&Sketch>) {
        self.added.insert(name);
        if let Some(sketch) = sketch {
            let names = self.alike.entry(sketch.fingerprint()).or_default();
            names.push(name);
        }
    }

    /// Notes where a tensor lies that was not read whole.
    pub fn add_unread(&mut self, name: Hash, file: &SourceFile, span: &Span) {
        let unread = Unread {
            file: file.clone(),
            span: span.clone(),
            hash: None,
        };
        self.unread.insert(name, unread);
    }

    /// Enters a model that would be stored, and its new tensors, each with its depth and its base.
    pub fn conclude(&mut self, manifest: Manifest, new: Vec<(Sketch, Option<Hash>)>) {
        for (sketch, base) in new {
            let depth = base.and_then(|base| self.catalog.get(&base));
            let depth = depth.map_or(0, |base| base.depth + 1);
            self.catalog.insert(sketch, depth, base);
        }
        self.owners.add(&manifest);
        self.manifests.insert(manifest.model.clone(), manifest);
    }

    /// The tensors of a model by name, if it is stored, or would be.
    pub fn tensors(&self, model: &ModelId) -> Option<BaseTensors> {
        match self.manifests.get(model) {
            Some(manifest) => Some(BaseTensors::of(manifest)),
            None => owners::tensors(self.store.as_ref()?, model),
        }
    }
}

/// A file that is open, and what it was opened by.
#[derive(Clone)]
pub struct Source<'a> {
    /// As it was found.
    pub found: &'a SourceFile,
    /// The open file.
    pub open: Arc<OpenFile>,
}
