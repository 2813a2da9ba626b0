//! Power cuts and failing disks (T1, T2) while models are removed, renamed, collected and given better bases:
//! what was not to go stays, and doing it again completes it.
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

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use disk::{Fault, MemDisk};
use random::Random;
use small::{Family, Files, Tensor, compare, job};
use zipllm::codec::EncodeOptions;
use zipllm::error::Error;
use zipllm::report::NoMonitor;
use zipllm::store::StoreWriter;
use zipllm::{gc, optimize, remove, rename};

/// One thing to do to a store, and the models that come through it, by the names that they may have meanwhile.
struct Upkeep {
    name: &'static str,
    family: fn() -> Family,
    before: &'static [&'static str],
    verb: fn(StoreWriter) -> zipllm::Result<()>,
    /// What may have become of each model of the family: its names, and whether it may be gone.
    fates: &'static [(&'static str, &'static [&'static str], bool)],
}

const COLLECT: gc::Options = gc::Options {
    threads: 1,
    grace: Duration::ZERO,
    wait: false,
};

fn remove_first(writer: StoreWriter) -> zipllm::Result<()> {
    let models = ["org/base".parse()?, "lone".parse()?];
    remove::run(writer, &models).map(drop)
}

fn collect(writer: StoreWriter) -> zipllm::Result<()> {
    gc::run(writer, &COLLECT).map(drop)
}

fn rename_middle(writer: StoreWriter) -> zipllm::Result<()> {
    let (from, to) = ("org/tuned".parse()?, "new/name".parse()?);
    rename::run(writer, &from, &to, 1).map(drop)
}

fn optimize_all(writer: StoreWriter) -> zipllm::Result<()> {
    let options = optimize::Options {
        threads: 1,
        encode: EncodeOptions::default(),
    };
    let report = optimize::run(writer, options, &NoMonitor)?;
    // An object that could not be read is left as it is, and told.
    match report.errors.first() {
        None => Ok(()),
        Some(error) => Err(Error::input("an object", error)),
    }
}

/// A base that comes after its fine-tunes, its tensor as short as those with a sketch may be.
fn late_base() -> Family {
    let mut random = Random::new(5);
    let base = small::weights(&mut random, 32 << 10);
    let mut models = BTreeMap::new();
    for name in LATE {
        let data = match name {
            "a/base" => base.clone(),
            _ => moved(&mut random, &base),
        };
        let file = small::safetensors(&[Tensor("w", "BF16", data)]);
        let files = [("model.safetensors".to_owned(), (file, false))];
        models.insert(name.to_owned(), Files::from(files));
    }
    Family::of(models, LATE.iter().map(|name| job(name, None)).collect())
}

const LATE: [&str; 4] = ["x/first", "x/second", "x/third", "a/base"];

/// Each number a few representable ones away.
fn moved(random: &mut Random, weights: &[u8]) -> Vec<u8> {
    let words = weights.as_chunks::<2>().0.iter();
    let word = |word: &[u8; 2]| {
        let by = u16::try_from(random.below(16)).unwrap();
        u16::from_le_bytes(*word)
            .wrapping_add(by)
            .wrapping_sub(8)
            .to_le_bytes()
    };
    words.flat_map(word).collect()
}

const ALL: [Upkeep; 4] = [
    Upkeep {
        name: "optimize",
        family: late_base,
        before: &[],
        verb: optimize_all,
        fates: &[
            ("x/first", &["x/first"], false),
            ("x/second", &["x/second"], false),
            ("x/third", &["x/third"], false),
            ("a/base", &["a/base"], false),
        ],
    },
    Upkeep {
        name: "remove",
        family: Family::new,
        before: &[],
        verb: remove_first,
        fates: &[
            ("org/base", &["org/base"], true),
            ("lone", &["lone"], true),
            ("org/tuned", &["org/tuned"], false),
            ("org/tuned_again", &["org/tuned_again"], false),
        ],
    },
    Upkeep {
        name: "gc",
        family: Family::new,
        before: &["org/base", "lone", "org/tuned"],
        verb: collect,
        fates: &[("org/tuned_again", &["org/tuned_again"], false)],
    },
    Upkeep {
        name: "rename",
        family: Family::new,
        before: &[],
        verb: rename_middle,
        fates: &[
            ("org/base", &["org/base"], false),
            ("lone", &["lone"], false),
            ("org/tuned", &["org/tuned", "new/name"], false),
            ("org/tuned_again", &["org/tuned_again"], false),
        ],
    },
];

impl Upkeep {
    /// A full store, without what is to be gone before.
    fn start(&self, family: &Family) -> MemDisk {
        let disk = MemDisk::new(&family.store());
        family.ingest(&disk);
        if !self.before.is_empty() {
            let models: Vec<_> = self.before.iter().map(|id| id.parse().unwrap()).collect();
            remove::run(writer(family, &disk).unwrap(), &models).unwrap();
        }
        disk.fork()
    }

    fn run(&self, family: &Family, disk: &MemDisk) -> zipllm::Result<()> {
        (self.verb)(writer(family, disk)?)
    }

    /// The store is whole, and has every model that was to stay.
    fn inspect(&self, family: &Family, disk: &MemDisk, what: &str) {
        let store = family.open(disk).unwrap();
        let report = small::check(&store);
        assert!(!report.is_damaged(), "{what}: {:?}", report.damage);
        for (model, names, may_be_gone) in self.fates {
            let mut found = 0;
            for name in *names {
                if let Some(manifest) = store.newest(&name.parse().unwrap()).unwrap() {
                    compare(&store, &manifest, &family.models[*model]).unwrap();
                    found += 1;
                }
            }
            assert!(found > 0 || *may_be_gone, "{what}: {model} is lost");
        }
    }

    /// Doing it again completes it; what was done already is no failure of the store.
    fn again(&self, family: &Family, disk: &MemDisk, what: &str) {
        match self.run(family, disk) {
            Ok(()) | Err(Error::NoModel { .. }) => {}
            Err(error) => panic!("{what}: {error}"),
        }
        self.inspect(family, disk, what);
        // Nothing that is still there misleads a later run: every model can be stored as it was.
        family.ingest(disk);
        family.assert_whole(disk, what);
    }
}

fn writer(family: &Family, disk: &MemDisk) -> zipllm::Result<StoreWriter> {
    StoreWriter::open_on(Arc::new(disk.clone()), &family.store())
}

#[test]
fn no_power_cut_takes_more_than_was_to_go() {
    let count: usize =
        std::env::var("ZIPLLM_CRASH_IMAGES").map_or(5, |count| count.parse().unwrap());
    for upkeep in &ALL {
        let family = (upkeep.family)();
        let disk = upkeep.start(&family);
        disk.keep_history();
        upkeep.run(&family, &disk).unwrap();
        let history = disk.history();
        let mut random = Random::new(3);
        for (cut, state) in (1..).zip(&history) {
            for image in 0..count {
                let mut coin = Random::new(random.next());
                let after = match image {
                    0 => state.after_power_cut(&mut || false, None),
                    1 => state.clone(),
                    _ => state.after_power_cut(&mut || coin.below(2) == 0, Some(&mut random)),
                };
                let left = MemDisk::from_state(after).fork();
                let what = format!(
                    "{}, cut {cut} of {}, image {image}",
                    upkeep.name,
                    history.len()
                );
                upkeep.inspect(&family, &left, &what);
                upkeep.again(&family, &left, &what);
            }
        }
        println!(
            "{}: {} cuts, {count} images each, 0 lost",
            upkeep.name,
            history.len()
        );
        assert!(history.len() > 3, "{}", upkeep.name);
    }
}

#[test]
fn no_failing_disk_takes_more_than_was_to_go() {
    const EIO: i32 = 5;
    const ENOSPC: i32 = 28;
    for upkeep in &ALL {
        let family = (upkeep.family)();
        let start = upkeep.start(&family);
        for (forever, errno) in [(false, EIO), (true, EIO), (true, ENOSPC)] {
            let mut faults = 0;
            for at in 0.. {
                let disk = start.fork();
                disk.fail(Fault {
                    at,
                    forever,
                    errno,
                    only_syncs: false,
                });
                let done = upkeep.run(&family, &disk);
                if !disk.state().failed {
                    done.unwrap();
                    break;
                }
                faults += 1;
                let what = format!("{}, {errno} at {at}, forever {forever}", upkeep.name);
                let left = disk.state().after_power_cut(&mut || false, None);
                upkeep.inspect(&family, &MemDisk::from_state(left).fork(), &what);
                let mended = disk.fork();
                upkeep.inspect(&family, &mended, &what);
                if faults % 5 == 0 {
                    upkeep.again(&family, &mended, &what);
                }
            }
            println!(
                "{}: {faults} faults, errno {errno}, forever {forever}",
                upkeep.name
            );
            assert!(faults > 10, "{}", upkeep.name);
        }
    }
}
