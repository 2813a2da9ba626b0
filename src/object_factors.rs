//! What has to be known of a whole object before its chunks are encoded: the factors that predict it.
//!
//! The base is decoded once, into memory or into a file without a name, and read from there as often as it takes. Of a
//! long object some rows are looked at first, for which a few chunks of its base do.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rayon::prelude::*;

use crate::adapter::Part;
use crate::buffers::at_least;
use crate::codec::select::{Effort, Family};
use crate::codec::{EncodeOptions, Known, Prepared};
use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::lowrank::{Columns, Fitted, Shape, fit};
use crate::object_common::Common;
use crate::object_reader::ObjectReader;
use crate::rans::Isa;
use crate::store::fs::scratch_file;

/// Objects up to this length have their base copied to memory, longer ones to a file.
const MOST_IN_MEMORY: u64 = 8 << 20;

/// What was found for an object; filled by [`Preparation::run`], if it is run.
#[derive(Default)]
pub struct Preparation {
    factors: OnceLock<Factors>,
    common: OnceLock<Common>,
    /// What an adapter says of the object.
    adapter: Option<Part>,
    base: Mutex<Option<Arc<Copy>>>,
}

struct Factors {
    fitted: Fitted,
    /// The column factors as they are stored.
    shared: Vec<u8>,
}

/// An object as low-rank prediction sees it.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// How its elements are to be read.
    pub dtype: DType,
    /// Elements in a row; 0 where there are no rows.
    pub row_len: u64,
    /// Its length in bytes.
    pub raw_len: u64,
    /// Rows that share their column factors, as those of one matrix of a stack; 0 for all.
    pub set_rows: u64,
    /// The rows that its base covers, in order; `None` where it covers all.
    pub covered: Option<&'a [Range<u64>]>,
}

/// Bytes decoded once, to be read again and again.
enum Copy {
    /// The first so many bytes of a buffer.
    Memory(Vec<u8>, usize),
    File(File),
    /// Some chunks, by their first byte.
    Chunks(BTreeMap<u64, Vec<u8>>),
}

impl Subject<'_> {
    /// All rows.
    fn rows(&self) -> u64 {
        let elements = self.raw_len / self.dtype.size() as u64;
        elements.checked_div(self.row_len).unwrap_or(0)
    }

    /// The matrix of the rows that the base covers. Of a stack of matrices all have to be covered.
    fn shape(&self) -> Shape {
        let all = self.rows();
        let is_stack = (1..all).contains(&self.set_rows);
        let (elements, set_rows) = match self.covered {
            None if is_stack => (self.raw_len / self.dtype.size() as u64, self.set_rows),
            None => (self.raw_len / self.dtype.size() as u64, all),
            Some(runs) => {
                let rows: u64 = runs.iter().map(|run| run.end - run.start).sum();
                (rows * self.row_len, if is_stack { 0 } else { rows })
            }
        };
        Shape {
            dtype: self.dtype,
            elements,
            row_len: self.row_len,
            set_rows,
        }
    }

    /// `tensor` as the matrix of the rows that the base covers, those of `runs`.
    fn joined<'t, T>(&self, tensor: &'t T, runs: &'t [Range<u64>]) -> fit::Joined<'t, T> {
        let size = self.dtype.size();
        fit::Joined {
            tensor,
            runs,
            row_bytes: self.row_len * size as u64,
            size,
        }
    }

    /// Tells whether factors are looked for at all.
    pub fn is_tried(&self, options: &EncodeOptions) -> bool {
        options.family == Family::Auto
            && options.effort != Effort::Fast
            && fit::is_tried(&self.shape())
    }
}

impl Preparation {
    /// Nothing yet but what an adapter says of the object.
    pub fn new(adapter: Option<Part>) -> Self {
        Self {
            adapter,
            ..Self::default()
        }
    }

    /// Looks for factors, given how the object and its base are read from a place in bytes on.
    ///
    /// `is_read_twice` tells that reading the object is as slow as decoding it, so that it is copied too.
    ///
    /// # Errors
    /// Fails where the object cannot be read. A damaged base, or no room for the copies, only leaves it without factors.
    pub fn run(
        &self,
        subject: Subject<'_>,
        reader: &ObjectReader,
        options: &EncodeOptions,
        read: &Reading<'_>,
        read_base: &Reading<'_>,
        is_slow: bool,
    ) -> Result<()> {
        let shape = subject.shape();
        let all = 0..subject.rows();
        let runs = subject.covered.unwrap_or(std::slice::from_ref(&all));
        let adapter = self.adapter.as_ref();
        let adapter = adapter.filter(|_| shape.sets() == 1 && subject.covered.is_none());
        let start = adapter.and_then(|part| part.read(shape.rows(), shape.row_len));
        if start.is_none() && subject.raw_len > MOST_IN_MEMORY {
            let glance = Glance::new(subject, read, read_base);
            match fit::is_promising(Isa::detect(), shape, &subject.joined(&glance, runs)) {
                Ok(true) => {}
                Ok(false) => {
                    self.keep(glance.into_copy());
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        let copy = |read| Copy::of(reader, subject, read);
        let (base, target) = match (copy(read_base), is_slow.then(|| copy(read)).transpose()) {
            (Ok(Some(base)), Ok(target)) => (base, target.flatten()),
            (Err(error), _) if error.kind() != ErrorKind::Corrupt => return Err(error),
            (Ok(_), Err(error)) => return Err(error),
            _ => return Ok(()),
        };
        let pair = Pair {
            subject,
            base: &base,
            target: target.as_ref(),
            read,
        };
        let joined = subject.joined(&pair, runs);
        let fitted = fit::fit(
            Isa::detect(),
            options.effort,
            shape,
            &joined,
            start.as_ref(),
        )?;
        let fitted = match subject.covered {
            Some(_) => fitted.map(|fitted| fitted.placed(runs, subject.rows())),
            None => fitted,
        };
        if let Some(factors) = fitted.and_then(|fitted| Factors::checked(fitted, subject)) {
            // Nobody else prepares the same object.
            let _ = self.factors.set(factors);
        }
        self.keep(base);
        Ok(())
    }

    /// Keeps what was decoded of the base until [`Self::release`].
    fn keep(&self, base: Copy) {
        *self.copy() = Some(Arc::new(base));
    }

    /// Keeps what the object's chunks have in common.
    pub fn keep_common(&self, common: Common) {
        // Nobody else prepares the same object.
        let _ = self.common.set(common);
    }

    /// What is known of the object, for encoders.
    pub fn known(&self) -> Known<'_> {
        Known {
            factors: self.factors.get().map(|factors| &factors.fitted),
            common: self.common.get().map(|common| &common.shared),
        }
    }

    /// The column factors as chunks predicted with them need them stored.
    pub fn factors(&self) -> &[u8] {
        self.factors.get().map_or(&[], |factors| &factors.shared)
    }

    /// What the chunks have in common, as those that use it need it stored.
    pub fn common(&self) -> &[u8] {
        self.common.get().map_or(&[], |common| &common.bytes)
    }

    /// The shared section as decoders have it.
    pub fn prepared(&self) -> Prepared {
        let factors = self.factors.get();
        Prepared {
            factors: factors.map(|factors| factors.fitted.columns().clone()),
            common: self.common.get().map(|common| common.parsed.clone()),
        }
    }

    /// Tells whether there is a copy of the base, or of some of it.
    pub fn has_copy(&self) -> bool {
        self.copy().is_some()
    }

    /// The chunks of the base that are kept; `None` if it is all or nothing.
    pub fn kept_chunks(&self) -> Option<Vec<u64>> {
        let copy = self.copy().clone()?;
        let Copy::Chunks(chunks) = &*copy else {
            return None;
        };
        Some(chunks.keys().copied().collect())
    }

    /// Runs `work` with a part of the base, if there is a copy of it.
    pub fn with_base<T>(
        &self,
        reader: &ObjectReader,
        offset: u64,
        length: usize,
        work: impl FnOnce(Option<&[u8]>) -> T,
    ) -> T {
        let copy = self.copy().clone();
        let Some(copy) = copy else {
            return work(None);
        };
        if let Some(part) = copy.get(offset, length) {
            return work(Some(part));
        }
        reader.buffers().with(length, |part| {
            let is_read = copy.read(offset, part).is_ok();
            work(is_read.then_some(part))
        })
    }

    /// Gives up the copy of the base; its memory is for the next object's.
    pub fn release(&self, reader: &ObjectReader) {
        let copy = self.copy().take();
        if let Some(Copy::Memory(bytes, _)) = copy.and_then(Arc::into_inner) {
            reader.copies().give_back(bytes);
        }
    }

    fn copy(&self) -> MutexGuard<'_, Option<Arc<Copy>>> {
        self.base.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Factors {
    /// Factors are used only if what is stored of them says the same.
    fn checked(fitted: Fitted, subject: Subject<'_>) -> Option<Self> {
        let shared = fitted.columns().to_bytes(Isa::detect());
        let again = Columns::parse(Isa::detect(), subject.dtype, subject.row_len, &shared).ok()?;
        (again == **fitted.columns()).then_some(Self { fitted, shared })
    }
}

impl Copy {
    /// Reads all of it; `None` where there is no room.
    fn of(reader: &ObjectReader, subject: Subject<'_>, read: &Reading<'_>) -> Result<Option<Self>> {
        let size = subject.dtype.chunk_bytes();
        let length = usize::try_from(subject.raw_len).unwrap_or(usize::MAX);
        if subject.raw_len <= MOST_IN_MEMORY {
            let mut bytes = reader.copies().take();
            let parts = at_least(&mut bytes, length)
                .par_chunks_mut(size)
                .enumerate();
            parts.try_for_each(|(number, part)| read((number * size) as u64, part))?;
            return Ok(Some(Self::Memory(bytes, length)));
        }
        let Ok(file) = scratch_file(&reader.store().layout().tmp()) else {
            return Ok(None);
        };
        let has_room = (0..length.div_ceil(size)).into_par_iter().map(|number| {
            let offset = (number * size) as u64;
            reader
                .buffers()
                .with((length - number * size).min(size), |part| {
                    read(offset, part)?;
                    Ok::<_, Error>(file.write_all_at(part, offset).is_ok())
                })
        });
        let has_room = has_room.try_reduce(|| true, |all, one| Ok(all && one))?;
        Ok(has_room.then_some(Self::File(file)))
    }

    /// The bytes from `offset` on, if they are in memory.
    fn get(&self, offset: u64, length: usize) -> Option<&[u8]> {
        let (start, bytes) = match self {
            Self::Memory(bytes, end) => (0, bytes.get(..*end)?),
            Self::File(_) => return None,
            Self::Chunks(chunks) => {
                let (start, chunk) = chunks.range(..=offset).next_back()?;
                (*start, chunk.as_slice())
            }
        };
        let start = usize::try_from(offset.checked_sub(start)?).ok()?;
        bytes.get(start..start.checked_add(length)?)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        if let Self::File(file) = self {
            return file.read_exact_at(out, offset);
        }
        let part = self.get(offset, out.len());
        out.copy_from_slice(part.ok_or(std::io::ErrorKind::NotFound)?);
        Ok(())
    }
}

/// An object of which some rows are looked at; the chunks of the base decoded for that are kept.
struct Glance<'a> {
    subject: Subject<'a>,
    read: &'a Reading<'a>,
    read_base: &'a Reading<'a>,
    chunks: Mutex<BTreeMap<u64, Vec<u8>>>,
}

/// How an object is read: from a place in bytes on.
pub type Reading<'a> = dyn Fn(u64, &mut [u8]) -> Result<()> + Sync + 'a;

/// Most chunks of a base that are kept during a glance and after it.
const MOST_CHUNKS: usize = 8;

impl<'a> Glance<'a> {
    fn new(subject: Subject<'a>, read: &'a Reading<'a>, read_base: &'a Reading<'a>) -> Self {
        Self {
            subject,
            read,
            read_base,
            chunks: Mutex::default(),
        }
    }

    /// The chunks that were decoded.
    fn into_copy(self) -> Copy {
        let chunks = self.chunks.into_inner();
        Copy::Chunks(chunks.unwrap_or_else(PoisonError::into_inner))
    }

    /// Copies from the base's chunk at `start`, which is decoded if it was not yet.
    fn copy(&self, start: u64, skip: usize, out: &mut [u8]) -> Result<()> {
        let mut chunks = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        if !chunks.contains_key(&start) {
            let size = self.subject.dtype.chunk_bytes() as u64;
            let length = (self.subject.raw_len - start).min(size);
            let mut chunk = vec![0; usize::try_from(length).unwrap_or(0)];
            (self.read_base)(start, &mut chunk)?;
            if chunks.len() == MOST_CHUNKS {
                chunks.pop_first();
            }
            chunks.insert(start, chunk);
        }
        let chunk = chunks.get(&start).map_or(&[][..], Vec::as_slice);
        let part = chunk.get(skip..skip.saturating_add(out.len()));
        out.copy_from_slice(part.unwrap_or(&vec![0; out.len()]));
        Ok(())
    }
}

impl fit::Tensor for Glance<'_> {
    type Error = Error;
    fn read(&self, first_element: u64, target: &mut [u8], base: &mut [u8]) -> Result<()> {
        let size = self.subject.dtype.chunk_bytes();
        let mut offset = first_element * self.subject.dtype.size() as u64;
        (self.read)(offset, target)?;
        let mut rest = base;
        while !rest.is_empty() {
            let skip = usize::try_from(offset % size as u64).unwrap_or(0);
            let length = rest.len().min(size - skip);
            let (part, later) = std::mem::take(&mut rest).split_at_mut(length);
            self.copy(offset - skip as u64, skip, part)?;
            rest = later;
            offset += length as u64;
        }
        Ok(())
    }
}

/// An object and its base while factors are looked for.
struct Pair<'a> {
    subject: Subject<'a>,
    base: &'a Copy,
    target: Option<&'a Copy>,
    read: &'a (dyn Fn(u64, &mut [u8]) -> Result<()> + Sync),
}

impl fit::Tensor for Pair<'_> {
    type Error = Error;
    fn read(&self, first_element: u64, target: &mut [u8], base: &mut [u8]) -> Result<()> {
        let offset = first_element * self.subject.dtype.size() as u64;
        let failed = Error::io("read", std::path::Path::new("the copy of a base"));
        let copied = self.base.read(offset, base);
        copied.map_err(failed)?;
        match self.target {
            Some(copy) => copy
                .read(offset, target)
                .map_err(Error::io("read", std::path::Path::new("a copy"))),
            None => (self.read)(offset, target),
        }
    }
}
