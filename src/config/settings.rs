//! The keys of `config.json`: checked one by one, with errors that name the key.

use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::nearest::nearest;

/// Every key there is.
const KEYS: [&str; 6] = [
    "model_dir",
    "storage_dir",
    "models_to_process",
    "base_ft_path",
    "threads",
    "zstd_level",
];

/// The entries of a `config.json`, known keys only and each once.
pub(super) struct Settings<'a> {
    path: &'a Path,
    entries: Vec<(String, Value)>,
}

impl<'a> Settings<'a> {
    pub(super) fn parse(text: &str, path: &'a Path) -> Result<Self> {
        let parsed = serde_json::from_str::<Entries>(text);
        let Entries(entries) = parsed
            .map_err(|error| fault(path, "", format!("not a JSON object of settings: {error}")))?;
        for (at, (key, _)) in entries.iter().enumerate() {
            if !KEYS.contains(&key.as_str()) {
                return Err(fault(path, key, unknown(key)));
            }
            if entries.iter().take(at).any(|(earlier, _)| earlier == key) {
                return Err(fault(path, key, "it is there twice"));
            }
        }
        Ok(Self { path, entries })
    }

    /// Returns a path, as it was written, if the key is there.
    pub(super) fn path(&self, key: &str) -> Result<Option<&str>> {
        let reason = match self.get(key) {
            None => return Ok(None),
            Some(Value::String(text)) => match path_fault(text) {
                None => return Ok(Some(text)),
                Some(reason) => reason.to_owned(),
            },
            Some(other) => format!("it has to be a path in quotes, not {}", shown(other)),
        };
        Err(fault(self.path, key, reason))
    }

    /// Returns a path that has to be there.
    pub(super) fn required_path(&self, key: &str) -> Result<&str> {
        self.path(key)?
            .ok_or_else(|| fault(self.path, key, "it is missing"))
    }

    /// Returns a whole number from `low` to `high`, if the key is there.
    pub(super) fn number(&self, key: &str, low: u64, high: u64) -> Result<Option<u64>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match value
            .as_u64()
            .filter(|number| (low..=high).contains(number))
        {
            Some(number) => Ok(Some(number)),
            None => Err(fault(
                self.path,
                key,
                format!(
                    "it has to be a whole number from {low} to {high}, not {}",
                    shown(value)
                ),
            )),
        }
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.entries
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value)
    }
}

pub(super) fn fault(path: &Path, key: &str, reason: impl Into<String>) -> Error {
    Error::Config {
        path: path.to_path_buf(),
        key: key.to_owned(),
        reason: reason.into(),
    }
}

fn unknown(key: &str) -> String {
    match nearest(key, KEYS).first() {
        Some(known) => format!("there is no such setting; did you mean {known:?}?"),
        None => format!(
            "there is no such setting; the settings are {}",
            KEYS.join(", ")
        ),
    }
}

fn path_fault(text: &str) -> Option<&'static str> {
    match text {
        "" => Some("it is empty"),
        _ if text.contains('\0') => Some("it has a NUL"),
        _ if text == "~" || text.starts_with("~/") => {
            Some("'~' has no meaning here; write the path in full")
        }
        _ => None,
    }
}

/// Shows a value in an error, whatever its size.
fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "an object".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::String(text) if text.len() > 60 => "a long text".to_owned(),
        scalar => scalar.to_string(),
    }
}

/// A JSON object with its keys in order, doubles included; `serde_json::Map` would keep only the last of them.
struct Entries(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Entries(entries))
    }
}
