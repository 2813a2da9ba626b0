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
pub mod outline;
pub mod sealed;
pub mod sketches;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::name::ModelId;
use fs::{Disk, LocalDisk, ReadFile};
use index::{Index, Record};
use layout::Layout;
use lock::ReadLock;
use manifest::Manifest;
use object::{Frame, FrameError, Head, MAX_HEAD};
use sealed::Refused;

pub use marker::Marker;
pub use writer::{ObjectWriter, StoreWriter};

/// Bytes of the index that are read at a time: whole records.
const INDEX_PART_BYTES: u64 = 4096 * index::RECORD_LEN as u64;

/// Parts of the index that are worked on together.
const PARTS_AT_ONCE: usize = 32;

/// A store opened for reading.
#[derive(Clone)]
pub struct Store {
    layout: Layout,
    disk: Arc<dyn Disk>,
    /// While it is held, nobody deletes an object that a manifest named when the store was opened.
    _readers: Option<Arc<ReadLock>>,
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
        let layout = Layout::new(root);
        let readers = ReadLock::share(&layout.readers()).map(Arc::new);
        let store = Self {
            layout,
            disk,
            _readers: readers,
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
        self.index_as_it_is()
    }

    /// Reads the index as it is stored, by name, in the current thread pool; `None` where it is damaged or missing.
    pub fn stored_records(&self) -> Result<Option<Vec<Record>>> {
        let Some(mut records) = self.map_parts(&Record::clone)? else {
            return Ok(None);
        };
        // Of several records of an object the last one counts: it comes first once all is turned round.
        records.par_sort_by_key(|record| record.name);
        records.reverse();
        records.dedup_by_key(|record| record.name);
        records.reverse();
        Ok(Some(records))
    }

    /// Reads the index even if it may lack some; `None` where it is missing or damaged.
    fn index_as_it_is(&self) -> Result<Option<Index>> {
        // A part at a time, so that a damaged length costs no memory.
        let mut index = Index::new();
        let Some(parts) = self.index_parts()? else {
            return Ok(None);
        };
        for part in parts {
            let Some(records) = part.read()? else {
                return Ok(None);
            };
            index.extend(records.into_iter().map(|record| (record.name, record)));
        }
        Ok(Some(index))
    }

    /// The parts of the stored index, in order; `None` without one.
    fn index_parts(&self) -> Result<Option<Vec<IndexPart>>> {
        let path = self.layout.object_log();
        let file = match self.disk.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(Error::io("open", &path))?,
        };
        let len = file.len().map_err(Error::io("read", &path))?;
        let file: Arc<dyn ReadFile> = Arc::from(file);
        let starts = (0..len).step_by(usize::try_from(INDEX_PART_BYTES).unwrap_or(1));
        let parts = starts.map(|start| IndexPart {
            file: file.clone(),
            path: path.clone(),
            start,
            len: (len - start).min(INDEX_PART_BYTES),
        });
        Ok(Some(parts.collect()))
    }

    /// Makes a row of every record of the index, in the current thread pool, without holding the records: in
    /// the order in which objects were written, so that of several rows of an object the last one counts.
    pub fn map_index<T: Send>(&self, row: impl Fn(&Record) -> T + Sync) -> Result<Vec<T>> {
        if !self.exists(&self.layout.dirty())?
            && let Some(rows) = self.map_parts(&row)?
        {
            return Ok(rows);
        }
        Ok(self.scan_heads()?.values().map(row).collect())
    }

    fn map_parts<T: Send>(&self, row: &(impl Fn(&Record) -> T + Sync)) -> Result<Option<Vec<T>>> {
        let parts = self.index_parts()?;
        let bytes = parts.iter().flatten().map(|part| part.len).sum::<u64>();
        let count = usize::try_from(bytes / index::RECORD_LEN as u64).unwrap_or(0);
        let mut rows = Vec::with_capacity(count);
        let map = |part: &IndexPart| {
            let records = part.read();
            records.map(|records| records.map(|r| r.iter().map(row).collect::<Vec<_>>()))
        };
        for some in parts.as_deref().unwrap_or_default().chunks(PARTS_AT_ONCE) {
            let mapped = some
                .par_iter()
                .map(map)
                .collect::<Result<Option<Vec<_>>>>()?;
            let Some(mapped) = mapped else {
                return Ok(None);
            };
            rows.extend(mapped.into_iter().flatten());
        }
        Ok(parts.map(|_| rows))
    }

    /// Makes the index anew. Damaged objects are left out, `check` is what reports them; one that cannot
    /// be read just now is an error, for an index without it would be taken for whole.
    fn scan_heads(&self) -> Result<Index> {
        let names = self.objects()?.0;
        let head = |name: &Hash| match self.object(name) {
            Ok(object) => Ok(Some((*name, Record::of(name, &object.frame)))),
            Err(error) if error.kind() == ErrorKind::Io => Err(error),
            Err(_) => Ok(None),
        };
        let found = names.par_iter().map(head).collect::<Result<Vec<_>>>()?;
        Ok(found.into_iter().flatten().collect())
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

/// Some records of the stored index.
struct IndexPart {
    file: Arc<dyn ReadFile>,
    path: PathBuf,
    start: u64,
    len: u64,
}

impl IndexPart {
    /// Reads the records; `None` if any of them is damaged.
    fn read(&self) -> Result<Option<Vec<Record>>> {
        let mut bytes = vec![0; usize::try_from(self.len).unwrap_or(0)];
        self.file
            .read_exact_at(&mut bytes, self.start)
            .map_err(Error::io("read", &self.path))?;
        Ok(index::parse(&bytes))
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

    /// Bytes of the payload of a chunk; 0 where there is no such chunk.
    pub fn payload_len(&self, chunk: u64) -> usize {
        let at = usize::try_from(chunk).unwrap_or(usize::MAX);
        let entry = self.frame.chunks.get(at);
        entry.map_or(0, |entry| entry.encoded_len as usize)
    }

    /// Reads the payload of a chunk into `out`, which has to have its length.
    pub fn read_payload(&self, chunk: u64, out: &mut [u8]) -> Result<()> {
        let at = usize::try_from(chunk).unwrap_or(usize::MAX);
        match self.offsets.get(at) {
            Some(offset) => self.read_at(out, *offset),
            None => Err(Error::corrupt(
                &self.name,
                format!("there is no chunk {chunk}"),
            )),
        }
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
