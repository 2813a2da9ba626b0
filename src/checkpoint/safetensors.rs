//! The safetensors format: 8 bytes of header length, a JSON header, the tensors' data.
//!
//! The rules are those of the format's README (<https://github.com/huggingface/safetensors>), except
//! that gaps, unknown dtypes and trailing bytes are accepted: every byte is stored anyway, and the header
//! comes back as it was. Parsing takes memory of some ten times the header, which is capped.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::span::{quoted, tile};
use super::{Fault, Layout, ReadAt, Segmenter, Span, TensorInfo};
use crate::dtype::DType;

/// The longest header that is parsed, in bytes; a file with a longer one is stored as plain bytes.
pub const MAX_HEADER_BYTES: u64 = 16 << 20;
/// Tensors that any file may have.
const FEW_TENSORS: u64 = 4096;
/// Bytes of the file for each tensor of one that has more. Models have megabytes for each; without a bound a file of
/// 17 MB would become 258,000 objects, each a file in the store.
const LEAST_SHARE: u64 = 4096;
/// Bytes of the length before the header.
const PREFIX_BYTES: u64 = 8;
/// The header's key that is not a tensor.
const METADATA_KEY: &str = "__metadata__";

pub(super) struct Safetensors;

impl Segmenter for Safetensors {
    fn name(&self) -> &'static str {
        "safetensors"
    }

    /// Claims by extension, or by a plausible header length that is followed by a `{`.
    fn claims(&self, name: &str, head: &[u8]) -> bool {
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
        extension.eq_ignore_ascii_case("safetensors") || looks_right(head)
    }

    fn split(&self, input: &dyn ReadAt) -> Result<Layout, Fault> {
        let (data_start, tensors) = read_header(input)?;
        refuse_crumbs(tensors.len() as u64, input.len())?;
        let mut spans = vec![Span::opaque(0, data_start)];
        let mut oddities = Oddities::default();
        for tensor in tensors {
            spans.push(tensor.into_span(data_start, input.len(), &mut oddities)?);
        }
        let spans = tile(input.len(), spans)?;
        let warning = oddities.into_warning();
        Ok(Layout { spans, warning })
    }
}

fn looks_right(head: &[u8]) -> bool {
    let Some((prefix, rest)) = head.split_first_chunk() else {
        return false;
    };
    u64::from_le_bytes(*prefix) <= MAX_HEADER_BYTES && rest.first() == Some(&b'{')
}

/// Reads and parses the header; returns where the data starts and the tensors, in any order.
fn read_header(input: &dyn ReadAt) -> Result<(u64, Vec<Tensor>), Fault> {
    let length = header_length(input)?;
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    input.read_at(PREFIX_BYTES, &mut bytes)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Fault::Format("the header is not UTF-8".to_owned()))?;
    let Header(mut tensors) = serde_json::from_str(text)
        .map_err(|error| Fault::Format(format!("the header is malformed: {error}")))?;
    refuse_duplicates(&mut tensors)?;
    Ok((PREFIX_BYTES + length, tensors))
}

/// Reads the header's length and holds it against the file and the cap, before anything is allocated.
fn header_length(input: &dyn ReadAt) -> Result<u64, Fault> {
    let Some(room) = input.len().checked_sub(PREFIX_BYTES) else {
        return Err(Fault::Format("it is too short for a header".to_owned()));
    };
    let mut prefix = [0; 8];
    input.read_at(0, &mut prefix)?;
    let length = u64::from_le_bytes(prefix);
    if length > room {
        return Err(Fault::Format(format!(
            "its header should have {length} bytes, but only {room} follow"
        )));
    }
    if length > MAX_HEADER_BYTES {
        return Err(Fault::Format(format!(
            "its header has {length} bytes, more than the {MAX_HEADER_BYTES} that are parsed"
        )));
    }
    Ok(length)
}

/// A file of many tensors and few bytes is not worth a file of the store for each.
fn refuse_crumbs(tensors: u64, bytes: u64) -> Result<(), Fault> {
    if tensors > FEW_TENSORS && bytes / tensors < LEAST_SHARE {
        return Err(Fault::Format(format!(
            "it has {tensors} tensors in {bytes} bytes, fewer than {LEAST_SHARE} bytes for each"
        )));
    }
    Ok(())
}

/// Sorts the tensors by name; two of one name are an error.
fn refuse_duplicates(tensors: &mut [Tensor]) -> Result<(), Fault> {
    tensors.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    for pair in tensors.windows(2) {
        if let [first, second] = pair
            && first.name == second.name
        {
            let name = quoted(&first.name);
            return Err(Fault::Format(format!("it has two tensors named {name}")));
        }
    }
    Ok(())
}

/// The header: every key but `__metadata__` is a tensor.
struct Header(Vec<Tensor>);

struct Tensor {
    name: String,
    fields: Fields,
}

/// A tensor's value in the header; keys that are not known are passed over.
#[derive(Deserialize)]
struct Fields {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut tensors = Vec::new();
        let mut has_metadata = false;
        while let Some(name) = map.next_key::<String>()? {
            if name != METADATA_KEY {
                let fields = map.next_value()?;
                tensors.push(Tensor { name, fields });
                continue;
            }
            if std::mem::replace(&mut has_metadata, true) {
                return Err(A::Error::duplicate_field(METADATA_KEY));
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(Header(tensors))
    }
}

impl Tensor {
    fn into_span(
        self,
        data_start: u64,
        file_length: u64,
        oddities: &mut Oddities,
    ) -> Result<Span, Fault> {
        let [begin, end] = self.fields.data_offsets;
        let room = file_length.saturating_sub(data_start);
        if begin > end || end > room {
            let name = quoted(&self.name);
            return Err(Fault::Format(format!(
                "tensor {name} has the offsets {begin} to {end}, but there are {room} bytes of data"
            )));
        }
        let (dtype, row_len) = self.coding(end - begin, oddities);
        Ok(Span {
            start: data_start + begin,
            length: end - begin,
            tensor: Some(TensorInfo {
                name: self.name,
                dtype: self.fields.dtype,
                shape: self.fields.shape,
            }),
            dtype,
            row_len,
        })
    }

    /// Chooses dtype and row length; a tensor of another size than its shape says is plain bytes.
    fn coding(&self, length: u64, oddities: &mut Oddities) -> (DType, u64) {
        let dtype = DType::from_name(&self.fields.dtype);
        if dtype == DType::Opaque || length == 0 {
            return (DType::Opaque, 0);
        }
        let expected = byte_count(dtype, &self.fields.shape);
        if expected != Some(length) {
            oddities.add(|| {
                let name = quoted(&self.name);
                format!(
                    "tensor {name} has {length} bytes, which is not what its dtype and shape say"
                )
            });
            return (DType::Opaque, 0);
        }
        let row_len = match self.fields.shape.as_slice() {
            [_, .., last] => *last,
            _ => 0,
        };
        (dtype, row_len)
    }
}

/// Returns the bytes of a tensor, if the number fits.
fn byte_count(dtype: DType, shape: &[u64]) -> Option<u64> {
    let size = dtype.size() as u64;
    shape
        .iter()
        .try_fold(size, |product, dim| product.checked_mul(*dim))
}

/// Tensors that are stored as plain bytes because their size is wrong.
#[derive(Default)]
struct Oddities {
    first: Option<String>,
    more: u64,
}

impl Oddities {
    fn add(&mut self, describe: impl FnOnce() -> String) {
        match &self.first {
            None => self.first = Some(describe()),
            Some(_) => self.more += 1,
        }
    }

    fn into_warning(self) -> Option<String> {
        let first = self.first?;
        Some(match self.more {
            0 => first,
            more => format!("{first} (and {more} more of the kind)"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_claimed_by_their_extension_or_their_beginning() {
        let begins = |length: u64, brace: &[u8]| [&length.to_le_bytes(), brace].concat();
        for (name, head, want) in [
            ("a.safetensors", vec![], true),
            ("a.SafeTensors", vec![1; 16], true),
            ("safetensors", vec![], false),
            ("a", begins(9, b"{"), true),
            ("a", begins(MAX_HEADER_BYTES, b"{\""), true),
            ("a", begins(MAX_HEADER_BYTES + 1, b"{"), false),
            ("a", begins(9, b"["), false),
            ("a", begins(9, b""), false),
            ("a", vec![b'{'; 16], false),
        ] {
            assert_eq!(Safetensors.claims(name, &head), want, "{name} {head:?}");
        }
    }

    #[test]
    fn many_tensors_have_to_have_their_share_of_the_file() {
        let many = FEW_TENSORS + 1;
        for (tensors, bytes, want) in [
            (0, 0, true),
            (FEW_TENSORS, 1, true),
            (many, many * LEAST_SHARE, true),
            (many, many * LEAST_SHARE - 1, false),
        ] {
            assert_eq!(
                refuse_crumbs(tensors, bytes).is_ok(),
                want,
                "{tensors} {bytes}"
            );
        }
    }
}
