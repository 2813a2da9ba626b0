//! Reused scratch memory and zstd contexts, one set a thread at work.

use std::sync::{Mutex, PoisonError};

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CParameter, ParamSwitch, compress_bound};

use super::CodecError;

/// Scratch for one encode or decode at a time; its size is bounded by a few chunks.
#[derive(Default)]
pub struct Workspace {
    /// Scratch for byte planes.
    pub(super) planes: Vec<u8>,
    /// Contexts of zstd.
    pub(super) zstd: ZstdContexts,
}

/// A compression context a method, and one for decompression, made when first used.
#[derive(Default)]
pub(super) struct ZstdContexts {
    compressors: Vec<(Method, Compressor<'static>)>,
    decompressor: Option<Decompressor<'static>>,
    frame: Vec<u8>,
}

/// How zstd is to code a frame; the frame looks the same to a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// As the level says.
    Level(i32),
    /// Huffman codes of single bytes, hardly any matches: smaller and several times faster where bytes
    /// are skewed but do not repeat, as in the planes of numbers.
    Literals,
}

impl Method {
    fn compressor(self) -> std::io::Result<Compressor<'static>> {
        let Self::Level(level) = self else {
            let mut compressor = Compressor::new(1)?;
            compressor.set_parameter(CParameter::MinMatch(7))?;
            compressor.set_parameter(CParameter::HashLog(6))?;
            compressor.set_parameter(CParameter::TargetLength(1 << 17))?;
            compressor.set_parameter(CParameter::LiteralCompressionMode(ParamSwitch::Enable))?;
            return Ok(compressor);
        };
        Compressor::new(level)
    }
}

impl ZstdContexts {
    /// Appends one zstd frame of `raw` to `out`; returns false, with `out` as it was, if zstd failed.
    pub(super) fn compress(&mut self, method: Method, raw: &[u8], out: &mut Vec<u8>) -> bool {
        let done = self.encode(method, raw).is_ok();
        if done {
            out.extend_from_slice(&self.frame);
        }
        done
    }

    /// Returns the length of a frame of `raw`; that of `raw` itself if zstd failed.
    pub(super) fn compressed_len(&mut self, method: Method, raw: &[u8]) -> usize {
        self.encode(method, raw)
            .map_or(raw.len(), |()| self.frame.len())
    }

    fn encode(&mut self, method: Method, raw: &[u8]) -> std::io::Result<()> {
        let compressor = if let Some(at) = self.compressors.iter().position(|have| have.0 == method)
        {
            self.compressors.get_mut(at)
        } else {
            self.compressors.push((method, method.compressor()?));
            self.compressors.last_mut()
        };
        let Some((_, compressor)) = compressor else {
            return Ok(());
        };
        self.frame.clear();
        self.frame.reserve(compress_bound(raw.len()));
        compressor.compress_to_buffer(raw, &mut self.frame)?;
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
