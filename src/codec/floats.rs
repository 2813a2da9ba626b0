//! `delta` and `solo-rans`: floats, and bytes of few values, coded by how large they are expected to be.
//!
//! The formats are described in `docs/codecs/delta.md` and `docs/codecs/solo.md`; the coder of both is [`crate::rans`].

use super::{ChunkView, Class, Codec, CodecError, EncodeOptions, Head, Workspace};
use crate::rans::{self, Chunk, Isa};

/// A codec of dtypes that [`rans::takes`].
pub struct Floats(Head);

/// Codes what a fine-tune changed in its base: differences in contexts of their expected size.
///
/// For chunks with a base of the same length.
pub static DELTA: Floats = Floats(Head::new(4, "delta", Class::Delta));

/// Codes elements without a base at the entropy of their exponents and leading mantissa bits; a base is not looked at.
pub static SOLO_RANS: Floats = Floats(Head::new(5, "solo-rans", Class::Solo));

impl Floats {
    fn chunk<'a>(&self, view: &ChunkView<'a>) -> Chunk<'a> {
        Chunk {
            dtype: view.dtype,
            row_len: view.row_len,
            first_element: view.first_element,
            base: view.base.filter(|_| self.uses_base()),
        }
    }
}

impl Codec for Floats {
    fn head(&self) -> Head {
        self.0
    }

    fn encode(
        &self,
        options: &EncodeOptions,
        view: &ChunkView<'_>,
        raw: &[u8],
        ws: &mut Workspace,
        out: &mut Vec<u8>,
    ) {
        let (effort, chunk) = (options.effort, self.chunk(view));
        rans::encode(Isa::detect(), effort, &chunk, raw, &mut ws.rans, out);
    }

    fn decode(
        &self,
        _shared: &[u8],
        view: &ChunkView<'_>,
        payload: &[u8],
        out: &mut [u8],
        ws: &mut Workspace,
    ) -> Result<(), CodecError> {
        let chunk = self.chunk(view);
        rans::decode(Isa::detect(), &chunk, payload, out, &mut ws.rans)?;
        Ok(())
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
