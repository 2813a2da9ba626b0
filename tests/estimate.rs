//! `zipllm estimate`: what models would take, held against what they then take; and that nothing is written.
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
use std::process::Command;

use batch::{Batch, Run, ZIPLLM, about, copy_tree, ids, tree};
use serde_json::{Value, json};
use tensors::{noise, safetensors, tuned, weights};
use zipllm::dtype::DType;
use zipllm::float::convert;

/// Elements of the tensors here, in rows of 64.
const COUNT: usize = 65_536;

fn number(report: &Value, key: &str) -> u64 {
    report[key].as_u64().unwrap()
}

/// Fails unless `estimated` is within so many percent of `real`.
#[track_caller]
fn assert_near(estimated: u64, real: u64, percent: u64) {
    let off = estimated.abs_diff(real);
    assert!(
        off * 100 <= real * percent,
        "{estimated} estimated, {real} in fact"
    );
}

/// A model of one file with these tensors, in rows of 64.
fn write(batch: &Batch, model: &str, tensors: &[(&str, &str, &[u8])]) {
    let rows = |dtype: &str, data: &[u8]| {
        let size = DType::from_name(dtype).size();
        [(data.len() / size / 64) as u64, 64]
    };
    let shapes: Vec<_> = tensors
        .iter()
        .map(|(_, dtype, data)| rows(dtype, data))
        .collect();
    let tensors: Vec<_> = tensors
        .iter()
        .zip(&shapes)
        .map(|((name, dtype, data), shape)| (*name, *dtype, shape.as_slice(), *data))
        .collect();
    batch.file(&format!("{model}/model.safetensors"), safetensors(&tensors));
}

#[test]
fn a_real_family_is_estimated_as_it_is_then_stored() {
    let batch = Batch::real();
    for (map, effort) in [
        ("bases.json", "fast"),
        ("none.json", "fast"),
        ("none.json", "default"),
    ] {
        fs::write(batch.path("none.json"), "{}").unwrap();
        batch.configure(&json!({"base_ft_path": map, "effort": effort}));
        let estimate = batch.report("estimate", &[]);
        assert!(!batch.path("store").exists(), "the store was made");
        let stored = batch.zipllm(&["--json"]).expect(0).json();
        let (guess, real) = (
            number(&estimate, "stored_bytes"),
            number(&stored, "stored_bytes"),
        );
        println!("{map} {effort}: {guess} estimated, {real} in fact");
        if effort == "fast" {
            assert_near(guess, real, 15);
            assert_eq!(estimate["is_upper_bound"], false);
        } else {
            assert!(
                real * 100 <= guess * 105,
                "{guess} estimated, {real} in fact"
            );
            assert_eq!(estimate["is_upper_bound"], true);
        }
        assert_eq!(estimate["bytes"], stored["bytes"]);
        for model in stored["models"].as_array().unwrap() {
            let id = model["model"].as_str().unwrap();
            let guess = about(&estimate, id);
            if effort == "fast" {
                assert_near(
                    number(guess, "stored_bytes"),
                    number(model, "stored_bytes"),
                    15,
                );
            }
            assert_eq!(guess["status"], "new");
            let known = |report: &Value| {
                let savings = &report["savings"];
                number(savings, "file_dedup_bytes") + number(savings, "tensor_dedup_bytes")
            };
            assert_eq!(known(guess), known(model), "{id}");
            let base = |report: &Value| report["bases"][0]["model"].clone();
            assert_eq!(base(guess), base(model), "{id}");
            let tensors = guess["tensors"].as_array().unwrap();
            let sum: u64 = tensors.iter().map(|tensor| number(tensor, "bytes")).sum();
            assert!(sum > 0 && sum <= number(model, "bytes"));
            assert!(
                tensors
                    .iter()
                    .all(|tensor| { tensor["is_known"] == false || tensor["stored_bytes"] == 0 })
            );
        }
        fs::remove_dir_all(batch.path("store")).unwrap();
    }
}

#[test]
fn what_is_stored_is_told_and_the_store_stays_as_it_is() {
    let batch = Batch::real();
    batch.zipllm(&[]).expect(0);
    let before = tree(&batch.path("store"));
    let all_stored = |report: &Value| {
        let models = report["models"].as_array().unwrap();
        models
            .iter()
            .all(|model| model["status"] == "already_stored" && model["stored_bytes"] == 0)
    };
    assert!(all_stored(&batch.report("estimate", &[])));
    // The same without the note of what the files looked like: every tensor is compared.
    fs::remove_dir_all(batch.path("store/index/scans")).unwrap();
    assert!(all_stored(&batch.report("estimate", &[])));
    fs::create_dir(batch.path("store/index/scans")).unwrap();
    // Without sketches tensors are read whole, and still known.
    let log = batch.path("store/sketches/sketches.log");
    let sketches = fs::read(&log).unwrap();
    for damaged in [Vec::new(), noise(3, 5000), sketches[..700].to_vec()] {
        fs::write(&log, &damaged).unwrap();
        let run = batch.verb("estimate", &["--json"]).expect(0);
        assert!(run.stderr.contains("without a sketch"), "{}", run.stderr);
        assert!(all_stored(&run.json()));
        assert_eq!(fs::read(&log).unwrap(), damaged);
    }
    fs::write(&log, &sketches).unwrap();
    // Whose files are gone is stored, too.
    let list = fs::read_to_string(batch.path("list.txt")).unwrap();
    let gone = ids(&list)[1].replace('/', "_");
    fs::remove_dir_all(batch.path("models").join(gone)).unwrap();
    let run = batch.verb("estimate", &[]).expect(0);
    assert_eq!(
        run.stdout.matches("already stored").count(),
        ids(&list).len()
    );
    let after = tree(&batch.path("store"));
    let scans = |path: &&std::path::PathBuf| !path.starts_with("index/scans");
    assert!(before.keys().filter(scans).eq(after.keys().filter(scans)));
    for (path, entry) in after {
        assert_eq!(before[&path], entry, "{}", path.display());
    }
}

#[test]
fn copies_casts_and_additions_are_seen() {
    let batch = Batch::new(&["a/base", "b/tuned"]);
    batch.bases(&json!({}));
    let base: Vec<_> = (0..3).map(|seed| weights(seed, COUNT)).collect();
    let names = ["h.0", "h.1", "h.2"];
    let of = |data: &[Vec<u8>]| -> Vec<(String, Vec<u8>)> {
        names
            .iter()
            .map(ToString::to_string)
            .zip(data.iter().cloned())
            .collect()
    };
    let put = |model: &str, dtype: &str, tensors: &[(String, Vec<u8>)]| {
        let tensors: Vec<_> = tensors
            .iter()
            .map(|(name, data)| (name.as_str(), dtype, data.as_slice()))
            .collect();
        write(&batch, model, &tensors);
    };
    put("a/base", "BF16", &of(&base));
    let fine: Vec<_> = base.iter().map(|data| tuned(data, 5)).collect();
    put("b/tuned", "BF16", &of(&fine));
    batch.zipllm(&[]).expect(0);

    copy_tree(&batch.path("models/b/tuned"), &batch.path("models/c/copy"));
    // One tensor of three is new, in the middle of equal ones; and the same once more in the same file.
    let partly = [
        ("x".to_owned(), base[0].clone()),
        ("y".to_owned(), tuned(&fine[1], 8)),
        ("z".to_owned(), tuned(&fine[1], 8)),
    ];
    put("d/partly", "BF16", &partly);
    let wide = |data: &Vec<u8>| {
        let mut out = vec![0; 2 * data.len()];
        convert(DType::Bf16, data, DType::F32, &mut out);
        out
    };
    put(
        "e/wide",
        "F32",
        &of(&base.iter().map(wide).collect::<Vec<_>>()),
    );
    let shifted = |at: usize| [noise(at as u64, 128), base[at].clone()].concat();
    put(
        "f/shifted",
        "BF16",
        &of(&(0..3).map(shifted).collect::<Vec<_>>()),
    );
    let strange: Vec<_> = (0..3).map(|seed| weights(90 + seed, COUNT)).collect();
    put("g/stranger", "BF16", &of(&strange));
    let models = ["c/copy", "d/partly", "e/wide", "f/shifted", "g/stranger"];
    batch.list(&models);
    let estimate = batch.report("estimate", &[]);
    let stored = batch.zipllm(&["--json"]).expect(0).json();
    for model in models {
        let (guess, real) = (about(&estimate, model), about(&stored, model));
        println!(
            "{model}: {} {}",
            guess["stored_bytes"], real["stored_bytes"]
        );
        assert_eq!(
            guess["savings"]["file_dedup_bytes"], real["savings"]["file_dedup_bytes"],
            "{model}"
        );
        assert_eq!(
            guess["savings"]["tensor_dedup_bytes"], real["savings"]["tensor_dedup_bytes"],
            "{model}"
        );
        let model_of = |report: &Value| report["bases"][0]["model"].clone();
        assert_eq!(model_of(guess), model_of(real), "{model}");
        // 3 kB for what a cast or a shift by a row costs, which no sketch shows.
        let (guess, real) = (number(guess, "stored_bytes"), number(real, "stored_bytes"));
        let off = guess.abs_diff(real);
        assert!(off * 100 <= real * 15 + 300_000, "{model}: {guess} {real}");
    }
}

#[test]
fn what_cannot_be_estimated_is_told() {
    let batch = Batch::new(&["a/base", "b/tuned", "c/absent"]);
    let base = weights(1, COUNT);
    write(&batch, "a/base", &[("w", "BF16", &base)]);
    write(&batch, "b/tuned", &[("w", "BF16", &tuned(&base, 2))]);
    let run = batch.verb("estimate", &["--json"]).expect(1);
    assert!(run.stderr.contains("c/absent"), "{}", run.stderr);
    let report = run.json();
    assert_eq!(about(&report, "c/absent")["status"], "failed");
    assert_eq!(about(&report, "b/tuned")["bases"][0]["model"], "a/base");
    assert!(!batch.path("store").exists());
    let table = batch.verb("estimate", &[]).expect(1).stdout;
    assert!(
        table.contains("FAILED") && table.contains("a/base ("),
        "{table}"
    );

    // What is there and no store is not taken for an empty one.
    fs::create_dir(batch.path("store")).unwrap();
    batch.list(&["a/base", "b/tuned"]);
    batch.verb("estimate", &[]).expect(0);
    fs::write(batch.path("store/other"), "x").unwrap();
    batch.verb("estimate", &[]).expect(1);
    assert_eq!(batch::names(&batch.path("store")), ["other"]);
    fs::remove_file(batch.path("store/other")).unwrap();

    // A damaged manifest is damage.
    batch.zipllm(&[]).expect(0);
    let manifest = batch.path("store/models/b--tuned/000001.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replacen("b/tuned", "b/tuner", 1)).unwrap();
    let run = batch.verb("estimate", &["--json"]).expect(3);
    assert_eq!(about(&run.json(), "b/tuned")["damage"], true);
}

#[test]
fn wrong_arguments_are_usage() {
    let batch = Batch::new(&["a/base"]);
    let config = batch.path("config.json");
    let config = config.to_str().unwrap();
    let absent = batch.path("absent.json");
    for args in [
        &[][..],
        &[config, "more"],
        &[config, "--threads", "0"],
        &[config, "--store", "x"],
        &[absent.to_str().unwrap()],
    ] {
        Run::of(Command::new(ZIPLLM).arg("estimate").args(args)).expect(2);
    }
    fs::remove_dir(batch.path("models")).unwrap();
    batch.verb("estimate", &[]).expect(2);
    fs::create_dir(batch.path("models")).unwrap();
    batch.list(&["no id at all"]);
    batch.verb("estimate", &[]).expect(2);
}
