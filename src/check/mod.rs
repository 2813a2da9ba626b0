//! Check: the store's invariants, and with `read_data` every stored byte.
//!
//! Manifests are read one by one and let go; of objects, their records are kept. That is some 200 bytes an object,
//! and nothing that grows with the models.

mod blame;

use std::collections::BTreeMap;
use std::time::Instant;

use rayon::prelude::*;
use serde::Serialize;

use crate::count::counted;
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::name::ModelId;
use crate::object_reader::ObjectReader;
use crate::report::Monitor;
use crate::store::index::Record;
use crate::store::manifest::Manifest;
use crate::store::{Store, StoredModel, sealed};
use crate::threads;

/// How to check.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Worker threads, at least one.
    pub threads: usize,
    /// Whether every object is decoded and hashed.
    pub read_data: bool,
    /// Which part of the objects that is, or else all.
    pub subset: Option<Subset>,
}

/// The `number`th of `of` parts of all objects, from 1; together they are all objects. Objects fall in parts by
/// their names, so that each part has about as many, and the same ones on every run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subset {
    /// Which part, from 1 to `of`.
    pub number: u64,
    /// How many parts there are.
    pub of: u64,
}

/// What a check found.
#[derive(Debug, Default, Serialize)]
pub struct CheckReport {
    /// Models with at least one version.
    pub models: usize,
    /// Manifests.
    pub versions: usize,
    /// Object files.
    pub objects: usize,
    /// Objects that were decoded.
    pub objects_read: usize,
    /// Bytes of the objects that were decoded.
    pub bytes_read: u64,
    /// What is damaged or missing.
    pub damage: Vec<Damage>,
    /// What is odd, and harms nothing.
    pub warnings: Vec<String>,
    /// Worker threads.
    pub threads: usize,
    /// Seconds of the whole check.
    pub seconds: f64,
}

/// One damaged thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// What is wrong, naming the object or file.
    pub reason: String,
    /// The object, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<Hash>,
    /// The models of which a version cannot be restored whole because of it.
    pub models: Vec<ModelId>,
    /// The files that cannot be restored because of it, as `model@version: path`.
    pub hurts: Vec<String>,
}

/// Checks a store; a writer may be at work in it meanwhile, for what looks damaged is looked at once more.
///
/// # Errors
/// Fails only where the store cannot be listed; damage is in the report.
pub fn run(store: &Store, options: Options, monitor: &dyn Monitor) -> Result<CheckReport> {
    let start = Instant::now();
    let pool = threads::pool(options.threads, store.layout().root())?;
    let mut check = Check {
        store,
        heads: Vec::new(),
        damaged: BTreeMap::new(),
        strangers: Vec::new(),
        report: CheckReport::default(),
    };
    pool.install(|| check.all(options, monitor))?;
    check.report.threads = options.threads;
    check.report.seconds = start.elapsed().as_secs_f64();
    Ok(check.report)
}

struct Check<'a> {
    store: &'a Store,
    /// What the heads of all objects say that can be opened, by name.
    heads: Vec<Record>,
    /// Objects that are damaged or missing, and how.
    damaged: BTreeMap<Hash, Fault>,
    /// Files among the objects that are none.
    strangers: Vec<String>,
    report: CheckReport,
}

/// What is wrong with an object.
struct Fault {
    reason: String,
    is_missing: bool,
}

/// What one model's manifests have that is wrong.
#[derive(Default)]
struct Findings {
    faults: Vec<(Hash, Error)>,
    /// Objects that came since all were listed.
    late: Vec<Record>,
    damage: Vec<Damage>,
    versions: usize,
}

impl Check<'_> {
    fn all(&mut self, options: Options, monitor: &dyn Monitor) -> Result<()> {
        // Looked at first: while it stands, objects may be written or deleted at any moment.
        let mut is_dirty = self.is_dirty()?;
        self.open_heads()?;
        is_dirty |= self.index()?;
        let models = self.store.models()?;
        self.manifests(&models)?;
        self.bases();
        if options.read_data {
            self.read_data(options.subset, monitor)?;
        }
        self.sketches()?;
        self.leftovers()?;
        self.attribute(&models, is_dirty);
        Ok(())
    }

    /// Reads the log of sketches; a run that is at work, or was stopped, may have left a part of a record.
    fn sketches(&mut self) -> Result<()> {
        if self.store.sketches()?.refused == 0 || self.is_dirty()? {
            return Ok(());
        }
        let path = self.store.layout().sketch_log();
        let reason = format!(
            "{}: damaged; nothing is lost, zipllm optimize makes it anew",
            path.display()
        );
        self.report.damage.push(Damage::harmless(reason));
        Ok(())
    }

    fn is_dirty(&self) -> Result<bool> {
        let layout = self.store.layout();
        Ok(self.store.exists(&layout.dirty())? || !self.store.exists(&layout.object_log())?)
    }

    fn head(&self, name: &Hash) -> Option<&Record> {
        let at = self.heads.binary_search_by(|record| record.name.cmp(name));
        at.ok().and_then(|at| self.heads.get(at))
    }

    /// Opens every object: head, table, seal and length.
    fn open_heads(&mut self) -> Result<()> {
        let (names, strangers) = self.store.objects()?;
        self.report.objects = names.len();
        self.strangers = strangers;
        // A file is closed as soon as its head is known: there may be more objects than descriptors.
        let head = |name: &Hash| match self.store.object(name) {
            Ok(object) => Ok(Some(Record::of(name, &object.frame))),
            // Deleted since it was listed; if anything needs it, that is found out below.
            Err(Error::MissingObject { .. }) => Ok(None),
            Err(error) => Err((*name, error)),
        };
        let (heads, errors): (Vec<_>, Vec<_>) = names.par_iter().map(head).partition_map(either);
        self.heads = heads.into_iter().flatten().collect();
        errors
            .into_iter()
            .try_for_each(|(name, error)| self.blame_object(&name, error))
    }

    fn note(&mut self, name: &Hash, error: &Error) {
        self.damaged.entry(*name).or_insert_with(|| Fault {
            reason: error.to_string(),
            is_missing: matches!(error, Error::MissingObject { .. }),
        });
    }

    /// Notes an object as damaged; what is the system's fault and not the object's ends the check.
    fn blame_object(&mut self, name: &Hash, error: Error) -> Result<()> {
        if error.kind() == ErrorKind::Io {
            return Err(error);
        }
        self.note(name, &error);
        Ok(())
    }

    fn bases(&mut self) {
        let deltas = self.heads.par_iter().filter(|record| record.depth > 0);
        let fault = |record: &Record| {
            misfit(self.store, record, self.head(&record.base))?;
            // One of them may have been replaced since.
            let again = self.head_now(&record.name)?;
            misfit(self.store, &again, self.head_now(&again.base).as_ref())
        };
        let faults: Vec<_> = deltas.filter_map(fault).collect();
        faults
            .iter()
            .for_each(|(name, error)| self.note(name, error));
    }

    /// Reads a head that was read too long ago, or not at all.
    fn head_now(&self, name: &Hash) -> Option<Record> {
        let object = self.store.object(name).ok();
        object.map(|object| Record::of(name, &object.frame))
    }

    /// Compares the index with the heads; these are read anew once, for a writer may have ended since. Tells whether
    /// one is at work, or was stopped.
    fn index(&mut self) -> Result<bool> {
        for attempt in 0..2 {
            if self.is_dirty()? {
                let reason = "the index may lack objects of a run that was stopped, or is at work; the next run rebuilds it";
                self.report.warnings.push(reason.into());
                return Ok(true);
            }
            match self.store.stored_records()? {
                Some(records) if !self.damaged.is_empty() || self.is_whole(&records) => {
                    self.note_gone(&records);
                    return Ok(false);
                }
                _ if attempt == 0 => self.open_heads()?,
                _ => {}
            }
        }
        let path = self.store.layout().object_log();
        let reason = format!(
            "{}: damaged; nothing is lost, the next run rebuilds it",
            path.display()
        );
        self.report.damage.push(Damage::harmless(reason));
        Ok(false)
    }

    /// Tells whether the index lists every object, as its head has it. That a file is gone is not the index's fault;
    /// what is there now came since the heads were read.
    fn is_whole(&self, records: &[Record]) -> bool {
        let (there, others): (Vec<_>, Vec<_>) = records
            .iter()
            .partition(|record| self.head(&record.name).is_some());
        let is_gone = |record: &&Record| self.is_gone(&record.name);
        there.into_iter().eq(&self.heads) && others.iter().all(is_gone)
    }

    fn is_gone(&self, name: &Hash) -> bool {
        matches!(self.store.object(name), Err(Error::MissingObject { .. }))
    }

    /// Notes the objects that the index lists and that are gone.
    fn note_gone(&mut self, records: &[Record]) {
        for record in records {
            let name = record.name;
            if self.head(&name).is_none() && self.is_gone(&name) {
                self.note(&name, &Error::MissingObject { name });
            }
        }
    }

    fn manifests(&mut self, models: &[StoredModel]) -> Result<()> {
        self.report.models = models.len();
        let look = |model: &StoredModel| self.look_at(model);
        let found = models.par_iter().map(look).collect::<Result<Vec<_>>>()?;
        for findings in found {
            self.report.versions += findings.versions;
            self.report.damage.extend(findings.damage);
            self.heads.extend(findings.late);
            let faults = findings.faults.iter();
            faults.for_each(|(name, error)| self.note(name, error));
        }
        self.heads.par_sort_unstable_by_key(|record| record.name);
        self.heads.dedup_by_key(|record| record.name);
        Ok(())
    }

    /// Reads all manifests of a model, and holds them against the objects.
    fn look_at(&self, model: &StoredModel) -> Result<Findings> {
        let mut findings = Findings::default();
        for version in &model.versions {
            findings.versions += 1;
            match self.store.manifest(&model.id, *version) {
                Ok(manifest) => manifest
                    .iter()
                    .for_each(|manifest| self.references(manifest, &mut findings)),
                Err(error @ Error::Io { .. }) => return Err(error),
                Err(error) => findings.damage.push(Damage {
                    reason: error.to_string(),
                    object: None,
                    models: vec![model.id.clone()],
                    hurts: vec![format!("{}@{version}", model.id)],
                }),
            }
        }
        findings.damage.extend(self.scan(&model.id));
        Ok(findings)
    }

    fn references(&self, manifest: &Manifest, findings: &mut Findings) {
        let segments = manifest.files.iter().flat_map(|file| &file.segments);
        for segment in segments {
            let name = segment.object;
            let late = match self.head(&name) {
                Some(_) => None,
                None => self.head_now(&name),
            };
            match late.as_ref().or_else(|| self.head(&name)) {
                Some(record) if record.raw_len == segment.length => {}
                Some(_) => {
                    let error = Error::corrupt(&name, "has another length than a manifest says");
                    findings.faults.push((name, error));
                }
                None => findings.faults.push((name, Error::MissingObject { name })),
            }
            findings.late.extend(late);
        }
    }

    fn scan(&self, id: &ModelId) -> Option<Damage> {
        let path = self.store.layout().scan(id);
        let bytes = self.store.read_file(&path).ok()??;
        let reason = sealed::parse::<serde_json::Value>(&bytes).err()?;
        Some(Damage::harmless(format!(
            "{}: {reason}; nothing is lost, the next run reads the model again",
            path.display()
        )))
    }

    /// Decodes and hashes every chunk of every object, or of a part of them.
    fn read_data(&mut self, subset: Option<Subset>, monitor: &dyn Monitor) -> Result<()> {
        let reader = ObjectReader::new(self.store.clone());
        let wanted = |record: &&Record| subset.is_none_or(|subset| subset.has(&record.name));
        let objects: Vec<_> = self.heads.iter().filter(wanted).collect();
        let bytes = objects.iter().map(|record| record.raw_len);
        self.report.objects_read = objects.len();
        self.report.bytes_read = bytes.fold(0, u64::saturating_add);
        monitor.begin("check", self.report.bytes_read);
        let check = |record: &&Record| {
            read_object(&reader, record, monitor)
                .err()
                .map(|error| (record.name, error))
        };
        let errors: Vec<_> = objects.par_iter().filter_map(check).collect();
        monitor.end();
        for (name, error) in errors {
            // A base that is damaged is reported itself, with all that it hurts.
            let culprit = match &error {
                Error::CorruptObject { name, .. } | Error::MissingObject { name } => *name,
                _ => name,
            };
            self.blame_object(&culprit, error)?;
        }
        Ok(())
    }

    fn leftovers(&mut self) -> Result<()> {
        let strangers = std::mem::take(&mut self.strangers).into_iter();
        let odd = strangers.map(|path| format!("{path}: not an object"));
        self.report.warnings.extend(odd);
        let tmp = self.store.layout().tmp();
        let count = self
            .store
            .disk()
            .list(&tmp)
            .map_err(Error::io("list", &tmp))?
            .len();
        if count > 0 {
            self.report.warnings.push(format!(
                "{}: {}; the next run removes what is unfinished",
                tmp.display(),
                counted(count, "unfinished file")
            ));
        }
        Ok(())
    }
}

/// What is wrong with an object's base, and which of both is to blame.
fn misfit(store: &Store, record: &Record, base: Option<&Record>) -> Option<(Hash, Error)> {
    // A base of another length may stand for a part; its object's head tells.
    let fits = |base: &Record| {
        let head = || store.object(&record.name).map(|object| object.frame.head);
        base.raw_len == record.raw_len || head().is_ok_and(|head| head.fits_base(base.raw_len))
    };
    match base {
        _ if record.depth == 0 => None,
        Some(base) if base.depth < record.depth && fits(base) => None,
        Some(_) => {
            let error = Error::corrupt(&record.name, "its base does not fit it");
            Some((record.name, error))
        }
        None => Some((record.base, Error::MissingObject { name: record.base })),
    }
}

fn either<A, B>(result: std::result::Result<A, B>) -> rayon::iter::Either<A, B> {
    match result {
        Ok(good) => rayon::iter::Either::Left(good),
        Err(bad) => rayon::iter::Either::Right(bad),
    }
}

fn read_object(reader: &ObjectReader, record: &Record, monitor: &dyn Monitor) -> Result<()> {
    let size = record.dtype.chunk_bytes() as u64;
    (0..record.raw_len.div_ceil(size))
        .into_par_iter()
        .try_for_each(|index| {
            let length = (record.raw_len - index * size).min(size);
            let length = usize::try_from(length).unwrap_or(0);
            let checked = reader.buffers().with(length, |bytes| {
                reader.check_chunk(&record.name, index, bytes)
            });
            monitor.advance(length as u64);
            checked
        })
}

impl Subset {
    /// Tells whether an object is in this part.
    fn has(self, name: &Hash) -> bool {
        let [a, b, c, d, e, f, g, h, ..] = *name.as_bytes();
        let place = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        place % self.of.max(1) + 1 == self.number
    }
}

impl Damage {
    /// Something that can be made anew.
    fn harmless(reason: String) -> Self {
        Self {
            reason,
            object: None,
            models: Vec::new(),
            hurts: Vec::new(),
        }
    }
}

impl CheckReport {
    /// Tells whether anything is damaged.
    pub fn is_damaged(&self) -> bool {
        !self.damage.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::store::StoreWriter;

    #[test]
    fn parts_are_all_objects_each_of_them_once() {
        let names: Vec<_> = (0..60u8).map(|byte| Hash::of(&[byte])).collect();
        for of in 1..5 {
            let parts = |name: &&Hash| {
                (0..of + 2)
                    .filter(|number| {
                        Subset {
                            number: *number,
                            of,
                        }
                        .has(name)
                    })
                    .count()
            };
            assert_eq!(names.iter().map(|name| parts(&name)).max(), Some(1));
            assert_eq!(names.iter().map(|name| parts(&name)).min(), Some(1));
        }
        let mut bytes = [0; 32];
        bytes[7] = 10;
        assert!(Subset { number: 2, of: 3 }.has(&Hash::from_bytes(bytes)));
    }

    #[test]
    fn a_base_that_does_not_fit_is_the_differences_fault_and_a_missing_one_its_own() {
        let dir = tempfile::tempdir().unwrap();
        drop(StoreWriter::open(dir.path()).unwrap());
        let store = Store::open(dir.path()).unwrap();
        let (name, base) = (Hash::of(b"difference"), Hash::of(b"base"));
        let record = |name, depth, raw_len| Record {
            name,
            base,
            raw_len,
            stored_len: 100,
            codec: 3,
            dtype: DType::Bf16,
            depth,
        };
        // Depth of the object; depth and length of its base; whom that blames, the object being 64 bytes long.
        for (depth, of_base, culprit) in [
            (0, None, None),
            (0, Some((0, 64)), None),
            (1, Some((0, 64)), None),
            (2, Some((1, 64)), None),
            (1, Some((1, 64)), Some(name)),
            (1, Some((2, 64)), Some(name)),
            // What its head says of bases of other lengths cannot be read: the store has no such object.
            (1, Some((0, 32)), Some(name)),
            (1, Some((0, 128)), Some(name)),
            (1, None, Some(base)),
        ] {
            let of_base = of_base.map(|(depth, raw_len)| record(base, depth, raw_len));
            let found = misfit(&store, &record(name, depth, 64), of_base.as_ref());
            let is_missing = matches!(found, Some((_, Error::MissingObject { .. })));
            assert_eq!(is_missing, culprit == Some(base), "{depth}, {of_base:?}");
            assert_eq!(found.map(|(name, _)| name), culprit, "{depth}, {of_base:?}");
        }
    }
}
