//! The store: objects and manifests in a directory, and the rules by which they get there.
//!
//! [`Store`] reads; [`StoreWriter`], which holds the writers' lock, writes. Objects are addressed by name.

mod ahead;
pub mod fs;
pub mod index;
pub mod layout;
pub mod lock;
pub mod manifest;
mod marker;
pub mod object;
mod object_file;
pub mod outline;
mod read_index;
pub mod sealed;
pub mod sketches;
mod writer;

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::hash::Hash;
use crate::name::ModelId;
use fs::{Disk, LocalDisk};
use layout::Layout;
use lock::ReadLock;
use manifest::Manifest;
use sealed::Refused;

pub use marker::Marker;
pub use object_file::ObjectFile;
pub use writer::{ObjectWriter, StoreWriter};

/// A store opened for reading.
#[derive(Clone)]
pub struct Store {
    layout: Layout,
    disk: Arc<dyn Disk>,
    /// While it is held, nobody deletes an object that a manifest named when the store was opened.
    _readers: Option<Arc<ReadLock>>,
}

/// The manifests of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredModel {
    /// The model.
    pub id: ModelId,
    /// The versions that have a file, ascending.
    pub versions: Vec<u32>,
}

impl Store {
    /// Opens the store at `root` for reading.
    pub fn open(root: &Path) -> Result<Self> {
        Self::open_on(Arc::new(LocalDisk), root)
    }

    /// Opens the store at `root` of `disk` for reading.
    pub fn open_on(disk: Arc<dyn Disk>, root: &Path) -> Result<Self> {
        let layout = Layout::new(root);
        let readers = ReadLock::share(&layout.readers()).map(Arc::new);
        let store = Self {
            layout,
            disk,
            _readers: readers,
        };
        if store.is_marked()? {
            return Ok(store);
        }
        let reason = if store.has_content()? {
            "its zipllm.json is missing; `zipllm repair` writes it anew"
        } else {
            "there is no store here (no zipllm.json)"
        };
        Err(Error::input(root, reason))
    }

    /// Tells whether there are the directories of a store, marked or not.
    fn has_content(&self) -> Result<bool> {
        let entries = self.list(self.layout.root())?;
        let has = |path: &Path| {
            let mut names = entries.iter().filter(|entry| entry.is_dir);
            names.any(|entry| {
                path.file_name()
                    .is_some_and(|name| name == entry.name.as_str())
            })
        };
        Ok(has(&self.layout.objects()) && has(&self.layout.models()))
    }

    /// Tells whether the format marker is there; one that this build cannot read is an error.
    fn is_marked(&self) -> Result<bool> {
        let path = self.layout.marker();
        let marker = self.read_file(&path)?;
        marker.map_or(Ok(false), |bytes| {
            Marker::parse(&path, &bytes).map(|_| true)
        })
    }

    /// The store's paths.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The disk that the store lies on.
    pub fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// Reads a small file whole; `None` if there is none.
    pub fn read_file(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        let file = match self.disk.open(path) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            other => other.map_err(Error::io("open", path))?,
        };
        let len = file.len().map_err(Error::io("read", path))?;
        if len > sealed::MAX_BYTES {
            return Err(Error::CorruptFile {
                path: path.to_path_buf(),
                reason: "longer than 64 MiB".into(),
            });
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        file.read_exact_at(&mut bytes, 0)
            .map_err(Error::io("read", path))?;
        Ok(Some(bytes))
    }

    /// Opens an object and checks its frame; the payloads are checked when they are decoded.
    ///
    /// # Errors
    /// `MissingObject`, `CorruptObject` or `Newer`, and `Io`.
    pub fn object(&self, name: &Hash) -> Result<ObjectFile> {
        let path = self.layout.object(name);
        let file = match self.disk.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::MissingObject { name: *name });
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                return Err(Error::corrupt(
                    name,
                    "its place is taken by something that is no file",
                ));
            }
            other => other.map_err(Error::io("open", &path))?,
        };
        ObjectFile::read(name, file, &path)
    }

    /// Opens an object if it is stored.
    pub fn find(&self, name: &Hash) -> Result<Option<ObjectFile>> {
        match self.object(name) {
            Ok(object) => Ok(Some(object)),
            Err(Error::MissingObject { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lists the names of all objects, and files among them that are none.
    pub fn objects(&self) -> Result<(Vec<Hash>, Vec<String>)> {
        let mut names = Vec::new();
        let strangers = self.each_object(|name, _| names.push(name))?;
        Ok((names, strangers))
    }

    /// Shows every object's name, and what the disk says of its file, in the order of the names; returns
    /// files among them that are none.
    pub fn each_object(&self, mut show: impl FnMut(Hash, &fs::Entry)) -> Result<Vec<String>> {
        let mut strangers = Vec::new();
        for shard in self.list(&self.layout.objects())? {
            let directory = self.layout.objects().join(&shard.name);
            for entry in self.list(&directory)? {
                match entry.name.parse::<Hash>() {
                    Ok(name) if entry.name.starts_with(&shard.name) => show(name, &entry),
                    _ => strangers.push(directory.join(&entry.name).display().to_string()),
                }
            }
        }
        Ok(strangers)
    }

    /// Lists the stored models by id.
    pub fn models(&self) -> Result<Vec<StoredModel>> {
        let mut models = Vec::new();
        for entry in self.list(&self.layout.models())? {
            let Ok(id) = entry.name.replacen("--", "/", 1).parse::<ModelId>() else {
                continue;
            };
            let versions = self.versions(&id)?;
            if !versions.is_empty() {
                models.push(StoredModel { id, versions });
            }
        }
        Ok(models)
    }

    /// On some file systems `A/b` and `a/b` are one directory, so the store never holds both.
    ///
    /// # Errors
    /// `Name` where it holds a model whose id differs from this one only in case.
    pub fn check_case(&self, id: &ModelId) -> Result<()> {
        let models = self.models()?;
        let clash = models
            .into_iter()
            .find(|model| model.id != *id && model.id.as_str().eq_ignore_ascii_case(id.as_str()));
        clash.map_or(Ok(()), |other| {
            Err(Error::Name {
                name: id.to_string(),
                reason: format!(
                    "it differs only in case from {}, which is in the store",
                    other.id
                ),
            })
        })
    }

    /// Lists the versions of a model that have a file, ascending.
    pub fn versions(&self, id: &ModelId) -> Result<Vec<u32>> {
        let entries = self.list(&self.layout.model(id))?;
        let mut versions: Vec<u32> = entries
            .iter()
            .filter_map(|entry| version_of(&entry.name))
            .collect();
        versions.sort_unstable();
        Ok(versions)
    }

    /// Reads one version of a model.
    pub fn manifest(&self, id: &ModelId, version: u32) -> Result<Option<Manifest>> {
        let path = self.layout.manifest(id, version);
        let Some(bytes) = self.read_file(&path)? else {
            return Ok(None);
        };
        let corrupt = |reason: String| Error::CorruptFile {
            path: path.clone(),
            reason: damaged_manifest(id, version, &reason),
        };
        let parsed = sealed::parse_format(&bytes, manifest::FORMAT);
        let manifest: Manifest = parsed.map_err(|refused| match refused {
            Refused::Damaged(reason) => corrupt(reason),
            Refused::Format(format) => Error::Newer {
                path: path.clone(),
                what: format!("manifest format {format}"),
            },
        })?;
        if manifest.model != *id || manifest.version != version {
            return Err(corrupt(format!(
                "it belongs to {} version {}",
                manifest.model, manifest.version
            )));
        }
        manifest.validate().map_err(corrupt)?;
        Ok(Some(manifest))
    }

    /// Reads the newest version of a model; `None` if the model is not stored.
    ///
    /// A damaged newest version is an error: an older one is never given in its place unasked.
    pub fn newest(&self, id: &ModelId) -> Result<Option<Manifest>> {
        match self.versions(id)?.last() {
            Some(version) => self.manifest(id, *version),
            None => Ok(None),
        }
    }

    /// Tells whether there is a file at `path`.
    pub(crate) fn exists(&self, path: &Path) -> Result<bool> {
        match self.disk.open(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("open", path)(error)),
        }
    }

    fn list(&self, path: &Path) -> Result<Vec<fs::Entry>> {
        match self.disk.list(path) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(Vec::new()),
            other => other.map_err(Error::io("list", path)),
        }
    }
}

/// Says of a version's manifest what is wrong with it, and what can be done.
fn damaged_manifest(id: &ModelId, version: u32, reason: &str) -> String {
    format!(
        "damaged manifest: {reason}; storing the model again makes a new version, `zipllm remove {id}@{version}` gives \
         this one up"
    )
}

fn version_of(file_name: &str) -> Option<u32> {
    let digits = file_name.strip_suffix(".json")?;
    let version: u32 = digits.parse().ok()?;
    (version > 0 && format!("{version:06}") == digits).then_some(version)
}
