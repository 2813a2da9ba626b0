//! `StoreWriter`: the one process that adds to a store, in an order that survives a crash at any instant.
//!
//! Objects are written in `tmp/`, and synced from then on. At a barrier, when all of them are, they are renamed, then the directories
//! are synced; only then do a manifest, and the index, speak of them.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::ahead::{Ahead, SYNC_THREADS, Syncing};
use super::fs::{Disk, LocalDisk, WriteFile};
use super::index::Record;
use super::lock::{self, WriteLock};
use super::manifest::Manifest;
use super::object::{ChunkEntry, Frame, Head, checksum};
use super::{Marker, Store, layout::Layout, sealed};
use crate::error::{Error, ErrorKind, Result};
use crate::hash::{ChainingValue, Hash};
use crate::name::ModelId;
use crate::sketch::Sketch;

mod removal;

const BARRIER_BYTES: u64 = 1 << 30;
const BARRIER_OBJECTS: usize = 256;

/// A store opened for writing.
pub struct StoreWriter {
    store: Store,
    /// Before the lock, so that its threads have ended when that is given back.
    ahead: Ahead,
    _lock: WriteLock,
    pending: HashMap<Hash, Pending>,
    pending_bytes: u64,
    sketches: Vec<Sketch>,
    next_temp: u64,
    poisoned: bool,
}

/// An object that is written but not yet durable.
struct Pending {
    temp: PathBuf,
    syncing: Syncing,
    record: Record,
}

/// An object being written: head first, then payloads in order.
pub struct ObjectWriter {
    name: Hash,
    temp: PathBuf,
    file: Box<dyn WriteFile>,
    frame: Frame,
}

impl ObjectWriter {
    /// Returns the bytes that the object's file has when it is finished now.
    pub fn stored_len(&self) -> u64 {
        self.frame.file_len()
    }
}

impl StoreWriter {
    /// Opens the store at `root` for writing, creating it where there is none.
    pub fn open(root: &Path) -> Result<Self> {
        Self::open_on(Arc::new(LocalDisk), root)
    }

    /// Opens the store at `root` of `disk` for writing; the locks always lie in the local file system.
    pub fn open_on(disk: Arc<dyn Disk>, root: &Path) -> Result<Self> {
        Self::open_with(disk, root, false)
    }

    /// Like [`Self::open_on`], and waits while another process writes if `wait` is set.
    pub fn open_with(disk: Arc<dyn Disk>, root: &Path, wait: bool) -> Result<Self> {
        let layout = Layout::new(root);
        let lock = prepare_root(&*disk, &layout, wait)?;
        lock::open(&layout.readers())?;
        let store = Store {
            layout,
            disk,
            _readers: None,
        };
        let is_marked = store.is_marked()?;
        let mut writer = Self {
            store,
            ahead: Ahead::default(),
            _lock: lock,
            pending: HashMap::new(),
            pending_bytes: 0,
            sketches: Vec::new(),
            next_temp: 0,
            poisoned: false,
        };
        writer.create_directories()?;
        writer.remove_temps()?;
        if !is_marked {
            writer.write_document(&writer.store.layout.marker(), &Marker::new())?;
        }
        writer.rebuild_index()?;
        writer.mend_sketches()?;
        Ok(writer)
    }

    /// Opens the store at `root`, which has to be there.
    pub fn open_existing(root: &Path, wait: bool) -> Result<Self> {
        Store::open(root)?;
        Self::open_with(Arc::new(LocalDisk), root, wait)
    }

    /// Writes the format marker of the store at `root` anew where it is damaged, or gone from beside the store's
    /// directories. Returns whether it did; one of a newer format stays, and is an error.
    pub fn mend_marker(root: &Path, wait: bool) -> Result<bool> {
        let store = Store {
            layout: Layout::new(root),
            disk: Arc::new(LocalDisk),
            _readers: None,
        };
        match store.is_marked() {
            Ok(true) => return Ok(false),
            Err(error) if error.kind() != ErrorKind::Corrupt => return Err(error),
            // A file of this name beside which there is no store may be anybody's.
            _ if !store.has_content()? => return Ok(false),
            _ => {}
        }
        let _lock = WriteLock::take(&store.layout.lock(), root, wait)?;
        let tmp = store.layout.tmp();
        let made = store.disk.create_dir(&tmp);
        made.map_err(Error::io("create", &tmp))?;
        let path = store.layout.marker();
        let bytes = sealed::to_bytes(&Marker::new())
            .map_err(io::Error::from)
            .map_err(Error::io("serialise", &path))?;
        let temp = tmp.join(format!("{}-marker", std::process::id()));
        replace(&*store.disk, &temp, &path, &bytes)?;
        Ok(true)
    }

    /// The store, for reading; objects that are not yet durable are not in it.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Tells whether a write failed; then nothing more can be written.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Tells whether an object was written since the last barrier.
    pub fn is_pending(&self, name: &Hash) -> bool {
        self.pending.contains_key(name)
    }

    /// Begins an object.
    pub fn create_object(&mut self, name: Hash, head: Head, shared: &[u8]) -> Result<ObjectWriter> {
        let temp = self.next_temp();
        let created = self.store.disk.create(&temp);
        let file = self.guard(created, "create", &temp)?;
        let shared_checksum = if shared.is_empty() {
            [0; 8]
        } else {
            checksum(shared)
        };
        let frame = Frame {
            head,
            shared_checksum,
            chunks: Vec::new(),
        };
        let mut object = ObjectWriter {
            name,
            temp,
            file,
            frame,
        };
        let head_bytes = object.frame.head.to_bytes();
        self.write(&mut object, &head_bytes)?;
        self.write(&mut object, shared)?;
        Ok(object)
    }

    /// Appends the next chunk's payload.
    pub fn append_chunk(
        &mut self,
        object: &mut ObjectWriter,
        codec: u8,
        value: ChainingValue,
        payload: &[u8],
    ) -> Result<()> {
        self.write(object, payload)?;
        let encoded_len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        object.frame.chunks.push(ChunkEntry {
            codec,
            encoded_len,
            checksum: checksum(payload),
            chaining_value: value,
        });
        Ok(())
    }

    /// Ends an object; it is durable, and can be read, after the next barrier. Returns its stored bytes.
    pub fn finish_object(&mut self, mut object: ObjectWriter) -> Result<u64> {
        let tail = object.frame.tail_bytes(&object.name);
        self.write(&mut object, &tail)?;
        let record = Record::of(&object.name, &object.frame);
        let stored_len = record.stored_len;
        self.pending_bytes += stored_len;
        self.pending.insert(
            object.name,
            Pending {
                temp: object.temp,
                syncing: self.ahead.sync(object.file),
                record,
            },
        );
        if self.pending_bytes >= BARRIER_BYTES || self.pending.len() >= BARRIER_OBJECTS {
            self.barrier()?;
        }
        Ok(stored_len)
    }

    /// Gives up an object that was begun.
    pub fn discard_object(&mut self, object: ObjectWriter) {
        drop(object.file);
        // A temp that stays is removed by the next writer.
        let _ = self.store.disk.remove(&object.temp);
    }

    /// Makes every finished object durable, and readable.
    pub fn barrier(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return self.append_sketches();
        }
        self.mark_dirty()?;
        let mut pending: Vec<_> = std::mem::take(&mut self.pending).into_values().collect();
        pending.sort_by_key(|object| object.record.name);
        self.pending_bytes = 0;
        self.wait_for_all(&pending)?;
        self.publish(&pending)?;
        self.append_index(&pending)?;
        self.append_sketches()
    }

    /// Hands over the sketch of an object; it is written at the next barrier, after the object.
    pub fn add_sketch(&mut self, sketch: Sketch) {
        self.sketches.push(sketch);
    }

    fn append_sketches(&mut self) -> Result<()> {
        if self.sketches.is_empty() {
            return Ok(());
        }
        let mut sketches = std::mem::take(&mut self.sketches);
        sketches.sort_by_key(|sketch| sketch.name);
        let bytes: Vec<u8> = sketches.iter().flat_map(Sketch::to_bytes).collect();
        self.append(&self.store.layout.sketch_log(), &bytes)
    }

    fn wait_for_all(&mut self, pending: &[Pending]) -> Result<()> {
        for object in pending {
            let synced = object.syncing.wait();
            self.guard(synced, "sync", &object.temp)?;
        }
        Ok(())
    }

    fn publish(&mut self, pending: &[Pending]) -> Result<()> {
        let mut shards = BTreeSet::new();
        for object in pending {
            let shard = self.store.layout.shard(&object.record.name);
            if shards.insert(shard.clone()) {
                let made = self.store.disk.create_dir(&shard);
                self.guard(made, "create", &shard)?;
            }
            let renamed = self
                .store
                .disk
                .rename(&object.temp, &self.store.layout.object(&object.record.name));
            self.guard(renamed, "rename", &object.temp)?;
        }
        shards.insert(self.store.layout.objects());
        self.sync_shards(shards)
    }

    /// Makes the names in directories of objects durable, several at a time: a disk does many at once.
    fn sync_shards(&mut self, shards: BTreeSet<PathBuf>) -> Result<()> {
        let shards: Vec<_> = shards.into_iter().collect();
        let failed = sync_dirs(&*self.store.disk, &shards);
        failed.map_or(Ok(()), |(error, path)| {
            self.guard(Err(error), "sync", &path)
        })
    }

    fn append_index(&mut self, pending: &[Pending]) -> Result<()> {
        let bytes: Vec<u8> = pending
            .iter()
            .flat_map(|object| object.record.to_bytes())
            .collect();
        self.append(&self.store.layout.object_log(), &bytes)
    }

    fn append(&mut self, path: &Path, bytes: &[u8]) -> Result<()> {
        let appended = self.store.disk.append(path).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync()
        });
        self.guard(appended, "write", path)
    }

    /// Adds a version of a model, after all objects that were finished. Returns the manifest's bytes.
    pub fn commit(&mut self, manifest: &Manifest) -> Result<u64> {
        self.barrier()?;
        let layout = self.store.layout.clone();
        let directory = layout.model(&manifest.model);
        let made = self.store.disk.create_dir(&directory);
        self.guard(made, "create", &directory)?;
        self.sync_dir(&layout.models())?;
        self.write_document(
            &layout.manifest(&manifest.model, manifest.version),
            manifest,
        )
    }

    /// Records what a model's files look like, so that a later run need not read them.
    pub fn write_scan(&mut self, id: &ModelId, scan: &impl Serialize) -> Result<()> {
        let path = self.store.layout.scan(id);
        self.write_document(&path, scan).map(drop)
    }

    /// Ends the writing: the index is known to be whole.
    pub fn close(mut self) -> Result<()> {
        self.barrier()?;
        let dirty = self.store.layout.dirty();
        match self.store.disk.remove(&dirty) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(Error::io("remove", &dirty)),
        }
    }

    fn write_document(&mut self, path: &Path, value: &impl Serialize) -> Result<u64> {
        let bytes = sealed::to_bytes(value)
            .map_err(io::Error::from)
            .map_err(Error::io("serialise", path))?;
        if bytes.len() as u64 > sealed::MAX_BYTES {
            let reason = "it would be longer than 64 MiB: the model has too many files and tensors";
            return Err(Error::input(path, reason));
        }
        let temp = self.next_temp();
        let done = replace(&*self.store.disk, &temp, path, &bytes);
        self.poisoned |= done.is_err();
        done.map(|()| bytes.len() as u64)
    }

    fn mark_dirty(&mut self) -> Result<()> {
        let path = self.store.layout.dirty();
        let marked = self
            .store
            .disk
            .append(&path)
            .and_then(|mut file| file.sync());
        self.guard(marked, "create", &path)?;
        self.sync_dir(&self.store.layout.index())
    }

    fn rebuild_index(&mut self) -> Result<()> {
        // An index cut off between two records looks whole, so it is held against what is there.
        if let Some(index) = self.store.stored_index()?
            && self.store.objects()?.0.iter().eq(index.keys())
        {
            return Ok(());
        }
        let index = self.store.scan_heads()?;
        let bytes: Vec<u8> = index.values().flat_map(Record::to_bytes).collect();
        let (temp, path) = (self.next_temp(), self.store.layout.object_log());
        replace(&*self.store.disk, &temp, &path, &bytes)?;
        match self.store.disk.remove(&self.store.layout.dirty()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("remove", self.store.layout.dirty())(error))
            }
            _ => Ok(()),
        }
    }

    /// Drops sketches that are damaged, as when an append was cut off.
    fn mend_sketches(&mut self) -> Result<()> {
        let sketches = self.store.sketches()?;
        if sketches.refused == 0 {
            return Ok(());
        }
        let (temp, path) = (self.next_temp(), self.store.layout.sketch_log());
        tracing::warn!(
            count = sketches.refused,
            "dropping sketches that are damaged; zipllm optimize makes them anew"
        );
        replace(&*self.store.disk, &temp, &path, &sketches.to_bytes())
    }

    /// Makes what is missing of the store's directories; their names are durable before anything is in them.
    fn create_directories(&mut self) -> Result<()> {
        for directory in self.store.layout.directories() {
            let made = self.store.disk.create_dir(&directory);
            self.guard(made, "create", &directory)?;
        }
        let root = self.store.layout.root().to_path_buf();
        self.sync_dir(&root)
    }

    /// Removes what an earlier writer left unfinished; this one holds the lock, so nobody is writing it.
    fn remove_temps(&mut self) -> Result<()> {
        let directory = self.store.layout.tmp();
        let files = self
            .store
            .list(&directory)?
            .into_iter()
            .filter(|entry| !entry.is_dir);
        for entry in files {
            let path = directory.join(&entry.name);
            self.store
                .disk
                .remove(&path)
                .map_err(Error::io("remove", &path))?;
        }
        Ok(())
    }

    fn next_temp(&mut self) -> PathBuf {
        self.next_temp += 1;
        self.store
            .layout
            .tmp()
            .join(format!("{}-{}", std::process::id(), self.next_temp))
    }

    fn write(&mut self, object: &mut ObjectWriter, bytes: &[u8]) -> Result<()> {
        let written = object.file.write_all(bytes);
        self.guard(written, "write", &object.temp)
    }

    fn sync_dir(&mut self, path: &Path) -> Result<()> {
        let synced = self.store.disk.sync_dir(path);
        self.guard(synced, "sync", path)
    }

    /// After a failed write nothing is known of what is on disk, so the first failure is the last attempt.
    fn guard<T>(&mut self, result: io::Result<T>, action: &'static str, path: &Path) -> Result<T> {
        self.poisoned |= result.is_err();
        result.map_err(Error::io(action, path))
    }
}

/// Syncs several directories at a time: the file system then writes its journal once for many.
///
/// Returns an error, and the path that it is about, if there is one.
fn sync_dirs(disk: &dyn Disk, paths: &[PathBuf]) -> Option<(io::Error, PathBuf)> {
    let share = paths.len().div_ceil(SYNC_THREADS).max(1);
    let fault = |path: &PathBuf| Some((disk.sync_dir(path).err()?, path.clone()));
    std::thread::scope(|scope| {
        let parts = paths.chunks(share);
        let workers: Vec<_> = parts
            .map(|part| scope.spawn(move || part.iter().find_map(fault)))
            .collect();
        workers.into_iter().find_map(|worker| {
            let panicked = || (io::Error::other("a thread panicked"), PathBuf::new());
            worker.join().unwrap_or_else(|_| Some(panicked()))
        })
    })
}

/// Writes a file whole: temp, sync, rename, sync of the directory.
fn replace(disk: &dyn Disk, temp: &Path, path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = disk.create(temp)?;
        file.write_all(bytes)?;
        file.sync()?;
        disk.rename(temp, path)?;
        path.parent()
            .map_or(Ok(()), |directory| disk.sync_dir(directory))
    };
    write().map_err(Error::io("write", path))
}

/// Makes the store's directory, unless something else is there, and takes the lock.
fn prepare_root(disk: &dyn Disk, layout: &Layout, wait: bool) -> Result<WriteLock> {
    let root = layout.root();
    let entries = disk.list(root).map_err(Error::io("list", root))?;
    let ours = |name: &str| {
        name == "zipllm.json"
            || name == "lock"
            || name == "readers"
            || layout
                .directories()
                .iter()
                .any(|d| d.file_name().is_some_and(|f| f == name))
    };
    let is_store = entries.iter().any(|entry| entry.name == "zipllm.json");
    if let Some(stranger) = entries.iter().find(|entry| !is_store && !ours(&entry.name)) {
        return Err(Error::input(
            root,
            format!(
                "no store, and not empty ({:?} is in it); name an empty or new directory",
                stranger.name
            ),
        ));
    }
    create_durably(disk, root, !is_store).map_err(Error::io("create", root))?;
    WriteLock::take(&layout.lock(), root, wait)
}

/// Makes a directory and those above it, and syncs what each new one was made in.
///
/// A run that was killed may have made `path` and not synced it: where `unsure`, one that exists is synced too, as far as
/// its parent can be read.
fn create_durably(disk: &dyn Disk, path: &Path, unsure: bool) -> io::Result<()> {
    use io::ErrorKind::{NotFound, PermissionDenied};
    let parent = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    let made = match disk.create_dir(path) {
        Err(error) if error.kind() == NotFound && parent != path => {
            create_durably(disk, parent, unsure)?;
            disk.create_dir(path)?
        }
        made => made?,
    };
    if !made && !unsure {
        return Ok(());
    }
    match disk.sync_dir(parent) {
        // Nothing was made in it now, and it cannot be had.
        Err(error) if !made && matches!(error.kind(), PermissionDenied | NotFound) => Ok(()),
        synced => synced,
    }
}
