//! `ModelList`: the text file of model ids, one a line.

use std::collections::HashMap;
use std::path::Path;

use super::warnings::Warnings;
use crate::error::{Error, Result};
use crate::name::ModelId;

/// The models to process, in the order of their file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelList {
    /// The ids, each once; there is at least one.
    pub models: Vec<ModelId>,
    /// Repeated ids, as sentences that name file and line.
    pub warnings: Vec<String>,
}

/// Parses the text of the list at `path`: blank lines and comments (`#` at the start of a line or after white space)
/// are skipped, a line may end in CR LF.
pub(super) fn parse(text: &str, path: &Path) -> Result<ModelList> {
    let mut models = Vec::new();
    let mut first_lines = HashMap::new();
    let mut warnings = Warnings::default();
    for (line, id) in (1_u64..)
        .zip(text.lines().map(without_comment))
        .filter(|(_, id)| !id.is_empty())
    {
        let id: ModelId = id
            .parse()
            .map_err(|error| fault(path, format!("line {line}: {error}")))?;
        if let Some(first) = first_lines.get(&id) {
            warnings.push(|| {
                format!(
                    "{}: line {line}: {id} is already on line {first}; it is taken once",
                    path.display()
                )
            });
        } else {
            first_lines.insert(id.clone(), line);
            models.push(id);
        }
    }
    if models.is_empty() {
        return Err(fault(path, "it names no model".to_owned()));
    }
    Ok(ModelList {
        models,
        warnings: warnings.into_vec(),
    })
}

fn without_comment(line: &str) -> &str {
    let comment = line.char_indices().scan(' ', |previous, (at, c)| {
        let starts = c == '#' && previous.is_whitespace();
        *previous = c;
        Some((at, starts))
    });
    let end = comment
        .into_iter()
        .find(|(_, starts)| *starts)
        .map_or(line.len(), |(at, _)| at);
    line.get(..end).unwrap_or(line).trim()
}

fn fault(path: &Path, reason: String) -> Error {
    Error::Config {
        path: path.to_path_buf(),
        key: String::new(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> std::result::Result<(Vec<String>, Vec<String>), String> {
        let list = parse(text, Path::new("m.txt")).map_err(|error| error.to_string())?;
        Ok((
            list.models.into_iter().map(String::from).collect(),
            list.warnings,
        ))
    }

    #[test]
    fn lines_comments_and_repeats() {
        let same: &[&str] = &["a/b", "c"];
        for text in [
            "a/b\nc",
            "a/b\r\nc\r\n",
            "\n# x\n a/b # base\n\t\nc\t# y # z\n#",
            "  a/b  \n\n\nc",
        ] {
            assert_eq!(
                parsed(text).unwrap(),
                (same.iter().map(ToString::to_string).collect(), vec![]),
                "{text:?}"
            );
        }
        let (models, warnings) = parsed("a\nb\n\na\n").unwrap();
        assert_eq!(models, ["a", "b"]);
        assert_eq!(
            warnings,
            ["m.txt: line 4: a is already on line 1; it is taken once"]
        );
    }

    #[test]
    fn faults_name_file_and_line() {
        for (text, message) in [
            (
                "a\n\n../b",
                "m.txt: line 3: \"../b\": not a model id: '--' and '..' are not allowed",
            ),
            (
                "a/b#c",
                "m.txt: line 1: \"a/b#c\": not a model id: only letters, digits, '-', '_', '.' and one '/' are allowed",
            ),
            (
                "a b",
                "m.txt: line 1: \"a b\": not a model id: only letters, digits, '-', '_', '.' and one '/' are allowed",
            ),
            ("# a\n\n", "m.txt: it names no model"),
            ("", "m.txt: it names no model"),
        ] {
            assert_eq!(parsed(text).unwrap_err(), message, "{text:?}");
        }
    }

    #[test]
    fn warnings_are_bounded() {
        let (models, warnings) = parsed(&"a\n".repeat(1000)).unwrap();
        assert_eq!((models.len(), warnings.len()), (1, 101));
        assert_eq!(warnings[100], "and 899 more warnings of this kind");
    }
}
