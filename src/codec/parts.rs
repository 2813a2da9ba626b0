//! `Parts`: runs of a chunk, each with a codec of its own: what a base covers, and what it does not.
//!
//! The format is described in `docs/codecs/parts.md`.

use super::select::encode_chunk;
use super::{ChunkView, Class, Codec, CodecError, CodecId, EncodeOptions, Head, Workspace, find};

/// Bytes of a part's entry: elements, and length and codec of its payload.
const ENTRY_LEN: usize = 8;
/// The most parts of a chunk.
const MAX_PARTS: usize = 255;

/// Codes a chunk that a base covers in part, split at the element.
///
/// Without knowledge of what the base covers, the whole chunk is one part.
pub struct Parts;

impl Codec for Parts {
    fn head(&self) -> Head {
        Head::new(7, "parts", Class::Delta)
    }

    fn encode(
        &self,
        options: &EncodeOptions,
        view: &ChunkView<'_>,
        raw: &[u8],
        ws: &mut Workspace,
        out: &mut Vec<u8>,
    ) {
        let whole = Run {
            bytes: raw.len(),
            covered: view.base.is_some(),
        };
        encode(options, view, raw, &[whole], ws, out);
    }

    fn decode(
        &self,
        shared: &[u8],
        view: &ChunkView<'_>,
        payload: &[u8],
        out: &mut [u8],
        ws: &mut Workspace,
    ) -> Result<(), CodecError> {
        let (entries, mut payloads) = parse(payload)?;
        let size = view.dtype.size();
        let (mut at, mut rest) = (0, out);
        for entry in entries {
            let bytes = entry.elements.checked_mul(size);
            let cut = bytes.and_then(|bytes| std::mem::take(&mut rest).split_at_mut_checked(bytes));
            let (target, later) = cut.ok_or(CodecError::Malformed("length of a part"))?;
            let (part, after) = payloads
                .split_at_checked(entry.payload_len)
                .ok_or(CodecError::Truncated)?;
            let codec = find(entry.codec)
                .filter(|codec| codec.id() != self.id())
                .ok_or(CodecError::Malformed("codec of a part"))?;
            let view = part_view(view, at, target.len())?;
            codec.decode(shared, &view, part, target, ws)?;
            at += target.len();
            (rest, payloads) = (later, after);
        }
        match (rest.is_empty(), payloads.is_empty()) {
            (true, true) => Ok(()),
            (true, false) => Err(CodecError::Trailing),
            (false, _) => Err(CodecError::Truncated),
        }
    }
}

/// A run of a chunk's bytes, all of which a base covers, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its length, whole elements.
    pub bytes: usize,
    /// Whether the base covers it.
    pub covered: bool,
}

/// Appends the payload of [`Parts`]: each run as the settings have it, with the base or without.
pub fn encode(
    options: &EncodeOptions,
    view: &ChunkView<'_>,
    raw: &[u8],
    runs: &[Run],
    ws: &mut Workspace,
    out: &mut Vec<u8>,
) {
    let runs = runs.get(..MAX_PARTS).unwrap_or(runs);
    out.push(u8::try_from(runs.len()).unwrap_or(u8::MAX));
    let table = out.len();
    out.resize(table + runs.len() * ENTRY_LEN, 0);
    let mut at = 0;
    for (index, run) in runs.iter().enumerate() {
        let Ok(mut view) = part_view(view, at, run.bytes) else {
            return;
        };
        view.base = view.base.filter(|_| run.covered);
        let start = out.len();
        let part = raw.get(at..at + run.bytes).unwrap_or_default();
        let codec = encode_chunk(options, &view, part, ws, out);
        let elements = u32::try_from(run.bytes / view.dtype.size()).unwrap_or(u32::MAX);
        let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
        let entry = u64::from(elements) | u64::from(length | u32::from(codec.0) << 24) << 32;
        let place = out.get_mut(table + index * ENTRY_LEN..).unwrap_or_default();
        let bytes = entry.to_le_bytes();
        place
            .iter_mut()
            .zip(bytes)
            .for_each(|(to, from)| *to = from);
        at += run.bytes;
    }
}

/// What the codec of a part is to know.
fn part_view<'a>(
    view: &ChunkView<'a>,
    at: usize,
    bytes: usize,
) -> Result<ChunkView<'a>, CodecError> {
    let base = match view.base {
        None => None,
        Some(base) => Some(base.get(at..at + bytes).ok_or(CodecError::Base)?),
    };
    Ok(ChunkView {
        first_element: view.first_element + (at / view.dtype.size()) as u64,
        base,
        ..*view
    })
}

struct Entry {
    elements: usize,
    codec: CodecId,
    payload_len: usize,
}

/// Reads the table; returns the entries and what follows them.
fn parse(payload: &[u8]) -> Result<(impl Iterator<Item = Entry>, &[u8]), CodecError> {
    let (count, rest) = payload.split_first().ok_or(CodecError::Truncated)?;
    let table = rest.split_at_checked(usize::from(*count) * ENTRY_LEN);
    let (table, rest) = table.ok_or(CodecError::Truncated)?;
    let (rows, _) = table.as_chunks::<ENTRY_LEN>();
    let entry = |row: &[u8; ENTRY_LEN]| {
        let [a, b, c, d, e, f, g, codec] = *row;
        Entry {
            elements: usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX),
            codec: CodecId(codec),
            payload_len: usize::try_from(u32::from_le_bytes([e, f, g, 0])).unwrap_or(usize::MAX),
        }
    };
    Ok((rows.iter().map(entry), rest))
}
