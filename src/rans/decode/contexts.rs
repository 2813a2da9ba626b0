//! The contexts of a block of elements.

use super::super::fit::Scales;
use super::super::kernel::{Isa, RunScales};
use super::super::{Bad, Grid};
use super::stream::Stream;

/// Writes the contexts of the elements from `start` on, by phase their first cells; `classes` is scratch of the same length.
pub(super) fn put(
    isa: Isa,
    stream: &Stream<'_>,
    base: Option<&[u8]>,
    start: usize,
    classes: &mut [u8],
    out: &mut [u8],
) -> Result<(), Bad> {
    let class = |out: &mut [u8]| match base {
        Some(base) => isa.classes(stream.format, stream.top, base, out),
        None => out.fill(0),
    };
    let Some(scales) = &stream.scales else {
        class(out);
        isa.plain_contexts(&stream.tables.contexts.by_class(), out);
        return Ok(());
    };
    class(classes);
    let map = stream.tables.contexts.by_bin();
    scaled(isa, stream.grid, scales, &map, start, classes, out)
}

/// Writes what `map` has for the scales of the elements from `start` on.
fn scaled(
    isa: Isa,
    grid: Grid,
    scales: &Scales,
    map: &[u8; 64],
    start: usize,
    classes: &[u8],
    out: &mut [u8],
) -> Result<(), Bad> {
    const MISSING: Bad = Bad::Malformed("scales");
    for (from, to, row, column) in grid.runs(start, start + out.len()) {
        let columns = scales.columns.get(column..column + (to - from));
        let run = RunScales {
            class: &scales.class,
            columns: columns.ok_or(MISSING)?,
            row: *scales.rows.get(row).ok_or(MISSING)?,
        };
        let here = from - start..to - start;
        let classes = classes.get(here.clone()).ok_or(MISSING)?;
        let out = out.get_mut(here).ok_or(MISSING)?;
        isa.scaled_contexts(classes, &run, map, out);
    }
    Ok(())
}
