//! Generated weights of a Llama-like model and of fine-tunes of it.
//!
//! An element is normal noise times a log-normal scale of its own (heavy tails), of its row and of its column. The
//! constants are close to those of real models of this architecture and of real fine-tunes of them.

use super::random::Random;

/// Rank of a merged low-rank fine-tune.
const RANK: usize = 16;
const EMBEDDING: &str = "model.embed_tokens.weight";
const FINAL_NORM: &str = "model.norm.weight";

/// Deviations of the logarithms of the three scales, and of the elements themselves.
#[derive(Clone, Copy)]
struct Spread {
    deviation: f32,
    row: f32,
    column: f32,
    tail: f32,
}

/// The size of a generated model.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width within the feed-forward part.
    pub inner: usize,
    /// Width of keys and values together with all their heads.
    pub key_value: usize,
    /// Number of layers.
    pub layers: usize,
    /// Number of tokens.
    pub vocabulary: usize,
}

/// How a fine-tune was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tuning {
    /// All weights, at an ordinary learning rate.
    Typical,
    /// All weights, a few steps.
    Light,
    /// A product of two thin matrices added to each linear layer.
    LowRank,
    /// The last layer only.
    LastLayer,
}

/// One tensor of BF16 numbers.
#[derive(Clone)]
pub struct Tensor {
    /// Its name in the model.
    pub name: String,
    /// Rows and columns, or one length.
    pub shape: Vec<usize>,
    /// The numbers, row by row.
    pub values: Vec<u16>,
}

/// Generates a base model, the same one for the same seed.
pub fn base(size: &Size, seed: u64) -> Vec<Tensor> {
    let generated = |(name, shape): (String, Vec<usize>)| {
        let mut random = Random::new(seed, &name);
        let values = match spread(&name) {
            Some(spread) => noise(&mut random, &shape, spread)
                .into_iter()
                .map(to_bf16)
                .collect(),
            None => norm_weights(&mut random, &shape),
        };
        Tensor {
            name,
            shape,
            values,
        }
    };
    layout(size).into_iter().map(generated).collect()
}

/// Generates a fine-tune of `base`.
pub fn fine_tune(base: &[Tensor], tuning: Tuning, seed: u64) -> Vec<Tensor> {
    let last_layer = base.iter().filter_map(|tensor| layer(&tensor.name)).max();
    let tuned = |tensor: &Tensor| {
        let touched = tuning != Tuning::LastLayer
            || layer(&tensor.name).is_some_and(|layer| Some(layer) == last_layer);
        let mut tensor = tensor.clone();
        if touched {
            let mut random = Random::new(seed, &tensor.name);
            if let Some(delta) = delta(&mut random, &tensor, tuning) {
                add(&mut tensor.values, &delta);
            }
        }
        tensor
    };
    base.iter().map(tuned).collect()
}

/// The tensors of a model in the order of their file.
fn layout(size: &Size) -> Vec<(String, Vec<usize>)> {
    let &Size {
        hidden,
        inner,
        key_value,
        layers,
        vocabulary,
    } = size;
    let mut tensors = vec![(EMBEDDING.to_owned(), vec![vocabulary, hidden])];
    for layer in 0..layers {
        let parts = [
            ("input_layernorm", vec![hidden]),
            ("mlp.down_proj", vec![hidden, inner]),
            ("mlp.gate_proj", vec![inner, hidden]),
            ("mlp.up_proj", vec![inner, hidden]),
            ("post_attention_layernorm", vec![hidden]),
            ("self_attn.k_proj", vec![key_value, hidden]),
            ("self_attn.o_proj", vec![hidden, hidden]),
            ("self_attn.q_proj", vec![hidden, hidden]),
            ("self_attn.v_proj", vec![key_value, hidden]),
        ];
        tensors.extend(
            parts.map(|(part, shape)| (format!("model.layers.{layer}.{part}.weight"), shape)),
        );
    }
    tensors.push((FINAL_NORM.to_owned(), vec![hidden]));
    tensors
}

fn layer(name: &str) -> Option<usize> {
    name.strip_prefix("model.layers.")?
        .split('.')
        .next()?
        .parse()
        .ok()
}

/// The statistics of a matrix; a norm has none.
fn spread(name: &str) -> Option<Spread> {
    let (deviation, row, column, tail) = match name.rsplit('.').nth(1)? {
        "embed_tokens" => (0.12, 0.19, 0.22, 0.0),
        "q_proj" => (0.22, 0.34, 0.29, 0.12),
        "k_proj" => (0.27, 0.36, 0.30, 0.11),
        "v_proj" => (0.15, 0.12, 0.27, 0.18),
        "o_proj" => (0.14, 0.13, 0.24, 0.11),
        "gate_proj" => (0.19, 0.10, 0.05, 0.18),
        "up_proj" => (0.20, 0.07, 0.07, 0.23),
        "down_proj" => (0.19, 0.14, 0.06, 0.24),
        _ => return None,
    };
    Some(Spread {
        deviation,
        row,
        column,
        tail,
    })
}

/// What a fine-tune adds to a tensor, if it touches it.
fn delta(random: &mut Random, tensor: &Tensor, tuning: Tuning) -> Option<Vec<f32>> {
    let weights = spread(&tensor.name).unwrap_or(Spread {
        deviation: 0.43,
        row: 0.0,
        column: 0.0,
        tail: 0.0,
    });
    let embedding = tensor.name == EMBEDDING;
    let (relative, row, column) = match tuning {
        Tuning::Typical if embedding => (0.021, 0.69, 0.37),
        Tuning::Typical => (0.006, 0.24, 0.12),
        Tuning::Light if embedding => (0.0014, 0.42, 0.23),
        Tuning::Light => (0.0004, 0.17, 0.10),
        Tuning::LowRank => {
            return low_rank(random, &tensor.shape, weights.deviation * 0.003)
                .filter(|_| !embedding);
        }
        Tuning::LastLayer => (0.003, 0.17, 0.08),
    };
    Some(noise(
        random,
        &tensor.shape,
        Spread {
            deviation: weights.deviation * relative,
            row,
            column,
            tail: 0.0,
        },
    ))
}

fn noise(random: &mut Random, shape: &[usize], spread: Spread) -> Vec<f32> {
    let (rows, width) = rows_and_width(shape);
    let columns: Vec<f32> = (0..width)
        .map(|_| random.log_normal(spread.column))
        .collect();
    let mut values = Vec::with_capacity(rows * width);
    for _ in 0..rows {
        let scale = spread.deviation * random.log_normal(spread.row);
        values.extend(
            columns
                .iter()
                .map(|column| scale * column * random.normal() * random.log_normal(spread.tail)),
        );
    }
    values
}

/// A product of a tall and a wide matrix of `RANK`; none for a vector.
#[allow(clippy::cast_precision_loss, reason = "the rank is small")]
fn low_rank(random: &mut Random, shape: &[usize], deviation: f32) -> Option<Vec<f32>> {
    let &[rows, width] = shape else { return None };
    let flat = |deviation, row, column| Spread {
        deviation,
        row,
        column,
        tail: 0.0,
    };
    let tall = noise(
        random,
        &[rows, RANK],
        flat(deviation / (RANK as f32).sqrt(), 0.4, 0.0),
    );
    let wide = noise(random, &[RANK, width], flat(1.0, 0.0, 0.4));
    let mut product = vec![0.0; rows * width];
    for (out, factors) in product.chunks_exact_mut(width).zip(tall.chunks_exact(RANK)) {
        for (factor, row) in factors.iter().zip(wide.chunks_exact(width)) {
            out.iter_mut()
                .zip(row)
                .for_each(|(sum, value)| *sum += factor * value);
        }
    }
    Some(product)
}

fn norm_weights(random: &mut Random, shape: &[usize]) -> Vec<u16> {
    let (rows, width) = rows_and_width(shape);
    (0..rows * width)
        .map(|_| to_bf16((0.43 + 0.08 * random.normal()).max(0.01)))
        .collect()
}

fn rows_and_width(shape: &[usize]) -> (usize, usize) {
    match shape {
        &[rows, width] => (rows, width),
        other => (1, other.iter().product()),
    }
}

fn add(values: &mut [u16], delta: &[f32]) {
    for (value, delta) in values.iter_mut().zip(delta) {
        *value = to_bf16(from_bf16(*value) + delta);
    }
}

/// Widens a BF16 number; nothing is lost.
pub fn from_bf16(value: u16) -> f32 {
    f32::from_bits(u32::from(value) << 16)
}

/// Rounds a finite number to BF16, halves to even.
#[allow(clippy::cast_possible_truncation, reason = "the shift leaves 16 bits")]
fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) as u16
}
