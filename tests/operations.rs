//! What one does with a store beside storing and restoring, through the real program: list, stats, cat, remove, gc.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking"
)]

#[path = "common/batch.rs"]
mod batch;
#[path = "common/tensors.rs"]
mod tensors;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use batch::{Batch, Run, ZIPLLM, assert_same, names, testdata, tree};
use serde_json::{Value, json};
use tensors::{noise, safetensors, tuned, weights};

const IDS: [&str; 3] = ["lab/base", "lab/tune", "solo"];

/// A base, a fine-tune that shares a tensor and a file with it, and a model of nothing but bytes.
fn family() -> Batch {
    let batch = Batch::new(&IDS);
    let (w, v) = (weights(1, 5000), weights(2, 300));
    for (model, w) in [("base", w.clone()), ("tune", tuned(&w, 3))] {
        let tensors = [
            ("w", "BF16", &[50, 100][..], &w[..]),
            ("v", "BF16", &[300], &v),
        ];
        batch.file(
            &format!("lab/{model}/model.safetensors"),
            safetensors(&tensors),
        );
        batch.file(&format!("lab/{model}/tokenizer.bin"), noise(5, 2000));
    }
    batch.file("lab/base/notes.txt", "only here");
    batch.file("solo/weights.bin", noise(4, 3000));
    batch.bases(&json!({"lab/base": ["lab/tune"]}));
    batch
}

fn stored() -> Batch {
    let batch = family();
    batch.zipllm(&[]).expect(0);
    batch
}

/// Standard output as it is: `cat` writes bytes.
fn cat(batch: &Batch, args: &[&str]) -> (Option<i32>, Vec<u8>, String) {
    let mut command = Command::new(ZIPLLM);
    let command = command.arg("cat").arg(batch.path("config.json")).args(args);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), output.stdout, said)
}

fn object_bytes(batch: &Batch) -> u64 {
    let mut sum = 0;
    for shard in names(&batch.path("store/objects")) {
        let shard = batch.path("store/objects").join(shard);
        let files = fs::read_dir(shard).unwrap();
        sum += files
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum::<u64>();
    }
    sum
}

#[test]
fn list_names_models_and_what_they_take() {
    let batch = stored();
    let report = batch.report("list", &[]);
    assert_eq!(report["stored_bytes"], object_bytes(&batch));
    let models = report["models"].as_array().unwrap();
    let ids: Vec<_> = models
        .iter()
        .map(|model| model["model"].as_str().unwrap())
        .collect();
    assert_eq!(ids, IDS);
    let tune = batch::about(&report, "lab/tune");
    let size = |path: &str| fs::metadata(batch.path("models").join(path)).unwrap().len();
    let bytes = size("lab/tune/model.safetensors") + size("lab/tune/tokenizer.bin");
    for (key, value) in [
        ("version", json!(1)),
        ("versions", json!(1)),
        ("files", json!(2)),
        ("tensors", json!(2)),
        ("bytes", json!(bytes)),
        ("base", json!("lab/base")),
    ] {
        assert_eq!(tune[key], value, "{key}");
    }
    // Only w is the fine-tune's own: the rest it shares with its base.
    let detail = batch.report("list", &["lab/tune"]);
    let segments = |detail: &Value| detail["files"][0]["segments"].as_array().unwrap().clone();
    let w = segments(&detail)
        .into_iter()
        .find(|one| one["tensor"] == "w")
        .unwrap();
    assert_eq!(tune["unshared_bytes"], w["stored_bytes"]);
    assert_eq!(tune["stored_bytes"], detail["stored_bytes"]);
    for (key, value) in [
        ("dtype", json!("BF16")),
        ("shape", json!([50, 100])),
        ("bytes", json!(10_000)),
        ("encoding", json!("delta")),
        ("depth", json!(1)),
    ] {
        assert_eq!(w[key], value, "{key}");
    }
    let base = batch.report("list", &["lab/base@1"]);
    let of_base = segments(&base)
        .into_iter()
        .find(|one| one["tensor"] == "w")
        .unwrap();
    assert_eq!(w["base_object"], of_base["object"]);
    let text = batch.verb("list", &["lab/tune"]).expect(0).silent().stdout;
    assert!(text.contains("50x100") && text.contains("delta"), "{text}");
    let text = batch.verb("list", &[]).expect(0).silent().stdout;
    assert!(IDS.iter().all(|id| text.contains(id)), "{text}");
    assert!(!text.contains("that no model has"), "{text}");
}

/// What is in no model is in the sum, and said to be; and versions are counted as they are.
#[test]
fn list_says_what_no_model_has_and_which_versions_there_are() {
    let batch = stored();
    batch.verb("remove", &["lab/base"]).expect(0);
    let report = batch.report("list", &[]);
    let stats = batch.report("stats", &[]);
    for key in ["unused_objects", "unused_bytes"] {
        assert!(report[key].as_u64() > Some(0), "{report:#}");
        assert_eq!(report[key], stats[key], "{key}");
    }
    // The fine-tune's base is removed, and its family is called by it all the same.
    let family = &stats["families"][0];
    assert_eq!(
        (&family["root"], &family["root_removed"]),
        (&json!("lab/base"), &json!(true))
    );
    let text = batch.verb("list", &[]).expect(0).silent().stdout;
    assert!(text.contains("2 objects that no model has"), "{text}");

    for text in ["second", "third"] {
        batch.file("solo/weights.bin", text);
        batch.list(&["solo"]);
        batch.zipllm(&[]).expect(0);
    }
    batch.verb("remove", &["solo@2"]).expect(0);
    let text = batch.verb("list", &[]).expect(0).silent().stdout;
    assert!(
        text.contains("3 (2 versions)") && text.contains("2 models in 3 versions, "),
        "{text}"
    );
    let text = batch.verb("list", &["solo"]).expect(0).silent().stdout;
    assert!(
        text.starts_with("solo version 3 (versions: 1, 3)\n1 file, "),
        "{text}"
    );
    // Storing says the same of the store.
    let said = batch.zipllm(&[]).expect(0).stdout;
    let sums = |text: &str| {
        text.lines().find_map(|line| {
            line.split_once("2 models in 3 versions")?
                .1
                .split_once(" (")
                .map(|all| all.0.to_owned())
        })
    };
    let listed = batch.verb("list", &[]).expect(0).stdout;
    assert!(
        sums(&said).is_some() && sums(&said) == sums(&listed),
        "{said}{listed}"
    );
}

/// A re-upload under another id belongs to the model's family, whatever it is called.
#[test]
fn copies_count_with_their_family() {
    for copy in ["aa/copy", "zz/copy"] {
        let batch = stored();
        let source = batch.path("models/lab/base");
        let path = source.to_str().unwrap();
        let report = batch.report("add", &[path, "--as", copy]);
        assert_eq!(report["models"][0]["status"], "stored");
        let tune = batch.path("models/lab/tune");
        batch.report("add", &[tune.to_str().unwrap(), "--as", "aa/tune"]);
        let stats = batch.report("stats", &[]);
        let families: Vec<_> = stats["families"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| {
                (
                    one["root"].as_str().unwrap(),
                    one["models"].as_u64().unwrap(),
                )
            })
            .collect();
        assert_eq!(families, [("lab/base", 4), ("solo", 1)], "{stats:#}");
    }
    let empty = Batch::new(&IDS);
    fs::create_dir_all(empty.path("models/solo")).unwrap();
    empty.list(&["solo"]);
    empty.file("solo/x", "x");
    empty.zipllm(&[]).expect(0);
    empty.verb("remove", &["solo"]).expect(0);
    empty.verb("gc", &[]).expect(0);
    let text = empty.verb("stats", &[]).expect(0).silent().stdout;
    assert_eq!(text, "the store has no models\n");
}

#[test]
fn list_says_what_is_damaged() {
    let batch = stored();
    fs::write(batch.path("store/models/solo/000001.json"), "{}").unwrap();
    batch
        .verb("list", &[])
        .expect(3)
        .says(&["000001.json", "checksum"]);
    batch
        .verb("list", &["solo"])
        .expect(3)
        .says(&["000001.json"]);
    batch.verb("list", &["lab/base"]).expect(0).silent();
    batch
        .verb("list", &["lab/bas"])
        .expect(1)
        .says(&["did you mean lab/base?"]);
}

#[test]
fn figures_of_the_stages_add_up() {
    let batch = stored();
    let stats = batch.report("stats", &[]);
    assert_eq!(stats["stored_bytes"], object_bytes(&batch));
    assert_eq!(stats["models"], 3);
    let number = |value: &Value| value.as_u64().unwrap();
    let sum = |key: &str, of: &str| {
        let groups = stats[key].as_array().unwrap();
        groups.iter().map(|group| number(&group[of])).sum::<u64>()
    };
    let savings = &stats["savings"];
    let unique: u64 = ["delta", "solo", "plain"]
        .iter()
        .map(|class| number(&savings[class]["raw_bytes"]))
        .sum();
    let repeated = number(&savings["file_dedup_bytes"]) + number(&savings["tensor_dedup_bytes"]);
    assert_eq!(unique + repeated, number(&stats["bytes"]));
    for key in ["encodings", "dtypes"] {
        assert_eq!(sum(key, "raw_bytes"), unique, "{key}");
        assert_eq!(
            sum(key, "stored_bytes"),
            number(&stats["stored_bytes"]),
            "{key}"
        );
        assert_eq!(sum(key, "objects"), number(&stats["objects"]), "{key}");
    }
    assert_eq!(savings["file_dedup_bytes"], 2000);
    assert_eq!(
        sum("families", "stored_bytes"),
        number(&stats["stored_bytes"])
    );
    assert_eq!(sum("families", "bytes"), number(&stats["bytes"]));
    let families = stats["families"].as_array().unwrap();
    assert_eq!((families.len(), &families[0]["models"]), (2, &json!(2)));
    let largest = &stats["largest_unshared"][0];
    assert_eq!(
        (&largest["model"], &largest["tensor"]),
        (&json!("lab/base"), &json!("w"))
    );
    // What a removed model alone had is nobody's.
    batch.verb("remove", &["solo"]).expect(0);
    let stats = batch.report("stats", &[]);
    assert_eq!(stats["unused_objects"], 1);
    batch.verb("stats", &[]).expect(0).silent();
}

#[test]
fn cat_gives_any_part_of_a_file() {
    let batch = stored();
    let path = "model.safetensors";
    let file = fs::read(batch.path("models/lab/tune").join(path)).unwrap();
    let w = tuned(&weights(1, 5000), 3);
    let length = file.len();
    let (middle, last) = (format!("100-{}", length - 50), format!("{}-", length - 1));
    for (args, expected) in [
        (&[][..], &file[..]),
        (&["--range", "0-0"], &file[..1]),
        (&["--range", &middle], &file[100..=length - 50]),
        (&["--range", &last], &file[length - 1..]),
        (&["--range=-7"], &file[length - 7..]),
        (&["--range", "5-99999999"], &file[5..]),
        (&["--tensor", "w"], &w),
        (&["--tensor", "w", "--range", "10-19"], &w[10..20]),
        (&["--tensor", "v"], &weights(2, 300)),
    ] {
        let (code, found, said) = cat(&batch, &[&["lab/tune", path], args].concat());
        assert_eq!(code, Some(0), "{args:?}: {said}");
        assert!(found == expected, "{args:?}: {} bytes", found.len());
    }
    let (_, found, said) = cat(&batch, &["solo@1", "weights.bin", "--json"]);
    assert_eq!(found, noise(4, 3000));
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["bytes"], 3000);
    for (args, code, says) in [
        (
            &["lab/tune", "model.safetensor"][..],
            1,
            "did you mean model.safetensors?",
        ),
        (&["lab/tune", path, "--tensor", "x"], 1, "no such tensor"),
        (
            &["lab/tune", path, "--range", "99999999-"],
            1,
            "there are only",
        ),
        (&["lab/tune", path, "--range", "5-1"], 2, "a range is"),
        (&["lab/tune", "../x"], 2, "not a path in a model"),
        (&["lab/tune", "/etc/passwd"], 2, "has to be relative"),
        (
            &["lab/tune", "nothing.of.the.kind"],
            1,
            "in lab/tune@1; `zipllm list`",
        ),
        (
            &["lab/tune", "tokenizer.bin", "--tensor", "w"],
            1,
            "not stored as tensors",
        ),
        (&["lab/tune@7", path], 1, "there is no version 7"),
        (&["lab/tune"], 2, "PATH is missing"),
        (
            &["lab/tune", path, "more"],
            2,
            "unexpected argument \"more\"",
        ),
    ] {
        let (found, _, said) = cat(&batch, args);
        assert_eq!(found, Some(code), "{args:?}: {said}");
        assert!(said.contains(says), "{args:?}: {said}");
    }
}

#[test]
fn cat_gives_no_wrong_byte() {
    let batch = stored();
    let detail = batch.report("list", &["solo"]);
    let name = detail["files"][0]["segments"][0]["object"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = batch.path("store/objects").join(&name[..2]).join(&name);
    let mut bytes = fs::read(&path).unwrap();
    bytes[1000] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (code, out, said) = cat(&batch, &["solo", "weights.bin"]);
    assert_eq!((code, out.len()), (Some(3), 0), "{said}");
    assert!(
        said.contains("solo: weights.bin") && said.contains(&name),
        "{said}"
    );
}

#[test]
fn only_what_no_model_needs_is_deleted() {
    let batch = stored();
    let originals = IDS.map(|id| tree(&batch.path("models").join(id)));
    let before = batch.stored();
    let nothing = batch.report("gc", &[]);
    assert_eq!(
        (&nothing["freed_objects"], &nothing["freed_bytes"]),
        (&json!(0), &json!(0))
    );
    assert_same(&before, &batch.stored(), "nothing to delete");

    // The base's tensors stay as long as the fine-tune is encoded against them.
    batch.verb("remove", &["lab/base"]).expect(0);
    let dry = batch.report("gc", &["--dry-run"]);
    let after_remove = batch.stored();
    assert_eq!(dry["freed_objects"], 1, "{dry:#}");
    let done = batch.report("gc", &[]);
    assert_eq!(dry["freed_bytes"], done["freed_bytes"]);
    assert!(after_remove.len() - batch.stored().len() <= 2);
    batch.assert_clean();
    batch.assert_restores(IDS[1], &originals[1]);
    batch.assert_restores(IDS[2], &originals[2]);
    batch
        .restore(IDS[0], "out", &[])
        .expect(1)
        .says(&["not in the store"]);

    // What was written a moment ago is within the grace period, and so is its base.
    batch.verb("remove", &["lab/tune", "solo"]).expect(0);
    let kept = batch.report("gc", &["--grace", "1h"]);
    assert_eq!(kept["freed_objects"], 0);
    assert_eq!(kept["recent_objects"], kept["objects"]);
    batch.verb("gc", &["--grace", "0s"]).expect(0);
    assert_eq!(object_bytes(&batch), 0);
    assert_eq!(names(&batch.path("store/models")), [""; 0]);
    batch.assert_clean();

    // And all of it can be stored again.
    batch.zipllm(&[]).expect(0);
    assert_same(&before, &batch.stored(), "stored again");
}

#[test]
fn grace_keeps_recent_objects_and_their_bases() {
    let batch = stored();
    let old = |path: &Path| {
        let file = fs::File::options().write(true).open(path).unwrap();
        let time = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
        file.set_modified(time).unwrap();
    };
    let object = |model: &str, tensor: &str| {
        let detail = batch.report("list", &[model]);
        let segments = detail["files"][0]["segments"].as_array().unwrap().clone();
        let one = segments.iter().find(|one| one["tensor"] == tensor).unwrap();
        one["object"].as_str().unwrap().to_owned()
    };
    let recent = object("lab/tune", "w");
    let base = object("lab/base", "w");
    let objects = batch.path("store/objects");
    for shard in names(&objects) {
        for name in names(&objects.join(&shard)) {
            if name != recent {
                old(&objects.join(&shard).join(&name));
            }
        }
    }
    batch.verb("remove", &IDS).expect(0);
    let report = batch.report("gc", &["--grace", "1h"]);
    assert_eq!(report["recent_objects"], 2, "{report:#}");
    for name in [recent, base] {
        assert!(objects.join(&name[..2]).join(&name).exists());
    }
}

#[test]
fn versions_are_removed_alone_or_together() {
    let batch = stored();
    let first = tree(&batch.path("models/solo"));
    batch.file("solo/weights.bin", noise(9, 3000));
    let second = tree(&batch.path("models/solo"));
    batch.zipllm(&[]).expect(0);
    batch.file("solo/weights.bin", noise(10, 3000));
    batch.zipllm(&[]).expect(0);
    assert_eq!(
        batch.report("list", &["solo"])["versions"],
        json!([1, 2, 3])
    );
    let report = batch.report("remove", &["solo@3"]);
    assert_eq!(report["removed"], json!(["solo@3"]));
    batch.assert_restores("solo", &second);
    batch.assert_restores("solo@1", &first);
    batch.verb("gc", &[]).expect(0);
    batch.assert_clean();
    batch.assert_restores("solo@1", &first);
    let report = batch.report("remove", &["solo", "solo@1"]);
    assert_eq!(report["removed"], json!(["solo@1", "solo@2"]));
    batch.verb("gc", &[]).expect(0);
    batch.assert_clean();
    // The model is still in its directory.
    batch.zipllm(&[]).expect(0);
    batch.assert_restores("solo", &tree(&batch.path("models/solo")));
}

#[test]
fn removing_what_is_absent_changes_nothing() {
    let batch = stored();
    let before = tree(&batch.path("store"));
    for (args, says) in [
        (&["lab/base", "lab/tun"][..], "did you mean lab/tune?"),
        (
            &["lab/base", "lab/tune@2"],
            "lab/tune@2: there is no such version",
        ),
    ] {
        batch.verb("remove", args).expect(1).says(&[says]);
    }
    for args in [&[][..], &["../x"], &["lab/base@0"]] {
        batch.verb("remove", args).expect(2);
    }
    let mut after = tree(&batch.path("store"));
    // Who holds the lock, and since when, is all that may change.
    after.insert("lock".into(), before[Path::new("lock")].clone());
    assert_same(&before, &after, "the store");
}

#[test]
fn nothing_is_deleted_from_a_damaged_store() {
    let batch = stored();
    batch.verb("remove", &["solo"]).expect(0);
    let manifest = batch.path("store/models/lab--tune/000001.json");
    let whole = fs::read(&manifest).unwrap();
    let detail = batch.report("list", &["lab/tune"]);
    let name = detail["files"][0]["segments"][2]["object"]
        .as_str()
        .unwrap()
        .to_owned();
    let object = batch.path("store/objects").join(&name[..2]).join(&name);
    let objects = || {
        batch
            .stored()
            .into_iter()
            .filter(|(path, _)| path.starts_with("objects"))
            .count()
    };
    let before = objects();

    fs::write(&manifest, &whole[..whole.len() - 1]).unwrap();
    batch
        .verb("gc", &[])
        .expect(3)
        .says(&["lab--tune/000001.json"]);
    batch.verb("gc", &["--dry-run"]).expect(3);
    fs::write(&manifest, &whole).unwrap();
    let bytes = fs::read(&object).unwrap();
    let mut damaged = bytes.clone();
    damaged[20] ^= 1;
    fs::write(&object, damaged).unwrap();
    batch.verb("gc", &[]).expect(3).says(&[&name]);
    fs::write(&object, bytes).unwrap();
    assert_eq!(objects(), before);

    // What no model needs may be damaged.
    let solo: Vec<_> = names(&batch.path("store/objects"));
    assert!(!solo.is_empty());
    assert_eq!(batch.report("gc", &[])["freed_objects"], 1);
    batch.assert_clean();
}

/// Every verb takes a store's directory in place of a config file, which then need not exist.
#[test]
fn a_bare_store_will_do() {
    let batch = stored();
    fs::remove_file(batch.path("config.json")).unwrap();
    let store = batch.path("store");
    let store = store.to_str().unwrap();
    let run = |args: &[&str]| Run::of(Command::new(ZIPLLM).args(args));
    for args in [
        &["list", "--store", store][..],
        &["list", "--store", store, "lab/tune"],
        &["list", "lab/tune", "--store", store],
        &["stats", "--store", store],
        &["check", "--store", store, "--read-data"],
        &[
            "cat",
            "--store",
            store,
            "lab/base",
            "notes.txt",
            "--range",
            "0-3",
        ],
        &["recode", "--store", store],
        &["remove", "--store", store, "lab/tune"],
        &["gc", "--store", store],
    ] {
        run(args).expect(0).silent();
    }
    let out = batch.path("out");
    let args = ["--store", store, "lab/base", out.to_str().unwrap()];
    Run::of(Command::new(batch::RESTORE).args(args)).expect(0);
    assert_same(
        &tree(&batch.path("models/lab/base")),
        &tree(&out),
        "restored",
    );
    let nowhere = batch.path("nowhere");
    for verb in ["list", "stats", "check", "gc", "recode"] {
        let args = [verb, "--store", nowhere.to_str().unwrap()];
        run(&args).expect(1).says(&["there is no store here"]);
        run(&[verb]).expect(2);
    }
    assert!(!nowhere.exists());
    let golden = testdata("store/v1");
    run(&["list", "--store", golden.to_str().unwrap()]).expect(0);
    assert!(!golden.join("readers").exists(), "who reads makes no files");
}

#[test]
#[cfg(feature = "plot")]
fn figures_are_drawn() {
    let batch = stored();
    for (name, start) in [("p.svg", &b"<svg"[..]), ("p.png", b"\x89PNG")] {
        let path = batch.path(name);
        batch
            .verb("stats", &["--plot", path.to_str().unwrap()])
            .expect(0)
            .silent();
        let picture = fs::read(path).unwrap();
        assert!(picture.starts_with(start) && picture.len() > 2000, "{name}");
    }
    let svg = fs::read_to_string(batch.path("p.svg")).unwrap();
    assert!(svg.contains("lab/base") && svg.contains("delta"), "{svg}");
    for (name, code, said) in [
        ("p.gif", 2, ".svg or .png"),
        (
            "nowhere/p.svg",
            1,
            "nowhere/p.svg: cannot create: No such file",
        ),
    ] {
        let run = batch.verb("stats", &["--plot", name]).expect(code);
        assert_eq!(run.says(&[said]).stdout, "", "{name}");
    }
}
