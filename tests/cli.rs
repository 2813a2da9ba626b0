//! What wrong arguments, settings, lists, bases and model directories get: a clear word, the right exit code, and
//! nothing lost.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking"
)]

#[path = "common/batch.rs"]
mod batch;
#[path = "common/lab.rs"]
mod lab;
#[path = "common/tensors.rs"]
mod tensors;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use batch::{Batch, RESTORE, Run, ZIPLLM, about, assert_same, names, tree};
use lab::{family, model};
use serde_json::json;
use tensors::{safetensors, tuned, weights};

#[test]
fn help_and_version_are_no_errors() {
    for program in [ZIPLLM, RESTORE] {
        for flag in ["--help", "-h", "--version"] {
            let run = Run::of(Command::new(program).arg(flag)).expect(0).silent();
            assert!(!run.stdout.is_empty(), "{program} {flag}");
        }
    }
    Run::of(Command::new(ZIPLLM).args(["check", "--help"])).expect(0);
}

#[test]
fn wrong_arguments_exit_with_2() {
    let batch = family();
    let config = batch.path("config.json");
    let config = config.to_str().unwrap();
    for (program, args) in [
        (ZIPLLM, &[][..]),
        (ZIPLLM, &[config, "extra"]),
        (ZIPLLM, &[config, "--no-such-flag"]),
        (ZIPLLM, &[config, "--threads", "0"]),
        (ZIPLLM, &[config, "--threads", "x"]),
        (ZIPLLM, &[config, "--threads", "99999999999999999999"]),
        (ZIPLLM, &["check"]),
        (RESTORE, &[]),
        (RESTORE, &[config]),
        (RESTORE, &[config, "lab/base"]),
        (RESTORE, &[config, "../etc", "out"]),
        (RESTORE, &[config, "lab/base@0", "out"]),
        (RESTORE, &[config, "lab/base@x", "out"]),
        (RESTORE, &[config, "lab/base", "out", "more"]),
    ] {
        let run = Run::of(Command::new(program).args(args).current_dir(batch.path(""))).expect(2);
        assert!(!run.stderr.is_empty(), "{args:?}");
        assert_eq!(run.stdout, "", "{args:?}");
    }
    assert_eq!(
        names(&batch.path("")),
        ["config.json", "list.txt", "models"]
    );
}

#[test]
fn faults_of_the_settings_exit_with_2_and_create_nothing() {
    for (settings, said) in [
        (
            json!({"thread": 1}),
            "\"thread\": there is no such setting; did you mean \"threads\"?",
        ),
        (json!({"threads": "2"}), "\"threads\""),
        (json!({"threads": -1}), "\"threads\""),
        (json!({"zstd_level": 0}), "\"zstd_level\""),
        (json!({"zstd_level": 23}), "\"zstd_level\""),
        (json!({"model_dir": 3}), "\"model_dir\""),
        (json!({"model_dir": "nowhere"}), "nowhere: cannot open it"),
        (json!({"model_dir": "list.txt"}), "is not a directory"),
        (
            json!({"models_to_process": "no.txt"}),
            "config.json: \"models_to_process\": ",
        ),
        (
            json!({"base_ft_path": "no.json"}),
            "no.json: it is not there; without this setting the first model of the list is the base",
        ),
        (
            json!({"base_ft_path": "list.txt"}),
            "list.txt: expected value at line 1",
        ),
        (
            json!({"storage_dir": "models/lab/base/store"}),
            "\"storage_dir\"",
        ),
        (json!({"storage_dir": "."}), "\"storage_dir\""),
    ] {
        let batch = family();
        batch.configure(&settings);
        let before = tree(&batch.path(""));
        batch.zipllm(&[]).expect(2).says(&[said]);
        assert_same(&before, &tree(&batch.path("")), &settings.to_string());
    }
    let batch = family();
    fs::write(batch.path("config.json"), "{").unwrap();
    for run in [
        batch.zipllm(&[]),
        batch.check(),
        batch.restore("lab/base", "out", &[]),
    ] {
        run.expect(2).says(&["config.json: not a JSON object"]);
    }
    fs::remove_file(batch.path("config.json")).unwrap();
    batch.zipllm(&[]).expect(2).says(&["config.json"]);
    assert_eq!(names(&batch.path("")), ["list.txt", "models"]);
}

#[test]
fn faults_of_the_list_exit_with_2_and_name_the_line() {
    let long = "x".repeat(97);
    for bad in [
        "../up",
        "/etc",
        "a/../b",
        "..",
        ".",
        "a//b",
        "a/b/c",
        "a--b",
        "-a/b",
        "a/b-",
        "a b/c",
        "a\\b",
        "é/a",
        "a:b",
        "a*",
        "a\u{1b}[2J",
        "'a/b'",
        "a/.b",
        "C:/a",
        &long,
    ] {
        let batch = family();
        batch.list(&["lab/base", "# fine", "", bad]);
        let run = batch
            .zipllm(&[])
            .expect(2)
            .says(&["list.txt: line 4", "not a model id"]);
        assert!(!run.stderr.contains('\u{1b}'), "{bad:?}");
        assert!(!batch.path("store").exists(), "{bad:?}");
    }
    let batch = family();
    batch.list(&["", "# nothing"]);
    batch.zipllm(&[]).expect(2).says(&["it names no model"]);
}

#[test]
fn threads_absent_or_0_are_the_machines() {
    for settings in [json!({"threads": 0}), json!({"threads": 1024})] {
        let batch = family();
        batch.configure(&settings);
        batch.zipllm(&[]).expect(0).silent();
        batch
            .restore("lab/tune", "out", &["--threads", "1"])
            .expect(0)
            .silent();
        assert_same(
            &model(&batch, "lab/tune"),
            &tree(&batch.path("out")),
            "tune",
        );
    }
    let batch = family();
    let absent =
        json!({"model_dir": "models", "storage_dir": "store", "models_to_process": "list.txt"});
    fs::write(batch.path("config.json"), absent.to_string()).unwrap();
    let report = batch.zipllm(&["--json"]).expect(0).json();
    let machine = std::thread::available_parallelism().unwrap().get();
    assert_eq!(report["threads"], machine);
    let report = batch.zipllm(&["--json", "--threads", "3"]).expect(0).json();
    assert_eq!(report["threads"], 3);
}

#[test]
fn a_missing_model_fails_and_the_others_are_done() {
    let batch = family();
    batch.list(&["lab/base", "lab/absent", "lab/tune"]);
    let run = batch
        .zipllm(&["--json"])
        .expect(1)
        .says(&["error: lab/absent: found neither in", "nor in the store"]);
    let report = run.json();
    assert_eq!(about(&report, "lab/absent")["status"], "failed");
    batch.assert_clean();
    for name in ["lab/base", "lab/tune"] {
        assert_eq!(about(&report, name)["status"], "stored");
        batch.assert_restores(name, &model(&batch, name));
    }
    batch.restore("lab/absent", "out", &[]).expect(1);
}

#[test]
fn the_models_of_the_list_are_found_in_every_layout() {
    let ids = ["a/one", "b/two", "c_d/e_f", "g/h", "single"];
    let batch = Batch::new(&ids);
    let places = [
        "a/one",
        "b--two",
        "c_d_e_f",
        "models--g--h/snapshots/abc",
        "single",
    ];
    for place in places {
        batch.file(&format!("{place}/f.txt"), place);
    }
    batch.file("models--g--h/refs/main", "abc");
    batch.zipllm(&[]).expect(0).silent();
    for (id, place) in ids.iter().zip(places) {
        batch.assert_restores(id, &model(&batch, place));
    }
    let stored = names(&batch.path("store/models"));
    assert_eq!(stored, ["a--one", "b--two", "c_d--e_f", "g--h", "single"]);
}

#[test]
fn bases_are_found_whatever_the_order() {
    struct Case {
        list: &'static [&'static str],
        bases: serde_json::Value,
        said: &'static [&'static str],
        base: Option<&'static str>,
    }
    let map = json!({"lab/base": ["lab/tune"]});
    for case in [
        Case {
            list: &["lab/tune", "lab/base"],
            bases: map.clone(),
            said: &[],
            base: Some("lab/base"),
        },
        Case {
            list: &["lab/tune"],
            bases: map.clone(),
            said: &["lab/base is not listed, and stored too"],
            base: Some("lab/base"),
        },
        Case {
            list: &["lab/tune", "lab/base"],
            bases: json!({"lab/base": ["lab/tune"], "lab/tune": ["lab/base"]}),
            said: &["warning: ", "bases.json"],
            base: None,
        },
        Case {
            list: &["lab/tune", "lab/base"],
            bases: json!({"lab/tune": ["lab/tune"]}),
            said: &["warning: ", "bases.json"],
            base: None,
        },
        Case {
            list: &["lab/tune", "lab/base"],
            bases: json!({}),
            said: &[],
            base: None,
        },
    ] {
        let batch = family();
        batch.list(case.list);
        batch.bases(&case.bases);
        let run = batch.zipllm(&["--json"]).expect(0).says(case.said);
        let report = run.json();
        let found = about(&report, "lab/tune")
            .get("base")
            .and_then(|id| id.as_str());
        assert_eq!(found, case.base, "{}", case.bases);
        assert_eq!(about(&report, "lab/base")["status"], "stored");
        if case.said.is_empty() {
            run.silent();
        }
        batch.assert_restores("lab/tune", &model(&batch, "lab/tune"));
    }
}

#[test]
fn a_first_word_that_is_no_command_is_said_to_be_none() {
    let batch = family();
    fs::create_dir(batch.path("store")).unwrap();
    for (args, said) in [
        (
            &["lst"][..],
            "there is no command \"lst\", and no such file; did you mean list?",
        ),
        (&["store", "config.json"], "`zipllm CONFIG` stores models"),
        (
            &["restore", "config.json", "a/b", "out"],
            "restore CONFIG MODEL OUT",
        ),
        (&["chek", "config.json"], "did you mean check?"),
        (
            &["list", "config.json", "--store", "store"],
            "config.json: a config file or --store, not both",
        ),
        (&["none.json"], "none.json: cannot open it"),
        (&["a/b"], "a/b: cannot open it"),
    ] {
        let mut command = Command::new(ZIPLLM);
        let run = Run::of(command.args(args).current_dir(batch.path(""))).expect(2);
        assert_eq!(run.says(&[said]).stdout, "", "{args:?}");
    }
    // A config file may be called anything.
    fs::rename(batch.path("config.json"), batch.path("settings")).unwrap();
    let mut command = Command::new(ZIPLLM);
    Run::of(command.arg("settings").current_dir(batch.path(""))).expect(0);
}

#[test]
fn of_two_directories_of_a_model_the_one_passed_over_is_named() {
    let batch = family();
    batch.file("lab_base/other.txt", "other");
    batch.file("lab_tune/other.txt", "another model");
    batch.list(&["lab/base", "lab/tune", "lab_tune"]);
    let run = batch
        .zipllm(&[])
        .expect(0)
        .says(&["warning: lab/base: ", "lab_base is passed over"]);
    assert!(!run.stderr.contains("lab_tune"), "{}", run.stderr);
    batch.assert_restores("lab/base", &model(&batch, "lab/base"));
}

/// An edited model that is stored again is a difference to its own last version, and that is said.
#[test]
fn a_new_version_has_its_bases_in_its_own() {
    let batch = family();
    batch.list(&["lab/base"]);
    batch.zipllm(&[]).expect(0);
    let file = safetensors(&[("w", "BF16", &[50, 100], &tuned(&weights(1, 5000), 9))]);
    batch.file("lab/base/model.safetensors", file);
    let run = batch.zipllm(&[]).expect(0).silent();
    let said = "lab/base@2 has its bases in versions of its own for 10.0 kB\n";
    assert!(run.stdout.contains(said), "{}", run.stdout);
    assert_eq!(batch.report("list", &["lab/base"]).get("base"), None);
}

/// Objects that somebody deleted are stored anew, and not in silence.
#[test]
fn a_run_that_heals_says_so() {
    let batch = family();
    batch.list(&["lab/base"]);
    batch.zipllm(&[]).expect(0).silent();
    let detail = batch.report("list", &["lab/base"]);
    let card = &detail["files"][1];
    assert_eq!(card["path"], "sub/card.md");
    let name = card["segments"][0]["object"].as_str().unwrap();
    fs::remove_file(batch.path("store/objects").join(&name[..2]).join(name)).unwrap();
    let run = batch.zipllm(&[]).expect(0);
    let run = run.says(&["objects of version 1 were missing or damaged, and are stored anew"]);
    assert!(
        run.stdout.contains("no new version was stored; "),
        "{}",
        run.stdout
    );
    batch.assert_clean();
    let run = batch.zipllm(&[]).expect(0).silent();
    assert!(
        run.stdout.contains("nothing new was stored"),
        "{}",
        run.stdout
    );
}

/// Neither on disk nor in the store: a warning, and the fine-tune is stored without it.
#[test]
fn a_base_that_is_nowhere_is_a_warning() {
    let batch = family();
    fs::remove_dir_all(batch.path("models/lab/base")).unwrap();
    batch.list(&["lab/tune"]);
    batch.bases(&json!({"lab/base": ["lab/tune"]}));
    let run = batch
        .zipllm(&["--json"])
        .expect(0)
        .says(&["warning: ", "its base lab/base is not in the store"]);
    let tune = run.json();
    let tune = about(&tune, "lab/tune");
    assert_eq!(
        (&tune["status"], tune.get("base")),
        (&json!("stored"), None)
    );
    batch.assert_restores("lab/tune", &model(&batch, "lab/tune"));
}

#[test]
fn a_base_that_is_only_in_the_store_serves() {
    let batch = family();
    batch.list(&["lab/base"]);
    batch.zipllm(&[]).expect(0);
    fs::remove_dir_all(batch.path("models/lab/base")).unwrap();
    batch.list(&["lab/tune"]);
    batch.bases(&json!({"lab/base": ["lab/tune"]}));
    let report = batch.zipllm(&["--json"]).expect(0).json();
    assert_eq!(about(&report, "lab/tune")["base"], "lab/base");
    batch.assert_restores("lab/tune", &model(&batch, "lab/tune"));
}

#[test]
fn fine_tunes_of_fine_tunes_come_back() {
    let ids = ["t/0", "t/1", "t/2", "t/3", "t/4"];
    let batch = Batch::new(&ids);
    let mut values = weights(1, 5000);
    let mut map = serde_json::Map::new();
    for (number, id) in ids.iter().enumerate() {
        batch.file(
            &format!("{id}/model.safetensors"),
            safetensors(&[("w", "BF16", &[5000], &values)]),
        );
        values = tuned(&values, 10 + number as u64);
        if let Some(next) = ids.get(number + 1) {
            map.insert((*id).to_owned(), json!([next]));
        }
    }
    batch.list(&["t/4", "t/2", "t/3", "t/1", "t/0"]);
    batch.bases(&map.into());
    batch.zipllm(&[]).expect(0).silent();
    batch.assert_clean();
    for id in ids {
        batch.assert_restores(id, &model(&batch, id));
    }
}

#[test]
fn a_directory_that_is_no_store_is_not_written_to() {
    let batch = family();
    fs::create_dir_all(batch.path("store/holiday")).unwrap();
    fs::write(batch.path("store/thesis.txt"), "precious").unwrap();
    let before = tree(&batch.path("store"));
    batch
        .zipllm(&[])
        .expect(1)
        .says(&["store: no store, and not empty", "holiday"]);
    for run in [batch.check(), batch.restore("lab/base", "out", &[])] {
        run.expect(1).says(&["there is no store here"]);
    }
    assert_same(
        &before,
        &tree(&batch.path("store")),
        "the foreign directory",
    );

    fs::remove_dir_all(batch.path("store")).unwrap();
    fs::write(batch.path("store"), "a file").unwrap();
    batch
        .zipllm(&[])
        .expect(2)
        .says(&["\"storage_dir\"", "is not a directory"]);
    assert_eq!(fs::read(batch.path("store")).unwrap(), b"a file");
}

#[test]
fn an_unknown_model_gets_the_nearest_names() {
    let batch = family();
    batch.zipllm(&[]).expect(0);
    for (wanted, said) in [
        ("lab/bese", "did you mean lab/base"),
        ("lab/tune@2", "there is no version 2; there is 1"),
        ("something/else", "not in the store, which has 2 models"),
    ] {
        batch.restore(wanted, "out", &[]).expect(1).says(&[said]);
        assert!(!batch.path("out").exists());
    }
    let run = Run::of(
        Command::new(RESTORE)
            .arg(batch.path("config.json"))
            .args(["lab/base", ""]),
    );
    run.expect(2).says(&["OUT is empty"]);
}

#[test]
fn files_in_the_way_of_a_restore_are_kept_or_refused() {
    let batch = family();
    batch.zipllm(&[]).expect(0);
    let original = model(&batch, "lab/tune");
    batch.restore("lab/tune", "out", &[]).expect(0);

    // The right content is kept, and only what is missing is written; a stranger stays.
    fs::remove_file(batch.path("out/sub/card.md")).unwrap();
    fs::write(batch.path("out/own.txt"), "mine").unwrap();
    let report = batch
        .restore("lab/tune", "out", &["--json"])
        .expect(0)
        .json();
    assert_eq!(
        (&report["files_kept"], &report["bytes_written"]),
        (&json!(1), &json!(4))
    );
    assert_eq!(fs::read(batch.path("out/own.txt")).unwrap(), b"mine");
    fs::remove_file(batch.path("out/own.txt")).unwrap();
    assert_same(&original, &tree(&batch.path("out")), "restored again");

    // Other content is refused before anything is written, and replaced with --force.
    fs::write(batch.path("out/sub/card.md"), "edited by hand").unwrap();
    fs::remove_file(batch.path("out/model.safetensors")).unwrap();
    let before = tree(&batch.path("out"));
    batch
        .restore("lab/tune", "out", &[])
        .expect(1)
        .says(&["out/sub/card.md", "--force"]);
    assert_same(&before, &tree(&batch.path("out")), "refused");
    batch.restore("lab/tune", "out", &["--force"]).expect(0);
    assert_same(&original, &tree(&batch.path("out")), "forced");

    // A directory in the way is refused in any case.
    fs::remove_file(batch.path("out/sub/card.md")).unwrap();
    fs::create_dir(batch.path("out/sub/card.md")).unwrap();
    for flags in [&[][..], &["--force"]] {
        batch
            .restore("lab/tune", "out", flags)
            .expect(1)
            .says(&["out/sub/card.md: a directory is in the way"]);
    }
    fs::write(batch.path("file"), "x").unwrap();
    batch
        .restore("lab/tune", "file", &[])
        .expect(1)
        .says(&["file"]);
}

#[test]
fn restore_writes_through_no_link() {
    let batch = family();
    batch.zipllm(&[]).expect(0);
    let original = model(&batch, "lab/tune");
    for (link, flags, code) in [
        ("sub", &[][..], 1),
        ("sub", &["--force"], 1),
        ("sub/card.md", &[], 1),
        ("sub/card.md", &["--force"], 0),
        ("model.safetensors", &["--force"], 0),
    ] {
        for target in ["victim", "victim/file", "victim/new"] {
            fs::create_dir_all(batch.path("victim")).unwrap();
            fs::write(batch.path("victim/file"), "precious").unwrap();
            let before = tree(&batch.path("victim"));
            let place = batch.path("out").join(link);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            symlink(batch.path(target), &place).unwrap();
            batch
                .restore("lab/tune", "out", flags)
                .expect(code)
                .says(if code == 0 { &[] } else { &["out/sub"] });
            assert_same(&before, &tree(&batch.path("victim")), link);
            if code == 0 {
                assert!(!place.is_symlink());
                assert_same(&original, &tree(&batch.path("out")), link);
            }
            fs::remove_dir_all(batch.path("out")).unwrap();
        }
    }
}

#[test]
fn the_programs_work_from_any_directory() {
    let batch = family();
    let elsewhere = tempfile::tempdir().unwrap();
    let run = |program: &str, args: &[&str], config: &Path| {
        Run::of(
            Command::new(program)
                .current_dir(elsewhere.path())
                .arg(config)
                .args(args),
        )
        .expect(0)
    };
    run(ZIPLLM, &[], &batch.path("config.json"));
    run(
        RESTORE,
        &["lab/tune", "a/b/out"],
        &batch.path("config.json"),
    );
    assert_same(
        &model(&batch, "lab/tune"),
        &tree(&elsewhere.path().join("a/b/out")),
        "restored to a relative path",
    );
    assert!(batch.path("store/zipllm.json").exists());
}

#[test]
fn a_summary_is_printed_and_control_characters_are_not() {
    let batch = Batch::new(&["lab/a"]);
    batch.file("lab/a/red\u{1b}[31m.safetensors", "not one");
    let run = batch.zipllm(&[]).expect(0).says(&["red"]);
    assert!(!run.stderr.contains('\u{1b}'));
    for text in [
        "stored, version 1",
        "saved by file dedup",
        "the store holds 1 model, ",
    ] {
        assert!(run.stdout.contains(text), "{}", run.stdout);
    }
    let run = batch.zipllm(&[]).expect(0);
    assert!(run.stdout.contains("already stored"), "{}", run.stdout);
    batch.assert_restores("lab/a", &model(&batch, "lab/a"));
}

/// `cargo test` builds the examples beside the programs; `cargo test --test cli` alone does not.
#[test]
fn the_example_of_the_library_restores_a_model() {
    let batch = family();
    batch.zipllm(&[]).expect(0);
    let example = Path::new(RESTORE)
        .with_file_name("examples")
        .join("restore_example");
    let run = |model: &str, out: &str| {
        Run::of(
            Command::new(&example)
                .arg(batch.path("store"))
                .arg(model)
                .arg(batch.path(out)),
        )
    };
    let restored = run("lab/tune", "out").expect(0).silent();
    assert_eq!(restored.stdout, "restored 2 files of lab/tune version 1\n");
    assert_same(
        &model(&batch, "lab/tune"),
        &tree(&batch.path("out")),
        "restored",
    );
    run("lab/tume", "none")
        .expect(1)
        .says(&["did you mean lab/tune"]);
}

/// More objects than open files, more files than open files, and nobody who reads the output.
#[test]
fn few_descriptors_and_a_closed_pipe_change_no_verdict() {
    let batch = Batch::new(&["many/files"]);
    for number in 0..600 {
        batch.file(
            &format!("many/files/{number}.txt"),
            format!("file {number}"),
        );
    }
    let shell = |command: &str| {
        let line = format!("ulimit -n 400; {command}; echo \"code ${{PIPESTATUS[0]}}\" >&2");
        let mut bash = Command::new("bash");
        bash.current_dir(batch.path(".")).args(["-c", &line]);
        Run::of(&mut bash)
    };
    let config = "config.json";
    shell(&format!("{ZIPLLM} {config} > out.txt")).says(&["code 0"]);
    shell(&format!("{ZIPLLM} check --read-data {config} > out.txt")).says(&["code 0"]);
    shell(&format!("{RESTORE} {config} many/files out > out.txt")).says(&["code 0"]);
    let object = batch::names(&batch.path("store/objects")).pop().unwrap();
    let shard = batch.path("store/objects").join(object);
    fs::remove_dir_all(shard).unwrap();
    shell(&format!("{ZIPLLM} check {config} | true")).says(&["code 3"]);
}
