//! `Zstd`: one zstd frame of the whole chunk.

use super::workspace::Effort;
use super::{ChunkView, Class, Codec, CodecError, EncodeOptions, Head, Prepared, Workspace};

/// The codec whose payload is one zstd frame (RFC 8878) of the chunk.
pub struct Zstd;

impl Codec for Zstd {
    fn head(&self) -> Head {
        Head::new(1, "zstd", Class::Plain)
    }

    fn encode(
        &self,
        options: &EncodeOptions,
        _: &ChunkView<'_>,
        raw: &[u8],
        ws: &mut Workspace,
        out: &mut Vec<u8>,
    ) {
        ws.zstd
            .compress(Effort::Level(options.zstd_level), raw, out);
    }

    fn decode(
        &self,
        _: &Prepared,
        _: &ChunkView<'_>,
        payload: &[u8],
        out: &mut [u8],
        ws: &mut Workspace,
    ) -> Result<(), CodecError> {
        ws.zstd.decompress(payload, out)
    }
}
