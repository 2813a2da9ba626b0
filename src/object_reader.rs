//! Reads objects with their bases: the one place, with `object_writer`, where store and codecs meet.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::buffers::BufferPool;
use crate::codec::{self, ChunkView, CodecId, Prepared, WorkspacePool};
use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::float::convert;
use crate::hash::{Hash, chunk_chaining_value};
use crate::store::object::{BaseRef, COMMON, FLAT_TAILS, SKIPS, checksum};
use crate::store::{ObjectFile, Store};

/// Objects kept open; each holds a file descriptor and its chunk table.
const MAX_OPEN: usize = 128;

/// Bytes of shared sections, parsed, that objects kept open have.
const MAX_PREPARED_BYTES: usize = 64 << 20;

/// Decodes and verifies objects of one store, from any number of threads.
pub struct ObjectReader {
    store: Store,
    workspaces: WorkspacePool,
    buffers: BufferPool,
    payloads: BufferPool,
    copies: BufferPool,
    open: Mutex<HashMap<Hash, Arc<OpenObject>>>,
}

/// When decoded bytes are held against the name of their object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// At once.
    Now,
    /// By whoever asked: what is made of them is held against its own name.
    Later,
}

/// An object ready to be decoded.
pub struct OpenObject {
    /// Its file and frame.
    pub file: ObjectFile,
    prepared: Prepared,
}

impl ObjectReader {
    /// A reader of `store`.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            workspaces: WorkspacePool::default(),
            buffers: BufferPool::default(),
            payloads: BufferPool::default(),
            copies: BufferPool::default(),
            open: Mutex::default(),
        }
    }

    /// The store that is read.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The scratch memory that encoders may share with this reader.
    pub fn workspaces(&self) -> &WorkspacePool {
        &self.workspaces
    }

    /// Buffers of about a chunk's size, used again and again.
    pub fn buffers(&self) -> &BufferPool {
        &self.buffers
    }

    /// Buffers for what codecs write.
    pub fn payloads(&self) -> &BufferPool {
        &self.payloads
    }

    /// Buffers for short objects as a whole.
    pub fn copies(&self) -> &BufferPool {
        &self.copies
    }

    /// Opens an object, or takes it from those kept open.
    pub fn open(&self, name: &Hash) -> Result<Arc<OpenObject>> {
        if let Some(object) = self.kept().get(name) {
            return Ok(object.clone());
        }
        let file = self.store.object(name)?;
        let prepared = prepare(&file)?;
        let object = Arc::new(OpenObject { file, prepared });
        let mut kept = self.kept();
        let bytes: usize = kept.values().map(|object| object.prepared.bytes()).sum();
        if kept.len() >= MAX_OPEN || bytes + object.prepared.bytes() > MAX_PREPARED_BYTES {
            kept.clear();
        }
        kept.insert(*name, object.clone());
        Ok(object)
    }

    /// Closes the objects kept open, so that files replaced since are seen.
    pub fn forget(&self) {
        self.kept().clear();
    }

    /// Decodes one chunk of an object into `out`, which has to have the chunk's length, and verifies it.
    ///
    /// A chunk that is damaged, or has a damaged or missing base, is tried once more with everything
    /// opened anew: its file may just have been replaced by another encoding.
    pub fn read_chunk(&self, name: &Hash, index: u64, out: &mut [u8]) -> Result<()> {
        self.twice(|| self.try_chunk(name, index, out, Proof::Now))
    }

    fn twice(&self, mut read: impl FnMut() -> Result<()>) -> Result<()> {
        match read() {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                self.kept().clear();
                read()
            }
            other => other,
        }
    }

    fn try_chunk(&self, name: &Hash, index: u64, out: &mut [u8], proof: Proof) -> Result<()> {
        let object = self.open(name)?;
        self.buffers
            .with(object.file.payload_len(index), |payload| {
                object.file.read_payload(index, payload)?;
                self.decode(&object, index, payload, out, proof)
            })
    }

    /// Checks the stored bytes of a chunk, then decodes it into `out` and verifies that; tries twice, as
    /// [`Self::read_chunk`] does.
    pub fn check_chunk(&self, name: &Hash, index: u64, out: &mut [u8]) -> Result<()> {
        let check = |payload: &mut Vec<u8>, out: &mut [u8]| {
            let object = self.open(name)?;
            self.check_payload(&object, index, payload, out)
        };
        self.payloads
            .with_any(|payload| self.twice(|| check(payload, out)))
    }

    /// Like [`Self::check_chunk`], of an open object and only once, and leaves the stored bytes in `payload`.
    pub fn check_payload(
        &self,
        object: &OpenObject,
        index: u64,
        payload: &mut Vec<u8>,
        out: &mut [u8],
    ) -> Result<()> {
        payload.resize(object.file.payload_len(index), 0);
        object.file.read_payload(index, payload)?;
        if checksum(payload) != entry(&object.file, index)?.checksum {
            return Err(Error::corrupt(
                &object.file.name,
                format!("the stored bytes of chunk {index} are damaged"),
            ));
        }
        self.decode(object, index, payload, out, Proof::Now)
    }

    /// Decodes a chunk. Its base's bytes are not held against their own name, for a wrong base makes wrong bytes;
    /// only when these are found are they looked at, to say which object is damaged.
    fn decode(
        &self,
        object: &OpenObject,
        index: u64,
        payload: &[u8],
        out: &mut [u8],
        proof: Proof,
    ) -> Result<()> {
        let (offset, length) = object.file.frame.head.chunk_range(index);
        let decoded = self.decode_unproven(object, index, payload, out);
        let proven = decoded.and_then(|()| match proof {
            Proof::Now => verify(&object.file, index, offset, out),
            Proof::Later => Ok(()),
        });
        match proven {
            Err(error) if proof == Proof::Now && error.kind() == ErrorKind::Corrupt => {
                if !object.file.frame.head.bases.is_empty() {
                    self.with_base(object, offset, length, Proof::Now, |_| Ok(()))?;
                }
                Err(error)
            }
            other => other,
        }
    }

    fn decode_unproven(
        &self,
        object: &OpenObject,
        index: u64,
        payload: &[u8],
        out: &mut [u8],
    ) -> Result<()> {
        let file = &object.file;
        let (offset, length) = file.frame.head.chunk_range(index);
        if length != out.len() {
            return Err(Error::corrupt(
                &file.name,
                format!("chunk {index} has another length"),
            ));
        }
        let entry = entry(file, index)?;
        let codec = codec::find(CodecId(entry.codec)).ok_or_else(|| Error::Newer {
            path: self.store.layout().object(&file.name),
            what: format!("codec {}", entry.codec),
        })?;
        let head = &file.frame.head;
        for (feature, is_there, what) in [
            (
                FLAT_TAILS,
                codec::is_flat(codec.id(), payload),
                "flat tails",
            ),
            (SKIPS, codec::has_skips(codec.id(), payload), "skips"),
        ] {
            if is_there && head.required & feature == 0 {
                let reason = format!("chunk {index} has {what}, which the head does not say");
                return Err(Error::corrupt(&file.name, reason));
            }
        }
        let mut run = |base: Option<&[u8]>| {
            let first_element = offset / head.dtype.size() as u64;
            let view = ChunkView {
                dtype: head.dtype,
                row_len: head.row_len,
                first_element,
                base,
            };
            self.workspaces
                .with(|ws| codec.decode(&object.prepared, &view, payload, out, ws))
                .map_err(|error| Error::corrupt(&file.name, format!("chunk {index}: {error}")))
        };
        if codec.uses_base() {
            self.with_base(object, offset, length, Proof::Later, |base| run(Some(base)))
        } else {
            run(None)
        }
    }

    /// Lends the bytes of the object's base at the chunk's place.
    fn with_base(
        &self,
        object: &OpenObject,
        offset: u64,
        length: usize,
        proof: Proof,
        use_it: impl FnOnce(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let Some(base) = object.file.frame.head.bases.first() else {
            return Err(Error::corrupt(
                &object.file.name,
                "a chunk needs a base and the object has none",
            ));
        };
        let opened = self.open(&base.name)?;
        if opened.file.frame.head.depth >= object.file.frame.head.depth {
            return Err(Error::corrupt(
                &object.file.name,
                format!("its base {} is as deep as itself", base.name),
            ));
        }
        let head = &object.file.frame.head;
        if !head.fits_base(opened.file.frame.head.raw_len) {
            return Err(Error::corrupt(
                &object.file.name,
                format!("its base {} has another length", base.name),
            ));
        }
        self.buffers.with(length, |bytes| {
            self.read_bases(&head.bases, head.dtype, offset, bytes, proof)?;
            use_it(bytes)
        })
    }

    /// Reads what the bases of an object of type `dtype` say of its bytes from `offset` on: converted to that type,
    /// and 0 where there is no base.
    pub fn read_base(
        &self,
        bases: &[BaseRef],
        dtype: DType,
        offset: u64,
        out: &mut [u8],
    ) -> Result<()> {
        self.read_bases(bases, dtype, offset, out, Proof::Now)
    }

    fn read_bases(
        &self,
        bases: &[BaseRef],
        dtype: DType,
        offset: u64,
        out: &mut [u8],
        proof: Proof,
    ) -> Result<()> {
        let size = dtype.size();
        let first = offset / size as u64;
        let end = first + (out.len() / size) as u64;
        let whole =
            |base: &BaseRef| base.target_start <= first && end <= base.target_start + base.count;
        if !bases.iter().any(whole) {
            out.fill(0);
        }
        for base in bases {
            let (from, to) = (
                base.target_start.max(first),
                end.min(base.target_start + base.count),
            );
            let place =
                |element: u64| usize::try_from(element.saturating_sub(first)).unwrap_or(0) * size;
            let Some(target) = out.get_mut(place(from)..place(to)).filter(|_| from < to) else {
                continue;
            };
            let place = (base.start + (from - base.target_start)) * base.dtype.size() as u64;
            if base.dtype == dtype {
                self.read_span(&base.name, place, target, proof)?;
                continue;
            }
            let length = target.len() / size * base.dtype.size();
            self.buffers.with(length, |bytes| {
                self.read_span(&base.name, place, bytes, proof)?;
                convert(base.dtype, bytes, dtype, target);
                Ok::<_, Error>(())
            })?;
        }
        Ok(())
    }

    /// Decodes and verifies `out.len()` bytes of an object from `offset`, chunk by chunk.
    pub fn read_range(&self, name: &Hash, offset: u64, out: &mut [u8]) -> Result<()> {
        self.read_span(name, offset, out, Proof::Now)
    }

    fn read_span(&self, name: &Hash, offset: u64, out: &mut [u8], proof: Proof) -> Result<()> {
        let head = self.open(name)?.file.frame.head.clone();
        let size = head.dtype.chunk_bytes() as u64;
        let (mut at, mut rest) = (offset, out);
        while !rest.is_empty() {
            let index = at / size;
            let (start, length) = head.chunk_range(index);
            let skip = usize::try_from(at - start).unwrap_or(usize::MAX);
            let take = rest.len().min(length.saturating_sub(skip));
            if take == 0 {
                return Err(Error::corrupt(name, "read past its end"));
            }
            let (part, later) = rest.split_at_mut(take);
            if part.len() == length {
                self.try_chunk(name, index, part, proof)?;
            } else {
                self.buffers.with(length, |chunk| {
                    self.try_chunk(name, index, chunk, proof)?;
                    let wanted = chunk.get(skip..).and_then(|tail| tail.get(..take));
                    part.copy_from_slice(wanted.unwrap_or_default());
                    Ok::<_, Error>(())
                })?;
            }
            (at, rest) = (at + take as u64, later);
        }
        Ok(())
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<Hash, Arc<OpenObject>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Parses the shared section; one of a codec that this build does not know is not looked into.
fn prepare(file: &ObjectFile) -> Result<Prepared> {
    let head = &file.frame.head;
    if head.shared_len == 0 || codec::find(CodecId(head.codec)).is_none() {
        return Ok(Prepared::default());
    }
    let has_common = head.required & COMMON != 0;
    Prepared::parse(&file.read_shared()?, has_common, head.dtype, head.row_len)
        .map_err(|error| Error::corrupt(&file.name, format!("shared section: {error}")))
}

fn entry(file: &ObjectFile, index: u64) -> Result<crate::store::object::ChunkEntry> {
    let at = usize::try_from(index).unwrap_or(usize::MAX);
    let entry = file.frame.chunks.get(at).copied();
    entry.ok_or_else(|| Error::corrupt(&file.name, format!("there is no chunk {index}")))
}

fn verify(file: &ObjectFile, index: u64, offset: u64, bytes: &[u8]) -> Result<()> {
    let good = if file.frame.chunks.len() > 1 {
        entry(file, index)?.chaining_value == chunk_chaining_value(offset, bytes)
    } else {
        Hash::of(bytes) == file.name
    };
    if good {
        Ok(())
    } else {
        Err(Error::corrupt(
            &file.name,
            format!("chunk {index} decodes to wrong bytes"),
        ))
    }
}
