//! `World`: a store, models on disk, and a map in memory of what the store should hold; each step does what people do.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of tests may fail the test"
)]

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use zipllm::ingest::{self, Options};
use zipllm::report::{NoMonitor, Status};
use zipllm::store::StoreWriter;
use zipllm::{gc, remove, rename, restore};

use super::disk::{Fault, MemDisk};
use super::random::Random;
use super::small::{self, Family, Files, Tensor, check, compare, job, safetensors};

const MODELS: [&str; 4] = ["org/base", "org/tuned", "org/tuned_again", "other"];
/// Names that models get when they are renamed; no directory has them.
const NEW_NAMES: [&str; 2] = ["lab/renamed", "lab/renamed_too"];
const PATHS: [&str; 6] = [
    "model.safetensors",
    "sub/model-2.safetensors",
    "config.json",
    "sub/a/tokenizer.bin",
    "run.sh",
    "empty",
];

/// The world as it should be.
pub struct World {
    random: Random,
    family: Family,
    disk: MemDisk,
    /// Every version of every model that is stored.
    stored: BTreeMap<&'static str, BTreeMap<u32, Files>>,
    /// What was done so far.
    pub counts: Counts,
}

/// What was done to the store.
#[derive(Debug, Default)]
pub struct Counts {
    pub versions: usize,
    pub removed: usize,
    pub renamed: usize,
    pub collected: usize,
    pub freed_objects: usize,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        self.versions += other.versions;
        self.removed += other.removed;
        self.renamed += other.renamed;
        self.collected += other.collected;
        self.freed_objects += other.freed_objects;
    }
}

const COLLECT: gc::Options = gc::Options {
    threads: 1,
    grace: Duration::ZERO,
    wait: false,
};

impl World {
    /// A world in which nothing has happened, and what will is drawn from `random`.
    pub fn new(random: Random) -> Self {
        let jobs = vec![
            job(MODELS[0], None),
            job(MODELS[1], Some(MODELS[0])),
            job(MODELS[2], Some(MODELS[1])),
            job(MODELS[3], Some("nobody/knows")),
        ];
        let family = Family::of(BTreeMap::new(), jobs);
        Self {
            random,
            disk: MemDisk::new(&family.store()),
            stored: BTreeMap::new(),
            counts: Counts::default(),
            family,
        }
    }

    /// Tells whether what is done next is chosen by a script.
    #[allow(dead_code, reason = "fuzzing asks")]
    pub fn is_scripted(&self) -> bool {
        self.random.is_scripted()
    }

    /// Does one thing, and checks what came of it.
    pub fn step(&mut self) {
        let model = MODELS[self.random.below(MODELS.len())];
        match self.random.below(16) {
            0..=2 => self.write(model),
            3 => self.change(model),
            4 => self.delete(model),
            5 | 6 | 14 => self.ingest(),
            7 => self.ingest_on_a_failing_disk(),
            8 => self.restore(),
            9 | 10 => self.remove(),
            11 => self.rename(),
            12 => self.collect(),
            13 => self.upkeep_on_a_failing_disk(),
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

    /// Stores all models.
    pub fn ingest(&mut self) {
        let options = Options {
            threads: 1 + self.random.below(3),
            accept_missing: self.random.below(2) == 0,
            disk: Arc::new(self.disk.clone()),
            ..Options::default()
        };
        let (models, store) = (self.family.model_dir(), self.family.store());
        let report = ingest::run(&self.family.jobs, &models, &store, &options, &NoMonitor).unwrap();
        for (model, report) in MODELS.iter().zip(&report.models) {
            let versions = self.stored.entry(model).or_default();
            let last = versions.last_key_value();
            let (now, number) = (
                self.family.models.get(*model),
                last.map_or(0, |(number, _)| *number),
            );
            let gone = |old: &Files, new: &Files| old.keys().any(|path| !new.contains_key(path));
            let expected = match (now, last) {
                (None, None) => Status::Failed,
                (None, Some(_)) => Status::AlreadyStored,
                (Some(new), Some((_, old))) if gone(old, new) && !options.accept_missing => {
                    Status::Failed
                }
                (Some(new), Some((_, old))) if new == old => Status::AlreadyStored,
                (Some(_), _) => Status::Stored,
            };
            assert_eq!(report.status, expected, "{report:?}");
            assert!(!report.damage, "{report:?}");
            if expected == Status::Stored {
                versions.insert(number + 1, now.unwrap().clone());
                self.counts.versions += 1;
            }
            if expected != Status::Failed {
                let newest = versions.last_key_value().map(|(number, _)| *number);
                assert_eq!(report.version, newest);
            }
        }
        self.stored.retain(|_, versions| !versions.is_empty());
    }

    /// From some operation on, all of them fail.
    fn fail_soon(&mut self) {
        let now = self.disk.state().operations;
        self.disk.fail(Fault {
            at: now + self.random.below(150) as u64,
            forever: true,
            errno: 5,
            only_syncs: false,
        });
    }

    /// The power goes: what was not synced is kept, lost or torn.
    fn cut_power(&mut self) {
        let mut torn = Random::new(self.random.next());
        let coin = &mut || self.random.below(2) == 0;
        let left = self.disk.state().after_power_cut(coin, Some(&mut torn));
        self.disk = MemDisk::from_state(left);
    }

    /// The power goes at some point of a run: a model that was under way is stored, or it is not.
    fn ingest_on_a_failing_disk(&mut self) {
        self.fail_soon();
        let options = Options {
            threads: 2,
            accept_missing: true,
            disk: Arc::new(self.disk.clone()),
            ..Options::default()
        };
        let (models, store) = (self.family.model_dir(), self.family.store());
        let _ = ingest::run(&self.family.jobs, &models, &store, &options, &NoMonitor);
        self.cut_power();
        let Ok(store) = self.family.open(&self.disk) else {
            assert!(self.stored.is_empty());
            return;
        };
        for model in MODELS {
            let versions = self.stored.entry(model).or_default();
            let last = versions.last_key_value().map_or(0, |(number, _)| *number);
            let found = store.versions(&model.parse().unwrap()).unwrap();
            if found.last() == Some(&(last + 1)) {
                versions.insert(last + 1, self.family.models[model].clone());
                self.counts.versions += 1;
            }
            assert!(found.iter().eq(versions.keys()), "{model}: {found:?}");
        }
        self.stored.retain(|_, versions| !versions.is_empty());
    }

    /// Restores a version, as the program does, into a new directory.
    fn restore(&mut self) {
        let Some((model, number)) = self.some_version() else {
            return;
        };
        let files = &self.stored[model][&number];
        let store = self.family.open(&self.disk).unwrap();
        let wanted = format!("{model}@{number}").parse().unwrap();
        let manifest = restore::find_manifest(&store, &wanted).unwrap();
        let out = tempfile::tempdir().unwrap();
        let options = restore::Options {
            threads: 2,
            force: false,
        };
        let (report, errors) =
            restore::run(&store, &manifest, out.path(), options, &NoMonitor).unwrap();
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(report.files, files.len());
        for (path, (content, _)) in files {
            assert!(
                fs::read(out.path().join(path)).unwrap() == *content,
                "{model}: {path}"
            );
        }
    }

    fn some_version(&mut self) -> Option<(&'static str, u32)> {
        let all = self.stored.iter();
        let all = all.flat_map(|(model, versions)| versions.keys().map(move |one| (*model, *one)));
        let all: Vec<_> = all.collect();
        let chosen = self.random.below(all.len().max(1));
        all.get(chosen).copied()
    }

    fn writer(&self) -> zipllm::Result<StoreWriter> {
        StoreWriter::open_on(Arc::new(self.disk.clone()), &self.family.store())
    }

    /// Removes a version, or all of a model.
    fn remove(&mut self) {
        let Some((model, number)) = self.some_version() else {
            return;
        };
        let wanted = if self.random.below(3) == 0 {
            self.stored.remove(model);
            model.to_owned()
        } else {
            self.stored.get_mut(model).unwrap().remove(&number);
            self.stored.retain(|_, versions| !versions.is_empty());
            format!("{model}@{number}")
        };
        let report = remove::run(self.writer().unwrap(), &[wanted.parse().unwrap()]).unwrap();
        self.counts.removed += report.removed.len();
    }

    /// Gives a model a name that no model has.
    fn rename(&mut self) {
        let Some((from, _)) = self.some_version() else {
            return;
        };
        let names = MODELS.into_iter().chain(NEW_NAMES);
        let free: Vec<_> = names
            .filter(|name| !self.stored.contains_key(name))
            .collect();
        if free.is_empty() {
            return;
        }
        let to = free[self.random.below(free.len())];
        let ids = (from.parse().unwrap(), to.parse().unwrap());
        rename::run(self.writer().unwrap(), &ids.0, &ids.1, 1).unwrap();
        let versions = self.stored.remove(from).unwrap();
        self.stored.insert(to, versions);
        self.counts.renamed += 1;
    }

    /// Deletes what nothing needs; afterwards there is no more of it, and nothing else is gone.
    pub fn collect(&mut self) {
        let Ok(writer) = self.writer() else {
            return;
        };
        let report = gc::run(writer, &COLLECT).unwrap();
        let again = gc::dry_run(&self.family.open(&self.disk).unwrap(), &COLLECT).unwrap();
        let left = (again.freed_objects, again.missing_objects);
        assert_eq!(left, (0, 0), "{report:?} {again:?}");
        assert_eq!(again.objects, report.objects - report.freed_objects);
        self.counts.collected += 1;
        self.counts.freed_objects += report.freed_objects;
        self.assert_all();
    }

    /// The power goes while something is removed or collected: at most what was to go is gone.
    fn upkeep_on_a_failing_disk(&mut self) {
        let Some((model, _)) = self.some_version() else {
            return;
        };
        let removes = self.random.below(2) == 0;
        self.fail_soon();
        if removes {
            let wanted = [model.parse().unwrap()];
            let _ = self
                .writer()
                .and_then(|writer| remove::run(writer, &wanted));
        } else {
            let _ = self.writer().and_then(|writer| gc::run(writer, &COLLECT));
        }
        self.cut_power();
        let store = self.family.open(&self.disk).unwrap();
        let left = store.versions(&model.parse().unwrap()).unwrap();
        let versions = self.stored.get_mut(model).unwrap();
        if removes {
            versions.retain(|number, _| left.contains(number));
        }
        assert!(left.iter().eq(versions.keys()), "{model}: {left:?}");
        self.stored.retain(|_, versions| !versions.is_empty());
        self.assert_all();
    }

    /// Every version ever stored is there, and the store is whole.
    pub fn assert_all(&self) {
        let Ok(store) = self.family.open(&self.disk) else {
            return;
        };
        let report = check(&store);
        assert!(!report.is_damaged(), "{:?}", report.damage);
        for (model, versions) in &self.stored {
            for (number, files) in versions {
                let manifest = store
                    .manifest(&model.parse().unwrap(), *number)
                    .unwrap()
                    .unwrap();
                compare(&store, &manifest, files).unwrap();
            }
        }
    }
}
