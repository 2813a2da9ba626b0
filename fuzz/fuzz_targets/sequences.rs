//! What people do, in any order, on a disk whose power goes at times: nothing that was stored is lost.
//!
//! The input is what `tests/properties.rs` draws at random: which steps, and all that they choose.
#![no_main]

#[path = "../../tests/common/disk.rs"]
mod disk;
#[path = "../../tests/common/random.rs"]
mod random;
#[path = "../../tests/common/small.rs"]
mod small;
#[path = "../../tests/common/world.rs"]
mod world;

use random::Random;
use world::World;

const STEPS: usize = 40;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let mut world = World::new(Random::scripted(input));
    for _ in 0..STEPS {
        if !world.is_scripted() {
            break;
        }
        world.step();
    }
    world.ingest();
    world.assert_all();
    world.collect();
});
