//! Byte buffers that threads lend each other, so that their pages are used again.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Byte buffers lent to whichever thread needs one.
#[derive(Default)]
pub struct BufferPool(Mutex<Vec<Vec<u8>>>);

impl BufferPool {
    /// Runs `work` with a buffer of `length` bytes of any content.
    pub fn with<T>(&self, length: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
        self.with_any(|buffer| work(at_least(buffer, length)))
    }

    /// Runs `work` with a buffer of any length and content.
    pub fn with_any<T>(&self, work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let mut buffer = self.take();
        let result = work(&mut buffer);
        self.give_back(buffer);
        result
    }

    /// Takes a buffer of any length and content out of the pool.
    pub fn take(&self) -> Vec<u8> {
        self.lock().pop().unwrap_or_default()
    }

    /// Puts a buffer back, for whoever needs one next.
    pub fn give_back(&self, buffer: Vec<u8>) {
        self.lock().push(buffer);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first `length` bytes of a buffer. It is never made shorter: what is cut off would have to be set to 0 again.
pub fn at_least(buffer: &mut Vec<u8>, length: usize) -> &mut [u8] {
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
    buffer.get_mut(..length).unwrap_or_default()
}

/// Bytes from which on a buffer of an [`Appender`] takes nothing more: what threads that append little have in memory
/// from the time when they appended much is bounded by it.
const FULL: usize = 4 << 20;

/// Takes what several threads make, each in a buffer that is its own meanwhile, so that nothing is copied.
#[derive(Default)]
pub struct Appender(Mutex<Buffers>);

#[derive(Default)]
struct Buffers {
    /// Those that nobody appends to now, with their numbers.
    idle: Vec<(usize, Vec<u8>)>,
    full: Vec<(usize, Vec<u8>)>,
    /// Empty ones without a number.
    spare: Vec<Vec<u8>>,
    numbered: usize,
}

/// Where appended bytes lie.
#[derive(Debug)]
pub struct Place {
    buffer: usize,
    range: Range<usize>,
}

/// All that was appended.
pub struct Appended(Vec<Vec<u8>>);

impl Appender {
    /// An empty one that uses the memory of `spare`.
    pub fn new(spare: Vec<Vec<u8>>) -> Self {
        Self(Mutex::new(Buffers {
            spare,
            ..Buffers::default()
        }))
    }

    /// Runs `work`, which may append to the buffer and change nothing else of it; returns where what it appended is.
    pub fn append<T>(&self, work: impl FnOnce(&mut Vec<u8>) -> T) -> (T, Place) {
        let (buffer, mut bytes) = self.lock().take();
        let start = bytes.len();
        let result = work(&mut bytes);
        let range = start..bytes.len();
        let mut buffers = self.lock();
        if bytes.len() < FULL {
            buffers.idle.push((buffer, bytes));
        } else {
            buffers.full.push((buffer, bytes));
        }
        (result, Place { buffer, range })
    }

    /// Ends the appending.
    pub fn finish(self) -> Appended {
        let mut buffers = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut all = buffers.idle;
        all.append(&mut buffers.full);
        all.sort_by_key(|(number, _)| *number);
        let unused = buffers.spare.into_iter();
        Appended(
            all.into_iter()
                .map(|(_, bytes)| bytes)
                .chain(unused)
                .collect(),
        )
    }

    fn lock(&self) -> MutexGuard<'_, Buffers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buffers {
    fn take(&mut self) -> (usize, Vec<u8>) {
        self.idle.pop().unwrap_or_else(|| {
            let number = self.numbered;
            self.numbered += 1;
            (number, self.spare.pop().unwrap_or_default())
        })
    }
}

impl Appended {
    /// The bytes at a place.
    pub fn get(&self, place: &Place) -> &[u8] {
        let buffer = self.0.get(place.buffer);
        let bytes = buffer.and_then(|bytes| bytes.get(place.range.clone()));
        bytes.unwrap_or_default()
    }

    /// The buffers, emptied, to be used again.
    pub fn into_spare(self) -> Vec<Vec<u8>> {
        let mut buffers = self.0;
        buffers.iter_mut().for_each(Vec::clear);
        buffers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_append_is_found_again() {
        let mut spare = vec![Vec::with_capacity(10)];
        for round in 0..3usize {
            let appender = Appender::new(spare);
            let part = |number: usize| {
                vec![u8::try_from(number + round).unwrap(); (number * 7919) % (FULL / 8)]
            };
            let places: Vec<_> = std::thread::scope(|scope| {
                let append = |thread: usize| {
                    let numbers = (thread..100).step_by(4);
                    let one = |number| appender.append(|out| out.extend(part(number))).1;
                    numbers
                        .map(|number| (number, one(number)))
                        .collect::<Vec<_>>()
                };
                let workers: Vec<_> = (0..4)
                    .map(|thread| scope.spawn(move || append(thread)))
                    .collect();
                let joined = workers
                    .into_iter()
                    .flat_map(|worker| worker.join().unwrap());
                joined.collect()
            });
            let appended = appender.finish();
            for (number, place) in &places {
                assert!(appended.get(place) == part(*number), "{number}");
            }
            spare = appended.into_spare();
            assert!(spare.iter().all(Vec::is_empty));
            // None grows beyond what is full and one more.
            assert!(spare.iter().all(|buffer| buffer.capacity() <= 4 * FULL));
        }
    }
}
