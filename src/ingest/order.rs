//! The order of a batch: a model after those that its own files name as what it was made from.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::Job;
use crate::name::ModelId;
use crate::pairing::card;
use crate::source::locate;

/// Puts the models that cards and configs in `model_dir` name before those that name them; else the order stays.
///
/// What `jobs` say of bases goes first: a card that contradicts it, or another card, is passed over, as is one that
/// cannot be read.
pub fn by_cards(jobs: Vec<Job>, model_dir: &Path) -> Vec<Job> {
    if jobs.len() < 2 {
        return jobs;
    }
    let places: HashMap<_, _> = jobs.iter().map(|job| job.model.clone()).zip(0..).collect();
    let place = |id: &ModelId| places.get(id).copied();
    let base = |job: &Job| job.base.as_ref().and_then(place).into_iter().collect();
    let mut before = Before(jobs.iter().map(base).collect());
    for (at, job) in jobs.iter().enumerate() {
        for named in named(job, model_dir).iter().filter_map(place) {
            before.add(at, named);
        }
    }
    let order = before.order();
    let mut jobs: Vec<_> = jobs.into_iter().map(Some).collect();
    let take = |at: usize| jobs.get_mut(at).and_then(Option::take);
    order.into_iter().filter_map(take).collect()
}

fn named(job: &Job, model_dir: &Path) -> Vec<ModelId> {
    let directory = locate(model_dir, &job.model).ok().flatten();
    let listing = directory.and_then(|directory| directory.scan().ok());
    listing.map_or_else(Vec::new, |listing| card::of_listing(&listing))
}

/// For each model those that have to come before it.
struct Before(Vec<Vec<usize>>);

impl Before {
    /// Adds one, unless that would make a circle.
    fn add(&mut self, at: usize, before: usize) {
        if at != before
            && !self.reaches(before, at)
            && let Some(others) = self.0.get_mut(at)
        {
            others.push(before);
        }
    }

    fn reaches(&self, from: usize, to: usize) -> bool {
        let (mut waiting, mut seen) = (vec![from], HashSet::new());
        while let Some(at) = waiting.pop() {
            if at == to {
                return true;
            }
            if seen.insert(at) {
                waiting.extend(self.0.get(at).into_iter().flatten());
            }
        }
        false
    }

    /// Each model once, after those that have to come before it.
    fn order(&self) -> Vec<usize> {
        let (mut order, mut seen) = (Vec::new(), HashSet::new());
        for first in 0..self.0.len() {
            let mut waiting = vec![(first, false)];
            while let Some((at, is_open)) = waiting.pop() {
                if is_open {
                    order.push(at);
                } else if seen.insert(at) {
                    waiting.push((at, true));
                    let others = self.0.get(at).into_iter().flatten().rev();
                    waiting.extend(others.map(|other| (*other, false)));
                }
            }
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn cards_order_a_batch_unless_they_contradict() {
        type Case = (
            &'static [(&'static str, &'static str, &'static str)],
            &'static str,
        );
        // Model, its base by the map, and what its card names.
        let cases: [Case; 7] = [
            (&[("o/a", "", ""), ("o/b", "", "")], "o/a o/b"),
            (&[("o/a", "", "o/b"), ("o/b", "", "")], "o/b o/a"),
            (
                &[("o/a", "", "o/b"), ("o/b", "", "o/c"), ("o/c", "", "")],
                "o/c o/b o/a",
            ),
            (&[("o/a", "", "o/b"), ("o/b", "", "o/a")], "o/b o/a"),
            (&[("o/a", "", "o/b"), ("o/b", "o/a", "")], "o/a o/b"),
            (&[("o/a", "", "o/a, x/y"), ("o/b", "", "")], "o/a o/b"),
            (
                &[("o/a", "", ""), ("o/b", "o/a", "o/c"), ("o/c", "o/a", "")],
                "o/a o/c o/b",
            ),
        ];
        for (models, expected) in cases {
            let directory = tempfile::tempdir().unwrap();
            let job = |(model, base, card): &(&str, &str, &str)| {
                let path = directory.path().join(model);
                fs::create_dir_all(&path).unwrap();
                let text = format!("---\nbase_model: [{card}]\n---\n");
                fs::write(path.join("README.md"), text).unwrap();
                Job {
                    model: model.parse().unwrap(),
                    base: base.parse().ok(),
                }
            };
            let jobs = models.iter().map(job).collect();
            let ordered = by_cards(jobs, directory.path());
            let ordered: Vec<_> = ordered.iter().map(|job| job.model.as_str()).collect();
            assert_eq!(ordered.join(" "), expected);
        }
    }
}
