//! Reused scratch memory and zstd contexts, one set a thread at work.

use std::sync::{Mutex, PoisonError};

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::compress_bound;

use super::CodecError;

/// Scratch for one encode or decode at a time; its size is bounded by a few chunks.
#[derive(Default)]
pub struct Workspace {
    /// Scratch for byte planes.
    pub(super) planes: Vec<u8>,
    /// Contexts of zstd.
    pub(super) zstd: ZstdContexts,
}

/// A compression context a level, and one for decompression, made when first used.
#[derive(Default)]
pub(super) struct ZstdContexts {
    compressors: Vec<(i32, Compressor<'static>)>,
    decompressor: Option<Decompressor<'static>>,
}

impl ZstdContexts {
    /// Appends one zstd frame of `raw` to `out`; returns false, with `out` as it was, if zstd failed.
    pub(super) fn compress(&mut self, level: i32, raw: &[u8], out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let done = self.try_compress(level, raw, out);
        if done.is_err() {
            out.truncate(start);
        }
        done.is_ok()
    }

    fn try_compress(&mut self, level: i32, raw: &[u8], out: &mut Vec<u8>) -> std::io::Result<()> {
        let compressor = match self.compressors.iter().position(|have| have.0 == level) {
            Some(at) => self.compressors.get_mut(at),
            None => {
                self.compressors.push((level, Compressor::new(level)?));
                self.compressors.last_mut()
            }
        };
        let Some((_, compressor)) = compressor else {
            return Ok(());
        };
        let start = out.len();
        out.resize(start + compress_bound(raw.len()), 0);
        let target = out.get_mut(start..).unwrap_or_default();
        let written = compressor.compress_to_buffer(raw, target)?;
        out.truncate(start + written);
        Ok(())
    }

    /// Decodes one zstd frame that must fill `out` exactly.
    pub(super) fn decompress(&mut self, frame: &[u8], out: &mut [u8]) -> Result<(), CodecError> {
        const BAD: CodecError = CodecError::Malformed("zstd frame");
        let decompressor = match &mut self.decompressor {
            Some(decompressor) => decompressor,
            slot => slot.insert(Decompressor::new().map_err(|_| BAD)?),
        };
        let written = decompressor
            .decompress_to_buffer(frame, out)
            .map_err(|_| BAD)?;
        if written == out.len() {
            Ok(())
        } else {
            Err(CodecError::Truncated)
        }
    }
}

/// Workspaces lent to whichever thread needs one, so that each is used again.
#[derive(Default)]
pub struct WorkspacePool(Mutex<Vec<Workspace>>);

impl WorkspacePool {
    /// Runs `work` with a workspace that no other thread uses meanwhile.
    pub fn with<T>(&self, work: impl FnOnce(&mut Workspace) -> T) -> T {
        let mut workspace = self.lock().pop().unwrap_or_default();
        let result = work(&mut workspace);
        self.lock().push(workspace);
        result
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Workspace>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
