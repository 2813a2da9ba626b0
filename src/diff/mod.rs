//! Diff: what two models have in common, tensor by tensor, and how far apart the rest is.

mod distance;

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::name::RelPath;
use crate::object_reader::ObjectReader;
use crate::restore::{ModelVersion, find_manifest};
use crate::store::Store;
use crate::store::manifest::{Manifest, Segment, Tensor};
use crate::threads;

pub use distance::Distance;

/// How two models differ.
#[derive(Clone, Debug, Serialize)]
pub struct DiffReport {
    /// The first model, with its version.
    pub from: String,
    /// The second one.
    pub to: String,
    /// Files of equal path and content.
    pub equal_files: usize,
    /// Paths of files that both have, with other content.
    pub changed_files: Vec<RelPath>,
    /// Paths of files that only the second has.
    pub added_files: Vec<RelPath>,
    /// Paths of files that only the first has.
    pub removed_files: Vec<RelPath>,
    /// Tensors of equal name, type, shape and content.
    pub equal_tensors: usize,
    /// Bytes of those.
    pub equal_bytes: u64,
    /// Tensors of equal name, type and shape.
    pub changed: Vec<ChangedTensor>,
    /// Tensors of equal name, and another type or shape.
    pub resized: Vec<ResizedTensor>,
    /// Tensors that only the second has.
    pub added: Vec<TensorPlace>,
    /// Tensors that only the first has.
    pub removed: Vec<TensorPlace>,
    /// Of the weights of equal and changed tensors, the share that is equal, 0 to 1; absent where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub equal_share: Option<f64>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// A tensor and its file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TensorPlace {
    /// The file.
    pub path: RelPath,
    /// The tensor.
    pub tensor: String,
    /// The dtype's name in the file.
    pub dtype: String,
    /// Elements in each dimension.
    pub shape: Vec<u64>,
}

/// A tensor of other content.
#[derive(Clone, Debug, Serialize)]
pub struct ChangedTensor {
    /// Where it is in the second model.
    #[serde(flatten)]
    pub place: TensorPlace,
    /// How far it is from the first model's.
    #[serde(flatten)]
    pub distance: Distance,
}

/// A tensor of another type or shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ResizedTensor {
    /// What it is in the first model.
    pub from: TensorPlace,
    /// What it is in the second.
    pub to: TensorPlace,
}

/// A tensor in a manifest.
#[derive(Clone, Copy)]
struct Found<'a> {
    path: &'a RelPath,
    tensor: &'a Tensor,
    segment: &'a Segment,
}

/// Compares two models, which may be versions of one.
///
/// # Errors
/// Fails where one of them is not in the store, or a tensor that differs cannot be read.
pub fn run(
    store: &Store,
    from: &ModelVersion,
    to: &ModelVersion,
    threads: usize,
) -> Result<DiffReport> {
    let start = Instant::now();
    let (old, new) = (find_manifest(store, from)?, find_manifest(store, to)?);
    let mut report = DiffReport::of_files(&old, &new);
    let pool = threads::pool(threads, store.layout().root())?;
    let reader = ObjectReader::new(store.clone());
    let (mut equal, mut all) = (0u64, 0u64);
    let old_tensors = tensors(&old);
    let mut left: HashSet<usize> = (0..old_tensors.len()).collect();
    let by_name = by_name(&old_tensors);
    for tensor in tensors(&new) {
        let Some((at, before)) = counterpart(&old_tensors, &by_name, &left, &tensor) else {
            report.added.push(tensor.place());
            continue;
        };
        left.remove(&at);
        if before.tensor.dtype != tensor.tensor.dtype || before.tensor.shape != tensor.tensor.shape
        {
            let (from, to) = (before.place(), tensor.place());
            report.resized.push(ResizedTensor { from, to });
            continue;
        }
        let elements = distance::elements(tensor.tensor, tensor.segment.length);
        all += elements;
        if before.segment.object == tensor.segment.object {
            report.equal_tensors += 1;
            report.equal_bytes += tensor.segment.length;
            equal += elements;
            continue;
        }
        let measure = || distance::measure(&reader, before.segment, tensor.segment, tensor.tensor);
        let distance = pool.install(measure).map_err(|error| Error::Damaged {
            file: format!("{}: {}", tensor.path, tensor.tensor.name),
            source: Box::new(error),
        })?;
        equal += distance.equal_elements;
        let place = tensor.place();
        report.changed.push(ChangedTensor { place, distance });
    }
    let mut left: Vec<_> = left.into_iter().collect();
    left.sort_unstable();
    let left = left.iter().filter_map(|at| old_tensors.get(*at));
    report.removed = left.map(Found::place).collect();
    report.equal_share = (all > 0).then(|| distance::share(equal, all));
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

fn tensors(manifest: &Manifest) -> Vec<Found<'_>> {
    let mut found = Vec::new();
    for file in &manifest.files {
        for segment in &file.segments {
            if let Some(tensor) = &segment.tensor {
                let path = &file.path;
                found.push(Found {
                    path,
                    tensor,
                    segment,
                });
            }
        }
    }
    found
}

fn by_name<'a>(tensors: &[Found<'a>]) -> HashMap<&'a str, Vec<usize>> {
    let mut by_name: HashMap<_, Vec<usize>> = HashMap::new();
    for (at, found) in tensors.iter().enumerate() {
        by_name
            .entry(found.tensor.name.as_str())
            .or_default()
            .push(at);
    }
    by_name
}

/// The first model's tensor of the same name: that in the file of the same path, or else any.
fn counterpart<'a>(
    tensors: &[Found<'a>],
    by_name: &HashMap<&str, Vec<usize>>,
    left: &HashSet<usize>,
    wanted: &Found<'_>,
) -> Option<(usize, Found<'a>)> {
    let of_name = by_name.get(wanted.tensor.name.as_str())?;
    let mut candidates: Vec<_> = of_name
        .iter()
        .filter(|at| left.contains(at))
        .filter_map(|at| tensors.get(*at).map(|found| (*at, *found)))
        .collect();
    candidates.sort_by_key(|(at, found)| (found.path != wanted.path, *at));
    candidates.first().copied()
}

impl Found<'_> {
    fn place(&self) -> TensorPlace {
        TensorPlace {
            path: self.path.clone(),
            tensor: self.tensor.name.clone(),
            dtype: self.tensor.dtype.clone(),
            shape: self.tensor.shape.clone(),
        }
    }
}

impl DiffReport {
    fn of_files(old: &Manifest, new: &Manifest) -> Self {
        let before: HashMap<_, _> = old.files.iter().map(|file| (&file.path, file)).collect();
        let after: HashSet<_> = new.files.iter().map(|file| &file.path).collect();
        let mut report = Self {
            from: format!("{}@{}", old.model, old.version),
            to: format!("{}@{}", new.model, new.version),
            equal_files: 0,
            changed_files: Vec::new(),
            added_files: Vec::new(),
            removed_files: Vec::new(),
            equal_tensors: 0,
            equal_bytes: 0,
            changed: Vec::new(),
            resized: Vec::new(),
            added: Vec::new(),
            removed: Vec::new(),
            equal_share: None,
            seconds: 0.0,
        };
        for file in &new.files {
            match before.get(&file.path) {
                None => report.added_files.push(file.path.clone()),
                Some(old) if old.blake3 == file.blake3 => report.equal_files += 1,
                Some(_) => report.changed_files.push(file.path.clone()),
            }
        }
        let gone = old.files.iter().filter(|file| !after.contains(&file.path));
        report.removed_files = gone.map(|file| file.path.clone()).collect();
        report
    }
}
