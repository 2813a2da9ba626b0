//! Reused scratch memory and zstd contexts, one set a thread at work.

use std::sync::{Mutex, PoisonError};

use zstd::zstd_safe::{CCtx, CParameter, DCtx, compress_bound};

use super::CodecError;

/// Scratch for one encode or decode at a time; its size is bounded by a few chunks.
#[derive(Default)]
pub struct Workspace {
    /// Scratch for byte planes.
    pub(super) planes: Vec<u8>,
    /// Contexts of zstd.
    pub(super) zstd: ZstdContexts,
    /// Scratch of the context-modelled coder.
    pub(super) rans: crate::rans::Scratch,
}

/// One context for compression and one for decompression, made when first used.
#[derive(Default)]
pub(super) struct ZstdContexts {
    compressor: Option<CCtx<'static>>,
    decompressor: Option<DCtx<'static>>,
}

impl ZstdContexts {
    /// Appends one zstd frame of `raw` to `out`; returns false, with `out` as it was, if zstd failed.
    pub(super) fn compress(&mut self, level: i32, raw: &[u8], out: &mut Vec<u8>) -> bool {
        let start = out.len();
        out.resize(start + compress_bound(raw.len()), 0);
        let target = out.get_mut(start..).unwrap_or_default();
        let written = self.compress_to(level, raw, target);
        out.truncate(start + written.unwrap_or(0));
        written.is_some()
    }

    fn compress_to(&mut self, level: i32, raw: &[u8], target: &mut [u8]) -> Option<usize> {
        let context = match &mut self.compressor {
            Some(context) => context,
            slot => slot.insert(CCtx::try_create()?),
        };
        context
            .set_parameter(CParameter::CompressionLevel(level))
            .ok()?;
        context.compress2(target, raw).ok()
    }

    /// Decodes one zstd frame that must fill `out` exactly.
    pub(super) fn decompress(&mut self, frame: &[u8], out: &mut [u8]) -> Result<(), CodecError> {
        const BAD: CodecError = CodecError::Malformed("zstd frame");
        let context = match &mut self.decompressor {
            Some(context) => context,
            slot => slot.insert(DCtx::try_create().ok_or(BAD)?),
        };
        let written = context.decompress(out, frame).map_err(|_| BAD)?;
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
