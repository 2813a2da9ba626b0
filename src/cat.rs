//! Cat: one file, one tensor or a range of bytes, of which only the chunks needed are read and decoded.

use std::fmt;
use std::io::Write;
use std::path::Path;
use std::str::FromStr;

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::name::RelPath;
use crate::nearest::nearest;
use crate::object_reader::ObjectReader;
use crate::store::Store;
use crate::store::manifest::{FileEntry, Manifest, Segment};
use crate::threads;

/// What is wanted of a model.
#[derive(Clone, Debug)]
pub struct Selection {
    /// The file.
    pub path: RelPath,
    /// The tensor, or else the whole file.
    pub tensor: Option<String>,
    /// The bytes of it, or else all.
    pub range: Option<ByteRange>,
}

/// A range of bytes, both ends included, as in HTTP: `A-B`, `A-` to the end, `-N` for the last N.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// From a byte, to another or to the end.
    From(u64, Option<u64>),
    /// So many at the end.
    Last(u64),
}

impl FromStr for ByteRange {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::Name {
            name: text.to_owned(),
            reason: "a range is A-B (both included), A- or -N".into(),
        };
        // A sign is no digit.
        let number = |digits: &str| {
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            let number = digits.parse::<u64>().ok().filter(|_| plain);
            number.ok_or_else(bad)
        };
        match text.split_once('-').ok_or_else(bad)? {
            ("", last) => Ok(Self::Last(number(last)?)),
            (first, "") => Ok(Self::From(number(first)?, None)),
            (first, last) => match (number(first)?, number(last)?) {
                (first, last) if first <= last => Ok(Self::From(first, Some(last))),
                _ => Err(bad()),
            },
        }
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::From(first, Some(last)) => write!(f, "{first}-{last}"),
            Self::From(first, None) => write!(f, "{first}-"),
            Self::Last(count) => write!(f, "-{count}"),
        }
    }
}

impl ByteRange {
    /// Returns the first byte and the end (not included) within `length` bytes; `None` if it begins after them.
    fn within(self, length: u64) -> Option<(u64, u64)> {
        match self {
            Self::Last(count) => Some((length.saturating_sub(count), length)),
            Self::From(first, _) if first > length || first == length && length > 0 => None,
            Self::From(first, last) => {
                let end = last.map_or(length, |last| last.saturating_add(1).min(length));
                Some((first, end))
            }
        }
    }
}

/// A part of an object's chunk.
struct Piece<'a> {
    segment: &'a Segment,
    chunk: u64,
    /// Bytes of the chunk before those that are wanted, and up to their end.
    skip: u64,
    end: u64,
}

/// Writes what is selected of a model to `out`, every byte verified before it is written.
///
/// Returns the number of bytes. At most two chunks a thread are held at a time.
///
/// # Errors
/// `Name` where there is no such file, tensor or range; what was written before a damaged chunk is right.
pub fn run(
    store: &Store,
    manifest: &Manifest,
    selection: &Selection,
    threads: usize,
    out: &mut dyn Write,
) -> Result<u64> {
    let segments = select(manifest, selection)?;
    let length = segments.iter().map(|segment| segment.length).sum();
    let (start, end) = match selection.range {
        None => (0, length),
        Some(range) => range.within(length).ok_or_else(|| Error::Name {
            name: range.to_string(),
            reason: format!("there are only {length} bytes"),
        })?,
    };
    let pool = threads::pool(threads, store.layout().root())?;
    let reader = ObjectReader::new(store.clone());
    let pieces = cut(&reader, segments, start, end)?;
    for some in pieces.chunks(2 * threads.max(1)) {
        let read = || some.par_iter().map(|piece| piece.read(&reader));
        let parts = pool.install(|| read().collect::<Result<Vec<_>>>());
        for part in parts.map_err(|error| damaged(manifest, selection, error))? {
            let written = out.write_all(&part);
            written.map_err(Error::io("write to", Path::new("the output")))?;
        }
    }
    out.flush()
        .map_err(Error::io("write to", Path::new("the output")))?;
    Ok(end - start)
}

fn damaged(manifest: &Manifest, selection: &Selection, error: Error) -> Error {
    Error::Damaged {
        file: format!("{}: {}", manifest.model, selection.path),
        source: Box::new(error),
    }
}

/// The segments that are wanted: a tensor's, or all of a file's.
fn select<'a>(manifest: &'a Manifest, selection: &Selection) -> Result<&'a [Segment]> {
    let files = &manifest.files;
    let Some(file) = files.iter().find(|file| file.path == selection.path) else {
        let known = files.iter().map(|file| file.path.as_str());
        let place = format!("file in {}@{}", manifest.model, manifest.version);
        return Err(unknown(&place, selection.path.as_str(), known));
    };
    let Some(name) = &selection.tensor else {
        return Ok(&file.segments);
    };
    let is_wanted = |segment: &Segment| segment.tensor.as_ref().is_some_and(|t| t.name == *name);
    let at = file.segments.iter().position(is_wanted);
    at.and_then(|at| file.segments.get(at..=at))
        .ok_or_else(|| match tensors(file).next() {
            Some(_) => unknown(&format!("tensor in {}", file.path), name, tensors(file)),
            None => Error::Name {
                name: file.path.to_string(),
                reason: "it is not stored as tensors: only safetensors files are".into(),
            },
        })
}

fn tensors(file: &FileEntry) -> impl Iterator<Item = &str> {
    let tensors = file
        .segments
        .iter()
        .filter_map(|segment| segment.tensor.as_ref());
    tensors.map(|tensor| tensor.name.as_str())
}

fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Error {
    let near = nearest(name, known);
    let hint = if near.is_empty() {
        "; `zipllm list` with the model shows what there is".to_owned()
    } else {
        format!("; did you mean {}?", near.join(" or "))
    };
    Error::Name {
        name: name.to_owned(),
        reason: format!("there is no such {what}{hint}"),
    }
}

/// Cuts the bytes from `start` to `end` of all segments at the borders of chunks.
fn cut<'a>(
    reader: &ObjectReader,
    segments: &'a [Segment],
    start: u64,
    end: u64,
) -> Result<Vec<Piece<'a>>> {
    let (mut pieces, mut place) = (Vec::new(), 0u64);
    for segment in segments {
        let from = start.saturating_sub(place).min(segment.length);
        let to = end.saturating_sub(place).min(segment.length);
        place = place.saturating_add(segment.length);
        if from >= to {
            continue;
        }
        let object = reader.open(&segment.object)?;
        let head = &object.file.frame.head;
        if head.raw_len != segment.length {
            let reason = format!(
                "has {} bytes where the manifest says {}",
                head.raw_len, segment.length
            );
            return Err(Error::corrupt(&segment.object, reason));
        }
        let size = head.dtype.chunk_bytes() as u64;
        for chunk in from / size..to.div_ceil(size) {
            let first = chunk * size;
            pieces.push(Piece {
                segment,
                chunk,
                skip: from.saturating_sub(first),
                end: (to - first).min(size),
            });
        }
    }
    Ok(pieces)
}

impl Piece<'_> {
    fn read(&self, reader: &ObjectReader) -> Result<Vec<u8>> {
        let name = &self.segment.object;
        let (_, length) = reader.open(name)?.file.frame.head.chunk_range(self.chunk);
        let mut bytes = vec![0; length];
        reader.read_chunk(name, self.chunk, &mut bytes)?;
        bytes.truncate(usize::try_from(self.end).unwrap_or(usize::MAX));
        bytes.drain(..usize::try_from(self.skip).unwrap_or(0).min(bytes.len()));
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_http() {
        for (text, length, found) in [
            ("0-0", 10, Some((0, 1))),
            ("2-5", 10, Some((2, 6))),
            ("2-99", 10, Some((2, 10))),
            ("2-", 10, Some((2, 10))),
            ("-3", 10, Some((7, 10))),
            ("-99", 10, Some((0, 10))),
            ("10-", 10, None),
            ("11-12", 10, None),
            ("0-18446744073709551615", 10, Some((0, 10))),
            ("0-", 0, Some((0, 0))),
        ] {
            let range: ByteRange = text.parse().unwrap();
            assert_eq!(range.within(length), found, "{text}");
            assert_eq!(range.to_string(), text);
        }
        for bad in [
            "",
            "-",
            "5",
            "5-2",
            "a-b",
            "+1-2",
            "1-+2",
            "1--2",
            "1-2-3",
            "18446744073709551616-",
        ] {
            assert!(bad.parse::<ByteRange>().is_err(), "{bad}");
        }
    }
}
