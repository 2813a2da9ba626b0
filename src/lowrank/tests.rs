//! Round trips of fitted tensors over shapes, chunks and instruction sets, and decoders on any bytes.

mod gains;
mod hostile;

use super::factors::{Columns, Fitted, Rows, Set};
use super::fit::{Start, Tensor, fit, is_promising};
use super::predict::Predictor;
use super::{MAX_RANK, Shape, decode, encode};
use crate::dtype::DType;
use crate::float::convert;
use crate::rans::{Bad, Chunk, Effort, Isa, Predict, Scratch};

struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    fn normal(&mut self) -> f32 {
        (0..6)
            .map(|_| self.next() as f32 / 4_294_967_296.0 - 0.5)
            .sum::<f32>()
            * std::f32::consts::SQRT_2
    }
}

fn to_bytes(dtype: DType, x: f32) -> Vec<u8> {
    let mut out = vec![0; dtype.size()];
    convert(DType::F32, &x.to_le_bytes(), dtype, &mut out);
    out
}

fn from_bytes(dtype: DType, bytes: &[u8]) -> f32 {
    let mut out = [0; 4];
    convert(dtype, bytes, DType::F32, &mut out);
    f32::from_le_bytes(out)
}

/// A tensor and its base: `sets` matrices, each with a product of its own rank added.
struct Pair {
    shape: Shape,
    target: Vec<u8>,
    base: Vec<u8>,
    /// The factors of the last matrix, the rows' at another scale.
    adapter: Start,
}

fn no_adapter() -> Start {
    Start {
        rank: 0,
        rows: Vec::new(),
        columns: Vec::new(),
    }
}

impl Pair {
    fn fit_from(&self, start: &Start) -> Option<Fitted> {
        fit(
            Isa::detect(),
            Effort::Default,
            self.shape,
            self,
            Some(start),
        )
        .unwrap()
    }

    fn new(dtype: DType, sets: usize, rows: usize, columns: usize, rank: usize, size: f32) -> Self {
        Self::merged(dtype, [sets, rows, columns, rank], size, false)
    }

    /// As [`Self::new`]; `rounded` tells whether products are rounded before they are added.
    fn merged(
        dtype: DType,
        [sets, rows, columns, rank]: [usize; 4],
        size: f32,
        rounded: bool,
    ) -> Self {
        let mut random = Random(3);
        let (mut target, mut base) = (Vec::new(), Vec::new());
        let mut adapter = no_adapter();
        for _ in 0..sets {
            let scale = (size / (rank.max(1) as f32).sqrt()).sqrt();
            let mut factors = |count: usize| {
                (0..count * rank)
                    .map(|_| random.normal() * scale)
                    .collect::<Vec<_>>()
            };
            let (left, right) = (factors(rows), factors(columns));
            adapter = Start {
                rank,
                rows: left.iter().map(|x| x * 8.0).collect(),
                columns: right.clone(),
            };
            for i in 0..rows {
                for j in 0..columns {
                    let word = to_bytes(dtype, random.normal() * 0.02);
                    let mut delta: f32 = (0..rank)
                        .map(|k| left[i * rank + k] * right[j * rank + k])
                        .sum();
                    if rounded {
                        delta = from_bytes(dtype, &to_bytes(dtype, delta));
                    }
                    target.extend(to_bytes(dtype, from_bytes(dtype, &word) + delta));
                    base.extend(word);
                }
            }
        }
        let elements = (sets * rows * columns) as u64;
        let shape = Shape {
            dtype,
            elements,
            row_len: columns as u64,
            set_rows: rows as u64,
        };
        Self {
            shape,
            target,
            base,
            adapter,
        }
    }

    fn fit(&self, effort: Effort) -> Option<Fitted> {
        fit(Isa::detect(), effort, self.shape, self, None).unwrap()
    }

    /// The chunks of `elements` elements: the first element, and where the bytes are.
    fn chunks(&self, elements: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
        let size = self.shape.dtype.size();
        let end = self.target.len();
        (0..end)
            .step_by(elements * size)
            .map(move |at| ((at / size) as u64, at..end.min(at + elements * size)))
    }

    /// Encodes in chunks of `elements`, decodes each alone on every instruction set; returns all bytes.
    fn round_trip(&self, fitted: &Fitted, elements: usize) -> usize {
        let shared = fitted.columns().to_bytes(Isa::detect());
        let columns =
            Columns::parse(Isa::Scalar, self.shape.dtype, self.shape.row_len, &shared).unwrap();
        assert!(columns == **fitted.columns());
        let mut scratch = Scratch::default();
        let mut total = shared.len();
        for (first_element, span) in self.chunks(elements) {
            let (raw, base) = (&self.target[span.clone()], &self.base[span]);
            let (dtype, row_len) = (self.shape.dtype, self.shape.row_len);
            let chunk = Chunk {
                dtype,
                row_len,
                first_element,
                base: Some(base),
                shared: None,
            };
            let mut payload = Vec::new();
            encode(
                Isa::detect(),
                Effort::Default,
                fitted,
                &chunk,
                raw,
                &mut scratch,
                &mut payload,
            );
            for isa in Isa::all() {
                let mut out = vec![0xEE; raw.len()];
                let done = decode(isa, &columns, &chunk, &payload, &mut out, &mut scratch);
                assert_eq!(done, Ok(()), "{isa:?} {first_element}");
                assert!(out == raw, "{isa:?} {first_element}");
            }
            total += payload.len();
        }
        total
    }
}

impl Tensor for Pair {
    type Error = std::convert::Infallible;
    fn read(
        &self,
        first_element: u64,
        target: &mut [u8],
        base: &mut [u8],
    ) -> Result<(), Self::Error> {
        let start = first_element as usize * self.shape.dtype.size();
        target.copy_from_slice(&self.target[start..start + target.len()]);
        base.copy_from_slice(&self.base[start..start + base.len()]);
        Ok(())
    }
}

/// Factors of any values, as no fit would find them.
fn any_factors(shape: Shape, ranks: &[usize], extreme: bool, rounded: bool) -> Fitted {
    let mut random = Random(9);
    let mut factor = move || {
        let any = (random.next() % 4095) as i16 - 2047;
        if extreme { any.signum() * 2047 } else { any }
    };
    let columns = shape.row_len as usize;
    let sets: Vec<Set> = ranks
        .iter()
        .map(|&rank| {
            let factors: Vec<i16> = (0..rank * columns).map(|_| factor()).collect();
            Set::new(rank, if extreme { 120 } else { 85 }, columns, &factors)
        })
        .collect();
    let (dtype, row_len, set_rows) = (shape.dtype, shape.row_len, shape.set_rows);
    let found = Columns {
        dtype,
        row_len,
        set_rows,
        rounded,
        sets,
    };
    let stride = found.stride();
    let mut words = vec![0; shape.rows() as usize * stride];
    for (row, words) in words.chunks_exact_mut(stride.max(1)).enumerate() {
        let rank = found.set_of(row as u64).map_or(0, |set| set.rank);
        for (k, word) in words.iter_mut().enumerate() {
            let mut half = |k: usize| {
                if k < rank {
                    u32::from(factor() as u16)
                } else {
                    0
                }
            };
            *word = half(2 * k) | (half(2 * k + 1) << 16);
        }
    }
    let rows = Rows {
        first: 0,
        stride,
        words,
    };
    Fitted {
        columns: std::sync::Arc::new(found),
        ratio: 0.5,
        rows,
    }
}

#[test]
fn a_merge_costs_its_factors() {
    for (dtype, most) in [(DType::Bf16, 0.05), (DType::F16, 0.06), (DType::F32, 0.55)] {
        let pair = Pair::new(dtype, 1, 300, 400, 4, 5e-5);
        let fitted = pair.fit(Effort::Default).expect("factors of a merge");
        let ratio = pair.round_trip(&fitted, 50_000) as f64 / pair.target.len() as f64;
        assert!(ratio < most, "{dtype} {ratio}");
    }
}

/// An adapter's rank is found where no search finds it, for its factors cost more than half of what they save.
#[test]
fn an_adapter_is_where_a_fit_begins() {
    let pair = Pair::new(DType::Bf16, 1, 600, 700, 40, 2e-4);
    let alone = pair.fit(Effort::Default);
    let begun = pair.fit_from(&pair.adapter).expect("the adapter's factors");
    assert_eq!(begun.columns().sets[0].rank, 40);
    let bytes = pair.round_trip(&begun, 70_000);
    let otherwise = alone.map_or(pair.target.len(), |fitted| pair.round_trip(&fitted, 70_000));
    assert!(bytes * 10 < otherwise * 9, "{bytes} {otherwise}");
}

/// What is said of a tensor and is not true changes nothing.
#[test]
fn a_false_adapter_does_no_harm() {
    let pair = Pair::new(DType::Bf16, 1, 300, 400, 4, 5e-5);
    let most = pair.round_trip(&pair.fit(Effort::Default).unwrap(), 50_000);
    let noise = |count: usize, scale: f32| -> Vec<f32> {
        let mut random = Random(8);
        (0..count).map(|_| random.normal() * scale).collect()
    };
    let start = |rank: usize, rows: Vec<f32>, columns: Vec<f32>| Start {
        rank,
        rows,
        columns,
    };
    for (number, start) in [
        start(4, noise(1200, 1.0), noise(1600, 1.0)),
        start(4, noise(1200, 1e38), noise(1600, 1e38)),
        start(4, vec![0.0; 1200], noise(1600, 1.0)),
        start(4, vec![f32::NAN; 1200], noise(1600, 1.0)),
        start(4, vec![f32::INFINITY; 1200], noise(1600, 1.0)),
        start(4, vec![1e-45; 1200], vec![f32::MAX; 1600]),
        start(4, noise(1199, 1.0), noise(1600, 1.0)),
        start(0, Vec::new(), Vec::new()),
        start(151, noise(151 * 300, 1.0), noise(151 * 400, 1.0)),
    ]
    .iter()
    .enumerate()
    {
        let fitted = pair.fit_from(start).expect("factors in spite of it");
        let bytes = pair.round_trip(&fitted, 50_000);
        assert_eq!(bytes, most, "{number}");
    }
}

/// Merges that rounded their products first are told from those that did not, and cost less for that.
#[test]
fn rounded_products_are_recognised() {
    for dtype in [DType::Bf16, DType::F16] {
        for (sets, rounded) in [(1, false), (1, true), (2, true)] {
            // Differences of a quarter of the weights: their own rounding is seen.
            let pair = Pair::merged(dtype, [sets, 400, 512, 4], 5e-3, rounded);
            let fitted = pair.fit(Effort::Default).expect("factors of a merge");
            assert_eq!(fitted.columns().rounded, rounded, "{dtype} {sets}");
            let bytes = pair.round_trip(&fitted, 70_000);
            let mut other = fitted.clone();
            std::sync::Arc::make_mut(&mut other.columns).rounded = !rounded;
            let otherwise = pair.round_trip(&other, 70_000);
            assert!(bytes < otherwise, "{dtype} {rounded} {bytes} {otherwise}");
        }
    }
}

#[test]
fn matrices_of_a_stack_have_factors_of_their_own() {
    let pair = Pair::new(DType::Bf16, 3, 150, 256, 2, 8e-5);
    let fitted = pair.fit(Effort::Default).expect("factors of all matrices");
    assert_eq!(fitted.columns().sets.len(), 3);
    assert!(
        fitted
            .columns()
            .sets
            .iter()
            .all(|set| (2..=4).contains(&set.rank))
    );
    let ratio = pair.round_trip(&fitted, 60_000) as f64 / pair.target.len() as f64;
    assert!(ratio < 0.06, "{ratio}");
}

#[test]
fn noise_has_no_factors() {
    let mut pair = Pair::new(DType::Bf16, 1, 200, 300, 0, 0.0);
    let mut random = Random(5);
    for word in pair.target.as_chunks_mut::<2>().0 {
        let step = random.next() % 5;
        *word = u16::from_le_bytes(*word)
            .wrapping_add(step as u16)
            .to_le_bytes();
    }
    assert!(pair.fit(Effort::Default).is_none());
    assert!(pair.fit(Effort::Max).is_none());
}

/// Whatever the sizes of rows, columns and single differences are: without a common component nothing is tried.
#[test]
fn sizes_alone_are_no_sign() {
    let (rows, columns) = (500, 600);
    let mut pair = Pair::new(DType::Bf16, 1, rows, columns, 0, 0.0);
    let mut random = Random(6);
    let sizes = |random: &mut Random, count: usize| -> Vec<f32> {
        (0..count).map(|_| (2.0 * random.normal()).exp()).collect()
    };
    let (of_rows, of_columns) = (sizes(&mut random, rows), sizes(&mut random, columns));
    for (at, word) in pair.target.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        let size = 5e-5 * of_rows[at / columns] * of_columns[at % columns];
        let tail = random.normal().powi(3) * size;
        *word = to_bytes(DType::Bf16, from_bytes(DType::Bf16, word) + tail)
            .try_into()
            .unwrap();
    }
    assert!(!is_promising(Isa::detect(), pair.shape, &pair).unwrap());
    // The same with a common component of a few rows in ten is one.
    let of_component = sizes(&mut random, columns);
    for (at, word) in pair.target.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        let step = 1e-4 * of_component[at % columns] * (at / columns % 3) as f32;
        *word = to_bytes(DType::Bf16, from_bytes(DType::Bf16, word) + step)
            .try_into()
            .unwrap();
    }
    assert!(is_promising(Isa::detect(), pair.shape, &pair).unwrap());
}

#[test]
fn shapes_without_matrices_are_not_tried() {
    let elements = 100_000u64;
    for (row_len, set_rows) in [
        (0, 0),
        (0, 1),
        (1, elements),
        (elements, 1),
        (31, 3000),
        (7, 14_285),
    ] {
        let shape = Shape {
            dtype: DType::Bf16,
            elements,
            row_len,
            set_rows,
        };
        let pair = Pair {
            shape,
            target: vec![0; 200_000],
            base: vec![0; 200_000],
            adapter: no_adapter(),
        };
        assert!(pair.fit(Effort::Max).is_none(), "{row_len}");
    }
}

#[test]
fn odd_words_are_survived() {
    let mut pair = Pair::new(DType::Bf16, 1, 120, 300, 3, 1e-4);
    let odd = [
        0x7F80u16, 0xFF80, 0x7FC0, 0xFFFF, 0, 0x8000, 1, 0x8001, 0x7F7F, 0xFF7F,
    ];
    for (number, word) in odd.into_iter().cycle().take(600).enumerate() {
        let at = number * 113 % 36_000 * 2;
        let bytes = if number % 3 == 0 {
            &mut pair.base
        } else {
            &mut pair.target
        };
        bytes[at..at + 2].copy_from_slice(&word.to_le_bytes());
    }
    let fitted = pair.fit(Effort::Default).expect("factors in spite of them");
    pair.round_trip(&fitted, 7777);
}

#[test]
fn any_factors_come_back() {
    for dtype in [DType::Bf16, DType::F16, DType::F32] {
        for (ranks, rows, columns) in [
            (vec![1], 7, 9),
            (vec![MAX_RANK], 3, 200),
            (vec![0, 5, 16, 0], 40, 130),
            (vec![3, 0], 1, 4),
        ] {
            let pair = Pair::new(dtype, ranks.len(), rows, columns, 1, 1e-3);
            for (extreme, rounded) in [(false, false), (true, false), (false, true), (true, true)] {
                let fitted = any_factors(pair.shape, &ranks, extreme, rounded);
                // Rows cut by the ends of chunks, chunks within a row, and all in one.
                for elements in [5, 333, 100_000] {
                    pair.round_trip(&fitted, elements);
                }
            }
        }
    }
}

#[test]
fn no_factors_predict_the_base() {
    let pair = Pair::new(DType::Bf16, 1, 10, 50, 1, 1e-4);
    let fitted = Fitted::none(DType::Bf16, 50);
    let predictor = Predictor {
        isa: Isa::detect(),
        columns: fitted.columns(),
        rows: &Rows::default(),
        first_element: 0,
    };
    let (mut predicted, mut hints) = (vec![0; 1000], vec![0; 500]);
    predictor.predict(0, &pair.base, &mut predicted, &mut hints);
    assert!(predicted == pair.base && hints.iter().all(|&hint| hint == 7));
    let parsed = Columns::parse(Isa::detect(), DType::Bf16, 50, &[]).unwrap();
    assert!(parsed == **fitted.columns());
}

#[test]
fn a_fit_is_the_same_on_any_number_of_threads() {
    let pair = Pair::new(DType::Bf16, 1, 700, 500, 4, 6e-5);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let fitted = pool.install(|| pair.fit(Effort::Default)).unwrap();
        (fitted.columns().to_bytes(Isa::Scalar), fitted.rows)
    };
    assert!(run(1) == run(3));
}

/// What is stored of given factors must never change: hashes of shared sections and payloads.
#[test]
fn stored_bytes_are_pinned() {
    let first = [
        (DType::Bf16, false),
        (DType::Bf16, true),
        (DType::F32, false),
    ];
    assert_eq!(
        stored_hash(&first),
        "7fd81d636093079643ba9c1f26c14ac322dc3398ebed45b9a4dc40deac735da9"
    );
    assert_eq!(
        stored_hash(&[(DType::F16, false), (DType::F16, true)]),
        "dc92d5eff6589e935b2bc8adb83688307e965cde78fb7728b59094ef16a67aaf"
    );
}

fn stored_hash(cases: &[(DType, bool)]) -> String {
    let mut hasher = blake3::Hasher::new();
    for &(dtype, rounded) in cases {
        let pair = Pair::new(dtype, 2, 90, 130, 2, 1e-4);
        let fitted = any_factors(pair.shape, &[3, 16], false, rounded);
        hasher.update(&fitted.columns().to_bytes(Isa::detect()));
        for (first_element, span) in pair.chunks(9000) {
            let (raw, base) = (&pair.target[span.clone()], &pair.base[span]);
            let chunk = Chunk {
                dtype,
                row_len: 130,
                first_element,
                base: Some(base),
                shared: None,
            };
            let mut payload = Vec::new();
            encode(
                Isa::detect(),
                Effort::Default,
                &fitted,
                &chunk,
                raw,
                &mut Scratch::default(),
                &mut payload,
            );
            hasher.update(&payload);
        }
    }
    hasher.finalize().to_hex().to_string()
}
