//! `LowRank`: differences of floats to what a base and a low-rank product predict.
//!
//! The format is described in `docs/codecs/lowrank.md`; the prediction is [`crate::lowrank`], the coder [`crate::rans`].

use super::{ChunkView, Class, Codec, CodecError, EncodeOptions, Head, Prepared, Workspace};
use crate::lowrank::{self, Fitted};
use crate::rans::{Chunk, Isa, Shared};

/// Codes what a fine-tune changed in its base beyond the product of factors, which lie with the object.
///
/// For chunks with a base of the same length; of dtypes that [`lowrank::takes`].
pub struct LowRank;

impl LowRank {
    /// Appends the payload of `raw` to `out`, predicted with `fitted`.
    pub(super) fn encode_with(
        fitted: &Fitted,
        shared: Option<&Shared>,
        options: &EncodeOptions,
        view: &ChunkView<'_>,
        raw: &[u8],
        ws: &mut Workspace,
        out: &mut Vec<u8>,
    ) {
        lowrank::encode(
            Isa::detect(),
            options.effort,
            fitted,
            &chunk(view, shared),
            raw,
            &mut ws.rans,
            out,
        );
    }
}

impl Codec for LowRank {
    fn head(&self) -> Head {
        Head::new(6, "lowrank", Class::Delta)
    }

    /// Without factors: the base itself is the prediction.
    fn encode(
        &self,
        options: &EncodeOptions,
        view: &ChunkView<'_>,
        raw: &[u8],
        ws: &mut Workspace,
        out: &mut Vec<u8>,
    ) {
        let fitted = Fitted::none(view.dtype, view.row_len);
        Self::encode_with(&fitted, None, options, view, raw, ws, out);
    }

    fn decode(
        &self,
        prepared: &Prepared,
        view: &ChunkView<'_>,
        payload: &[u8],
        out: &mut [u8],
        ws: &mut Workspace,
    ) -> Result<(), CodecError> {
        let none;
        let columns = if let Some(columns) = &prepared.factors {
            columns
        } else {
            none = Fitted::none(view.dtype, view.row_len);
            none.columns()
        };
        let chunk = chunk(view, prepared.common.as_deref());
        let scratch = &mut ws.rans;
        Ok(lowrank::decode(
            Isa::detect(),
            columns,
            &chunk,
            payload,
            out,
            scratch,
        )?)
    }
}

/// What the coder is to know of a chunk.
pub(super) fn chunk<'a>(view: &ChunkView<'a>, shared: Option<&'a Shared>) -> Chunk<'a> {
    Chunk {
        dtype: view.dtype,
        row_len: view.row_len,
        first_element: view.first_element,
        base: view.base,
        shared,
    }
}
