//! What prediction gains where there is much to gain, and that it costs nothing where there is nothing.

use super::{Pair, Random, from_bytes, no_adapter, to_bytes};
use crate::dtype::DType;
use crate::lowrank::fit::fit;
use crate::lowrank::{Shape, encode};
use crate::rans::{self, Chunk, Effort, Isa, Scratch};

/// A chunk of the format, in elements.
const CHUNK: usize = 1 << 20;

impl Pair {
    /// A matrix whose elements are `base`, and what `tune` makes of each.
    fn changed(rows: usize, columns: usize, mut tune: impl FnMut(usize, f32) -> f32) -> Self {
        let mut random = Random(11);
        let (mut target, mut base) = (Vec::new(), Vec::new());
        for at in 0..rows * columns {
            let word = to_bytes(DType::Bf16, random.normal() * 0.02);
            target.extend(to_bytes(
                DType::Bf16,
                tune(at, from_bytes(DType::Bf16, &word)),
            ));
            base.extend(word);
        }
        Self {
            shape: Shape {
                dtype: DType::Bf16,
                elements: (rows * columns) as u64,
                row_len: columns as u64,
                set_rows: rows as u64,
            },
            target,
            base,
            adapter: no_adapter(),
        }
    }

    /// The part of the words that differ from the base.
    fn share_changed(&self) -> f64 {
        let words = self.target.chunks(2).zip(self.base.chunks(2));
        let changed = words.filter(|(target, base)| target != base).count();
        changed as f64 / self.shape.elements as f64
    }

    /// Bytes without prediction, and with it where factors were found, as a store keeps them.
    fn stored(&self, effort: Effort) -> [usize; 2] {
        let isa = Isa::detect();
        let fitted = fit(isa, effort, self.shape, self, None).unwrap();
        let shared = fitted
            .as_ref()
            .map_or(0, |it| it.columns().to_bytes(isa).len());
        let mut sums = [0, shared];
        let mut scratch = Scratch::default();
        for (first_element, span) in self.chunks(CHUNK) {
            let (raw, base) = (&self.target[span.clone()], &self.base[span]);
            let chunk = Chunk {
                dtype: self.shape.dtype,
                row_len: self.shape.row_len,
                first_element,
                base: Some(base),
                shared: None,
            };
            let (mut plain, mut predicted) = (Vec::new(), Vec::new());
            rans::encode(isa, effort, &chunk, raw, &mut scratch, &mut plain);
            let mut kept = plain.len();
            if let Some(fitted) = &fitted {
                encode(
                    isa,
                    effort,
                    fitted,
                    &chunk,
                    raw,
                    &mut scratch,
                    &mut predicted,
                );
                let are_both_tried = effort == Effort::Max || fitted.is_close();
                kept = if are_both_tried {
                    kept.min(predicted.len())
                } else {
                    predicted.len()
                };
            }
            sums[0] += plain.len();
            sums[1] += kept;
        }
        sums
    }
}

#[test]
fn few_changes_are_no_worse_predicted() {
    // Twenty steps that are added in BF16: most are lost in rounding. A part of each step is alike in all rows.
    let mut random = Random(5);
    let drift: Vec<f32> = (0..384).map(|_| random.normal() * 3e-7).collect();
    let trained = Pair::changed(1024, 384, |at, mut x| {
        for _ in 0..20 {
            let step = random.normal() * 1.2e-6 + drift[at % 384];
            x = from_bytes(DType::Bf16, &to_bytes(DType::Bf16, x + step));
        }
        x
    });
    // A vocabulary of which a sixteenth of the rows was seen in training.
    let mut random = Random(6);
    let sparse = Pair::changed(4096, 256, |at, x| {
        let is_seen = (at / 256) % 16 == 3;
        let step = random.normal() * 3e-4;
        if is_seen { x + step } else { x }
    });
    for (pair, changed) in [(trained, 0.03..0.07), (sparse, 0.05..0.07)] {
        let share = pair.share_changed();
        assert!(changed.contains(&share), "{share}");
        for effort in [Effort::Default, Effort::Max] {
            let [plain, stored] = pair.stored(effort);
            assert!(stored <= plain, "{effort:?} {stored} {plain}");
        }
    }
}

#[test]
fn a_merge_of_a_great_rank_is_found_as_such() {
    // Of the second a sample cannot tell that it pays: only the greater effort goes on all the same.
    let wide = Pair::new(DType::Bf16, 1, 1024, 2048, 32, 5e-4);
    let small = Pair::new(DType::Bf16, 1, 768, 768, 48, 5e-5);
    for (pair, effort, most) in [(wide, Effort::Default, 0.3), (small, Effort::Max, 0.7)] {
        let [plain, stored] = pair.stored(effort);
        let ratio = stored as f64 / plain as f64;
        assert!(ratio < most, "{effort:?} {ratio}");
    }
}
