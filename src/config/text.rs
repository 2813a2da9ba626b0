//! Reading a settings file: capped, UTF-8, with or without a byte order mark.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Reads the text of the file at `path`, at most `limit` bytes; the error is a phrase that says why not.
pub(super) fn read(path: &Path, limit: u64) -> Result<String, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| format!("cannot open it: {error}"))?;
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot read it: {error}"))?;
    if bytes.len() as u64 > limit {
        return Err(format!("it has more than {limit} bytes"));
    }
    decode(bytes)
}

fn decode(bytes: Vec<u8>) -> Result<String, String> {
    if bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF") {
        return Err("it is UTF-16; save it as UTF-8".to_owned());
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text
            .strip_prefix('\u{FEFF}')
            .map(str::to_owned)
            .unwrap_or(text)),
        Err(error) => {
            let start = error.utf8_error().valid_up_to();
            let line = error
                .as_bytes()
                .iter()
                .take(start)
                .filter(|byte| **byte == b'\n')
                .count()
                + 1;
            Err(format!("line {line}: it is not UTF-8"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings() {
        let cases: [(&[u8], Result<&str, &str>); 5] = [
            (b"a\r\n", Ok("a\r\n")),
            (b"\xEF\xBB\xBFa", Ok("a")),
            (b"\xFF\xFEa\0", Err("it is UTF-16; save it as UTF-8")),
            (b"\xFE\xFF\0a", Err("it is UTF-16; save it as UTF-8")),
            (b"a\nb\xFFc", Err("line 2: it is not UTF-8")),
        ];
        for (bytes, expected) in cases {
            assert_eq!(
                decode(bytes.to_vec()).as_deref().map_err(String::as_str),
                expected
            );
        }
    }

    #[test]
    fn the_limit_is_exact() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "12345").unwrap();
        assert_eq!(read(file.path(), 5).unwrap(), "12345");
        assert_eq!(
            read(file.path(), 4).unwrap_err(),
            "it has more than 4 bytes"
        );
    }
}
