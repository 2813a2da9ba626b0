//! Splits one model file into spans: which bytes are which tensor, and which are something else.
//!
//! A [`Segmenter`] knows one file format. [`segment`] asks them in the order of [`REGISTRY`]; the last
//! takes anything as one run of bytes, so no file is ever refused. Adding a format is one file and one row.

mod opaque;
mod safetensors;
mod span;

use crate::error::{Error, Result};

pub use safetensors::MAX_HEADER_BYTES;
pub use span::{Layout, Span, TensorInfo, matrix_rows};

/// Bytes at the start of a file that a segmenter sees before it claims the file.
const HEAD_BYTES: usize = 16;
/// The longest warning, in bytes; a hostile file may hold names of megabytes.
const MAX_WARNING_BYTES: usize = 300;

/// A file, or anything else that has a length and can be read at any place.
pub trait ReadAt {
    /// Returns the length in bytes.
    fn len(&self) -> u64;

    /// Tells whether there are no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// Fails if the bytes cannot be read or there are too few; `buffer` then holds anything.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()>;
}

impl ReadAt for &[u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(buffer.len())?))
            .ok_or_else(|| Error::input("bytes in memory", "read past the end"))?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

/// Why a segmenter gave up on a file.
#[derive(Debug)]
pub enum Fault {
    /// The file is not what its name or its first bytes say; the text says why.
    Format(String),
    /// The file cannot be read.
    Read(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Read(error)
    }
}

/// One file format.
pub trait Segmenter: Sync {
    /// Returns the format's name, for warnings and logs.
    fn name(&self) -> &'static str;

    /// Tells whether a file of this name, with these first bytes (at most 16), has the format.
    fn claims(&self, name: &str, head: &[u8]) -> bool;

    /// Splits a file that was claimed into spans that tile it.
    ///
    /// # Errors
    ///
    /// [`Fault::Format`] where the file breaks the format's rules, [`Fault::Read`] where it cannot be read.
    fn split(&self, input: &dyn ReadAt) -> Result<Layout, Fault>;
}

/// The formats that are understood, most particular first; the last claims every file.
pub static REGISTRY: [&dyn Segmenter; 2] = [&safetensors::Safetensors, &opaque::Opaque];

/// Splits the file `name` into spans that tile it exactly, in order.
///
/// A file that breaks its format's rules is one opaque span, with a warning that says what is wrong
/// but does not name the file.
///
/// # Errors
///
/// Fails only where `input` cannot be read.
pub fn segment(name: &str, input: &dyn ReadAt) -> Result<Layout> {
    let mut head = [0; HEAD_BYTES];
    let seen = usize::try_from(input.len()).map_or(HEAD_BYTES, |length| length.min(HEAD_BYTES));
    let head = head.get_mut(..seen).unwrap_or_default();
    input.read_at(0, head)?;
    let Some(segmenter) = REGISTRY.iter().find(|format| format.claims(name, head)) else {
        return Ok(Layout::opaque(input.len()));
    };
    let mut layout = match segmenter.split(input) {
        Ok(layout) => layout,
        Err(Fault::Read(error)) => return Err(error),
        Err(Fault::Format(reason)) => Layout {
            warning: Some(format!(
                "stored as plain bytes, not as {}: {reason}",
                segmenter.name()
            )),
            ..Layout::opaque(input.len())
        },
    };
    if let Some(warning) = &mut layout.warning {
        shorten(warning);
    }
    let fillers = layout
        .spans
        .iter()
        .skip(1)
        .filter(|span| span.tensor.is_none())
        .count();
    if fillers > 0 {
        tracing::debug!(
            file = name,
            fillers,
            "the file has bytes between or after its tensors"
        );
    }
    Ok(layout)
}

fn shorten(text: &mut String) {
    if text.len() > MAX_WARNING_BYTES {
        let mut end = MAX_WARNING_BYTES;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str("...");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of which nothing can be read from some place on.
    struct Broken<'a>(&'a [u8], u64);

    impl ReadAt for Broken<'_> {
        fn len(&self) -> u64 {
            ReadAt::len(&self.0)
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
            if offset + buffer.len() as u64 > self.1 {
                return Err(Error::input("broken", "cannot be read"));
            }
            self.0.read_at(offset, buffer)
        }
    }

    fn file() -> Vec<u8> {
        let header = br#"{"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#;
        let length = (header.len() as u64).to_le_bytes();
        [&length[..], header, &[1, 2, 3, 4]].concat()
    }

    #[test]
    fn bytes_in_memory_are_read_within_their_bounds() {
        let bytes: &[u8] = b"abcdef";
        let mut two = [0; 2];
        bytes.read_at(4, &mut two).unwrap();
        assert_eq!(&two, b"ef");
        for offset in [5, 6, 7, u64::MAX] {
            assert!(bytes.read_at(offset, &mut two).is_err(), "{offset}");
        }
        assert!(!ReadAt::is_empty(&bytes) && ReadAt::is_empty(&&b""[..]));
        assert_eq!(ReadAt::len(&bytes), 6);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error_and_not_plain_bytes() {
        let file = file();
        let whole = segment("a.safetensors", &file.as_slice()).unwrap();
        assert!(whole.warning.is_none() && whole.spans.len() == 2);
        // Not even its beginning, its header in part; its tensors are not looked at.
        for readable in [0, 15, 20] {
            assert!(segment("a.safetensors", &Broken(&file, readable)).is_err());
        }
        let header = Broken(&file, file.len() as u64 - 4);
        assert_eq!(segment("a.safetensors", &header).unwrap(), whole);
    }

    #[test]
    fn the_name_or_the_beginning_tells_the_format() {
        let file = file();
        let tensors = |name| {
            let layout = segment(name, &file.as_slice()).unwrap();
            layout
                .spans
                .iter()
                .filter(|span| span.tensor.is_some())
                .count()
        };
        assert_eq!(tensors("a.safetensors"), 1);
        let text = segment("a.txt", &&b"some text"[..]).unwrap();
        assert_eq!(text, Layout::opaque(9));
        assert_eq!(segment("a.txt", &&b""[..]).unwrap().spans.len(), 0);
    }

    #[test]
    fn long_warnings_are_cut_between_characters() {
        for front in 0..4 {
            let mut text = "x".repeat(front) + &"\u{20AC}".repeat(200);
            let whole = text.clone();
            shorten(&mut text);
            let kept = text.strip_suffix("...").unwrap();
            assert!(whole.starts_with(kept));
            assert!((MAX_WARNING_BYTES - 2..=MAX_WARNING_BYTES).contains(&kept.len()));
        }
        let mut short = "x".repeat(MAX_WARNING_BYTES);
        shorten(&mut short);
        assert_eq!(short.len(), MAX_WARNING_BYTES);
    }
}
