//! Power cuts (T1): after every change that a run makes, what a disk may then hold is a store that has
//! every committed model, and that the next run completes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail the test"
)]

#[path = "common/disk.rs"]
mod disk;
#[path = "common/random.rs"]
mod random;
#[path = "common/small.rs"]
mod small;

use std::sync::{Arc, Mutex};

use disk::{MemDisk, State};
use random::Random;
use small::Family;
use zipllm::codec::EncodeOptions;
use zipllm::codec::select;
use zipllm::recode;
use zipllm::report::{Monitor, NoMonitor};
use zipllm::store::StoreWriter;

/// Notes after how many changes each model was reported done.
struct Commits<'a>(&'a MemDisk, Mutex<Vec<usize>>);

impl Monitor for Commits<'_> {
    fn end(&self) {
        self.1.lock().unwrap().push(self.0.changes());
    }
}

/// What a disk may hold after a power cut: all that it was told, only what it had to keep, or some of both.
fn images(state: &State, random: &mut Random, count: usize) -> Vec<(String, MemDisk)> {
    let mut images = vec![
        (
            "nothing more".to_owned(),
            state.after_power_cut(&mut || false, None),
        ),
        ("everything".to_owned(), state.clone()),
    ];
    for image in images.len()..count {
        let mut coin = Random::new(random.next());
        let after = state.after_power_cut(&mut || coin.below(2) == 0, Some(random));
        images.push((format!("some, image {image}"), after));
    }
    images
        .into_iter()
        .map(|(what, state)| (what, MemDisk::from_state(state).fork()))
        .collect()
}

/// Cuts the power after every change of a run that starts from `start`, and looks at what is left.
fn cut_everywhere(family: &Family, start: &MemDisk, images_each: usize) -> (usize, usize) {
    let disk = start.fork();
    disk.keep_history();
    let commits = Commits(&disk, Mutex::default());
    family.try_ingest(Arc::new(disk.clone()), &commits).unwrap();
    let commits = commits.1.into_inner().unwrap();
    assert_eq!(commits.len(), family.jobs.len());
    let history = disk.history();
    let mut random = Random::new(1);
    let mut inspected = 0;
    for (cut, state) in (1..).zip(&history) {
        let done = commits.iter().filter(|commit| **commit <= cut).count();
        for (what, image) in images(state, &mut random, images_each) {
            let what = format!("after change {cut} of {}, {what} kept", history.len());
            inspect(family, &image, done, &what);
            inspected += 1;
        }
    }
    (history.len(), inspected)
}

/// Committed models are whole, others whole or not there, and the next run completes the rest.
fn inspect(family: &Family, image: &MemDisk, done: usize, what: &str) {
    match family.open(image) {
        Ok(store) => {
            // A final name implies durable content, even of what no manifest names yet.
            let report = small::check(&store);
            assert!(!report.is_damaged(), "{what}: {:?}", report.damage);
            for (index, job) in family.jobs.iter().enumerate() {
                let there = family.restores(&store, job.model.as_str());
                let there = there.unwrap_or_else(|error| panic!("{what}: {error}"));
                assert!(there || index >= done, "{what}: {} is lost", job.model);
            }
        }
        Err(error) => assert_eq!(done, 0, "{what}: {error}"),
    }
    family.ingest(image);
    family.assert_whole(image, what);
}

#[test]
fn no_power_cut_loses_a_committed_model() {
    let count = std::env::var("ZIPLLM_CRASH_IMAGES").map_or(5, |count| count.parse().unwrap());
    let family = Family::three();
    let (cuts, images) = cut_everywhere(&family, &MemDisk::new(&family.store()), count);
    println!("{cuts} cuts, {images} images, 0 lost");
    assert!(cuts > 100);
}

#[test]
fn nor_one_while_a_run_repairs_what_a_power_cut_left() {
    let family = Family::three();
    let disk = MemDisk::new(&family.store());
    disk.keep_history();
    family.ingest(&disk);
    let history = disk.history();
    let mut random = Random::new(2);
    let (mut cuts, mut images) = (0, 0);
    // While the store is made, and now and then later.
    let later = history.iter().skip(12).step_by(40);
    for state in history[..12].iter().chain(later) {
        let coin = &mut || random.below(2) == 0;
        let left = MemDisk::from_state(state.after_power_cut(coin, None));
        let (more_cuts, more_images) = cut_everywhere(&family, &left, 2);
        (cuts, images) = (cuts + more_cuts, images + more_images);
    }
    println!("{cuts} second cuts, {images} images, 0 lost");
    assert!(cuts > 500);
}

/// Encodes every object anew that gets smaller by it, and returns the bytes of all object files.
fn recode(family: &Family, disk: &MemDisk) -> u64 {
    let options = recode::Options {
        threads: 1,
        encode: EncodeOptions::default(),
        all: true,
    };
    let writer = StoreWriter::open_on(Arc::new(disk.clone()), &family.store()).unwrap();
    let report = recode::run(writer, options, &NoMonitor).unwrap();
    assert!(report.errors.is_empty(), "{report:?}");
    report.bytes_after
}

#[test]
fn no_power_cut_in_a_recode_loses_anything() {
    let mut family = Family::three();
    family.encode.family = select::Family::BitX;
    let start = MemDisk::new(&family.store());
    family.ingest(&start);
    let disk = start.fork();
    disk.keep_history();
    let wanted = recode(&family, &disk);
    let history = disk.history();
    let mut random = Random::new(3);
    let mut inspected = 0;
    for (cut, state) in (1..).zip(&history) {
        for (kept, image) in images(state, &mut random, 5) {
            let what = format!("after change {cut} of {}, {kept} kept", history.len());
            family.assert_whole(&image, &what);
            assert_eq!(recode(&family, &image), wanted, "{what}");
            family.assert_whole(&image, &what);
            inspected += 1;
        }
    }
    println!("{} cuts, {inspected} images, 0 lost", history.len());
    assert!(history.len() > 20);
}
