//! The system calls of the real program (T20, T2), by strace: nothing gets its final name before its bytes are durable,
//! no manifest speaks of what is not, and a system call that fails, whichever, loses nothing.
//!
//! `ZIPLLM_FAULTS=all` lets every call fail in its turn, not only some.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking"
)]

#[path = "common/batch.rs"]
mod batch;
#[path = "common/tensors.rs"]
mod tensors;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use batch::{Batch, Run, ZIPLLM, assert_same, tree};
use serde_json::{Value, json};
use tensors::{noise, safetensors, tuned, weights};

const IDS: [&str; 3] = ["lab/base", "lab/tune", "lab/other"];
const CALLS: &str = "openat,creat,write,pwrite64,writev,rename,renameat,renameat2,fsync,fdatasync,linkat,truncate,ftruncate";

fn family(batch: Batch, tensors: usize) -> Batch {
    for (seed, id) in (1..).zip(IDS) {
        let values: Vec<_> = (0..tensors)
            .map(|tensor| {
                let base = weights(tensor as u64, 3000);
                if seed == 1 { base } else { tuned(&base, seed) }
            })
            .collect();
        let names: Vec<_> = (0..tensors).map(|tensor| format!("w{tensor}")).collect();
        let tensors = names.iter().zip(&values);
        let tensors: Vec<_> = tensors
            .map(|(name, values)| (name.as_str(), "BF16", &[30, 100][..], &values[..]))
            .collect();
        batch.file(&format!("{id}/model.safetensors"), safetensors(&tensors));
        batch.file(&format!("{id}/tokenizer.bin"), noise(7, 700));
    }
    batch.bases(&json!({IDS[0]: [IDS[1]]}));
    batch
}

fn has_strace() -> bool {
    let found = Command::new("strace").args(["-f", "true"]).output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        println!("SKIPPED: there is no strace that may trace");
    }
    found
}

/// `strace OPTIONS -o LOG zipllm ARGS`, and its log.
fn traced(batch: &Batch, options: &[&str], args: &[&str]) -> (Run, String) {
    let log = batch.path("strace.log");
    let mut command = Command::new("strace");
    let command = command
        .args(["-f", "-y", "-qq", "-s", "4096"])
        .args(options);
    let run = Run::of(command.arg("-o").arg(&log).arg(ZIPLLM).args(args));
    (run, fs::read_to_string(&log).unwrap())
}

/// A system call that ended well. What it did was begun at the first place and ended at the second.
struct Call {
    name: String,
    args: String,
    result: String,
    begun: usize,
    ended: usize,
}

/// Reads a log; calls that other threads interrupt are put together again.
fn calls(log: &str) -> Vec<Call> {
    let mut open: HashMap<&str, (usize, String)> = HashMap::new();
    let mut found = Vec::new();
    for (at, line) in log.lines().enumerate() {
        let (pid, text) = line.split_once(' ').unwrap();
        let text = text.trim_start();
        if let Some(start) = text.strip_suffix(" <unfinished ...>") {
            open.insert(pid, (at, start.to_owned()));
            continue;
        }
        let (begun, whole) = match text.strip_prefix("<... ") {
            Some(rest) => {
                let (begun, start) = open.remove(pid).unwrap();
                (begun, start + rest.split_once(" resumed>").unwrap().1)
            }
            None => (at, text.to_owned()),
        };
        let Some((call, result)) = whole.rsplit_once(" = ") else {
            continue;
        };
        let Some((name, args)) = call.split_once('(') else {
            continue;
        };
        if !result.starts_with('-') {
            found.push(Call {
                name: name.to_owned(),
                args: args.to_owned(),
                result: result.to_owned(),
                begun,
                ended: at,
            });
        }
    }
    found
}

impl Call {
    /// The file behind the descriptor that is the first argument.
    fn file(&self) -> &Path {
        let (_, rest) = self.args.split_once('<').unwrap();
        Path::new(rest.split_once('>').unwrap().0)
    }

    /// The texts in quotation marks.
    fn paths(&self) -> Vec<&Path> {
        self.args
            .split('"')
            .skip(1)
            .step_by(2)
            .map(Path::new)
            .collect()
    }
}

/// What the calls so far have made of the files of a store.
#[derive(Default)]
struct Durable {
    /// Files with bytes that no sync has covered.
    unsynced: HashSet<PathBuf>,
    /// Final names whose directory was not synced since.
    unsynced_names: BTreeSet<PathBuf>,
    objects: usize,
    manifests: usize,
}

impl Durable {
    fn follow(&mut self, calls: &[Call], store: &Path) {
        // A sync counts when it has ended, all else when it has begun.
        let mut order: Vec<_> = calls.iter().collect();
        order.sort_by_key(|call| {
            if call.name.contains("sync") {
                call.ended
            } else {
                call.begun
            }
        });
        for call in order {
            match call.name.as_str() {
                "write" | "pwrite64" | "writev" | "ftruncate" if call.args.contains('<') => {
                    if call.file().starts_with(store) {
                        self.unsynced.insert(call.file().to_path_buf());
                    }
                }
                "openat" if call.args.contains("O_CREAT") || call.args.contains("O_TRUNC") => {
                    let (_, file) = call.result.split_once('<').unwrap();
                    let file = Path::new(file.trim_end_matches('>'));
                    assert!(
                        !file.starts_with(store.join("objects"))
                            && !file.starts_with(store.join("models")),
                        "written in place: {}",
                        file.display()
                    );
                }
                "fsync" | "fdatasync" => self.sync(call.file()),
                "rename" | "renameat" | "renameat2" => self.rename(&call.paths(), store),
                name => assert!(
                    name == "openat" || !call.args.contains("/store/"),
                    "{name}({}",
                    call.args
                ),
            }
        }
    }

    fn sync(&mut self, file: &Path) {
        self.unsynced.remove(file);
        self.unsynced_names
            .retain(|name| name.parent() != Some(file));
    }

    fn rename(&mut self, paths: &[&Path], store: &Path) {
        let [from, to] = paths else {
            panic!("{paths:?}");
        };
        if !to.starts_with(store) {
            return;
        }
        assert!(
            !self.unsynced.contains(*from),
            "{} gets its name before its bytes are synced",
            to.display()
        );
        if to.starts_with(store.join("objects")) {
            self.objects += 1;
        }
        if to.starts_with(store.join("models")) {
            self.manifests += 1;
            let manifest: Value = serde_json::from_slice(&fs::read(to).unwrap()).unwrap();
            let files = manifest["files"].as_array().unwrap().iter();
            let segments = files.flat_map(|file| file["segments"].as_array().unwrap());
            for segment in segments {
                let name = segment["object"].as_str().unwrap();
                let path = store.join("objects").join(&name[..2]).join(name);
                assert!(path.exists(), "{}", path.display());
                assert!(
                    !self.unsynced_names.contains(&path),
                    "{} comes before {} is durable",
                    to.display(),
                    path.display()
                );
            }
        }
        self.unsynced_names.insert(to.to_path_buf());
    }
}

/// T20: objects are synced, then named, then their directories synced; then the manifest, the same way; then it ends.
#[test]
fn nothing_is_named_before_it_is_durable() {
    if !has_strace() {
        return;
    }
    // So many objects that there are several barriers.
    let batch = family(Batch::new(&IDS), 150);
    let config = batch.path("config.json");
    let other = batch.path("other");
    let (config, other) = (config.to_str().unwrap(), other.to_str().unwrap());
    let store = batch
        .path("store")
        .canonicalize()
        .unwrap_or(batch.path("store"));
    let trace = format!("trace={CALLS}");
    let cases: [(&[&str], &str, usize, usize); 6] = [
        (&[config], "store", 451, 3),
        (
            &["recode", config, "--all", "--effort", "max"],
            "store",
            0,
            0,
        ),
        (
            &["rename", config, "lab/other", "lab/renamed"],
            "store",
            0,
            1,
        ),
        (
            &["copy", config, "lab/tune", "--to-store", other],
            "other",
            301,
            1,
        ),
        (
            &["remove", config, "lab/base", "lab/renamed"],
            "store",
            0,
            0,
        ),
        (&["gc", config], "store", 0, 0),
    ];
    for (args, target, objects, manifests) in cases {
        let (run, log) = traced(&batch, &["-e", &trace], args);
        run.expect(0);
        let target = store.with_file_name(target);
        let mut durable = Durable::default();
        durable.follow(&calls(&log), &target);
        let done = (durable.objects >= objects, durable.manifests >= manifests);
        assert_eq!(
            done,
            (true, true),
            "{args:?}: {} {}",
            durable.objects,
            durable.manifests
        );
        let left: Vec<_> = durable.unsynced_names.iter().collect();
        assert!(
            left.is_empty(),
            "{args:?}: names that may be lost: {left:?}"
        );
        println!(
            "{}: {} objects, {} manifests in order",
            args[0], durable.objects, durable.manifests
        );
    }
}

/// The order is found wrong where it is wrong.
#[test]
fn a_wrong_order_is_found() {
    let store = Path::new("/s");
    let write = "1 write(3</s/tmp/1>, \"x\", 1) = 1\n";
    let sync = "1 fdatasync(3</s/tmp/1>) = 0\n";
    let late = "1 fdatasync(3</s/tmp/1> <unfinished ...>\n2 rename(\"/s/tmp/1\", \"/s/objects/ab/abc\") = 0\n1 <... fdatasync resumed>) = 0\n";
    let rename = "1 rename(\"/s/tmp/1\", \"/s/objects/ab/abc\") = 0\n";
    let failed = "1 fdatasync(3</s/tmp/1>) = -1 EIO (Input/output error)\n";
    for (log, is_right) in [
        (format!("{write}{sync}{rename}"), true),
        (format!("{write}{rename}"), false),
        (format!("{write}{failed}{rename}"), false),
        (format!("{write}{late}"), false),
        (format!("{sync}{write}{rename}"), false),
    ] {
        let follow = || {
            let mut durable = Durable::default();
            durable.follow(&calls(&log), store);
            durable.unsynced_names.len()
        };
        let found = std::panic::catch_unwind(follow);
        assert_eq!(found.ok(), is_right.then_some(1), "{log}");
    }
}

/// T2: the k-th call of a kind fails in each thread, once or from then on; then the store is whole, and the next run
/// ends as if nothing had been.
#[test]
fn a_call_that_fails_loses_nothing() {
    if !has_strace() {
        return;
    }
    let all = std::env::var("ZIPLLM_FAULTS").is_ok_and(|which| which == "all");
    let whole = family(Batch::in_memory(&IDS), 2);
    let originals = IDS.map(|id| tree(&whole.path("models").join(id)));
    whole.zipllm(&[]).expect(0);
    let expected = whole.stored();
    let (mut faults, mut refused, mut in_part) = (0, 0, 0);
    for (calls, error) in [
        ("write", "ENOSPC"),
        ("fsync,fdatasync", "EIO"),
        ("/^rename", "EIO"),
        ("/^mkdir", "ENOSPC"),
        ("openat", "EIO"),
        ("pread64", "EIO"),
        ("/^unlink", "EIO"),
        ("getdents64", "EIO"),
    ] {
        let mut step = if all { 1 } else { 7 };
        let mut at = 1;
        for when in 1.. {
            let batch = family(Batch::in_memory(&IDS), 2);
            let times = if when % 2 == 0 { "" } else { "+" };
            let fault = format!("inject={calls}:error={error}:when={at}{times}");
            let config = batch.path("config.json");
            let args = [config.to_str().unwrap(), "--threads", "1"];
            let (run, log) = traced(&batch, &["-e", &fault], &args);
            if !log.contains("(INJECTED)") {
                break;
            }
            faults += 1;
            assert!(!run.stderr.contains("panicked"), "{fault}: {}", run.stderr);
            assert!(
                run.code == Some(0) || !run.stderr.is_empty() || calls == "write",
                "{fault}: says nothing"
            );
            refused += usize::from(run.code != Some(0));
            let mut kept = 0;
            if batch.path("store/zipllm.json").exists() {
                batch.check().expect(0);
                for (id, original) in IDS.iter().zip(&originals) {
                    let place = format!("store/models/{}", id.replace('/', "--"));
                    if batch.path(place).join("000001.json").exists() {
                        batch.assert_restores(id, original);
                        kept += 1;
                    }
                }
            }
            assert!(
                run.code != Some(0) || kept == IDS.len(),
                "{fault}: claims what is not there"
            );
            in_part += usize::from(run.code != Some(0) && kept > 0);
            batch.zipllm(&[]).expect(0).silent();
            // A model whose base could not be read, or failed, is stored without it, and says so.
            if !run.stderr.contains("bases are found by search") {
                assert_same(&expected, &batch.stored(), &fault);
            }
            batch.assert_clean();
            if when % 2 == 0 || !all {
                at += step;
                step += usize::from(!all) * 5;
            }
        }
    }
    println!(
        "{faults} faults: {refused} runs ended with an error, {in_part} of them after storing some models; 0 lost"
    );
    assert!(faults > 20 && in_part > 0, "{faults} {in_part}");
}
