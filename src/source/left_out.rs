//! `LeftOut`: the note of a download that was told to leave files out, kept beside the models.
//!
//! It lies outside the model's directory, for what is in there is the model's content.
#![expect(
    clippy::disallowed_methods,
    reason = "writes beside the models, not to a store"
)]

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::file::open_without_links;
use crate::count::counted;
use crate::error::{Error, Result};
use crate::name::{ModelId, RelPath};

/// What downloads keep their own files in, below the models' directory; no model can be called so.
pub const DOWNLOADS: &str = ".downloads";
/// The longest note, in bytes.
const MAX_NOTE_BYTES: u64 = 64 << 20;
/// Files that a message names.
const NAMED_FILES: usize = 3;

/// The files of a model that a download left out, as `.downloads/org--name.json` has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// The branch, tag or commit that was asked for.
    pub revision: String,
    /// The commit that it stood for: what is fetched later has to be of the same.
    pub commit: String,
    /// The files; those that are there all the same were fetched since.
    pub files: Vec<RelPath>,
}

impl LeftOut {
    /// Reads the note on a model; `None` if there is none.
    ///
    /// # Errors
    /// Fails where it cannot be read or understood.
    pub fn read(model_dir: &Path, id: &ModelId) -> Result<Option<Self>> {
        let path = place(model_dir, id);
        if let Err(ErrorKind::NotFound | ErrorKind::NotADirectory) =
            path.symlink_metadata().map_err(|error| error.kind())
        {
            return Ok(None);
        }
        let mut text = Vec::new();
        open_without_links(&path)?
            .take(MAX_NOTE_BYTES)
            .read_to_end(&mut text)
            .map_err(Error::io("read", &path))?;
        serde_json::from_slice(&text).map(Some).map_err(|error| {
            Error::input(
                &path,
                format!("not the note of a download ({error}); delete it, and the model's directory if files are missing"),
            )
        })
    }

    /// Writes the note, or removes it if nothing is left out.
    ///
    /// # Errors
    /// Fails where the disk does.
    pub fn save(&self, model_dir: &Path, id: &ModelId) -> Result<()> {
        let path = place(model_dir, id);
        if self.files.is_empty() {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    Err(Error::io("remove", &path)(error))
                }
                _ => Ok(()),
            };
        }
        let folder = model_dir.join(DOWNLOADS);
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        let written = path.with_extension("json.part");
        let write = || {
            let mut file = File::create(&written)?;
            serde_json::to_writer_pretty(&mut file, self)?;
            file.sync_all()?;
            fs::rename(&written, &path)?;
            File::open(&folder)?.sync_all()
        };
        write().map_err(Error::io("write", &path))
    }

    /// Keeps the files for which `keep` holds.
    #[must_use]
    pub fn filtered(mut self, keep: impl FnMut(&RelPath) -> bool) -> Self {
        self.files.retain(keep);
        self
    }

    /// Keeps the files that are not in `directory`.
    #[must_use]
    pub fn absent_from(self, directory: &Path) -> Self {
        self.filtered(|path| path.under(directory).symlink_metadata().is_err())
    }
}

/// Counts the files and names the first, for messages.
impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.files.iter().take(NAMED_FILES);
        let names: Vec<_> = names.map(RelPath::as_str).collect();
        let more = if self.files.len() > NAMED_FILES {
            ", ..."
        } else {
            ""
        };
        let count = counted(self.files.len(), "file");
        write!(f, "{count} ({}{more})", names.join(", "))
    }
}

fn place(model_dir: &Path, id: &ModelId) -> PathBuf {
    model_dir.join(DOWNLOADS).join(id.joined("--") + ".json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(files: &[&str]) -> LeftOut {
        LeftOut {
            revision: "main".into(),
            commit: "0".repeat(40),
            files: files.iter().map(|path| path.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn a_note_is_kept_until_nothing_is_left_out() {
        let temp = tempfile::TempDir::new().unwrap();
        let id = "org/name".parse().unwrap();
        assert_eq!(LeftOut::read(temp.path(), &id).unwrap(), None);
        note(&[]).save(temp.path(), &id).unwrap();
        let written = note(&["a/b", "c"]);
        written.save(temp.path(), &id).unwrap();
        assert_eq!(
            LeftOut::read(temp.path(), &id).unwrap(),
            Some(written.clone())
        );
        fs::create_dir(temp.path().join("a")).unwrap();
        fs::write(temp.path().join("a/b"), "").unwrap();
        assert_eq!(written.absent_from(temp.path()), note(&["c"]));
        note(&[]).save(temp.path(), &id).unwrap();
        assert_eq!(LeftOut::read(temp.path(), &id).unwrap(), None);
    }

    #[test]
    fn a_note_that_is_none_is_refused() {
        let temp = tempfile::TempDir::new().unwrap();
        let id = "org/name".parse().unwrap();
        fs::create_dir(temp.path().join(DOWNLOADS)).unwrap();
        for text in [
            "",
            "[]",
            r#"{"revision": "main", "commit": "0", "files": ["../x"]}"#,
        ] {
            fs::write(temp.path().join(".downloads/org--name.json"), text).unwrap();
            let error = LeftOut::read(temp.path(), &id).unwrap_err().to_string();
            assert!(error.contains("org--name.json: not the note"), "{error}");
        }
    }

    #[test]
    fn a_message_names_the_first_files() {
        for (files, text) in [
            (&["a"][..], "1 file (a)"),
            (&["a", "b", "c", "d"], "4 files (a, b, c, ...)"),
        ] {
            assert_eq!(note(files).to_string(), text);
        }
    }
}
