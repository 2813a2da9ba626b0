//! Writing safetensors files.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::weights::{Tensor, from_bf16};

/// How the numbers of a file are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// 2 bytes each, as generated.
    Bf16,
    /// The same numbers in 4 bytes each.
    F32,
}

impl Coding {
    fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "BF16",
            Self::F32 => "F32",
        }
    }

    fn bytes(self, values: &[u16]) -> Vec<u8> {
        match self {
            Self::Bf16 => values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
            Self::F32 => values
                .iter()
                .flat_map(|value| from_bf16(*value).to_le_bytes())
                .collect(),
        }
    }

    fn size(self) -> usize {
        match self {
            Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }
}

/// Writes `tensors` to one file, its header padded to 8 bytes as usual.
pub fn write(path: &Path, tensors: &[Tensor], coding: Coding) -> io::Result<()> {
    let mut header = header(tensors, coding).to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    for tensor in tensors {
        file.write_all(&coding.bytes(&tensor.values))?;
    }
    file.flush()
}

fn header(tensors: &[Tensor], coding: Coding) -> Value {
    let mut entries = Map::new();
    entries.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut start = 0;
    for tensor in tensors {
        let end = start + tensor.values.len() * coding.size();
        let entry =
            json!({"dtype": coding.name(), "shape": tensor.shape, "data_offsets": [start, end]});
        entries.insert(tensor.name.clone(), entry);
        start = end;
    }
    Value::Object(entries)
}

/// Writes `tensors` to two files and the index that says which tensor is where.
pub fn write_sharded(directory: &Path, tensors: &[Tensor]) -> io::Result<()> {
    let (first, second) = tensors.split_at(tensors.len() / 2);
    let mut map = Map::new();
    for (number, shard) in [(1, first), (2, second)] {
        let name = format!("model-{number:05}-of-00002.safetensors");
        write(&directory.join(&name), shard, Coding::Bf16)?;
        map.extend(
            shard
                .iter()
                .map(|tensor| (tensor.name.clone(), json!(name))),
        );
    }
    let bytes: usize = tensors.iter().map(|tensor| tensor.values.len() * 2).sum();
    let index = json!({"metadata": {"total_size": bytes}, "weight_map": map});
    std::fs::write(
        directory.join("model.safetensors.index.json"),
        format!("{index:#}\n"),
    )
}
