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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_has_the_place_that_the_format_gives_it() {
        let layout = Layout::new(Path::new("/s"));
        let id: ModelId = "org/name".parse().unwrap();
        let name = Hash::from_bytes([0xab; 32]);
        let hex = name.to_string();
        for (path, want) in [
            (layout.root().to_path_buf(), "/s"),
            (layout.marker(), "/s/zipllm.json"),
            (layout.lock(), "/s/lock"),
            (layout.readers(), "/s/readers"),
            (layout.tmp(), "/s/tmp"),
            (layout.objects(), "/s/objects"),
            (layout.shard(&name), "/s/objects/ab"),
            (layout.object(&name), &format!("/s/objects/ab/{hex}")),
            (layout.models(), "/s/models"),
            (layout.model(&id), "/s/models/org--name"),
            (layout.manifest(&id, 12), "/s/models/org--name/000012.json"),
            (layout.index(), "/s/index"),
            (layout.object_log(), "/s/index/objects.log"),
            (layout.dirty(), "/s/index/dirty"),
            (layout.scans(), "/s/index/scans"),
            (layout.scan(&id), "/s/index/scans/org--name.json"),
            (layout.sketches(), "/s/sketches"),
            (layout.sketch_log(), "/s/sketches/sketches.log"),
        ] {
            assert_eq!(path, Path::new(want));
        }
        let names = [
            "objects",
            "models",
            "index",
            "index/scans",
            "sketches",
            "tmp",
        ];
        let want = names.map(|name| Path::new("/s").join(name));
        assert_eq!(layout.directories(), want);
    }
}
