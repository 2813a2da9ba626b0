//! Delta and solo codecs against BitX and planes: bytes and speed on one thread, on generated and on real weights.
//!
//! `cargo bench --bench rans` prints a table of every instruction set by processor time, which tells more than the
//! clock where other programs run, then times one chunk of each pair with criterion. Settings are in the environment:
//!
//! - `ZIPLLM_FAMILY`, a directory of model directories, and `ZIPLLM_BASE`, one of them: every model against that one, whole
//!   files of the same names and shapes, tensors that are equal left out;
//! - `ZIPLLM_ROUNDS`: how often the table is measured (5); 0 leaves it out;
//! - `ZIPLLM_JSON`: a file that gets the table.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss
)]

mod support;

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use support::pair::{Pair, generated, real};
use support::speed;
use zipllm::codec::{ChunkView, CodecId, EncodeOptions, Prepared, Workspace, find};
use zipllm::rans::{self, Chunk, Effort, Isa, Scratch};

fn pairs() -> Vec<Pair> {
    let mut pairs = generated(4);
    let [family, base] = ["ZIPLLM_FAMILY", "ZIPLLM_BASE"].map(|key| std::env::var(key).ok());
    if let (Some(family), Some(base)) = (family, base) {
        pairs.extend(real(Path::new(&family), &base));
    }
    pairs
}

fn main() {
    let pairs = pairs();
    let rounds = std::env::var("ZIPLLM_ROUNDS").ok();
    let rounds = rounds.map_or(5, |rounds| rounds.parse().unwrap());
    // Without `--bench` this runs as a test: once, quickly.
    let bench = std::env::args().any(|argument| argument == "--bench");
    if bench && rounds > 0 {
        let table = speed::table(&pairs, rounds);
        if let Ok(path) = std::env::var("ZIPLLM_JSON") {
            speed::write(&table, Path::new(&path));
        }
    }
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(200))
        .configure_from_args();
    for pair in &pairs {
        // The largest chunk; of equals the last.
        let chunk = pair.chunks().max_by_key(|(_, raw)| raw.len());
        let (chunk, raw) = chunk.unwrap();
        compare(&mut criterion, &pair.name, &chunk, raw);
    }
    criterion.final_summary();
}

fn compare(criterion: &mut Criterion, name: &str, chunk: &Chunk<'_>, raw: &[u8]) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Bytes(raw.len() as u64));
    let view = ChunkView {
        dtype: chunk.dtype,
        row_len: chunk.row_len,
        first_element: chunk.first_element,
        base: chunk.base,
    };
    let (mut ws, mut scratch) = (Workspace::default(), Scratch::default());
    let (mut payload, mut out) = (Vec::new(), vec![0; raw.len()]);
    let old = find(CodecId(if chunk.base.is_some() { 3 } else { 2 })).unwrap();
    let options = EncodeOptions::default();
    let mut encode = |payload: &mut Vec<u8>| {
        payload.clear();
        old.encode(&options, &view, black_box(raw), &mut ws, payload);
    };
    encode(&mut payload);
    group.bench_function(format!("encode/{}", old.name()), |bencher| {
        bencher.iter(|| encode(&mut payload));
    });
    group.bench_function(format!("decode/{}", old.name()), |bencher| {
        bencher.iter(|| {
            old.decode(
                &Prepared::default(),
                &view,
                black_box(&payload),
                &mut out,
                &mut ws,
            )
        });
    });
    for isa in Isa::all() {
        for effort in [Effort::Fast, Effort::Default, Effort::Max] {
            let mut encode = |payload: &mut Vec<u8>| {
                payload.clear();
                rans::encode(isa, effort, chunk, black_box(raw), &mut scratch, payload);
            };
            encode(&mut payload);
            group.bench_function(format!("encode/{isa:?}-{effort:?}"), |bencher| {
                bencher.iter(|| encode(&mut payload));
            });
            if effort == Effort::Default {
                group.bench_function(format!("decode/{isa:?}"), |bencher| {
                    let payload = black_box(&payload);
                    bencher.iter(|| rans::decode(isa, chunk, payload, &mut out, &mut scratch));
                });
            }
        }
    }
}
