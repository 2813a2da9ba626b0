//! `cat` of one tensor reads that tensor's chunks, its base's, and no more of the store.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail the test"
)]

#[path = "common/tensors.rs"]
mod tensors;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tensors::{safetensors, tuned, weights};
use zipllm::cat::{self, Selection};
use zipllm::ingest::{self, Job, Options};
use zipllm::report::NoMonitor;
use zipllm::store::Store;
use zipllm::store::fs::{Disk, Entry, LocalDisk, ReadFile, WriteFile};

/// The local disk, counting the bytes that are read.
#[derive(Clone, Default)]
struct Counting(Arc<AtomicU64>);

struct CountingFile(Box<dyn ReadFile>, Arc<AtomicU64>);

impl ReadFile for CountingFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.1.fetch_add(out.len() as u64, Ordering::Relaxed);
        self.0.read_exact_at(out, offset)
    }
}

impl Disk for Counting {
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(CountingFile(
            LocalDisk.open(path)?,
            self.0.clone(),
        )))
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        LocalDisk.create(path)
    }
    fn append(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        LocalDisk.append(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        LocalDisk.rename(from, to)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        LocalDisk.sync_dir(path)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        LocalDisk.remove(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        LocalDisk.create_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        LocalDisk.list(path)
    }
}

/// 20 tensors of 2 MB and one of 8 MB, in a base and its fine-tune.
#[test]
fn one_tensor_costs_no_more_than_its_own_bytes() {
    const TENSOR: usize = 1_000_000;
    let dir = tempfile::tempdir().unwrap();
    let (models, store) = (dir.path().join("models"), dir.path().join("store"));
    let mut values: Vec<_> = (0..20).map(|seed| weights(seed, TENSOR)).collect();
    values.push(weights(99, 4 * TENSOR));
    let mut jobs = Vec::new();
    for name in ["base", "tune"] {
        let named: Vec<_> = (0..)
            .zip(&values)
            .map(|(at, bytes)| (format!("t{at}"), bytes))
            .collect();
        let shapes: Vec<_> = values
            .iter()
            .map(|bytes| [bytes.len() as u64 / 2])
            .collect();
        let tensors: Vec<_> = named
            .iter()
            .zip(&shapes)
            .map(|((name, bytes), shape)| (name.as_str(), "BF16", &shape[..], bytes.as_slice()))
            .collect();
        fs::create_dir_all(models.join(name)).unwrap();
        fs::write(
            models.join(name).join("model.safetensors"),
            safetensors(&tensors),
        )
        .unwrap();
        jobs.push(Job {
            model: name.parse().unwrap(),
            base: (name == "tune").then(|| "base".parse().unwrap()),
        });
        values.iter_mut().for_each(|bytes| *bytes = tuned(bytes, 7));
    }
    ingest::run(&jobs, &models, &store, &Options::default(), &NoMonitor).unwrap();
    for (model, tensor, range, limit) in [
        ("base", "t7", None, 3_000_000),
        ("tune", "t7", None, 5_000_000),
        // A byte of the large tensor: one of its four chunks.
        ("base", "t20", Some("5000000-5000000"), 3_000_000),
        ("tune", "t20", Some("5000000-5000000"), 5_000_000),
    ] {
        let disk = Counting::default();
        let store = Store::open_on(Arc::new(disk.clone()), &store).unwrap();
        let manifest = store.newest(&model.parse().unwrap()).unwrap().unwrap();
        let selection = Selection {
            path: "model.safetensors".parse().unwrap(),
            tensor: Some(tensor.into()),
            range: range.map(|range| range.parse().unwrap()),
        };
        let mut out = Vec::new();
        cat::run(&store, &manifest, &selection, 2, &mut out).unwrap();
        assert_eq!(out.len(), if range.is_some() { 1 } else { 2 * TENSOR });
        let read = disk.0.load(Ordering::Relaxed);
        println!("{model} {tensor} {range:?}: {read} bytes read");
        assert!(read < limit, "{model} {tensor}: {read} bytes read");
    }
}
