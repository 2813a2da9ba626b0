//! The store: objects and manifests in a directory, and the rules by which they get there.
//!
//! [`Store`] reads; [`StoreWriter`], which holds the writers' lock, writes. Objects are addressed by name.

pub mod fs;
pub mod index;
pub mod layout;
pub mod lock;
pub mod manifest;
mod marker;
pub mod object;
pub mod sealed;
pub mod sketches;
mod writer;

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::name::ModelId;
use fs::{Disk, LocalDisk, ReadFile};
use index::{Index, Record};
use layout::Layout;
use manifest::Manifest;
use object::{Frame, FrameError, Head, MAX_HEAD};
use sealed::Refused;

pub use marker::Marker;
pub use writer::{ObjectWriter, StoreWriter};

/// Bytes of the index that are read at a time: whole records.
const INDEX_PART_BYTES: u64 = 4096 * index::RECORD_LEN as u64;

/// A store opened for reading.
#[derive(Clone)]
pub struct Store {
    layout: Layout,
    disk: Arc<dyn Disk>,
}

/// An object's file, opened, with its frame known to be whole and to belong to its name.
pub struct ObjectFile {
    /// The object's name.
    pub name: Hash,
    /// All but the shared section and the payloads.
    pub frame: Frame,
    /// Where each payload begins in the file.
    offsets: Vec<u64>,
    file: Box<dyn ReadFile>,
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
        let store = Self {
            layout: Layout::new(root),
            disk,
        };
        if store.is_marked()? {
            Ok(store)
        } else {
            Err(Error::input(
                root,
                "there is no store here (no zipllm.json)",
            ))
        }
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
        let (mut names, mut strangers) = (Vec::new(), Vec::new());
        for shard in self.list(&self.layout.objects())? {
            let directory = self.layout.objects().join(&shard.name);
            for entry in self.list(&directory)? {
                match entry.name.parse::<Hash>() {
                    Ok(name) if entry.name.starts_with(&shard.name) => names.push(name),
                    _ => strangers.push(directory.join(&entry.name).display().to_string()),
                }
            }
        }
        Ok((names, strangers))
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
            reason: format!("damaged manifest: {reason}"),
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

    /// Reads the index, or makes it from the objects' heads where it is damaged or may lack some.
    pub fn index(&self) -> Result<Index> {
        match self.stored_index()? {
            Some(index) => Ok(index),
            None => self.scan_heads(),
        }
    }

    /// Reads the index as it is stored; `None` where it is damaged or may lack some.
    pub fn stored_index(&self) -> Result<Option<Index>> {
        if self.exists(&self.layout.dirty())? {
            return Ok(None);
        }
        let path = self.layout.object_log();
        let file = match self.disk.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(Error::io("open", &path))?,
        };
        let len = file.len().map_err(Error::io("read", &path))?;
        // A part at a time, so that a damaged length costs no memory.
        let mut index = Index::new();
        let mut at = 0;
        while at < len {
            let part = (len - at).min(INDEX_PART_BYTES);
            let mut bytes = vec![0; usize::try_from(part).unwrap_or(0)];
            file.read_exact_at(&mut bytes, at)
                .map_err(Error::io("read", &path))?;
            let Some(records) = index::parse(&bytes) else {
                return Ok(None);
            };
            index.extend(records);
            at += part;
        }
        Ok(Some(index))
    }

    /// Makes the index anew. Damaged objects are left out, `check` is what reports them; one that cannot
    /// be read just now is an error, for an index without it would be taken for whole.
    fn scan_heads(&self) -> Result<Index> {
        let mut index = Index::new();
        for name in self.objects()?.0 {
            match self.object(&name) {
                Ok(object) => drop(index.insert(name, Record::of(&name, &object.frame))),
                Err(error) if error.kind() == ErrorKind::Io => return Err(error),
                Err(_) => {}
            }
        }
        Ok(index)
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

fn version_of(file_name: &str) -> Option<u32> {
    let digits = file_name.strip_suffix(".json")?;
    let version: u32 = digits.parse().ok()?;
    (version > 0 && format!("{version:06}") == digits).then_some(version)
}

impl ObjectFile {
    fn read(name: &Hash, file: Box<dyn ReadFile>, path: &Path) -> Result<Self> {
        let io_error = || Error::io("read", path);
        let refuse = |error| match error {
            FrameError::Corrupt(reason) => Error::corrupt(name, reason),
            FrameError::Newer(what) => Error::Newer {
                path: path.to_path_buf(),
                what,
            },
        };
        let len = file.len().map_err(io_error())?;
        let mut bytes = vec![0; MAX_HEAD.min(usize::try_from(len).unwrap_or(MAX_HEAD))];
        file.read_exact_at(&mut bytes, 0).map_err(io_error())?;
        let head = Head::parse(&bytes).map_err(refuse)?;
        let tail_len = head.tail_len();
        let tail_start = len
            .checked_sub(tail_len)
            .ok_or_else(|| Error::corrupt(name, "cut short"))?;
        let mut tail = vec![0; usize::try_from(tail_len).unwrap_or(0)];
        file.read_exact_at(&mut tail, tail_start)
            .map_err(io_error())?;
        let frame = Frame::parse_tail(name, head, &tail, len).map_err(refuse)?;
        let mut next = frame.payload_start();
        let offsets = frame.chunks.iter().map(|chunk| {
            let start = next;
            next += u64::from(chunk.encoded_len);
            start
        });
        let offsets = offsets.collect();
        Ok(Self {
            name: *name,
            frame,
            offsets,
            file,
        })
    }

    /// Reads the payload of a chunk into `out`, replacing what is there.
    pub fn read_payload(&self, chunk: u64, out: &mut Vec<u8>) -> Result<()> {
        let at = usize::try_from(chunk).unwrap_or(usize::MAX);
        let (Some(entry), Some(offset)) = (self.frame.chunks.get(at), self.offsets.get(at)) else {
            return Err(Error::corrupt(
                &self.name,
                format!("there is no chunk {chunk}"),
            ));
        };
        out.resize(usize::try_from(entry.encoded_len).unwrap_or(0), 0);
        self.read_at(out, *offset)
    }

    /// Reads the shared section and checks it against its checksum.
    pub fn read_shared(&self) -> Result<Vec<u8>> {
        let mut shared = vec![0; usize::try_from(self.frame.head.shared_len).unwrap_or(0)];
        if shared.is_empty() {
            return Ok(shared);
        }
        self.read_at(&mut shared, self.frame.head.encoded_len() as u64)?;
        if object::checksum(&shared) != self.frame.shared_checksum {
            return Err(Error::corrupt(&self.name, "the shared section is damaged"));
        }
        Ok(shared)
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> Result<()> {
        self.file
            .read_exact_at(out, offset)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => Error::corrupt(&self.name, "cut short"),
                _ => Error::corrupt(&self.name, format!("cannot be read: {error}")),
            })
    }
}
