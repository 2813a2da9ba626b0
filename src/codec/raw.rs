//! `Raw`: the bytes themselves.

use super::{ChunkView, Class, Codec, CodecError, EncodeOptions, Head, Prepared, Workspace};

/// The codec whose payload is the chunk.
pub struct Raw;

impl Codec for Raw {
    fn head(&self) -> Head {
        Head::new(0, "raw", Class::Plain)
    }

    fn encode(
        &self,
        _: &EncodeOptions,
        _: &ChunkView<'_>,
        raw: &[u8],
        _: &mut Workspace,
        out: &mut Vec<u8>,
    ) {
        out.extend_from_slice(raw);
    }

    fn decode(
        &self,
        _: &Prepared,
        _: &ChunkView<'_>,
        payload: &[u8],
        out: &mut [u8],
        _: &mut Workspace,
    ) -> Result<(), CodecError> {
        match payload.len().cmp(&out.len()) {
            std::cmp::Ordering::Less => Err(CodecError::Truncated),
            std::cmp::Ordering::Greater => Err(CodecError::Trailing),
            std::cmp::Ordering::Equal => {
                out.copy_from_slice(payload);
                Ok(())
            }
        }
    }
}
