//! A tiny family that exercises everything a store can hold, and how it is stored and compared.
#![allow(dead_code, reason = "no test uses all of it")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "helpers of tests may fail the test"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use zipllm::check::{self, CheckReport};
use zipllm::codec::EncodeOptions;
use zipllm::ingest::{self, Job, Options};
use zipllm::object_reader::ObjectReader;
use zipllm::report::{IngestReport, Monitor, NoMonitor, Status};
use zipllm::store::Store;
use zipllm::store::fs::Disk;
use zipllm::store::manifest::Manifest;

use super::random::Random;

/// A model's files by path, with their content and whether they may be executed.
pub type Files = BTreeMap<String, (Vec<u8>, bool)>;

/// A family on the local disk: what is in it, and where.
pub struct Family {
    /// How the batch is encoded.
    pub encode: EncodeOptions,
    dir: TempDir,
    /// The batch, bases first.
    pub jobs: Vec<Job>,
    /// Every model's files.
    pub models: BTreeMap<String, Files>,
}

/// A tensor's row of a safetensors header, and its bytes.
pub struct Tensor(pub &'static str, pub &'static str, pub Vec<u8>);

/// Builds a safetensors file of one-dimensional tensors.
pub fn safetensors(tensors: &[Tensor]) -> Vec<u8> {
    let (mut rows, mut data) = (Vec::new(), Vec::<u8>::new());
    for Tensor(name, dtype, bytes) in tensors {
        let size = match *dtype {
            "F64" | "I64" => 8,
            "F32" => 4,
            "BF16" | "F16" => 2,
            _ => 1,
        };
        let (start, count) = (data.len(), bytes.len() / size);
        data.extend(bytes);
        let end = data.len();
        rows.push(format!(
            r#""{name}":{{"dtype":"{dtype}","shape":[{count}],"data_offsets":[{start},{end}]}}"#
        ));
    }
    let header = format!("{{{}}}", rows.join(","));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    file.extend(data);
    file
}

/// BF16 numbers as weights have them: around zero, of a few magnitudes.
pub fn weights(random: &mut Random, count: usize) -> Vec<u8> {
    let weight = |_| {
        let sum: i64 = (0..4)
            .map(|_| (random.next() >> 48) as i64 - (1 << 15))
            .sum();
        #[allow(clippy::cast_precision_loss)]
        let value = sum as f32 * 1e-6;
        ((value.to_bits() >> 16) as u16).to_le_bytes()
    };
    (0..count).flat_map(weight).collect()
}

/// The same weights after a little training: a few low bits differ.
pub fn tuned(random: &mut Random, weights: &[u8]) -> Vec<u8> {
    let mut out = weights.to_vec();
    for low in out.iter_mut().step_by(2) {
        if random.below(6) == 0 {
            *low ^= 1 + (random.below(2) as u8);
        }
    }
    out
}

fn plain(bytes: impl Into<Vec<u8>>) -> (Vec<u8>, bool) {
    (bytes.into(), false)
}

/// Three models in a row of fine-tuning, and one that has nothing to do with them.
fn models() -> BTreeMap<String, Files> {
    let mut random = Random::new(7);
    let config = |name: &str| {
        plain(format!(
            "{{\n  \"name\": \"{name}\",\n  \"a\": 1,\n  \"b\": 1,\n  \"c\": 1,\n  \"layers\": [1, 1, 1, 1, 1, 1, 1]\n}}\n"
        ))
    };
    let shared = weights(&mut random, 120);
    let vocabulary = random.bytes(150);
    let single: Vec<u8> = (0..40u8)
        .flat_map(|i| (1.0 + f32::from(i % 4)).to_le_bytes())
        .collect();
    let mut w = weights(&mut random, 420);
    let mut models = BTreeMap::new();
    for name in ["org/base", "org/tuned", "org/tuned_again"] {
        let mut files = Files::new();
        files.insert("config.json".into(), config(name));
        files.insert("tokenizer.bin".into(), plain(vocabulary.clone()));
        files.insert(
            "model.safetensors".into(),
            plain(safetensors(&[
                Tensor("w", "BF16", w.clone()),
                Tensor("same", "BF16", shared.clone()),
                Tensor("scale", "F32", single.clone()),
            ])),
        );
        if name == "org/base" {
            files.insert("empty.txt".into(), plain(""));
            files.insert(
                "sub/dir/run.sh".into(),
                (b"#!/bin/sh\necho hello\n".into(), true),
            );
        }
        models.insert(name.to_owned(), files);
        w = tuned(&mut random, &w);
    }
    let mut lone = Files::new();
    lone.insert(
        "broken.safetensors".into(),
        plain([&[9u8; 8][..], b"not a header"].concat()),
    );
    lone.insert("weights.bin".into(), plain(random.bytes(90)));
    models.insert("lone".into(), lone);
    models
}

/// Writes files below `root`.
pub fn write_files(root: &Path, files: &Files) {
    for (path, (bytes, executable)) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        let mode = if *executable { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// A job.
pub fn job(model: &str, base: Option<&str>) -> Job {
    Job {
        model: model.parse().unwrap(),
        base: base.map(|base| base.parse().unwrap()),
    }
}

impl Family {
    /// The whole family, written to a directory.
    pub fn new() -> Self {
        Self::of(
            models(),
            vec![
                job("org/base", None),
                job("org/tuned", Some("org/base")),
                job("org/tuned_again", Some("org/tuned")),
                job("lone", None),
            ],
        )
    }

    /// The three models in a row.
    pub fn three() -> Self {
        let mut models = models();
        models.remove("lone");
        let mut family = Self::of(models, Family::new().jobs);
        family.jobs.pop();
        family
    }

    /// These models, written to a directory.
    pub fn of(models: BTreeMap<String, Files>, jobs: Vec<Job>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("store")).unwrap();
        for (name, files) in &models {
            write_files(&dir.path().join("models").join(name), files);
        }
        let encode = EncodeOptions::default();
        Self {
            encode,
            dir,
            jobs,
            models,
        }
    }

    /// Waits until the files are old enough for a scan to be recorded.
    pub fn settle(self) -> Self {
        std::thread::sleep(std::time::Duration::from_millis(3100));
        self
    }

    /// A directory for what a test likes.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Where the store lies, on whichever disk.
    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Where the models lie.
    pub fn model_dir(&self) -> PathBuf {
        self.dir.path().join("models")
    }

    /// Stores the batch on a disk.
    pub fn try_ingest(
        &self,
        disk: Arc<dyn Disk>,
        monitor: &dyn Monitor,
    ) -> zipllm::Result<IngestReport> {
        let options = Options {
            threads: 1,
            encode: self.encode,
            disk,
            ..Options::default()
        };
        ingest::run(
            &self.jobs,
            &self.model_dir(),
            &self.store(),
            &options,
            monitor,
        )
    }

    /// Stores the batch on a disk, and all of it.
    pub fn ingest(&self, disk: &(impl Disk + Clone + 'static)) -> IngestReport {
        let report = self.try_ingest(Arc::new(disk.clone()), &NoMonitor).unwrap();
        for model in &report.models {
            assert!(
                matches!(model.status, Status::Stored | Status::AlreadyStored),
                "{model:?}"
            );
        }
        report
    }

    /// Opens the store on a disk.
    pub fn open(&self, disk: &(impl Disk + Clone + 'static)) -> zipllm::Result<Store> {
        Store::open_on(Arc::new(disk.clone()), &self.store())
    }

    /// Tells whether a model comes back as it was; an error is a reason, wrong bytes a panic.
    pub fn restores(&self, store: &Store, model: &str) -> zipllm::Result<bool> {
        match store.newest(&model.parse().unwrap())? {
            None => Ok(false),
            Some(manifest) => compare(store, &manifest, &self.models[model]).map(|()| true),
        }
    }

    /// Asserts that the store is whole and has every model as it is.
    pub fn assert_whole(&self, disk: &(impl Disk + Clone + 'static), what: &str) {
        let store = self.open(disk).unwrap();
        let report = check(&store);
        assert!(!report.is_damaged(), "{what}: {:?}", report.damage);
        for model in self.models.keys() {
            assert!(self.restores(&store, model).unwrap(), "{what}: {model}");
        }
    }
}

/// Checks a store, every byte of it.
pub fn check(store: &Store) -> CheckReport {
    let options = check::Options {
        threads: 1,
        read_data: true,
        subset: None,
    };
    check::run(store, options, &NoMonitor).unwrap()
}

/// Decodes every file of a manifest as restore does, and compares it with what it was.
///
/// # Panics
/// Wrong bytes without an error are what must never be.
pub fn compare(store: &Store, manifest: &Manifest, files: &Files) -> zipllm::Result<()> {
    let reader = ObjectReader::new(store.clone());
    assert_eq!(
        manifest
            .files
            .iter()
            .map(|f| f.path.as_str())
            .collect::<Vec<_>>(),
        files.keys().map(String::as_str).collect::<Vec<_>>()
    );
    for (entry, (bytes, executable)) in manifest.files.iter().zip(files.values()) {
        assert_eq!(entry.executable, *executable, "{}", entry.path);
        let mut found = Vec::new();
        for segment in &entry.segments {
            let mut part = vec![0; segment.length as usize];
            let head = reader.open(&segment.object)?.file.frame.head.clone();
            if head.raw_len != segment.length {
                return Err(zipllm::Error::corrupt(&segment.object, "another length"));
            }
            let size = head.dtype.chunk_bytes();
            for (index, chunk) in (0..).zip(part.chunks_mut(size)) {
                reader.read_chunk(&segment.object, index, chunk)?;
            }
            found.extend(part);
        }
        assert!(found == *bytes, "wrong bytes in {}", entry.path);
    }
    Ok(())
}
