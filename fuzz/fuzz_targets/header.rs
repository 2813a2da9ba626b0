//! Any file is split into spans that tile it, whatever its header says.
//!
//! The first byte says how the rest is taken: as the file, as a header whose length is put in front, or as that and data of
//! any length, which is not there to be read.
#![no_main]

use zipllm::checkpoint::{ReadAt, segment};
use zipllm::error::{Error, Result};

/// A file of which only the beginning has bytes; the rest is long.
struct Sparse(Vec<u8>, u64);

impl ReadAt for Sparse {
    fn len(&self) -> u64 {
        self.1
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        if offset
            .checked_add(buffer.len() as u64)
            .is_none_or(|end| end > self.1)
        {
            return Err(Error::input("bytes in memory", "read past the end"));
        }
        let begin = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(self.0.len());
        let bytes = &self.0[begin..];
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        buffer[count..].fill(0);
        Ok(())
    }
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((&mode, rest)) = input.split_first() else {
        return;
    };
    let (data, rest) = rest
        .split_first_chunk::<8>()
        .map_or((0, rest), |(data, rest)| {
            // Mostly short, at times anything.
            (u64::from_le_bytes(*data) >> (mode & 63), rest)
        });
    let mut bytes = rest.to_vec();
    if mode & 64 == 0 {
        bytes = [&(rest.len() as u64).to_le_bytes()[..], rest].concat();
    }
    let length = if mode & 128 == 0 {
        bytes.len() as u64
    } else {
        data.max(bytes.len() as u64)
    };
    let layout = segment("model.safetensors", &Sparse(bytes, length)).unwrap();
    let mut end = 0;
    for span in &layout.spans {
        assert!(span.start == end && span.length > 0, "{span:?} after {end}");
        assert!(
            span.length.is_multiple_of(span.dtype.size() as u64),
            "{span:?}"
        );
        end = span.start.checked_add(span.length).unwrap();
    }
    assert_eq!(end, length);
    assert!(layout.warning.is_none_or(|warning| warning.len() < 400));
});
