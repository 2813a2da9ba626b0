//! Pairs of a base and a fine-tune, cut into chunks: real ones from files, and generated ones.

use std::collections::BTreeMap;
use std::path::Path;

use zipllm::dtype::DType;
use zipllm::rans::Chunk;

/// Bytes of a chunk of BF16.
const CHUNK: usize = 2 << 20;

/// A tensor of BF16, and the base's of the same name, if there is one.
pub struct Tensor {
    /// Elements in a row; 0 where there are no rows.
    row_len: u64,
    raw: Vec<u8>,
    base: Option<Vec<u8>>,
}

/// What is coded: a fine-tune against its base, or a model alone.
pub struct Pair {
    /// What it is called in reports.
    pub name: String,
    tensors: Vec<Tensor>,
    /// Bytes of tensors that equal the base's and are not coded.
    pub equal: usize,
}

impl Pair {
    /// The chunks, as a store would cut them, each with its bytes.
    pub fn chunks(&self) -> impl Iterator<Item = (Chunk<'_>, &[u8])> {
        self.tensors.iter().flat_map(|tensor| {
            let cut = |number: usize, raw: &[u8]| number * CHUNK..number * CHUNK + raw.len();
            let chunks = tensor.raw.chunks(CHUNK).enumerate();
            chunks.map(move |(number, raw)| {
                let base = tensor.base.as_ref().map(|base| &base[cut(number, raw)]);
                let chunk = Chunk {
                    dtype: DType::Bf16,
                    row_len: tensor.row_len,
                    first_element: (number * CHUNK / 2) as u64,
                    base,
                    shared: None,
                };
                (chunk, raw)
            })
        })
    }

    /// Bytes that are coded.
    pub fn bytes(&self) -> usize {
        self.tensors.iter().map(|tensor| tensor.raw.len()).sum()
    }
}

/// Uniform numbers from splitmix64.
fn uniform(i: u64) -> f32 {
    let x = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb) >> 40) as f32 / (1 << 24) as f32
}

fn normal(i: u64) -> f32 {
    (0..6).map(|k| uniform(6 * i + k)).sum::<f32>() * 1.414 - 4.243
}

/// Weights and their base, `change` of their spread apart, with rows and columns of unlike scale.
fn weights(chunks: usize, change: f32) -> (Vec<u8>, Vec<u8>) {
    const ROW: u64 = 1024;
    let bf16 = |x: f32| (((x.to_bits() + 0x8000) >> 16) as u16).to_le_bytes();
    let scale =
        |i: u64| (0.4 * normal(i / ROW + (1 << 50)) + 0.4 * normal(i % ROW + (1 << 51))).exp2();
    let places = 0..(chunks * CHUNK) as u64 / 2;
    let base = places.clone().map(|i| 0.02 * normal(i));
    let tuned = places.map(|i| 0.02 * (normal(i) + change * scale(i) * normal(i + (1 << 40))));
    (
        tuned.flat_map(bf16).collect(),
        base.flat_map(bf16).collect(),
    )
}

/// Generated pairs of so many chunks, and one model alone.
pub fn generated(chunks: usize) -> Vec<Pair> {
    let pair = |(name, change, based): (&str, f32, bool)| {
        let (raw, base) = weights(chunks, change);
        Pair {
            name: format!("generated-{name}"),
            tensors: vec![Tensor {
                row_len: 1024,
                raw,
                base: based.then_some(base),
            }],
            equal: 0,
        }
    };
    [
        ("nearly-equal", 0.000_01, true),
        ("light", 0.0005, true),
        ("typical", 0.005, true),
        ("heavy", 0.05, true),
        ("alone", 0.0, false),
    ]
    .map(pair)
    .into()
}

fn tensors(model: &Path) -> BTreeMap<String, (u64, Vec<u8>)> {
    let file = std::fs::read(model.join("model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    let rows = |shape: &[usize]| match shape {
        [_, .., last] => *last as u64,
        _ => 0,
    };
    let tensors = tensors.tensors().into_iter();
    tensors
        .map(|(name, view)| (name, (rows(view.shape()), view.data().to_vec())))
        .collect()
}

/// Every model of the directory `root` against the one called `base`, and that one alone.
pub fn real(root: &Path, base: &str) -> Vec<Pair> {
    let models = std::fs::read_dir(root).unwrap();
    let mut models: Vec<_> = models.map(|entry| entry.unwrap().path()).collect();
    models.sort();
    let base_tensors = tensors(&root.join(base));
    let pair = |model: &std::path::PathBuf| {
        let alone = model.ends_with(base);
        let mut equal = 0;
        let mut coded = Vec::new();
        for (name, (row_len, raw)) in tensors(model) {
            let of_base = base_tensors.get(&name).filter(|_| !alone);
            let of_base = of_base
                .map(|(_, bytes)| bytes)
                .filter(|b| b.len() == raw.len());
            if of_base == Some(&raw) {
                equal += raw.len();
                continue;
            }
            coded.push(Tensor {
                row_len,
                base: of_base.cloned(),
                raw,
            });
        }
        Pair {
            name: model
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into(),
            tensors: coded,
            equal,
        }
    };
    models.iter().map(pair).collect()
}
