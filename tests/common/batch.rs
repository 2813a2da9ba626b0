//! A batch in a directory of its own, run through the real programs.
#![allow(
    dead_code,
    reason = "each program that includes this takes a part of it"
)]

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

pub const ZIPLLM: &str = env!("CARGO_BIN_EXE_zipllm");
pub const RESTORE: &str = env!("CARGO_BIN_EXE_restore");

/// A directory with `config.json`, `list.txt`, `models/`, and soon `store/`.
pub struct Batch {
    dir: TempDir,
}

/// What a program did.
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// An entry of a directory tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Directory,
    File {
        hash: blake3::Hash,
        length: u64,
        executable: bool,
    },
}

pub type Tree = BTreeMap<PathBuf, Entry>;

impl Batch {
    /// A batch of these models, the first of which is the base of the others.
    pub fn new(ids: &[&str]) -> Self {
        Self::within(tempfile::tempdir().unwrap(), ids)
    }

    /// Like `new`, in memory where the system offers that: no waiting for a disk, which a kill does not concern.
    pub fn in_memory(ids: &[&str]) -> Self {
        let memory = tempfile::tempdir_in("/dev/shm");
        Self::within(memory.or_else(|_| tempfile::tempdir()).unwrap(), ids)
    }

    fn within(dir: TempDir, ids: &[&str]) -> Self {
        let batch = Self { dir };
        fs::create_dir(batch.path("models")).unwrap();
        batch.list(ids);
        batch.configure(&json!({}));
        batch
    }

    /// The cut of the real family, copied, with its base map.
    pub fn real() -> Self {
        let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/real");
        let list = fs::read_to_string(real.join("models.txt")).unwrap();
        let batch = Self::new(&ids(&list));
        copy_tree(&real.join("models"), &batch.path("models"));
        let map = fs::read_to_string(real.join("base_ft.json")).unwrap();
        batch.bases(&serde_json::from_str(&map).unwrap());
        batch
    }

    /// A path in the batch's directory.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(relative)
    }

    /// Lists other models.
    pub fn list(&self, ids: &[&str]) {
        fs::write(self.path("list.txt"), ids.join("\n")).unwrap();
    }

    /// Gives a base map.
    pub fn bases(&self, map: &Value) {
        fs::write(self.path("bases.json"), map.to_string()).unwrap();
        self.configure(&json!({"base_ft_path": "bases.json"}));
    }

    /// Writes `config.json` with `settings` added to what it needs.
    pub fn configure(&self, settings: &Value) {
        let mut config = json!({
            "model_dir": "models", "storage_dir": "store", "models_to_process": "list.txt", "threads": 2,
        });
        for (key, value) in settings.as_object().unwrap() {
            config[key] = value.clone();
        }
        fs::write(self.path("config.json"), config.to_string()).unwrap();
    }

    /// Writes a file of a model; `place` is relative to the models' directory.
    pub fn file(&self, place: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path("models").join(place);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// `zipllm config.json ARGS`.
    pub fn zipllm(&self, args: &[&str]) -> Run {
        Run::of(
            Command::new(ZIPLLM)
                .arg(self.path("config.json"))
                .args(args),
        )
    }

    /// `zipllm VERB config.json ARGS`.
    pub fn verb(&self, verb: &str, args: &[&str]) -> Run {
        let mut command = Command::new(ZIPLLM);
        Run::of(command.arg(verb).arg(self.path("config.json")).args(args))
    }

    /// `zipllm VERB config.json ARGS --json`, which has to end well.
    #[track_caller]
    pub fn report(&self, verb: &str, args: &[&str]) -> Value {
        let args = [args, &["--json"]].concat();
        self.verb(verb, &args).expect(0).json()
    }

    /// `zipllm check config.json --read-data --json`, whatever its exit code.
    pub fn check(&self) -> Run {
        Run::of(
            Command::new(ZIPLLM)
                .arg("check")
                .arg(self.path("config.json"))
                .args(["--read-data", "--json"]),
        )
    }

    /// Fails unless the store is whole, without anything to remark on.
    pub fn assert_clean(&self) {
        let report = self.check().expect(0).json();
        assert_eq!(report["warnings"], json!([]), "{report:#}");
        assert_eq!(
            names(&self.path("store/tmp")),
            [""; 0],
            "left over in the store's tmp/"
        );
    }

    /// `restore config.json MODEL OUT ARGS`; `out` is relative to the batch's directory.
    pub fn restore(&self, model: &str, out: &str, args: &[&str]) -> Run {
        Run::of(
            Command::new(RESTORE)
                .arg(self.path("config.json"))
                .arg(model)
                .arg(self.path(out))
                .args(args),
        )
    }

    /// Restores a model to a new directory and compares it with the tree that it should be.
    pub fn assert_restores(&self, model: &str, expected: &Tree) {
        let out = tempfile::tempdir_in(self.dir.path()).unwrap();
        let name = out.path().file_name().unwrap().to_str().unwrap().to_owned();
        self.restore(model, &name, &[]).expect(0);
        assert_same(expected, &tree(out.path()), model);
    }

    /// What the store holds for good: `objects/` and `models/`.
    pub fn stored(&self) -> Tree {
        let mut all = tree(&self.path("store"));
        all.retain(|path, _| path.starts_with("objects") || path.starts_with("models"));
        all
    }

    /// The manifest of a version, as JSON.
    pub fn manifest(&self, directory: &str, version: u32) -> Value {
        let path = self.path(format!("store/models/{directory}/{version:06}.json"));
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }
}

impl Run {
    /// Runs a command to its end, away from any terminal.
    pub fn of(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).env_remove("RUST_LOG");
        Self::from(command.output().unwrap())
    }

    /// Fails unless the exit code is `code`, and if anything panicked.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "exit code\n{}{}",
            self.stdout,
            self.stderr
        );
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }

    /// Fails unless stderr has each of the texts.
    #[track_caller]
    pub fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(
                self.stderr.contains(text),
                "not said: {text:?}\n{}",
                self.stderr
            );
        }
        self
    }

    /// Fails if anything was said on stderr.
    #[track_caller]
    pub fn silent(self) -> Self {
        assert_eq!(self.stderr, "");
        self
    }

    /// What was printed with `--json`.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}\n{}{}", self.stdout, self.stderr))
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// The part of a report that is about a model.
#[track_caller]
pub fn about<'a>(report: &'a Value, model: &str) -> &'a Value {
    let models = report["models"].as_array().unwrap();
    models
        .iter()
        .find(|entry| entry["model"] == model)
        .unwrap_or_else(|| panic!("{model} is not in {report:#}"))
}

/// The ids in the text of a list.
pub fn ids(list: &str) -> Vec<&str> {
    list.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

/// The names in a directory, sorted; none if there is no directory.
pub fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Everything below `root`, links followed.
pub fn tree(root: &Path) -> Tree {
    let mut found = Tree::new();
    collect(root, Path::new(""), &mut found);
    found
}

fn collect(root: &Path, below: &Path, found: &mut Tree) {
    for entry in fs::read_dir(root.join(below)).unwrap() {
        let path = below.join(entry.unwrap().file_name());
        let metadata = fs::metadata(root.join(&path)).unwrap();
        if metadata.is_dir() {
            collect(root, &path, found);
            found.insert(path, Entry::Directory);
            continue;
        }
        let bytes = fs::read(root.join(&path)).unwrap();
        let entry = Entry::File {
            hash: blake3::hash(&bytes),
            length: metadata.len(),
            executable: metadata.permissions().mode() & 0o100 != 0,
        };
        found.insert(path, entry);
    }
}

/// Fails where two trees differ, and says where.
#[track_caller]
pub fn assert_same(expected: &Tree, actual: &Tree, what: &str) {
    let paths = expected.keys().chain(actual.keys());
    let mut wrong: Vec<_> = paths
        .filter(|path| expected.get(*path) != actual.get(*path))
        .map(|path| {
            format!(
                "{}: {:?}, not {:?}",
                path.display(),
                actual.get(path),
                expected.get(path)
            )
        })
        .collect();
    wrong.dedup();
    assert!(
        wrong.is_empty(),
        "{what}: {} differ\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Copies a directory with all that is in it.
pub fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Sets whether everyone may execute a file.
pub fn set_executable(path: &Path, yes: bool) {
    let mode = if yes { 0o755 } else { 0o644 };
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A store in `testdata`, or anything else that ends up in one directory, as an absolute path.
pub fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata")
        .join(name)
}
