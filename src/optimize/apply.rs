//! Carrying out a plan: what gains is encoded anew, in an order in which the store is whole at every moment.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use rayon::prelude::*;

use super::Run;
use super::plan::Family;
use crate::codec::section;
use crate::error::{ErrorKind, Result};
use crate::hash::Hash;
use crate::object_reader::OpenObject;
use crate::object_writer::{Base, NewObject};
use crate::pairing::{Align, Candidate, MAX_PLANNED_DEPTH, Why};
use crate::recode::{self, Job};
use crate::store::StoreWriter;

/// What a change has to gain: this part of what there is now.
const THRESHOLD: u64 = 100;

/// A tensor that gets another base, or none.
#[derive(Clone, Debug)]
struct Change {
    name: Hash,
    base: Option<Hash>,
    /// Bytes that are gained, by a sample; negative for what has to be kept whole from now on.
    gain: i64,
}

impl Run<'_> {
    /// Changes what gains of all families.
    pub(super) fn apply(&mut self, families: Vec<Family>) -> Result<()> {
        self.report.families = families.len();
        let mut changes = Vec::new();
        let tried = families
            .iter()
            .map(|family| self.raw_len(family) * family.plans.len() as u64);
        self.monitor.begin("plan", tried.sum());
        for family in &families {
            match self.judge(family) {
                Ok(found) => changes.extend(found),
                Err(error) if error.kind() == ErrorKind::Io => return Err(error),
                Err(error) => self.report.errors.push(error.to_string()),
            }
        }
        self.monitor.end();
        self.report.changed = changes.len();
        let Some(mut writer) = self.writer.take() else {
            let gain: i64 = changes.iter().map(|change| change.gain).sum();
            let after = self.report.bytes_before.saturating_add_signed(-gain);
            self.report.bytes_after = after;
            return Ok(());
        };
        let bytes = changes
            .iter()
            .filter_map(|change| self.index.get(&change.name));
        self.monitor
            .begin("optimize", bytes.map(|record| record.raw_len).sum());
        let done = self.carry_out(&mut writer, changes);
        self.monitor.end();
        self.writer = Some(writer);
        done
    }

    /// Bytes of a family's tensors.
    fn raw_len(&self, family: &Family) -> u64 {
        let entries = family.members.iter();
        let entries = entries.filter_map(|id| self.catalog.entries().get(*id));
        entries.map(|entry| self.length(&entry.sketch.name)).sum()
    }

    /// Bytes of a tensor.
    fn length(&self, name: &Hash) -> u64 {
        self.index.get(name).map_or(0, |record| record.raw_len)
    }

    /// Finds the changes of a family that gain most: estimates find the roots worth a look, encoded chunks decide.
    fn judge(&self, family: &Family) -> Result<Vec<Change>> {
        let plans = family
            .plans
            .iter()
            .map(|plan| self.judge_plan(family, plan));
        let plans: Vec<_> = plans.collect::<Result<_>>()?;
        let gain = |changes: &Vec<Change>| changes.iter().map(|change| change.gain).sum::<i64>();
        // Of equals the first is meant.
        Ok(plans.into_iter().rev().max_by_key(gain).unwrap_or_default())
    }

    /// Finds the changes of one plan that gain: all together where the root changes, else one by one.
    fn judge_plan(&self, family: &Family, plan: &BTreeMap<usize, usize>) -> Result<Vec<Change>> {
        let mut planned = BTreeMap::new();
        let name = |id: usize| {
            self.catalog
                .entries()
                .get(id)
                .map(|entry| entry.sketch.name)
        };
        for id in &family.members {
            let base = plan.get(id).copied().and_then(name);
            planned.extend(name(*id).map(|name| (name, base)));
        }
        self.keep_roots(&mut planned);
        let differs = |(name, base): &(&Hash, &Option<Hash>)| {
            let now = self.catalog.get(name).map(|entry| entry.base);
            now.is_some_and(|now| now != **base) || self.is_too_deep(name, &planned)
        };
        let (wanted, kept): (Vec<_>, Vec<_>) = planned.iter().partition(differs);
        let kept = kept.iter().map(|(name, _)| self.length(name));
        self.monitor.skip(kept.sum());
        let measure = |(name, base): &(&Hash, &Option<Hash>)| {
            let measured = self.measure(name, base.as_ref());
            self.monitor.advance(self.length(name));
            measured
        };
        let measured: Result<Vec<_>> = self
            .pool
            .install(|| wanted.par_iter().map(measure).collect());
        let measured = measured?;
        // A new root, one that loses its place, or one that others wait for, makes sense with the others alone.
        let tied = |(change, _): &(Change, u64)| {
            change.gain <= 0 || change.base.is_none() || self.depth(&change.name) == 0
        };
        if measured.iter().any(tied) {
            let gain: i64 = measured.iter().map(|(change, _)| change.gain).sum();
            let now: u64 = measured.iter().map(|(_, now)| now).sum();
            let pays = u64::try_from(gain).is_ok_and(|gain| gain * THRESHOLD > now);
            let all = measured.into_iter().map(|(change, _)| change);
            return Ok(all.filter(|_| pays).collect());
        }
        let pays = |(change, now): &(Change, u64)| {
            u64::try_from(change.gain).is_ok_and(|gain| gain * THRESHOLD > *now)
        };
        Ok(measured
            .into_iter()
            .filter(pays)
            .map(|(change, _)| change)
            .collect())
    }

    /// Tells whether a tensor is deeper than planned because its base was, and is to be a base itself.
    fn is_too_deep(&self, name: &Hash, planned: &BTreeMap<Hash, Option<Hash>>) -> bool {
        let base = planned.get(name).copied().flatten();
        let above = base.and_then(|base| planned.get(&base).copied().flatten());
        let depth = u8::from(base.is_some()) + u8::from(above.is_some());
        depth < self.depth(name) && planned.values().any(|base| base.as_ref() == Some(name))
    }

    /// A depth must not grow that others depend on: what depends on a root that loses its place, and was to stay there,
    /// goes to the new root, too; if it is not near to that, the old root keeps its place.
    fn keep_roots(&self, planned: &mut BTreeMap<Hash, Option<Hash>>) {
        let moved = planned
            .iter()
            .filter_map(|(name, base)| Some((*name, (*base)?)))
            .filter(|(name, _)| self.depth(name) == 0);
        for (name, base) in moved.collect::<Vec<_>>() {
            let others = self.dependents.of(&name);
            let stays = |other: &&Hash| planned.get(*other).is_none_or(|base| *base == Some(name));
            let staying: Vec<_> = others.filter(stays).copied().collect();
            if staying.iter().all(|other| self.is_near(other, &base)) {
                planned.extend(staying.into_iter().map(|other| (other, Some(base))));
            } else {
                planned.insert(name, None);
            }
        }
    }

    fn is_near(&self, name: &Hash, base: &Hash) -> bool {
        let (target, base) = (self.catalog.get(name), self.catalog.get(base));
        let gain = target
            .zip(base)
            .and_then(|(target, base)| self.catalog.gain(&target.sketch, &base.sketch));
        gain.is_some()
    }

    fn depth(&self, name: &Hash) -> u8 {
        self.index.get(name).map_or(0, |record| record.depth)
    }

    /// Encodes a chunk as planned, and says what the whole tensor would gain, and what it takes now.
    fn measure(&self, name: &Hash, base: Option<&Hash>) -> Result<(Change, u64)> {
        let old = self.reader.open(name)?;
        let object = self.new_object(&old, base)?;
        let read = |offset, out: &mut [u8]| self.reader.read_range(name, offset, out);
        object.prepare(&self.reader, &self.options.encode, &read, true)?;
        let index = object.chunk_count() / 2;
        let (offset, length) = object.chunk_range(index);
        let after = self.reader.buffers().with(length, |raw| {
            self.reader.read_chunk(name, index, raw)?;
            object.encode(&self.reader, &self.options.encode, offset, raw)
        })?;
        let place = usize::try_from(index).unwrap_or(0);
        let entry = old.file.frame.chunks.get(place);
        let before = entry.map_or(0, |entry| i64::from(entry.encoded_len));
        let after = i64::try_from(after.payload.len()).unwrap_or(i64::MAX);
        let chunks = i64::try_from(object.chunk_count()).unwrap_or(1);
        let section = section(object.preparation.common(), object.preparation.factors());
        let shared =
            i64::from(old.file.frame.head.shared_len) - i64::try_from(section.len()).unwrap_or(0);
        let change = Change {
            name: *name,
            base: base.copied(),
            gain: (before - after) * chunks + shared,
        };
        Ok((change, old.file.frame.file_len()))
    }

    fn new_object(&self, old: &Arc<OpenObject>, base: Option<&Hash>) -> Result<NewObject> {
        let job = self.job();
        let object = job.plan(old)?;
        let base = match base {
            None => None,
            Some(base) => Some(self.base(&old.file.name, base)?),
        };
        Ok(NewObject { base, ..object })
    }

    fn base(&self, name: &Hash, base: &Hash) -> Result<Base> {
        let candidate = Candidate {
            name: *base,
            depth: 0,
            align: Align::Same,
            why: Why::Content,
            score: 0,
        };
        let target = self.catalog.get(name).map(|entry| &entry.sketch);
        let parts = target.map_or_else(Vec::new, |target| self.catalog.parts(target, &candidate));
        Ok(Base {
            object: self.reader.open(base)?,
            parts,
        })
    }

    fn job(&self) -> Job<'_> {
        Job {
            set_rows: HashMap::new(),
            pool: &self.pool,
            reader: &self.reader,
            options: recode::Options {
                threads: self.options.threads,
                encode: self.options.encode,
                all: true,
            },
        }
    }

    /// Makes the changes in rounds: one that would raise the depth of what others depend on, or whose base is not yet
    /// where it belongs, waits for the next round. Each round is durable before the next one builds on it.
    fn carry_out(&mut self, writer: &mut StoreWriter, mut waiting: Vec<Change>) -> Result<()> {
        while !waiting.is_empty() {
            let moving: BTreeSet<_> = waiting.iter().map(|change| change.name).collect();
            let (now, later): (Vec<_>, Vec<_>) = waiting
                .into_iter()
                .partition(|change| self.is_ready(change, &moving));
            if now.is_empty() {
                return Ok(());
            }
            for change in &now {
                self.change(writer, change)?;
            }
            writer.barrier()?;
            self.reader.forget();
            waiting = later;
            self.note(&now)?;
        }
        Ok(())
    }

    fn is_ready(&self, change: &Change, moving: &BTreeSet<Hash>) -> bool {
        let Some(base) = &change.base else {
            return true;
        };
        let depth = self.depth(base) + 1;
        let grows = depth > self.depth(&change.name);
        let needed = self.dependents.of(&change.name).next().is_some();
        !moving.contains(base) && depth <= MAX_PLANNED_DEPTH && !(grows && needed)
    }

    fn change(&mut self, writer: &mut StoreWriter, change: &Change) -> Result<()> {
        let encoded = self.encode(writer, change);
        match encoded {
            Ok(()) => {}
            Err(error) if writer.is_poisoned() || error.kind() == ErrorKind::Io => {
                return Err(error);
            }
            Err(error) => self.report.errors.push(error.to_string()),
        }
        self.monitor.advance(self.length(&change.name));
        Ok(())
    }

    fn encode(&self, writer: &mut StoreWriter, change: &Change) -> Result<()> {
        let old = self.reader.open(&change.name)?;
        let object = self.new_object(&old, change.base.as_ref())?;
        let job = self.job();
        let read = |offset, out: &mut [u8]| self.reader.read_range(&change.name, offset, out);
        self.pool
            .install(|| object.prepare(&self.reader, &self.options.encode, &read, true))?;
        // The family as a whole gains, so this one may grow.
        job.replace(writer, &object, u64::MAX).map(drop)
    }

    /// Notes how the changed objects are stored now.
    fn note(&mut self, changes: &[Change]) -> Result<()> {
        for change in changes {
            let object = self.store.object(&change.name)?;
            let record = crate::store::index::Record::of(&change.name, &object.frame);
            let base = (record.depth > 0).then_some(record.base);
            if let Some(entry) = self.catalog.get(&change.name) {
                let sketch = entry.sketch.clone();
                self.catalog.insert(sketch, record.depth, base);
            }
            let before = self
                .index
                .get(&change.name)
                .map_or(0, |record| record.stored_len);
            let after = self.report.bytes_after.saturating_sub(before);
            self.report.bytes_after = after.saturating_add(record.stored_len);
            let old = self.index.insert(change.name, record.clone());
            old.iter().for_each(|old| self.dependents.remove(old));
            self.dependents.add(&record);
        }
        Ok(())
    }
}
