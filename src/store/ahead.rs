//! Files are synced in threads of their own from when they are written, so that a barrier waits for the last of them only.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::fs::WriteFile;

/// Files synced at a time: a file system writes its journal once for many.
pub(super) const SYNC_THREADS: usize = 8;

/// Threads that sync files; begun with the first one, ended when dropped, after the last.
#[derive(Default)]
pub(super) struct Ahead {
    queue: Option<Sender<Job>>,
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
            self.threads.extend(thread::Builder::new().spawn(work).ok());
        }
        self.queue = (!self.threads.is_empty()).then_some(queue);
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        drop(self.queue.take());
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

    /// A file that counts how often any was synced, and fails if it is told to.
    struct Counted(Arc<AtomicUsize>, bool);

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
            thread::yield_now();
            self.0.fetch_add(1, Ordering::SeqCst);
            if self.1 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        }
    }

    #[test]
    fn each_file_tells_of_its_own_sync() {
        let synced = Arc::new(AtomicUsize::new(0));
        let mut ahead = Ahead::default();
        let files = (0..100).map(|i| (i, Box::new(Counted(synced.clone(), i % 7 == 3))));
        let files: Vec<_> = files.map(|(i, file)| (i, ahead.sync(file))).collect();
        for (i, file) in files {
            assert_eq!(file.wait().is_err(), i % 7 == 3, "{i}");
        }
        assert_eq!(synced.load(Ordering::SeqCst), 100);
    }

    #[test]
    fn files_that_nobody_waits_for_are_synced_before_the_threads_end() {
        let synced = Arc::new(AtomicUsize::new(0));
        let mut ahead = Ahead::default();
        for _ in 0..50 {
            drop(ahead.sync(Box::new(Counted(synced.clone(), false))));
        }
        drop(ahead);
        assert_eq!(synced.load(Ordering::SeqCst), 50);
    }
}
