//! One writer at a time, readers at any time, and a store that may only be read.
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

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use batch::{Batch, Entry, RESTORE, Run, ZIPLLM, about, assert_same, names, tree};
use tensors::{noise, safetensors, tuned, weights};

fn family() -> Batch {
    let batch = Batch::new(&["lab/base", "lab/tune"]);
    let base = weights(1, 5000);
    for (model, values) in [("base", base.clone()), ("tune", tuned(&base, 2))] {
        let file = safetensors(&[("w", "BF16", &[50, 100], &values)]);
        batch.file(&format!("lab/{model}/model.safetensors"), file);
    }
    batch
}

/// A real `zipllm`, stopped while it writes.
struct Stopped(Child);

impl Stopped {
    /// Adds a large model to the batch, starts to store it, and stops the program on the way.
    fn new(batch: &Batch) -> Self {
        batch.file("lab/large/noise.bin", noise(1, 48 << 20));
        batch.list(&["lab/large"]);
        let mut program = Command::new(ZIPLLM);
        let command = program.arg(batch.path("config.json")).stdin(Stdio::null());
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        let mut stopped = Self(child);
        let begun = Instant::now();
        while names(&batch.path("store/tmp")).is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(60), "it never began");
            std::thread::sleep(Duration::from_micros(200));
        }
        stopped.signal("STOP");
        let ended = stopped.0.try_wait().unwrap();
        assert_eq!(ended, None, "it ended before it was stopped");
        stopped
    }

    fn signal(&self, signal: &str) {
        let id = self.0.id().to_string();
        Run::of(Command::new("kill").args([&format!("-{signal}"), &id])).expect(0);
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_second_writer_is_refused_and_readers_are_not() {
    let batch = family();
    let original = tree(&batch.path("models/lab/tune"));
    batch.zipllm(&[]).expect(0);
    let before = batch.stored();
    let writer = Stopped::new(&batch);
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let holder = format!("process {} on {}, since 2", writer.0.id(), host.trim());
    let begun = Instant::now();
    batch
        .zipllm(&[])
        .expect(1)
        .says(&["store: the store is in use by ", &holder]);
    assert!(begun.elapsed() < Duration::from_secs(30), "it waited");
    batch.assert_restores("lab/tune", &original);
    batch
        .restore("lab/large", "out", &[])
        .expect(1)
        .says(&["not in the store"]);
    // What would be deleted can be told meanwhile.
    batch
        .verb("gc", &["--dry-run"])
        .expect(0)
        .says(&["note: ", &holder]);
    batch.verb("optimize", &["--dry-run"]).expect(0).silent();
    let report = batch.check().expect(0).json();
    assert!(
        report["warnings"].to_string().contains("unfinished file"),
        "{report:#}"
    );
    assert_same(&before, &batch.stored(), "while the writer is stopped");

    // A lock goes with its holder.
    drop(writer);
    let report = batch.zipllm(&["--json"]).expect(0).json();
    assert_eq!(about(&report, "lab/large")["status"], "stored");
    batch.assert_clean();
    batch.assert_restores("lab/large", &tree(&batch.path("models/lab/large")));
}

#[test]
fn a_writer_that_goes_on_finishes_its_work() {
    let batch = family();
    let mut writer = Stopped::new(&batch);
    batch.zipllm(&[]).expect(1).says(&["is in use by"]);
    writer.signal("CONT");
    assert!(writer.0.wait().unwrap().success());
    batch.assert_clean();
    batch.assert_restores("lab/large", &tree(&batch.path("models/lab/large")));
}

/// Writers that wait take their turns; collecting waits for those who read, or says that they do.
#[test]
fn who_waits_gets_the_store() {
    let batch = family();
    batch.zipllm(&[]).expect(0);
    let mut writer = Stopped::new(&batch);
    let start = |verb: &[&str]| {
        let mut program = Command::new(ZIPLLM);
        let command = program.args(verb).arg(batch.path("config.json"));
        let command = command.args(["--wait"]).stdin(Stdio::null());
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    for verb in [&["gc"][..], &["remove"], &["recode"]] {
        let rest: &[&str] = if verb == ["remove"] {
            &["lab/tune"]
        } else {
            &[]
        };
        batch
            .verb(verb[0], rest)
            .expect(1)
            .says(&["is in use by process", "--wait"]);
    }
    let mut waiting = [start(&[]), start(&["gc"]), start(&["recode"])];
    std::thread::sleep(Duration::from_millis(200));
    for child in &mut waiting {
        assert_eq!(child.try_wait().unwrap(), None, "it did not wait");
    }
    writer.signal("CONT");
    assert!(writer.0.wait().unwrap().success());
    for child in waiting {
        Run::from(child.wait_with_output().unwrap())
            .expect(0)
            .says(&["waiting for process "]);
    }
    batch.assert_clean();
    batch.assert_restores("lab/large", &tree(&batch.path("models/lab/large")));
}

#[test]
fn nothing_is_deleted_while_somebody_reads() {
    let batch = family();
    batch.zipllm(&[]).expect(0);
    batch.verb("remove", &["lab/tune"]).expect(0);
    let reader = zipllm::store::Store::open(&batch.path("store")).unwrap();
    let own = format!(
        "is in use by process {}, which reads it",
        std::process::id()
    );
    batch.verb("gc", &[]).expect(1).says(&[&own]);
    assert_eq!(batch.report("gc", &["--dry-run"])["freed_objects"], 1);
    let mut program = Command::new(ZIPLLM);
    let command = program
        .arg("gc")
        .arg(batch.path("config.json"))
        .args(["--wait", "--json"]);
    let mut waiting = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(waiting.try_wait().unwrap(), None, "it did not wait");
    // Who comes later is not kept waiting, and other writers are refused.
    batch.assert_restores("lab/base", &tree(&batch.path("models/lab/base")));
    batch.zipllm(&[]).expect(1).says(&["is in use by process"]);
    drop(reader);
    let run = Run::from(waiting.wait_with_output().unwrap()).expect(0);
    let run = run.says(&["waiting for process ", ", which reads it"]);
    assert_eq!(run.json()["freed_objects"], 1);
    batch.assert_clean();
}

/// Writers that start together: the store is one's, and whoever was refused says so; nothing is damaged.
#[test]
fn writers_that_start_together_do_no_harm() {
    for round in 0..5 {
        let batch = family();
        let start = || {
            let mut program = Command::new(ZIPLLM);
            let command = program.arg(batch.path("config.json")).stdin(Stdio::null());
            command
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        };
        let writers: Vec<_> = (0..4).map(|_| start()).collect();
        let mut done = 0;
        for writer in writers {
            let run = Run::from(writer.wait_with_output().unwrap());
            if run.code == Some(0) {
                done += 1;
            } else {
                run.expect(1).says(&["the store is in use by"]);
            }
        }
        assert!(done > 0, "round {round}");
        batch.zipllm(&[]).expect(0);
        batch.assert_clean();
        batch.assert_restores("lab/tune", &tree(&batch.path("models/lab/tune")));
    }
}

/// The text in a lock file is a hint for people; what it says binds nobody.
#[test]
fn a_lock_file_alone_locks_nothing() {
    let batch = family();
    batch.zipllm(&[]).expect(0);
    for text in ["1 elsewhere 5\n", "", "\u{1b}[31m garbage", "0 0 0 0 0"] {
        fs::write(batch.path("store/lock"), text).unwrap();
        batch.zipllm(&[]).expect(0).silent();
    }
    fs::remove_file(batch.path("store/lock")).unwrap();
    batch.zipllm(&[]).expect(0).silent();
}

/// Runs a program as somebody who may read everything here and write nothing; root may write in any case, so
/// it becomes nobody first. `None` where that cannot be done.
fn as_reader(program: &str, args: &[&Path]) -> Option<Run> {
    const NOBODY: &str = "65534";
    let root = Run::of(Command::new("id").arg("-u")).stdout.trim() == "0";
    let mut command = if root {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid",
            NOBODY,
            "--regid",
            NOBODY,
            "--clear-groups",
            "--",
            program,
        ]);
        command
    } else {
        Command::new(program)
    };
    let works =
        |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    let mut trial = Command::new(command.get_program());
    trial.args(command.get_args()).arg("--version");
    works(&mut trial).then(|| Run::of(command.args(args)))
}

/// Sets the modes of everything below a directory, so that only its owner may write, or nobody at all.
fn set_modes(root: &Path, directories: u32, files: u32) {
    fs::set_permissions(root, Permissions::from_mode(0o755)).unwrap();
    for (path, entry) in tree(root) {
        let mode = match entry {
            Entry::Directory => directories,
            Entry::File { .. } => files,
        };
        fs::set_permissions(root.join(path), Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(root, Permissions::from_mode(directories)).unwrap();
}

#[test]
fn a_store_that_may_only_be_read_is_read() {
    let batch = family();
    batch.zipllm(&[]).expect(0);
    let original = tree(&batch.path("models/lab/tune"));
    fs::set_permissions(batch.path(""), Permissions::from_mode(0o755)).unwrap();
    set_modes(&batch.path("store"), 0o555, 0o444);
    let before = tree(&batch.path("store"));
    let config = batch.path("config.json");
    fs::create_dir(batch.path("out")).unwrap();
    fs::set_permissions(batch.path("out"), Permissions::from_mode(0o777)).unwrap();

    let out = batch.path("out/model");
    let args = [config.as_path(), Path::new("lab/tune"), out.as_path()];
    let Some(restored) = as_reader(RESTORE, &args) else {
        println!("SKIPPED: cannot run as another user");
        return;
    };
    restored.expect(0).silent();
    assert_same(&original, &tree(&out), "restored by a reader");
    let check = [Path::new("check"), &config, Path::new("--read-data")];
    as_reader(ZIPLLM, &check).unwrap().expect(0).silent();
    for verb in ["gc", "optimize"] {
        let dry = [Path::new(verb), &config, Path::new("--dry-run")];
        as_reader(ZIPLLM, &dry).unwrap().expect(0).silent();
    }
    as_reader(ZIPLLM, &[&config])
        .unwrap()
        .expect(1)
        .says(&["store", "denied"]);
    assert_same(
        &before,
        &tree(&batch.path("store")),
        "a store that may only be read",
    );
    set_modes(&batch.path("store"), 0o755, 0o644);
}

#[test]
fn a_file_that_may_not_be_read_fails_its_model() {
    let batch = family();
    let secret = batch.file("lab/tune/secret.bin", "x");
    fs::set_permissions(&secret, Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(batch.path(""), Permissions::from_mode(0o777)).unwrap();
    let config = batch.path("config.json");
    let Some(run) = as_reader(ZIPLLM, &[&config]) else {
        println!("SKIPPED: cannot run as another user");
        return;
    };
    run.expect(1).says(&["lab/tune/secret.bin", "denied"]);
    assert_eq!(names(&batch.path("store/models")), ["lab--base"]);
    batch.assert_restores("lab/base", &tree(&batch.path("models/lab/base")));
}

/// Writers, collectors and readers all at once (T16): nobody waits for ever, no reader meets half a model or a missing
/// object, and nothing is damaged. `ZIPLLM_ROUNDS=200` makes a soak of it.
#[test]
fn all_at_once_do_no_harm() {
    let rounds = std::env::var("ZIPLLM_ROUNDS").map_or(8, |rounds| rounds.parse().unwrap());
    let batch = family();
    let base = tree(&batch.path("models/lab/base"));
    let config = batch.path("config.json");
    let start = |verb: &[&str], rest: &[&str]| {
        let mut program = Command::new(ZIPLLM);
        let command = program
            .args(verb)
            .arg(&config)
            .args(rest)
            .stdin(Stdio::null());
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    for round in 0..rounds {
        batch.zipllm(&[]).expect(0);
        let all = [
            start(&["remove"], &["lab/tune", "--wait"]),
            start(&["gc"], &["--wait"]),
            start(&[], &["--wait"]),
            start(&["gc"], &["--wait"]),
            start(&["recode"], &["--all", "--wait"]),
            start(&["check"], &["--read-data", "--json"]),
            start(&["check"], &["--json"]),
            start(&["list"], &["--json"]),
            start(
                &["cat"],
                &["lab/base", "model.safetensors", "--range", "0-9"],
            ),
        ];
        for out in ["out1", "out2"] {
            let run = batch.restore(
                ["lab/base", "lab/tune"][usize::from(out == "out2")],
                out,
                &[],
            );
            // The fine-tune may be removed just now; then it is not there at all.
            assert!(
                run.code == Some(0) || out == "out2" && run.code == Some(1),
                "{}",
                run.stderr
            );
            let _ = fs::remove_dir_all(batch.path(out));
        }
        for (place, child) in all.into_iter().enumerate() {
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(
                output.status.code(),
                Some(0),
                "round {round}, {place}: {said}"
            );
        }
        batch.assert_clean();
        batch.assert_restores("lab/base", &base);
    }
    println!("{rounds} rounds of 11 processes, 0 damaged");
}
