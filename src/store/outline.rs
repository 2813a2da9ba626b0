//! The outline of a manifest: what figures and garbage collection need of it, without names and shapes.
//!
//! A store may hold thousands of manifests of hundreds of tensors each; this reads them several times as fast,
//! in a fraction of the memory. The checksum is checked all the same.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::manifest::{BaseShare, FORMAT};
use super::{Store, sealed};
use crate::error::Result;
use crate::hash::Hash;
use crate::name::ModelId;

/// A manifest without names and shapes.
#[derive(Debug, Deserialize)]
pub struct Outline {
    format: u32,
    /// The model.
    pub model: ModelId,
    /// The version.
    pub version: u32,
    /// The revision of the model on its hub, where known.
    #[serde(default)]
    pub commit: Option<String>,
    /// The model whose tensors were the bases, if any.
    #[serde(default)]
    pub base: Option<ModelId>,
    /// Which models' tensors served as bases.
    #[serde(default)]
    pub bases: Vec<BaseShare>,
    /// Bytes of all files.
    pub bytes: u64,
    /// Every file.
    pub files: Vec<FileOutline>,
}

/// A file without its path.
#[derive(Debug, Deserialize)]
pub struct FileOutline {
    /// The hash of all its bytes.
    pub blake3: Hash,
    /// The objects that make it up.
    pub segments: Vec<SegmentOutline>,
}

/// A segment without what it is called.
#[derive(Debug, Deserialize)]
pub struct SegmentOutline {
    /// The object that holds the bytes.
    pub object: Hash,
    /// The object's length in bytes.
    pub length: u64,
    #[serde(default)]
    tensor: Option<IgnoredAny>,
}

impl SegmentOutline {
    /// Tells whether the bytes are a tensor.
    pub fn is_tensor(&self) -> bool {
        self.tensor.is_some()
    }
}

impl Store {
    /// Reads the outline of one version of a model; `None` if there is none.
    ///
    /// # Errors
    /// Those of [`Store::manifest`], of which this makes a few checks less: paths and sums.
    pub fn outline(&self, id: &ModelId, version: u32) -> Result<Option<Outline>> {
        let Some(bytes) = self.read_file(&self.layout.manifest(id, version))? else {
            return Ok(None);
        };
        match sealed::parse::<Outline>(&bytes) {
            Ok(outline)
                if outline.format == FORMAT
                    && outline.model == *id
                    && outline.version == version =>
            {
                Ok(Some(outline))
            }
            // The full reading says what is wrong with it.
            _ => self.manifest(id, version).map(|_| None),
        }
    }
}
