//! What chunks have in common, learnt from content that is always the same.
#![allow(dead_code, reason = "no target uses all of it")]

use std::cell::RefCell;
use std::collections::HashMap;

use zipllm::dtype::DType;
use zipllm::rans::{Effort, Isa, Learner, Sample, Scratch, Shared};

use super::common::{Input, base};

/// What is learnt depends on these: the chunk's type and rows, whether there is a base, and the effort.
type Key = (DType, u64, bool, bool);

thread_local! {
    static LEARNT: RefCell<HashMap<Key, Option<Shared>>> = RefCell::default();
}

/// Runs `work` with what is learnt for such chunks; with nothing where rows are too short or long.
pub fn with_learnt<T>(
    dtype: DType,
    row_len: u64,
    has_base: bool,
    effort: Effort,
    work: impl FnOnce(Option<&Shared>) -> T,
) -> T {
    let key = (dtype, row_len, has_base, effort == Effort::Max);
    LEARNT.with_borrow_mut(|learnt| {
        if learnt.len() > 500 {
            learnt.clear();
        }
        let learn = || learn(dtype, row_len, has_base, effort);
        work(learnt.entry(key).or_insert_with(learn).as_ref())
    })
}

fn learn(dtype: DType, row_len: u64, has_base: bool, effort: Effort) -> Option<Shared> {
    if !(16..400).contains(&row_len) {
        return None;
    }
    let rows = (4200 / row_len).max(16);
    let base = base((rows * row_len) as usize * dtype.size());
    let raw: Vec<u8> = base
        .iter()
        .enumerate()
        .map(|(i, b)| if i % 5 == 0 { b ^ 1 } else { *b })
        .collect();
    let sample = Sample {
        dtype,
        row_len,
        raw: &raw,
        base: has_base.then_some(&base[..]),
        hints: None,
    };
    let learner = Learner::new(Isa::detect(), effort);
    learner.finish(&sample, 100 * rows * row_len, &mut Scratch::default())
}

/// As a decoder has it, a few bytes changed as the input says; nothing if that is refused.
pub fn changed(
    shared: &Shared,
    dtype: DType,
    row_len: u64,
    input: &mut Input<'_>,
) -> Option<Shared> {
    let mut bytes = shared.to_bytes();
    let (at, count) = (input.number(), usize::from(input.byte() & 15));
    let at = at % bytes.len();
    let places = bytes.iter_mut().skip(at);
    let changes = input.bytes(count);
    places.zip(changes).for_each(|(to, from)| *to ^= from);
    Shared::parse(dtype, row_len, &bytes).ok()
}
