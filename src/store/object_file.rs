//! `ObjectFile`: one object on the disk, opened.

use std::io;
use std::path::Path;

use super::fs::ReadFile;
use super::object::{self, Frame, FrameError, Head, MAX_HEAD};
use crate::error::{Error, Result};
use crate::hash::Hash;

/// An object's file, opened, with its frame known to be whole and to belong to its name.
pub struct ObjectFile {
    /// The object's name.
    pub name: Hash,
    /// All but the shared section and the payloads.
    pub frame: Frame,
    /// Where each payload begins in the file.
    offsets: Vec<u64>,
    file: Box<dyn ReadFile>,
}

impl ObjectFile {
    /// Reads head and table of an opened file, and checks them.
    pub(super) fn read(name: &Hash, file: Box<dyn ReadFile>, path: &Path) -> Result<Self> {
        let io_error = || Error::io("read", path);
        let refuse = |error| match error {
            FrameError::Corrupt(reason) => Error::corrupt(name, reason),
            FrameError::Newer(what) => Error::Newer {
                path: path.to_path_buf(),
                what,
            },
        };
        let len = file.len().map_err(io_error())?;
        let mut bytes = vec![0; MAX_HEAD.min(usize::try_from(len).unwrap_or(MAX_HEAD))];
        file.read_exact_at(&mut bytes, 0).map_err(io_error())?;
        let head = Head::parse(&bytes).map_err(refuse)?;
        let tail_len = head.tail_len();
        let tail_start = len
            .checked_sub(tail_len)
            .ok_or_else(|| Error::corrupt(name, "cut short"))?;
        let mut tail = vec![0; usize::try_from(tail_len).unwrap_or(0)];
        file.read_exact_at(&mut tail, tail_start)
            .map_err(io_error())?;
        let frame = Frame::parse_tail(name, head, &tail, len).map_err(refuse)?;
        let mut next = frame.payload_start();
        let offsets = frame.chunks.iter().map(|chunk| {
            let start = next;
            next += u64::from(chunk.encoded_len);
            start
        });
        let offsets = offsets.collect();
        Ok(Self {
            name: *name,
            frame,
            offsets,
            file,
        })
    }

    /// Bytes of the payload of a chunk; 0 where there is no such chunk.
    pub fn payload_len(&self, chunk: u64) -> usize {
        let at = usize::try_from(chunk).unwrap_or(usize::MAX);
        let entry = self.frame.chunks.get(at);
        entry.map_or(0, |entry| entry.encoded_len as usize)
    }

    /// Reads the payload of a chunk into `out`, which has to have its length.
    pub fn read_payload(&self, chunk: u64, out: &mut [u8]) -> Result<()> {
        let at = usize::try_from(chunk).unwrap_or(usize::MAX);
        match self.offsets.get(at) {
            Some(offset) => self.read_at(out, *offset),
            None => Err(Error::corrupt(
                &self.name,
                format!("there is no chunk {chunk}"),
            )),
        }
    }

    /// Reads the shared section and checks it against its checksum.
    pub fn read_shared(&self) -> Result<Vec<u8>> {
        let mut shared = vec![0; usize::try_from(self.frame.head.shared_len).unwrap_or(0)];
        if shared.is_empty() {
            return Ok(shared);
        }
        self.read_at(&mut shared, self.frame.head.encoded_len() as u64)?;
        if object::checksum(&shared) != self.frame.shared_checksum {
            return Err(Error::corrupt(&self.name, "the shared section is damaged"));
        }
        Ok(shared)
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> Result<()> {
        self.file
            .read_exact_at(out, offset)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => Error::corrupt(&self.name, "cut short"),
                _ => Error::corrupt(&self.name, format!("cannot be read: {error}")),
            })
    }
}
