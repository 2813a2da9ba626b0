//! `ModelId` and `RelPath`: names from outside, parsed once; the only source of path parts.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The longest model id, in bytes, as on the Hugging Face Hub.
pub const MAX_ID_BYTES: usize = 96;
/// The longest relative path of a file in a model, in bytes.
pub const MAX_PATH_BYTES: usize = 1024;
/// The longest part of a relative path, in bytes: the limit of common file systems.
const MAX_PART_BYTES: usize = 255;

/// A model's id, `org/name` or `name`, by the Hub's rules: ASCII letters, digits, `-`, `_` and `.`,
/// no `--`, no `..`, no part that begins or ends with `-` or `.`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModelId(String);

impl ModelId {
    /// Returns the id as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Joins organisation and name with `separator`.
    pub fn joined(&self, separator: &str) -> String {
        self.0.replace('/', separator)
    }
}

impl FromStr for ModelId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match id_fault(text) {
            None => Ok(Self(text.to_owned())),
            Some(reason) => Err(Error::Name {
                name: text.to_owned(),
                reason: format!("not a model id: {reason}{}", meant(text)),
            }),
        }
    }
}

/// The id that somebody may have meant who gave the name of a model's directory.
fn meant(text: &str) -> String {
    let name = text.strip_prefix("models--").unwrap_or(text);
    let id = name.replacen("--", "/", 1);
    if text.contains("--") && id_fault(&id).is_none() {
        format!("; did you mean {id}?")
    } else {
        String::new()
    }
}

fn id_fault(text: &str) -> Option<&'static str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    if text.is_empty() || text.len() > MAX_ID_BYTES {
        return Some("it has to have 1 to 96 characters");
    }
    if !text.chars().all(allowed) {
        return Some("only letters, digits, '-', '_', '.' and one '/' are allowed");
    }
    if text.matches('/').count() > 1 {
        return Some("it has more than one '/'");
    }
    if text.contains("--") || text.contains("..") {
        return Some("'--' and '..' are not allowed");
    }
    let edge = |c: char| matches!(c, '-' | '.');
    if text
        .split('/')
        .any(|part| part.is_empty() || part.starts_with(edge) || part.ends_with(edge))
    {
        return Some("organisation and name must not be empty, or begin or end with '-' or '.'");
    }
    None
}

impl TryFrom<String> for ModelId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<ModelId> for String {
    fn from(id: ModelId) -> Self {
        id.0
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The path of a file within its model: `/`-separated parts, none of them able to leave the directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelPath(String);

impl RelPath {
    /// Returns the path with `/` between its parts.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Iterates over the parts; there is at least one.
    pub fn parts(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// Joins the path to a directory.
    pub fn under(&self, directory: &Path) -> PathBuf {
        let mut path = directory.to_path_buf();
        path.extend(self.parts());
        path
    }
}

impl FromStr for RelPath {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match path_fault(text) {
            None => Ok(Self(text.to_owned())),
            Some(reason) => Err(Error::Name {
                name: text.to_owned(),
                reason: format!("not a path in a model: {reason}"),
            }),
        }
    }
}

fn path_fault(text: &str) -> Option<&'static str> {
    if text.is_empty() || text.len() > MAX_PATH_BYTES {
        return Some("it has to have 1 to 1024 bytes");
    }
    if text.contains('\0') {
        return Some("it has a NUL");
    }
    if text.starts_with('/') {
        return Some("it has to be relative, without '/' at its beginning");
    }
    text.split('/').find_map(part_fault)
}

fn part_fault(part: &str) -> Option<&'static str> {
    match part {
        "" => Some("a part of it is empty"),
        "." | ".." => Some("'.' and '..' are not allowed"),
        _ if part.len() > MAX_PART_BYTES => Some("a part of it has more than 255 bytes"),
        _ => None,
    }
}

impl TryFrom<String> for RelPath {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<RelPath> for String {
    fn from(path: RelPath) -> Self {
        path.0
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_the_hub() {
        for good in [
            "gpt2",
            "meta-llama/Llama-3.1-8B-Instruct",
            "a_b/c_d",
            "a/b",
            "A.b/c-d_e",
            &"a".repeat(96),
        ] {
            assert_eq!(good.parse::<ModelId>().unwrap().as_str(), good);
        }
        let long = "a".repeat(97);
        for bad in [
            "", "/", "a/", "/a", "a/b/c", "../a", "a/..", "a--b/c", "a..b", "-a/b", "a/b.",
            "a b/c", "é/a", "a\\b", "a\0b", &long,
        ] {
            assert!(bad.parse::<ModelId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_of_directories_are_understood_but_not_taken() {
        for (text, meant) in [
            ("a--b", Some("did you mean a/b?")),
            ("models--a--b", Some("did you mean a/b?")),
            ("a--b--c", None),
            ("a--b/c", None),
            ("../a--b", None),
        ] {
            let error = text.parse::<ModelId>().unwrap_err().to_string();
            assert_eq!(error.contains("did you mean"), meant.is_some(), "{error}");
            assert!(error.ends_with(meant.unwrap_or_default()), "{error}");
        }
    }

    #[test]
    fn paths_cannot_leave() {
        let (part, long) = ("a".repeat(255), "a".repeat(256));
        let longest = vec!["a"; 512].join("/") + "a";
        for good in [
            "a",
            "a/b",
            "...",
            "a b/ü.txt",
            "C:x",
            "a\\b",
            "con",
            &part,
            &longest,
        ] {
            assert_eq!(good.parse::<RelPath>().unwrap().as_str(), good);
        }
        let longer = longest.clone() + "a";
        for bad in [
            "", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/../b", "a/./b", "a\0", &long,
            &longer,
        ] {
            assert!(bad.parse::<RelPath>().is_err(), "{bad:?}");
        }
        assert_eq!(
            "a/b".parse::<RelPath>().unwrap().under(Path::new("/out")),
            Path::new("/out/a/b")
        );
    }
}
