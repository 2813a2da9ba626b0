//! The manifest that a model's files are entered in, as it begins.

use crate::hash::Hash;
use crate::name::ModelId;
use crate::source::{Listing, SourceFile};
use crate::store::manifest::{FORMAT, FileEntry, Manifest};

/// A manifest of the files that were found, before anything is known of what is in them.
pub fn draft(model: &ModelId, commit: Option<&str>, listing: &Listing, version: u32) -> Manifest {
    let entry = |file: &SourceFile| FileEntry {
        path: file.path.clone(),
        size: file.size,
        blake3: Hash::of(&[]),
        executable: file.executable,
        segments: Vec::new(),
    };
    Manifest {
        format: FORMAT,
        model: model.clone(),
        version,
        commit: commit.map(str::to_owned),
        base: None,
        bases: Vec::new(),
        bytes: listing.files.iter().map(|file| file.size).sum(),
        files: listing.files.iter().map(entry).collect(),
        empty_dirs: listing.empty_dirs.clone(),
    }
}
