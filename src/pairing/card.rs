//! Hints in a model's own files: `base_model` in the front matter of its card, `_name_or_path` in its config.
//!
//! Both are what people and programs wrote, so anything may be there: what is no model id is no hint.

use crate::name::ModelId;
use crate::source::Listing;

/// Bytes of a file that are looked at.
pub const MAX_BYTES: u64 = 64 << 10;
/// Hints that are taken from one card.
const MAX_HINTS: usize = 8;

/// Returns the models that a card (`README.md`) names as `base_model`, as a value or a list, in the YAML between the
/// first two lines of `---`.
pub fn of_card(text: &str) -> Vec<ModelId> {
    let mut lines = text.trim_start_matches('\u{feff}').lines();
    if lines.next().map(str::trim_end) != Some("---") {
        return Vec::new();
    }
    let matter = lines.take_while(|line| !["---", "..."].contains(&line.trim_end()));
    let mut models = Vec::new();
    let mut listed = false;
    for line in matter {
        let indented = line.starts_with([' ', '\t', '-']);
        let value = match line.strip_prefix("base_model:") {
            Some(value) => {
                listed = value.trim().is_empty();
                value
            }
            None if listed && indented => line.trim().strip_prefix('-').unwrap_or_default(),
            None => {
                listed &= line.trim().is_empty();
                continue;
            }
        };
        let inner = value.trim().trim_start_matches('[').trim_end_matches(']');
        models.extend(inner.split(',').filter_map(model));
    }
    models.truncate(MAX_HINTS);
    models
}

/// Returns the model that a model's `config.json` names as what it was made from.
pub fn of_config(text: &str) -> Option<ModelId> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    model(value.get("_name_or_path")?.as_str()?)
}

/// Returns the models that the card and the config in a model's directory name, each once, the card's first.
///
/// A file that cannot be read names none; whoever reads it for its bytes says so.
pub fn of_listing(listing: &Listing) -> Vec<ModelId> {
    let card = head(listing, "README.md").map(|text| of_card(&text));
    let config = head(listing, "config.json").and_then(|text| of_config(&text));
    let mut models = Vec::new();
    for model in card.into_iter().flatten().chain(config) {
        if !models.contains(&model) {
            models.push(model);
        }
    }
    models
}

/// The first [`MAX_BYTES`] of a file, as text.
fn head(listing: &Listing, path: &str) -> Option<String> {
    let mut files = listing.files.iter();
    let file = files.find(|file| file.path.as_str() == path)?;
    let mut bytes = vec![0; usize::try_from(file.size.min(MAX_BYTES)).ok()?];
    file.open().ok()?.read_exact_at(0, &mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn model(text: &str) -> Option<ModelId> {
    let text = text.split(" #").next().unwrap_or_default().trim();
    let text = text.trim_matches(['"', '\'']);
    text.contains('/').then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_name_bases_in_many_ways() {
        for (matter, models) in [
            ("base_model: acme/base", "acme/base"),
            (
                "tags:\n- x/y\nbase_model: \"acme/base\"  # the best\nlicense: mit",
                "acme/base",
            ),
            ("base_model:\n- a/b\n- 'c/d'\ntags:\n- e/f", "a/b c/d"),
            ("base_model:\n  - a/b\n\n  - c/d", "a/b c/d"),
            ("base_model: [a/b, c/d]", "a/b c/d"),
            ("base_model_relation: finetune", ""),
            ("  base_model: nested/one", ""),
            ("base_model:", ""),
            ("base_model: {a: b}", ""),
            ("base_model: ../../etc", ""),
            ("base_model: /mnt/models/base", ""),
            ("base_model: a/b/c", ""),
            ("base_model: gpt2", ""),
            ("- [\n\t: {{{{ base_model: &x *x", ""),
        ] {
            let names = |text: &str| {
                of_card(text)
                    .iter()
                    .map(ModelId::to_string)
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            assert_eq!(
                names(&format!("---\n{matter}\n---\nbase_model: z/z\n")),
                models,
                "{matter}"
            );
            assert_eq!(
                names(&format!(
                    "---\r\n{}\r\n---\r\n",
                    matter.replace('\n', "\r\n")
                )),
                models,
                "{matter}"
            );
            assert_eq!(names(&format!("# Title\n---\n{matter}\n---\n")), "");
        }
        let many: Vec<_> = (0..1000).map(|at| format!("- a/b{at}\n")).collect();
        assert_eq!(
            of_card(&format!("---\nbase_model:\n{}", many.concat())).len(),
            MAX_HINTS
        );
    }

    #[test]
    fn configs_name_what_they_were_made_from() {
        for (text, model) in [
            (r#"{"_name_or_path": "acme/base"}"#, Some("acme/base")),
            (r#"{"_name_or_path": "/home/me/ckpt"}"#, None),
            (r#"{"_name_or_path": "./out"}"#, None),
            (r#"{"_name_or_path": ""}"#, None),
            (r#"{"_name_or_path": 7}"#, None),
            (r#"["_name_or_path"]"#, None),
            ("{", None),
        ] {
            assert_eq!(
                of_config(text).map(|id| id.to_string()).as_deref(),
                model,
                "{text}"
            );
        }
        let deep = "[".repeat(60_000);
        assert_eq!(of_config(&deep), None);
    }
}
