//! The arrows between modules point only downwards, as the table in `src/lib.rs` says.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use std::fs;
use std::path::{Path, PathBuf};

/// The modules of each layer, lowest first, as the table has them.
fn layers(lib: &str) -> Vec<Vec<String>> {
    let rows = lib
        .lines()
        .filter(|line| line.starts_with("//! | ") && line.contains("[`"));
    let links = |row: &str| {
        let parts: Vec<_> = row.split("[`").skip(1).collect();
        parts
            .iter()
            .map(|part| part.split('`').next().unwrap().to_owned())
            .collect()
    };
    rows.map(links).collect()
}

/// The modules of the crate that a source file names.
fn named(source: &str) -> Vec<String> {
    let starts = source.split("crate::").skip(1);
    let grouped = starts.flat_map(|rest| match rest.strip_prefix('{') {
        Some(group) => group
            .split('}')
            .next()
            .unwrap()
            .split(',')
            .map(str::trim)
            .collect(),
        None => vec![rest],
    });
    let word = |rest: &str| {
        let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '_');
        rest[..end.unwrap_or(rest.len())].to_owned()
    };
    grouped.map(word).filter(|word| !word.is_empty()).collect()
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                sources(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

/// Every arrow that points upwards, or between parts that must not see each other.
fn faults(layers: &[Vec<String>], user: &str, source: &str) -> Vec<String> {
    let layer = |module: &str| {
        layers
            .iter()
            .position(|layer| layer.iter().any(|m| m == module))
    };
    let apart = |other: &str| [(user, other), (other, user)].contains(&("codec", "store"));
    let allowed =
        |other: &str| layer(other).is_some_and(|to| Some(to) <= layer(user)) && !apart(other);
    let used = named(source)
        .into_iter()
        .filter(|other| other != user && !allowed(other));
    used.map(|other| format!("{user} uses {other}")).collect()
}

#[test]
fn arrows_point_only_downwards() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let layers = layers(&fs::read_to_string(src.join("lib.rs")).unwrap());
    assert_eq!(layers.len(), 6, "{layers:?}");
    let mut found = Vec::new();
    for path in sources(&src) {
        let inner = path.strip_prefix(&src).unwrap();
        let first = inner.iter().next().unwrap().to_str().unwrap();
        let module = first.trim_end_matches(".rs");
        if module == "lib" || module == "bin" {
            continue;
        }
        assert!(
            layers.iter().flatten().any(|m| m == module),
            "{module} is not in the table"
        );
        found.extend(faults(&layers, module, &fs::read_to_string(&path).unwrap()));
    }
    assert_eq!(found, [""; 0]);
}

#[test]
fn a_wrong_arrow_is_seen() {
    let layers =
        layers(&fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/lib.rs")).unwrap());
    for (user, source, fault) in [
        ("store", "use crate::codec::find;", "store uses codec"),
        (
            "codec",
            "fn f(x: &crate::store::Store) {}",
            "codec uses store",
        ),
        (
            "hash",
            "use crate::{dtype::DType, check};",
            "hash uses check",
        ),
        (
            "restore",
            "use crate::config::Config;",
            "restore uses config",
        ),
    ] {
        assert_eq!(faults(&layers, user, source), [fault]);
    }
    let fine = "use crate::error::{Error, Result};\nuse crate::hash::Hash;";
    assert_eq!(faults(&layers, "store", fine), [""; 0]);
}
