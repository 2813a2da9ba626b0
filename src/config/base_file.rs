//! The JSON of a base map, read entry by entry so that errors name the place and no second copy is held.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::warnings::Warnings;
use crate::error::{Error, Result};
use crate::name::ModelId;

/// Parses a base map to pairs of fine-tune and base, in file order, each fine-tune once.
pub(super) fn parse(
    text: &str,
    path: &Path,
    warnings: &mut Warnings,
) -> Result<Vec<(ModelId, ModelId)>> {
    let mut reader = Reader {
        path,
        warnings,
        base: String::new(),
        pairs: Vec::new(),
        bases: HashMap::new(),
        heads: HashSet::new(),
    };
    let mut json = serde_json::Deserializer::from_str(text);
    let outcome = (&mut json)
        .deserialize_map(Bases(&mut reader))
        .and_then(|()| json.end());
    match outcome {
        Ok(()) => Ok(reader.pairs),
        Err(error) => Err(Error::Config {
            path: path.to_path_buf(),
            key: reader.base,
            reason: error.to_string(),
        }),
    }
}

struct Reader<'a> {
    path: &'a Path,
    warnings: &'a mut Warnings,
    /// The key being read, for errors.
    base: String,
    pairs: Vec<(ModelId, ModelId)>,
    bases: HashMap<ModelId, ModelId>,
    heads: HashSet<ModelId>,
}

impl Reader<'_> {
    fn open_base(&mut self, base: &ModelId) {
        if !self.heads.insert(base.clone()) {
            self.warnings.push(|| {
                format!(
                    "{}: {base} is there twice as a base; both lists are taken",
                    self.path.display()
                )
            });
        }
    }

    fn add(&mut self, model: ModelId, base: &ModelId) {
        let Some(first) = self.bases.get(&model) else {
            self.bases.insert(model.clone(), base.clone());
            return self.pairs.push((model, base.clone()));
        };
        let path = self.path.display();
        self.warnings.push(|| {
            if first == base {
                format!("{path}: {model} is listed twice under {base}; it is taken once")
            } else {
                format!("{path}: {model} is listed under {first} and {base}; the first is taken")
            }
        });
    }
}

/// Reads the whole object.
struct Bases<'r, 'a>(&'r mut Reader<'a>);

impl<'de> Visitor<'de> for Bases<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of bases, each with a list of its fine-tunes")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            self.0.base.clone_from(&key);
            let base: ModelId = key.parse().map_err(de::Error::custom)?;
            self.0.open_base(&base);
            map.next_value_seed(FineTunes(&mut *self.0, &base))?;
            self.0.base.clear();
        }
        Ok(())
    }
}

/// Reads one base's list.
struct FineTunes<'r, 'a>(&'r mut Reader<'a>, &'r ModelId);

impl<'de> DeserializeSeed<'de> for FineTunes<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for FineTunes<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of model ids")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(model) = list.next_element::<ModelId>()? {
            self.0.add(model, self.1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> std::result::Result<(String, Vec<String>), String> {
        let mut warnings = Warnings::default();
        let pairs =
            parse(text, Path::new("ft.json"), &mut warnings).map_err(|error| error.to_string())?;
        let shown: Vec<String> = pairs
            .iter()
            .map(|(model, base)| format!("{model}<{base}"))
            .collect();
        Ok((shown.join(" "), warnings.into_vec()))
    }

    #[test]
    fn file_order_and_repeats() {
        for (text, expected, warning) in [
            ("{}", "", ""),
            (
                r#"{"o/b": ["o/x", "y"], "c": [], "d": ["a"]}"#,
                "o/x<o/b y<o/b a<d",
                "",
            ),
            (
                r#"{"b": ["x"], "a": ["x"]}"#,
                "x<b",
                "ft.json: x is listed under b and a; the first is taken",
            ),
            (
                r#"{"b": ["x", "x"]}"#,
                "x<b",
                "ft.json: x is listed twice under b; it is taken once",
            ),
            (
                r#"{"b": ["x"], "b": ["y"]}"#,
                "x<b y<b",
                "ft.json: b is there twice as a base; both lists are taken",
            ),
        ] {
            let (shown, warnings) = pairs(text).unwrap();
            assert_eq!(
                (shown.as_str(), warnings.join("|").as_str()),
                (expected, warning),
                "{text}"
            );
        }
    }

    #[test]
    fn faults_name_the_key_and_the_place() {
        for (text, message) in [
            ("", "ft.json: EOF while parsing a value at line 1 column 0"),
            (
                "[]",
                "ft.json: invalid type: sequence, expected an object of bases, each with a list of its fine-tunes at line 1 column 0",
            ),
            (
                r#"{"b": ["x"]} 1"#,
                "ft.json: trailing characters at line 1 column 14",
            ),
            (
                r#"{"b": "x"}"#,
                "ft.json: \"b\": invalid type: string \"x\", expected a list of model ids at line 1 column 9",
            ),
            (
                "{\"b\":\n [\"x\", 1]}",
                "ft.json: \"b\": invalid type: integer `1`, expected a string at line 2 column 8",
            ),
            (
                r#"{"b": {"x": 1}}"#,
                "ft.json: \"b\": invalid type: map, expected a list of model ids at line 1 column 6",
            ),
            (
                r#"{"b": ["../x"]}"#,
                "ft.json: \"b\": \"../x\": not a model id: '--' and '..' are not allowed at line 1 column 14",
            ),
            (
                r#"{"b b": []}"#,
                "ft.json: \"b b\": \"b b\": not a model id: only letters, digits, '-', '_', '.' and one '/' are allowed at line 1 column 6",
            ),
            (
                r#"{"b": ["x","#,
                "ft.json: \"b\": EOF while parsing a value at line 1 column 11",
            ),
        ] {
            assert_eq!(pairs(text).unwrap_err(), message, "{text}");
        }
    }
}
