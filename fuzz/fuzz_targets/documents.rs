//! Any bytes in the place of a store's documents, with right checksums mostly, are refused, or mean one thing.
//!
//! The first byte says in which place the rest is put: marker, manifest, outline, index, sketches.
#![no_main]

#[path = "common/disk.rs"]
mod disk;

use std::path::Path;
use std::sync::Arc;

use disk::Files;
use zipllm::hash::Hash;
use zipllm::name::ModelId;
use zipllm::sketch::{RECORD_LEN, Sketch};
use zipllm::store::manifest::Manifest;
use zipllm::store::{Marker, Store, index, sealed};

/// The document, and the checksum that it should have.
fn seal(document: &[u8]) -> Vec<u8> {
    let body = document.strip_suffix(b"}").unwrap_or(document);
    let checksum = Hash::of(body);
    [body, format!(",\"checksum\":\"{checksum}\"}}\n").as_bytes()].concat()
}

fn store() -> (Files, Store) {
    let (files, root) = (Files::default(), Path::new("/store"));
    files.put(
        root.join("zipllm.json"),
        sealed::to_bytes(&Marker::new()).unwrap(),
    );
    let store = Store::open_on(Arc::new(files.clone()), root).unwrap();
    (files, store)
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((&mode, rest)) = input.split_first() else {
        return;
    };
    let bytes = if mode & 128 == 0 {
        seal(rest)
    } else {
        rest.to_vec()
    };
    match mode & 7 {
        0 => {
            let _ = Marker::parse(Path::new("zipllm.json"), &bytes);
        }
        1..=4 => manifest(bytes),
        5 => {
            if let Some(records) = index::parse(rest) {
                let again: Vec<u8> = records.iter().flat_map(index::Record::to_bytes).collect();
                assert_eq!(index::parse(&again).as_ref(), Some(&records));
            }
        }
        _ => sketches(rest),
    }
});

/// A manifest that is taken says the same when it is written again, and its paths stay inside.
fn manifest(bytes: Vec<u8>) {
    let id: ModelId = "org/name".parse().unwrap();
    let (files, store) = store();
    files.put(store.layout().manifest(&id, 1), bytes);
    let _ = store.outline(&id, 1);
    let Ok(Some(found)) = store.manifest(&id, 1) else {
        return;
    };
    assert!(found.model == id && found.version == 1);
    let again = sealed::to_bytes(&found).unwrap();
    assert_eq!(sealed::parse::<Manifest>(&again), Ok(found.clone()));
    let total: u64 = found.files.iter().map(|file| file.size).sum();
    assert_eq!(total, found.bytes);
    let out = Path::new("/out");
    for path in found
        .files
        .iter()
        .map(|file| &file.path)
        .chain(&found.empty_dirs)
    {
        let place = path.under(out);
        assert!(place.starts_with(out) && place != out);
        assert!(!place.components().any(|part| part.as_os_str() == ".."));
    }
}

fn sketches(bytes: &[u8]) {
    let (files, store) = store();
    files.put(store.layout().sketch_log(), bytes.to_vec());
    let found = store.sketches().unwrap();
    let records = bytes.len().div_ceil(RECORD_LEN) as u64;
    assert!(found.all.len() as u64 + found.refused <= records);
    for sketch in &found.all {
        assert_eq!(Sketch::parse(&sketch.to_bytes()).as_ref(), Some(sketch));
        let _ = zipllm::sketch::solo_bits(sketch);
        let _ = (sketch.fingerprint(), sketch.rows(), sketch.marks().len());
    }
    if let [first, second, ..] = &found.all[..] {
        let _ = zipllm::sketch::delta_bits(first, second);
        let _ = zipllm::sketch::shift(first, second);
    }
}
