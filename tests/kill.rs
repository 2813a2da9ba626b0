//! kill -9 at random moments: what was stored stays, what was not is stored by the next run, nothing is left over.
//!
//! `ZIPLLM_KILLS=1000` makes a soak of it; `ZIPLLM_SEED` repeats another run's moments as far as the machine lets it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking"
)]

#[path = "common/batch.rs"]
mod batch;
#[path = "common/kill.rs"]
mod kill;
#[path = "common/tensors.rs"]
mod tensors;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use batch::{Batch, RESTORE, Tree, ZIPLLM, names, tree};
use kill::{kill_after, number};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tensors::{noise, safetensors, tuned, weights};

const IDS: [&str; 4] = ["lab/base", "lab/tune", "lab/head", "lab/next"];
/// More than are made durable at a time, so that a model can be stored in part.
const SMALL_TENSORS: usize = 270;

/// Numbers below a bound, from a seed.
struct Moments(std::vec::IntoIter<u8>);

impl Moments {
    fn new(seed: u64) -> Self {
        Self(noise(seed, 8 << 20).into_iter())
    }

    fn below(&mut self, bound: u64) -> u64 {
        let bytes: Vec<u8> = self.0.by_ref().take(8).collect();
        u64::from_le_bytes(bytes.try_into().unwrap()) % bound.max(1)
    }
}

/// A base with many tensors, fine-tunes of some of them, and a fine-tune of a fine-tune.
fn family() -> Batch {
    family_of(|seed| weights(seed, 200))
}

/// The same with these small tensors.
fn family_of(small: impl Fn(u64) -> Vec<u8>) -> Batch {
    let batch = Batch::in_memory(&IDS);
    let mut base: Vec<_> = (0..SMALL_TENSORS as u64).map(small).collect();
    base.push(weights(1000, 500_000));
    write(&batch, IDS[0], &base);
    let tune_from = |values: &[Vec<u8>], first: usize, seed: u64| {
        let (same, changed) = values.split_at(first);
        let changed = changed.iter().map(|values| tuned(values, seed));
        same.iter().cloned().chain(changed).collect::<Vec<_>>()
    };
    let tune = tune_from(&base, SMALL_TENSORS - 40, 3);
    write(&batch, IDS[1], &tune);
    write(&batch, IDS[2], &tune_from(&base, SMALL_TENSORS - 5, 4));
    write(&batch, IDS[3], &tune_from(&tune, SMALL_TENSORS - 20, 5));
    batch.bases(&json!({IDS[0]: [IDS[1], IDS[2]], IDS[1]: [IDS[3]]}));
    batch
}

/// The microseconds of the fastest of a few runs.
fn fastest(mut run: impl FnMut()) -> u64 {
    let mut time = || {
        let begun = Instant::now();
        run();
        u64::try_from(begun.elapsed().as_micros()).unwrap()
    };
    (0..3).map(|_| time()).min().unwrap()
}

fn write(batch: &Batch, id: &str, values: &[Vec<u8>]) {
    let named: Vec<_> = values
        .iter()
        .enumerate()
        .map(|(number, values)| {
            (
                format!("layer.{number:03}"),
                [values.len() as u64 / 2],
                values,
            )
        })
        .collect();
    let tensors: Vec<_> = named
        .iter()
        .map(|(name, shape, values)| (name.as_str(), "BF16", &shape[..], values.as_slice()))
        .collect();
    batch.file(&format!("{id}/model.safetensors"), safetensors(&tensors));
    batch.file(&format!("{id}/card.md"), id);
    fs::create_dir_all(batch.path("models").join(id).join("empty")).unwrap();
}

fn committed(batch: &Batch) -> BTreeSet<String> {
    let directory = batch.path("store/models");
    let versions = names(&directory).into_iter().flat_map(|model| {
        names(&directory.join(&model))
            .into_iter()
            .map(move |file| format!("{model}/{file}"))
    });
    versions.collect()
}

/// In what state kills left the store.
#[derive(Debug, Default)]
struct Seen {
    kills: u64,
    rounds: u64,
    no_store: u64,
    temps: u64,
    dirty: u64,
    some_models: u64,
    objects_without_manifest: u64,
}

impl Seen {
    fn note(&mut self, batch: &Batch) {
        let store = batch.path("store");
        let models = names(&store.join("models")).len();
        self.kills += 1;
        self.no_store += u64::from(!store.join("zipllm.json").exists());
        self.temps += u64::from(!names(&store.join("tmp")).is_empty());
        self.dirty += u64::from(store.join("index/dirty").exists());
        self.some_models += u64::from((1..IDS.len()).contains(&models));
        self.objects_without_manifest +=
            u64::from(models == 0 && !names(&store.join("objects")).is_empty());
    }
}

fn assert_all_restore(batch: &Batch, originals: &[Tree]) {
    for (id, original) in IDS.iter().zip(originals) {
        batch.assert_restores(id, original);
    }
}

#[test]
fn no_kill_loses_a_model() {
    let (kills, seed) = (number("ZIPLLM_KILLS", 50), number("ZIPLLM_SEED", 1));
    println!("seed {seed}");
    let mut moments = Moments::new(seed);
    let batch = family();
    let originals: Vec<_> = IDS
        .iter()
        .map(|id| tree(&batch.path("models").join(id)))
        .collect();
    let whole_run = fastest(|| {
        let _ = fs::remove_dir_all(batch.path("store"));
        batch.zipllm(&[]).expect(0);
    });
    let undisturbed = batch.stored();

    let mut seen = Seen::default();
    while seen.kills < kills {
        seen.rounds += 1;
        fs::remove_dir_all(batch.path("store")).unwrap();
        // A few kills in a row, then a run to the end; the moments are spread over a whole run.
        for _ in 0..=moments.below(4) {
            let before = committed(&batch);
            let moment = moments.below(whole_run);
            let mut program = Command::new(ZIPLLM);
            if kill_after(program.arg(batch.path("config.json")), moment) {
                seen.note(&batch);
            }
            let after = committed(&batch);
            assert!(before.is_subset(&after), "{before:?} became {after:?}");
            // What the store lists can be read, before any other writer has touched it.
            for (id, original) in IDS.iter().zip(&originals) {
                let listed = after.contains(&format!("{}/000001.json", id.replace('/', "--")));
                if listed && moments.below(4) == 0 {
                    batch.assert_restores(id, original);
                }
            }
            if batch.path("store/zipllm.json").exists() && moments.below(4) == 0 {
                batch.check().expect(0);
            }
        }
        batch.zipllm(&[]).expect(0).silent();
        batch.assert_clean();
        assert_all_restore(&batch, &originals);
        assert_eq!(committed(&batch).len(), IDS.len());
        // What was written before a kill was used: no byte is stored otherwise than without kills.
        batch::assert_same(&undisturbed, &batch.stored(), "after kills");
    }
    println!("{seen:?}, a whole run takes {whole_run} us");
    assert!(
        seen.temps > 0 && seen.some_models > 0,
        "no kill hit: {seen:?}"
    );
}

/// Weights of two exponents, one of them rare: a code of whole bits, as planes have, is longer than one of fractions.
fn skewed(seed: u64) -> Vec<u8> {
    let mut values = weights(seed, 4000);
    for (pair, noise) in values.chunks_exact_mut(2).zip(noise(seed + 1, 4000)) {
        pair[1] -= u8::from(noise < 16);
    }
    values
}

fn recode(batch: &Batch) -> Command {
    let mut command = Command::new(ZIPLLM);
    command.arg("recode").arg(batch.path("config.json"));
    command
}

/// What codecs of planes wrote is encoded anew, and that is killed: every model can be read at any time, and the last run
/// makes of the store what one that nothing disturbs makes of it.
#[test]
fn no_kill_of_a_recode_loses_a_model() {
    let (kills, seed) = (number("ZIPLLM_KILLS", 50) / 3, number("ZIPLLM_SEED", 1));
    let mut moments = Moments::new(seed + 2);
    let batch = family_of(skewed);
    let bases = json!({"base_ft_path": "bases.json"});
    let originals = IDS.map(|id| tree(&batch.path("models").join(id)));
    batch.configure(&json!({"base_ft_path": "bases.json", "codec": "bitx"}));
    batch.zipllm(&[]).expect(0);
    batch.configure(&bases);
    batch::copy_tree(&batch.path("store"), &batch.path("old"));
    let again = || {
        fs::remove_dir_all(batch.path("store")).unwrap();
        batch::copy_tree(&batch.path("old"), &batch.path("store"));
    };
    let mut whole_run = u64::MAX;
    for _ in 0..3 {
        again();
        let begun = Instant::now();
        let report = batch::Run::of(recode(&batch).arg("--json"))
            .expect(0)
            .json();
        assert!(report["replaced"].as_u64() > Some(260), "{report:#}");
        whole_run = whole_run.min(u64::try_from(begun.elapsed().as_micros()).unwrap());
    }
    let undisturbed = batch.stored();
    let mut seen = Seen::default();
    while seen.kills < kills {
        again();
        for _ in 0..=moments.below(3) {
            let moment = moments.below(whole_run);
            if kill_after(&mut recode(&batch), moment) {
                seen.note(&batch);
            }
            let one = usize::try_from(moments.below(4)).unwrap();
            batch.assert_restores(IDS[one], &originals[one]);
            batch.check().expect(0);
        }
        batch::Run::of(&mut recode(&batch)).expect(0);
        batch.assert_clean();
        batch::assert_same(&undisturbed, &batch.stored(), "after kills");
    }
    assert_all_restore(&batch, &originals);
    println!("{seen:?}, a whole recode takes {whole_run} us");
    assert!(seen.dirty + seen.temps > 0, "no kill hit: {seen:?}");
}

/// A killed restore leaves whole files, and nothing else where the file system has files without names.
#[test]
fn a_killed_restore_leaves_no_wrong_file() {
    let (kills, seed) = (number("ZIPLLM_KILLS", 50) / 5, number("ZIPLLM_SEED", 1));
    let mut moments = Moments::new(seed + 1);
    let batch = family();
    let original = tree(&batch.path("models").join(IDS[3]));
    batch.zipllm(&[]).expect(0);
    let whole_run = fastest(|| {
        let _ = fs::remove_dir_all(batch.path("out"));
        batch.restore(IDS[3], "out", &[]).expect(0);
    });
    let (mut done, mut cut_short) = (0, 0);
    let nothing_else = has_files_without_names(&batch.path(""));
    for _ in 0..20 * kills {
        fs::remove_dir_all(batch.path("out")).unwrap();
        let mut program = Command::new(RESTORE);
        let command = program
            .arg(batch.path("config.json"))
            .arg(IDS[3])
            .arg(batch.path("out"));
        let killed = kill_after(command, moments.below(whole_run));
        fs::create_dir_all(batch.path("out")).unwrap();
        let left = tree(&batch.path("out"));
        cut_short += u64::from(killed && left.len() < original.len());
        for (path, entry) in left {
            assert!(
                !nothing_else && is_part(&path) || original.get(&path) == Some(&entry),
                "{} is wrong",
                path.display()
            );
        }
        batch.restore(IDS[3], "out", &[]).expect(0);
        let mut restored = tree(&batch.path("out"));
        restored.retain(|path, _| !is_part(path));
        batch::assert_same(&original, &restored, "restored again");
        done += u64::from(killed);
        if done == kills {
            break;
        }
    }
    println!("{done} kills of a restore, which takes {whole_run} us; {cut_short} before its end");
    assert!(cut_short > 0);
}

/// A program that Ctrl-C, or a polite kill, ends says what it leaves, and dies of the signal; where the shell lets it ignore
/// Ctrl-C, it goes on.
#[test]
fn an_interrupted_program_says_what_it_leaves() {
    let batch = Batch::in_memory(&["lab/large"]);
    batch.file("lab/large/noise.bin", noise(1, 48 << 20));
    let original = tree(&batch.path("models/lab/large"));
    let config = batch.path("config.json");
    let out = batch.path("out");
    let store = [Path::new(ZIPLLM), &config];
    let restore = [Path::new(RESTORE), &config, Path::new("lab/large"), &out];
    // Whoever runs the tests in the background may ignore Ctrl-C himself.
    let (listens, ignores) = ("--default-signal=INT,TERM", "--ignore-signal=INT");
    let (listed, there) = ("stored models are whole", "files that are there are whole");
    let cases: [(&str, &[&Path], Signal, &str); 4] = [
        (listens, &store, Signal::INT, listed),
        (listens, &store, Signal::TERM, listed),
        (ignores, &store, Signal::INT, ""),
        (listens, &restore, Signal::INT, there),
    ];
    for (switch, words, signal, said) in cases {
        let _ = fs::remove_dir_all(batch.path("store/tmp"));
        let mut program = Command::new("env");
        let command = program.arg(switch).args(words).stdout(Stdio::null());
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        while names(&batch.path("store/tmp")).is_empty() && !out.exists() {
            std::thread::yield_now();
        }
        let id = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(id, signal).unwrap();
        let ended = child.wait_with_output().unwrap();
        let told = String::from_utf8(ended.stderr).unwrap();
        if switch == ignores {
            assert_eq!((ended.status.code(), told.as_str()), (Some(0), ""));
        } else {
            assert_eq!(ended.status.signal(), Some(signal.as_raw()), "{told}");
            assert!(told.starts_with(&format!("interrupted; {said}")), "{told}");
            assert_eq!(told.lines().count(), 1, "{told}");
        }
    }
    batch.restore("lab/large", "out", &[]).expect(0);
    batch::assert_same(&original, &tree(&out), "restored again");
    batch.assert_clean();
}

fn has_files_without_names(directory: &Path) -> bool {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::WRONLY | OFlags::TMPFILE;
    rustix::fs::open(directory, flags, Mode::from_raw_mode(0o600)).is_ok()
}

fn is_part(path: &Path) -> bool {
    path.file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .starts_with(".zipllm-")
}

/// A run that is killed right after it has made the store leaves no index; that is no damage, and the next makes one.
#[test]
fn a_store_without_an_index_is_whole() {
    let batch = Batch::in_memory(&["lab/a"]);
    batch.file("lab/a/f.txt", "some text");
    batch.zipllm(&[]).expect(0);
    for gone in [&["index"][..], &["index", "objects", "models", "tmp"]] {
        for name in gone {
            fs::remove_dir_all(batch.path("store").join(name)).unwrap();
        }
        let report = batch.check().expect(0).json();
        assert!(
            report["warnings"]
                .to_string()
                .contains("the next run rebuilds it"),
            "{report:#}"
        );
        batch.zipllm(&[]).expect(0).silent();
        batch.assert_clean();
        batch.assert_restores("lab/a", &tree(&batch.path("models/lab/a")));
    }
}
