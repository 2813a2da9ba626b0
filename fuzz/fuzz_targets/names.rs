//! Any text as a model's id, with a version, and as a path: what is taken stays where it belongs and is itself when written.
#![no_main]

use std::path::{Component, Path};

use zipllm::name::{ModelId, RelPath};
use zipllm::pairing::card;
use zipllm::restore::ModelVersion;
use zipllm::store::layout::Layout;

/// Tells whether `path` is below `root`, step by step downwards.
fn is_below(path: &Path, root: &Path, steps: Option<usize>) -> bool {
    let Ok(rest) = path.strip_prefix(root) else {
        return false;
    };
    let downwards = rest
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    downwards
        && steps.map_or(rest != Path::new(""), |steps| {
            rest.components().count() == steps
        })
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    let root = Path::new("/store");
    if let Ok(id) = text.parse::<ModelId>() {
        assert_eq!(id.to_string(), *text);
        let layout = Layout::new(root);
        assert!(is_below(&layout.model(&id), &layout.models(), Some(1)));
        assert!(is_below(
            &layout.manifest(&id, 7),
            &layout.models(),
            Some(2)
        ));
        assert!(is_below(&layout.scan(&id), &layout.scans(), Some(1)));
        let joined = id.joined("--");
        assert_eq!(
            joined.replacen("--", "/", 1),
            *text,
            "two ids have one directory"
        );
        assert!(is_below(
            &root.join(id.as_str()),
            root,
            Some(text.split('/').count())
        ));
    }
    if let Ok(path) = text.parse::<RelPath>() {
        assert_eq!(path.to_string(), *text);
        assert!(is_below(
            &path.under(root),
            root,
            Some(path.parts().count())
        ));
    }
    if let Ok(wanted) = text.parse::<ModelVersion>() {
        let again: ModelVersion = wanted.to_string().parse().unwrap();
        assert_eq!(again, wanted);
    }
    let _ = card::of_card(&text);
    let _ = card::of_config(&text);
});
