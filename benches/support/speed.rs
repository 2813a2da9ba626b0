//! The table of speeds: every codec on every pair, in turn, several times, by the thread's processor time.

use std::path::Path;

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use zipllm::codec::{ChunkView, CodecId, EncodeOptions, Prepared, Workspace, find};
use zipllm::kernel::{self, Layout};
use zipllm::rans::{self, Chunk, Effort, Isa, Scratch};

use super::pair::Pair;

/// A codec with its settings.
#[derive(Clone, Copy)]
enum Way {
    /// `BitX` as it was published: both planes of a chunk, each whole, through zstd at level 3; the planes of words alone
    /// likewise.
    Published,
    /// The codec of planes of this project, BitX or that of words alone.
    Planes,
    /// The coder.
    Rans(Isa, Effort),
}

impl Way {
    fn name(self) -> String {
        match self {
            Self::Published => "bitx-as-published".into(),
            Self::Planes => "planes-zstd-3".into(),
            Self::Rans(isa, effort) => format!("{isa:?}-{effort:?}").to_lowercase(),
        }
    }

    /// Every instruction set at `default`, those of vectors at `fast`, the best one at `max`.
    fn all() -> Vec<Self> {
        let mut ways = vec![Self::Planes, Self::Published];
        for isa in Isa::all() {
            ways.push(Self::Rans(isa, Effort::Default));
            if isa != Isa::Scalar {
                ways.push(Self::Rans(isa, Effort::Fast));
            }
        }
        ways.push(Self::Rans(Isa::detect(), Effort::Max));
        ways
    }
}

/// Memory that is used again.
#[derive(Default)]
struct Memory {
    workspace: Workspace,
    scratch: Scratch,
    planes: Vec<u8>,
    out: Vec<u8>,
}

/// Two planes, signs in the lower one.
const LAYOUT: Layout = Layout {
    size: 2,
    rotate: true,
};

impl Memory {
    fn encode(&mut self, way: Way, chunk: &Chunk<'_>, raw: &[u8], out: &mut Vec<u8>) {
        match way {
            Way::Rans(isa, effort) => {
                rans::encode(isa, effort, chunk, raw, &mut self.scratch, out);
            }
            Way::Planes => {
                let codec = find(planes(chunk)).unwrap();
                let options = EncodeOptions::default();
                codec.encode(&options, &view(chunk), raw, &mut self.workspace, out);
            }
            Way::Published => self.encode_published(chunk, raw, out),
        }
    }

    /// The length of the first frame, and both frames.
    fn encode_published(&mut self, chunk: &Chunk<'_>, raw: &[u8], out: &mut Vec<u8>) {
        self.planes.resize(raw.len(), 0);
        kernel::Isa::detect().split(LAYOUT, chunk.base, raw, &mut self.planes);
        let (low, high) = self.planes.split_at(raw.len() / 2);
        let [low, high] = [low, high].map(|plane| zstd::bulk::compress(plane, 3).unwrap());
        out.extend_from_slice(&u32::try_from(low.len()).unwrap().to_le_bytes());
        out.extend_from_slice(&low);
        out.extend_from_slice(&high);
    }

    fn decode(&mut self, way: Way, chunk: &Chunk<'_>, payload: &[u8], length: usize) {
        self.out.resize(length, 0);
        let (out, workspace) = (&mut self.out, &mut self.workspace);
        match way {
            Way::Rans(isa, _) => {
                rans::decode(isa, chunk, payload, out, &mut self.scratch).unwrap();
            }
            Way::Planes => {
                let codec = find(planes(chunk)).unwrap();
                let view = view(chunk);
                codec
                    .decode(&Prepared::default(), &view, payload, out, workspace)
                    .unwrap();
            }
            Way::Published => self.decode_published(chunk, payload),
        }
    }

    fn decode_published(&mut self, chunk: &Chunk<'_>, payload: &[u8]) {
        self.planes.resize(self.out.len(), 0);
        let (low, high) = self.planes.split_at_mut(self.out.len() / 2);
        let (length, frames) = payload.split_first_chunk().unwrap();
        let frames = frames.split_at(u32::from_le_bytes(*length) as usize);
        zstd::bulk::decompress_to_buffer(frames.0, low).unwrap();
        zstd::bulk::decompress_to_buffer(frames.1, high).unwrap();
        kernel::Isa::detect().merge(LAYOUT, chunk.base, &[low, high], &mut self.out);
    }
}

fn planes(chunk: &Chunk<'_>) -> CodecId {
    CodecId(if chunk.base.is_some() { 3 } else { 2 })
}

fn view<'a>(chunk: &Chunk<'a>) -> ChunkView<'a> {
    ChunkView {
        dtype: chunk.dtype,
        row_len: chunk.row_len,
        first_element: chunk.first_element,
        base: chunk.base,
    }
}

/// Seconds of processor time of this thread so far.
fn seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// What one way took for one pair, a number a round.
#[derive(Default)]
struct Row {
    stored: usize,
    encode: Vec<f64>,
    decode: Vec<f64>,
}

impl Row {
    /// Encodes all chunks, then decodes them.
    fn round(&mut self, way: Way, pair: &Pair, memory: &mut Memory, check: bool) {
        let mut payloads = Vec::new();
        let start = seconds();
        for (chunk, raw) in pair.chunks() {
            let mut payload = Vec::with_capacity(raw.len() + 1024);
            memory.encode(way, &chunk, raw, &mut payload);
            payloads.push(payload);
        }
        self.encode.push(seconds() - start);
        self.stored = payloads.iter().map(Vec::len).sum();
        let mut spent = 0.0;
        for ((chunk, raw), payload) in pair.chunks().zip(&payloads) {
            let start = seconds();
            memory.decode(way, &chunk, payload, raw.len());
            spent += seconds() - start;
            assert!(!check || memory.out == raw, "what was encoded comes back");
        }
        self.decode.push(spent);
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The median of what the first took in the same round, by what the second took.
fn times(first: &[f64], second: &[f64]) -> f64 {
    median(first.iter().zip(second).map(|(a, b)| a / b).collect())
}

/// Measures every way on every pair, prints a table and returns it.
pub fn table(pairs: &[Pair], rounds: usize) -> Value {
    let mut memory = Memory::default();
    let ways = Way::all();
    println!(
        "GB/s of tensor bytes by processor time of one thread, medians of {rounds}; in brackets times planes-zstd-3 in the same round"
    );
    let mut out = Vec::new();
    for pair in pairs {
        println!("{}", pair.name);
        let mut rows: Vec<Row> = ways.iter().map(|_| Row::default()).collect();
        for round in 0..rounds {
            for (way, row) in ways.iter().zip(&mut rows) {
                row.round(*way, pair, &mut memory, round == 0);
            }
        }
        for (way, row) in ways.iter().zip(&rows) {
            out.push(report(pair, *way, row, &rows[0]));
        }
    }
    Value::Array(out)
}

fn report(pair: &Pair, way: Way, row: &Row, planes: &Row) -> Value {
    let gigabytes = pair.bytes() as f64 / 1e9;
    let ratio = row.stored as f64 / (pair.bytes() + pair.equal) as f64;
    let [encode, decode] = [&row.encode, &row.decode].map(|s| gigabytes / median(s.clone()));
    let faster = [
        times(&planes.encode, &row.encode),
        times(&planes.decode, &row.decode),
    ];
    let name = way.name();
    println!(
        "    {name:16} ratio {ratio:.4}  encode {encode:.2} ({:.2})  decode {decode:.2} ({:.2})",
        faster[0], faster[1]
    );
    json!({
        "pair": pair.name, "way": name, "ratio": ratio,
        "encode_gb_per_cpu_second": encode, "encode_times_planes": faster[0],
        "decode_gb_per_cpu_second": decode, "decode_times_planes": faster[1],
    })
}

/// Writes what [`table`] returned.
pub fn write(table: &Value, path: &Path) {
    std::fs::write(path, format!("{table:#}\n")).unwrap();
}
