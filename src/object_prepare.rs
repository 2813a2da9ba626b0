//! Finds out about an object what its chunks are encoded with: factors, and what they have in common.

use crate::codec::{EncodeOptions, may_learn};
use crate::dtype::CHUNK_ELEMENTS;
use crate::error::{ErrorKind, Result};
use crate::object_common::{Extent, Pair};
use crate::object_factors::{Reading, Subject};
use crate::object_reader::ObjectReader;
use crate::object_writer::{Base, NewObject};

impl NewObject {
    /// Looks for factors that predict the object from its base, and for what its chunks have in common, given how it is
    /// read from a place in bytes on.
    ///
    /// `is_slow` tells that reading it means decoding it.
    pub fn prepare(
        &self,
        reader: &ObjectReader,
        options: &EncodeOptions,
        read: &Reading<'_>,
        is_slow: bool,
    ) -> Result<()> {
        if let Some(base) = &self.base {
            self.find_factors(base, reader, options, read, is_slow)?;
        }
        self.learn_common(reader, options, read, is_slow)
    }

    fn find_factors(
        &self,
        base: &Base,
        reader: &ObjectReader,
        options: &EncodeOptions,
        read: &Reading<'_>,
        is_slow: bool,
    ) -> Result<()> {
        let Self {
            dtype,
            row_len,
            raw_len,
            set_rows,
            ..
        } = *self;
        let is_partial = base.required(dtype, raw_len) != 0;
        let rows = is_partial.then(|| base.rows(row_len));
        let subject = Subject {
            dtype,
            row_len,
            raw_len,
            set_rows,
            covered: rows.as_deref(),
        };
        if !subject.is_tried(options) {
            return Ok(());
        }
        let read_base = |offset, out: &mut [u8]| reader.read_base(&base.parts, dtype, offset, out);
        self.preparation
            .run(subject, reader, options, read, &read_base, is_slow)
    }

    /// Of an object that its base covers in part, or of a stack of matrices, chunks have little in common, and less than two
    /// whole ones too little.
    fn learn_common(
        &self,
        reader: &ObjectReader,
        options: &EncodeOptions,
        read: &Reading<'_>,
        is_slow: bool,
    ) -> Result<()> {
        let base = self.base.as_ref();
        let is_partial = base.is_some_and(|base| base.required(self.dtype, self.raw_len) != 0);
        let extent = Extent {
            dtype: self.dtype,
            row_len: self.row_len,
            elements: self.raw_len / self.dtype.size() as u64,
        };
        let rows = extent.elements.checked_div(self.row_len).unwrap_or(0);
        let is_stack = (1..rows).contains(&self.set_rows);
        if is_partial
            || is_stack
            || extent.elements < 2 * CHUNK_ELEMENTS
            || !may_learn(options, self.dtype, self.row_len)
        {
            return Ok(());
        }
        let source = Source {
            object: self,
            reader,
            read,
            is_slow,
        };
        let factors = self.preparation.known().factors;
        let pools = (reader.workspaces(), reader.payloads());
        let learnt = match extent.learn(options.effort, &source, factors, pools) {
            // Encoding will find the same, and do without the base.
            Err(error) if error.kind() == ErrorKind::Corrupt => None,
            learnt => learnt?,
        };
        learnt
            .into_iter()
            .for_each(|common| self.preparation.keep_common(common));
        Ok(())
    }
}

/// A new object and its base while rows are read.
struct Source<'a> {
    object: &'a NewObject,
    reader: &'a ObjectReader,
    read: &'a Reading<'a>,
    is_slow: bool,
}

impl Pair for Source<'_> {
    fn has_base(&self) -> bool {
        self.object.base.is_some()
    }

    fn chunks(&self) -> Option<Vec<u64>> {
        let size = self.object.dtype.chunk_bytes() as u64;
        let kept = self.object.preparation.kept_chunks();
        kept.map(|offsets| offsets.iter().map(|offset| offset / size).collect())
    }

    fn is_slow(&self) -> bool {
        self.is_slow || self.has_base() && !self.object.preparation.has_copy()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        (self.read)(offset, out)
    }

    fn read_base(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let Some(base) = &self.object.base else {
            return Ok(());
        };
        let length = out.len();
        let is_copied = self
            .object
            .preparation
            .with_base(self.reader, offset, length, |copy| {
                copy.map(|copy| out.copy_from_slice(copy)).is_some()
            });
        if is_copied {
            return Ok(());
        }
        let dtype = self.object.dtype;
        self.reader.read_base(&base.parts, dtype, offset, out)
    }
}
