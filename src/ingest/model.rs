//! Stores one model: what is known is referenced, what is new is encoded, and the manifest comes last.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::batch::{Batch, HashedSpan};
use super::draft::draft;
use super::load::{Batches, Loader};
use super::pair::{New, Pairs};
use super::revisions;
use super::scan_record::ScanRecord;
use super::work::{Done, Output, Planned, Work, cut};
use super::{Job, Run};
use crate::adapter::Adapter;
use crate::checkpoint::TensorInfo;
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::name::ModelId;
use crate::object_factors::Preparation;
use crate::object_writer::{Base, NewObject};
use crate::pairing::{BaseTensors, card, owners};
use crate::report::{ModelReport, Status};
use crate::source::{Listing, ModelDir};
use crate::store::Store;
use crate::store::manifest::{FileEntry, Manifest, Segment, Tensor};

/// Stores the model in `directory`, unless the store holds it as it is.
pub fn ingest(
    run: &mut Run<'_>,
    job: &Job,
    directory: &ModelDir,
    report: &mut ModelReport,
) -> Result<()> {
    run.writer.store().check_case(&job.model)?;
    report.commit = directory.commit().map(str::to_owned);
    let listing = directory.scan()?;
    report.warnings.extend(listing.warnings.iter().cloned());
    report.files = listing.files.len();
    report.bytes = listing.files.iter().map(|file| file.size).sum();
    let existing = existing(run, job, directory, report)?;
    if let Some(manifest) = &existing {
        let gone = listing.files.is_empty() && !manifest.files.is_empty();
        if gone {
            report.files = manifest.files.len();
            report.bytes = manifest.bytes;
        }
        if gone || run.options.may_be_deleted && is_rest(manifest, &listing)? {
            return revisions::keep(run, directory, manifest, report);
        }
        check_missing(run, manifest, &listing)?;
        if is_untouched(run, manifest, &listing) {
            return revisions::keep(run, directory, manifest, report);
        }
    } else if revisions::is_own_version(run, directory) {
        let store = run.writer.store();
        revisions::warn_of_missing(store, directory, &job.model, &listing, report)?;
    }
    run.monitor.begin(job.model.as_str(), report.bytes);
    let base_name = job.base.as_ref().map(ModelId::as_str);
    tracing::info!(model = %job.model, files = report.files, bytes = report.bytes, base = base_name, "storing");
    let mut manifest = draft(
        &job.model,
        directory.commit(),
        &listing,
        next_version(run.writer.store(), &job.model)?,
    );
    let base = base_tensors(run.writer.store(), job, report)?;
    manifest.base = base.is_some().then(|| job.base.clone()).flatten();
    let hints = job.base.clone().zip(base).into_iter();
    let hints = hints.chain(own_hints(run, job, &listing));
    // Nothing is as near to a model as its last version.
    let before = owners::tensors(run.writer.store(), &job.model);
    let before = before.map(|tensors| (job.model.clone(), tensors));
    let hints = hints.chain(before).collect();
    let pairs = store_files(run, &listing, hints, &mut manifest, report)?;
    run.writer.barrier()?;
    let store = run.writer.store().clone();
    manifest.bases = pairs.conclude(&store, &mut run.search, &manifest)?;
    let mut others = manifest
        .bases
        .iter()
        .filter_map(|share| share.model.clone());
    let most = others.find(|id| *id != job.model);
    manifest.base = manifest.base.take().or(most);
    report.base.clone_from(&manifest.base);
    report.bases.clone_from(&manifest.bases);
    conclude(run, directory, &listing, manifest, existing, report)
}

/// Commits the new version, unless it says the same as the one before.
fn conclude(
    run: &mut Run<'_>,
    directory: &ModelDir,
    listing: &Listing,
    manifest: Manifest,
    existing: Option<Manifest>,
    report: &mut ModelReport,
) -> Result<()> {
    let version = match existing {
        Some(old)
            if old.same_content(&manifest) && !revisions::is_outdated(run, directory, &old)? =>
        {
            // Objects that were lost or damaged may have been stored anew.
            run.writer.barrier()?;
            if report.stored_bytes > 0 {
                report.warnings.push(format!(
                    "objects of version {} were missing or damaged, and are stored anew ({} bytes)",
                    old.version, report.stored_bytes
                ));
            }
            report.status = Status::AlreadyStored;
            old.version
        }
        _ => {
            report.stored_bytes += run.writer.commit(&manifest)?;
            run.search
                .known()
                .into_iter()
                .for_each(|known| known.owners.add(&manifest));
            report.status = Status::Stored;
            manifest.version
        }
    };
    report.version = Some(version);
    match revisions::record(run, directory, version, listing, &manifest.model) {
        Some(record) => run.writer.write_scan(&manifest.model, &record),
        None => Ok(()),
    }
}

/// Reads what the store holds of the model, or of the revision; a damaged newest version counts as none.
fn existing(
    run: &Run<'_>,
    job: &Job,
    directory: &ModelDir,
    report: &mut ModelReport,
) -> Result<Option<Manifest>> {
    let store = run.writer.store();
    if revisions::is_own_version(run, directory) {
        return revisions::version_of(store, job, directory, report);
    }
    match store.newest(&job.model) {
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            report
                .warnings
                .push(format!("{error}; storing a new version"));
            report.damage = true;
            Ok(None)
        }
        other => other,
    }
}

/// The number of the model's next version.
pub fn next_version(store: &Store, id: &ModelId) -> Result<u32> {
    let last = store.versions(id)?.last().copied().unwrap_or(0);
    last.checked_add(1).ok_or_else(|| Error::Name {
        name: format!("{id}@{last}"),
        reason: "there is no version after this one".into(),
    })
}

/// Tells whether the directory holds some of a version's files, and nothing else.
fn is_rest(manifest: &Manifest, listing: &Listing) -> Result<bool> {
    if listing.files.len() >= manifest.files.len() {
        return Ok(false);
    }
    for file in &listing.files {
        let mut entries = manifest.files.iter();
        let same = |entry: &&FileEntry| entry.path == file.path && entry.size == file.size;
        let Some(entry) = entries.find(same) else {
            return Ok(false);
        };
        if file.open()?.hash()? != entry.blake3 {
            return Ok(false);
        }
    }
    Ok(true)
}

fn check_missing(run: &Run<'_>, manifest: &Manifest, listing: &Listing) -> Result<()> {
    let gone = missing(manifest, listing);
    let Some(first) = gone.first() else {
        return Ok(());
    };
    if run.options.accept_missing {
        return Ok(());
    }
    let more = if gone.len() > 1 {
        format!(" and {} more", gone.len() - 1)
    } else {
        String::new()
    };
    Err(Error::NoModel {
        model: manifest.model.to_string(),
        reason: format!(
            "the stored version {} has {}{more}, which the directory lacks now; give --accept-missing to store it without",
            manifest.version, first.path
        ),
    })
}

/// The files of a version that the directory lacks.
pub fn missing<'m>(manifest: &'m Manifest, listing: &Listing) -> Vec<&'m FileEntry> {
    let present: HashSet<_> = listing.files.iter().map(|file| &file.path).collect();
    let files = manifest.files.iter();
    files.filter(|file| !present.contains(&file.path)).collect()
}

/// Tells whether nothing has to be read: the files are untouched, and every object is still there.
fn is_untouched(run: &mut Run<'_>, manifest: &Manifest, listing: &Listing) -> bool {
    let store = run.writer.store();
    let record = ScanRecord::read(store, &manifest.model);
    let same = record.is_some_and(|record| record.matches(manifest.version, &listing.files));
    let bases = &mut run.bases;
    let is_whole = |segment: &Segment| {
        let object = store.object(&segment.object);
        object.is_ok_and(|object| {
            let lacking = bases.lacking(store, &object.frame.head, &|_| false);
            lacking.is_ok_and(|lacking| lacking.is_none())
        })
    };
    let mut segments = manifest.files.iter().flat_map(|file| &file.segments);
    same && manifest.empty_dirs == listing.empty_dirs && segments.all(is_whole)
}

fn base_tensors(store: &Store, job: &Job, report: &mut ModelReport) -> Result<Option<BaseTensors>> {
    let Some(base) = &job.base else {
        return Ok(None);
    };
    match store.newest(base) {
        Ok(Some(manifest)) => Ok(Some(BaseTensors::of(&manifest))),
        Ok(None) => {
            report.warnings.push(format!(
                "its base {base} is not in the store (not on disk either, or it failed before); that is ignored, and bases are found by search"
            ));
            Ok(None)
        }
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            report
                .warnings
                .push(format!("{error}; bases are found by search"));
            report.damage = true;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The tensors of the models that the model's card and config name, where they are in the store.
fn own_hints(run: &Run<'_>, job: &Job, listing: &Listing) -> Vec<(ModelId, BaseTensors)> {
    let mut models = card::of_listing(listing);
    let named = |id: &ModelId| *id == job.model || Some(id) == job.base.as_ref();
    models.retain(|id| !named(id));
    let store = run.writer.store();
    let tensors = |id: ModelId| owners::tensors(store, &id).map(|tensors| (id, tensors));
    models.into_iter().filter_map(tensors).collect()
}

/// Reads, looks up, encodes and writes all files; fills in the manifest's segments and hashes.
fn store_files(
    run: &mut Run<'_>,
    listing: &Listing,
    hints: Vec<(ModelId, BaseTensors)>,
    manifest: &mut Manifest,
    report: &mut ModelReport,
) -> Result<Pairs> {
    let known_bytes = vec![0; listing.files.len()];
    let damaged = Arc::new(AtomicBool::new(false));
    let mut session = Session {
        pairs: Pairs::new(hints),
        manifest,
        report,
        claimed: HashSet::new(),
        adapter: Adapter::find(listing),
        known_bytes,
        damaged,
    };
    let mut output = Output::default();
    let done = session.stream(run, listing, &mut output);
    output.abandon(&mut run.writer);
    session.count_file_dedup();
    let damaged = session.damaged.load(Ordering::Relaxed);
    let pairs = session.pairs;
    report.damage |= damaged;
    if damaged {
        report
            .warnings
            .push("a base in the store is damaged; parts were stored without it".into());
    }
    report.stored_bytes += output.stored_bytes;
    report.savings.delta = output.savings.delta;
    report.savings.solo = output.savings.solo;
    report.savings.plain = output.savings.plain;
    done.map(|()| pairs)
}

/// One model on its way into the store.
pub struct Session<'m> {
    /// Which bases its tensors get.
    pub pairs: Pairs,
    manifest: &'m mut Manifest,
    report: &'m mut ModelReport,
    /// Objects of this model that are planned, and perhaps not yet written.
    claimed: HashSet<Hash>,
    /// The adapter beside the weights.
    adapter: Option<Arc<Adapter>>,
    /// By file, the bytes that were known before.
    known_bytes: Vec<u64>,
    /// Whether a base was met that is damaged.
    pub damaged: Arc<AtomicBool>,
}

impl Session<'_> {
    /// While the pool encodes one piece of work, this thread writes the one before and plans the one after, and another
    /// reads ahead.
    fn stream(&mut self, run: &mut Run<'_>, listing: &Listing, output: &mut Output) -> Result<()> {
        let pool = run.reading.clone();
        let loader = Loader::new(&pool, &listing.files, run.arenas.clone());
        std::thread::scope(|scope| {
            let (loading, batches) = loader.spawn(scope);
            let done = self.work_off(run, batches, output);
            self.report.warnings.append(&mut join(loading));
            done
        })
    }

    fn work_off(
        &mut self,
        run: &mut Run<'_>,
        mut batches: Batches,
        output: &mut Output,
    ) -> Result<()> {
        let mut done: Option<Done> = None;
        let mut next = self.next(run, &mut batches)?;
        while let Some((batch, works)) = next.take() {
            let last = works.len().saturating_sub(1);
            if works.is_empty() {
                next = self.next(run, &mut batches)?;
            }
            for (at, work) in works.into_iter().enumerate() {
                let spare = run.spare.pop().unwrap_or_default();
                let (pool, reader, options) = (run.pool.clone(), run.reader.clone(), run.options);
                let damaged = self.damaged.clone();
                let encode = || work.encode(&batch, &reader, &options.encode, &damaged, spare);
                done = Some(std::thread::scope(|scope| {
                    let worker = scope.spawn(|| pool.install(encode));
                    if let Some(done) = done.take() {
                        write(run, output, done)?;
                    }
                    if at == last {
                        next = self.next(run, &mut batches)?;
                    }
                    join(worker)
                })?);
            }
        }
        done.map_or(Ok(()), |done| write(run, output, done))
    }

    /// Waits for the next batch, and plans the work on it; `None` when all files are read.
    fn next(
        &mut self,
        run: &mut Run<'_>,
        batches: &mut Batches,
    ) -> Result<Option<(Batch, Vec<Work>)>> {
        let Some(batch) = batches.next()? else {
            return Ok(None);
        };
        let works = cut(self.plan(run, &batch)?, run.options.threads);
        Ok(Some((batch, works)))
    }

    /// Enters a batch's spans in the manifest, in order, and returns the objects that are new.
    fn plan(&mut self, run: &mut Run<'_>, batch: &Batch) -> Result<Vec<Planned>> {
        let (mut new, mut again) = (Vec::new(), Vec::new());
        for span in &batch.spans {
            let tensor = span.span.tensor.as_ref().map(|tensor| Tensor {
                name: tensor.name.clone(),
                dtype: tensor.dtype.clone(),
                shape: tensor.shape.clone(),
            });
            let name = &span.digest.name;
            let is_ours = self.claimed.contains(name) || run.writer.is_pending(name);
            let looked_up = self.look_up(run, span)?;
            self.claimed.insert(span.digest.name);
            let segment = Segment {
                object: span.digest.name,
                length: span.span.length,
                tensor: tensor.clone(),
            };
            let Some(file) = self.manifest.files.get_mut(span.file_index) else {
                continue;
            };
            file.segments.push(segment);
            let path = file.path.clone();
            match looked_up {
                Lookup::Known => {
                    self.count_known(run, span);
                    if !is_ours {
                        run.search.complete(&mut run.writer, span)?;
                    }
                }
                Lookup::New => new.push(New { span, path, tensor }),
                Lookup::Again => again.push(span),
            }
        }
        for (index, hash) in &batch.finished {
            if let Some(file) = self.manifest.files.get_mut(*index) {
                file.blake3 = *hash;
            }
        }
        let bases = self.pair(run, batch, &new)?;
        let new = new.iter().map(|new| new.span).zip(bases);
        let all = new.chain(again.into_iter().map(|span| (span, None)));
        let planned = all.map(|(span, base)| {
            let tensor = span.span.tensor.as_ref();
            let part = |tensor: &TensorInfo| self.adapter.as_ref()?.part(&tensor.name);
            let mut object = new_object(span, base);
            object.preparation = Preparation::new(tensor.and_then(part));
            Planned::new(object, span)
        });
        Ok(planned.collect())
    }

    fn look_up(&mut self, run: &mut Run<'_>, span: &HashedSpan) -> Result<Lookup> {
        let name = &span.digest.name;
        let is_coming = |name: &Hash| self.claimed.contains(name) || run.writer.is_pending(name);
        if is_coming(name) {
            return Ok(Lookup::Known);
        }
        let store = run.writer.store();
        match store.find(name) {
            Ok(Some(object)) => {
                let head = &object.frame.head;
                let Some(base) = run.bases.lacking(store, head, &is_coming)? else {
                    return Ok(Lookup::Known);
                };
                self.report.warnings.push(format!(
                    "object {name}: its base {base} is damaged or missing; stored anew"
                ));
                self.report.damage = true;
                Ok(Lookup::Again)
            }
            Ok(None) if run.depended.contains(name) => Ok(Lookup::Again),
            Ok(None) => Ok(Lookup::New),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                self.report.warnings.push(format!("{error}; stored anew"));
                self.report.damage = true;
                Ok(Lookup::Again)
            }
            Err(error) => Err(error),
        }
    }

    fn count_known(&mut self, run: &Run<'_>, span: &HashedSpan) {
        run.monitor.advance(span.span.length);
        self.report.savings.tensor_dedup_bytes += span.span.length;
        if let Some(known) = self.known_bytes.get_mut(span.file_index) {
            *known += span.span.length;
        }
    }

    /// Files that were known in all their parts were deduplicated as files.
    fn count_file_dedup(&mut self) {
        let savings = &mut self.report.savings;
        for (file, known) in self.manifest.files.iter().zip(&self.known_bytes) {
            if *known == file.size {
                savings.tensor_dedup_bytes -= known;
                savings.file_dedup_bytes += known;
            }
        }
    }
}

/// Writes what is encoded; its memory is for what is encoded next.
fn write(run: &mut Run<'_>, output: &mut Output, done: Done) -> Result<()> {
    let (bytes, spare) = output.write(&mut run.writer, &run.options.encode, done)?;
    run.monitor.advance(bytes);
    run.spare.push(spare);
    Ok(())
}

/// What the store knows of a span.
enum Lookup {
    /// It is stored, or will be with this model.
    Known,
    /// It is not stored.
    New,
    /// It is damaged, or gone though others depend on it: it must not depend on others now.
    Again,
}

/// The object that a span becomes.
pub fn new_object(span: &HashedSpan, base: Option<Base>) -> NewObject {
    NewObject {
        digest: span.digest.clone(),
        dtype: span.span.dtype,
        row_len: span.span.row_len,
        raw_len: span.span.length,
        base,
        set_rows: span.span.matrix_rows(),
        preparation: Preparation::default(),
    }
}

/// Waits for a worker; its panic goes on in this thread.
fn join<T>(worker: std::thread::ScopedJoinHandle<'_, T>) -> T {
    worker
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
