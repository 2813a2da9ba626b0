//! What an estimate says.

use serde::Serialize;

use crate::hash::Hash;
use crate::name::{ModelId, RelPath};
use crate::pairing::Why;
use crate::report::Savings;
use crate::store::manifest::BaseShare;

/// What would become of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It would be stored, as a first or a new version.
    New,
    /// The store holds it as it is, or its files are gone.
    AlreadyStored,
    /// Nothing can be said of it.
    Failed,
}

/// What a tensor would take.
#[derive(Clone, Debug, Serialize)]
pub struct TensorEstimate {
    /// The file it is in.
    pub file: RelPath,
    /// Its name.
    pub tensor: String,
    /// Its bytes.
    pub bytes: u64,
    /// Whether it is stored, or an earlier tensor would be it.
    pub is_known: bool,
    /// Estimated bytes of its object file; 0 for one that is known.
    pub stored_bytes: u64,
    /// A model that holds its base, if it has one, or would get one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<ModelId>,
    /// Why this base.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
    #[serde(skip)]
    pub(super) object: Hash,
    #[serde(skip)]
    pub(super) base_object: Option<Hash>,
}

/// What a model would take.
#[derive(Clone, Debug, Serialize)]
pub struct ModelEstimate {
    /// The model.
    pub model: ModelId,
    /// What would become of it.
    pub status: Status,
    /// The revision on its hub that its directory holds, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Whose tensors would be bases, for how many bytes, and why; the one with most bytes first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bases: Vec<BaseShare>,
    /// Files.
    pub files: usize,
    /// Bytes of its files.
    pub bytes: u64,
    /// Bytes that it would add to the store: object files and manifest.
    pub stored_bytes: u64,
    /// Where its bytes would go.
    pub savings: Savings,
    /// Its tensors, in the order of its files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tensors: Vec<TensorEstimate>,
    /// What a person should know of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether damage in the store was met.
    pub damage: bool,
}

/// What a batch would take.
#[derive(Clone, Debug, Serialize)]
pub struct EstimateReport {
    /// One entry a model, in the order in which they would be stored.
    pub models: Vec<ModelEstimate>,
    /// Bytes of the models that would be stored.
    pub bytes: u64,
    /// Bytes that the batch would add to the store.
    pub stored_bytes: u64,
    /// Whether it may be much less: low-rank prediction will be tried, and sketches do not tell what it gains.
    pub is_upper_bound: bool,
    /// Where the bytes would go.
    pub savings: Savings,
    /// What is to be said of no model in particular.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Worker threads.
    pub threads: usize,
    /// Seconds of the whole run.
    pub seconds: f64,
}

impl ModelEstimate {
    /// An estimate of nothing yet.
    pub(super) fn new(model: &ModelId) -> Self {
        Self {
            model: model.clone(),
            status: Status::Failed,
            commit: None,
            bases: Vec::new(),
            files: 0,
            bytes: 0,
            stored_bytes: 0,
            savings: Savings::default(),
            tensors: Vec::new(),
            warnings: Vec::new(),
            error: None,
            damage: false,
        }
    }
}
