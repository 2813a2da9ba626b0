//! A disk that is full, at any moment: an error that names the path, earlier models whole, and the next run goes on.

#[path = "common/batch.rs"]
mod batch;
#[path = "common/tensors.rs"]
mod tensors;

use std::fs;
use std::process::Command;

use batch::{Batch, RESTORE, Run, Tree, ZIPLLM, about, assert_same, names, tree};
use tensors::{noise, safetensors, tuned, weights};

const IDS: [&str; 3] = ["lab/base", "lab/tune", "lab/other"];

fn family() -> (Batch, Vec<Tree>) {
    let batch = Batch::in_memory(&IDS);
    let base = weights(1, 50_000);
    for (model, values) in [
        ("base", base.clone()),
        ("tune", tuned(&base, 2)),
        ("other", weights(3, 50_000)),
    ] {
        let file = safetensors(&[("w", "BF16", &[500, 100], &values)]);
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

/// Runs with the store on a disk of some size, mounted where only this script sees it; then gives it more room.
const ON_A_SMALL_DISK: &str = r#"
size=$1; zipllm=$2; restore=$3
mkdir store early late small || exit 99
mount -t tmpfs -o size="${size}k" none store || exit 98
"$zipllm" config.json >first.out 2>first.err; echo $? >first.code
for model in base tune other; do
    [ -e store/models/lab--$model/000001.json ] || continue
    "$restore" config.json lab/$model early/$model || exit 97
done
mount -o remount,size=64m none store || exit 96
"$zipllm" config.json || exit 95
"$zipllm" check config.json --read-data || exit 94
[ -z "$(ls -A store/tmp)" ] || exit 93
for model in base tune other; do
    "$restore" config.json lab/$model late/$model || exit 92
done
mount -t tmpfs -o size=64k none small || exit 91
"$restore" config.json lab/tune small/out >/dev/null 2>restore.err; echo $? >restore.code
ls -A small/out >restore.names
exit 0
"#;

#[test]
fn disks_of_every_size_lose_nothing() {
    let private = ["--mount", "--", "sh", "-c"];
    let trial = "mount -t tmpfs -o size=64k none /mnt";
    let can_mount = Command::new("unshare").args(private).arg(trial).output();
    if !can_mount.is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: only root can mount small disks");
        return;
    }
    let (mut refused, mut in_part) = (0, 0);
    for size in (4..=324).step_by(8) {
        let (batch, originals) = family();
        let script = [
            ON_A_SMALL_DISK,
            "small-disk",
            &size.to_string(),
            ZIPLLM,
            RESTORE,
        ];
        let mut command = Command::new("unshare");
        Run::of(
            command
                .args(private)
                .args(script)
                .current_dir(batch.path("")),
        )
        .expect(0);
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
                in_part += u32::from(!early.is_empty());
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
    println!("41 sizes, {refused} too small, {in_part} of them for a part of the models");
    assert!(
        refused > 5 && in_part > 2 && refused < 41,
        "{refused}, {in_part}"
    );
}
