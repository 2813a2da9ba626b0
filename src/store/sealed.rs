//! JSON documents that end in their own checksum: markers, manifests and scans.
//!
//! The document is one compact object; its last member is `"checksum"`, the BLAKE3 hash of every byte
//! before the comma that precedes it.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::hash::Hash;

/// The longest document that is read, in bytes.
pub const MAX_BYTES: u64 = 64 << 20;

const KEY: &str = ",\"checksum\":\"";
const END: &str = "\"}\n";

/// Serialises `value`, a struct with at least one field, and adds its checksum.
pub fn to_bytes(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut out = serde_json::to_vec(value)?;
    out.pop();
    let hash = Hash::of(&out);
    out.extend(KEY.bytes());
    out.extend(hash.to_string().bytes());
    out.extend(END.bytes());
    Ok(out)
}

/// Checks the checksum and parses what stands before it.
///
/// # Errors
/// Says in words what is wrong.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(&document(bytes)?).map_err(|error| error.to_string())
}

/// Why a document with a format was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is damaged; in words.
    Damaged(String),
    /// It has another format, this one.
    Format(u32),
}

/// Like [`parse`], for a document that has a member `format`, which is looked at before all others: another
/// format may have members that `T` does not know.
pub fn parse_format<T: DeserializeOwned>(bytes: &[u8], format: u32) -> Result<T, Refused> {
    #[derive(Deserialize)]
    struct Stated {
        format: u32,
    }
    let damaged = |error: serde_json::Error| Refused::Damaged(error.to_string());
    let document = document(bytes).map_err(Refused::Damaged)?;
    // As all writers so far have it; else the whole has to be read for this one member.
    if !document.starts_with(format!("{{\"format\":{format},").as_bytes()) {
        let stated: Stated = serde_json::from_slice(&document).map_err(damaged)?;
        if stated.format != format {
            return Err(Refused::Format(stated.format));
        }
    }
    serde_json::from_slice(&document).map_err(damaged)
}

/// The document without its checksum, which has to be right.
fn document(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let body = checked_body(bytes).ok_or("the checksum is wrong")?;
    let mut document = body.to_vec();
    document.push(b'}');
    Ok(document)
}

fn checked_body(bytes: &[u8]) -> Option<&[u8]> {
    let bytes = bytes.strip_suffix(END.as_bytes())?;
    let (rest, digits) = bytes.split_last_chunk::<64>()?;
    let body = rest.strip_suffix(KEY.as_bytes())?;
    (Hash::of(body).to_string().as_bytes() == digits).then_some(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Sample {
        name: String,
    }

    #[test]
    fn round_trips_and_finds_every_flipped_bit() {
        let sample = Sample { name: "x".into() };
        let bytes = to_bytes(&sample).unwrap();
        assert_eq!(parse::<Sample>(&bytes).unwrap(), sample);
        assert!(serde_json::from_slice::<serde_json::Value>(&bytes).is_ok());
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(parse::<Sample>(&flipped).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(parse::<Sample>(&bytes[..len]).is_err(), "length {len}");
        }
    }

    #[test]
    fn another_format_is_told_wherever_it_stands() {
        #[derive(Debug, PartialEq, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Formatted {
            format: u32,
            name: String,
        }
        for (document, wanted) in [
            (r#"{"format":1,"name":"x"}"#, Ok("x")),
            (r#"{"name":"x","format":1}"#, Ok("x")),
            (r#"{"format":2,"news":[]}"#, Err(2)),
            (r#"{"news":[],"format":2}"#, Err(2)),
            (r#"{"format":12,"name":"x"}"#, Err(12)),
        ] {
            let body = document.strip_suffix('}').unwrap();
            let hash = Hash::of(body.as_bytes());
            let sealed = format!("{body}{KEY}{hash}{END}");
            let parsed = parse_format::<Formatted>(sealed.as_bytes(), 1);
            let wanted = wanted.map_err(Refused::Format);
            assert_eq!(parsed.map(|parsed| parsed.name), wanted.map(str::to_owned));
        }
    }
}
