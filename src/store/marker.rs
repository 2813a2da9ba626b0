//! The format marker: what a directory needs to be a store, and what a reader needs to read it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::sealed::{self, Refused};
use crate::error::{Error, Result};

/// The version of the store format that this build writes, and the newest it reads.
pub const FORMAT: u32 = 1;

/// The content of `zipllm.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// The version of the store format.
    pub format: u32,
    /// Features without which a reader must refuse the store.
    pub required_features: Vec<String>,
    /// Features that a reader may ignore.
    pub optional_features: Vec<String>,
    /// The program that created the store.
    pub created_by: String,
}

impl Marker {
    /// The marker of a new store.
    pub fn new() -> Self {
        Self {
            format: FORMAT,
            required_features: Vec::new(),
            optional_features: Vec::new(),
            created_by: concat!("zipllm ", env!("CARGO_PKG_VERSION")).into(),
        }
    }

    /// Parses the marker at `path`, and refuses a store that this build cannot read.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let newer = |what| Error::Newer {
            path: path.to_path_buf(),
            what,
        };
        let parsed = sealed::parse_format(bytes, FORMAT);
        let marker: Self = parsed.map_err(|refused| match refused {
            Refused::Damaged(reason) => Error::CorruptFile {
                path: path.to_path_buf(),
                reason: format!("damaged format marker: {reason}; `zipllm repair` writes it anew"),
            },
            Refused::Format(format) => newer(format!("store format {format}")),
        })?;
        match marker.required_features.first() {
            Some(feature) => Err(newer(format!("store feature {feature:?}"))),
            None => Ok(marker),
        }
    }
}

impl Default for Marker {
    fn default() -> Self {
        Self::new()
    }
}
