//! Properties (T9): random sequences of what people do, against a map in memory.
//!
//! `ZIPLLM_CASES` sets the number of sequences, `ZIPLLM_SEED` the first seed.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of tests may fail the test"
)]

#[path = "common/disk.rs"]
mod disk;
#[path = "common/random.rs"]
mod random;
#[path = "common/small.rs"]
mod small;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use disk::{Fault, MemDisk};
use random::Random;
use small::{Family, Files, Tensor, check, compare, job, safetensors};
use zipllm::ingest::{self, Options};
use zipllm::report::{NoMonitor, Status};
use zipllm::restore;

const MODELS: [&str; 4] = ["org/base", "org/tuned", "org/tuned_again", "other"];
const PATHS: [&str; 6] = [
    "model.safetensors",
    "sub/model-2.safetensors",
    "config.json",
    "sub/a/tokenizer.bin",
    "run.sh",
    "empty",
];

/// The world as it should be.
struct World {
    random: Random,
    family: Family,
    disk: MemDisk,
    /// Every version that was stored, oldest first.
    stored: BTreeMap<&'static str, Vec<Files>>,
}

impl World {
    fn new(seed: u64) -> Self {
        let jobs = vec![
            job(MODELS[0], None),
            job(MODELS[1], Some(MODELS[0])),
            job(MODELS[2], Some(MODELS[1])),
            job(MODELS[3], Some("nobody/knows")),
        ];
        let family = Family::of(BTreeMap::new(), jobs);
        Self {
            random: Random::new(seed),
            disk: MemDisk::new(&family.store()),
            stored: MODELS.iter().map(|model| (*model, Vec::new())).collect(),
            family,
        }
    }

    fn step(&mut self) {
        let model = MODELS[self.random.below(MODELS.len())];
        match self.random.below(10) {
            0..=2 => self.write(model),
            3 => self.change(model),
            4 => self.delete(model),
            5 | 6 => self.ingest(),
            7 => self.ingest_on_a_failing_disk(),
            8 => self.restore(model),
            _ => self.leave(model),
        }
    }

    /// Writes a file of a kind that its name tells, mostly like one that is there already.
    fn write(&mut self, model: &'static str) {
        let path = PATHS[self.random.below(PATHS.len())];
        let content = match path {
            "model.safetensors" | "sub/model-2.safetensors" => self.checkpoint(),
            "config.json" => format!("{{\"n\": {}}}", self.random.below(3))
                .repeat(20)
                .into_bytes(),
            "empty" => Vec::new(),
            _ => {
                let seed = self.random.below(5) as u64;
                Random::new(seed).bytes(self.random.below(300))
            }
        };
        let executable = path == "run.sh" && self.random.below(2) == 0;
        self.files(model)
            .insert(path.to_owned(), (content, executable));
        self.write_out(model);
    }

    /// Tensors of a few dtypes; many are equal to others', or nearly.
    fn checkpoint(&mut self) -> Vec<u8> {
        let mut tensor = |name, dtype| {
            let mut seed = Random::new(self.random.below(2) as u64);
            let mut bytes = small::weights(&mut seed, 64);
            if self.random.below(2) == 0 {
                bytes = small::tuned(&mut self.random, &bytes);
            }
            Tensor(name, dtype, bytes)
        };
        let file = safetensors(&[tensor("w", "BF16"), tensor("v", "F32"), tensor("i", "I64")]);
        // Some are cut short, and are no safetensors then.
        let length = if self.random.below(8) == 0 {
            self.random.below(file.len())
        } else {
            file.len()
        };
        file[..length].to_vec()
    }

    fn change(&mut self, model: &'static str) {
        let (at, bit, toggle) = (
            self.random.below(1000),
            self.random.below(8),
            self.random.below(4),
        );
        let count = self.family.models.get(model).map_or(0, Files::len);
        let chosen = if count == 0 {
            return;
        } else {
            self.random.below(count)
        };
        let (content, executable) = self.files(model).values_mut().nth(chosen).unwrap();
        if toggle == 0 {
            *executable = !*executable;
        } else if !content.is_empty() {
            let at = at % content.len();
            content[at] ^= 1 << bit;
        }
        self.write_out(model);
    }

    fn delete(&mut self, model: &'static str) {
        let count = self.family.models.get(model).map_or(0, Files::len);
        if count > 1 {
            let chosen = self.random.below(count);
            let path = self.files(model).keys().nth(chosen).unwrap().clone();
            self.files(model).remove(&path);
            self.write_out(model);
        }
    }

    /// Removes the model's directory; what is stored stays.
    fn leave(&mut self, model: &'static str) {
        if self.random.below(4) == 0 {
            self.family.models.remove(model);
            self.write_out(model);
        }
    }

    fn files(&mut self, model: &'static str) -> &mut Files {
        self.family.models.entry(model.to_owned()).or_default()
    }

    fn write_out(&mut self, model: &'static str) {
        let dir = self.family.model_dir().join(model);
        let _ = fs::remove_dir_all(&dir);
        if let Some(files) = self
            .family
            .models
            .get(model)
            .filter(|files| !files.is_empty())
        {
            small::write_files(&dir, files);
        } else {
            self.family.models.remove(model);
        }
    }

    fn ingest(&mut self) {
        let options = Options {
            threads: 1 + self.random.below(3),
            accept_missing: self.random.below(2) == 0,
            disk: Arc::new(self.disk.clone()),
            ..Options::default()
        };
        let (models, store) = (self.family.model_dir(), self.family.store());
        let report = ingest::run(&self.family.jobs, &models, &store, &options, &NoMonitor).unwrap();
        for (model, report) in MODELS.iter().zip(&report.models) {
            let versions = self.stored.get_mut(model).unwrap();
            let (now, last) = (self.family.models.get(*model), versions.last());
            let gone = |old: &Files, new: &Files| old.keys().any(|path| !new.contains_key(path));
            let expected = match (now, last) {
                (None, None) => Status::Failed,
                (None, Some(_)) => Status::AlreadyStored,
                (Some(new), Some(old)) if gone(old, new) && !options.accept_missing => {
                    Status::Failed
                }
                (Some(new), Some(old)) if new == old => Status::AlreadyStored,
                (Some(_), _) => Status::Stored,
            };
            assert_eq!(report.status, expected, "{report:?}");
            assert!(!report.damage, "{report:?}");
            if expected == Status::Stored {
                versions.push(now.unwrap().clone());
            }
            if expected != Status::Failed {
                assert_eq!(report.version, Some(versions.len() as u32));
            }
        }
    }

    /// The power goes at some point of a run: a model that was under way is stored, or it is not.
    fn ingest_on_a_failing_disk(&mut self) {
        let now = self.disk.state().operations;
        self.disk.fail(Fault {
            at: now + self.random.below(150) as u64,
            forever: true,
            errno: 5,
            only_syncs: false,
        });
        let options = Options {
            threads: 2,
            accept_missing: true,
            disk: Arc::new(self.disk.clone()),
            ..Options::default()
        };
        let (models, store) = (self.family.model_dir(), self.family.store());
        let _ = ingest::run(&self.family.jobs, &models, &store, &options, &NoMonitor);
        let mut torn = Random::new(self.random.next());
        let coin = &mut || self.random.below(2) == 0;
        let left = self.disk.state().after_power_cut(coin, Some(&mut torn));
        self.disk = MemDisk::from_state(left);
        let Ok(store) = self.family.open(&self.disk) else {
            assert!(self.stored.values().all(Vec::is_empty));
            return;
        };
        for (model, versions) in &mut self.stored {
            let found = store.versions(&model.parse().unwrap()).unwrap().len();
            if found == versions.len() + 1 {
                versions.push(self.family.models[*model].clone());
            }
            assert_eq!(found, versions.len(), "{model}");
        }
    }

    /// Restores a version, as the program does, into a new directory.
    fn restore(&mut self, model: &'static str) {
        let versions = &self.stored[model];
        if versions.is_empty() {
            return;
        }
        let at = self.random.below(versions.len());
        let store = self.family.open(&self.disk).unwrap();
        let wanted = format!("{model}@{}", at + 1).parse().unwrap();
        let manifest = restore::find_manifest(&store, &wanted).unwrap();
        let out = tempfile::tempdir().unwrap();
        let options = restore::Options {
            threads: 2,
            force: false,
        };
        let (report, errors) =
            restore::run(&store, &manifest, out.path(), options, &NoMonitor).unwrap();
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(report.files, versions[at].len());
        for (path, (content, _)) in &versions[at] {
            assert!(
                fs::read(out.path().join(path)).unwrap() == *content,
                "{model}: {path}"
            );
        }
    }

    /// Every version ever stored is there, and the store is whole.
    fn assert_all(&self) {
        let Ok(store) = self.family.open(&self.disk) else {
            return;
        };
        let report = check(&store);
        assert!(!report.is_damaged(), "{:?}", report.damage);
        for (model, versions) in &self.stored {
            for (number, files) in (1..).zip(versions) {
                let manifest = store
                    .manifest(&model.parse().unwrap(), number)
                    .unwrap()
                    .unwrap();
                compare(&store, &manifest, files).unwrap();
            }
        }
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn every_version_ever_stored_comes_back() {
    let (cases, first) = (setting("ZIPLLM_CASES", 96), setting("ZIPLLM_SEED", 1));
    let mut versions = 0;
    for seed in first..first + cases {
        let mut world = World::new(seed);
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            (0..30).for_each(|_| world.step());
            world.ingest();
            world.assert_all();
        }));
        assert!(done.is_ok(), "ZIPLLM_SEED={seed} ZIPLLM_CASES=1 shows it");
        versions += world.stored.values().map(Vec::len).sum::<usize>();
    }
    println!("{cases} sequences of 30 steps, {versions} versions, 0 lost");
    assert!(versions as u64 > cases);
}
