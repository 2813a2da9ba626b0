//! Failing disks (T2, T5): every operation of a run fails, once or from then on; what was reported stored
//! is durable, nothing panics, and a run on the mended disk completes the batch.
//!
//! Operations are numbered as they come: syncs by other threads may change places with their neighbours from run to run.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests may fail the test"
)]

#[path = "common/disk.rs"]
mod disk;
#[path = "common/random.rs"]
mod random;
#[path = "common/small.rs"]
mod small;

use std::sync::Arc;

use disk::{Fault, MemDisk};
use small::Family;
use zipllm::report::{IngestReport, NoMonitor, Status};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// What a sweep met.
#[derive(Debug, Default)]
struct Figures {
    faults: usize,
    runs_that_said_so: usize,
    runs_that_did_all: usize,
}

/// Lets each operation of a run fail, until the run no longer gets that far.
fn sweep(family: &Family, start: &MemDisk, template: Fault) -> Figures {
    let mut figures = Figures::default();
    for at in 0.. {
        let disk = start.fork();
        disk.fail(Fault { at, ..template });
        let report = family.try_ingest(Arc::new(disk.clone()), &NoMonitor);
        if !disk.state().failed {
            break;
        }
        figures.faults += 1;
        let what = format!("{template:?} at {at}");
        let all = inspect(family, &disk, report, &what);
        figures.runs_that_did_all += usize::from(all);
        figures.runs_that_said_so += usize::from(!all);
        complete(family, &disk, &what);
    }
    figures
}

/// What was reported stored survives even a power cut. Tells whether that is the whole batch.
fn inspect(
    family: &Family,
    disk: &MemDisk,
    report: zipllm::Result<IngestReport>,
    what: &str,
) -> bool {
    let report = match report {
        Ok(report) => report,
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("store"), "{what}: names no file: {text}");
            return false;
        }
    };
    let left = disk.state().after_power_cut(&mut || false, None);
    let left = MemDisk::from_state(left);
    for model in &report.models {
        let id = model.model.as_str();
        match model.status {
            Status::Stored | Status::AlreadyStored => {
                let store = family.open(&left).unwrap();
                assert!(
                    family.restores(&store, id).unwrap_or(false),
                    "{what}: {id} was reported stored"
                );
            }
            Status::Failed => assert!(model.error.is_some(), "{what}"),
            Status::NotTried => assert!(
                report.models.iter().any(|m| m.status == Status::Failed),
                "{what}"
            ),
        }
    }
    report
        .models
        .iter()
        .all(|model| matches!(model.status, Status::Stored | Status::AlreadyStored))
}

/// With the disk mended, the store is whole as far as it goes, and a run completes it.
fn complete(family: &Family, disk: &MemDisk, what: &str) {
    let mended = disk.fork();
    if let Ok(store) = family.open(&mended) {
        let report = small::check(&store);
        assert!(!report.is_damaged(), "{what}: {:?}", report.damage);
        for model in family.models.keys() {
            family
                .restores(&store, model)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    }
    family.ingest(&mended);
    family.assert_whole(&mended, what);
    let dirty = family.open(&mended).unwrap().layout().dirty();
    assert!(
        mended.get(&dirty).is_none(),
        "{what}: the index stays dirty"
    );
}

fn modes() -> impl Iterator<Item = Fault> {
    let modes = [(false, EIO), (false, ENOSPC), (true, EIO), (true, ENOSPC)];
    modes.into_iter().map(|(forever, errno)| Fault {
        at: 0,
        forever,
        errno,
        only_syncs: false,
    })
}

/// Disks that a run may start from: an empty one, one that a run left in the middle, and a full store.
fn starts(family: &Family) -> [(&'static str, MemDisk); 3] {
    let empty = MemDisk::new(&family.store());
    let done = empty.fork();
    done.keep_history();
    family.ingest(&done);
    let history = done.history();
    let middle = MemDisk::from_state(history[history.len() * 3 / 5].clone()).fork();
    let dirty = family.store().join("index/dirty");
    assert!(middle.get(&dirty).is_some());
    [
        ("an empty disk", empty),
        ("a half-done store", middle),
        ("a full store", done.fork()),
    ]
}

#[test]
fn every_operation_may_fail() {
    // Settled, so that scans are written too.
    let family = Family::three().settle();
    for (name, start) in starts(&family) {
        let empty = name == "an empty disk";
        // Which number it is matters little; one sweep with both is enough.
        for mode in modes().filter(|mode| empty || mode.errno == EIO) {
            let figures = sweep(&family, &start, mode);
            println!(
                "{name}, errno {}, forever {}: {figures:?}",
                mode.errno, mode.forever
            );
            assert!(figures.faults > 30, "{name}: {figures:?}");
            if mode.forever {
                // Reading may be done without; nothing else may, unless all was done before.
                assert!(
                    figures.runs_that_said_so > figures.faults / 2,
                    "{figures:?}"
                );
            }
        }
    }
}

#[test]
fn every_sync_may_fail() {
    let family = Family::three();
    for forever in [false, true] {
        let fault = Fault {
            at: 0,
            forever,
            errno: EIO,
            only_syncs: true,
        };
        let figures = sweep(&family, &MemDisk::new(&family.store()), fault);
        println!("syncs, forever {forever}: {figures:?}");
        assert!(figures.faults > 20, "{figures:?}");
        assert_eq!(figures.runs_that_did_all, 0, "a failed sync went unsaid");
    }
}
