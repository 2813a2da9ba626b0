//! A survey: every model with its figures, every object with its users, in memory that a store of millions of
//! objects allows.
//!
//! Objects are told apart by the first 8 bytes of their names: 24 to 32 bytes an object instead of 100. Among ten
//! million objects two share them with a chance of 3 in a million; then a figure is off by one object. So nothing
//! is ever deleted by a survey.

pub mod twins;

use rayon::prelude::*;
use serde::Serialize;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::hash::Hash;
use crate::name::ModelId;
use crate::store::outline::Outline;
use crate::store::{Store, StoredModel};
use crate::threads;
use twins::hints;

/// One model's figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelRow {
    /// The model.
    pub model: ModelId,
    /// Its newest version.
    pub version: u32,
    /// How many versions there are.
    pub versions: usize,
    /// Files of the newest version.
    pub files: usize,
    /// Tensors of the newest version.
    pub tensors: usize,
    /// The same for models with the same tensors; for others as good as never.
    #[serde(skip)]
    pub tensors_key: u64,
    /// Bytes of the newest version's files.
    pub bytes: u64,
    /// Bytes of all versions' files.
    pub bytes_of_all_versions: u64,
    /// Bytes of the object files that any of its versions needs, those of bases aside.
    pub stored_bytes: u64,
    /// Bytes of those that no other model has; what others need as bases counts too.
    pub unshared_bytes: u64,
    /// The model whose tensors were its bases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<ModelId>,
    /// The models that hold its bases and that it was said to be made from.
    #[serde(skip)]
    pub hints: Vec<ModelId>,
    /// The revision of the model on its hub, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

/// One object, as the index has it.
#[derive(Clone, Copy, Debug)]
pub struct ObjectRow {
    /// The first 8 bytes of its name.
    pub key: u64,
    /// Bytes of the object.
    pub raw_len: u64,
    /// Bytes of its file.
    pub stored_len: u64,
    /// The codec of its head.
    pub codec: u8,
    /// Its dtype hint.
    pub dtype: DType,
}

/// That a model has an object: two halves of the object's key, and the model's place in the survey.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Use(u32, u32, u32);

/// All models and objects of a store.
pub struct Survey {
    /// The models, by id.
    pub models: Vec<ModelRow>,
    /// Manifests that could not be read, and why.
    pub damaged: Vec<String>,
    /// Objects that manifests name and the index does not.
    pub missing: usize,
    /// Bytes of files that repeat another file, in any model or version.
    pub repeated_file_bytes: u64,
    objects: Vec<ObjectRow>,
    uses: Vec<Use>,
}

/// What one model adds.
struct Part {
    row: Option<ModelRow>,
    uses: Vec<Use>,
    files: Vec<(u64, u64)>,
    damaged: Vec<String>,
}

/// The first 8 bytes of an object's name, as a number.
pub fn key(name: &Hash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *name.as_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

impl Use {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the two halves of a number"
    )]
    fn new(name: &Hash, model: u32) -> Self {
        let key = key(name);
        Self((key >> 32) as u32, key as u32, model)
    }

    fn key(self) -> u64 {
        u64::from(self.0) << 32 | u64::from(self.1)
    }

    /// The model's place among the survey's models.
    pub fn model(self) -> usize {
        self.2 as usize
    }
}

impl Survey {
    /// Reads all manifests and the index of `store`.
    ///
    /// # Errors
    /// Fails where the store cannot be listed; a damaged manifest is in [`Self::damaged`].
    pub fn of(store: &Store, threads: usize) -> Result<Self> {
        let pool = threads::pool(threads, store.layout().root())?;
        pool.install(|| Self::read(store))
    }

    fn read(store: &Store) -> Result<Self> {
        let stored = store.models()?;
        let parts: Vec<_> = stored
            .par_iter()
            .map(|model| part(store, model))
            .collect::<Result<_>>()?;
        let (mut models, mut damaged) = (Vec::new(), Vec::new());
        let (mut uses, mut files) = (Vec::new(), Vec::new());
        for part in parts {
            damaged.extend(part.damaged);
            let Some(row) = part.row else { continue };
            let place = u32::try_from(models.len()).unwrap_or(u32::MAX);
            uses.extend(part.uses.iter().map(|one| Use(one.0, one.1, place)));
            files.extend(part.files);
            models.push(row);
        }
        uses.par_sort_unstable();
        uses.dedup();
        let mut survey = Self {
            models,
            damaged,
            missing: 0,
            repeated_file_bytes: repeated(files),
            objects: objects(store)?,
            uses,
        };
        survey.add_up();
        Ok(survey)
    }

    /// Shows every object that the index has, or that a manifest names, with its users, in the order of keys.
    pub fn each_object(&self, mut show: impl FnMut(Option<&ObjectRow>, &[Use])) {
        let (mut objects, mut uses) = (self.objects.iter().peekable(), self.uses.as_slice());
        loop {
            let key = match (objects.peek(), uses.first()) {
                (None, None) => return,
                (Some(object), None) => object.key,
                (None, Some(first)) => first.key(),
                (Some(object), Some(first)) => object.key.min(first.key()),
            };
            let object = objects.next_if(|object| object.key == key);
            let count = uses.iter().take_while(|one| one.key() == key).count();
            let (mine, later) = uses.split_at(count);
            show(object, mine);
            uses = later;
        }
    }

    fn add_up(&mut self) {
        let mut sums = vec![(0u64, 0u64); self.models.len()];
        let mut missing = 0;
        self.each_object(|object, uses| {
            let Some(object) = object else {
                missing += 1;
                return;
            };
            for one in uses {
                if let Some(sum) = sums.get_mut(one.model()) {
                    sum.0 = sum.0.saturating_add(object.stored_len);
                    let alone = if uses.len() == 1 {
                        object.stored_len
                    } else {
                        0
                    };
                    sum.1 = sum.1.saturating_add(alone);
                }
            }
        });
        self.missing = missing;
        for (model, (stored, unshared)) in self.models.iter_mut().zip(sums) {
            (model.stored_bytes, model.unshared_bytes) = (stored, unshared);
        }
    }
}

fn objects(store: &Store) -> Result<Vec<ObjectRow>> {
    let mut objects = store.map_index(|record| ObjectRow {
        key: key(&record.name),
        raw_len: record.raw_len,
        stored_len: record.stored_len,
        codec: record.codec,
        dtype: record.dtype,
    })?;
    if !objects.is_sorted_by_key(|object| object.key) {
        objects.par_sort_by_key(|object| object.key);
    }
    // Of several records of an object the last one counts: it comes first once turned round.
    objects.reverse();
    objects.dedup_by_key(|object| object.key);
    objects.reverse();
    Ok(objects)
}

/// Adds up what repeats: all files of one content but one.
fn repeated(mut files: Vec<(u64, u64)>) -> u64 {
    files.par_sort_unstable();
    let pairs = files.iter().zip(files.iter().skip(1));
    pairs
        .filter(|(a, b)| a == b)
        .fold(0, |sum, (file, _)| file.1.saturating_add(sum))
}

fn part(store: &Store, model: &StoredModel) -> Result<Part> {
    let mut part = Part {
        row: None,
        uses: Vec::new(),
        files: Vec::new(),
        damaged: Vec::new(),
    };
    for version in &model.versions {
        match store.outline(&model.id, *version) {
            Ok(Some(outline)) => part.add(model, &outline),
            // Removed since it was listed.
            Ok(None) => {}
            Err(error @ Error::Io { .. }) => return Err(error),
            Err(error) => part.damaged.push(error.to_string()),
        }
    }
    part.uses.sort_unstable();
    part.uses.dedup();
    part.uses.shrink_to_fit();
    Ok(part)
}

impl Part {
    fn add(&mut self, model: &StoredModel, outline: &Outline) {
        let before = self.row.as_ref().map_or(0, |row| row.bytes_of_all_versions);
        let mut tensors = Vec::new();
        for file in &outline.files {
            let size = file.segments.iter().map(|segment| segment.length);
            let size = size.fold(0, u64::saturating_add);
            self.files.push((key(&file.blake3), size));
            for segment in &file.segments {
                self.uses.push(Use::new(&segment.object, 0));
                if segment.is_tensor() {
                    tensors.push(key(&segment.object));
                }
            }
        }
        let count = tensors.len();
        tensors.sort_unstable();
        tensors.dedup();
        // Keys are parts of hashes, so a sum of them, with their number, tells sets apart.
        let tensors_key = tensors
            .iter()
            .fold(tensors.len() as u64, |sum, key| sum.wrapping_add(*key));
        self.row = Some(ModelRow {
            model: model.id.clone(),
            version: outline.version,
            versions: model.versions.len(),
            files: outline.files.len(),
            tensors: count,
            tensors_key,
            bytes: outline.bytes,
            bytes_of_all_versions: before.saturating_add(outline.bytes),
            stored_bytes: 0,
            unshared_bytes: 0,
            base: outline.base.clone(),
            hints: hints(&outline.bases),
            commit: outline.commit.clone(),
        });
    }
}
