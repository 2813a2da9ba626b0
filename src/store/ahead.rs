//! Files are synced in threads of their own from when they are written, so that a barrier waits for the last of them only.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::fs::WriteFile;

/// Files synced at a time: a file system writes its journal once for many.
pub(super) const SYNC_THREADS: usize = 8;

/// Threads that sync files; begun with the first one. When dropped, what waits is closed unsynced, as nobody will name it.
#[derive(Default)]
pub(super) struct Ahead {
    queue: Option<Sender<Job>>,
    waiting: Option<Arc<Mutex<Receiver<Job>>>>,
    threads: Vec<JoinHandle<()>>,
}

struct Job {
    file: Box<dyn WriteFile>,
    done: Sender<io::Result<()>>,
}

/// A file that is being synced; behind a lock only because writers are shared between threads.
pub(super) struct Syncing(Mutex<Receiver<io::Result<()>>>);

impl Syncing {
    /// Waits until the file is durable, or is known not to be.
    pub(super) fn wait(&self) -> io::Result<()> {
        let died = |_| Err(io::Error::other("the thread that was to sync it died"));
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.recv().unwrap_or_else(died)
    }
}

impl Job {
    fn run(mut self) {
        let synced = self.file.sync();
        // Closed before that is told, so that no more files are open than are known of.
        drop(self.file);
        // Nobody waits for it where the writer gave up.
        let _ = self.done.send(synced);
    }
}

impl Ahead {
    /// Has a file synced and closed.
    pub(super) fn sync(&mut self, file: Box<dyn WriteFile>) -> Syncing {
        if self.queue.is_none() {
            self.begin();
        }
        let (done, told) = channel();
        let job = Job { file, done };
        let left = match &self.queue {
            Some(queue) => queue.send(job).err().map(|refused| refused.0),
            None => Some(job),
        };
        // Without threads it is done here.
        if let Some(job) = left {
            job.run();
        }
        Syncing(Mutex::new(told))
    }

    fn begin(&mut self) {
        let (queue, jobs) = channel::<Job>();
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..SYNC_THREADS {
            let jobs = jobs.clone();
            let next = move || jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let work = move || {
                while let Ok(job) = next() {
                    job.run();
                }
            };
            let thread = thread::Builder::new().name("sync".into()).spawn(work);
            self.threads.extend(thread.ok());
        }
        self.waiting = Some(jobs);
        self.queue = (!self.threads.is_empty()).then_some(queue);
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        // Threads that wait for more let go of the queue first.
        drop(self.queue.take());
        if let Some(waiting) = self.waiting.take() {
            let waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            while waiting.try_recv().is_ok() {}
        }
        for thread in self.threads.drain(..) {
            // One that panicked has left its file unsynced, which is known.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Counts {
        synced: AtomicUsize,
        closed: AtomicUsize,
    }

    /// A file that counts how often any was synced and closed.
    struct Counted {
        counts: Arc<Counts>,
        fails: bool,
        /// So many files are closed before its sync ends, unless that takes for ever.
        after: usize,
    }

    impl Write for Counted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl WriteFile for Counted {
        fn sync(&mut self) -> io::Result<()> {
            let closed = || self.counts.closed.load(Ordering::SeqCst);
            let mut patience = 2_000_000;
            while closed() < self.after && patience > 0 {
                patience -= 1;
                thread::yield_now();
            }
            self.counts.synced.fetch_add(1, Ordering::SeqCst);
            if self.fails {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.counts.closed.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn each_file_tells_of_its_own_sync_once_it_is_closed() {
        let counts = Arc::new(Counts::default());
        let mut ahead = Ahead::default();
        let files = (0..100).map(|i| {
            let file = Counted {
                counts: counts.clone(),
                fails: i % 7 == 3,
                after: 0,
            };
            (i, ahead.sync(Box::new(file)))
        });
        for (waited, (i, file)) in files.collect::<Vec<_>>().into_iter().enumerate() {
            assert_eq!(file.wait().is_err(), i % 7 == 3, "{i}");
            assert!(counts.closed.load(Ordering::SeqCst) > waited);
        }
        assert_eq!(counts.synced.load(Ordering::SeqCst), 100);
    }

    #[test]
    fn files_that_wait_when_the_writer_gives_up_are_closed_unsynced() {
        let counts = Arc::new(Counts::default());
        let mut ahead = Ahead::default();
        for _ in 0..50 {
            // None ends before those are closed that no thread has taken up.
            let file = Counted {
                counts: counts.clone(),
                fails: false,
                after: 50 - SYNC_THREADS,
            };
            drop(ahead.sync(Box::new(file)));
        }
        drop(ahead);
        assert!(counts.synced.load(Ordering::SeqCst) <= SYNC_THREADS);
        assert_eq!(counts.closed.load(Ordering::SeqCst), 50);
    }
}
