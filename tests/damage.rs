//! Damage (T6, T7): whatever happens to a file of a store, `check` sees it, restore never gives wrong
//! bytes, models that do not need the file come back, and the next run heals what it can.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail the test"
)]

#[path = "common/disk.rs"]
mod disk;
#[path = "common/random.rs"]
mod random;
#[path = "common/small.rs"]
mod small;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use disk::MemDisk;
use small::{Family, check, job};
use zipllm::codec::select as codec;
use zipllm::hash::Hash;
use zipllm::report::{NoMonitor, Status};
use zipllm::store::fs::LocalDisk;
use zipllm::store::object::Frame;

/// A stored family, and which models need which file.
struct Stored {
    family: Family,
    disk: MemDisk,
    users: BTreeMap<PathBuf, BTreeSet<String>>,
}

impl Stored {
    fn new(family: Family) -> Self {
        let disk = MemDisk::new(&family.store());
        family.ingest(&disk);
        let users = users(&family, &disk);
        Self {
            family,
            disk,
            users,
        }
    }

    /// What a change of files did, on this disk: asserts that nothing is wrong and unsaid.
    fn inspect(&self, disk: &MemDisk, changed: &[&Path], what: &str) -> Seen {
        self.inspect_some(disk, changed, true, what)
    }

    /// The same; models that need none of the files are tried only if `others` is set.
    fn inspect_some(&self, disk: &MemDisk, changed: &[&Path], others: bool, what: &str) -> Seen {
        let Ok(store) = self.family.open(disk) else {
            let marker = self.family.store().join("zipllm.json");
            assert!(
                changed.contains(&marker.as_path()),
                "{what}: cannot be opened"
            );
            return Seen::Damage;
        };
        let report = check(&store);
        for model in self.family.models.keys() {
            let needs = |path: &&Path| self.users.get(*path).is_some_and(|u| u.contains(model));
            let needed = changed.iter().any(needs);
            if !needed && !others {
                continue;
            }
            match self.family.restores(&store, model) {
                Ok(true) => {}
                _ if needed => {}
                other => panic!("{what}: {model}, which does not need it: {other:?}"),
            }
        }
        if report.is_damaged() {
            Seen::Damage
        } else if report.warnings.is_empty() {
            Seen::Nothing
        } else {
            Seen::Warning
        }
    }

    /// Asserts that a run brings everything back, or refuses the store with the file's name.
    fn heal(&self, disk: &MemDisk, what: &str) -> bool {
        let disk = disk.fork();
        let report = match self.family.try_ingest(Arc::new(disk.clone()), &NoMonitor) {
            Ok(report) => report,
            Err(error) => {
                assert!(error.to_string().contains("zipllm.json"), "{what}: {error}");
                return false;
            }
        };
        let good = |status| matches!(status, Status::Stored | Status::AlreadyStored);
        assert!(
            report.models.iter().all(|m| good(m.status)),
            "{what}: {report:?}"
        );
        let store = self.family.open(&disk).unwrap();
        for model in self.family.models.keys() {
            assert!(
                self.family.restores(&store, model).unwrap(),
                "{what}: {model}"
            );
        }
        for damage in check(&store).damage {
            assert!(
                damage.reason.contains("damaged manifest"),
                "{what}: {damage:?}"
            );
        }
        true
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Nothing,
    Warning,
    Damage,
}

fn users(family: &Family, disk: &MemDisk) -> BTreeMap<PathBuf, BTreeSet<String>> {
    let store = family.open(disk).unwrap();
    let mut users: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
    for model in family.models.keys() {
        let id = model.parse().unwrap();
        let mut needs = vec![store.layout().manifest(&id, 1)];
        for segment in store
            .newest(&id)
            .unwrap()
            .unwrap()
            .files
            .iter()
            .flat_map(|f| &f.segments)
        {
            let mut next = Some(segment.object);
            while let Some(name) = next {
                needs.push(store.layout().object(&name));
                next = frame(&store, &name)
                    .head
                    .bases
                    .first()
                    .map(|base| base.name);
            }
        }
        for path in needs {
            users.entry(path).or_default().insert(model.clone());
        }
    }
    users
}

fn frame(store: &zipllm::store::Store, name: &Hash) -> Frame {
    store.object(name).unwrap().frame
}

/// Every other value that a byte is given: each bit flipped, and all bits cleared and set.
fn wrong_values(byte: u8) -> impl Iterator<Item = u8> {
    let flipped = (0..8).map(move |bit| byte ^ 1 << bit);
    let mut values: Vec<u8> = flipped.chain([0x00, 0xff]).collect();
    values.sort_unstable();
    values.dedup();
    values.into_iter().filter(move |value| *value != byte)
}

/// Changes every byte of `files` to every wrong value; returns how many changes that were.
fn change_every_byte(stored: &Stored, files: &[PathBuf]) -> usize {
    let (next, count) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let disk = stored.disk.fork();
                    let bytes = disk.get(path).unwrap();
                    for at in 0..bytes.len() {
                        for value in wrong_values(bytes[at]) {
                            let mut wrong = bytes.to_vec();
                            wrong[at] = value;
                            disk.put(path, wrong);
                            let what = format!("{}: byte {at} is {value:#04x}", path.display());
                            let others = value == bytes[at] ^ 1;
                            let seen = stored.inspect_some(&disk, &[path], others, &what);
                            assert_eq!(seen, Seen::Damage, "{what}");
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    count.into_inner()
}

#[test]
fn every_flipped_bit_is_found_and_restores_nothing_wrong() {
    flip_every_bit(codec::Family::Auto, &[0, 1, 2, 4, 5]);
}

#[test]
fn so_it_is_with_the_codecs_of_planes() {
    flip_every_bit(codec::Family::BitX, &[0, 1, 2, 3]);
}

fn flip_every_bit(coded_as: codec::Family, expected_codecs: &[u8]) {
    let mut family = Family::new().settle();
    family.encode.family = coded_as;
    let stored = Stored::new(family);
    let files = stored.disk.files();
    let size: usize = files
        .iter()
        .map(|path| stored.disk.get(path).unwrap().len())
        .sum();
    assert!(size <= 32 << 10, "{size} bytes");
    assert!(
        files
            .iter()
            .any(|path| path.parent().unwrap().ends_with("scans"))
    );
    let store = stored.family.open(&stored.disk).unwrap();
    let frames = store.objects().unwrap().0;
    let frames: Vec<_> = frames.iter().map(|name| frame(&store, name)).collect();
    let codecs: BTreeSet<u8> = frames
        .iter()
        .flat_map(|f| &f.chunks)
        .map(|c| c.codec)
        .collect();
    let depths: BTreeSet<u8> = frames.iter().map(|frame| frame.head.depth).collect();
    assert_eq!(
        codecs,
        expected_codecs.iter().copied().collect(),
        "every codec is met"
    );
    assert_eq!(depths, BTreeSet::from([0, 1, 2]));
    let changes = change_every_byte(&stored, &files);
    println!(
        "{} files, {size} bytes, {changes} changes: all reported, 0 wrong",
        files.len()
    );
    assert!(changes > size * 8);
}

#[test]
fn so_is_one_in_an_object_of_several_chunks() {
    let mut files = small::Files::new();
    let bytes = (0..(2 << 20) + 9u32).map(|i| u8::from(i % 1000 == 0));
    files.insert("big.bin".into(), (bytes.collect(), false));
    let models = BTreeMap::from([("big".to_owned(), files)]);
    let stored = Stored::new(Family::of(models, vec![job("big", None)]));
    let needed = stored.users.keys().cloned();
    let object: Vec<_> = needed.filter(|path| path.extension().is_none()).collect();
    assert_eq!(object.len(), 1);
    let changes = change_every_byte(&stored, &object);
    println!("{changes} changes: all reported, 0 wrong");
    assert!(changes > 1000);
}

/// Lengths to cut a file to: all of a short one, and some of a long one.
fn lengths(length: usize) -> impl Iterator<Item = usize> {
    let step = length.div_ceil(400).max(1);
    (0..length).filter(move |at| at % step == 0 || at % 96 == 0 || at + 9 > length)
}

#[test]
fn files_cut_short_deleted_or_zeroed_are_found_and_healed() {
    let stored = Stored::new(Family::new().settle());
    let (mut changes, mut healed) = (0, 0);
    for path in stored.disk.files() {
        let bytes = stored.disk.get(&path).unwrap();
        let mut cases: Vec<(String, Option<Vec<u8>>)> = lengths(bytes.len())
            .map(|length| (format!("cut to {length}"), Some(bytes[..length].to_vec())))
            .collect();
        cases.push(("deleted".into(), None));
        cases.push(("zeroed".into(), Some(vec![0; bytes.len()])));
        cases.push(("longer".into(), Some([&bytes[..], b"}"].concat())));
        for (number, (case, content)) in cases.into_iter().enumerate().rev() {
            let disk = stored.disk.fork();
            let what = format!("{} {case}", path.display());
            let deleted = content.is_none();
            match content {
                Some(content) => disk.put(&path, content),
                None => disk.delete(&path),
            }
            let seen = stored.inspect(&disk, &[&path], &what);
            // Nobody can miss a model whose manifest is gone, or what can be made anew.
            let rest = ["models", "index"].map(|name| stored.family.store().join(name));
            if !(deleted && rest.iter().any(|dir| path.starts_with(dir))) {
                assert_eq!(seen, Seen::Damage, "{what}");
            }
            changes += 1;
            if number % 8 == 0 || number % 96 == 0 || !case.starts_with("cut") {
                healed += usize::from(stored.heal(&disk, &what));
            }
        }
    }
    println!("{changes} changes: all reported, 0 wrong; {healed} healed by a run");
    assert!(changes > 3000 && healed > 300);
}

#[test]
fn files_that_took_anothers_place_are_found_and_healed() {
    let stored = Stored::new(Family::new().settle());
    let files = stored.disk.files();
    let (mut changes, mut healed) = (0, 0);
    let scans = stored.family.store().join("index/scans");
    for one in &files {
        for other in files.iter().filter(|other| *other != one) {
            let [a, b] = [one, other].map(|path| stored.disk.get(path).unwrap().to_vec());
            let disk = stored.disk.fork();
            disk.put(one, b);
            let mut cases = vec![("took the place of", disk.fork(), vec![one.as_path()])];
            if one < other {
                disk.put(other, a);
                cases.push(("changed places with", disk, vec![one, other]));
            }
            for (case, disk, changed) in cases {
                let what = format!("{} {case} {}", other.display(), one.display());
                let seen = stored.inspect(&disk, &changed, &what);
                // In a scan's place a sealed document of another kind, or of another model, only costs
                // a second reading of the files.
                let sealed = other
                    .extension()
                    .is_some_and(|extension| extension == "json");
                if !(sealed && changed.iter().all(|path| path.starts_with(&scans))) {
                    assert_eq!(seen, Seen::Damage, "{what}");
                }
                healed += usize::from(stored.heal(&disk, &what));
                changes += 1;
            }
        }
    }
    println!("{changes} changes: all reported, 0 wrong; {healed} healed by a run");
    assert!(changes > 500 && healed > changes / 2);
}

const CONFIG: &str = r#"{"model_dir": "models", "storage_dir": "store", "models_to_process": "list.txt", "base_ft_path": "map.json", "threads": 2}"#;

/// A family stored on the local disk by the real program, with a config file.
fn on_disk() -> (Family, PathBuf) {
    let family = Family::new();
    let config = family.path().join("config.json");
    let map = r#"{"org/base": ["org/tuned"], "org/tuned": ["org/tuned_again"]}"#;
    fs::write(&config, CONFIG).unwrap();
    fs::write(family.path().join("map.json"), map).unwrap();
    let list: Vec<_> = family.jobs.iter().map(|job| job.model.as_str()).collect();
    fs::write(family.path().join("list.txt"), list.join("\n")).unwrap();
    let stored = run(env!("CARGO_BIN_EXE_zipllm"), &[config.to_str().unwrap()]);
    assert!(stored.status.success(), "{stored:?}");
    (family, config)
}

fn run(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).output().unwrap()
}

#[test]
fn the_programs_name_the_object_and_the_file_and_leave_nothing_half_written() {
    let (family, config) = on_disk();
    let config = config.to_str().unwrap();
    let store = family.open(&LocalDisk).unwrap();
    let manifest = store.newest(&"org/base".parse().unwrap()).unwrap().unwrap();
    let file = manifest
        .files
        .iter()
        .find(|f| f.path.as_str() == "model.safetensors")
        .unwrap();
    let tensor = file
        .segments
        .iter()
        .find(|s| s.tensor.as_ref().is_some_and(|t| t.name == "w"));
    let object = tensor.unwrap().object;
    let path = store.layout().object(&object);
    let mut bytes = fs::read(&path).unwrap();
    bytes[50] ^= 0x10;
    fs::write(&path, bytes).unwrap();

    let checked = run(
        env!("CARGO_BIN_EXE_zipllm"),
        &["check", config, "--read-data"],
    );
    assert_eq!(checked.status.code(), Some(3));
    let text = String::from_utf8(checked.stdout).unwrap();
    for part in [
        object.to_string().as_str(),
        "org/base@1: model.safetensors",
        "org/tuned_again@1: model.safetensors",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(
        !text.contains("config.json") && !text.contains("lone"),
        "{text}"
    );

    for (model, code) in [
        ("org/base", 3),
        ("org/tuned", 3),
        ("org/tuned_again", 3),
        ("lone", 0),
    ] {
        let out = family.path().join("out").join(model);
        let restored = run(
            env!("CARGO_BIN_EXE_restore"),
            &[config, model, out.to_str().unwrap()],
        );
        assert_eq!(restored.status.code(), Some(code), "{model}: {restored:?}");
        let text = String::from_utf8(restored.stderr).unwrap();
        if code == 3 {
            let expected =
                format!("{model}: model.safetensors: cannot be restored: object {object}");
            assert!(text.contains(&expected), "{text}");
        }
        let mut expected = family.models[model].clone();
        if code == 3 {
            expected.remove("model.safetensors");
        }
        assert_eq!(
            found_files(&out),
            expected.into_keys().collect::<Vec<_>>(),
            "{model}"
        );
    }
}

/// A base and its fine-tune: chunks of many lanes, with scales of rows and columns, which small objects do not have.
fn wide_pair() -> Family {
    const ROW: usize = 128;
    let mut random = random::Random::new(5);
    let mut base = small::weights(&mut random, 34_000);
    // Every eighth column is 16 times larger, which a coder with scales makes use of.
    for column in base.chunks_exact_mut(2).step_by(8) {
        column[1] = column[1].wrapping_add(2);
    }
    let mut tune = base.clone();
    for (at, low) in tune.iter_mut().step_by(2).enumerate() {
        if at % 8 == 0 && !(at / ROW).is_multiple_of(3) {
            *low = low.wrapping_add(u8::try_from(random.below(6)).unwrap());
        }
    }
    let model = |bytes: &[u8]| {
        let header = format!(
            r#"{{"w":{{"dtype":"BF16","shape":[{},{ROW}],"data_offsets":[0,{}]}}}}"#,
            bytes.len() / 2 / ROW,
            bytes.len() / 2 / ROW * ROW * 2,
        );
        let used = &bytes[..bytes.len() / 2 / ROW * ROW * 2];
        let length = (header.len() as u64).to_le_bytes();
        let file = [&length[..], header.as_bytes(), used].concat();
        small::Files::from([("m.safetensors".to_owned(), (file, false))])
    };
    let models = BTreeMap::from([
        ("base".to_owned(), model(&base)),
        ("tune".to_owned(), model(&tune)),
    ]);
    Family::of(models, vec![job("base", None), job("tune", Some("base"))])
}

/// Through `restore`: a flipped bit of a coded stream gives exit code 3 and no file, or, where the bit does not matter,
/// the right bytes; never others.
#[test]
fn no_flipped_bit_of_a_stream_gives_wrong_bytes_with_exit_code_0() {
    let (mut codecs, mut kinds, mut flips) = (BTreeSet::new(), BTreeSet::new(), 0);
    for coded_as in [codec::Family::Auto, codec::Family::BitX] {
        for mut family in [wide_pair(), Family::new()] {
            family.encode.family = coded_as;
            family.ingest(&LocalDisk);
            let config = family.path().join("config.json");
            fs::write(&config, CONFIG).unwrap();
            fs::write(family.path().join("map.json"), "{}").unwrap();
            fs::write(family.path().join("list.txt"), "base").unwrap();
            let store = family.open(&LocalDisk).unwrap();
            let mut random = random::Random::new(9);
            for model in family.models.keys() {
                let manifest = store.newest(&model.parse().unwrap()).unwrap().unwrap();
                for segment in manifest.files.iter().flat_map(|file| &file.segments) {
                    let object = store.object(&segment.object).unwrap();
                    let (start, length) = (
                        usize::try_from(object.frame.payload_start()).unwrap(),
                        usize::try_from(object.frame.encoded_bytes()).unwrap(),
                    );
                    let path = store.layout().object(&segment.object);
                    let good = fs::read(&path).unwrap();
                    codecs.insert(object.frame.chunks[0].codec);
                    if object.frame.chunks[0].codec == 4 {
                        kinds.insert(good[start]);
                    }
                    for flip in 0..if length > 1000 { 24 } else { 2 } {
                        let mut bad = good.clone();
                        // The heads of streams, and anywhere.
                        let within = random.below(if flip % 2 == 0 {
                            length
                        } else {
                            length.min(300)
                        });
                        bad[start + within] ^= 1 << random.below(8);
                        fs::write(&path, bad).unwrap();
                        assert_not_wrong(&family, &config, model);
                        flips += 1;
                    }
                    fs::write(&path, good).unwrap();
                }
            }
        }
    }
    println!("{flips} flips, streams of kinds {kinds:?}");
    assert_eq!(codecs, (0..=5).collect());
    assert!(kinds.contains(&1) && kinds.contains(&3), "{kinds:?}");
}

/// Restores a model, and fails if a file that is there is not as it was, or one is not there and the exit code is 0.
fn assert_not_wrong(family: &Family, config: &Path, model: &str) {
    let out = tempfile::tempdir_in(family.path()).unwrap();
    let arguments = [config, Path::new(model), out.path()].map(|path| path.to_str().unwrap());
    let restored = run(env!("CARGO_BIN_EXE_restore"), &arguments);
    let code = restored.status.code();
    let found = found_files(out.path());
    assert!(code == Some(0) || code == Some(3), "{restored:?}");
    assert!(code == Some(3) || found.len() == family.models[model].len());
    for file in found {
        let bytes = fs::read(out.path().join(&file)).unwrap();
        assert!(
            bytes == family.models[model][&file].0,
            "{model}: {file} is wrong"
        );
    }
}

fn found_files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![root.to_path_buf()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                found.push(
                    path.strip_prefix(root)
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_owned(),
                );
            }
        }
    }
    found.sort();
    found
}
