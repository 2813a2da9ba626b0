//! Speed of the kernels, by instruction set, and of the codecs on generated weights.
//!
//! `cargo bench --bench codecs`; throughput is that of element bytes, on one thread.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use zipllm::codec::{ChunkView, EncodeOptions, Prepared, Workspace, encode_chunk, find};
use zipllm::dtype::DType;
use zipllm::kernel::{Isa, Layout};

/// Uniform numbers below 2^32, from splitmix64.
fn uniform(i: u64) -> u64 {
    let x = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb) >> 32
}

/// About normal weights of standard deviation 0.02, as F32: the sum of four uniform numbers.
#[allow(clippy::cast_precision_loss)]
fn weight(i: u64) -> f32 {
    let sum = (0..4)
        .map(|k| uniform(4 * i + k) as f32 / 4_294_967_296.0)
        .sum::<f32>();
    (sum - 2.0) * 0.0346
}

/// BF16 weights, and the same moved by about 0.3 % of their spread.
fn weights(count: u64) -> (Vec<u8>, Vec<u8>) {
    let bf16 = |x: f32| ((x.to_bits() + 0x8000) >> 16) as u16;
    let base = (0..count).map(weight);
    let tuned = (0..count).map(|i| weight(i) + 0.003 * weight(i + (1 << 40)));
    let bytes = |x: f32| bf16(x).to_le_bytes();
    (
        base.flat_map(bytes).collect(),
        tuned.flat_map(bytes).collect(),
    )
}

fn kernels(criterion: &mut Criterion) {
    const BYTES: usize = 1 << 18;
    let (base, raw) = weights(BYTES as u64 / 2);
    for (name, size, base) in [
        ("u16", 2, None),
        ("u16-xor", 2, Some(&base[..])),
        ("u32", 4, None),
        ("u64", 8, None),
    ] {
        let layout = Layout { size, rotate: true };
        let mut group = criterion.benchmark_group(format!("kernel-{name}"));
        group.throughput(Throughput::Bytes(BYTES as u64));
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let mut planes = vec![0; BYTES];
            let mut out = vec![0; BYTES];
            group.bench_function(format!("split/{isa:?}"), |bencher| {
                bencher.iter(|| isa.split(layout, base, black_box(&raw), &mut planes));
            });
            let planes: Vec<&[u8]> = planes.chunks_exact(BYTES / size).collect();
            group.bench_function(format!("merge/{isa:?}"), |bencher| {
                bencher.iter(|| isa.merge(layout, base, black_box(&planes), &mut out));
            });
        }
    }
}

fn codecs(criterion: &mut Criterion) {
    let (base, raw) = weights(1 << 20);
    let options = EncodeOptions::default();
    for base in [None, Some(&base[..])] {
        let view = ChunkView {
            dtype: DType::Bf16,
            row_len: 1024,
            first_element: 0,
            base,
        };
        let (mut ws, mut payload) = (Workspace::default(), Vec::new());
        let id = encode_chunk(&options, &view, &raw, &mut ws, &mut payload);
        let Some(codec) = find(id) else { return };
        let mut group = criterion.benchmark_group(format!("codec-{}", codec.name()));
        group.throughput(Throughput::Bytes(raw.len() as u64));
        group.bench_function("encode", |bencher| {
            let mut payload = Vec::new();
            bencher.iter(|| {
                payload.clear();
                encode_chunk(&options, &view, black_box(&raw), &mut ws, &mut payload)
            });
        });
        group.bench_function("decode", |bencher| {
            let mut out = vec![0; raw.len()];
            bencher.iter(|| {
                codec.decode(
                    &Prepared::default(),
                    &view,
                    black_box(&payload),
                    &mut out,
                    &mut ws,
                )
            });
        });
    }
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400))
}

criterion_group! { name = benches; config = short(); targets = kernels, codecs }
criterion_main!(benches);
