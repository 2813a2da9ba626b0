//! `delta` and `solo-rans`: floats, and bytes of few values, coded by how large they are expected to be.
//!
//! The formats are described in `docs/codecs/delta.md` and `docs/codecs/solo.md`; the coder of both is [`crate::rans`].

use super::parts::{self, Parts};
use super::select::Family;
use super::{
    ChunkView, Class, Codec, CodecError, CodecId, EncodeOptions, Head, Prepared, Workspace,
};
use crate::dtype::DType;
use crate::rans::{self, Chunk, Isa, Shared};

/// A codec of dtypes that [`rans::takes`].
pub struct Floats(Head);

/// Codes what a fine-tune changed in its base: differences in contexts of their expected size.
///
/// For chunks with a base of the same length.
pub static DELTA: Floats = Floats(Head::new(4, "delta", Class::Delta));

/// Codes elements without a base at the entropy of their exponents and leading mantissa bits; a base is not looked at.
pub static SOLO_RANS: Floats = Floats(Head::new(5, "solo-rans", Class::Solo));

impl Floats {
    fn chunk<'a>(&self, view: &ChunkView<'a>, shared: Option<&'a Shared>) -> Chunk<'a> {
        Chunk {
            dtype: view.dtype,
            row_len: view.row_len,
            first_element: view.first_element,
            base: view.base.filter(|_| self.uses_base()),
            shared,
        }
    }

    /// As [`Codec::encode`], with what the object's chunks have in common.
    pub(super) fn encode_with(
        &self,
        shared: Option<&Shared>,
        options: &EncodeOptions,
        view: &ChunkView<'_>,
        raw: &[u8],
        ws: &mut Workspace,
        out: &mut Vec<u8>,
    ) {
        let (effort, chunk) = (options.effort, self.chunk(view, shared));
        rans::encode(Isa::detect(), effort, &chunk, raw, &mut ws.rans, out);
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
        self.encode_with(None, options, view, raw, ws, out);
    }

    fn decode(
        &self,
        prepared: &Prepared,
        view: &ChunkView<'_>,
        payload: &[u8],
        out: &mut [u8],
        ws: &mut Workspace,
    ) -> Result<(), CodecError> {
        let chunk = self.chunk(view, prepared.common.as_deref());
        rans::decode(Isa::detect(), &chunk, payload, out, &mut ws.rans)?;
        Ok(())
    }
}

/// Tells whether the chunks of an object of this type, in such rows, may have anything in common.
pub fn may_learn(options: &EncodeOptions, dtype: DType, row_len: u64) -> bool {
    options.family == Family::Auto
        && dtype.is_float()
        && Shared::may_learn(options.effort, dtype, row_len)
}

/// Tells whether an object of this type may have chunks in which tails lie flat.
pub fn may_be_flat(options: &EncodeOptions, dtype: DType) -> bool {
    options.family == Family::Auto && dtype.is_float() && rans::may_be_flat(dtype)
}

/// Tells whether tails lie flat in a payload, or in a part of it.
pub fn is_flat(codec: CodecId, payload: &[u8]) -> bool {
    let is_alone = |codec, payload: &[u8]| codec == SOLO_RANS.id() && rans::is_flat(payload);
    is_alone(codec, payload) || codec == Parts.id() && parts::any(payload, is_alone)
}

/// Tells whether an object of this type with a base may have chunks in which runs are skipped.
pub fn may_skip(options: &EncodeOptions, dtype: DType) -> bool {
    options.family == Family::Auto && dtype.is_float() && rans::may_skip(options.effort)
}

/// Tells whether runs are skipped in a payload, or in a part of it.
pub fn has_skips(codec: CodecId, payload: &[u8]) -> bool {
    let is_delta = |codec, payload: &[u8]| codec == DELTA.id() && rans::has_skips(payload);
    is_delta(codec, payload) || codec == Parts.id() && parts::any(payload, is_delta)
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
