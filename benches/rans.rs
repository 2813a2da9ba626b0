//! Delta and solo codecs against BitX and planes: bytes and speed on one thread, on real and on generated weights.
//!
//! `cargo bench --bench rans` times generated weights with criterion, on every instruction set. With
//! `ZIPLLM_FAMILY=DIR`, a directory of model directories, and `ZIPLLM_BASE=NAME`, one of them, it first prints a table
//! of every model coded against that base, whole files of the same names and shapes.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use zipllm::codec::{ChunkView, CodecId, EncodeOptions, Workspace, find};
use zipllm::dtype::DType;
use zipllm::rans::{self, Chunk, Effort, Isa, Scratch};

/// Bytes of a chunk of BF16.
const CHUNK: usize = 2 << 20;

/// Uniform numbers from splitmix64.
fn uniform(i: u64) -> f32 {
    let x = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb) >> 40) as f32 / (1 << 24) as f32
}

fn normal(i: u64) -> f32 {
    (0..6).map(|k| uniform(6 * i + k)).sum::<f32>() * 1.414 - 4.243
}

/// A chunk of BF16 weights and its base, `change` of their spread apart, with rows and columns of unlike scale.
fn weights(change: f32) -> (Vec<u8>, Vec<u8>) {
    const ROW: u64 = 1024;
    let bf16 = |x: f32| (((x.to_bits() + 0x8000) >> 16) as u16).to_le_bytes();
    let scale =
        |i: u64| (0.4 * normal(i / ROW + (1 << 50)) + 0.4 * normal(i % ROW + (1 << 51))).exp2();
    let base = (0..CHUNK as u64 / 2).map(|i| 0.02 * normal(i));
    let tuned = (0..CHUNK as u64 / 2)
        .map(|i| 0.02 * (normal(i) + change * scale(i) * normal(i + (1 << 40))));
    (
        tuned.flat_map(bf16).collect(),
        base.flat_map(bf16).collect(),
    )
}

fn generated(criterion: &mut Criterion) {
    for (name, change) in [("light", 0.0005), ("typical", 0.005), ("heavy", 0.05)] {
        let (raw, base) = weights(change);
        compare(criterion, name, &raw, Some(&base));
    }
    compare(criterion, "alone", &weights(0.0).0, None);
}

fn compare(criterion: &mut Criterion, name: &str, raw: &[u8], base: Option<&[u8]>) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Bytes(raw.len() as u64));
    let view = ChunkView {
        dtype: DType::Bf16,
        row_len: 1024,
        first_element: 0,
        base,
    };
    let chunk = Chunk {
        dtype: DType::Bf16,
        row_len: 1024,
        first_element: 0,
        base,
    };
    let (mut ws, mut scratch) = (Workspace::default(), Scratch::default());
    let (mut payload, mut out) = (Vec::new(), vec![0; raw.len()]);
    let old = find(CodecId(if base.is_some() { 3 } else { 2 })).unwrap();
    group.bench_function(format!("encode/{}", old.name()), |bencher| {
        bencher.iter(|| {
            payload.clear();
            old.encode(
                &EncodeOptions::default(),
                &view,
                black_box(raw),
                &mut ws,
                &mut payload,
            );
        });
    });
    group.bench_function(format!("decode/{}", old.name()), |bencher| {
        bencher.iter(|| old.decode(&[], &view, black_box(&payload), &mut out, &mut ws));
    });
    for isa in Isa::all() {
        for effort in [Effort::Fast, Effort::Default, Effort::Max] {
            group.bench_function(format!("encode/{isa:?}-{effort:?}"), |bencher| {
                bencher.iter(|| {
                    payload.clear();
                    rans::encode(
                        isa,
                        effort,
                        &chunk,
                        black_box(raw),
                        &mut scratch,
                        &mut payload,
                    );
                });
            });
            if effort == Effort::Default {
                group.bench_function(format!("decode/{isa:?}"), |bencher| {
                    bencher.iter(|| {
                        rans::decode(isa, &chunk, black_box(&payload), &mut out, &mut scratch)
                    });
                });
            }
        }
    }
}

struct Tensor {
    row_len: u64,
    bytes: Vec<u8>,
}

fn tensors(model: &Path) -> BTreeMap<String, Tensor> {
    let file = std::fs::read(model.join("model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    let bf16 = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        let row_len = if view.shape().len() < 2 {
            0
        } else {
            view.shape()[view.shape().len() - 1] as u64
        };
        (
            name,
            Tensor {
                row_len,
                bytes: view.data().to_vec(),
            },
        )
    };
    tensors.tensors().into_iter().map(bf16).collect()
}

/// Bytes and seconds of one way to code a model.
#[derive(Default)]
struct Row {
    stored: usize,
    encode: f64,
    decode: f64,
}

impl Row {
    /// Codes one chunk three times and keeps the shortest times.
    fn add(
        &mut self,
        raw: &[u8],
        mut encode: impl FnMut(&mut Vec<u8>),
        mut decode: impl FnMut(&[u8], &mut [u8]),
    ) {
        let (mut payload, mut out) = (Vec::new(), vec![0; raw.len()]);
        let mut best = [f64::MAX; 2];
        for _ in 0..3 {
            payload.clear();
            let start = Instant::now();
            encode(&mut payload);
            best[0] = best[0].min(start.elapsed().as_secs_f64());
            let start = Instant::now();
            decode(&payload, &mut out);
            best[1] = best[1].min(start.elapsed().as_secs_f64());
            assert!(out == raw, "what was encoded comes back");
        }
        self.stored += payload.len().min(raw.len());
        self.encode += best[0];
        self.decode += best[1];
    }

    fn print(&self, what: &str, all: usize, coded: usize) {
        let speed = |seconds: f64| coded as f64 / 1e9 / seconds;
        let ratio = self.stored as f64 / all as f64;
        println!(
            "    {what:20} ratio {ratio:.4}  encode {:.2} GB/s  decode {:.2} GB/s",
            speed(self.encode),
            speed(self.decode)
        );
    }
}

fn family() {
    let (Ok(root), Ok(base)) = (std::env::var("ZIPLLM_FAMILY"), std::env::var("ZIPLLM_BASE"))
    else {
        return;
    };
    let root = Path::new(&root);
    let mut models: Vec<_> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    models.sort();
    let base_tensors = tensors(&root.join(&base));
    for model in models {
        let alone = model.ends_with(&base);
        println!("{}", model.display());
        table(&tensors(&model), (!alone).then_some(&base_tensors));
    }
}

fn table(model: &BTreeMap<String, Tensor>, base: Option<&BTreeMap<String, Tensor>>) {
    let (mut ws, mut scratch) = (Workspace::default(), Scratch::default());
    let mut ways: Vec<(String, Option<(Isa, Effort)>)> = vec![("planes, zstd 3".into(), None)];
    let best = Isa::detect();
    for isa in Isa::all() {
        ways.push((format!("{isa:?}"), Some((isa, Effort::Default))));
    }
    ways.push((format!("{best:?} fast"), Some((best, Effort::Fast))));
    ways.push((format!("{best:?} max"), Some((best, Effort::Max))));
    let mut rows: Vec<Row> = ways.iter().map(|_| Row::default()).collect();
    let all = model.values().map(|tensor| tensor.bytes.len()).sum();
    let mut coded = 0;
    for (name, tensor) in model {
        let base = base
            .and_then(|base| base.get(name))
            .filter(|base| base.bytes.len() == tensor.bytes.len());
        if base.is_some_and(|base| base.bytes == tensor.bytes) {
            continue;
        }
        coded += tensor.bytes.len();
        for (number, raw) in tensor.bytes.chunks(CHUNK).enumerate() {
            let base = base.map(|base| &base.bytes[number * CHUNK..number * CHUNK + raw.len()]);
            let (dtype, row_len, first_element) =
                (DType::Bf16, tensor.row_len, (number * CHUNK / 2) as u64);
            let view = ChunkView {
                dtype,
                row_len,
                first_element,
                base,
            };
            let chunk = Chunk {
                dtype,
                row_len,
                first_element,
                base,
            };
            for ((_, way), row) in ways.iter().zip(&mut rows) {
                match *way {
                    None => {
                        let codec = find(CodecId(if base.is_some() { 3 } else { 2 })).unwrap();
                        let ws = std::cell::RefCell::new(&mut ws);
                        row.add(
                            raw,
                            |out| {
                                codec.encode(
                                    &EncodeOptions::default(),
                                    &view,
                                    raw,
                                    &mut ws.borrow_mut(),
                                    out,
                                );
                            },
                            |payload, out| {
                                codec
                                    .decode(&[], &view, payload, out, &mut ws.borrow_mut())
                                    .unwrap();
                            },
                        );
                    }
                    Some((isa, effort)) => {
                        let scratch = std::cell::RefCell::new(&mut scratch);
                        row.add(
                            raw,
                            |out| {
                                rans::encode(
                                    isa,
                                    effort,
                                    &chunk,
                                    raw,
                                    &mut scratch.borrow_mut(),
                                    out,
                                );
                            },
                            |payload, out| {
                                rans::decode(isa, &chunk, payload, out, &mut scratch.borrow_mut())
                                    .unwrap();
                            },
                        );
                    }
                }
            }
        }
    }
    for ((what, _), row) in ways.iter().zip(&rows) {
        row.print(what, all, coded);
    }
}

fn benches(criterion: &mut Criterion) {
    family();
    generated(criterion);
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(200))
}

criterion_group! { name = all; config = short(); targets = benches }
criterion_main!(all);
