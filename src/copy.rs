//! Copy: models go to another store, with the objects that it lacks, as they are encoded.
//!
//! Every chunk is decoded and checked against its object's name before its payload is written: damage does not travel.
//! An object whose base lies too deep in the other store is encoded anew there, without a base.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Instant;

use rayon::ThreadPool;
use rayon::prelude::*;
use serde::Serialize;

use crate::codec::EncodeOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::name::ModelId;
use crate::object_factors::Preparation;
use crate::object_reader::{ObjectReader, OpenObject};
use crate::object_writer::{Digest, NewObject};
use crate::report::Monitor;
use crate::restore::{ModelVersion, find_manifest};
use crate::sketch::Sketch;
use crate::store::manifest::Manifest;
use crate::store::object::{Head, MAX_DEPTH};
use crate::store::{ObjectFile, Store, StoreWriter};
use crate::threads;

/// How to copy.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Worker threads, at least one.
    pub threads: usize,
    /// Settings of the codecs, for what has to be encoded anew.
    pub encode: EncodeOptions,
    /// Whether a model without a version stands for all its versions, oldest first, instead of the newest.
    pub all_versions: bool,
}

/// What became of the models.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CopyReport {
    /// One entry a model, in the order they were given.
    pub models: Vec<CopiedModel>,
    /// Objects that were copied, bases included.
    pub objects: usize,
    /// Bytes of those objects.
    pub raw_bytes: u64,
    /// Bytes of their files in the other store.
    pub stored_bytes: u64,
    /// Seconds of the whole run.
    pub seconds: f64,
}

/// What became of one model.
#[derive(Clone, Debug, Serialize)]
pub struct CopiedModel {
    /// The model.
    pub model: ModelId,
    /// Its version here.
    pub version: u32,
    /// Its version in the other store, if it is there now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copied_as: Option<u32>,
    /// Whether the other store had it before.
    pub was_there: bool,
    /// Why it was not copied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether damage in one of the stores was met.
    pub damage: bool,
}

/// Copies models from `source` to the store that `target` writes to. A model that fails does not stop the others.
///
/// # Errors
/// Fails before anything is written where a model is not in `source`, or both are the same store; and where `target`
/// cannot be written.
pub fn run(
    source: &Store,
    wanted: &[ModelVersion],
    mut target: StoreWriter,
    options: Options,
    monitor: &dyn Monitor,
) -> Result<CopyReport> {
    let start = Instant::now();
    let wanted = if options.all_versions {
        all_versions(source, wanted)?
    } else {
        wanted.iter().map(|one| (one.clone(), true)).collect()
    };
    let manifests = wanted
        .iter()
        .map(|(one, is_last)| Ok((find_manifest(source, one)?, *is_last)));
    let manifests = manifests.collect::<Result<Vec<_>>>()?;
    let pool = threads::pool(options.threads, source.layout().root())?;
    let records = target.store().index()?;
    let depended = records.values().map(|record| record.base).collect();
    let reader = ObjectReader::new(source.clone());
    let mut copy = Copy {
        reader: &reader,
        pool: &pool,
        options,
        monitor,
        depended,
        depths: HashMap::new(),
        sketches: sketches(source)?,
        report: CopyReport::default(),
    };
    for (manifest, is_last) in manifests {
        let mut row = CopiedModel {
            model: manifest.model.clone(),
            version: manifest.version,
            copied_as: None,
            was_there: false,
            error: None,
            damage: false,
        };
        monitor.begin(manifest.model.as_str(), manifest.bytes);
        let copied = copy.model(&mut target, manifest, is_last, &mut row);
        monitor.end();
        if let Err(error) = copied {
            if target.is_poisoned() {
                return Err(error);
            }
            row.damage = error.kind() == ErrorKind::Corrupt;
            row.error = Some(error.to_string());
        }
        copy.report.models.push(row);
    }
    let mut report = copy.report;
    target.close()?;
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

/// Replaces each model without a version by all its versions, and says which are to be the newest in the other store.
fn all_versions(source: &Store, wanted: &[ModelVersion]) -> Result<Vec<(ModelVersion, bool)>> {
    let mut all = Vec::new();
    for one in wanted {
        let versions = if let Some(version) = one.version {
            vec![version]
        } else {
            // Says in words which models there are.
            find_manifest(source, one)?;
            source.versions(&one.model)?
        };
        let last = versions.last().copied();
        all.extend(versions.into_iter().map(|version| {
            let one = ModelVersion {
                model: one.model.clone(),
                version: Some(version),
            };
            (one, Some(version) == last)
        }));
    }
    Ok(all)
}

/// The version of a store that has a manifest's content, and the number of the next one. What is to be the newest
/// version has to be that.
fn there(store: &Store, manifest: &Manifest, is_last: bool) -> Result<(Option<u32>, u32)> {
    let versions = store.versions(&manifest.model)?;
    let next = versions.last().map_or(1, |newest| newest.saturating_add(1));
    let looked_at = if is_last { 1 } else { versions.len() };
    for version in versions.into_iter().rev().take(looked_at) {
        let found = store.manifest(&manifest.model, version)?;
        if found.is_some_and(|found| found.same_content(manifest)) {
            return Ok((Some(version), next));
        }
    }
    Ok((None, next))
}

struct Copy<'a> {
    reader: &'a ObjectReader,
    pool: &'a ThreadPool,
    options: Options,
    monitor: &'a dyn Monitor,
    /// Objects of the other store that others are encoded against.
    depended: HashSet<Hash>,
    /// Depths in the other store of the objects that are known to be there.
    depths: HashMap<Hash, u8>,
    /// Sketches of objects that were not copied yet.
    sketches: HashMap<Hash, Sketch>,
    report: CopyReport,
}

/// The sketches of a store by object; what is lost of them the other store's `optimize` makes anew.
fn sketches(store: &Store) -> Result<HashMap<Hash, Sketch>> {
    let all = store.sketches()?.all.into_iter();
    Ok(all.map(|sketch| (sketch.name, sketch)).collect())
}

/// Tells whether all bases of an object are there.
fn has_bases(store: &Store, object: &ObjectFile) -> bool {
    let mut base = object.frame.head.bases.first().map(|base| base.name);
    for _ in 0..=MAX_DEPTH {
        let Some(name) = base else { return true };
        let Ok(opened) = store.object(&name) else {
            return false;
        };
        base = opened.frame.head.bases.first().map(|base| base.name);
    }
    false
}

impl Copy<'_> {
    fn model(
        &mut self,
        target: &mut StoreWriter,
        manifest: Manifest,
        is_last: bool,
        row: &mut CopiedModel,
    ) -> Result<()> {
        target.store().check_case(&manifest.model)?;
        let mut levels = BTreeMap::new();
        let segments = manifest.files.iter().flat_map(|file| &file.segments);
        for segment in segments {
            let raw_len = self.add_to_levels(&mut levels, &segment.object)?;
            if raw_len != segment.length {
                let reason = format!(
                    "has {raw_len} bytes where the manifest says {}",
                    segment.length
                );
                return Err(Error::corrupt(&segment.object, reason));
            }
        }
        // Bases are durable before anything that needs them: a kill leaves no object without its base.
        for names in levels.values() {
            for name in names {
                self.object(target, name)?;
                self.monitor
                    .advance(self.reader.open(name)?.file.frame.head.raw_len);
            }
            target.barrier()?;
        }
        let version = match there(target.store(), &manifest, is_last)? {
            (Some(same), _) => {
                target.barrier()?;
                row.was_there = true;
                same
            }
            (None, version) => {
                target.commit(&Manifest {
                    version,
                    ..manifest
                })?;
                version
            }
        };
        row.copied_as = Some(version);
        Ok(())
    }

    /// Enters an object, and its bases, by their depths here. Returns its length.
    fn add_to_levels(&self, levels: &mut BTreeMap<u8, BTreeSet<Hash>>, name: &Hash) -> Result<u64> {
        let object = self.reader.open(name)?;
        let raw_len = object.file.frame.head.raw_len;
        let mut next = Some(object);
        while let Some(object) = next {
            let head = &object.file.frame.head;
            levels
                .entry(head.depth)
                .or_default()
                .insert(object.file.name);
            let base = head.bases.first().map(|base| self.reader.open(&base.name));
            next = base.transpose()?;
            if next
                .as_ref()
                .is_some_and(|base| base.file.frame.head.depth >= head.depth)
            {
                return Err(Error::corrupt(
                    &object.file.name,
                    "its base is as deep as itself",
                ));
            }
        }
        Ok(raw_len)
    }

    /// Makes sure that the other store has an object, and its bases. Returns its depth there.
    fn object(&mut self, target: &mut StoreWriter, name: &Hash) -> Result<u8> {
        if let Some(depth) = self.depths.get(name) {
            return Ok(*depth);
        }
        let mut may_have_base = true;
        let there = match target.store().find(name) {
            // What is damaged there is stored anew, without a base where others depend on it.
            Err(error) if error.kind() == ErrorKind::Corrupt => None,
            other => other?.filter(|object| has_bases(target.store(), object)),
        };
        let depth = if let Some(object) = there {
            object.frame.head.depth
        } else {
            may_have_base &= !self.depended.contains(name);
            self.write(target, name, may_have_base)?
        };
        self.depths.insert(*name, depth);
        Ok(depth)
    }

    fn write(&mut self, target: &mut StoreWriter, name: &Hash, may_have_base: bool) -> Result<u8> {
        let object = self.reader.open(name)?;
        let base = object.file.frame.head.bases.first().map(|base| base.name);
        let depth = match base {
            None => 0,
            Some(base) if may_have_base => self.object(target, &base)?.saturating_add(1),
            Some(_) => u8::MAX,
        };
        let stored = if depth <= MAX_DEPTH {
            self.as_it_is(target, &object, depth)?
        } else {
            self.without_base(target, &object)?
        };
        if let Some(sketch) = self.sketches.remove(name) {
            target.add_sketch(sketch);
        }
        self.report.objects += 1;
        self.report.raw_bytes += object.file.frame.head.raw_len;
        self.report.stored_bytes += stored;
        Ok(if depth <= MAX_DEPTH { depth } else { 0 })
    }

    fn as_it_is(&self, target: &mut StoreWriter, object: &OpenObject, depth: u8) -> Result<u64> {
        let name = object.file.name;
        let head = Head {
            depth,
            ..object.file.frame.head.clone()
        };
        let shared = object.file.read_shared()?;
        let mut out = target.create_object(name, head.clone(), &shared)?;
        for window in self.windows(head.chunk_count()) {
            let payloads = self.pool.install(|| {
                let chunks = window.clone().into_par_iter();
                chunks
                    .map(|index| self.payload(object, index))
                    .collect::<Result<Vec<_>>>()
            });
            let payloads = match payloads {
                Ok(payloads) => payloads,
                Err(error) => {
                    target.discard_object(out);
                    return Err(error);
                }
            };
            for (index, payload) in window.zip(payloads) {
                let at = usize::try_from(index).unwrap_or(usize::MAX);
                let Some(entry) = object.file.frame.chunks.get(at) else {
                    continue;
                };
                target.append_chunk(&mut out, entry.codec, entry.chaining_value, &payload)?;
            }
        }
        target.finish_object(out)
    }

    fn windows(&self, count: u64) -> impl Iterator<Item = std::ops::Range<u64>> + use<> {
        let size = 2 * self.options.threads.max(1) as u64;
        let starts = (0..count).step_by(usize::try_from(size).unwrap_or(1));
        starts.map(move |start| start..count.min(start + size))
    }

    /// A chunk's stored bytes, of which it is known what they decode to.
    fn payload(&self, object: &OpenObject, index: u64) -> Result<Vec<u8>> {
        let (_, length) = object.file.frame.head.chunk_range(index);
        let mut payload = Vec::new();
        let buffers = self.reader.buffers();
        buffers.with(length, |raw| {
            self.reader.check_payload(object, index, &mut payload, raw)
        })?;
        Ok(payload)
    }

    fn without_base(&self, target: &mut StoreWriter, object: &OpenObject) -> Result<u64> {
        let frame = &object.file.frame;
        let many = frame.chunks.len() > 1;
        let values = frame
            .chunks
            .iter()
            .filter(|_| many)
            .map(|chunk| chunk.chaining_value);
        let fresh = NewObject {
            digest: Digest {
                name: object.file.name,
                values: values.collect(),
            },
            dtype: frame.head.dtype,
            row_len: frame.head.row_len,
            raw_len: frame.head.raw_len,
            base: None,
            set_rows: 0,
            preparation: Preparation::default(),
        };
        let read = |offset: u64, raw: &mut [u8]| {
            let index = offset / fresh.dtype.chunk_bytes() as u64;
            self.reader.read_chunk(&fresh.digest.name, index, raw)
        };
        fresh.store(target, self.reader, self.pool, &self.options.encode, &read)
    }
}
