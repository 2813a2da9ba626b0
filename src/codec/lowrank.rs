//! `LowRank`: differences of floats to what a base and a low-rank product predict.
//!
//! The format is described in `docs/codecs/lowrank.md`; the prediction is [`crate::lowrank`], the coder [`crate::rans`].

use std::sync::Arc;

use super::{ChunkView, Class, Codec, CodecError, EncodeOptions, Head, Prepared, Workspace};
use crate::dtype::DType;
use crate::lowrank::{self, Columns, Fitted};
use crate::rans::{Chunk, Isa};

/// Codes what a fine-tune changed in its base beyond the product of factors, which lie with the object.
///
/// For chunks with a base of the same length; of dtypes that [`lowrank::takes`].
pub struct LowRank;

impl LowRank {
    /// Appends the payload of `raw` to `out`, predicted with `fitted`.
    pub(super) fn encode_with(
        fitted: &Fitted,
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
            &chunk(view),
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
        Self::encode_with(&fitted, options, view, raw, ws, out);
    }

    fn decode(
        &self,
        shared: &[u8],
        view: &ChunkView<'_>,
        payload: &[u8],
        out: &mut [u8],
        ws: &mut Workspace,
    ) -> Result<(), CodecError> {
        let prepared = self.prepare(shared, view.dtype, view.row_len)?;
        self.decode_prepared(&prepared, view, payload, out, ws)
    }

    fn prepare(&self, shared: &[u8], dtype: DType, row_len: u64) -> Result<Prepared, CodecError> {
        let columns = Columns::parse(Isa::detect(), dtype, row_len, shared)?;
        Ok(Prepared::Factors(Arc::new(columns)))
    }

    fn decode_prepared(
        &self,
        prepared: &Prepared,
        view: &ChunkView<'_>,
        payload: &[u8],
        out: &mut [u8],
        ws: &mut Workspace,
    ) -> Result<(), CodecError> {
        let none;
        let columns = match prepared {
            Prepared::Factors(columns) => columns,
            Prepared::Nothing => {
                none = Fitted::none(view.dtype, view.row_len);
                none.columns()
            }
        };
        Ok(lowrank::decode(
            Isa::detect(),
            columns,
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
