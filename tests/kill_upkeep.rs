//! kill -9 (T3) at random moments of remove, gc, rename, copy, repair and optimize: what was to stay stays, nothing is damaged, and
//! doing it again completes it. `ZIPLLM_KILLS=1000` makes a soak of it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking"
)]

#[path = "common/batch.rs"]
mod batch;
#[path = "common/kill.rs"]
mod kill;
#[path = "common/tensors.rs"]
mod tensors;

use std::fs;
use std::process::Command;
use std::time::Instant;

use batch::{Batch, Tree, ZIPLLM, copy_tree, names, tree};
use kill::{kill_after, number};
use serde_json::json;
use tensors::{noise, safetensors, tuned, weights};

const IDS: [&str; 3] = ["lab/base", "lab/tune", "lab/next"];
const TENSORS: u64 = 120;

/// A verb, what of the models is there before, and under which names they come through it.
struct Case {
    verb: &'static str,
    args: &'static [&'static str],
    removed: &'static [&'static str],
    damaged: bool,
    stay: &'static [(usize, &'static [&'static str])],
}

const CASES: [Case; 5] = [
    Case {
        verb: "remove",
        args: &["lab/base", "lab/tune"],
        removed: &[],
        damaged: false,
        stay: &[(2, &["lab/next"])],
    },
    Case {
        verb: "gc",
        args: &[],
        removed: &["lab/base", "lab/tune"],
        damaged: false,
        stay: &[(2, &["lab/next"])],
    },
    Case {
        verb: "rename",
        args: &["lab/tune", "new/name"],
        removed: &[],
        damaged: false,
        stay: &[
            (0, &["lab/base"]),
            (1, &["lab/tune", "new/name"]),
            (2, &["lab/next"]),
        ],
    },
    Case {
        verb: "copy",
        args: &["lab/next", "lab/base", "--to-store", "OTHER"],
        removed: &[],
        damaged: false,
        stay: &[(0, &["lab/base"]), (1, &["lab/tune"]), (2, &["lab/next"])],
    },
    Case {
        verb: "repair",
        args: &[],
        removed: &[],
        damaged: true,
        stay: &[],
    },
];

fn family() -> Batch {
    let batch = Batch::in_memory(&IDS);
    let mut values: Vec<_> = (0..TENSORS).map(|seed| weights(seed, 400)).collect();
    for (round, id) in (1..).zip(IDS) {
        let named: Vec<_> = (0..)
            .zip(&values)
            .map(|(at, bytes)| (format!("t{at:03}"), bytes))
            .collect();
        let tensors: Vec<_> = named
            .iter()
            .map(|(name, bytes)| (name.as_str(), "BF16", &[400][..], bytes.as_slice()))
            .collect();
        batch.file(&format!("{id}/model.safetensors"), safetensors(&tensors));
        batch.file(&format!("{id}/card.md"), id);
        values
            .iter_mut()
            .for_each(|bytes| *bytes = tuned(bytes, round));
    }
    batch.bases(&json!({IDS[0]: [IDS[1]], IDS[1]: [IDS[2]]}));
    batch.zipllm(&[]).expect(0);
    batch
}

impl Case {
    /// Puts the store in the state that the verb is to work on.
    fn prepare(&self, batch: &Batch) {
        if !self.removed.is_empty() {
            batch.verb("remove", self.removed).expect(0);
        }
        if self.damaged {
            // A payload of every eighth object.
            let objects = batch.path("store/objects");
            for shard in names(&objects).iter().step_by(8) {
                for name in names(&objects.join(shard)) {
                    let path = objects.join(shard).join(name);
                    let mut bytes = fs::read(&path).unwrap();
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                    fs::write(path, bytes).unwrap();
                }
            }
        }
    }

    fn command(&self, batch: &Batch) -> Command {
        let mut command = Command::new(ZIPLLM);
        let other = batch.path("other");
        command.arg(self.verb).arg(batch.path("config.json"));
        for arg in self.args {
            command.arg(if *arg == "OTHER" {
                other.as_os_str()
            } else {
                arg.as_ref()
            });
        }
        command
    }

    /// Every model that was to stay is there, under one of its names at least.
    fn assert_stay(&self, batch: &Batch, originals: &[Tree]) {
        for (model, ids) in self.stay {
            let there = |id: &&&str| {
                batch
                    .path("store/models")
                    .join(id.replace('/', "--"))
                    .join("000001.json")
                    .exists()
            };
            let found: Vec<_> = ids.iter().filter(there).collect();
            assert!(!found.is_empty(), "{}: {ids:?} is lost", self.verb);
            found
                .iter()
                .for_each(|id| batch.assert_restores(id, &originals[*model]));
        }
    }

    fn inspect(&self, batch: &Batch, originals: &[Tree]) {
        if !self.damaged {
            batch.check().expect(0);
        }
        self.assert_stay(batch, originals);
        let output = self.command(batch).output().unwrap();
        let code = output.status.code().unwrap();
        // What was removed, or has another name, is not there any more.
        let may_be_done = ["remove", "rename"].contains(&self.verb);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            code == 0 || code == 1 && may_be_done,
            "{} again: {code} {said}",
            self.verb
        );
        if self.verb == "remove" && code == 1 {
            for id in self.args {
                let _ = batch.verb("remove", &[id]);
            }
        }
        batch.assert_clean();
        self.assert_stay(batch, originals);
        let other = batch.path("other");
        if other.exists() {
            let args = ["check", "--store", other.to_str().unwrap(), "--read-data"];
            batch::Run::of(Command::new(ZIPLLM).args(args)).expect(0);
        }
        batch.verb("gc", &[]).expect(0);
        batch.zipllm(&[]).expect(0);
        batch.assert_clean();
        for (id, original) in IDS.iter().zip(originals) {
            batch.assert_restores(id, original);
        }
    }
}

#[test]
fn no_kill_takes_more_than_was_to_go() {
    let kills = number("ZIPLLM_KILLS", 25);
    let mut moments = noise(
        number("ZIPLLM_SEED", 1),
        16 * usize::try_from(kills).unwrap() + 16,
    )
    .into_iter();
    let batch = family();
    let originals = IDS.map(|id| tree(&batch.path("models").join(id)));
    let full = batch.path("full");
    copy_tree(&batch.path("store"), &full);
    let reset = || {
        for gone in ["store", "other"] {
            let _ = fs::remove_dir_all(batch.path(gone));
        }
        copy_tree(&full, &batch.path("store"));
    };
    let (mut done, mut hits) = (0, 0);
    for case in CASES.iter().cycle() {
        if done == kills {
            break;
        }
        reset();
        case.prepare(&batch);
        let prepared = batch.path("prepared");
        let _ = fs::remove_dir_all(&prepared);
        copy_tree(&batch.path("store"), &prepared);
        let whole = kill::time(&mut case.command(&batch));
        fs::remove_dir_all(batch.path("store")).unwrap();
        let _ = fs::remove_dir_all(batch.path("other"));
        copy_tree(&prepared, &batch.path("store"));
        let random = moments
            .by_ref()
            .take(8)
            .fold(0, |sum, byte| sum << 8 | u64::from(byte));
        hits += u64::from(kill_after(&mut case.command(&batch), random % whole));
        case.inspect(&batch, &originals);
        done += 1;
    }
    println!("{hits} kills of {done}, 0 models lost");
    assert!(hits > kills / 3, "{hits} kills hit");
}

/// A family whose base comes after its fine-tunes, which `optimize` turns round.
fn late_base() -> Batch {
    let ids = ["x/first", "x/second", "x/third", "a/base"];
    let batch = Batch::in_memory(&ids);
    let bases: Vec<_> = (0..6).map(|seed| weights(seed, 32 << 10)).collect();
    for (round, id) in (1..).zip(ids) {
        let moved = |(at, base): (usize, &Vec<u8>)| match id {
            "a/base" => base.clone(),
            _ => moved(base, 10 * round + at as u64),
        };
        let values: Vec<_> = bases.iter().enumerate().map(moved).collect();
        let names: Vec<_> = (0..values.len()).map(|at| format!("t{at}")).collect();
        let tensors: Vec<_> = names
            .iter()
            .zip(&values)
            .map(|(name, bytes)| (name.as_str(), "BF16", &[512, 64][..], bytes.as_slice()))
            .collect();
        batch.file(&format!("{id}/model.safetensors"), safetensors(&tensors));
    }
    batch.bases(&json!({}));
    batch.zipllm(&[]).expect(0);
    batch
}

/// Each number a few representable ones away.
fn moved(base: &[u8], seed: u64) -> Vec<u8> {
    let changes = noise(seed, base.len() / 2);
    let pairs = base.chunks_exact(2).zip(changes);
    pairs
        .flat_map(|(pair, change)| {
            let word = u16::from_le_bytes([pair[0], pair[1]]);
            let by = u16::from(change & 15);
            word.wrapping_add(by).wrapping_sub(8).to_le_bytes()
        })
        .collect()
}

fn object_bytes(batch: &Batch) -> u64 {
    batch.report("stats", &[])["stored_bytes"].as_u64().unwrap()
}

#[test]
fn no_kill_of_optimize_loses_anything_or_keeps_it_from_its_end() {
    let kills = number("ZIPLLM_KILLS", 8);
    let batch = late_base();
    let list = fs::read_to_string(batch.path("list.txt")).unwrap();
    let ids = batch::ids(&list);
    let originals: Vec<_> = ids
        .iter()
        .map(|id| tree(&batch.path("models").join(id)))
        .collect();
    let full = batch.path("full");
    copy_tree(&batch.path("store"), &full);
    let reset = || {
        fs::remove_dir_all(batch.path("store")).unwrap();
        copy_tree(&full, &batch.path("store"));
    };
    let begun = Instant::now();
    let report = batch.report("optimize", &[]);
    let whole = u64::try_from(begun.elapsed().as_micros()).unwrap();
    assert!(report["changed"].as_u64().unwrap() >= 6, "{report}");
    let best = object_bytes(&batch);
    let mut moments = noise(
        number("ZIPLLM_SEED", 2),
        8 * usize::try_from(kills).unwrap(),
    )
    .into_iter();
    let mut hits = 0;
    for _ in 0..kills {
        reset();
        let random = moments
            .by_ref()
            .take(8)
            .fold(0, |sum, byte| sum << 8 | u64::from(byte));
        let mut command = Command::new(ZIPLLM);
        command.arg("optimize").arg(batch.path("config.json"));
        hits += u64::from(kill_after(&mut command, random % whole));
        batch.check().expect(0);
        for (id, original) in ids.iter().zip(&originals) {
            batch.assert_restores(id, original);
        }
        batch.verb("optimize", &[]).expect(0);
        batch.assert_clean();
        let after = object_bytes(&batch);
        assert!(after * 100 <= best * 101, "{after} of {best}");
        for (id, original) in ids.iter().zip(&originals) {
            batch.assert_restores(id, original);
        }
    }
    println!("{hits} kills of {kills}, 0 models lost");
    assert!(hits > kills / 3, "{hits} kills hit");
}
