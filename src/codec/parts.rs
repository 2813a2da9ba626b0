//! `Parts`: runs of a chunk, each with a codec of its own: what a base covers, and what it does not.
//!
//! The format is described in `docs/codecs/parts.md`.

use super::select::{Known, encode_known_chunk};
use super::{
    ChunkView, Class, Codec, CodecError, CodecId, EncodeOptions, Head, Prepared, Workspace, find,
};

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
        encode(options, view, Known::default(), raw, &[whole], ws, out);
    }

    fn decode(
        &self,
        prepared: &Prepared,
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
            codec.decode(prepared, &view, part, target, ws)?;
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

/// Tells whether a payload of [`Parts`] has a part of a codec.
pub fn uses(payload: &[u8], codec: CodecId) -> bool {
    parse(payload).is_ok_and(|(mut entries, _)| entries.any(|entry| entry.codec == codec))
}

/// Tells whether any part of a payload of [`Parts`], a codec and a payload, is such a one.
pub(super) fn any(payload: &[u8], is_such: impl Fn(CodecId, &[u8]) -> bool) -> bool {
    let Ok((mut entries, mut payloads)) = parse(payload) else {
        return false;
    };
    entries.any(|entry| {
        let (part, rest) = payloads.split_at(entry.payload_len.min(payloads.len()));
        payloads = rest;
        is_such(entry.codec, part)
    })
}

/// Appends the payload of [`Parts`]: each run as the settings have it, with the base or without, and with what
/// is known of the object.
pub fn encode(
    options: &EncodeOptions,
    view: &ChunkView<'_>,
    known: Known<'_>,
    raw: &[u8],
    runs: &[Run],
    ws: &mut Workspace,
    out: &mut Vec<u8>,
) {
    let runs = runs.get(..MAX_PARTS).unwrap_or(runs);
    // Parts have nothing in common: what is learnt is of objects that their base covers whole.
    let known = Known {
        common: None,
        ..known
    };
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
        let codec = encode_known_chunk(options, &view, known, part, ws, out);
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

#[cfg(test)]
mod tests {
    use super::super::lowrank::LowRank;
    use super::super::tests::{changed, noise, view, weights};
    use super::*;
    use crate::dtype::DType;
    use crate::float::convert;
    use crate::lowrank::{Fitted, Shape, fit};
    use crate::rans::{Effort, Isa};

    const ROW: usize = 64;

    fn run(bytes: usize, covered: bool) -> Run {
        Run { bytes, covered }
    }

    fn encoded(view: &ChunkView<'_>, fitted: Option<&Fitted>, raw: &[u8], runs: &[Run]) -> Vec<u8> {
        let mut payload = Vec::new();
        let (options, ws) = (&EncodeOptions::default(), &mut Workspace::default());
        let known = Known {
            factors: fitted,
            common: None,
        };
        encode(options, view, known, raw, runs, ws, &mut payload);
        payload
    }

    fn decoded(
        shared: &[u8],
        view: &ChunkView<'_>,
        payload: &[u8],
        length: usize,
    ) -> Result<Vec<u8>, CodecError> {
        let mut out = vec![0; length];
        let prepared = Prepared::parse(shared, false, view.dtype, view.row_len)?;
        let done = Parts.decode(
            &prepared,
            view,
            payload,
            &mut out,
            &mut Workspace::default(),
        );
        done.map(|()| out)
    }

    #[test]
    fn parts_are_split_at_the_element() {
        let raw = weights(DType::Bf16, 6000, 5);
        let mut base = raw.clone();
        base[2000..2600].fill(0);
        let runs = [run(2000, true), run(600, false), run(3400, true)];
        let view = view(DType::Bf16, Some(&base));
        let payload = encoded(&view, None, &raw, &runs);
        // What is equal to the base takes a byte a part, and what is new as much as alone.
        assert!(payload.len() <= 25 + 2 + 600, "{}", payload.len());
        assert_eq!(decoded(&[], &view, &payload, 6000), Ok(raw));
        let with = |at: usize, byte: u8| {
            let mut bytes = payload.clone();
            bytes[at] = byte;
            decoded(&[], &view, &bytes, 6000).map(drop)
        };
        for (at, byte, want) in [
            (8, 7, CodecError::Malformed("codec of a part")),
            (8, 200, CodecError::Malformed("codec of a part")),
            (4, 1, CodecError::Malformed("length of a part")),
            (7, 1, CodecError::Truncated),
        ] {
            assert_eq!(with(at, byte), Err(want), "{at} {byte}");
        }
    }

    /// A tensor and its base, in memory.
    struct Pair(Vec<u8>, Vec<u8>);

    impl fit::Tensor for Pair {
        type Error = ();
        fn read(&self, first: u64, target: &mut [u8], base: &mut [u8]) -> Result<(), ()> {
            let at = 2 * usize::try_from(first).map_err(|_| ())?;
            target.copy_from_slice(&self.0[at..at + target.len()]);
            base.copy_from_slice(&self.1[at..at + base.len()]);
            Ok(())
        }
    }

    /// `rows` rows of weights, the same with a product of rank 1 added, and the factors that are found.
    fn merged(rows: usize) -> (Pair, Fitted) {
        let base = weights(DType::Bf16, 2 * rows * ROW, 3);
        let factor = noise(rows + ROW, 4);
        let factor = |at: usize| f32::from(factor[at]) / 128.0 - 1.0;
        let add = |(at, word): (usize, &[u8])| {
            let value = f32::from_bits(u32::from(u16::from_le_bytes([word[0], word[1]])) << 16);
            let sum = value * (1.0 + 1e-9) + 0.003 * factor(at / ROW) * factor(rows + at % ROW);
            let mut out = [0; 2];
            convert(DType::F32, &sum.to_le_bytes(), DType::Bf16, &mut out);
            out
        };
        let target = base.chunks_exact(2).enumerate().flat_map(add).collect();
        let pair = Pair(target, base);
        let shape = Shape {
            dtype: DType::Bf16,
            elements: (rows * ROW) as u64,
            row_len: ROW as u64,
            set_rows: rows as u64,
        };
        let fitted = fit::fit(Isa::detect(), Effort::Default, shape, &pair, None).unwrap();
        (pair, fitted.unwrap())
    }

    /// A chunk of merged rows with others before, within and after them: the bytes, the base, the runs, and what factors
    /// were found.
    fn resized() -> (Vec<u8>, Vec<u8>, Vec<Run>, Fitted) {
        let (rows, bytes) = (600, 2 * ROW);
        let (Pair(target, base), fitted) = merged(rows);
        let (new, none) = (noise(9 * bytes, 8), vec![0; 9 * bytes]);
        let cut = 400 * bytes;
        let join = |new: &[u8], old: &[u8]| {
            let [first, second, third] =
                [0..2, 2..5, 5..9].map(|rows| rows.start * bytes..rows.end * bytes);
            [
                &new[first],
                &old[..cut],
                &new[second],
                &old[cut..],
                &new[third],
            ]
            .concat()
        };
        let runs = [(2, false), (400, true), (3, false), (200, true), (4, false)];
        let runs = runs
            .map(|(rows, covered)| run(rows * bytes, covered))
            .to_vec();
        let fitted = fitted.placed(&[2..402, 405..605], 609);
        (join(&new, &target), join(&none, &base), runs, fitted)
    }

    #[test]
    fn parts_that_a_base_covers_are_predicted() {
        let (raw, base, runs, fitted) = resized();
        let mut view = view(DType::Bf16, Some(&base));
        view.row_len = ROW as u64;
        let payload = encoded(&view, Some(&fitted), &raw, &runs);
        assert!(uses(&payload, LowRank.id()));
        let plain = encoded(&view, None, &raw, &runs);
        assert!(!uses(&plain, LowRank.id()));
        assert!(
            payload.len() * 2 < plain.len(),
            "{} {}",
            payload.len(),
            plain.len()
        );
        let shared = fitted.columns().to_bytes(Isa::detect());
        assert_eq!(
            decoded(&shared, &view, &payload, raw.len()).as_ref(),
            Ok(&raw)
        );
        let prepared = Prepared::parse(&shared, false, DType::Bf16, ROW as u64).unwrap();
        assert_eq!(prepared.bytes(), fitted.columns().bytes());
        // Without the factors, or with others, it is other bytes or an error.
        assert_ne!(decoded(&[], &view, &payload, raw.len()).as_ref(), Ok(&raw));
    }

    #[test]
    fn hostile_parts_with_factors_are_decoded_or_refused() {
        let (raw, base, runs, fitted) = resized();
        let mut view = view(DType::Bf16, Some(&base));
        view.row_len = ROW as u64;
        let payload = encoded(&view, Some(&fitted), &raw, &runs);
        let shared = fitted.columns().to_bytes(Isa::detect());
        for cut in (0..payload.len()).step_by(97) {
            assert!(
                decoded(&shared, &view, &payload[..cut], raw.len()).is_err(),
                "{cut}"
            );
        }
        for every in [3, 41, 300] {
            let _ = decoded(&shared, &view, &changed(&payload, every), raw.len());
            let _ = decoded(&changed(&shared, every), &view, &payload, raw.len());
        }
        for at in 0..60 {
            for byte in [0, 1, 6, 127, 255] {
                let mut bytes = payload.clone();
                bytes[at] = byte;
                let _ = decoded(&shared, &view, &bytes, raw.len());
            }
        }
        // As many predicted parts as there can be, without elements: rows' factors are not multiplied by that.
        let mut many = vec![255];
        (0..255).for_each(|_| many.extend([0, 0, 0, 0, 0, 0, 0, 6]));
        assert!(decoded(&shared, &view, &many, raw.len()).is_err());
    }
}
