//! Reads a model's files span by span, in order, and hashes them: the spans, and the whole files.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use rayon::ThreadPool;
use rayon::prelude::*;

use super::arenas::Arenas;
use super::batch::{Batch, HashedSpan, MAX_KEPT};
use crate::checkpoint::{Span, segment};
use crate::error::{Error, Result};
use crate::hash::{ChainingValue, Hash};
use crate::object_writer::{Digest, digest_chunk};
use crate::sketch::{self, Part, Places, Sampler};
use crate::source::{OpenFile, SourceFile};

/// Bytes up to which spans are added to a batch.
const BATCH_BYTES: u64 = 16 << 20;
/// Files that a batch has parts of: each is open until it is read.
const BATCH_FILES: usize = 32;
/// Bytes read at a time of a span that is not kept.
const WINDOW_BYTES: usize = 16 << 20;

/// Shapes of tensors that are remembered.
const MAX_PLACES: usize = 64;

/// Reads one model.
pub struct Loader<'a> {
    pool: &'a ThreadPool,
    files: &'a [SourceFile],
    /// Memory for batches.
    arenas: Arc<Arenas>,
    next_file: usize,
    /// Spans of the file that was opened last, in order, not yet in a batch.
    waiting: std::vec::IntoIter<Picked>,
    peeked: Option<Picked>,
    file_hasher: blake3::Hasher,
    /// Where sketches' elements come from, by rows and row length.
    places: HashMap<(u64, u64), Arc<Places>>,
    /// What the segmenters had to say, with the file's path.
    warnings: Vec<String>,
}

/// The batches of a model, read ahead by another thread; ends when dropped.
pub struct Batches {
    loaded: Receiver<Result<Batch>>,
}

impl Batches {
    /// Waits for the next batch; `None` when all files are read.
    pub fn next(&mut self) -> Result<Option<Batch>> {
        self.loaded.recv().ok().transpose()
    }
}

/// A span that is to be read.
struct Picked {
    file_index: usize,
    file: Arc<OpenFile>,
    span: Span,
    place: Place,
    /// Where its sketch's elements come from, if it has one.
    sketched: Option<Arc<Places>>,
}

impl Picked {
    fn sampler(&self) -> Option<Sampler<'_>> {
        let (elements, row_len) = shape(&self.span);
        self.sketched.as_ref().map(|places| Sampler {
            dtype: self.span.dtype,
            elements,
            row_len,
            places,
        })
    }
}

/// Returns a span's elements, and those of a row, which is all of them where there are no rows.
fn shape(span: &Span) -> (u64, u64) {
    let elements = span.length / span.dtype.size() as u64;
    let row_len = if span.row_len == 0 {
        elements
    } else {
        span.row_len
    };
    (elements, row_len)
}

/// Where a span stands in its file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It is the whole file.
    Only,
    /// It is the last of several.
    Last,
    /// Others follow.
    Before,
}

/// One chunk to be read: what it belongs to, and where it goes.
struct ReadTask<'a> {
    picked: &'a Picked,
    offset: u64,
    target: &'a mut [u8],
}

impl<'a> Loader<'a> {
    /// A loader of these files, in threads of `pool`, to memory from `arenas`.
    pub fn new(pool: &'a ThreadPool, files: &'a [SourceFile], arenas: Arc<Arenas>) -> Self {
        Self {
            pool,
            files,
            arenas,
            next_file: 0,
            waiting: Vec::new().into_iter(),
            peeked: None,
            file_hasher: blake3::Hasher::new(),
            places: HashMap::new(),
            warnings: Vec::new(),
        }
    }

    /// Starts to read in a thread of its own, which ends with what the segmenters had to say.
    ///
    /// It reads one batch while the one before is looked up and the one before that is encoded, and no further ahead.
    pub fn spawn<'scope>(
        mut self,
        scope: &'scope Scope<'scope, '_>,
    ) -> (ScopedJoinHandle<'scope, Vec<String>>, Batches)
    where
        'a: 'scope,
    {
        let (send, loaded) = sync_channel(0);
        let load = move || {
            while let Some(batch) = self.next().transpose() {
                let failed = batch.is_err();
                if send.send(batch).is_err() || failed {
                    break;
                }
            }
            self.warnings
        };
        (scope.spawn(load), Batches { loaded })
    }

    /// Reads the next batch; `None` when all files are read.
    fn next(&mut self) -> Result<Option<Batch>> {
        let mut batch = Batch::default();
        let picked = self.pick(&mut batch)?;
        if picked.is_empty() && batch.finished.is_empty() {
            return Ok(None);
        }
        match picked.as_slice() {
            [long] if long.span.length > MAX_KEPT => {
                let read = self.digest_long(long)?;
                let span = hashed(long, read, None)?;
                self.end_span(long, &span.digest, &mut batch.finished)?;
                batch.spans.push(span);
            }
            _ => self.read_kept(picked, &mut batch)?,
        }
        Ok(Some(batch))
    }

    /// Takes spans, across files, until the batch is full; one that is not kept is a batch of its own.
    fn pick(&mut self, batch: &mut Batch) -> Result<Vec<Picked>> {
        let (mut picked, mut bytes) = (Vec::<Picked>::new(), 0);
        while let Some(next) = self.next_span(batch)? {
            let length = next.span.length;
            let first = picked
                .first()
                .map_or(next.file_index, |first| first.file_index);
            let files = next.file_index - first + 1;
            let full = bytes + length > BATCH_BYTES || files > BATCH_FILES;
            if !picked.is_empty() && (length > MAX_KEPT || full) {
                self.peeked = Some(next);
                break;
            }
            bytes += length;
            let sketched = self.places_of(&next.span);
            picked.push(Picked { sketched, ..next });
            if length > MAX_KEPT {
                break;
            }
        }
        Ok(picked)
    }

    /// Returns where a span's sketch comes from; models have few shapes.
    fn places_of(&mut self, span: &Span) -> Option<Arc<Places>> {
        if span.tensor.is_none() || !sketch::applies(span.dtype, span.length) {
            return None;
        }
        let (elements, row_len) = shape(span);
        let rows = elements / row_len.max(1);
        if self.places.len() >= MAX_PLACES {
            self.places.clear();
        }
        let places = self.places.entry((rows, row_len));
        let places = places.or_insert_with(|| Arc::new(Places::new(rows, row_len)));
        Some(places.clone())
    }

    fn next_span(&mut self, batch: &mut Batch) -> Result<Option<Picked>> {
        if let Some(peeked) = self.peeked.take() {
            return Ok(Some(peeked));
        }
        loop {
            if let Some(next) = self.waiting.next() {
                return Ok(Some(next));
            }
            let Some(source) = self.files.get(self.next_file) else {
                return Ok(None);
            };
            self.open(source, batch)?;
            self.next_file += 1;
        }
    }

    fn open(&mut self, source: &SourceFile, batch: &mut Batch) -> Result<()> {
        let file = Arc::new(source.open()?);
        let layout = segment(source.path.as_str(), &*file)?;
        if let Some(warning) = &layout.warning {
            self.warnings.push(format!("{}: {warning}", source.path));
        }
        let file_index = self.next_file;
        let last = layout.spans.len().wrapping_sub(1);
        let place = |at| match (at == last, last == 0) {
            (true, true) => Place::Only,
            (true, false) => Place::Last,
            _ => Place::Before,
        };
        if layout.spans.is_empty() {
            batch.finished.push((file_index, Hash::of(&[])));
        }
        let spans = layout.spans.into_iter().enumerate();
        let picked = spans.map(|(at, span)| Picked {
            file_index,
            file: file.clone(),
            span,
            place: place(at),
            sketched: None,
        });
        self.waiting = picked.collect::<Vec<_>>().into_iter();
        Ok(())
    }

    /// Reads spans into the arena, each chunk hashed on the thread that read it.
    fn read_kept(&mut self, picked: Vec<Picked>, batch: &mut Batch) -> Result<()> {
        let ranges = lay_out(&picked);
        let mut arena = self.arenas.lend(ranges.last().map_or(0, |range| range.end));
        let tasks = split_tasks(&picked, arena.bytes_mut());
        let read: Vec<Read> = self
            .pool
            .install(|| tasks.into_par_iter().map(read_chunk).collect::<Result<_>>())?;
        let mut read = read.into_iter();
        for (picked, range) in picked.iter().zip(ranges) {
            let count = picked
                .span
                .length
                .div_ceil(picked.span.dtype.chunk_bytes() as u64);
            let mine = read.by_ref().take(usize::try_from(count).unwrap_or(0));
            let span = hashed(picked, mine.collect(), Some(range.clone()))?;
            if picked.place != Place::Only {
                self.file_hasher
                    .update(arena.bytes().get(range).unwrap_or_default());
            }
            self.end_span(picked, &span.digest, &mut batch.finished)?;
            batch.spans.push(span);
        }
        batch.arena = Some(arena);
        Ok(())
    }

    /// Hashes a span window by window; it is read again when it is encoded.
    fn digest_long(&mut self, picked: &Picked) -> Result<Vec<Read>> {
        let mut read = Vec::new();
        let mut offset = 0;
        while offset < picked.span.length {
            let length = (picked.span.length - offset).min(WINDOW_BYTES as u64);
            let mut window = self.arenas.lend(usize::try_from(length).unwrap_or(0));
            let window = window.bytes_mut();
            let size = picked.span.dtype.chunk_bytes();
            let tasks: Vec<_> = window
                .chunks_mut(size)
                .zip((offset..).step_by(size))
                .collect();
            let tasks = tasks.into_par_iter().map(|(target, offset)| {
                read_chunk(ReadTask {
                    picked,
                    offset,
                    target,
                })
            });
            read.extend(self.pool.install(|| tasks.collect::<Result<Vec<_>>>())?);
            if picked.place != Place::Only {
                self.file_hasher.update(window);
            }
            offset += length;
        }
        Ok(read)
    }

    /// After a file's last span, its hash is known; and it must not have changed since it was found.
    fn end_span(
        &mut self,
        picked: &Picked,
        digest: &Digest,
        finished: &mut Vec<(usize, Hash)>,
    ) -> Result<()> {
        let hash = match picked.place {
            Place::Before => return Ok(()),
            Place::Only => digest.name,
            Place::Last => Hash::from_bytes(*self.file_hasher.finalize().as_bytes()),
        };
        self.file_hasher.reset();
        finished.push((picked.file_index, hash));
        picked.file.check_unchanged()
    }
}

/// A chunk that was read.
struct Read {
    value: ChainingValue,
    part: Option<Part>,
}

fn hashed(picked: &Picked, read: Vec<Read>, kept: Option<Range<usize>>) -> Result<HashedSpan> {
    let (values, parts): (_, Vec<_>) = read.into_iter().map(|r| (r.value, r.part)).unzip();
    let digest = Digest::join(values)
        .ok_or_else(|| Error::input(picked.file.path(), "a part of the file is empty"))?;
    let sampler = picked.sampler();
    let sketch = sampler.map(|sampler| sampler.join(digest.name, parts.into_iter().flatten()));
    Ok(HashedSpan {
        file_index: picked.file_index,
        file: kept.is_none().then(|| picked.file.clone()),
        span: picked.span.clone(),
        digest,
        sketch,
        kept,
    })
}

/// Gives each span its place in the arena.
fn lay_out(picked: &[Picked]) -> Vec<Range<usize>> {
    let mut end = 0;
    let place = |picked: &Picked| {
        let start = end;
        end += usize::try_from(picked.span.length).unwrap_or(0);
        start..end
    };
    picked.iter().map(place).collect()
}

fn split_tasks<'a>(picked: &'a [Picked], arena: &'a mut [u8]) -> Vec<ReadTask<'a>> {
    let mut tasks = Vec::new();
    let mut rest = arena;
    for picked in picked {
        let (mine, later) = rest.split_at_mut(usize::try_from(picked.span.length).unwrap_or(0));
        let size = picked.span.dtype.chunk_bytes();
        let chunks = mine.chunks_mut(size).zip((0u64..).step_by(size));
        tasks.extend(chunks.map(|(target, offset)| ReadTask {
            picked,
            offset,
            target,
        }));
        rest = later;
    }
    tasks
}

fn read_chunk(task: ReadTask<'_>) -> Result<Read> {
    let span = &task.picked.span;
    task.picked
        .file
        .read_exact_at(span.start + task.offset, task.target)?;
    let value = digest_chunk(span.length, span.dtype, task.offset, task.target);
    let first = task.offset / span.dtype.size() as u64;
    let sampler = task.picked.sampler();
    Ok(Read {
        value,
        part: sampler.map(|sampler| sampler.take(first, task.target)),
    })
}
