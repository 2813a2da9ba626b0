//! Power cuts (T1): after every change that a run makes, what a disk may then hold is a store that has
//! every committed model, and that the next run completes.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

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
use zipllm::report::Monitor;

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
    for state in history.iter().step_by(17) {
        let coin = &mut || random.next() & 1 == 0;
        let left = MemDisk::from_state(state.after_power_cut(coin, None));
        let (more_cuts, more_images) = cut_everywhere(&family, &left, 3);
        (cuts, images) = (cuts + more_cuts, images + more_images);
    }
    println!("{cuts} second cuts, {images} images, 0 lost");
    assert!(cuts > 500);
}
