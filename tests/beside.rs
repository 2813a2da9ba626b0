//! Readers beside a writer: at whichever moment of a check or a restore another program recodes the store, or adds to it,
//! what is read is right and nothing is called damaged.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests may fail the test"
)]

#[path = "common/disk.rs"]
mod disk;
#[path = "common/forge.rs"]
mod forge;
#[path = "common/random.rs"]
mod random;
#[path = "common/small.rs"]
mod small;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use disk::MemDisk;
use small::Family;
use zipllm::codec::EncodeOptions;
use zipllm::codec::select::{Effort, Family as Codecs};
use zipllm::object_reader::ObjectReader;
use zipllm::recode;
use zipllm::report::NoMonitor;
use zipllm::store::fs::{Disk, Entry, ReadFile, WriteFile};
use zipllm::store::{Store, StoreWriter};

type Meanwhile = Box<dyn FnOnce() + Send>;

/// A disk on which something else happens before one of the operations of who uses it.
#[derive(Clone)]
struct Shared {
    disk: MemDisk,
    next: Arc<Mutex<(usize, Option<Meanwhile>)>>,
}

impl Shared {
    fn new(disk: &MemDisk, at: usize, meanwhile: Meanwhile) -> Self {
        Self {
            disk: disk.clone(),
            next: Arc::new(Mutex::new((at, Some(meanwhile)))),
        }
    }

    fn tick(&self) {
        let mut next = self.next.lock().unwrap();
        if next.0 > 0 {
            next.0 -= 1;
            return;
        }
        let meanwhile = next.1.take();
        drop(next);
        // In a thread of no pool: one that waits in a pool may take up other work of the reader.
        if let Some(meanwhile) = meanwhile {
            std::thread::spawn(meanwhile).join().unwrap();
        }
    }

    /// Whether the moment came.
    fn happened(&self) -> bool {
        self.next.lock().unwrap().1.is_none()
    }
}

struct Reader(Box<dyn ReadFile>, Shared);

impl ReadFile for Reader {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.1.tick();
        self.0.read_exact_at(out, offset)
    }
}

impl Disk for Shared {
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.disk.create(path)
    }
    fn append(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.disk.append(path)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        self.tick();
        Ok(Box::new(Reader(self.disk.open(path)?, self.clone())))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        self.disk.create_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.tick();
        self.disk.list(path)
    }
}

/// Encodes every object of a store anew.
fn recode(disk: &MemDisk, root: &Path) {
    let options = recode::Options {
        threads: 1,
        encode: EncodeOptions {
            effort: Effort::Fast,
            ..EncodeOptions::default()
        },
        all: false,
    };
    let writer = StoreWriter::open_on(Arc::new(disk.clone()), root).unwrap();
    let report = recode::run(writer, options, &NoMonitor).unwrap();
    assert!(
        report.replaced > 0 && report.errors.is_empty(),
        "{report:?}"
    );
}

/// The three models in a row, stored with the codecs of planes.
fn old_store(family: &mut Family) -> MemDisk {
    family.encode.family = Codecs::BitX;
    let disk = MemDisk::new(&family.store());
    family.ingest(&disk);
    family.encode = EncodeOptions::default();
    disk
}

/// Runs `read` again and again, with something else at every moment of it; returns how many moments there were.
fn at_every_moment(
    start: &MemDisk,
    root: &Path,
    meanwhile: impl Fn(&MemDisk) + Clone + Send + 'static,
    read: impl Fn(&Store, &str),
) -> usize {
    for moment in 0.. {
        let disk = start.fork();
        let (meanwhile, other) = (meanwhile.clone(), disk.clone());
        let shared = Shared::new(&disk, moment, Box::new(move || meanwhile(&other)));
        let store = Store::open_on(Arc::new(shared.clone()), root).unwrap();
        read(&store, &format!("moment {moment}"));
        if !shared.happened() {
            return moment;
        }
    }
    0
}

fn assert_checks(store: &Store, what: &str) {
    let report = small::check(store);
    assert!(!report.is_damaged(), "{what}: {:?}", report.damage);
}

#[test]
fn a_check_beside_a_recode_finds_nothing_damaged() {
    let mut family = Family::three();
    let disk = old_store(&mut family);
    let root = family.store();
    let other = root.clone();
    let moments = at_every_moment(
        &disk,
        &root,
        move |disk| recode(disk, &other),
        assert_checks,
    );
    println!("{moments} moments");
    assert!(moments > 50);
}

#[test]
fn a_restore_beside_a_recode_is_right() {
    let mut family = Family::three();
    let disk = old_store(&mut family);
    let root = family.store();
    let other = root.clone();
    let moments = at_every_moment(
        &disk,
        &root,
        move |disk| recode(disk, &other),
        |store, what| {
            for model in family.models.keys() {
                assert!(family.restores(store, model).unwrap(), "{what}: {model}");
            }
        },
    );
    println!("{moments} moments");
    assert!(moments > 50);
}

#[test]
fn a_check_beside_a_run_that_adds_models_finds_nothing_damaged() {
    let family = Arc::new(Family::three());
    let disk = MemDisk::new(&family.store());
    let root = family.store();
    ingest_first(&family, &disk);
    let other = family.clone();
    let add = move |disk: &MemDisk| drop(other.ingest(disk));
    let moments = at_every_moment(&disk, &root, add, assert_checks);
    println!("{moments} moments");
    assert!(moments > 20);
}

/// Stores the first model alone.
fn ingest_first(family: &Family, disk: &MemDisk) {
    let options = zipllm::ingest::Options {
        threads: 1,
        encode: family.encode,
        disk: Arc::new(disk.clone()),
        ..zipllm::ingest::Options::default()
    };
    let (models, store) = (family.model_dir(), family.store());
    let report = zipllm::ingest::run(&family.jobs[..1], &models, &store, &options, &NoMonitor);
    assert_eq!(report.unwrap().models.len(), 1);
}

/// An object that is kept open is encoded anew without its base, and that base goes: it is read all the same.
#[test]
fn an_object_whose_base_goes_while_it_is_open_is_opened_anew() {
    let family = Family::three();
    let disk = MemDisk::new(&family.store());
    family.ingest(&disk);
    let store = family.open(&disk).unwrap();
    let index = store.index().unwrap();
    let mut tried = 0;
    for record in index.values().filter(|record| record.depth > 0) {
        let (reader, mut raw) = (ObjectReader::new(store.clone()), vec![0; 1 << 20]);
        raw.truncate(usize::try_from(record.raw_len).unwrap());
        reader.read_chunk(&record.name, 0, &mut raw).unwrap();
        for check in [false, true] {
            let disk = disk.fork();
            let reader = ObjectReader::new(family.open(&disk).unwrap());
            reader.open(&record.name).unwrap();
            let frame = alone(&record.name, &raw);
            disk.put(&store.layout().object(&record.name), frame);
            disk.delete(&store.layout().object(&record.base));
            let mut out = vec![0; raw.len()];
            let read = if check {
                reader.check_chunk(&record.name, 0, &mut out)
            } else {
                reader.read_chunk(&record.name, 0, &mut out)
            };
            assert!(read.is_ok() && out == raw, "{read:?}");
            tried += 1;
        }
    }
    assert!(tried > 2);
}

/// The object file of these bytes as they are.
fn alone(name: &zipllm::hash::Hash, raw: &[u8]) -> Vec<u8> {
    forge::Forged::new(raw.len(), 0, raw).bytes(name)
}
