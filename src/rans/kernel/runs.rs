//! Runs of elements of which one flag may say that they equal the base's.

/// Elements of a run; the last one of a chunk may be shorter.
pub(in super::super) const RUN: usize = 16;

/// Writes the highest context of each run, the last of which may be short.
#[inline(always)]
pub(super) fn highest(ctx: &[u8], out: &mut [u8]) {
    let (runs, last) = ctx.as_chunks::<RUN>();
    let mut out = out.iter_mut();
    for (run, out) in runs.iter().zip(&mut out) {
        *out = run.iter().fold(0, |highest, &ctx| highest.max(ctx));
    }
    if let Some(out) = out.next() {
        *out = last.iter().fold(0, |highest, &ctx| highest.max(ctx));
    }
}
