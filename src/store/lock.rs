//! The locks of a store: kernel locks (flock) on two files, gone with the processes that hold them.
//!
//! `lock` is held by the one writer. `readers` is shared by all that read; whoever deletes objects takes it
//! alone for a moment first, so that nobody is left who read a manifest that has been removed since.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::fs::lock_file;
use crate::error::{Error, NOTICE, Result};

/// Held for as long as a process writes to a store.
#[derive(Debug)]
pub struct WriteLock {
    _file: File,
}

/// A share of the readers' lock, or, from [`ReadLock::alone`], all of it.
#[derive(Debug)]
pub struct ReadLock {
    _file: File,
}

impl WriteLock {
    /// Takes the lock of the store at `store`; where it is held, waits if told to, or says by whom.
    pub fn take(path: &Path, store: &Path, wait: bool) -> Result<Self> {
        let mut file = open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) if wait => {
                tell_waiting(&holder(&mut file));
                file.lock().map_err(Error::io("lock", path))?;
            }
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Locked {
                    path: store.to_path_buf(),
                    holder: holder(&mut file),
                });
            }
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", path)(error)),
        }
        // Only a hint for people; a failure to leave it is no reason to stop.
        let _ = describe(&mut file);
        Ok(Self { _file: file })
    }
}

impl ReadLock {
    /// Takes a share. `None` where the store has no such lock, or it cannot be opened: then nobody deletes.
    pub fn share(path: &Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        file.lock_shared().ok()?;
        Some(Self { _file: file })
    }

    /// Takes the whole lock; where others read, waits for them if told to, or says that they do.
    pub fn alone(path: &Path, store: &Path, wait: bool) -> Result<Self> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) if wait => {
                tell_waiting(&readers(&file));
                file.lock().map_err(Error::io("lock", path))?;
            }
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Locked {
                    path: store.to_path_buf(),
                    holder: readers(&file),
                });
            }
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", path)(error)),
        }
        Ok(Self { _file: file })
    }
}

/// A wait may be long: whoever runs the program should know for whom.
fn tell_waiting(holder: &str) {
    let holder = holder.escape_debug();
    tracing::warn!(target: NOTICE, "waiting for {holder}");
}

/// Makes a lock's file where there is none.
pub fn open(path: &Path) -> Result<File> {
    lock_file(path).map_err(Error::io("open the lock", path))
}

fn describe(file: &mut File) -> std::io::Result<()> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |age| age.as_secs());
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{} {} {since}", std::process::id(), host.trim())
}

/// Says in words who left their mark in the lock file.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let _ = file.take(4096).read_to_string(&mut text);
    let parts: Vec<_> = text.split_whitespace().collect();
    match parts.as_slice() {
        [pid, host, since] => {
            let since = since.parse().map_or_else(|_| "?".into(), utc);
            format!("process {pid} on {host}, since {since}")
        }
        [pid, since] => format!(
            "process {pid} since {}",
            since.parse().map_or_else(|_| "?".into(), utc)
        ),
        _ => "another process".into(),
    }
}

/// Says in words who shares a lock, where the system tells (Linux).
fn readers(file: &File) -> String {
    let inode = file.metadata().map_or(0, |meta| meta.ino());
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let end = format!(":{inode}");
    let pid = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "READ", pid, place, ..] = *words.as_slice() else {
            return None;
        };
        place.ends_with(&end).then(|| pid.to_owned())
    };
    match locks.lines().filter_map(pid).collect::<Vec<_>>().as_slice() {
        [] => "somebody who reads it".into(),
        [pid] => format!("process {pid}, which reads it"),
        pids => format!("processes {}, which read it", pids.join(", ")),
    }
}

/// Writes seconds since 1970 as a date and a time (the days by Howard Hinnant's `civil_from_days`).
fn utc(seconds: u64) -> String {
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_writer_is_told_who_holds_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = WriteLock::take(&path, dir.path(), false).unwrap();
        let refused = WriteLock::take(&path, dir.path(), false)
            .unwrap_err()
            .to_string();
        let holder = format!("process {} on ", std::process::id());
        assert!(refused.contains(&holder), "{refused}");
        assert!(refused.contains(", since 2"), "{refused}");
        drop(held);
        assert!(WriteLock::take(&path, dir.path(), false).is_ok());
    }

    #[test]
    fn who_waits_gets_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = WriteLock::take(&path, dir.path(), false).unwrap();
        let (taken, told) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let lock = WriteLock::take(&path, dir.path(), true);
                taken.send(lock.is_ok()).unwrap();
            });
            let early = told.recv_timeout(std::time::Duration::from_millis(100));
            assert!(early.is_err(), "it did not wait");
            drop(held);
            assert!(told.recv().unwrap());
        });
    }

    #[test]
    fn readers_share_and_keep_others_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("readers");
        assert!(ReadLock::share(&path).is_none());
        open(&path).unwrap();
        let first = ReadLock::share(&path).unwrap();
        let second = ReadLock::share(&path).unwrap();
        drop(first);
        let refused = ReadLock::alone(&path, dir.path(), false)
            .unwrap_err()
            .to_string();
        let pid = std::process::id();
        assert!(
            refused.contains(&format!("process {pid}, which reads it")),
            "{refused}"
        );
        drop(second);
        assert!(ReadLock::alone(&path, dir.path(), false).is_ok());
    }

    #[test]
    fn times_are_dates() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59:59 UTC"),
            (1_709_251_200, "2024-03-01 00:00:00 UTC"),
            (4_102_444_800, "2100-01-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(seconds), text);
        }
    }
}
