//! The manifest: one version of a model, file by file; writing it is what stores the model.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::hash::Hash;
use crate::name::{ModelId, RelPath};

/// The version of the manifest format that this build writes.
pub const FORMAT: u32 = 1;

/// One version of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of the manifest format.
    pub format: u32,
    /// The model.
    pub model: ModelId,
    /// 1 for the first version of the model.
    pub version: u32,
    /// The revision of the model on its hub, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The model whose tensors were the bases, if any; for people, not for restoring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<ModelId>,
    /// Which models' tensors served as bases when it was stored; for people, not for restoring.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bases: Vec<BaseShare>,
    /// Bytes of all files.
    pub bytes: u64,
    /// Every file, sorted by path.
    pub files: Vec<FileEntry>,
    /// Directories without files, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub empty_dirs: Vec<RelPath>,
}

/// Why a base was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The base map or the model's own files name the model it is of.
    Hint,
    /// It has the same name there.
    Name,
    /// Its content is near, whatever its name.
    Content,
}

/// What one model contributed as a base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseShare {
    /// The model that holds the bases, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelId>,
    /// Why they were chosen.
    pub why: Why,
    /// Tensors that are stored as differences to them.
    pub tensors: u64,
    /// Bytes of these tensors.
    pub bytes: u64,
}

/// One file of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Where it lies in the model.
    pub path: RelPath,
    /// Its length in bytes.
    pub size: u64,
    /// The hash of all its bytes.
    pub blake3: Hash,
    /// Whether its owner may execute it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
    /// The objects that make it up, in order.
    pub segments: Vec<Segment>,
}

/// One run of a file's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    /// The object that holds the bytes.
    pub object: Hash,
    /// The object's length in bytes.
    pub length: u64,
    /// What the bytes are, where they are a tensor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensor: Option<Tensor>,
}

/// A tensor's name and type, as its file gives them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tensor {
    /// The tensor's name.
    pub name: String,
    /// The dtype's name in the file.
    pub dtype: String,
    /// Elements in each dimension.
    pub shape: Vec<u64>,
}

impl Manifest {
    /// Checks what the types do not: sizes, order, and that no path is inside another file.
    pub fn validate(&self) -> Result<(), String> {
        let mut names = HashSet::new();
        for file in &self.files {
            let sum = file
                .segments
                .iter()
                .try_fold(0u64, |sum, segment| sum.checked_add(segment.length));
            if sum != Some(file.size) || file.segments.iter().any(|segment| segment.length == 0) {
                return Err(format!(
                    "{}: the segments do not add up to the file",
                    file.path
                ));
            }
            if !names.insert(file.path.as_str()) {
                return Err(format!("{}: listed twice", file.path));
            }
        }
        let sum = self
            .files
            .iter()
            .try_fold(0u64, |sum, file| sum.checked_add(file.size));
        if sum != Some(self.bytes) {
            return Err("the files do not add up to the model".into());
        }
        self.find_nested(&names)
    }

    fn find_nested(&self, files: &HashSet<&str>) -> Result<(), String> {
        let dirs = self.empty_dirs.iter().map(RelPath::as_str);
        for path in files.iter().copied().chain(dirs.clone()) {
            if let Some(parent) = parents(path).find(|parent| files.contains(parent)) {
                return Err(format!("{path}: lies inside the file {parent}"));
            }
        }
        match dirs.clone().find(|dir| files.contains(dir)) {
            Some(dir) => Err(format!("{dir}: both a file and a directory")),
            None => Ok(()),
        }
    }

    /// Tells whether both say the same of the model's files.
    pub fn same_content(&self, other: &Self) -> bool {
        self.files == other.files && self.empty_dirs == other.empty_dirs
    }
}

/// Every proper prefix of a path that ends before a `/`.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/')
        .filter_map(move |(at, _)| path.get(..at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, size: u64) -> FileEntry {
        let segments = if size == 0 {
            vec![]
        } else {
            vec![Segment {
                object: Hash::of(b"x"),
                length: size,
                tensor: None,
            }]
        };
        FileEntry {
            path: path.parse().unwrap(),
            size,
            blake3: Hash::of(b"x"),
            executable: false,
            segments,
        }
    }

    fn manifest(files: Vec<FileEntry>, dirs: &[&str]) -> Manifest {
        Manifest {
            format: FORMAT,
            model: "a/b".parse().unwrap(),
            version: 1,
            commit: None,
            base: None,
            bases: vec![],
            bytes: files.iter().map(|f| f.size).sum(),
            files,
            empty_dirs: dirs.iter().map(|d| d.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn contradictions_are_found() {
        assert!(
            manifest(vec![file("a", 1), file("b/c", 0)], &["d"])
                .validate()
                .is_ok()
        );
        let mut wrong_sum = manifest(vec![file("a", 1)], &[]);
        wrong_sum.bytes = 2;
        let mut wrong_file = file("a", 1);
        wrong_file.size = 2;
        for (bad, reason) in [
            (wrong_sum, "add up to the model"),
            (manifest(vec![wrong_file], &[]), "add up to the file"),
            (manifest(vec![file("a", 1), file("a", 1)], &[]), "twice"),
            (
                manifest(vec![file("a", 1), file("a/b", 1)], &[]),
                "inside the file",
            ),
            (manifest(vec![file("a", 1)], &["a/b"]), "inside the file"),
            (manifest(vec![file("a", 1)], &["a"]), "both"),
        ] {
            let found = bad.validate().unwrap_err();
            assert!(found.contains(reason), "{found}");
        }
    }

    #[test]
    fn content_is_files_and_empty_directories() {
        let one = manifest(vec![file("a", 1)], &["d"]);
        for (other, want) in [
            (
                Manifest {
                    version: 2,
                    ..one.clone()
                },
                true,
            ),
            (manifest(vec![file("a", 2)], &["d"]), false),
            (manifest(vec![file("a", 1)], &["e"]), false),
            (manifest(vec![], &[]), false),
        ] {
            assert_eq!(one.same_content(&other), want, "{other:?}");
        }
    }

    #[test]
    fn hostile_paths_do_not_parse() {
        for path in ["../x", "/etc/passwd", "a/../../b", "", "a//b", "a\0"] {
            let text = serde_json::to_string(&manifest(vec![file("q", 1)], &[])).unwrap();
            let forged = text.replace("\"q\"", &serde_json::to_string(path).unwrap());
            assert!(
                serde_json::from_str::<Manifest>(&forged).is_err(),
                "{path:?}"
            );
        }
    }
}
