//! Cuts a file in chunks and hashes them.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use fastcdc::v2020::StreamCDC;
use serde_json::{Value, json};

/// Calls `take` with each chunk's bytes and hash, in file order. Memory: a few chunks of the greatest length.
///
/// Chunks have `avg_size / 4` to `avg_size * 4` bytes, as the algorithm's authors propose.
pub fn for_each(
    path: &Path,
    avg_size: u32,
    mut take: impl FnMut(&[u8], blake3::Hash) -> Result<()>,
) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let average = avg_size as usize;
    for chunk in StreamCDC::new(file, average / 4, average, average * 4) {
        let chunk = chunk.with_context(|| format!("cannot read {}", path.display()))?;
        take(&chunk.data, blake3::hash(&chunk.data))?;
    }
    Ok(())
}

/// Writes a file's chunk list and reports what it holds.
pub fn list(path: &Path, avg_size: u32, list: &Path) -> Result<Value> {
    let start = Instant::now();
    let context = || format!("cannot write {}", list.display());
    let mut output = BufWriter::new(File::create(list).with_context(context)?);
    let mut seen = HashSet::new();
    let (mut bytes, mut unique_bytes, mut count) = (0_u64, 0_u64, 0_u64);
    for_each(path, avg_size, |data, hash| {
        let length = u32::try_from(data.len())?;
        output
            .write_all(hash.as_bytes())
            .and_then(|()| output.write_all(&length.to_le_bytes()))
            .with_context(context)?;
        bytes += u64::from(length);
        count += 1;
        if seen.insert(hash) {
            unique_bytes += u64::from(length);
        }
        Ok(())
    })?;
    output.flush().with_context(context)?;
    Ok(json!({
        "bytes": bytes,
        "chunks": count,
        "unique_bytes": unique_bytes,
        "seconds": start.elapsed().as_secs_f64(),
    }))
}
