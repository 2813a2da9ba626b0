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
use crate::pairing::{BaseTensors, Catalog, Owners, Why, owners, resolve};
use crate::sketch::Sketch;
use crate::store::Store;
use crate::store::manifest::{BaseShare, Tensor};

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
    chosen: Vec<Choice>,
    /// Sketches of the model's new objects.
    sketches: Vec<Sketch>,
    /// Bytes by model that holds the base.
    tally: HashMap<ModelId, u64>,
}

/// A base that was chosen, and may yet turn out to be of no use.
struct Choice {
    object: Hash,
    bytes: u64,
    base: Hash,
    /// The model by whose name for it the base was found.
    named: Option<ModelId>,
    why: Why,
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
    fn models(&self) -> impl Iterator<Item = (&ModelId, &BaseTensors, Why)> {
        let hints = self
            .hints
            .iter()
            .map(|(id, tensors)| (id, tensors, Why::Hint));
        hints.chain(
            self.family
                .iter()
                .map(|(id, tensors)| (id, tensors, Why::Name)),
        )
    }

    /// Objects of a tensor's name, whatever their shape and type.
    fn named(&self, tensor: &Tensor) -> Vec<(Hash, Why)> {
        let named = |(_, tensors, why): (_, &BaseTensors, Why)| {
            tensors
                .named(tensor)
                .map(move |object| (object, why))
                .collect::<Vec<_>>()
        };
        self.models().flat_map(named).collect()
    }

    /// The object of the same name, shape and type, and the model that has it.
    fn same(&self, path: &RelPath, tensor: &Tensor) -> Option<(Hash, Why, ModelId)> {
        let same = |(id, tensors, why): (&ModelId, &BaseTensors, Why)| {
            Some((tensors.find(path, tensor)?, why, id.clone()))
        };
        self.models().find_map(same)
    }

    /// Notes what was chosen, and whose it is.
    fn note(&mut self, store: &Store, owners: &Owners, span: &HashedSpan, chosen: &Chosen) {
        let base = chosen.base.object.file.name;
        self.chosen.push(Choice {
            object: span.digest.name,
            bytes: span.span.length,
            base,
            named: None,
            why: chosen.why,
        });
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

    /// After the objects are durable: enters them in the catalog, and says which bases served for how many bytes.
    pub fn conclude(self, store: &Store, known: Option<&mut Known>) -> Result<Vec<BaseShare>> {
        let mut depths = HashMap::new();
        let names = self.chosen.iter().map(|choice| choice.object);
        for name in names.chain(self.sketches.iter().map(|sketch| sketch.name)) {
            if let Some(object) = store.find(&name)? {
                let head = object.frame.head;
                let base = head.bases.first().map(|base| base.name);
                depths.insert(name, (head.depth, base));
            }
        }
        let mut shares: BTreeMap<(Option<ModelId>, Why), (u64, u64)> = BTreeMap::new();
        for choice in &self.chosen {
            if depths.get(&choice.object).and_then(|known| known.1) == Some(choice.base) {
                let owners = known.as_ref().map(|known| &known.owners);
                let owner = || owners.and_then(|owners| self.owner(owners, &choice.base));
                let model = choice.named.clone().or_else(owner);
                let share = shares.entry((model, choice.why)).or_default();
                *share = (share.0 + 1, share.1 + choice.bytes);
            }
        }
        if let Some(known) = known {
            for sketch in self.sketches {
                if let Some((depth, base)) = depths.get(&sketch.name) {
                    known.catalog.insert(sketch, *depth, *base);
                }
            }
        }
        let share = |((model, why), (tensors, bytes))| BaseShare {
            model,
            why,
            tensors,
            bytes,
        };
        let mut shares: Vec<_> = shares.into_iter().map(share).collect();
        shares.sort_by_key(|share| std::cmp::Reverse(share.bytes));
        Ok(shares)
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
        let Some((name, why, model)) = new.tensor.as_ref().and_then(same) else {
            return Ok(None);
        };
        let sketched = |known: &mut Known| known.catalog.get(&name).is_some();
        if new.span.sketch.is_some() && run.search.known().is_some_and(sketched) {
            // Its sketch was compared, and is not near.
            return Ok(None);
        }
        let found = self.undamaged(open(&run.reader, &name, new.span))?;
        let Some(base) = found.flatten() else {
            return Ok(None);
        };
        self.pairs.chosen.push(Choice {
            object: new.span.digest.name,
            bytes: new.span.span.length,
            base: base.object.file.name,
            named: Some(model),
            why,
        });
        Ok(Some(base))
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
    let bytes = span.kept.clone().and_then(|range| batch.arena.get(range));
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let part = bytes.and_then(|bytes| bytes.get(start..)?.get(..out.len()));
    out.copy_from_slice(part.unwrap_or(&vec![0; out.len()]));
    Ok(())
}
