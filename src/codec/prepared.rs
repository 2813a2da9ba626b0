//! An object's shared section: what its chunks have in common, and the column factors that predict it.
//!
//! `docs/format.md` describes the section; [`crate::rans`] and [`crate::lowrank`] what lies in it.

use std::sync::Arc;

use super::floats::{DELTA, SOLO_RANS};
use super::lowrank::{self, LowRank};
use super::{ChunkView, Codec, CodecError, CodecId};
use crate::dtype::DType;
use crate::lowrank::{Columns, uses_shared};
use crate::rans::{Isa, Shared};

/// An object's shared section, parsed.
#[derive(Clone, Debug, Default)]
pub struct Prepared {
    /// Column factors of a prediction.
    pub factors: Option<Arc<Columns>>,
    /// What the chunks have in common.
    pub common: Option<Arc<Shared>>,
}

impl Prepared {
    /// Parses the section of an object of this type and these rows, once for all its chunks; any bytes may be passed.
    ///
    /// `has_common` tells that what the chunks have in common lies before the factors.
    ///
    /// # Errors
    /// Those of the two parts.
    pub fn parse(
        section: &[u8],
        has_common: bool,
        dtype: DType,
        row_len: u64,
    ) -> Result<Self, CodecError> {
        let (common, factors) = if has_common {
            let (length, rest) = section.split_first_chunk().ok_or(CodecError::Truncated)?;
            let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
            let parts = rest.split_at_checked(length).ok_or(CodecError::Truncated)?;
            (Some(parts.0), parts.1)
        } else {
            (None, section)
        };
        let common = common.map(|bytes| Shared::parse(dtype, row_len, bytes));
        let factors =
            (!factors.is_empty()).then(|| Columns::parse(Isa::detect(), dtype, row_len, factors));
        Ok(Self {
            factors: factors.transpose()?.map(Arc::new),
            common: common.transpose()?.map(Arc::new),
        })
    }

    /// Tells whether a payload, of a chunk of so many bytes, needs what chunks have in common.
    pub fn is_common_used(
        &self,
        codec: CodecId,
        view: &ChunkView<'_>,
        bytes: usize,
        payload: &[u8],
    ) -> bool {
        if codec == LowRank.id() {
            let chunk = lowrank::chunk(view, None);
            let columns = self.factors.as_deref();
            return columns.is_some_and(|columns| uses_shared(columns, &chunk, bytes, payload));
        }
        [DELTA.id(), SOLO_RANS.id()].contains(&codec) && Shared::is_used_by(payload)
    }

    /// Bytes that it takes in memory.
    pub fn bytes(&self) -> usize {
        let factors = self.factors.as_ref().map_or(0, |columns| columns.bytes());
        let common = self.common.as_ref().map_or(0, |common| common.bytes());
        factors + common
    }
}

/// The shared section of the two parts, each as it is written; empty where it is not needed.
pub fn section(common: &[u8], factors: &[u8]) -> Vec<u8> {
    if common.is_empty() {
        return factors.to_vec();
    }
    let length = u32::try_from(common.len()).unwrap_or(u32::MAX);
    [&length.to_le_bytes(), common, factors].concat()
}
