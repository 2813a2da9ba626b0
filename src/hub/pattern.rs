//! Which of a model's files to fetch: patterns as the hub's own tools know them.

/// Tells whether a path matches a pattern: `*` is any run of characters, `/` included, `?` is one character, and a
/// pattern that ends in `/` means everything below that directory.
pub(super) fn matches(pattern: &str, path: &str) -> bool {
    let mut pattern: Vec<char> = pattern.chars().collect();
    if pattern.last() == Some(&'/') {
        pattern.push('*');
    }
    let path: Vec<char> = path.chars().collect();
    let (mut p, mut s) = (0, 0);
    // The last star, and where in the path its run ends for now.
    let mut star = None;
    while s < path.len() {
        match (pattern.get(p), path.get(s)) {
            (Some('*'), _) => {
                star = Some((p, s));
                p += 1;
            }
            (Some(want), Some(have)) if want == have || *want == '?' => {
                p += 1;
                s += 1;
            }
            _ => match &mut star {
                Some((at, end)) => {
                    *end += 1;
                    (p, s) = (*at + 1, *end);
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|rest| *rest == '*')
}

/// Tells whether a path is to be fetched: one of `include` matches it, or there is none, and none of `exclude`.
pub(super) fn wanted(path: &str, include: &[String], exclude: &[String]) -> bool {
    let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, path));
    (include.is_empty() || any(include)) && !any(exclude)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, path, expected) in [
            ("*", "", true),
            ("*.json", "config.json", true),
            ("*.json", "a/b.json", true),
            ("*.json", "config.jsonl", false),
            ("config.json", "config.json", true),
            ("config.json", "a/config.json", false),
            ("onnx/", "onnx/model.onnx", true),
            ("onnx/", "onnx2/model.onnx", false),
            (
                "model-?????-of-*.safetensors",
                "model-00001-of-00002.safetensors",
                true,
            ),
            ("m*l*.bin", "model.bin", true),
            ("m*x*.bin", "model.bin", false),
            ("ü?", "üß", true),
            ("", "a", false),
            ("", "", true),
            ("a*a*a*a*a*b", &"a".repeat(3000), false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern:?} {path:?}");
        }
    }

    #[test]
    fn exclusion_wins() {
        let lists = |text: &str| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        for (include, exclude, expected) in [
            ("", "", true),
            ("*.bin", "", false),
            ("*.md *.json", "", true),
            ("", "*.json", false),
            ("*", "a/", false),
        ] {
            assert_eq!(
                wanted("a/x.json", &lists(include), &lists(exclude)),
                expected,
                "{include:?} {exclude:?}"
            );
        }
    }
}
