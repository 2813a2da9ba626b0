//! A disk that is full, at any moment: an error that names the path, earlier models whole, and the next run goes on.
//!
//! `ZIPLLM_SIZES` sets the number of sizes of disks, 4 KiB apart; the models become as much larger.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking"
)]

#[path = "common/batch.rs"]
mod batch;
#[path = "common/tensors.rs"]
mod tensors;

use std::fs;
use std::io;
use std::process::{Command, Output};

use batch::{Batch, RESTORE, Run, Tree, ZIPLLM, about, assert_same, names, tree};
use tensors::{noise, safetensors, tuned, weights};

const IDS: [&str; 3] = ["lab/base", "lab/tune", "lab/other"];

fn family() -> (Batch, Vec<Tree>) {
    family_of(500)
}

/// Models of one tensor with so many rows of 100 weights.
fn family_of(rows: usize) -> (Batch, Vec<Tree>) {
    let batch = Batch::in_memory(&IDS);
    let base = weights(1, rows * 100);
    for (model, values) in [
        ("base", base.clone()),
        ("tune", tuned(&base, 2)),
        ("other", weights(3, rows * 100)),
    ] {
        let file = safetensors(&[("w", "BF16", &[rows as u64, 100], &values)]);
        batch.file(&format!("lab/{model}/model.safetensors"), file);
        batch.file(&format!("lab/{model}/card.md"), model);
    }
    let originals = IDS.iter().map(|id| tree(&batch.path("models").join(id)));
    let originals = originals.collect();
    (batch, originals)
}

/// No file may grow beyond 1 or 2 MiB, as the shell counts: the write that would make it so fails, as on a full disk.
#[test]
fn a_write_that_fails_ends_the_run_and_the_next_goes_on() {
    let (batch, mut originals) = family();
    batch.file("lab/tune/large.bin", noise(9, 3 << 20));
    originals[1] = tree(&batch.path("models/lab/tune"));
    let script = "trap '' XFSZ; ulimit -f 2048 || exit 99; exec \"$0\" \"$@\"";
    let limited = |program: &str, args: &[&str]| {
        let config = batch.path("config.json");
        Run::of(
            Command::new("sh")
                .args(["-c", script, program])
                .arg(config)
                .args(args),
        )
    };
    let run = limited(ZIPLLM, &["--json"]).expect(1).says(&[
        "error: lab/tune: ",
        "store/tmp/",
        "File too large",
    ]);
    let report = run.json();
    for (id, status) in IDS.iter().zip(["stored", "failed", "not_tried"]) {
        assert_eq!(about(&report, id)["status"], status, "{id}");
    }
    batch.check().expect(0);
    batch.assert_restores(IDS[0], &originals[0]);
    assert_eq!(names(&batch.path("store/models")), ["lab--base"]);

    batch.zipllm(&[]).expect(0).silent();
    batch.assert_clean();
    for (id, original) in IDS.iter().zip(&originals) {
        batch.assert_restores(id, original);
    }

    let out = batch.path("out");
    limited(RESTORE, &[IDS[1], out.to_str().unwrap()])
        .expect(1)
        .says(&["out/large.bin", "File too large"]);
    let mut partly = originals[1].clone();
    partly.retain(|path, _| !path.ends_with("large.bin"));
    assert_same(&partly, &tree(&out), "what fitted, whole, and nothing else");
    batch.restore(IDS[1], "out", &[]).expect(0);
    assert_same(&originals[1], &tree(&out), "restored again");
}

/// A file system with little room, as functions of a shell: `disk DIR` mounts one, where only the script sees it, `leave
/// DIR KIB` leaves so much room on it, and `room DIR` brings back what it had.
struct Disk {
    name: &'static str,
    functions: &'static str,
    /// Of the sizes, the suite tries one in so many.
    step: usize,
}

const DISKS: [Disk; 2] = [
    Disk {
        name: "tmpfs",
        functions: r#"
disk() { mount -t tmpfs -o size=64m none "$1"; }
leave() { mount -o remount,size=$(($(df -k --output=used "$1" | tail -n 1) + $2))k none "$1"; }
room() { mount -o remount,size=64m none "$1"; }
"#,
        step: 1,
    },
    // What is in the way of the store lies beside it, on the same disk.
    Disk {
        name: "ext4 on a loop device",
        functions: r#"
disk() {
    mkdir "$1.disk" && truncate -s 24M "$1.image" && mkfs.ext4 -q -m 0 "$1.image" &&
        mount -o loop "$1.image" "$1.disk" && mkdir "$1.disk/top" && mount --bind "$1.disk/top" "$1"
}
leave() { fallocate -l $(($(df -k --output=avail "$1" | tail -n 1) - $2))k "$1.disk/ballast"; }
room() { rm "$1.disk/ballast"; }
"#,
        step: 4,
    },
];

/// Runs with the store on a disk with some room; then gives it more.
const ON_A_SMALL_DISK: &str = r#"
size=$1; zipllm=$2; restore=$3
mkdir store early late small || exit 99
disk store && leave store "$size" || exit 98
"$zipllm" config.json >first.out 2>first.err; echo $? >first.code
for model in base tune other; do
    [ -e store/models/lab--$model/000001.json ] || continue
    "$restore" config.json lab/$model early/$model || exit 97
done
room store || exit 96
"$zipllm" config.json || exit 95
"$zipllm" check config.json --read-data || exit 94
[ -z "$(ls -A store/tmp)" ] || exit 93
for model in base tune other; do
    "$restore" config.json lab/$model late/$model || exit 92
done
disk small && leave small 64 || exit 91
"$restore" config.json lab/tune small/out >/dev/null 2>restore.err; echo $? >restore.code
ls -A small/out >restore.names
exit 0
"#;

#[test]
fn disks_of_every_size_lose_nothing() {
    for disk in DISKS.iter().filter(|disk| disk.can_be_made()) {
        disk.loses_nothing(&disk.some(sizes()), rows(&sizes()));
    }
}

impl Disk {
    /// Tells whether this machine lets us mount it.
    fn can_be_made(&self) -> bool {
        let batch = Batch::in_memory(&[]);
        let ended = self.run(&batch, "mkdir at && disk at && leave at 64 && room at", &[]);
        let can = ended.is_ok_and(|ended| ended.status.success());
        if !can {
            println!("SKIPPED: {} cannot be mounted", self.name);
        }
        can
    }

    /// Runs a shell's script, with arguments, where its mounts are seen by nobody else.
    fn run(&self, batch: &Batch, script: &str, arguments: &[&str]) -> io::Result<Output> {
        let script = format!("{}{script}", self.functions);
        let mut command = Command::new("unshare");
        let command = command.args(["--mount", "--", "sh", "-c", &script, "small-disk"]);
        command.args(arguments).current_dir(batch.path("")).output()
    }

    /// The sizes that are tried: all in a soak.
    fn some(&self, sizes: Vec<usize>) -> Vec<usize> {
        let step = std::env::var("ZIPLLM_SIZES").map_or(self.step, |_| 1);
        sizes.into_iter().step_by(step).collect()
    }

    fn loses_nothing(&self, sizes: &[usize], rows: usize) {
        let (mut refused, mut in_part) = (0, 0);
        for size in sizes {
            let (batch, originals) = family_of(rows);
            let size = size.to_string();
            let ended = self.run(&batch, ON_A_SMALL_DISK, &[&size, ZIPLLM, RESTORE]);
            Run::from(ended.unwrap()).expect(0);
            let read = |name: &str| fs::read_to_string(batch.path(name)).unwrap();
            let early = names(&batch.path("early"));
            match read("first.code").trim() {
                "0" => assert_eq!(early.len(), IDS.len(), "{size} KiB"),
                code => {
                    assert_eq!(code, "1", "{size} KiB: {}", read("first.err"));
                    let said = read("first.err");
                    assert!(
                        said.contains("store") && said.contains("No space left"),
                        "{size} KiB: {said}"
                    );
                    refused += 1;
                    in_part += usize::from(!early.is_empty());
                }
            }
            for (id, original) in IDS.iter().zip(&originals) {
                let name = id.strip_prefix("lab/").unwrap();
                if early.iter().any(|early| early == name) {
                    assert_same(original, &tree(&batch.path("early").join(name)), id);
                }
                assert_same(original, &tree(&batch.path("late").join(name)), id);
            }
            assert_eq!(read("restore.code").trim(), "1");
            assert!(read("restore.err").contains("small/out/model.safetensors"));
            assert_eq!(read("restore.names").trim(), "card.md");
        }
        let count = sizes.len();
        println!(
            "{}: {count} sizes, {refused} too small, {in_part} of them for a part of the models",
            self.name
        );
        assert!(
            refused > count / 8 && in_part > count / 20 && refused < count,
            "{refused}, {in_part}"
        );
    }
}

/// Sizes of disks in KiB: from too small for anything to enough for all models.
fn sizes() -> Vec<usize> {
    match std::env::var("ZIPLLM_SIZES") {
        Ok(count) => (1..=count.parse().unwrap()).map(|size| size * 4).collect(),
        Err(_) => (4..=324).step_by(8).collect(),
    }
}

/// Rows of the models' tensors that nearly fill the largest of these disks.
fn rows(sizes: &[usize]) -> usize {
    500 * sizes.last().unwrap() / 324
}

/// Something done to a store whose disk has hardly any room.
struct Upkeep {
    name: &'static str,
    args: &'static [&'static str],
    /// The directory with the small disk, and whether what was prepared is copied there first.
    place: &'static str,
    is_prepared: bool,
    /// Whether any model is lost until it is done.
    is_damaged: bool,
}

const UPKEEP: [Upkeep; 4] = [
    Upkeep {
        name: "gc",
        args: &["gc", "config.json"],
        place: "store",
        is_prepared: true,
        is_damaged: false,
    },
    Upkeep {
        name: "repair",
        args: &["repair", "config.json"],
        place: "store",
        is_prepared: true,
        is_damaged: true,
    },
    Upkeep {
        name: "copy",
        args: &[
            "copy",
            "--store",
            "prepared",
            "lab/base",
            "lab/tune",
            "lab/other",
            "--to-store",
            "other",
        ],
        place: "other",
        is_prepared: false,
        is_damaged: false,
    },
    Upkeep {
        name: "--delete-source",
        args: &["config.json", "--delete-source"],
        place: "store",
        is_prepared: false,
        is_damaged: false,
    },
];

const UPKEEP_ON_A_SMALL_DISK: &str = r#"
size=$1; zipllm=$2; restore=$3; place=$4; prepared=$5; shift 5
mkdir -p "$place" early late || exit 99
disk "$place" || exit 98
[ -z "$prepared" ] || cp -r "$prepared/." "$place" || exit 97
leave "$place" "$size" || exit 96
"$zipllm" "$@" >first.out 2>first.err; echo $? >first.code
ls -A models/lab >sources
for model in base tune other; do
    [ -e "$place/models/lab--$model/000001.json" ] || continue
    "$restore" --store "$place" lab/$model early/$model || echo "$model" >>lost
done
room "$place" || exit 95
"$zipllm" "$@" || exit 94
"$zipllm" check --store "$place" --read-data || exit 93
[ -z "$(ls -A "$place/tmp")" ] || exit 92
for model in base tune other; do
    [ -e "$place/models/lab--$model/000001.json" ] || continue
    "$restore" --store "$place" lab/$model late/$model || exit 91
done
exit 0
"#;

impl Upkeep {
    /// A store to begin with: without a model for gc, with a damaged object for repair.
    fn prepare(&self, batch: &Batch) {
        if self.name == "--delete-source" {
            return;
        }
        batch.zipllm(&[]).expect(0);
        match self.name {
            "gc" => drop(batch.verb("remove", &["lab/other"]).expect(0)),
            "repair" => {
                let detail = batch.report("list", &["lab/base"]);
                let segments = detail["files"][1]["segments"].as_array().unwrap();
                let name = segments.last().unwrap()["object"].as_str().unwrap();
                let path = batch.path("store/objects").join(&name[..2]).join(name);
                let mut bytes = fs::read(&path).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::write(path, bytes).unwrap();
            }
            _ => {}
        }
        fs::rename(batch.path("store"), batch.path("prepared")).unwrap();
    }

    /// Returns whether the disk was too small.
    fn on_a_disk_of(&self, disk: &Disk, size: usize, rows: usize) -> bool {
        let (batch, originals) = family_of(rows);
        self.prepare(&batch);
        let size = size.to_string();
        let prepared = if self.is_prepared { "prepared" } else { "" };
        let arguments = [&size, ZIPLLM, RESTORE, self.place, prepared];
        let arguments = [&arguments, self.args].concat();
        let ended = disk.run(&batch, UPKEEP_ON_A_SMALL_DISK, &arguments);
        Run::from(ended.unwrap()).expect(0);
        let what = format!("{} with {size} KiB of {}", self.name, disk.name);
        let read = |name: &str| fs::read_to_string(batch.path(name)).unwrap();
        let (code, said) = (read("first.code"), read("first.err"));
        assert!(!said.contains("panicked"), "{what}: {said}");
        let is_refused = code.trim() != "0";
        if is_refused {
            assert_eq!(code.trim(), "1", "{what}: {said}");
            assert!(
                said.contains("No space left") && said.contains(self.place),
                "{what}: {said}"
            );
        }
        let is_lost = batch.path("lost").exists();
        assert!(!is_lost || self.is_damaged && is_refused, "{what}");
        let (early, late) = (batch.path("early"), batch.path("late"));
        let sources: Vec<_> = read("sources").lines().map(str::to_owned).collect();
        for (id, original) in IDS.iter().zip(&originals) {
            let name = id.strip_prefix("lab/").unwrap();
            let is_there = early.join(name).exists();
            if is_there && !is_lost {
                assert_same(original, &tree(&early.join(name)), &what);
            }
            assert!(
                is_there || sources.iter().any(|source| source == name),
                "{what}: {id} is nowhere"
            );
            if self.name == "gc" && name == "other" {
                assert!(!late.join(name).exists());
            } else {
                assert_same(original, &tree(&late.join(name)), &what);
            }
        }
        is_refused
    }
}

/// What does not fit changes nothing for the worse, and is done when there is room.
#[test]
fn upkeep_on_small_disks_loses_nothing() {
    for disk in DISKS.iter().filter(|disk| disk.can_be_made()) {
        upkeep_loses_nothing(disk);
    }
}

fn upkeep_loses_nothing(disk: &Disk) {
    let sizes = sizes();
    let rows = rows(&sizes) / 4;
    for upkeep in &UPKEEP {
        // A quarter of the models. What is prepared is there already, and needs little more.
        let mut tried: Vec<_> = if upkeep.is_prepared {
            (0..sizes.len() / 4).map(|size| size * 4).collect()
        } else {
            sizes.iter().copied().take(sizes.len() / 2).collect()
        };
        if std::env::var("ZIPLLM_SIZES").is_err() {
            let some = tried.len() / 5;
            tried = tried.into_iter().step_by(some).collect();
        }
        let refused = tried
            .iter()
            .filter(|size| upkeep.on_a_disk_of(disk, **size, rows))
            .count();
        println!(
            "{} on {}: {} sizes, {refused} too small",
            upkeep.name,
            disk.name,
            tried.len()
        );
        // gc frees room before it needs some: a full disk is what it is for.
        let expected = if upkeep.name == "gc" {
            0..1
        } else {
            1..tried.len()
        };
        assert!(expected.contains(&refused), "{}: {refused}", upkeep.name);
    }
}
