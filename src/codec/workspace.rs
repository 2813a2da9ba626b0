//! Reused scratch memory and zstd contexts, one set a thread at work.

use std::sync::{Mutex, PoisonError};

use zstd::zstd_safe::{CCtx, CParameter, DCtx, ParamSwitch, ResetDirective, compress_bound};

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

impl Workspace {
    /// Scratch of the context-modelled coder.
    pub fn rans(&mut self) -> &mut crate::rans::Scratch {
        &mut self.rans
    }
}

/// One context for compression and one for decompression, made when first used.
#[derive(Default)]
pub(super) struct ZstdContexts {
    compressor: Option<CCtx<'static>>,
    decompressor: Option<DCtx<'static>>,
}

/// How hard zstd looks for repeats.
#[derive(Clone, Copy)]
pub(super) enum Effort {
    /// As the level says.
    Level(i32),
    /// As the level says, but nothing shorter than 7 bytes, where the level can do without. Chance
    /// repeats in a plane cost more to code than the literals that they replace.
    LongRepeats(i32),
    /// Hardly at all: runs and what a table of 64 places finds.
    FewRepeats,
    /// Not at all: Huffman's code alone.
    Literals,
}

impl ZstdContexts {
    /// Appends one zstd frame of `raw` to `out`; returns false, with `out` as it was, if zstd failed.
    pub(super) fn compress(&mut self, effort: Effort, raw: &[u8], out: &mut Vec<u8>) -> bool {
        let start = out.len();
        out.resize(start + compress_bound(raw.len()), 0);
        let target = out.get_mut(start..).unwrap_or_default();
        let written = self.compress_to(effort, raw, target);
        out.truncate(start + written.unwrap_or(0));
        written.is_some()
    }

    fn compress_to(&mut self, effort: Effort, raw: &[u8], target: &mut [u8]) -> Option<usize> {
        use CParameter::{
            CompressionLevel, HashLog, LiteralCompressionMode, MinMatch, Strategy, TargetLength,
        };
        let parameters: &[CParameter] = match effort {
            Effort::Level(level) => &[CompressionLevel(level)],
            Effort::LongRepeats(level) => &[CompressionLevel(level), MinMatch(7)],
            Effort::FewRepeats => &[
                CompressionLevel(1),
                Strategy(zstd::zstd_safe::Strategy::ZSTD_fast),
                MinMatch(7),
                HashLog(6),
            ],
            // A target length of 2^17 has zstd step over as many bytes between two looks.
            Effort::Literals => &[
                CompressionLevel(1),
                Strategy(zstd::zstd_safe::Strategy::ZSTD_fast),
                MinMatch(7),
                HashLog(6),
                TargetLength(1 << 17),
                LiteralCompressionMode(ParamSwitch::Enable),
            ],
        };
        let context = match &mut self.compressor {
            Some(context) => context,
            slot => slot.insert(CCtx::try_create()?),
        };
        context.reset(ResetDirective::SessionAndParameters).ok()?;
        for parameter in parameters {
            context.set_parameter(*parameter).ok()?;
        }
        context.compress2(target, raw).ok()
    }

    /// Returns the bytes that `raw` takes when only repeats are coded and no literals, which zstd finds
    /// out at several GB/s. `out` serves as scratch and stays as it is.
    pub(super) fn repeats_length(&mut self, raw: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        self.length(Effort::Level(-7), raw, out)
    }

    /// Returns the bytes of a frame of `raw`. `out` serves as scratch and stays as it is.
    pub(super) fn length(
        &mut self,
        effort: Effort,
        raw: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        let start = out.len();
        let done = self.compress(effort, raw, out);
        let length = out.len() - start;
        out.truncate(start);
        done.then_some(length)
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

/// Replaces `out[start..]`, which counts as `length` bytes, by what `encode` appends, if that is smaller.
///
/// Returns the length of the smaller one. Where `encode` returns false, what it appended is dropped.
pub(super) fn keep_smaller(
    out: &mut Vec<u8>,
    start: usize,
    length: usize,
    encode: impl FnOnce(&mut Vec<u8>) -> bool,
) -> usize {
    let end = out.len();
    let done = encode(out);
    let new_length = out.len() - end;
    if done && new_length < length {
        out.drain(start..end);
        new_length
    } else {
        out.truncate(end);
        length
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_that_of_the_frame_whatever_is_there_before() {
        let (raw, mut zstd) = (b"a text, a text, a text".repeat(9), ZstdContexts::default());
        for before in [0, 1000] {
            let mut out = vec![1; before];
            assert!(zstd.compress(Effort::Level(3), &raw, &mut out));
            let length = out.len() - before;
            assert_eq!(zstd.length(Effort::Level(3), &raw, &mut out), Some(length));
            assert_eq!(out.len() - before, length);
        }
    }
}
