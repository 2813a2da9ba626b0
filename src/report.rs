//! What a run reports: figures a model, their sums, and the seam for progress.

use serde::Serialize;

use crate::codec::CodecId;
use crate::name::ModelId;
use crate::store::manifest::BaseShare;

/// Follows a run's progress; every method may be called from any thread.
pub trait Monitor: Sync {
    /// The bytes of a model, or of all objects, are about to be worked on.
    fn begin(&self, _what: &str, _bytes: u64) {}
    /// So many of them are done.
    fn advance(&self, _bytes: u64) {}
    /// So many of them were done before; they tell nothing about speed.
    fn skip(&self, bytes: u64) {
        self.advance(bytes);
    }
    /// The model is done, or given up.
    fn end(&self) {}
}

/// A monitor that nobody looks at.
pub struct NoMonitor;

impl Monitor for NoMonitor {}

/// What became of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// A new version was stored.
    Stored,
    /// The newest version in the store has the same content, or the model's files are gone.
    AlreadyStored,
    /// It could not be stored.
    Failed,
    /// An earlier failure of the store ended the run.
    NotTried,
}

/// Where the bytes of a model went; all in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Savings {
    /// In files all of whose parts were known.
    pub file_dedup_bytes: u64,
    /// In other tensors and runs of bytes that were known.
    pub tensor_dedup_bytes: u64,
    /// Encoded against a base.
    pub delta: Coded,
    /// Encoded without a base, by a codec for numbers.
    pub solo: Coded,
    /// Encoded as plain bytes.
    pub plain: Coded,
}

/// Bytes before and after encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Coded {
    /// Before.
    pub raw_bytes: u64,
    /// After.
    pub stored_bytes: u64,
}

impl Coded {
    /// Adds a chunk.
    pub fn add(&mut self, raw: u64, stored: u64) {
        self.raw_bytes += raw;
        self.stored_bytes += stored;
    }
}

impl Savings {
    /// Adds a chunk that `codec` encoded.
    pub fn add_chunk(&mut self, codec: CodecId, raw: u64, stored: u64) {
        let class = crate::codec::find(codec).map(super::codec::Codec::class);
        match class {
            Some(crate::codec::Class::Delta) => self.delta.add(raw, stored),
            Some(crate::codec::Class::Solo) => self.solo.add(raw, stored),
            _ => self.plain.add(raw, stored),
        }
    }

    /// Adds another model's.
    pub fn add(&mut self, other: &Self) {
        self.file_dedup_bytes += other.file_dedup_bytes;
        self.tensor_dedup_bytes += other.tensor_dedup_bytes;
        self.delta
            .add(other.delta.raw_bytes, other.delta.stored_bytes);
        self.solo.add(other.solo.raw_bytes, other.solo.stored_bytes);
        self.plain
            .add(other.plain.raw_bytes, other.plain.stored_bytes);
    }
}

/// One model's part in a run of `zipllm`.
#[derive(Clone, Debug, Serialize)]
pub struct ModelReport {
    /// The model.
    pub model: ModelId,
    /// What became of it.
    pub status: Status,
    /// The version that now holds its content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The revision on its hub that its directory holds, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The model whose tensors were its bases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<ModelId>,
    /// Which models' tensors were bases, for how many bytes, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bases: Vec<BaseShare>,
    /// Files.
    pub files: usize,
    /// Bytes of its files.
    pub bytes: u64,
    /// Bytes that it added to the store: object files and manifest.
    pub stored_bytes: u64,
    /// Where its bytes went.
    pub savings: Savings,
    /// Seconds that it took.
    pub seconds: f64,
    /// What a person should know of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether damage in the store was met.
    pub damage: bool,
}

impl ModelReport {
    /// A report of nothing yet.
    pub fn new(model: &ModelId, status: Status) -> Self {
        Self {
            model: model.clone(),
            status,
            version: None,
            commit: None,
            base: None,
            bases: Vec::new(),
            files: 0,
            bytes: 0,
            stored_bytes: 0,
            savings: Savings::default(),
            seconds: 0.0,
            warnings: Vec::new(),
            error: None,
            damage: false,
        }
    }
}

/// A run of `zipllm` over a batch of models.
#[derive(Clone, Debug, Serialize)]
pub struct IngestReport {
    /// One entry a model, in the order they were worked on.
    pub models: Vec<ModelReport>,
    /// Bytes of the models that were stored in this run.
    pub bytes: u64,
    /// Bytes that the run added to the store.
    pub stored_bytes: u64,
    /// Where the bytes went.
    pub savings: Savings,
    /// What is to be said of no model in particular.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Worker threads.
    pub threads: usize,
    /// Seconds of the whole run.
    pub seconds: f64,
    /// The store after the run.
    pub store: StoreTotals,
}

/// Sums over a whole store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StoreTotals {
    /// Models.
    pub models: u64,
    /// Versions of models.
    pub versions: u64,
    /// Bytes of all versions of all models.
    pub model_bytes: u64,
    /// Objects.
    pub objects: u64,
    /// Bytes of all object files.
    pub object_bytes: u64,
}

/// A run of `restore`.
#[derive(Clone, Debug, Serialize)]
pub struct RestoreReport {
    /// The model.
    pub model: ModelId,
    /// Its version.
    pub version: u32,
    /// Files of the model.
    pub files: usize,
    /// Files that were written, verified.
    pub files_written: u64,
    /// Files that were there already with the right content.
    pub files_kept: usize,
    /// Bytes of all its files.
    pub bytes: u64,
    /// Bytes of the files that were there already.
    pub bytes_kept: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Worker threads.
    pub threads: usize,
    /// Seconds of the whole run.
    pub seconds: f64,
    /// Bytes of the files that are right now by seconds.
    pub throughput_bytes_per_second: f64,
    /// What could not be restored, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}
