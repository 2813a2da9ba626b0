//! The log of sketches: a record a tensor, appended as objects become durable.
//!
//! It only helps to find bases. What is damaged is passed over, and dropped by the next writer; `optimize` makes anew
//! what is not there.

use std::collections::HashMap;
use std::io;

use super::Store;
use crate::error::{Error, Result};
use crate::hash::Hash;
use crate::sketch::{RECORD_LEN, Sketch};

/// Bytes of the log that are read at a time: whole records.
const PART_BYTES: u64 = 2048 * RECORD_LEN as u64;

/// What the log holds.
#[derive(Debug, Default)]
pub struct Sketches {
    /// The sketches in the order of the log, one an object.
    pub all: Vec<Sketch>,
    /// Records that are damaged or of another version.
    pub refused: u64,
}

impl Store {
    /// Reads the log of sketches.
    pub fn sketches(&self) -> Result<Sketches> {
        let path = self.layout.sketch_log();
        let file = match self.disk.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Sketches::default()),
            other => other.map_err(Error::io("open", &path))?,
        };
        let len = file.len().map_err(Error::io("read", &path))?;
        let mut found = Sketches::default();
        let mut places = HashMap::new();
        let mut at = 0;
        while at < len {
            let part = (len - at).min(PART_BYTES);
            let mut bytes = vec![0; usize::try_from(part).unwrap_or(0)];
            file.read_exact_at(&mut bytes, at)
                .map_err(Error::io("read", &path))?;
            for record in bytes.chunks(RECORD_LEN) {
                match Sketch::parse(record) {
                    Some(sketch) => found.add(sketch, &mut places),
                    None => found.refused += 1,
                }
            }
            at += part;
        }
        Ok(found)
    }
}

impl Sketches {
    /// A later sketch replaces an earlier one of the same object.
    fn add(&mut self, sketch: Sketch, places: &mut HashMap<Hash, usize>) {
        let place = *places.entry(sketch.name).or_insert(self.all.len());
        match self.all.get_mut(place) {
            Some(earlier) => *earlier = sketch,
            None => self.all.push(sketch),
        }
    }

    /// Serialises the log.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.all.iter().flat_map(Sketch::to_bytes).collect()
    }
}
