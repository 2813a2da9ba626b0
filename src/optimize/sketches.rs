//! Sketches of tensors that have none: stored by an older version, or lost.

use rayon::prelude::*;

use super::Run;
use crate::error::{ErrorKind, Result};
use crate::sketch::{self, Places, Sampler, Sketch};
use crate::store::StoreWriter;
use crate::store::index::Record;

impl Run<'_> {
    /// Makes the sketches that are missing, from the decoded tensors.
    pub(super) fn make_sketches(&mut self) -> Result<()> {
        let lacks = |record: &&Record| {
            let applies = sketch::applies(record.dtype, record.raw_len);
            applies && self.catalog.get(&record.name).is_none()
        };
        let lacking: Vec<_> = self.index.values().filter(lacks).cloned().collect();
        let bytes = lacking.iter().map(|record| record.raw_len);
        if !lacking.is_empty() {
            self.monitor.begin("sketch", bytes.sum());
        }
        for record in lacking {
            match self.sketch(&record) {
                Ok(sketch) => {
                    self.report.sketches_made += 1;
                    let base = (record.depth > 0).then_some(record.base);
                    self.catalog.insert(sketch.clone(), record.depth, base);
                    if let Some(writer) = &mut self.writer {
                        writer.add_sketch(sketch);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Io => return Err(error),
                Err(error) => self.report.errors.push(error.to_string()),
            }
            self.monitor.advance(record.raw_len);
        }
        self.monitor.end();
        self.writer.as_mut().map_or(Ok(()), StoreWriter::barrier)
    }

    fn sketch(&self, record: &Record) -> Result<Sketch> {
        let object = self.reader.open(&record.name)?;
        let head = &object.file.frame.head;
        let elements = head.elements();
        let row_len = if head.row_len == 0 {
            elements
        } else {
            head.row_len
        };
        let places = Places::new(elements / row_len.max(1), row_len);
        let sampler = Sampler {
            dtype: head.dtype,
            elements,
            row_len,
            places: &places,
        };
        let take = |index: u64| {
            let (offset, length) = head.chunk_range(index);
            self.reader.buffers().with(length, |bytes| {
                self.reader.read_chunk(&record.name, index, bytes)?;
                Ok(sampler.take(offset / head.dtype.size() as u64, bytes))
            })
        };
        let chunks = (0..head.chunk_count()).into_par_iter().map(take);
        let parts: Vec<_> = self.pool.install(|| chunks.collect::<Result<_>>())?;
        Ok(sampler.join(record.name, parts))
    }
}
