//! What is left when the files are gone: directories, and names of revisions.
#![expect(
    clippy::disallowed_methods,
    reason = "deletes models' own files, not those of a store"
)]

use std::fs;
use std::path::Path;

use super::blobs::Blobs;
use crate::source::{Listing, ModelDir, SourceFile};

/// Removes directories that are empty now. One that is not, or cannot be removed, stays: that is no failure.
pub fn remove_directories(directory: &ModelDir, listing: &Listing, blobs: &Blobs) {
    let files = listing
        .files
        .iter()
        .map(|file: &SourceFile| file.path.under(directory.root()));
    let empty = listing
        .empty_dirs
        .iter()
        .map(|dir| dir.under(directory.root()).join("x"));
    let mut directories: Vec<_> = files
        .chain(empty)
        .flat_map(|path| {
            path.ancestors()
                .skip(1)
                .map(Path::to_path_buf)
                .collect::<Vec<_>>()
        })
        .filter(|path| path.starts_with(directory.root()) && path != directory.root())
        .collect();
    directories.sort_unstable();
    directories.dedup();
    for path in directories.iter().rev() {
        let _ = fs::remove_dir(path);
    }
    if blobs.folder.is_none() {
        let _ = fs::remove_dir(directory.root());
    }
}

/// Removes what is left of a cache folder when all its snapshots are stored and gone.
///
/// `refs/main` goes when the directory of its snapshot is the last one, so that whoever looks on the way finds a model
/// without files, not a name of nothing.
pub fn remove_cache(cache: &Path, blobs: &Blobs) {
    let is_empty = |folder: &Path| fs::read_dir(folder).is_ok_and(|mut left| left.next().is_none());
    let snapshots = cache.join("snapshots");
    let left = fs::read_dir(&snapshots).into_iter().flatten().flatten();
    let mut left: Vec<_> = left.map(|entry| entry.path()).collect();
    if !blobs.used.is_empty() || !left.iter().all(|snapshot| is_empty(snapshot)) {
        return;
    }
    let names = left.iter().filter_map(|path| path.file_name()?.to_str());
    let names: Vec<_> = names.map(str::to_owned).collect();
    let refs = cache.join("refs");
    let main = Some(refs.join("main")).filter(|main| main.is_file());
    let main = main.and_then(|main| fs::read_to_string(main).ok());
    let main = main.unwrap_or_default();
    left.sort_unstable_by_key(|path| path.ends_with(main.trim_ascii()));
    let last = left.pop();
    left.iter().for_each(|path| drop(fs::remove_dir(path)));
    remove_refs(&refs, &names);
    for path in last.iter().chain([&snapshots, &cache.join("blobs")]) {
        let _ = fs::remove_dir(path);
    }
    let _ = fs::remove_dir(cache);
}

/// Removes names of revisions that are gone, and their directories if nothing else is in them.
fn remove_refs(directory: &Path, commits: &[String]) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let names_one = || {
            let text = fs::read_to_string(&path);
            text.is_ok_and(|text| commits.iter().any(|commit| *commit == text.trim_ascii()))
        };
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => remove_refs(&path, commits),
            Ok(kind) if kind.is_file() && names_one() => {
                let _ = fs::remove_file(&path);
            }
            _ => {}
        }
    }
    let _ = fs::remove_dir(directory);
}
