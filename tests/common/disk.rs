//! `MemDisk`: a disk in memory that knows what a power cut would leave of it, and that can fail.
//!
//! Every operation is counted. Bytes are durable once their file was synced; a name (made, renamed or
//! removed) is durable once its directory was.
#![allow(dead_code, reason = "no test uses all of it")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail the test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, ThreadId};
use std::time::Duration;

use zipllm::store::fs::{Disk, Entry, ReadFile, WriteFile};

use super::random::Random;

/// What the disk answers when it fails, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The operation that fails, counted from 0.
    pub at: u64,
    /// Whether all later ones fail too.
    pub forever: bool,
    /// The error's number.
    pub errno: i32,
    /// Whether only syncs fail, and only they are counted.
    pub only_syncs: bool,
}

/// A disk in memory; clones share it.
#[derive(Clone)]
pub struct MemDisk(Arc<Mutex<State>>);

/// Everything on the disk, and what of it is durable.
#[derive(Clone, Default)]
pub struct State {
    live: Names,
    durable: Names,
    /// Changes of names since their directory was last synced, oldest first.
    unsynced: Vec<Change>,
    inodes: Vec<Inode>,
    /// Operations so far, reads too.
    pub operations: u64,
    syncs: u64,
    fault: Option<Fault>,
    /// Whether the fault was met.
    pub failed: bool,
    history: Option<Vec<State>>,
}

#[derive(Clone, Default)]
struct Names {
    files: BTreeMap<PathBuf, usize>,
    dirs: BTreeSet<PathBuf>,
}

#[derive(Clone, Default)]
struct Inode {
    data: Arc<Vec<u8>>,
    synced: usize,
}

#[derive(Clone)]
enum Change {
    Create(PathBuf, usize),
    MakeDir(PathBuf),
    Rename(PathBuf, PathBuf, usize),
    Remove(PathBuf),
}

impl Names {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Create(path, inode) => drop(self.files.insert(path.clone(), *inode)),
            Change::MakeDir(path) => drop(self.dirs.insert(path.clone())),
            // It brings its file along even if the old name never became durable.
            Change::Rename(from, to, inode) => {
                self.files.remove(from);
                self.files.insert(to.clone(), *inode);
            }
            Change::Remove(path) => drop(self.files.remove(path)),
        }
    }
}

impl Change {
    fn is_in(&self, dir: &Path) -> bool {
        let within = |path: &Path| path.parent() == Some(dir);
        match self {
            Self::Create(path, _) | Self::MakeDir(path) | Self::Remove(path) => within(path),
            Self::Rename(from, to, _) => within(from) || within(to),
        }
    }
}

impl State {
    /// What a power cut leaves. `keep` decides for each unsynced change of a name whether it was written
    /// all the same; of unsynced bytes, some are there, and some of those are wrong.
    pub fn after_power_cut(
        &self,
        keep: &mut dyn FnMut() -> bool,
        mut random: Option<&mut Random>,
    ) -> Self {
        let mut names = self.durable.clone();
        let kept = self.unsynced.iter().filter(|_| keep());
        kept.for_each(|change| names.apply(change));
        names.drop_orphans();
        let inodes = self
            .inodes
            .iter()
            .map(|inode| inode.after_power_cut(random.as_deref_mut()))
            .collect();
        Self {
            live: names.clone(),
            durable: names,
            inodes,
            ..Self::default()
        }
    }

    fn change(&mut self, change: Change) {
        self.live.apply(&change);
        self.unsynced.push(change);
    }

    fn sync_dir(&mut self, dir: &Path) {
        let (here, elsewhere): (Vec<_>, Vec<_>) = std::mem::take(&mut self.unsynced)
            .into_iter()
            .partition(|change| change.is_in(dir));
        self.unsynced = elsewhere;
        for change in here {
            self.durable.apply(&change);
            // The old name is gone with it, whether or not its making was durable.
            if let Change::Rename(from, ..) = &change {
                self.unsynced
                    .retain(|old| !matches!(old, Change::Create(path, _) if path == from));
            }
        }
    }
}

impl Names {
    /// What lies in a directory that was lost is lost.
    fn drop_orphans(&mut self) {
        loop {
            let dirs = self.dirs.clone();
            let rooted = |path: &Path| path.parent().is_some_and(|parent| dirs.contains(parent));
            let root = dirs.first().cloned();
            self.dirs
                .retain(|dir| Some(dir) == root.as_ref() || rooted(dir));
            self.files.retain(|path, _| rooted(path));
            if self.dirs.len() == dirs.len() {
                return;
            }
        }
    }
}

impl Inode {
    fn after_power_cut(&self, random: Option<&mut Random>) -> Self {
        let mut data = self.data.to_vec();
        match random {
            None => data.truncate(self.synced),
            Some(random) => {
                let tail = data.len() - self.synced;
                match random.below(4) {
                    0 => data.truncate(self.synced),
                    1 => data.truncate(self.synced + random.below(tail + 1)),
                    // The length was written and the bytes were not.
                    2 => {
                        let torn = self.synced + random.below(tail + 1);
                        data[torn..].fill(0);
                    }
                    _ => {}
                }
            }
        }
        Self {
            synced: data.len(),
            data: Arc::new(data),
        }
    }
}

impl MemDisk {
    /// An empty disk on which only the directory `root` exists.
    pub fn new(root: &Path) -> Self {
        let mut state = State::default();
        state.live.dirs.insert(root.to_path_buf());
        state.durable = state.live.clone();
        Self::from_state(state)
    }

    /// A disk with this on it.
    pub fn from_state(state: State) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    /// A disk with a copy of a directory of the local disk, under the same path.
    pub fn copy_of(root: &Path) -> Self {
        let disk = Self::new(root);
        let mut waiting = vec![root.to_path_buf()];
        while let Some(dir) = waiting.pop() {
            for entry in fs::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    disk.state().live.dirs.insert(path.clone());
                    waiting.push(path);
                } else {
                    disk.put(&path, fs::read(&path).unwrap());
                }
            }
        }
        let mut state = disk.state();
        state.durable = state.live.clone();
        drop(state);
        disk
    }

    /// Everything on the disk.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// A disk of its own with the same on it, and no fault.
    pub fn fork(&self) -> Self {
        let mut state = self.state().clone();
        (state.fault, state.failed, state.operations) = (None, false, 0);
        Self::from_state(state)
    }

    /// Makes the disk fail.
    pub fn fail(&self, fault: Fault) {
        self.state().fault = Some(fault);
    }

    /// Keeps what the disk looks like after every change.
    pub fn keep_history(&self) {
        self.state().history = Some(Vec::new());
    }

    /// What the disk looked like after every change.
    pub fn history(&self) -> Vec<State> {
        self.state().history.take().unwrap()
    }

    /// The number of changes so far.
    pub fn changes(&self) -> usize {
        self.state().history.as_ref().unwrap().len()
    }

    /// The paths of all files.
    pub fn files(&self) -> Vec<PathBuf> {
        self.state().live.files.keys().cloned().collect()
    }

    /// The bytes of a file.
    pub fn get(&self, path: &Path) -> Option<Arc<Vec<u8>>> {
        let state = self.state();
        let inode = state.live.files.get(path)?;
        Some(state.inodes[*inode].data.clone())
    }

    /// Gives a file other bytes, durably.
    pub fn put(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.state();
        let inode = Inode {
            synced: bytes.len(),
            data: Arc::new(bytes),
        };
        if let Some(at) = state.live.files.get(path).copied() {
            state.inodes[at] = inode;
        } else {
            state.inodes.push(inode);
            let at = state.inodes.len() - 1;
            state.live.files.insert(path.to_path_buf(), at);
            state.durable.files.insert(path.to_path_buf(), at);
        }
    }

    /// Removes a file, durably.
    pub fn delete(&self, path: &Path) {
        let mut state = self.state();
        state.live.files.remove(path);
        state.durable.files.remove(path);
    }

    fn begin(&self, is_sync: bool) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        let counted = state.fault.is_none_or(|fault| !fault.only_syncs || is_sync);
        let now = if state.fault.is_some_and(|fault| fault.only_syncs) {
            state.syncs
        } else {
            state.operations
        };
        state.operations += 1;
        state.syncs += u64::from(is_sync);
        match state.fault {
            Some(fault) if counted && (now == fault.at || fault.forever && now > fault.at) => {
                state.failed = true;
                Err(io::Error::from_raw_os_error(fault.errno))
            }
            _ => Ok(state),
        }
    }

    fn remember(mut state: MutexGuard<'_, State>) {
        if let Some(mut history) = state.history.take() {
            history.push(state.clone());
            state.history = Some(history);
        }
    }
}

struct Writer {
    disk: MemDisk,
    inode: usize,
    creator: ThreadId,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.disk.begin(false) {
            Ok(mut state) => {
                Arc::make_mut(&mut state.inodes[self.inode].data).extend(bytes);
                MemDisk::remember(state);
                Ok(bytes.len())
            }
            // A write that fails may have written a part.
            Err(error) => {
                let half = &bytes[..bytes.len() / 2];
                Arc::make_mut(&mut self.disk.state().inodes[self.inode].data).extend(half);
                Err(error)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl WriteFile for Writer {
    fn sync(&mut self) -> io::Result<()> {
        // Who syncs ahead finds a slow disk: one that does not wait for it is found out.
        if thread::current().id() != self.creator {
            thread::sleep(Duration::from_millis(3));
        }
        let mut state = self.disk.begin(true)?;
        let inode = &mut state.inodes[self.inode];
        inode.synced = inode.data.len();
        MemDisk::remember(state);
        Ok(())
    }
}

struct Reader {
    disk: MemDisk,
    data: Arc<Vec<u8>>,
}

impl ReadFile for Reader {
    fn len(&self) -> io::Result<u64> {
        drop(self.disk.begin(false)?);
        Ok(self.data.len() as u64)
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        drop(self.disk.begin(false)?);
        let start = usize::try_from(offset).unwrap();
        let bytes = self.data.get(start..start + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for MemDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let mut state = self.begin(false)?;
        if !state.live.dirs.contains(path.parent().unwrap()) {
            return Err(missing());
        }
        if state.live.files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.inodes.push(Inode::default());
        let inode = state.inodes.len() - 1;
        state.change(Change::Create(path.to_path_buf(), inode));
        Self::remember(state);
        Ok(Box::new(Writer {
            disk: self.clone(),
            inode,
            creator: thread::current().id(),
        }))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let state = self.begin(false)?;
        let Some(inode) = state.live.files.get(path).copied() else {
            drop(state);
            return self.create(path);
        };
        drop(state);
        Ok(Box::new(Writer {
            disk: self.clone(),
            inode,
            creator: thread::current().id(),
        }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        let state = self.begin(false)?;
        let inode = *state.live.files.get(path).ok_or_else(missing)?;
        Ok(Box::new(Reader {
            data: state.inodes[inode].data.clone(),
            disk: self.clone(),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.begin(false)?;
        let inode = *state.live.files.get(from).ok_or_else(missing)?;
        if !state.live.dirs.contains(to.parent().unwrap()) {
            return Err(missing());
        }
        let file = &state.inodes[inode];
        if file.synced < file.data.len() {
            return Err(io::Error::other("renamed before it was synced"));
        }
        state.change(Change::Rename(from.to_path_buf(), to.to_path_buf(), inode));
        Self::remember(state);
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.begin(true)?;
        if !state.live.dirs.contains(path) {
            return Err(missing());
        }
        state.sync_dir(path);
        Self::remember(state);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.begin(false)?;
        if !state.live.files.contains_key(path) {
            return Err(missing());
        }
        state.change(Change::Remove(path.to_path_buf()));
        Self::remember(state);
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> io::Result<bool> {
        let mut state = self.begin(false)?;
        if state.live.dirs.contains(path) {
            return Ok(false);
        }
        if !state.live.dirs.contains(path.parent().unwrap()) {
            return Err(missing());
        }
        state.change(Change::MakeDir(path.to_path_buf()));
        Self::remember(state);
        Ok(true)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let state = self.begin(false)?;
        let within = |other: &Path| other.parent() == Some(path);
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        let files = state.live.files.iter().filter(|(file, _)| within(file));
        let mut found: Vec<_> = files
            .map(|(file, inode)| Entry {
                name: name(file),
                is_dir: false,
                len: state.inodes[*inode].data.len() as u64,
                modified: None,
            })
            .collect();
        let dirs = state.live.dirs.iter().filter(|dir| within(dir));
        found.extend(dirs.map(|dir| Entry {
            name: name(dir),
            is_dir: true,
            len: 0,
            modified: None,
        }));
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }
}
