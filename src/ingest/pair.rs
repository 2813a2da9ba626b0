//! Which base each new tensor of a model gets: hints first, then names in the family, then content.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;

use rayon::prelude::*;

use super::Run;
use super::batch::{Batch, HashedSpan};
use super::model::{Session, new_object};
use crate::error::{ErrorKind, Result};
use crate::hash::Hash;
use crate::name::{ModelId, RelPath};
use crate::object_reader::{ObjectReader, OpenObject};
use crate::object_writer::Base;
use crate::pairing::choose::{Chooser, Chosen};
use crate::pairing::shares::{Based, shares};
use crate::pairing::{BaseTensors, Catalog, Owners, Why, owners, resolve};
use crate::sketch::Sketch;
use crate::store::manifest::{BaseShare, Manifest, Tensor};
use crate::store::{Store, StoreWriter};

/// Models whose tensors are looked up by name because other tensors were paired with theirs.
const MAX_FAMILY: usize = 4;

/// What is known of the whole store, read when it is first needed.
#[derive(Default)]
pub struct Search(Option<Known>);

/// The sketches of a store, and whose they are.
pub struct Known {
    /// The sketches.
    pub catalog: Catalog,
    /// The models that hold an object.
    pub owners: Owners,
}

impl Search {
    /// Reads the store, unless that was done.
    pub fn load(&mut self, store: &Store) -> Result<&mut Known> {
        let known = match self.0.take() {
            Some(known) => known,
            None => Known {
                catalog: Catalog::load(store, &store.index()?)?,
                owners: Owners::load(store)?,
            },
        };
        Ok(self.0.insert(known))
    }

    /// Adds the sketch of a stored tensor that has none, as after a run that was stopped.
    pub fn complete(&mut self, writer: &mut StoreWriter, span: &HashedSpan) -> Result<()> {
        let Some(sketch) = &span.sketch else {
            return Ok(());
        };
        let store = writer.store().clone();
        let catalog = &mut self.load(&store)?.catalog;
        if catalog.get(&sketch.name).is_none() {
            let head = store.object(&sketch.name)?.frame.head;
            let base = head.bases.first().map(|base| base.name);
            catalog.insert(sketch.clone(), head.depth, base);
            writer.add_sketch(sketch.clone());
        }
        Ok(())
    }

    /// What is known, if it was needed so far.
    pub fn known(&mut self) -> Option<&mut Known> {
        self.0.as_mut()
    }
}

/// The bases of one model's tensors.
#[derive(Default)]
pub struct Pairs {
    /// Models that it may be made from, by what people say; the surest first.
    hints: Vec<(ModelId, BaseTensors)>,
    /// Models that hold bases chosen by content.
    family: Vec<(ModelId, BaseTensors)>,
    /// Sketches of the model's new objects.
    sketches: Vec<Sketch>,
    /// Bytes by model that holds the base.
    tally: HashMap<ModelId, u64>,
}

/// A new span of a batch: its place, and its tensor's.
pub struct New<'a> {
    /// The span.
    pub span: &'a HashedSpan,
    /// The file it is in.
    pub path: RelPath,
    /// What the file says of it.
    pub tensor: Option<Tensor>,
}

impl Pairs {
    /// Nothing yet but hints.
    pub fn new(hints: Vec<(ModelId, BaseTensors)>) -> Self {
        Self {
            hints,
            ..Self::default()
        }
    }

    /// The models to look for names in, the surest first.
    fn models(&self) -> impl Iterator<Item = (&BaseTensors, Why)> {
        let hints = self.hints.iter().map(|(_, tensors)| (tensors, Why::Hint));
        hints.chain(self.family.iter().map(|(_, tensors)| (tensors, Why::Name)))
    }

    /// Objects of a tensor's name, whatever their shape and type.
    fn named(&self, tensor: &Tensor) -> Vec<(Hash, Why)> {
        let named = |(tensors, why): (&BaseTensors, Why)| {
            tensors
                .named(tensor)
                .map(move |object| (object, why))
                .collect::<Vec<_>>()
        };
        self.models().flat_map(named).collect()
    }

    /// The object of the same name, shape and type.
    fn same(&self, path: &RelPath, tensor: &Tensor) -> Option<Hash> {
        self.models()
            .find_map(|(tensors, _)| tensors.find(path, tensor))
    }

    /// Notes what was chosen, and whose it is.
    fn note(&mut self, store: &Store, owners: &Owners, span: &HashedSpan, chosen: &Chosen) {
        let base = chosen.base.object.file.name;
        let Some(model) = self.owner(owners, &base) else {
            return;
        };
        *self.tally.entry(model.clone()).or_default() += span.span.length;
        let known = self.family.iter().any(|(id, _)| *id == model);
        if chosen.why == Why::Content && !known && self.family.len() < MAX_FAMILY {
            let tensors = owners::tensors(store, &model);
            self.family.extend(tensors.map(|tensors| (model, tensors)));
        }
    }

    /// The model that holds an object; of several the one that holds most of the bases so far.
    fn owner(&self, owners: &Owners, object: &Hash) -> Option<ModelId> {
        let held = |model: &&ModelId| self.tally.get(*model).copied().unwrap_or(0);
        let models = owners.of(object).collect::<Vec<_>>();
        // Of equals the last counts as the greatest; the first known is meant.
        models.into_iter().rev().max_by_key(held).cloned()
    }

    /// After the objects are durable: enters them in the catalog, and says whose tensors serve as bases.
    ///
    /// That is read from the objects, so that it is the same after a run that was stopped.
    pub fn conclude(
        self,
        store: &Store,
        search: &mut Search,
        manifest: &Manifest,
    ) -> Result<Vec<BaseShare>> {
        let mut heads = BTreeMap::new();
        let mut based = Vec::new();
        let segments = manifest.files.iter().flat_map(|file| &file.segments);
        for segment in segments {
            let Some(tensor) = &segment.tensor else {
                continue;
            };
            if heads.contains_key(&segment.object) {
                continue;
            }
            let head = store.object(&segment.object)?.frame.head;
            let base = head.bases.first().map(|base| base.name);
            heads.insert(segment.object, (head.depth, base));
            based.extend(base.map(|base| Based {
                tensor,
                bytes: segment.length,
                base,
            }));
        }
        if let Some(known) = search.known() {
            for sketch in self.sketches {
                if let Some((depth, base)) = heads.get(&sketch.name) {
                    known.catalog.insert(sketch, *depth, *base);
                }
            }
        }
        if based.is_empty() {
            return Ok(Vec::new());
        }
        let owners = &search.load(store)?.owners;
        let hints: Vec<_> = self.hints.into_iter().map(|(id, _)| id).collect();
        let tensors = |id: &ModelId| owners::tensors(store, id);
        Ok(shares(&tensors, owners, &hints, &manifest.model, &based))
    }
}

impl Session<'_> {
    /// Chooses the bases of a batch's new spans; those with sketches first, for they tell the family of the others.
    pub fn pair(
        &mut self,
        run: &mut Run<'_>,
        batch: &Batch,
        new: &[New<'_>],
    ) -> Result<Vec<Option<Base>>> {
        let mut bases: Vec<Option<Base>> = Vec::new();
        bases.resize_with(new.len(), || None);
        if new.iter().any(|new| new.span.sketch.is_some()) {
            self.pair_sketched(run, batch, new, &mut bases)?;
        }
        for (new, place) in new.iter().zip(&mut bases) {
            if place.is_none() {
                *place = self.pair_named(run, new)?;
            }
        }
        Ok(bases)
    }

    fn pair_sketched(
        &mut self,
        run: &mut Run<'_>,
        batch: &Batch,
        new: &[New<'_>],
        bases: &mut [Option<Base>],
    ) -> Result<()> {
        let store = run.writer.store().clone();
        let known = run.search.load(&store)?;
        let chooser = Chooser {
            reader: &run.reader,
            encode: &run.options.encode,
            catalog: &known.catalog,
        };
        let pairs = &self.pairs;
        let choose = |new: &New<'_>| {
            let Some(sketch) = &new.span.sketch else {
                return Ok(None);
            };
            let hints = new
                .tensor
                .as_ref()
                .map_or_else(Vec::new, |tensor| pairs.named(tensor));
            let read = |offset, out: &mut [u8]| read(batch, new.span, offset, out);
            chooser.choose(sketch, &new_object(new.span, None), &hints, &read)
        };
        let chosen: Vec<_> = run.pool.install(|| new.par_iter().map(choose).collect());
        for ((new, place), chosen) in new.iter().zip(bases).zip(chosen) {
            self.pairs.sketches.extend(new.span.sketch.clone());
            if let Some(chosen) = self.undamaged(chosen)?.flatten() {
                self.pairs.note(&store, &known.owners, new.span, &chosen);
                *place = Some(chosen.base);
            }
        }
        Ok(())
    }

    /// Pairs by name what has no sketch, or whose namesake has none.
    fn pair_named(&mut self, run: &mut Run<'_>, new: &New<'_>) -> Result<Option<Base>> {
        let same = |tensor| self.pairs.same(&new.path, tensor);
        let Some(name) = new.tensor.as_ref().and_then(same) else {
            return Ok(None);
        };
        let sketched = |known: &mut Known| known.catalog.get(&name).is_some();
        if new.span.sketch.is_some() && run.search.known().is_some_and(sketched) {
            // Its sketch was compared, and is not near.
            return Ok(None);
        }
        Ok(self
            .undamaged(open(&run.reader, &name, new.span))?
            .flatten())
    }

    /// A base that is damaged costs space, not the model.
    fn undamaged<T>(&self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                self.damaged.store(true, Ordering::Relaxed);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

fn open(reader: &ObjectReader, name: &Hash, span: &HashedSpan) -> Result<Option<Base>> {
    let object = resolve(reader, name)?;
    let fits = |object: &OpenObject| {
        object.file.frame.head.raw_len == span.span.length && object.file.name != span.digest.name
    };
    let dtype = span.span.dtype;
    let elements = span.span.length / dtype.size() as u64;
    let fitting = fits(&object);
    Ok(fitting.then(|| Base::whole(object, dtype, elements)))
}

/// Reads a part of a span, from the batch or from its file.
fn read(batch: &Batch, span: &HashedSpan, offset: u64, out: &mut [u8]) -> Result<()> {
    if let Some(file) = &span.file {
        return file.read_exact_at(span.span.start + offset, out);
    }
    let bytes = span.kept.clone().and_then(|range| batch.bytes().get(range));
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let part = bytes.and_then(|bytes| bytes.get(start..)?.get(..out.len()));
    out.copy_from_slice(part.unwrap_or(&vec![0; out.len()]));
    Ok(())
}
