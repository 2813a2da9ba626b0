//! List: which models a store holds; and of one model every file and tensor, and how it is stored.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::Serialize;

use crate::codec::{self, CodecId};
use crate::error::{ErrorKind, Result};
use crate::hash::Hash;
use crate::name::{ModelId, RelPath};
use crate::restore::{ModelVersion, find_manifest};
use crate::store::Store;
use crate::store::manifest::{FileEntry, Segment};
use crate::survey::{ModelRow, Survey};
use crate::threads;

/// All models.
#[derive(Clone, Debug, Serialize)]
pub struct ModelList {
    /// The models, by id.
    pub models: Vec<ModelRow>,
    /// Bytes of all versions of all models.
    pub bytes: u64,
    /// Bytes of all object files.
    pub stored_bytes: u64,
    /// Objects that no model has: bases of others, and what `gc` frees.
    pub unused_objects: u64,
    /// Bytes of their files.
    pub unused_bytes: u64,
    /// Manifests that could not be read, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<String>,
}

/// One model.
#[derive(Clone, Debug, Serialize)]
pub struct ModelDetail {
    /// The model.
    pub model: ModelId,
    /// The version that is described.
    pub version: u32,
    /// All versions there are.
    pub versions: Vec<u32>,
    /// The model whose tensors were its bases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<ModelId>,
    /// The revision of the model on its hub, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The revisions of all versions, where known.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub commits: BTreeMap<u32, String>,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes of the object files that it needs, each once, those of bases aside.
    pub stored_bytes: u64,
    /// Every file.
    pub files: Vec<FileDetail>,
}

/// One file.
#[derive(Clone, Debug, Serialize)]
pub struct FileDetail {
    /// Where it lies in the model.
    pub path: RelPath,
    /// Its length in bytes.
    pub bytes: u64,
    /// Whether its owner may execute it.
    pub executable: bool,
    /// The runs of bytes that make it up, in order.
    pub segments: Vec<SegmentDetail>,
}

/// One tensor, or another run of a file's bytes.
#[derive(Clone, Debug, Serialize)]
pub struct SegmentDetail {
    /// The tensor's name, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tensor: Option<String>,
    /// The dtype's name in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dtype: Option<String>,
    /// Elements in each dimension.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<u64>>,
    /// The object that holds the bytes.
    pub object: Hash,
    /// Bytes of the object.
    pub bytes: u64,
    /// How the object lies in the store.
    #[serde(flatten)]
    pub stored: Stored,
}

/// How an object lies in the store.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Stored {
    /// It is there.
    Whole {
        /// The codec that wrote most of it.
        encoding: String,
        /// Bytes of its file.
        stored_bytes: u64,
        /// The object that it is encoded against.
        #[serde(skip_serializing_if = "Option::is_none")]
        base_object: Option<Hash>,
        /// How many bases lie below it.
        depth: u8,
    },
    /// It is not, or its frame is damaged.
    Damaged {
        /// Why.
        damage: String,
    },
}

/// Lists all models.
pub fn models(store: &Store, threads: usize) -> Result<ModelList> {
    let survey = Survey::of(store, threads)?;
    let (mut stored_bytes, mut unused_objects, mut unused_bytes) = (0u64, 0u64, 0u64);
    survey.each_object(|object, uses| {
        let Some(object) = object else { return };
        stored_bytes = stored_bytes.saturating_add(object.stored_len);
        if uses.is_empty() {
            unused_objects += 1;
            unused_bytes = unused_bytes.saturating_add(object.stored_len);
        }
    });
    let bytes = survey
        .models
        .iter()
        .map(|model| model.bytes_of_all_versions);
    Ok(ModelList {
        bytes: bytes.fold(0, u64::saturating_add),
        stored_bytes,
        unused_objects,
        unused_bytes,
        models: survey.models,
        damaged: survey.damaged,
    })
}

/// Describes one model, from the heads of its objects.
pub fn model(store: &Store, wanted: &ModelVersion, threads: usize) -> Result<ModelDetail> {
    let manifest = find_manifest(store, wanted)?;
    let pool = threads::pool(threads, store.layout().root())?;
    let files = pool.install(|| {
        let files = manifest.files.iter();
        files
            .map(|file| describe(store, file))
            .collect::<Result<Vec<_>>>()
    })?;
    let segments = files.iter().flat_map(|file| &file.segments);
    let mut objects: Vec<_> = segments
        .map(|segment| (segment.object, segment.stored.bytes()))
        .collect();
    objects.sort_unstable();
    objects.dedup();
    let stored = objects.iter().map(|(_, bytes)| *bytes);
    let versions = store.versions(&manifest.model)?;
    Ok(ModelDetail {
        commits: commits(store, &manifest.model, &versions),
        versions,
        model: manifest.model,
        version: manifest.version,
        base: manifest.base,
        commit: manifest.commit,
        bytes: manifest.bytes,
        stored_bytes: stored.fold(0, u64::saturating_add),
        files,
    })
}

/// The revisions of versions, those aside of manifests that cannot be read.
fn commits(store: &Store, model: &ModelId, versions: &[u32]) -> BTreeMap<u32, String> {
    let commit = |version: &u32| {
        let outline = store.outline(model, *version).ok().flatten()?;
        Some((*version, outline.commit?))
    };
    versions.iter().filter_map(commit).collect()
}

fn describe(store: &Store, file: &FileEntry) -> Result<FileDetail> {
    let segments = file
        .segments
        .par_iter()
        .map(|segment| segment_of(store, segment));
    Ok(FileDetail {
        path: file.path.clone(),
        bytes: file.size,
        executable: file.executable,
        segments: segments.collect::<Result<_>>()?,
    })
}

fn segment_of(store: &Store, segment: &Segment) -> Result<SegmentDetail> {
    let tensor = segment.tensor.as_ref();
    Ok(SegmentDetail {
        tensor: tensor.map(|tensor| tensor.name.clone()),
        dtype: tensor.map(|tensor| tensor.dtype.clone()),
        shape: tensor.map(|tensor| tensor.shape.clone()),
        object: segment.object,
        bytes: segment.length,
        stored: stored(store, &segment.object)?,
    })
}

fn stored(store: &Store, name: &Hash) -> Result<Stored> {
    let frame = match store.object(name) {
        Ok(object) => object.frame,
        Err(error) if error.kind() == ErrorKind::Io => return Err(error),
        Err(error) => {
            return Ok(Stored::Damaged {
                damage: error.to_string(),
            });
        }
    };
    Ok(Stored::Whole {
        encoding: encoding_name(frame.head.codec),
        stored_bytes: frame.file_len(),
        base_object: frame.head.bases.first().map(|base| base.name),
        depth: frame.head.depth,
    })
}

impl Stored {
    fn bytes(&self) -> u64 {
        match self {
            Self::Whole { stored_bytes, .. } => *stored_bytes,
            Self::Damaged { .. } => 0,
        }
    }
}

/// The name of a codec, or its number where this build does not know it.
pub fn encoding_name(codec: u8) -> String {
    codec::find(CodecId(codec)).map_or_else(|| format!("codec {codec}"), |c| c.name().to_owned())
}
