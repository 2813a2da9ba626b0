//! Where things lie in a store; nothing else joins paths.

use std::path::{Path, PathBuf};

use crate::hash::Hash;
use crate::name::ModelId;

/// The paths of one store.
#[derive(Clone, Debug)]
pub struct Layout(PathBuf);

impl Layout {
    /// The layout of the store at `root`.
    pub fn new(root: &Path) -> Self {
        Self(root.to_path_buf())
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        &self.0
    }

    /// The format marker.
    pub fn marker(&self) -> PathBuf {
        self.0.join("zipllm.json")
    }

    /// The writers' lock.
    pub fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// The lock that whoever reads has a share of.
    pub fn readers(&self) -> PathBuf {
        self.0.join("readers")
    }

    /// The directory of unfinished writes.
    pub fn tmp(&self) -> PathBuf {
        self.0.join("tmp")
    }

    /// The directory of all objects.
    pub fn objects(&self) -> PathBuf {
        self.0.join("objects")
    }

    /// The directory of the objects whose names begin like this one's.
    pub fn shard(&self, name: &Hash) -> PathBuf {
        self.objects()
            .join(name.to_string().get(..2).unwrap_or_default())
    }

    /// The file of an object.
    pub fn object(&self, name: &Hash) -> PathBuf {
        self.shard(name).join(name.to_string())
    }

    /// The directory of all models.
    pub fn models(&self) -> PathBuf {
        self.0.join("models")
    }

    /// The directory of a model's manifests; `--` never occurs in an id.
    pub fn model(&self, id: &ModelId) -> PathBuf {
        self.models().join(id.joined("--"))
    }

    /// The manifest of a version.
    pub fn manifest(&self, id: &ModelId, version: u32) -> PathBuf {
        self.model(id).join(format!("{version:06}.json"))
    }

    /// The directory of what can be rebuilt.
    pub fn index(&self) -> PathBuf {
        self.0.join("index")
    }

    /// The list of objects.
    pub fn object_log(&self) -> PathBuf {
        self.index().join("objects.log")
    }

    /// The sign that the list of objects may lack some.
    pub fn dirty(&self) -> PathBuf {
        self.index().join("dirty")
    }

    /// The directory of what models' files looked like when they were stored.
    pub fn scans(&self) -> PathBuf {
        self.index().join("scans")
    }

    /// What a model's files looked like when they were stored.
    pub fn scan(&self, id: &ModelId) -> PathBuf {
        self.scans().join(format!("{}.json", id.joined("--")))
    }

    /// The directory of tensor summaries.
    pub fn sketches(&self) -> PathBuf {
        self.0.join("sketches")
    }

    /// The list of tensor summaries.
    pub fn sketch_log(&self) -> PathBuf {
        self.sketches().join("sketches.log")
    }

    /// Every directory of a store, parents first.
    pub fn directories(&self) -> [PathBuf; 6] {
        [
            self.objects(),
            self.models(),
            self.index(),
            self.scans(),
            self.sketches(),
            self.tmp(),
        ]
    }
}
