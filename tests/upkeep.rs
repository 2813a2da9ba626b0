//! What keeps a store in order, through the real program: check in parts, diff, rename, copy, repair.
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
use std::path::PathBuf;
use std::process::Command;

use batch::{Batch, about, assert_same, names, tree};
use serde_json::{Value, json};
use tensors::{noise, safetensors, tuned, weights};

const IDS: [&str; 3] = ["lab/base", "lab/tune", "lab/next"];

/// A base, its fine-tune, and the fine-tune's fine-tune; a tensor and a file are shared.
fn family() -> Batch {
    let batch = Batch::new(&IDS);
    let (mut w, v) = (weights(1, 5000), weights(2, 300));
    for (seed, id) in (3..).zip(IDS) {
        let tensors = [
            ("w", "BF16", &[50, 100][..], &w[..]),
            ("v", "BF16", &[300], &v),
        ];
        batch.file(&format!("{id}/model.safetensors"), safetensors(&tensors));
        batch.file(&format!("{id}/card.md"), id);
        w = tuned(&w, seed);
    }
    batch.bases(&json!({IDS[0]: [IDS[1]], IDS[1]: [IDS[2]]}));
    batch.zipllm(&[]).expect(0);
    batch
}

fn trees(batch: &Batch) -> Vec<batch::Tree> {
    let of = |id: &&str| tree(&batch.path("models").join(id));
    IDS.iter().map(of).collect()
}

/// The file of a tensor's object.
fn object(batch: &Batch, model: &str, tensor: &str) -> PathBuf {
    let detail = batch.report("list", &[model]);
    let files = detail["files"].as_array().unwrap();
    let mut segments = files
        .iter()
        .flat_map(|file| file["segments"].as_array().unwrap());
    let one = segments.find(|one| one["tensor"] == tensor).unwrap();
    let name = one["object"].as_str().unwrap();
    batch.path("store/objects").join(&name[..2]).join(name)
}

/// Flips a bit of a payload.
fn damage(path: &PathBuf) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(path, bytes).unwrap();
}

#[test]
fn parts_of_a_check_make_up_the_whole() {
    let batch = family();
    let whole = batch.report("check", &["--read-data"]);
    assert_eq!(whole["objects_read"], whole["objects"]);
    let parts: Vec<_> = (1..=3)
        .map(|part| batch.report("check", &["--read-data", "--subset", &format!("{part}/3")]))
        .collect();
    for key in ["objects_read", "bytes_read"] {
        let sum: u64 = parts.iter().map(|part| part[key].as_u64().unwrap()).sum();
        assert_eq!(sum, whole[key].as_u64().unwrap(), "{key}");
    }
    // Of the parts exactly one finds a flipped bit, and says whom it hurts.
    damage(&object(&batch, IDS[1], "w"));
    batch.report("check", &[]);
    let found: Vec<_> = (1..=3)
        .map(|part| {
            batch.verb(
                "check",
                &["--read-data", "--subset", &format!("{part}/3"), "--json"],
            )
        })
        .filter(|run| run.code == Some(3))
        .map(|run| run.json())
        .collect();
    // The fine-tune's fine-tune is decoded with it, perhaps in another part.
    assert!((1..=2).contains(&found.len()), "{found:#?}");
    for report in &found {
        assert_eq!(report["damage"][0]["models"], json!([IDS[2], IDS[1]]));
        let file = |id| format!("{id}@1: model.safetensors");
        assert_eq!(
            report["damage"][0]["hurts"],
            json!([file(IDS[2]), file(IDS[1])])
        );
    }
    for bad in ["0/3", "4/3", "1", "a/b", "1/0"] {
        batch
            .verb("check", &["--read-data", "--subset", bad])
            .expect(2);
    }
    batch.verb("check", &["--subset", "1/2"]).expect(2);
}

#[test]
fn diff_tells_equal_changed_added_removed_and_resized_apart() {
    let batch = family();
    let w = weights(1, 5000);
    let mut close = w.clone();
    close[0] ^= 1;
    let tensors = [
        ("w", "BF16", &[50, 100][..], &close[..]),
        ("v", "BF16", &[100, 3], &weights(2, 300)),
        ("x", "F32", &[2], &[0; 8]),
    ];
    batch.file("lab/next/model.safetensors", safetensors(&tensors));
    batch.file("lab/next/more.txt", "more");
    fs::remove_file(batch.path("models/lab/next/card.md")).unwrap();
    batch.zipllm(&["--accept-missing"]).expect(0);
    let report = batch.report("diff", &[IDS[0], IDS[2]]);
    assert_eq!(
        (&report["from"], &report["to"]),
        (&json!("lab/base@1"), &json!("lab/next@2"))
    );
    for (key, value) in [
        ("changed_files", json!(["model.safetensors"])),
        ("added_files", json!(["more.txt"])),
        ("removed_files", json!(["card.md"])),
        ("equal_files", json!(0)),
        ("equal_tensors", json!(0)),
        ("removed", json!([])),
    ] {
        assert_eq!(report[key], value, "{key}");
    }
    assert_eq!(report["added"][0]["tensor"], "x");
    let resized = &report["resized"][0];
    assert_eq!(
        (&resized["from"]["shape"], &resized["to"]["shape"]),
        (&json!([300]), &json!([100, 3]))
    );
    let changed = &report["changed"][0];
    assert_eq!(
        (&changed["tensor"], &changed["elements"]),
        (&json!("w"), &json!(5000))
    );
    assert_eq!(changed["equal_elements"], 4999);
    let number = |value: &Value| value.as_f64().unwrap();
    assert!((number(&changed["bit_distance"]) - 1.0 / 5000.0).abs() < 1e-12);
    let distance = number(&changed["relative_distance"]);
    assert!(distance > 0.0 && distance < 1e-3, "{distance}");
    let back = batch.report("diff", &[IDS[2], IDS[0]]);
    assert_eq!(back["removed"], report["added"]);
    let same = batch.report("diff", &[IDS[1], "lab/tune@1"]);
    assert_eq!(
        (&same["equal_tensors"], &same["equal_share"]),
        (&json!(2), &json!(1.0))
    );
    let text = batch
        .verb("diff", &[IDS[0], IDS[2]])
        .expect(0)
        .silent()
        .stdout;
    assert!(
        text.contains("99.98 %") && text.contains("was BF16 300"),
        "{text}"
    );
    batch
        .verb("diff", &[IDS[0], "lab/nex"])
        .expect(1)
        .says(&["did you mean lab/next"]);
    batch.verb("diff", &[IDS[0]]).expect(2);
}

#[test]
fn a_renamed_model_keeps_its_versions_and_its_family() {
    let batch = family();
    let first = tree(&batch.path("models/lab/tune"));
    batch.file("lab/tune/card.md", "another");
    batch.zipllm(&[]).expect(0);
    let second = tree(&batch.path("models/lab/tune"));
    let report = batch.report("rename", &["lab/tune", "new/name"]);
    assert_eq!(report["versions"], json!([1, 2]));
    assert_eq!(report["users"], json!(["lab/next@1"]));
    batch.assert_clean();
    batch.assert_restores("new/name@1", &first);
    batch.assert_restores("new/name", &second);
    batch.restore("lab/tune", "out", &[]).expect(1);
    assert_eq!(
        batch.report("stats", &[])["families"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        names(&batch.path("store/models")),
        ["lab--base", "lab--next", "new--name"]
    );
    let before = batch.stored();
    for (args, code, says) in [
        (["lab/none", "a/b"], 1, "not in the store"),
        (["lab/base", "lab/next"], 1, "in the store already"),
        (["lab/base", "LAB/next"], 1, "differs only in case"),
        (["lab/base", "lab/Base"], 1, "differs only in case"),
        (["lab/base", "lab/base"], 2, "the same"),
        (["lab/base", "../x"], 2, "not a model id"),
    ] {
        batch.verb("rename", &args).expect(code).says(&[says]);
    }
    assert_same(&before, &batch.stored(), "after refusals");
}

/// What a kill may leave: both names, or the old one without its oldest versions.
#[test]
fn a_rename_that_was_stopped_goes_on() {
    let batch = family();
    batch.file("lab/tune/card.md", "another");
    batch.zipllm(&[]).expect(0);
    let models = batch.path("store/models");
    let kept = batch.path("kept");
    batch::copy_tree(&models.join("lab--tune"), &kept);
    batch.verb("rename", &["lab/tune", "new/name"]).expect(0);
    let after = batch.stored();
    for gone in [None, Some("000001.json")] {
        batch::copy_tree(&kept, &models.join("lab--tune"));
        gone.into_iter()
            .for_each(|gone| fs::remove_file(models.join("lab--tune").join(gone)).unwrap());
        batch.verb("rename", &["lab/tune", "new/name"]).expect(0);
        assert_same(&after, &batch.stored(), "renamed again");
    }
}

#[test]
fn models_are_copied_with_what_is_missing() {
    let batch = family();
    let originals = trees(&batch);
    let other = Batch::new(&IDS);
    other.configure(&json!({}));
    let config = other.path("config.json");
    let to = ["--to", config.to_str().unwrap()];
    let copy = |models: &[&str]| batch.report("copy", &[models, &to].concat());
    // Its bases come along, though no model of that store has them.
    let first = copy(&[IDS[2]]);
    assert_eq!(first["models"][0]["copied_as"], 1);
    other.assert_clean();
    other.assert_restores(IDS[2], &originals[2]);
    assert_eq!(other.report("gc", &[])["freed_objects"], 0);
    let second = copy(&IDS);
    assert_eq!(second["models"][2]["was_there"], true);
    // The cards and the header that all share are all that was missing.
    assert!(second["raw_bytes"].as_u64().unwrap() < 200, "{second:#}");
    other.assert_clean();
    for (id, original) in IDS.iter().zip(&originals) {
        other.assert_restores(id, original);
    }
    assert_same(&batch.stored(), &other.stored(), "all models copied");
    assert_eq!(copy(&IDS)["objects"], 0);
    // A model that is there with other content becomes a version.
    batch.file("lab/tune/card.md", "another");
    batch.zipllm(&[]).expect(0);
    other.file("lab/tune/card.md", "a third");
    other.list(&["lab/tune"]);
    other.zipllm(&["--accept-missing"]).expect(0);
    assert_eq!(copy(&["lab/tune"])["models"][0]["copied_as"], 3);
    other.assert_restores("lab/tune", &tree(&batch.path("models/lab/tune")));
    other.assert_restores("lab/tune@1", &originals[1]);

    let own = batch.path("config.json");
    batch
        .verb("copy", &[IDS[0], "--to", own.to_str().unwrap()])
        .expect(2)
        .says(&["the same store"]);
    batch.verb("copy", &[IDS[0]]).expect(2);
    let nowhere = other.path("nowhere");
    let place = ["--to-store", nowhere.to_str().unwrap()];
    batch
        .verb("copy", &[&["lab/none"], &place[..]].concat())
        .expect(1);
    assert!(!nowhere.exists());
    batch
        .verb("copy", &[&[IDS[0]], &place[..]].concat())
        .expect(0);
}

#[test]
fn damage_is_not_copied() {
    let batch = family();
    damage(&object(&batch, IDS[0], "w"));
    let other = Batch::new(&IDS);
    let store = other.path("store");
    let to = ["--to-store", store.to_str().unwrap()];
    let run = batch
        .verb("copy", &[&IDS[..], &to, &["--json"]].concat())
        .expect(3);
    for model in run.json()["models"].as_array().unwrap() {
        assert!(
            model["copied_as"].is_null() && model["damage"] == true,
            "{model:#}"
        );
    }
    other.assert_clean();
}

/// The store that is copied to has the base as a difference to something else: depths add up, up to a limit.
#[test]
fn depths_fit_the_other_store() {
    let batch = family();
    let other = Batch::new(&["a/0", "a/1", "a/2"]);
    // There lab/base's tensor is a difference to another's, which is a difference to a third's.
    let base = weights(1, 5000);
    for (id, w) in [
        ("a/0", tuned(&base, 8)),
        ("a/1", tuned(&base, 9)),
        ("a/2", base),
    ] {
        let tensors = [("w", "BF16", &[50, 100][..], &w[..])];
        other.file(&format!("{id}/model.safetensors"), safetensors(&tensors));
    }
    other.bases(&json!({"a/0": ["a/1"], "a/1": ["a/2"]}));
    other.zipllm(&[]).expect(0);
    let config = other.path("config.json");
    batch
        .verb(
            "copy",
            &[&IDS[..], &["--to", config.to_str().unwrap()]].concat(),
        )
        .expect(0);
    other.assert_clean();
    for (id, original) in IDS.iter().zip(trees(&batch)) {
        other.assert_restores(id, &original);
    }
    let detail = other.report("list", &[IDS[2]]);
    let segments = detail["files"][1]["segments"].as_array().unwrap();
    let w = segments.iter().find(|one| one["tensor"] == "w").unwrap();
    assert_eq!(w["depth"], 4, "{w:#}");
}

#[test]
fn repair_stores_anew_what_the_models_still_have() {
    let batch = family();
    let originals = trees(&batch);
    let targets = [(IDS[0], "w"), (IDS[1], "w"), (IDS[0], "v"), (IDS[2], "w")];
    let paths: Vec<_> = targets
        .iter()
        .map(|(id, tensor)| object(&batch, id, tensor))
        .collect();
    for path in &paths {
        for way in ["flipped", "cut", "gone"] {
            match way {
                "flipped" => damage(path),
                "cut" => fs::write(path, b"ZLOB").unwrap(),
                _ => fs::remove_file(path).unwrap(),
            }
            batch.check().expect(3);
            let report = batch.report("repair", &[]);
            assert_eq!(
                report["healed"].as_array().unwrap().len(),
                1,
                "{way}: {report:#}"
            );
            assert_eq!(report["lost"], json!([]));
            batch.assert_clean();
        }
    }
    for (id, original) in IDS.iter().zip(&originals) {
        batch.assert_restores(id, original);
    }
    // All at once.
    paths.iter().for_each(damage);
    assert_eq!(
        batch.report("repair", &[])["healed"]
            .as_array()
            .unwrap()
            .len(),
        4
    );
    batch.assert_clean();
    let before = batch.stored();
    assert_eq!(batch.report("repair", &[])["healed"], json!([]));
    assert_same(&before, &batch.stored(), "nothing to repair");
}

/// The base's bytes are gone for good: its fine-tune is stored without it, and only the base is lost.
/// That an object's file is gone is not the index's fault, which lists it; without need of it nothing is damaged.
#[test]
fn a_check_names_what_is_gone_and_a_run_heals_it() {
    let batch = family();
    let path = object(&batch, IDS[0], "w");
    let name = path.file_name().unwrap().to_str().unwrap();
    fs::remove_file(&path).unwrap();
    let report = batch.check().expect(3).json();
    let [damage] = report["damage"].as_array().unwrap().as_slice() else {
        panic!("{report:#}");
    };
    assert_eq!(damage["object"], name);
    let hurt = format!("{}@1: model.safetensors", IDS[0]);
    assert!(damage["hurts"].to_string().contains(&hurt), "{report:#}");
    let told = batch.verb("check", &[]).expect(3).stdout;
    for said in [name, &hurt, "missing", "to heal it: `zipllm repair`"] {
        assert!(told.contains(said), "{told}");
    }
    batch.zipllm(&[]).expect(0).says(&["stored anew"]);
    batch.assert_clean();
    batch.verb("remove", &IDS).expect(0);
    fs::remove_file(&path).unwrap();
    let report = batch.check().expect(0).json();
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("no model needs it"), "{report:#}");
}

#[test]
fn repair_frees_fine_tunes_of_a_lost_base() {
    let batch = family();
    let originals = trees(&batch);
    fs::remove_dir_all(batch.path("models/lab/base")).unwrap();
    let lost = object(&batch, IDS[0], "w");
    damage(&lost);
    let run = batch.verb("repair", &["--json"]).expect(3);
    let report = run.json();
    assert_eq!(report["healed"].as_array().unwrap().len(), 1, "{report:#}");
    assert_eq!(report["lost"].as_array().unwrap().len(), 1);
    assert_eq!(report["lost"][0]["models"], json!([IDS[0]]));
    assert_eq!(
        report["lost"][0]["hurts"],
        json!(["lab/base@1: model.safetensors"])
    );
    assert!(lost.exists(), "what cannot be replaced is not deleted");
    batch.assert_restores(IDS[1], &originals[1]);
    batch.assert_restores(IDS[2], &originals[2]);
    // With the model gone the store is whole, and collecting removes the rest.
    batch.verb("remove", &[IDS[0]]).expect(0);
    batch.verb("gc", &[]).expect(0);
    assert!(!lost.exists());
    batch.assert_clean();
    batch.assert_restores(IDS[2], &originals[2]);
}

/// A difference whose base somebody deleted, or damaged so that its head tells, is worth nothing: a run that meets the
/// bytes again stores them anew, whether it reads the files or trusts that they have not changed.
#[test]
fn a_run_stores_anew_what_lost_its_base() {
    let batch = family();
    let originals = trees(&batch);
    let (base, tune) = (object(&batch, IDS[0], "w"), object(&batch, IDS[1], "w"));
    std::thread::sleep(std::time::Duration::from_millis(3100));
    for settled in [false, true] {
        for (listed, deleted, cut) in [
            (&IDS[1..], &base, false),
            (&IDS[1..], &base, true),
            (&IDS[2..], &base, false),
            (&IDS[2..], &tune, false),
            (&IDS[..], &base, false),
        ] {
            let what = format!("{listed:?} {settled} {cut} {}", deleted.display());
            fs::remove_dir_all(batch.path("store")).unwrap();
            batch.list(&IDS);
            batch.configure(&json!({"base_ft_path": "bases.json"}));
            batch.zipllm(&[]).expect(0);
            if settled {
                batch.zipllm(&[]).expect(0).silent();
            } else {
                fs::remove_dir_all(batch.path("store/index/scans")).unwrap();
            }
            if cut {
                fs::write(deleted, "ZLOB").unwrap();
            } else {
                fs::remove_file(deleted).unwrap();
            }
            batch.list(listed);
            // With the map, the base would be stored too.
            batch.configure(&json!({}));
            let run = batch.zipllm(&["--json"]);
            for (id, original) in IDS
                .iter()
                .zip(&originals)
                .filter(|(id, _)| listed.contains(id))
            {
                batch.assert_restores(id, original);
                assert_eq!(about(&run.json(), id)["status"], "already_stored", "{what}");
            }
            // Where the base itself is stored first, nothing is without it.
            let all = listed.len() == IDS.len();
            assert_eq!(
                run.code,
                Some(if all { 0 } else { 3 }),
                "{what}: {}",
                run.stderr
            );
            assert_eq!(
                run.stderr.contains("; stored anew"),
                !all,
                "{what}: {}",
                run.stderr
            );
            batch.zipllm(&[]).expect(0).silent();
        }
    }
}

#[test]
fn repair_without_the_models_says_what_is_lost() {
    let batch = family();
    let path = object(&batch, IDS[1], "w");
    damage(&path);
    let damaged = fs::read(&path).unwrap();
    // Other bytes of the same length under the same name do not pass for it.
    let file = batch.path("models/lab/tune/model.safetensors");
    let mut other = fs::read(&file).unwrap();
    let length = other.len();
    other[length - 5000] ^= 1;
    fs::write(&file, &other).unwrap();
    fs::remove_dir_all(batch.path("models/lab/next")).unwrap();
    let store = batch.path("store");
    for args in [&[][..], &["--model-dir", store.to_str().unwrap()]] {
        let report = batch
            .verb("repair", &[args, &["--json"]].concat())
            .expect(3)
            .json();
        assert_eq!(report["healed"], json!([]));
        assert_eq!(report["lost"][0]["models"], json!([IDS[2], IDS[1]]));
    }
    assert_eq!(fs::read(&path).unwrap(), damaged);
    let run = batch.verb("repair", &[]).expect(3);
    let next = "zipllm remove lab/next@1 lab/tune@1, then zipllm gc";
    assert!(run.stdout.contains(next), "{}", run.stdout);
    assert!(run.stdout.contains("--model-dir DIR"), "{}", run.stdout);
    batch
        .verb("repair", &["--model-dir", "/nowhere/at/all"])
        .expect(2)
        .says(&["--model-dir", "/nowhere/at/all"]);
    // A damaged manifest says what can be done.
    fs::write(batch.path("store/models/lab--next/000001.json"), "{}").unwrap();
    batch
        .verb("list", &[])
        .expect(3)
        .says(&["storing the model again", "`zipllm remove lab/next@1`"]);
    batch.verb("remove", &["lab/next@1"]).expect(0);
    batch.verb("list", &[]).expect(0).silent();
}

/// A cast is no change of size, and of tensors that cannot be compared there is no share.
#[test]
fn a_cast_is_another_dtype() {
    let ids = ["a/half", "a/full"];
    let batch = Batch::new(&ids);
    for (id, dtype, size) in [(ids[0], "BF16", 2), (ids[1], "F32", 4)] {
        let tensors = [("w", dtype, &[10, 10][..], &noise(1, 100 * size)[..])];
        batch.file(&format!("{id}/model.safetensors"), safetensors(&tensors));
    }
    batch.zipllm(&[]).expect(0);
    let text = batch.verb("diff", &ids).expect(0).stdout;
    let said = "0 equal (0 B), 0 changed, 0 resized, 1 of another dtype, 0 added, 0 removed\n";
    assert!(text.contains(said), "{text}");
    assert_eq!(batch.report("diff", &ids).get("equal_share"), None);
}

#[test]
fn a_damaged_sketch_hurts_no_model() {
    let batch = family();
    let log = batch.path("store/sketches/sketches.log");
    let whole = fs::read(&log).unwrap_or_default();
    fs::write(&log, [&whole[..], &[0; 512]].concat()).unwrap();
    let report = batch.check().expect(3).json();
    let damage = &report["damage"][0];
    let reason = damage["reason"].as_str().unwrap();
    assert!(
        reason.contains("zipllm optimize makes it anew"),
        "{damage:#}"
    );
    assert!(
        damage["models"].as_array().is_none_or(Vec::is_empty),
        "{damage:#}"
    );
    batch.zipllm(&[]).expect(0);
    batch.assert_clean();
}

#[test]
fn repair_removes_leftovers_and_makes_the_index_anew() {
    let batch = family();
    let store = batch.path("store");
    let index = fs::read(store.join("index/objects.log")).unwrap();
    for text in [&index[..index.len() - 96], b"junk", b""] {
        fs::write(store.join("index/objects.log"), text).unwrap();
        fs::write(store.join("tmp/1-1"), "left").unwrap();
        fs::create_dir_all(store.join("index/scans")).unwrap();
        fs::write(store.join("index/scans/lab--base.json"), "junk").unwrap();
        let report = batch.report("repair", &[]);
        let found = (
            &report["temps_removed"],
            &report["index_rebuilt"],
            &report["scans_removed"],
        );
        assert_eq!(found, (&json!(1), &json!(true), &json!(1)));
        batch.assert_clean();
    }
    assert_eq!(batch.report("repair", &[])["index_rebuilt"], false);
}

#[test]
fn repair_writes_the_format_marker_anew() {
    let batch = family();
    let marker = batch.path("store/zipllm.json");
    let whole = fs::read(&marker).unwrap();
    for (damaged, code) in [(Some(noise(1, 50)), 3), (Some(vec![]), 3), (None, 1)] {
        match &damaged {
            Some(bytes) => fs::write(&marker, bytes).unwrap(),
            None => fs::remove_file(&marker).unwrap(),
        }
        for verb in ["list", "check", "gc"] {
            let run = batch.verb(verb, &[]).expect(code);
            run.says(&["zipllm.json", "`zipllm repair` writes it anew"]);
        }
        let report = batch.report("repair", &[]);
        assert_eq!(report["marker_rewritten"], true, "{damaged:?}");
        assert_eq!(fs::read(&marker).unwrap(), whole);
        batch.assert_clean();
    }
    assert_eq!(batch.report("repair", &[])["marker_rewritten"], false);
    // Beside a file of this name that is somebody else's there is no store.
    let other = batch.path("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("zipllm.json"), "{}").unwrap();
    let mut command = Command::new(batch::ZIPLLM);
    let run = batch::Run::of(command.args(["repair", "--store"]).arg(&other));
    run.expect(3);
    assert_eq!(names(&other), ["zipllm.json"]);
    assert_eq!(fs::read(other.join("zipllm.json")).unwrap(), b"{}");
}

#[test]
fn all_versions_are_copied_in_their_order() {
    let batch = family();
    for text in ["second", "third", "second"] {
        batch.file("lab/tune/card.md", text);
        batch.zipllm(&[]).expect(0);
    }
    let other = Batch::new(&IDS);
    other.configure(&json!({}));
    let config = other.path("config.json");
    let to = [
        "lab/tune",
        "--all-versions",
        "--to",
        config.to_str().unwrap(),
    ];
    for was_there in [false, true] {
        let report = batch.report("copy", &to);
        let models = report["models"].as_array().unwrap();
        let copied: Vec<_> = models.iter().map(|one| one["copied_as"].as_u64()).collect();
        // The second and the fourth have one content: once it is there, the newest will do for both.
        let first = if was_there { 4 } else { 2 };
        assert_eq!(copied, [Some(1), Some(first), Some(3), Some(4)]);
        assert!(
            models.iter().all(|one| one["was_there"] == was_there),
            "{report:#}"
        );
        other.assert_clean();
    }
    assert_eq!(names(&other.path("store/models/lab--tune")).len(), 4);
    other.assert_restores("lab/tune", &tree(&batch.path("models/lab/tune")));
    batch
        .verb("copy", &[&["lab/none"], &to[1..]].concat())
        .expect(1)
        .says(&["not in the store"]);
}
