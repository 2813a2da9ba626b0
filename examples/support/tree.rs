//! Directory trees: what is in them, and whether two are the same.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The files below `directory` by their relative path, links followed.
pub fn files(directory: &Path) -> io::Result<BTreeMap<PathBuf, fs::Metadata>> {
    let mut found = BTreeMap::new();
    collect(directory, Path::new(""), &mut found)?;
    Ok(found)
}

fn collect(
    root: &Path,
    below: &Path,
    found: &mut BTreeMap<PathBuf, fs::Metadata>,
) -> io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let path = below.join(entry?.file_name());
        let metadata = fs::metadata(root.join(&path))?;
        if metadata.is_dir() {
            collect(root, &path, found)?;
        } else {
            found.insert(path, metadata);
        }
    }
    Ok(())
}

/// The bytes of all files below `directory`.
pub fn bytes(directory: &Path) -> io::Result<u64> {
    Ok(files(directory)?.values().map(fs::Metadata::len).sum())
}

/// What differs between two trees: files that only one has, contents, execute bits. Nothing if they are the same.
pub fn differences(expected: &Path, actual: &Path) -> io::Result<Vec<String>> {
    let mut theirs = files(actual)?;
    let mut found = Vec::new();
    for (path, metadata) in files(expected)? {
        let name = path.display();
        let Some(other) = theirs.remove(&path) else {
            found.push(format!("{name}: missing"));
            continue;
        };
        if metadata.permissions().mode() & 0o111 != other.permissions().mode() & 0o111 {
            found.push(format!("{name}: the execute bits differ"));
        }
        if metadata.len() != other.len()
            || !same_content(&expected.join(&path), &actual.join(&path))?
        {
            found.push(format!("{name}: the content differs"));
        }
    }
    found.extend(
        theirs
            .keys()
            .map(|path| format!("{}: not in the original", path.display())),
    );
    Ok(found)
}

fn same_content(one: &Path, other: &Path) -> io::Result<bool> {
    const PIECE: u64 = 4 << 20;
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let (mut left, mut right) = (Vec::new(), Vec::new());
    loop {
        left.clear();
        right.clear();
        (&mut one).take(PIECE).read_to_end(&mut left)?;
        (&mut other).take(PIECE).read_to_end(&mut right)?;
        if left != right {
            return Ok(false);
        }
        if left.is_empty() {
            return Ok(true);
        }
    }
}
