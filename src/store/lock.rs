//! The writers' lock: the kernel's advisory lock on one file, gone with the process that holds it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};

/// Held for as long as a process writes to a store.
#[derive(Debug)]
pub struct WriteLock {
    _file: File,
}

impl WriteLock {
    /// Takes the lock of the store at `store`, or says who holds it.
    pub fn take(path: &Path, store: &Path) -> Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(Error::io("open the lock", path))?;
        match file.try_lock() {
            Ok(()) => {}
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
            let started = since.parse().unwrap_or(0);
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |age| age.as_secs());
            format!(
                "process {pid} on {host}, for {} s",
                now.saturating_sub(started)
            )
        }
        [pid, since] => format!("process {pid} since {since}"),
        _ => "another process".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_writer_is_told_who_holds_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = WriteLock::take(&path, dir.path()).unwrap();
        let refused = WriteLock::take(&path, dir.path()).unwrap_err().to_string();
        assert!(
            refused.contains(&format!("process {}", std::process::id())),
            "{refused}"
        );
        drop(held);
        assert!(WriteLock::take(&path, dir.path()).is_ok());
    }
}
