//! Tensors of a base model by name.

use std::collections::HashMap;
use std::sync::Arc;

use super::MAX_PLANNED_DEPTH;
use crate::error::{Error, Result};
use crate::hash::Hash;
use crate::name::RelPath;
use crate::object_reader::{ObjectReader, OpenObject};
use crate::store::manifest::{Manifest, Tensor};

/// Tensors of one name that are looked at.
const MAX_NAMED: usize = 4;

/// The tensors of a base model, by name.
#[derive(Default)]
pub struct BaseTensors(HashMap<String, Vec<Candidate>>);

struct Candidate {
    path: RelPath,
    tensor: Tensor,
    object: Hash,
}

impl BaseTensors {
    /// The tensors of the model with this manifest.
    pub fn of(manifest: &Manifest) -> Self {
        let mut tensors: HashMap<String, Vec<Candidate>> = HashMap::new();
        for file in &manifest.files {
            for segment in &file.segments {
                let Some(tensor) = &segment.tensor else {
                    continue;
                };
                let candidate = Candidate {
                    path: file.path.clone(),
                    tensor: tensor.clone(),
                    object: segment.object,
                };
                tensors
                    .entry(tensor.name.clone())
                    .or_default()
                    .push(candidate);
            }
        }
        Self(tensors)
    }

    /// Returns the base's object for a tensor of the file at `path`; one in the file of that path goes first.
    pub fn find(&self, path: &RelPath, tensor: &Tensor) -> Option<Hash> {
        let fitting =
            |c: &&Candidate| c.tensor.dtype == tensor.dtype && c.tensor.shape == tensor.shape;
        let candidates = self.0.get(&tensor.name)?;
        let same_path = candidates.iter().filter(fitting).find(|c| c.path == *path);
        same_path
            .or_else(|| candidates.iter().find(fitting))
            .map(|c| c.object)
    }
}

impl BaseTensors {
    /// Returns the base's objects for a tensor of this name, of whatever shape and type.
    pub fn named(&self, tensor: &Tensor) -> impl Iterator<Item = Hash> {
        let candidates = self.0.get(&tensor.name).into_iter().flatten();
        candidates.map(|candidate| candidate.object).take(MAX_NAMED)
    }
}

/// Opens the object to encode against: `name`, or where that is too deep, what it is based on itself.
pub fn resolve(reader: &ObjectReader, name: &Hash) -> Result<Arc<OpenObject>> {
    let mut object = reader.open(name)?;
    while object.file.frame.head.depth >= MAX_PLANNED_DEPTH {
        let Some(base) = object.file.frame.head.bases.first() else {
            break;
        };
        let next = reader.open(&base.name)?;
        if next.file.frame.head.depth >= object.file.frame.head.depth {
            let reason = format!("its base {} is as deep as itself", base.name);
            return Err(Error::corrupt(&object.file.name, reason));
        }
        object = next;
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::manifest::{FORMAT, FileEntry, Segment};

    fn tensor(name: &str, dtype: &str, shape: &[u64]) -> Tensor {
        Tensor {
            name: name.into(),
            dtype: dtype.into(),
            shape: shape.to_vec(),
        }
    }

    fn file(path: &str, tensors: &[(Tensor, &[u8])]) -> FileEntry {
        let segments: Vec<_> = tensors
            .iter()
            .map(|(tensor, tag)| Segment {
                object: Hash::of(tag),
                length: 8,
                tensor: Some(tensor.clone()),
            })
            .collect();
        let size = 8 * segments.len() as u64;
        FileEntry {
            path: path.parse().unwrap(),
            size,
            blake3: Hash::of(b""),
            executable: false,
            segments,
        }
    }

    #[test]
    fn tensors_pair_by_name_dtype_and_shape_and_same_path_first() {
        let w = tensor("w", "BF16", &[2, 2]);
        let other_type = tensor("w", "F16", &[2, 2]);
        let files = vec![
            file("1.safetensors", &[(w.clone(), b"1")]),
            file("2.safetensors", &[(w.clone(), b"2")]),
        ];
        let manifest = Manifest {
            format: FORMAT,
            model: "a/b".parse().unwrap(),
            version: 1,
            commit: None,
            base: None,
            bases: vec![],
            bytes: 16,
            files,
            empty_dirs: vec![],
        };
        let base = BaseTensors::of(&manifest);
        let path = |text: &str| text.parse::<RelPath>().unwrap();
        assert_eq!(base.find(&path("2.safetensors"), &w), Some(Hash::of(b"2")));
        assert_eq!(base.find(&path("x.safetensors"), &w), Some(Hash::of(b"1")));
        assert_eq!(base.find(&path("1.safetensors"), &other_type), None);
        assert_eq!(
            base.find(&path("1.safetensors"), &tensor("w", "BF16", &[4])),
            None
        );
        assert_eq!(
            base.find(&path("1.safetensors"), &tensor("v", "BF16", &[2, 2])),
            None
        );
    }
}
