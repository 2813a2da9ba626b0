//! Bytes for tests: noise, weights, and safetensors files of any shape.
#![allow(
    dead_code,
    reason = "each program that includes this takes a part of it"
)]

use serde_json::{Map, Value, json};

/// A tensor: name, dtype, shape, data.
pub type Tensor<'a> = (&'a str, &'a str, &'a [u64], &'a [u8]);

/// Bytes that no codec makes smaller, the same for the same seed (xorshift64*, Vigna 2016).
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes()
    });
    let mut bytes: Vec<u8> = words.take(length.div_ceil(8)).flatten().collect();
    bytes.truncate(length);
    bytes
}

/// Numbers like weights in BF16: random signs and mantissas, few exponents.
pub fn weights(seed: u64, elements: usize) -> Vec<u8> {
    let mut bytes = noise(seed, 2 * elements);
    for pair in bytes.chunks_exact_mut(2) {
        pair[1] = pair[1] & 0x80 | 0x3C + (pair[1] & 1);
    }
    bytes
}

/// `base` with the low bits of each element changed, as training does.
pub fn tuned(base: &[u8], seed: u64) -> Vec<u8> {
    let change = noise(seed, base.len());
    base.iter()
        .zip(change)
        .enumerate()
        .map(|(at, (byte, change))| {
            if at % 2 == 0 {
                byte ^ (change & 3)
            } else {
                *byte
            }
        })
        .collect()
}

/// A safetensors file with the tensors one after another.
pub fn safetensors(tensors: &[Tensor<'_>]) -> Vec<u8> {
    let mut header = Map::new();
    let mut data = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        let begin = data.len();
        data.extend_from_slice(bytes);
        header.insert((*name).to_owned(), entry(dtype, shape, begin, data.len()));
    }
    with_header(&Value::Object(header), &data)
}

/// A tensor's entry in a header.
pub fn entry(dtype: &str, shape: &[u64], begin: usize, end: usize) -> Value {
    json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, end]})
}

/// A file with this header and this data, whether they fit or not.
pub fn with_header(header: &Value, data: &[u8]) -> Vec<u8> {
    let header = header.to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(data);
    file
}
