//! One model: its spans looked at, held against what is there, and sized.

use std::collections::HashSet;

use rayon::prelude::*;

use super::known::{Source, hash};
use super::size::{Plain, Sampled, frame_bytes};
use super::sparse::Subject;
use super::{Run, TensorEstimate};
use crate::checkpoint::{Span, segment};
use crate::codec::Class;
use crate::error::Result;
use crate::hash::Hash;
use crate::name::ModelId;
use crate::pairing::choose::by_estimate;
use crate::pairing::{Align, BaseTensors, Candidate, Why};
use crate::report::Savings;
use crate::sketch::{self, Sketch};
use crate::source::SourceFile;
use crate::store::manifest::{Manifest, Segment, Tensor};

/// Models whose tensors are looked up by name because other tensors were paired with theirs.
const MAX_FAMILY: usize = 4;

/// A model on its way through the estimate.
pub struct Draft<'a> {
    /// What it would become, its segments filled in file by file.
    pub manifest: &'a mut Manifest,
    /// Models that it may be made from, the surest first, and why.
    pub models: Vec<(ModelId, BaseTensors, Why)>,
    /// New tensors and their bases.
    pub new: Vec<(Sketch, Option<Hash>)>,
    /// Where the bytes would go.
    pub savings: Savings,
    /// Bytes of its object files.
    pub object_bytes: u64,
    /// Tensors in the order of the files.
    pub tensors: Vec<TensorEstimate>,
    /// What is to be said of its files.
    pub warnings: Vec<String>,
}

/// A span that was looked at.
struct Looked {
    span: Span,
    sampled: Option<Sampled>,
    /// Its name, if it was read whole.
    name: Option<Hash>,
    /// The name it is known by if it is not new.
    known_as: Option<Hash>,
}

/// What a new span would take.
struct Sized {
    bytes: u64,
    class: Class,
    base: Option<Hash>,
    why: Option<Why>,
}

impl Looked {
    /// The name that it has in the estimate.
    fn called(&self) -> Option<Hash> {
        let sampled = self.sampled.as_ref().map(|sampled| sampled.sketch.name);
        self.known_as.or(self.name).or(sampled)
    }

    fn tensor(&self) -> Option<Tensor> {
        self.span.tensor.as_ref().map(|tensor| Tensor {
            name: tensor.name.clone(),
            dtype: tensor.dtype.clone(),
            shape: tensor.shape.clone(),
        })
    }
}

impl Draft<'_> {
    /// Looks at one file, and enters its spans.
    pub fn file(&mut self, run: &mut Run<'_>, at: usize, found: &SourceFile) -> Result<()> {
        let source = Source {
            found,
            open: found.open()?.into(),
        };
        let layout = segment(found.path.as_str(), &*source.open)?;
        let warning = layout.warning.iter();
        self.warnings
            .extend(warning.map(|warning| format!("{}: {warning}", found.path)));
        let pool = run.pool.clone();
        let looked = pool.install(|| run.look(&source, layout.spans))?;
        let sized = pool.install(|| {
            let size = |looked: &Looked| run.size(self, &source, looked);
            looked.par_iter().map(size).collect::<Result<Vec<_>>>()
        })?;
        source.open.check_unchanged()?;
        for (looked, sized) in looked.iter().zip(sized) {
            self.enter(run, at, found, looked, sized);
        }
        self.count_file(at, &looked);
        Ok(())
    }

    fn enter(
        &mut self,
        run: &Run<'_>,
        at: usize,
        found: &SourceFile,
        looked: &Looked,
        sized: Option<Sized>,
    ) {
        let Some(called) = looked.called() else {
            return;
        };
        let length = looked.span.length;
        let stored = sized.as_ref().map_or(0, |sized| sized.bytes);
        let base = match &sized {
            Some(sized) => sized.base,
            None => run.known.base_of(&called),
        };
        if let Some(sized) = &sized {
            self.object_bytes += stored;
            match sized.class {
                Class::Delta => self.savings.delta.add(length, stored),
                Class::Solo => self.savings.solo.add(length, stored),
                Class::Plain => self.savings.plain.add(length, stored),
            }
            let sketch = looked.sampled.iter().map(|sampled| &sampled.sketch);
            self.new
                .extend(sketch.map(|sketch| (named(sketch, called), base)));
            self.note_family(run, sized);
        }
        let tensor = looked.tensor();
        self.tensors
            .extend(tensor.iter().map(|tensor| TensorEstimate {
                file: found.path.clone(),
                tensor: tensor.name.clone(),
                bytes: length,
                is_known: sized.is_none(),
                stored_bytes: stored,
                base: None,
                why: None,
                object: called,
                base_object: base,
            }));
        if let Some(file) = self.manifest.files.get_mut(at) {
            file.segments.push(Segment {
                object: called,
                length,
                tensor,
            });
        }
    }

    /// The model of a base that was found by content is looked into by name from now on.
    fn note_family(&mut self, run: &Run<'_>, sized: &Sized) {
        let (Some(Why::Content), Some(base)) = (sized.why, sized.base) else {
            return;
        };
        let family = self.models.iter().filter(|(_, _, why)| *why == Why::Name);
        let Some(model) = run.known.owners.of(&base).next() else {
            return;
        };
        let is_new = self.models.iter().all(|(id, _, _)| id != model);
        if is_new && family.count() < MAX_FAMILY {
            let tensors = run.known.tensors(model);
            self.models
                .extend(tensors.map(|tensors| (model.clone(), tensors, Why::Name)));
        }
    }

    /// Files that are known in all their parts are deduplicated as files.
    fn count_file(&mut self, at: usize, looked: &[Looked]) {
        let known = looked.iter().filter(|looked| looked.known_as.is_some());
        let known: u64 = known.map(|looked| looked.span.length).sum();
        let size = self.manifest.files.get(at).map_or(0, |file| file.size);
        if known == size {
            self.savings.file_dedup_bytes += known;
        } else {
            self.savings.tensor_dedup_bytes += known;
        }
    }

    /// Objects of a tensor's name in the models that it may be made from.
    fn hints(&self, tensor: &Tensor) -> Vec<(Hash, Why)> {
        let models = self.models.iter();
        let named = models
            .flat_map(|(_, tensors, why)| tensors.named(tensor).map(move |object| (object, *why)));
        named.collect()
    }
}

fn named(sketch: &Sketch, name: Hash) -> Sketch {
    let mut sketch = sketch.clone();
    sketch.name = name;
    sketch
}

impl Run<'_> {
    /// Samples a file's spans, and reads whole what has no sketch and what looks like another one.
    fn look(&mut self, source: &Source<'_>, spans: Vec<Span>) -> Result<Vec<Looked>> {
        let looks = spans.into_par_iter();
        let looks = looks.map(|span| self.sample(source, span));
        let mut looked: Vec<_> = looks.collect::<Result<_>>()?;
        let mut alike = HashSet::new();
        let mut twins = HashSet::new();
        for one in looked.iter().filter_map(|looked| looked.sampled.as_ref()) {
            let print = one.sketch.fingerprint();
            if !alike.insert(print) {
                twins.insert(print);
            }
        }
        let mut others = Vec::new();
        let suspects = looked.iter_mut().filter(|looked| looked.name.is_none());
        let suspects: Vec<_> = suspects
            .filter(|looked| {
                let sketch = looked.sampled.as_ref().map(|sampled| &sampled.sketch);
                let alike = sketch.map_or(&[][..], |sketch| self.known.alike(sketch));
                others.extend_from_slice(alike);
                let is_twin = sketch.is_some_and(|sketch| twins.contains(&sketch.fingerprint()));
                is_twin || !alike.is_empty()
            })
            .collect();
        suspects.into_par_iter().try_for_each(|looked| {
            looked.name = Some(hash(&source.open, &looked.span)?);
            Ok(())
        })?;
        self.known.read_whole(&others)?;
        for looked in &mut looked {
            self.recognise(source, looked);
        }
        Ok(looked)
    }

    fn sample(&self, source: &Source<'_>, span: Span) -> Result<Looked> {
        let has_sketch = span.tensor.is_some() && sketch::applies(span.dtype, span.length);
        let is_whole = !has_sketch || self.known.is_obscure(span.dtype, span.length);
        let name = is_whole.then(|| hash(&source.open, &span)).transpose()?;
        let subject = Subject {
            file: &source.open,
            span: &span,
        };
        let place = format!("{}:{}", source.found.absolute.display(), span.start);
        let sampled = has_sketch.then(|| subject.sample(Hash::of(place.as_bytes())));
        Ok(Looked {
            sampled: sampled.transpose()?,
            name,
            known_as: None,
            span,
        })
    }

    /// Finds out whether a span is known; if not, it is from now on.
    fn recognise(&mut self, source: &Source<'_>, looked: &mut Looked) {
        let sketch = looked.sampled.as_ref().map(|sampled| &sampled.sketch);
        let known_as = looked.name.as_ref();
        looked.known_as = known_as.and_then(|name| self.known.known_as(name, sketch));
        if looked.known_as.is_none()
            && let Some(called) = looked.called()
        {
            self.known.add(called, sketch);
            if looked.name.is_none() {
                self.known.add_unread(called, source.found, &looked.span);
            }
        }
    }

    /// Says what a new span would take; nothing for one that is known.
    fn size(
        &self,
        draft: &Draft<'_>,
        source: &Source<'_>,
        looked: &Looked,
    ) -> Result<Option<Sized>> {
        if looked.known_as.is_some() {
            return Ok(None);
        }
        let subject = Subject {
            file: &source.open,
            span: &looked.span,
        };
        let span = &looked.span;
        let Some(sampled) = &looked.sampled else {
            let plain = Plain {
                dtype: span.dtype,
                row_len: span.row_len,
                raw_len: span.length,
                read: &|offset, out| source.open.read_exact_at(span.start + offset, out),
            };
            let (bytes, class) = plain.encode(&self.options.encode)?;
            let bytes = bytes + frame_bytes(span.dtype, span.length, &[]);
            return Ok(Some(Sized {
                bytes,
                class,
                base: None,
                why: None,
            }));
        };
        let alone = sampled.alone().min(span.length) + frame_bytes(span.dtype, span.length, &[]);
        let tensor = looked.tensor();
        let hints = tensor.map_or_else(Vec::new, |tensor| draft.hints(&tensor));
        let found = self.known.catalog.candidates(&sampled.sketch, &hints);
        let chosen = by_estimate(&sampled.sketch, &found);
        let against = |candidate| self.against(subject, sampled, candidate);
        let against = chosen.map(against).transpose()?.flatten();
        // What is gained has to pay for decoding twice.
        let gains = against.filter(|bytes| *bytes < alone / 50 * 49);
        let chosen = chosen.filter(|_| gains.is_some());
        Ok(Some(Sized {
            bytes: gains.unwrap_or(alone),
            class: chosen.map_or(Class::Solo, |_| Class::Delta),
            base: chosen.map(|candidate| candidate.name),
            why: chosen.map(|candidate| candidate.why),
        }))
    }

    /// Estimated bytes of the object file against a candidate.
    fn against(
        &self,
        subject: Subject<'_>,
        sampled: &Sampled,
        candidate: &Candidate,
    ) -> Result<Option<u64>> {
        let catalog = &self.known.catalog;
        let Some(entry) = catalog.get(&candidate.name) else {
            return Ok(None);
        };
        let parts = catalog.parts(&sampled.sketch, candidate);
        let covered = parts.iter().map(|part| part.count).sum();
        let bytes = match candidate.align {
            Align::Same | Align::Broken => sampled.against(&sampled.sketch, &entry.sketch, covered),
            Align::Shifted(by) => {
                let moved = subject.shifted(&entry.sketch, by)?;
                sampled.against(&moved, &entry.sketch, covered)
            }
        };
        let frame = frame_bytes(subject.span.dtype, subject.span.length, &parts);
        Ok(bytes.map(|bytes| bytes + frame))
    }
}
