//! `Delta`: differences of floats to a base, coded by how large they are expected to be.
//!
//! The format is described in `docs/codecs/delta.md`; the coder is [`crate::rans`].

use super::{ChunkView, Class, Codec, CodecError, CodecId, EncodeOptions, Workspace};
use crate::rans::{self, Chunk, Isa};

/// Codes what a fine-tune changed in its base: differences in contexts of their expected size.
///
/// For chunks with a base of the same length; of dtypes that [`rans::takes`].
pub struct Delta;

impl Codec for Delta {
    fn id(&self) -> CodecId {
        CodecId(4)
    }

    fn name(&self) -> &'static str {
        "delta"
    }

    fn class(&self) -> Class {
        Class::Delta
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

fn chunk<'a>(view: &ChunkView<'a>) -> Chunk<'a> {
    Chunk {
        dtype: view.dtype,
        row_len: view.row_len,
        first_element: view.first_element,
        base: view.base,
    }
}

impl From<rans::Bad> for CodecError {
    fn from(bad: rans::Bad) -> Self {
        match bad {
            rans::Bad::Truncated => Self::Truncated,
            rans::Bad::Trailing => Self::Trailing,
            rans::Bad::Malformed(what) => Self::Malformed(what),
            rans::Bad::Base => Self::Base,
        }
    }
}
