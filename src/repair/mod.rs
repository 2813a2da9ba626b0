//! Repair: makes anew what can be made anew, and says what is lost.
//!
//! A damaged or missing format marker is written anew. Opening the store for writing removes unfinished files and makes a damaged index anew. A damaged or missing object is
//! stored anew if a file in the models' directory still has its bytes; where it has not, so are the objects that were encoded
//! against it. Nothing is deleted but scans, which only save reading: a damaged object's file stays until one that is
//! known to be right takes its place.

mod raw;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rayon::ThreadPool;
use serde::Serialize;

use crate::check::{self, CheckReport, Damage};
use crate::codec::EncodeOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::object_factors::Preparation;
use crate::object_reader::ObjectReader;
use crate::object_writer::{Base, NewObject};
use crate::report::Monitor;
use crate::store::index::Index;
use crate::store::object::MAX_DEPTH;
use crate::store::{Store, StoreWriter, sealed};
use crate::threads;
use raw::{Places, RawBytes};

/// How to repair.
#[derive(Clone, Debug)]
pub struct Options {
    /// Worker threads, at least one.
    pub threads: usize,
    /// Settings of the codecs.
    pub encode: EncodeOptions,
    /// Where the models' files may still be.
    pub model_dir: Option<PathBuf>,
    /// Whether to wait while another process writes to the store.
    pub wait: bool,
}

/// What was repaired, and what was not.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RepairReport {
    /// Whether the format marker, `zipllm.json`, was written anew.
    pub marker_rewritten: bool,
    /// Unfinished files that were removed.
    pub temps_removed: usize,
    /// Whether the index was made anew.
    pub index_rebuilt: bool,
    /// Damaged scans that were removed; the next run reads those models again.
    pub scans_removed: usize,
    /// Objects that were stored anew.
    pub healed: Vec<Healed>,
    /// What is damaged still, and what cannot be restored because of it.
    pub lost: Vec<Damage>,
    /// Seconds of the whole run.
    pub seconds: f64,
}

/// An object that was stored anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Healed {
    /// The object.
    pub object: Hash,
    /// The file that had its bytes.
    pub from: PathBuf,
}

/// Repairs the store at `root`.
///
/// # Errors
/// Fails where the store cannot be read or written; damage that stays is in the report.
pub fn run(root: &Path, options: &Options, monitor: &dyn Monitor) -> Result<RepairReport> {
    let start = Instant::now();
    let marker_rewritten = StoreWriter::mend_marker(root, options.wait)?;
    let mut report = look_before(root)?;
    report.marker_rewritten = marker_rewritten;
    let mut writer = StoreWriter::open_existing(root, options.wait)?;
    report.scans_removed = remove_scans(&mut writer)?;
    let pool = threads::pool(options.threads, root)?;
    let found = check(writer.store(), options, monitor)?;
    let mut repair = Repair {
        writer: &mut writer,
        pool: &pool,
        options,
        places: Places::default(),
        healed: Vec::new(),
    };
    repair.all(&found)?;
    report.healed = repair.healed;
    // Only what is found once more is said to be lost.
    let after = if report.healed.is_empty() {
        found
    } else {
        check(writer.store(), options, monitor)?
    };
    writer.close()?;
    report.lost = after.damage;
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

/// What opening the store for writing is going to put right.
fn look_before(root: &Path) -> Result<RepairReport> {
    let store = Store::open(root)?;
    let tmp = store.layout().tmp();
    let temps = store.disk().list(&tmp).map_err(Error::io("list", &tmp))?;
    let names = store.objects()?.0;
    let index = store.stored_index()?;
    Ok(RepairReport {
        temps_removed: temps.iter().filter(|entry| !entry.is_dir).count(),
        index_rebuilt: index.is_none_or(|index| !index.keys().eq(&names)),
        ..RepairReport::default()
    })
}

fn remove_scans(writer: &mut StoreWriter) -> Result<usize> {
    let store = writer.store().clone();
    let mut removed = 0;
    for model in store.models()? {
        let bytes = store.read_file(&store.layout().scan(&model.id))?;
        let is_damaged = |bytes: Vec<u8>| sealed::parse::<serde_json::Value>(&bytes).is_err();
        if bytes.is_some_and(is_damaged) {
            writer.forget(&model.id)?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn check(store: &Store, options: &Options, monitor: &dyn Monitor) -> Result<CheckReport> {
    let options = check::Options {
        threads: options.threads,
        read_data: true,
        subset: None,
    };
    check::run(store, options, monitor)
}

struct Repair<'a> {
    writer: &'a mut StoreWriter,
    pool: &'a ThreadPool,
    options: &'a Options,
    places: Places,
    healed: Vec<Healed>,
}

impl Repair<'_> {
    fn all(&mut self, found: &CheckReport) -> Result<()> {
        let Some(model_dir) = &self.options.model_dir else {
            return Ok(());
        };
        let damaged = found.damage.iter().filter_map(|damage| damage.object);
        let mut broken: BTreeSet<Hash> = damaged.collect();
        if broken.is_empty() {
            return Ok(());
        }
        let index = self.writer.store().index()?;
        let dependents = dependents(&index, &broken);
        let wanted = dependents.iter().map(|(_, name)| name).chain(&broken);
        self.places = Places::of(self.writer.store(), model_dir, wanted.copied().collect())?;
        // The culprits first, those without a base before those that may have one.
        let depth = |name: &Hash| index.get(name).map_or(0, |record| record.depth);
        let mut culprits: Vec<_> = broken.iter().map(|name| (depth(name), *name)).collect();
        culprits.sort_unstable();
        self.heal(&culprits, &mut broken)?;
        // What is encoded against something lost is lost too, unless it can do without.
        for depth in 1..=MAX_DEPTH {
            let is_lost = |name: &Hash| {
                let base = index.get(name).map(|record| record.base);
                base.is_some_and(|base| broken.contains(&base))
            };
            let of_depth = dependents
                .iter()
                .filter(|(of, name)| *of == depth && is_lost(name));
            let lost: Vec<_> = of_depth.copied().collect();
            broken.extend(lost.iter().map(|(_, name)| *name));
            self.heal(&lost, &mut broken)?;
        }
        Ok(())
    }

    /// Stores anew what can be; that is then no longer broken. Depth by depth, so that bases can be used.
    fn heal(&mut self, names: &[(u8, Hash)], broken: &mut BTreeSet<Hash>) -> Result<()> {
        let mut by_depth: BTreeMap<u8, Vec<Hash>> = BTreeMap::new();
        for (depth, name) in names {
            by_depth.entry(*depth).or_default().push(*name);
        }
        for names in by_depth.values() {
            let reader = ObjectReader::new(self.writer.store().clone());
            for name in names {
                let places = self.places.take(name);
                for place in places {
                    match self.store(&reader, name, &place, broken) {
                        Ok(true) => {
                            let from = place.path().to_path_buf();
                            self.healed.push(Healed {
                                object: *name,
                                from,
                            });
                            broken.remove(name);
                            break;
                        }
                        Ok(false) => {}
                        Err(error) if self.writer.is_poisoned() => return Err(error),
                        // A file that cannot be read is one place less.
                        Err(error) => tracing::warn!("{error}"),
                    }
                }
            }
            self.writer.barrier()?;
        }
        Ok(())
    }

    /// Stores an object from a file, if the file has its bytes.
    fn store(
        &mut self,
        reader: &ObjectReader,
        name: &Hash,
        place: &RawBytes,
        broken: &BTreeSet<Hash>,
    ) -> Result<bool> {
        let Some(digest) = self.pool.install(|| place.digest())? else {
            return Ok(false);
        };
        if digest.name != *name {
            return Ok(false);
        }
        // Its own base will do if that is whole; then it lies no deeper than before.
        let old = reader.open(name).ok();
        let base = old.and_then(|old| old.file.frame.head.bases.first().map(|base| base.name));
        let base = base.filter(|base| !broken.contains(base));
        let base = base.map(|base| reader.open(&base)).transpose();
        let base = match base {
            Err(error) if error.kind() == ErrorKind::Io => return Err(error),
            other => other.ok().flatten(),
        };
        let base = base.filter(|base| {
            let head = &base.file.frame.head;
            head.raw_len == place.length && head.dtype == place.dtype
        });
        let elements = place.length / place.dtype.size() as u64;
        let object = NewObject {
            digest,
            dtype: place.dtype,
            row_len: place.row_len,
            raw_len: place.length,
            base: base.map(|base| Base::whole(base, place.dtype, elements)),
            set_rows: 0,
            preparation: Preparation::default(),
        };
        let read = |offset: u64, out: &mut [u8]| place.read(offset, out);
        object.store(self.writer, reader, self.pool, &self.options.encode, &read)?;
        Ok(true)
    }
}

/// All objects that are encoded against a broken one, or against such an object, with their depths, ascending.
fn dependents(index: &Index, broken: &BTreeSet<Hash>) -> Vec<(u8, Hash)> {
    let mut records: Vec<_> = index.values().filter(|record| record.depth > 0).collect();
    records.sort_by_key(|record| (record.depth, record.name));
    let mut found: HashMap<Hash, u8> = HashMap::new();
    for record in records {
        let on_broken = broken.contains(&record.base) || found.contains_key(&record.base);
        if on_broken && !broken.contains(&record.name) {
            found.insert(record.name, record.depth);
        }
    }
    let mut found: Vec<_> = found
        .into_iter()
        .map(|(name, depth)| (depth, name))
        .collect();
    found.sort_unstable();
    found
}
