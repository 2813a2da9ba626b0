//! Check: the store's invariants, and with `read_data` every stored byte.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use rayon::prelude::*;
use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::object_reader::ObjectReader;
use crate::report::Monitor;
use crate::store::index::{Index, Record};
use crate::store::manifest::Manifest;
use crate::store::object::{Head, PARTS};
use crate::store::sealed;
use crate::store::{ObjectFile, Store};
use crate::threads;

/// How to check.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Worker threads, at least one.
    pub threads: usize,
    /// Whether every object is decoded and hashed.
    pub read_data: bool,
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
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// What is wrong, naming the object or file.
    pub reason: String,
    /// The files that cannot be restored because of it, as `model@version: path`.
    pub hurts: Vec<String>,
}

/// Checks a store.
///
/// # Errors
/// Fails only where the store cannot be listed; damage is in the report.
pub fn run(store: &Store, options: Options, monitor: &dyn Monitor) -> Result<CheckReport> {
    let start = Instant::now();
    let pool = threads::pool(options.threads, store.layout().root())?;
    let mut check = Check {
        store,
        damaged: BTreeMap::new(),
        parts: BTreeMap::new(),
        report: CheckReport::default(),
    };
    pool.install(|| check.all(options, monitor))?;
    check.report.threads = options.threads;
    check.report.seconds = start.elapsed().as_secs_f64();
    Ok(check.report)
}

struct Check<'a> {
    store: &'a Store,
    /// Objects that are damaged or missing, and how.
    damaged: BTreeMap<Hash, String>,
    /// Heads of objects whose bases need not be as long as they are.
    parts: BTreeMap<Hash, Head>,
    report: CheckReport,
}

impl Check<'_> {
    fn all(&mut self, options: Options, monitor: &dyn Monitor) -> Result<()> {
        let heads = self.heads()?;
        self.bases(&heads);
        self.index(&heads)?;
        self.sketches()?;
        let manifests = self.manifests()?;
        self.references(&heads, &manifests);
        if options.read_data {
            self.read_data(&heads, monitor)?;
        }
        self.leftovers()?;
        self.attribute(&heads, &manifests);
        Ok(())
    }

    /// Opens every object: head, table, seal and length.
    fn heads(&mut self) -> Result<Index> {
        let (names, strangers) = self.store.objects()?;
        self.report.objects = names.len();
        self.report.warnings.extend(
            strangers
                .into_iter()
                .map(|path| format!("{path}: not an object")),
        );
        // A file is closed as soon as its head is known: there may be more objects than descriptors.
        let head = |name: &Hash| {
            let object = self.store.object(name);
            let known = |object: ObjectFile| {
                let record = Record::of(name, &object.frame);
                let head = object.frame.head;
                (record, Some(head).filter(|head| head.required & PARTS != 0))
            };
            (*name, object.map(known))
        };
        let opened: Vec<_> = names.par_iter().map(head).collect();
        let mut heads = Index::new();
        for (name, known) in opened {
            match known {
                Ok((record, parts)) => {
                    heads.insert(name, record);
                    self.parts.extend(parts.map(|head| (name, head)));
                }
                Err(error) => self.blame_object(&name, error)?,
            }
        }
        Ok(heads)
    }

    fn note(&mut self, name: &Hash, error: &Error) {
        self.damaged
            .entry(*name)
            .or_insert_with(|| error.to_string());
    }

    /// Notes an object as damaged; what is the system's fault and not the object's ends the check.
    fn blame_object(&mut self, name: &Hash, error: Error) -> Result<()> {
        if error.kind() == ErrorKind::Io {
            return Err(error);
        }
        self.note(name, &error);
        Ok(())
    }

    fn bases(&mut self, heads: &Index) {
        for record in heads.values().filter(|record| record.depth > 0) {
            match heads.get(&record.base) {
                Some(base) if base.depth < record.depth && self.fits(record, base) => {}
                Some(_) => self.note(
                    &record.name,
                    &Error::corrupt(&record.name, "its base does not fit it"),
                ),
                None => self.note(&record.base, &Error::MissingObject { name: record.base }),
            }
        }
    }

    fn fits(&self, record: &Record, base: &Record) -> bool {
        let parts = self.parts.get(&record.name);
        parts.map_or(base.raw_len == record.raw_len, |head| {
            head.fits_base(base.raw_len)
        })
    }

    fn index(&mut self, heads: &Index) -> Result<()> {
        let layout = self.store.layout();
        if self.store.exists(&layout.dirty())? || !self.store.exists(&layout.object_log())? {
            self.report.warnings.push(
                "the index may lack objects of a run that was stopped; the next run rebuilds it"
                    .into(),
            );
            return Ok(());
        }
        let damaged = match self.store.stored_index()? {
            Some(index) => index != *heads && self.damaged.is_empty(),
            None => true,
        };
        if damaged {
            let path = layout.object_log();
            let reason = format!(
                "{}: damaged; nothing is lost, the next run rebuilds it",
                path.display()
            );
            self.report.damage.push(Damage {
                reason,
                hurts: Vec::new(),
            });
        }
        Ok(())
    }

    /// Reads the log of sketches; a run that was stopped may have left a part of a record.
    fn sketches(&mut self) -> Result<()> {
        let layout = self.store.layout();
        if self.store.exists(&layout.dirty())? || self.store.sketches()?.refused == 0 {
            return Ok(());
        }
        let path = layout.sketch_log();
        let reason = format!(
            "{}: damaged; nothing is lost, zipllm optimize rebuilds it",
            path.display()
        );
        self.report.damage.push(Damage {
            reason,
            hurts: Vec::new(),
        });
        Ok(())
    }

    fn manifests(&mut self) -> Result<Vec<Manifest>> {
        let mut manifests = Vec::new();
        let models = self.store.models()?;
        self.report.models = models.len();
        for model in models {
            for version in &model.versions {
                self.report.versions += 1;
                match self.store.manifest(&model.id, *version) {
                    Ok(manifest) => manifests.extend(manifest),
                    Err(error) => {
                        let hurts = vec![format!("{}@{version}", model.id)];
                        self.report.damage.push(Damage {
                            reason: error.to_string(),
                            hurts,
                        });
                    }
                }
            }
            self.scan(&model.id);
        }
        Ok(manifests)
    }

    fn scan(&mut self, id: &crate::name::ModelId) {
        let path = self.store.layout().scan(id);
        if let Ok(Some(bytes)) = self.store.read_file(&path)
            && let Err(reason) = sealed::parse::<serde_json::Value>(&bytes)
        {
            let reason = format!(
                "{}: {reason}; nothing is lost, the next run reads the model again",
                path.display()
            );
            self.report.damage.push(Damage {
                reason,
                hurts: Vec::new(),
            });
        }
    }

    fn references(&mut self, heads: &Index, manifests: &[Manifest]) {
        for segment in manifests
            .iter()
            .flat_map(|manifest| &manifest.files)
            .flat_map(|file| &file.segments)
        {
            match heads.get(&segment.object) {
                Some(record) if record.raw_len == segment.length => {}
                Some(_) => self.note(
                    &segment.object,
                    &Error::corrupt(&segment.object, "has another length than a manifest says"),
                ),
                None => self.note(
                    &segment.object,
                    &Error::MissingObject {
                        name: segment.object,
                    },
                ),
            }
        }
    }

    /// Decodes and hashes every chunk of every object.
    fn read_data(&mut self, heads: &Index, monitor: &dyn Monitor) -> Result<()> {
        let reader = ObjectReader::new(self.store.clone());
        let objects: Vec<_> = heads.values().collect();
        let bytes = objects.iter().map(|record| record.raw_len);
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
        let tmp = self.store.layout().tmp();
        let count = self
            .store
            .disk()
            .list(&tmp)
            .map_err(Error::io("list", &tmp))?
            .len();
        if count > 0 {
            self.report.warnings.push(format!(
                "{}: {count} unfinished files; the next run removes them",
                tmp.display()
            ));
        }
        Ok(())
    }

    /// Says for each damaged object which files need it, itself or as a base.
    fn attribute(&mut self, heads: &Index, manifests: &[Manifest]) {
        let mut users: BTreeMap<Hash, BTreeSet<String>> = BTreeMap::new();
        if !self.damaged.is_empty() {
            for manifest in manifests {
                for file in &manifest.files {
                    let label = format!("{}@{}: {}", manifest.model, manifest.version, file.path);
                    for segment in &file.segments {
                        self.blame(heads, segment.object, &label, &mut users);
                    }
                }
            }
        }
        for (name, reason) in &self.damaged {
            let hurts = users.remove(name).unwrap_or_default().into_iter().collect();
            self.report.damage.push(Damage {
                reason: reason.clone(),
                hurts,
            });
        }
    }

    fn blame(
        &self,
        heads: &Index,
        object: Hash,
        label: &str,
        users: &mut BTreeMap<Hash, BTreeSet<String>>,
    ) {
        let mut next = Some(object);
        for _ in 0..=crate::store::object::MAX_DEPTH {
            let Some(name) = next else { return };
            if self.damaged.contains_key(&name) {
                users.entry(name).or_default().insert(label.to_owned());
            }
            next = heads
                .get(&name)
                .filter(|record| record.depth > 0)
                .map(|record| record.base);
        }
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

impl CheckReport {
    /// Tells whether anything is damaged.
    pub fn is_damaged(&self) -> bool {
        !self.damage.is_empty()
    }
}
