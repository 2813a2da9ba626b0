//! Properties (T9): random sequences of what people do, against a map in memory.
//!
//! `ZIPLLM_CASES` sets the number of sequences, `ZIPLLM_SEED` the first seed.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

#[path = "common/disk.rs"]
mod disk;
#[path = "common/random.rs"]
mod random;
#[path = "common/small.rs"]
mod small;
#[path = "common/world.rs"]
mod world;

use random::Random;
use world::{Counts, World};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn every_version_ever_stored_comes_back() {
    let (cases, first) = (setting("ZIPLLM_CASES", 96), setting("ZIPLLM_SEED", 1));
    let mut counts = Counts::default();
    for seed in first..first + cases {
        let mut world = World::new(Random::new(seed));
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            (0..30).for_each(|_| world.step());
            world.ingest();
            world.assert_all();
            world.collect();
        }));
        assert!(done.is_ok(), "ZIPLLM_SEED={seed} ZIPLLM_CASES=1 shows it");
        counts.add(&world.counts);
    }
    println!("{cases} sequences of 30 steps, {counts:?}, 0 lost");
    let seen = [
        counts.versions,
        counts.removed,
        counts.renamed,
        counts.collected,
        counts.freed_objects,
    ];
    assert!(seen.iter().all(|count| *count as u64 > cases / 4));
}
