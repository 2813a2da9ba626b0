//! Stats: where a store's bytes are, by family, encoding and dtype; what each stage saved; what is large and shared
//! with no other model.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use serde::Serialize;

use crate::codec::CodecId;
use crate::error::Result;
use crate::hash::Hash;
use crate::list::encoding_name;
use crate::name::{ModelId, RelPath};
use crate::report::Savings;
use crate::store::Store;
use crate::survey::twins::{Content, twins};
use crate::survey::{self, ModelRow, ObjectRow, Survey, Use};

/// Objects that are shown as the largest.
const LARGEST: usize = 10;

/// The figures of a store.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Stats {
    /// Models.
    pub models: usize,
    /// Versions of models.
    pub versions: usize,
    /// Bytes of all versions of all models.
    pub bytes: u64,
    /// Bytes of all object files.
    pub stored_bytes: u64,
    /// Objects.
    pub objects: u64,
    /// Objects that no model has; some may be bases of others, `gc` frees the rest.
    pub unused_objects: u64,
    /// Bytes of their files.
    pub unused_bytes: u64,
    /// What each stage saved: together with what is left they make up all models' bytes.
    pub savings: Savings,
    /// By family; an object of several counts with the first of them.
    pub families: Vec<Family>,
    /// By codec of the objects that models have, the largest first.
    pub encodings: Vec<Group>,
    /// By dtype, the same.
    pub dtypes: Vec<Group>,
    /// The largest objects that only one model has.
    pub largest_unshared: Vec<Unshared>,
    /// Objects that manifests name and the store has not.
    pub missing_objects: usize,
    /// Manifests that could not be read, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<String>,
}

/// A base and the models that are encoded against it, or against one of those.
#[derive(Clone, Debug, Serialize)]
pub struct Family {
    /// The model that the others go back to.
    pub root: ModelId,
    /// Whether that model is in the store no more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub root_removed: bool,
    /// How many models it is, the root included.
    pub models: usize,
    /// Bytes of all versions of all its models.
    pub bytes: u64,
    /// Bytes of the object files.
    pub stored_bytes: u64,
}

/// Objects that have something in common.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// What.
    pub name: String,
    /// How many they are.
    pub objects: u64,
    /// Their bytes.
    pub raw_bytes: u64,
    /// Bytes of their files.
    pub stored_bytes: u64,
}

/// An object that only one model has.
#[derive(Clone, Debug, Serialize)]
pub struct Unshared {
    /// The model.
    pub model: ModelId,
    /// The file.
    pub path: RelPath,
    /// The tensor, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tensor: Option<String>,
    /// The object.
    pub object: Hash,
    /// How it is stored.
    pub encoding: String,
    /// Its bytes.
    pub raw_bytes: u64,
    /// Bytes of its file.
    pub stored_bytes: u64,
}

/// Takes the figures of a store.
pub fn run(store: &Store, threads: usize) -> Result<Stats> {
    let survey = Survey::of(store, threads)?;
    let (roots, families) = families(&survey.models);
    let mut tally = Tally {
        roots: &roots,
        stats: Stats {
            families,
            ..Stats::default()
        },
        encodings: BTreeMap::new(),
        dtypes: BTreeMap::new(),
        largest: BinaryHeap::new(),
    };
    let mut unique_bytes = 0u64;
    survey.each_object(|object, uses| {
        if let Some(object) = object {
            tally.add(object, uses);
            unique_bytes += if uses.is_empty() { 0 } else { object.raw_len };
        }
    });
    let largest = tally.largest.into_sorted_vec();
    let mut stats = tally.stats;
    stats.encodings = groups(tally.encodings);
    stats.dtypes = groups(tally.dtypes);
    stats.largest_unshared = find(store, &survey, &largest)?;
    stats.models = survey.models.len();
    stats.versions = survey.models.iter().map(|model| model.versions).sum();
    let bytes = survey
        .models
        .iter()
        .map(|model| model.bytes_of_all_versions);
    stats.bytes = bytes.fold(0, u64::saturating_add);
    stats.savings.file_dedup_bytes = survey.repeated_file_bytes;
    let repeated = stats.bytes.saturating_sub(unique_bytes);
    stats.savings.tensor_dedup_bytes = repeated.saturating_sub(survey.repeated_file_bytes);
    stats.missing_objects = survey.missing;
    stats.damaged = survey.damaged;
    Ok(stats)
}

/// An object that only one model has, ordered by size.
type Large = Reverse<(u64, u64, usize)>;

struct Tally<'a> {
    roots: &'a [usize],
    stats: Stats,
    encodings: BTreeMap<u8, Group>,
    dtypes: BTreeMap<u8, Group>,
    /// Stored bytes, key and model of the largest, the least of them on top.
    largest: BinaryHeap<Large>,
}

impl Tally<'_> {
    fn add(&mut self, object: &ObjectRow, uses: &[Use]) {
        let stats = &mut self.stats;
        stats.objects += 1;
        stats.stored_bytes = stats.stored_bytes.saturating_add(object.stored_len);
        let root = |one: &Use| self.roots.get(one.model()).copied();
        let Some(family) = uses.iter().filter_map(root).min() else {
            stats.unused_objects += 1;
            stats.unused_bytes = stats.unused_bytes.saturating_add(object.stored_len);
            return;
        };
        if let Some(family) = stats.families.get_mut(family) {
            family.stored_bytes = family.stored_bytes.saturating_add(object.stored_len);
        }
        let codec = CodecId(object.codec);
        stats
            .savings
            .add_chunk(codec, object.raw_len, object.stored_len);
        let name = || encoding_name(object.codec);
        add_to(&mut self.encodings, object.codec, name, object);
        add_to(
            &mut self.dtypes,
            object.dtype.code(),
            || object.dtype.to_string(),
            object,
        );
        if let [only] = uses {
            let least = self.largest.peek().map_or(0, |least| least.0.0);
            if self.largest.len() < LARGEST || object.stored_len > least {
                self.largest
                    .push(Reverse((object.stored_len, object.key, only.model())));
                if self.largest.len() > LARGEST {
                    self.largest.pop();
                }
            }
        }
    }
}

fn add_to(
    groups: &mut BTreeMap<u8, Group>,
    code: u8,
    name: impl Fn() -> String,
    object: &ObjectRow,
) {
    let group = groups.entry(code).or_insert_with(|| Group {
        name: name(),
        objects: 0,
        raw_bytes: 0,
        stored_bytes: 0,
    });
    group.objects += 1;
    group.raw_bytes = group.raw_bytes.saturating_add(object.raw_len);
    group.stored_bytes = group.stored_bytes.saturating_add(object.stored_len);
}

fn groups(groups: BTreeMap<u8, Group>) -> Vec<Group> {
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by_key(|group| Reverse(group.stored_bytes));
    groups
}

/// Finds each model's family, and the families, by root.
fn families(models: &[ModelRow]) -> (Vec<usize>, Vec<Family>) {
    let places: HashMap<_, _> = models.iter().map(|model| (&model.model, model)).collect();
    let content = |model: &ModelRow| Content {
        model: model.model.clone(),
        base: model.base.clone(),
        hints: model.hints.clone(),
        tensors: (model.tensors > 0).then_some(model.tensors_key),
    };
    let twins = twins(&models.iter().map(content).collect::<Vec<_>>());
    let roots: Vec<_> = models
        .iter()
        .map(|model| root(model, &places, &twins))
        .collect();
    let mut families: BTreeMap<&ModelId, Family> = BTreeMap::new();
    for (model, root) in models.iter().zip(&roots) {
        let family = families.entry(root).or_insert_with(|| Family {
            root: (*root).clone(),
            root_removed: !places.contains_key(root),
            models: 0,
            bytes: 0,
            stored_bytes: 0,
        });
        family.models += 1;
        family.bytes = family.bytes.saturating_add(model.bytes_of_all_versions);
    }
    let numbers: HashMap<_, _> = families.keys().zip(0..).map(|(id, at)| (*id, at)).collect();
    let roots = roots.iter().filter_map(|root| numbers.get(root).copied());
    (roots.collect(), families.into_values().collect())
}

/// Follows the bases as far as they are stored; a base that is not is a root all the same. A model with the same tensors
/// as another one goes where that goes.
fn root<'a>(
    model: &'a ModelRow,
    places: &HashMap<&ModelId, &'a ModelRow>,
    twins: &HashMap<ModelId, ModelId>,
) -> &'a ModelId {
    let twin = |model: &'a ModelRow| {
        let twin = twins.get(&model.model).and_then(|twin| places.get(twin));
        twin.copied().unwrap_or(model)
    };
    let mut model = twin(model);
    // Names of bases are for people: nothing keeps them from going in a circle.
    for _ in 0..64 {
        match &model.base {
            None => break,
            Some(base) => match places.get(base) {
                None => return base,
                Some(next) => model = twin(next),
            },
        }
    }
    &model.model
}

/// Says what the largest objects are, from their models' manifests.
fn find(store: &Store, survey: &Survey, largest: &[Large]) -> Result<Vec<Unshared>> {
    let mut found = Vec::new();
    for Reverse((stored_bytes, key, model)) in largest {
        let Some(row) = survey.models.get(*model) else {
            continue;
        };
        found.extend(find_in(store, row, *key, *stored_bytes)?);
    }
    Ok(found)
}

fn find_in(
    store: &Store,
    model: &ModelRow,
    key: u64,
    stored_bytes: u64,
) -> Result<Option<Unshared>> {
    for version in store.versions(&model.model)?.into_iter().rev() {
        // What cannot be read is in the survey's list of the damaged.
        let Ok(Some(manifest)) = store.manifest(&model.model, version) else {
            continue;
        };
        for file in manifest.files {
            let mut segments = file.segments.into_iter();
            let Some(segment) = segments.find(|one| survey::key(&one.object) == key) else {
                continue;
            };
            let codec = store
                .object(&segment.object)
                .map(|object| object.frame.head.codec);
            return Ok(Some(Unshared {
                model: model.model.clone(),
                path: file.path,
                tensor: segment.tensor.map(|tensor| tensor.name),
                object: segment.object,
                encoding: codec.map_or_else(|error| error.to_string(), encoding_name),
                raw_bytes: segment.length,
                stored_bytes,
            }));
        }
    }
    Ok(None)
}
