//! Byte buffers that threads lend each other, so that their pages are used again.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Byte buffers lent to whichever thread needs one.
#[derive(Default)]
pub struct BufferPool(Mutex<Vec<Vec<u8>>>);

impl BufferPool {
    /// Runs `work` with a buffer of `length` bytes of any content.
    pub fn with<T>(&self, length: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
        self.with_any(|buffer| {
            // Never made shorter: what is cut off would have to be set to 0 when it is wanted again.
            if buffer.len() < length {
                buffer.resize(length, 0);
            }
            work(buffer.get_mut(..length).unwrap_or_default())
        })
    }

    /// Runs `work` with a buffer of any length and content.
    pub fn with_any<T>(&self, work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let mut buffer = self.lock().pop().unwrap_or_default();
        let result = work(&mut buffer);
        self.lock().push(buffer);
        result
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
