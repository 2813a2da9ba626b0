//! What a model's files looked like when they were stored, so that a later run need not read them again.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::name::{ModelId, RelPath};
use crate::source::{SourceFile, Stamp};
use crate::store::{Store, sealed};

/// Seconds that have to lie between a file's last change and the scan: a later change within the same
/// tick of the file system's clock would not show.
const SETTLE_SECONDS: i64 = 2;

/// The files of a model, as the operating system described them.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanRecord {
    /// The version that holds what they contained.
    version: u32,
    files: Vec<(RelPath, Stamp)>,
    /// The records of other revisions of the model that are on disk too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    others: Vec<ScanRecord>,
}

impl ScanRecord {
    /// The record of `files`, or `None` where one of them changed too short ago to be trusted.
    pub fn new(version: u32, files: &[SourceFile]) -> Option<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        let latest = i64::try_from(now).ok()? - SETTLE_SECONDS;
        let settled =
            |file: &SourceFile| file.stamp.changed.0 < latest && file.stamp.modified.0 < latest;
        files.iter().all(settled).then(|| Self {
            version,
            files: files
                .iter()
                .map(|file| (file.path.clone(), file.stamp))
                .collect(),
            others: Vec::new(),
        })
    }

    /// Keeps the records of other versions.
    #[must_use]
    pub fn beside(mut self, earlier: Option<Self>) -> Self {
        let Some(mut earlier) = earlier else {
            return self;
        };
        let others = std::mem::take(&mut earlier.others);
        let others = others.into_iter().chain([earlier]);
        self.others = others.filter(|one| one.version != self.version).collect();
        self
    }

    /// Reads the record of a model; one that is missing or damaged only costs a second reading of the files.
    pub fn read(store: &Store, id: &ModelId) -> Option<Self> {
        let bytes = store.read_file(&store.layout().scan(id)).ok()??;
        sealed::parse(&bytes).ok()
    }

    /// Tells whether the files are those that version holds, untouched.
    pub fn matches(&self, version: u32, files: &[SourceFile]) -> bool {
        let same = |((path, stamp), file): (&(RelPath, Stamp), &SourceFile)| {
            *path == file.path && *stamp == file.stamp
        };
        let is_this = self.version == version
            && self.files.len() == files.len()
            && self.files.iter().zip(files).all(same);
        is_this || self.others.iter().any(|one| one.matches(version, files))
    }
}
