//! `SoloRans`: floats alone, coded by the scale of their row and column.
//!
//! The format is described in `docs/codecs/solo.md`; the coder is [`crate::rans`].

use super::{ChunkView, Class, Codec, CodecError, CodecId, EncodeOptions, Workspace};
use crate::rans::{self, Chunk, Isa};

/// Codes floats without a base at the entropy of their exponents and leading mantissa bits.
///
/// For dtypes that [`rans::takes`]; a base is not looked at.
pub struct SoloRans;

impl Codec for SoloRans {
    fn id(&self) -> CodecId {
        CodecId(5)
    }

    fn name(&self) -> &'static str {
        "solo-rans"
    }

    fn class(&self) -> Class {
        Class::Solo
    }

    fn encode(
        &self,
        options: &EncodeOptions,
        view: &ChunkView<'_>,
        raw: &[u8],
        ws: &mut Workspace,
        out: &mut Vec<u8>,
    ) {
        rans::encode(
            Isa::detect(),
            options.effort,
            &chunk(view),
            raw,
            &mut ws.rans,
            out,
        );
    }

    fn decode(
        &self,
        _shared: &[u8],
        view: &ChunkView<'_>,
        payload: &[u8],
        out: &mut [u8],
        ws: &mut Workspace,
    ) -> Result<(), CodecError> {
        Ok(rans::decode(
            Isa::detect(),
            &chunk(view),
            payload,
            out,
            &mut ws.rans,
        )?)
    }
}

fn chunk(view: &ChunkView<'_>) -> Chunk<'static> {
    Chunk {
        dtype: view.dtype,
        row_len: view.row_len,
        first_element: view.first_element,
        base: None,
    }
}
