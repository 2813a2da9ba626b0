//! Memory for batches: bounded, and kept from batch to batch and from model to model, for the page faults of new memory
//! were a tenth of the time of storing.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::batch::MAX_KEPT;
use crate::buffers::at_least;

/// Bytes that all arenas have together: room for two of the longest.
const MOST: usize = 2 * (64 << 20);
const _: () = assert!(MOST as u64 == 2 * MAX_KEPT);

/// Lends memory to batches.
#[derive(Default)]
pub struct Arenas {
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Default)]
struct State {
    /// Bytes of those that are lent.
    lent: usize,
    idle: Vec<Vec<u8>>,
}

/// Memory of one batch; it goes back when it is dropped.
pub struct Arena {
    bytes: Vec<u8>,
    length: usize,
    home: Arc<Arenas>,
}

impl Arenas {
    /// Lends `length` bytes of any content, as soon as there is room for them beside what is lent.
    pub fn lend(self: &Arc<Self>, length: usize) -> Arena {
        let mut state = self.lock();
        while state.lent > 0 && state.lent + length > MOST {
            let waited = self.returned.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        let mut bytes = state.take(length);
        bytes.reserve_exact(length.saturating_sub(bytes.len()));
        state.lent += bytes.capacity();
        drop(state);
        at_least(&mut bytes, length);
        let home = self.clone();
        Arena {
            bytes,
            length,
            home,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The smallest arena that is long enough, else the longest; what is too much beside it is freed.
    fn take(&mut self, length: usize) -> Vec<u8> {
        self.idle.sort_unstable_by_key(Vec::capacity);
        let fitting = self.idle.iter().position(|idle| idle.capacity() >= length);
        let bytes = match fitting {
            Some(at) => self.idle.remove(at),
            None => self.idle.pop().unwrap_or_default(),
        };
        let needed = self.lent + bytes.capacity().max(length);
        while needed + self.idle.iter().map(Vec::capacity).sum::<usize>() > MOST
            && self.idle.pop().is_some()
        {}
        bytes
    }
}

impl Arena {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// The bytes, to be filled.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.length).unwrap_or_default()
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut state = self.home.lock();
        state.lent -= bytes.capacity();
        state.idle.push(bytes);
        drop(state);
        self.home.returned.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    fn held(arenas: &Arenas) -> usize {
        let state = arenas.lock();
        state.lent + state.idle.iter().map(Vec::capacity).sum::<usize>()
    }

    #[test]
    fn memory_is_used_again_and_bounded() {
        let arenas = Arc::new(Arenas::default());
        let lengths = [
            1usize,
            1000,
            MOST / 2,
            70,
            MOST / 3,
            MOST / 2,
            0,
            MOST / 4,
            9,
        ];
        for (round, length) in lengths.iter().cycle().take(40).enumerate() {
            let mut first = arenas.lend(*length);
            let second = arenas.lend(length / 2);
            assert_eq!(first.bytes_mut().len(), *length);
            assert_eq!(second.bytes().len(), length / 2);
            assert!(held(&arenas) <= MOST, "round {round}");
        }
        let kept = arenas.lend(MOST / 2);
        let place = kept.bytes().as_ptr();
        drop(kept);
        assert_eq!(arenas.lend(MOST / 2).bytes().as_ptr(), place);
    }

    #[test]
    fn one_that_is_too_much_waits_for_another_to_go_back() {
        let arenas = Arc::new(Arenas::default());
        let (first, second) = (arenas.lend(MOST / 2), arenas.lend(MOST / 2));
        let (send, lent) = channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let third = arenas.lend(10);
                send.send(()).unwrap();
                drop(third);
            });
            assert!(lent.recv_timeout(Duration::from_millis(50)).is_err());
            drop(first);
            lent.recv().unwrap();
        });
        drop(second);
        assert_eq!(arenas.lock().lent, 0);
        // One that is longer than all may be is lent alone.
        assert_eq!(arenas.lend(MOST + 1).bytes().len(), MOST + 1);
    }
}
