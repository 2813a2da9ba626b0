//! `Listing`: every file of a model directory, and every directory without any.

use std::ffi::{OsStr, OsString};
use std::fs::{FileType, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::io::Errno;

use super::{ModelDir, SourceFile, Stamp};
use crate::error::{Error, Result};
use crate::name::RelPath;

/// The most entries that a model directory may have, for links among directories can make any number.
/// The Hub advises against repositories of more files ("Storage limits" in its documentation).
pub const MAX_ENTRIES: usize = 100_000;

/// What a model directory holds, sorted by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The regular files, those behind symlinks included.
    pub files: Vec<SourceFile>,
    /// The directories that hold nothing of what is stored.
    pub empty_dirs: Vec<RelPath>,
    /// What was passed over, for the user to read.
    pub warnings: Vec<String>,
}

impl ModelDir {
    /// Lists every file of the directory, at any depth.
    ///
    /// Symlinks count as what they lead to. FIFOs, sockets and devices are passed over with a warning.
    ///
    /// # Errors
    ///
    /// Fails, naming the path, where a directory cannot be read, a symlink leads out of the directory, to
    /// nothing or in a circle, a name is not UTF-8 or longer than a path in a model may be, or there are
    /// more than [`MAX_ENTRIES`].
    pub fn scan(&self) -> Result<Listing> {
        self.scan_up_to(MAX_ENTRIES)
    }

    pub(super) fn scan_up_to(&self, max_entries: usize) -> Result<Listing> {
        let mut scan = Scan {
            dir: self,
            listing: Listing::default(),
            pending: Vec::new(),
            entries: 0,
            max_entries,
        };
        scan.push(None, self.canonical.clone(), None)?;
        while let Some(frame) = scan.pending.pop() {
            scan.directory(&frame)?;
        }
        let mut listing = scan.listing;
        listing.files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        listing.empty_dirs.sort_unstable();
        listing.warnings.sort_unstable();
        Ok(listing)
    }
}

/// A directory to be listed, and those that it was reached through.
struct Frame {
    /// The path within the model; `None` for the model directory itself.
    path: Option<RelPath>,
    canonical: PathBuf,
    parent: Option<Rc<Frame>>,
}

struct Scan<'a> {
    dir: &'a ModelDir,
    listing: Listing,
    pending: Vec<Rc<Frame>>,
    entries: usize,
    max_entries: usize,
}

impl Scan<'_> {
    fn directory(&mut self, frame: &Rc<Frame>) -> Result<()> {
        let mut is_empty = true;
        for name in self.names(&frame.canonical)? {
            let path = rel_path(frame, &name)?;
            is_empty &= !self.entry(frame, path, frame.canonical.join(&name))?;
        }
        if let (true, Some(path)) = (is_empty, &frame.path) {
            self.listing.empty_dirs.push(path.clone());
        }
        Ok(())
    }

    /// Returns the names in a directory, sorted, so that the first error is the same in every run.
    fn names(&mut self, directory: &Path) -> Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in directory.read_dir().map_err(Error::io("list", directory))? {
            names.push(entry.map_err(Error::io("list", directory))?.file_name());
            self.entries += 1;
            if self.entries > self.max_entries {
                let reason = format!(
                    "it has more than {} entries, counting those behind links",
                    self.max_entries
                );
                return Err(Error::input(&self.dir.root, reason));
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Takes in one entry of a directory; returns false if it is passed over.
    fn entry(&mut self, frame: &Rc<Frame>, path: RelPath, place: PathBuf) -> Result<bool> {
        let mut metadata = look_at(&place)?;
        let mut absolute = place;
        if metadata.is_symlink() {
            absolute = self.resolve(&absolute)?;
            metadata = look_at(&absolute)?;
        }
        if metadata.is_dir() {
            self.push(Some(path), absolute, Some(frame))?;
        } else if metadata.is_file() {
            self.listing
                .files
                .push(source_file(path, absolute, &metadata));
        } else {
            let kind = kind_name(metadata.file_type());
            self.listing
                .warnings
                .push(format!("{path}: {kind} is not stored"));
            return Ok(false);
        }
        Ok(true)
    }

    fn push(
        &mut self,
        path: Option<RelPath>,
        canonical: PathBuf,
        parent: Option<&Rc<Frame>>,
    ) -> Result<()> {
        let mut above = parent;
        while let Some(frame) = above {
            if frame.canonical == canonical {
                let place = path
                    .as_ref()
                    .map_or_else(|| self.dir.root.clone(), |path| path.under(&self.dir.root));
                return Err(Error::input(
                    place,
                    format!("leads back to {}, which it is in", canonical.display()),
                ));
            }
            above = frame.parent.as_ref();
        }
        self.pending.push(Rc::new(Frame {
            path,
            canonical,
            parent: parent.cloned(),
        }));
        Ok(())
    }

    /// Resolves a symlink; it has to lead to something inside the boundary.
    fn resolve(&self, link: &Path) -> Result<PathBuf> {
        let target = link.read_link().map_err(Error::io("read the link", link))?;
        let target = target.display();
        let canonical = link.canonicalize().map_err(|error| {
            let fate = match Errno::from_io_error(&error) {
                Some(Errno::NOENT) => "which is not there",
                Some(Errno::LOOP) => "and from there in a circle",
                _ => return Error::io("resolve the link", link)(error),
            };
            Error::input(link, format!("the link leads to {target}, {fate}"))
        })?;
        if canonical.starts_with(&self.dir.boundary) {
            return Ok(canonical);
        }
        let reason = format!(
            "the link to {target} leads out of {}",
            self.dir.boundary.display()
        );
        Err(Error::input(
            link,
            format!("{reason}; put the file itself in its place"),
        ))
    }
}

fn look_at(path: &Path) -> Result<Metadata> {
    path.symlink_metadata().map_err(Error::io("look at", path))
}

fn source_file(path: RelPath, absolute: PathBuf, metadata: &Metadata) -> SourceFile {
    SourceFile {
        path,
        absolute,
        size: metadata.size(),
        executable: metadata.mode() & 0o100 != 0,
        stamp: Stamp::of(metadata),
    }
}

fn rel_path(frame: &Frame, name: &OsStr) -> Result<RelPath> {
    let Some(text) = name.to_str() else {
        let reason = format!(
            "the name \"{}\" is not UTF-8 and cannot be kept; rename the file",
            name.as_encoded_bytes().escape_ascii()
        );
        return Err(Error::input(&frame.canonical, reason));
    };
    match &frame.path {
        None => text.parse(),
        Some(above) => format!("{above}/{text}").parse(),
    }
}

fn kind_name(kind: FileType) -> &'static str {
    if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}
