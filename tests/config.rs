//! The settings files as a user writes them: what is read, and the exact words when something is wrong.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use zipllm::codec::select::{Effort, Family};
use zipllm::config::Config;
use zipllm::name::ModelId;
use zipllm::{Error, ErrorKind};

const GOOD: &str =
    r#"{"model_dir": "./models", "storage_dir": "./store", "models_to_process": "./list.txt"}"#;

/// A directory with the given `config.json`, a list, and an empty `models`.
fn folder(config: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("models")).unwrap();
    fs::write(dir.path().join("list.txt"), "org/base\norg/a_b\n").unwrap();
    let path = dir.path().join("config.json");
    fs::write(&path, config).unwrap();
    (dir, path)
}

/// `GOOD` with one more setting.
fn with(setting: &str) -> String {
    GOOD.replace('}', &format!(", {setting}}}"))
}

fn ids(names: &[&str]) -> Vec<ModelId> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

/// The message without the folder, which differs from run to run.
fn message(error: &Error, folder: &Path) -> String {
    assert!(matches!(error, Error::Config { .. }), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    error
        .to_string()
        .replace(&format!("{}/", folder.display()), "")
}

#[test]
fn paths_are_relative_to_the_file() {
    let (dir, path) = folder(&with(
        r#""base_ft_path": "sub/../ft.json", "zstd_level": 9, "threads": 3, "codec": "bitx", "effort": "max""#,
    ));
    let config = Config::load(&path).unwrap();
    let expected = Config {
        path,
        model_dir: dir.path().join("models"),
        storage_dir: dir.path().join("store"),
        models_to_process: dir.path().join("list.txt"),
        base_ft_path: Some(dir.path().join("sub/../ft.json")),
        threads: 3,
        zstd_level: 9,
        codec: Family::BitX,
        effort: Effort::Max,
    };
    assert_eq!(config, expected);
}

#[test]
fn absolute_paths_and_a_byte_order_mark_are_taken() {
    let (dir, path) = folder(&format!(
        "\u{FEFF}{}",
        GOOD.replace("./models", "/elsewhere")
    ));
    let config = Config::load(&path).unwrap();
    assert_eq!(
        (config.model_dir, config.zstd_level),
        (PathBuf::from("/elsewhere"), 3)
    );
    assert_eq!(config.storage_dir, dir.path().join("store"));
}

#[test]
fn no_threads_means_the_machine() {
    let threads = |config: &str| {
        let (_dir, path) = folder(config);
        Config::load(&path).unwrap().threads
    };
    let machine = std::thread::available_parallelism().unwrap().get();
    for config in [GOOD.to_owned(), with(r#""threads": 0"#)] {
        assert_eq!(threads(&config), machine);
    }
}

#[test]
fn every_wrong_setting_is_named() {
    let threads = "config.json: \"threads\": it has to be a whole number from 0 to 1024, not";
    let level = "config.json: \"zstd_level\": it has to be a whole number from 1 to 22, not";
    let json = "config.json: not a JSON object of settings:";
    let cases = [
        (with(r#""thread": 1"#), "config.json: \"thread\": there is no such setting; did you mean \"threads\"?".to_owned()),
        (
            with(r#""colour": 1"#),
            "config.json: \"colour\": there is no such setting; the settings are model_dir, storage_dir, \
             models_to_process, base_ft_path, threads, zstd_level, codec, effort"
                .to_owned(),
        ),
        (with(r#""model_dir": "x""#), "config.json: \"model_dir\": it is there twice".to_owned()),
        (GOOD.replace("storage_dir", "threads"), format!("{threads} \"./store\"")),
        (r#"{"model_dir": "m", "models_to_process": "l"}"#.to_owned(), "config.json: \"storage_dir\": it is missing".to_owned()),
        (r#"{"storage_dir": "m", "models_to_process": "l"}"#.to_owned(), "config.json: \"model_dir\": it is missing".to_owned()),
        (r#"{"storage_dir": "m", "model_dir": "l"}"#.to_owned(), "config.json: \"models_to_process\": it is missing".to_owned()),
        (GOOD.replace("\"./models\"", "3"), "config.json: \"model_dir\": it has to be a path in quotes, not 3".to_owned()),
        (GOOD.replace("\"./models\"", "null"), "config.json: \"model_dir\": it has to be a path in quotes, not null".to_owned()),
        (GOOD.replace("\"./store\"", "[\"x\"]"), "config.json: \"storage_dir\": it has to be a path in quotes, not a list".to_owned()),
        (GOOD.replace("./models", ""), "config.json: \"model_dir\": it is empty".to_owned()),
        (GOOD.replace("./models", "a\\u0000b"), "config.json: \"model_dir\": it has a NUL".to_owned()),
        (GOOD.replace("./store", "~/x"), "config.json: \"storage_dir\": '~' has no meaning here; write the path in full".to_owned()),
        (
            with(r#""base_ft_path": {}"#),
            "config.json: \"base_ft_path\": it has to be a path in quotes, not an object".to_owned(),
        ),
        (with(r#""threads": -1"#), format!("{threads} -1")),
        (with(r#""threads": 2.0"#), format!("{threads} 2.0")),
        (with(r#""threads": "2""#), format!("{threads} \"2\"")),
        (with(r#""threads": 1025"#), format!("{threads} 1025")),
        (with(r#""threads": 18446744073709551615"#), format!("{threads} 18446744073709551615")),
        (with(&format!(r#""threads": "{}""#, "9".repeat(99))), format!("{threads} a long text")),
        (with(r#""zstd_level": 0"#), format!("{level} 0")),
        (with(r#""zstd_level": 23"#), format!("{level} 23")),
        (with(r#""codec": "zip""#), "config.json: \"codec\": it has to be \"auto\" or \"bitx\", not \"zip\"".to_owned()),
        (with(r#""effort": 3"#), "config.json: \"effort\": it has to be \"fast\" or \"default\" or \"max\", not 3".to_owned()),
        (String::new(), format!("{json} EOF while parsing a value at line 1 column 0")),
        ("[1]".to_owned(), format!("{json} invalid type: sequence, expected an object at line 1 column 0")),
        (format!("{GOOD},"), format!("{json} trailing characters at line 1 column 87")),
        ("[".repeat(100_000), format!("{json} invalid type: sequence, expected an object at line 1 column 0")),
        (with(&format!("\"threads\": {}", "[".repeat(100_000))), format!("{json} recursion limit exceeded at line 1 column 225")),
        (" ".repeat(1 << 20) + "{}", "config.json: it has more than 1048576 bytes".to_owned()),
    ];
    for (text, expected) in cases {
        let (dir, path) = folder(&text);
        let error = Config::load(&path).unwrap_err();
        assert_eq!(
            message(&error, dir.path()),
            expected,
            "{}",
            text.get(..80.min(text.len())).unwrap()
        );
    }
}

#[test]
fn a_missing_or_unreadable_config_is_named() {
    let (dir, path) = folder(GOOD);
    let missing = Config::load(&dir.path().join("none.json")).unwrap_err();
    assert_eq!(
        message(&missing, dir.path()),
        "none.json: cannot open it: No such file or directory (os error 2)"
    );
    let folder = Config::load(&dir.path().join("models")).unwrap_err();
    assert_eq!(
        message(&folder, dir.path()),
        "models: cannot read it: Is a directory (os error 21)"
    );
    fs::write(&path, b"{\"model_dir\":\n \"\xFF\"}").unwrap();
    let encoding = Config::load(&path).unwrap_err();
    assert_eq!(
        message(&encoding, dir.path()),
        "config.json: line 2: it is not UTF-8"
    );
}

#[test]
fn the_list_and_the_base_map_are_read() {
    let (dir, path) = folder(&with(r#""base_ft_path": "ft.json""#));
    let config = Config::load(&path).unwrap();
    let list = config.model_list().unwrap();
    assert_eq!(
        (list.models.clone(), list.warnings),
        (ids(&["org/base", "org/a_b"]), vec![])
    );
    let missing = config.base_map(&list.models).unwrap_err();
    let expected = "config.json: \"base_ft_path\": ft.json: it is not there; without this setting the first model of \
                    the list is the base of the others";
    assert_eq!(message(&missing, dir.path()), expected);
    // Beside the script that writes it, the hint is to run that.
    fs::write(dir.path().join("setup_test_models.sh"), "").unwrap();
    let missing = config.base_map(&list.models).unwrap_err();
    let expected = "config.json: \"base_ft_path\": ft.json: it is not there; run setup_test_models.sh, which fetches \
                    the models and writes it";
    assert_eq!(message(&missing, dir.path()), expected);
    fs::write(dir.path().join("ft.json"), r#"{"org/a_b": ["org/base"]}"#).unwrap();
    let map = config.base_map(&list.models).unwrap();
    assert_eq!(map.base_of(&list.models[0]), Some(&list.models[1]));
    assert_eq!(map.order(&list.models)[0].id, list.models[1]);
}

#[test]
fn without_a_base_map_the_first_model_is_the_base() {
    let (_dir, path) = folder(GOOD);
    let config = Config::load(&path).unwrap();
    let models = config.model_list().unwrap().models;
    let map = config.base_map(&models).unwrap();
    assert_eq!(
        (map.base_of(&models[0]), map.base_of(&models[1])),
        (None, Some(&models[0]))
    );
}

#[test]
fn loading_needs_no_list_and_no_models() {
    let (dir, path) = folder(&with(r#""base_ft_path": "ft.json""#));
    fs::remove_file(dir.path().join("list.txt")).unwrap();
    fs::remove_dir(dir.path().join("models")).unwrap();
    let config = Config::load(&path).unwrap();
    let list = config.model_list().unwrap_err();
    let expected = "config.json: \"models_to_process\": list.txt: cannot open it: No such file or directory (os error 2)";
    assert_eq!(message(&list, dir.path()), expected);
    let inputs = config.check_inputs(&[]).unwrap_err();
    let expected = "config.json: \"model_dir\": models: cannot open it: No such file or directory (os error 2)";
    assert_eq!(message(&inputs, dir.path()), expected);
}

#[test]
fn the_store_and_the_models_keep_apart() {
    let around = Some(
        "config.json: \"storage_dir\": the models lie within it; choose a directory of its own",
    );
    let within = |id: &str| {
        Some(format!(
            "config.json: \"storage_dir\": it lies within the directory of the model {id}"
        ))
    };
    let cases = [
        ("models", "store", None),
        ("models", "models/store", None),
        (".", "store", None),
        ("models", "models2", None),
        ("models", "models", around.map(str::to_owned)),
        ("models", "./models/../models/", around.map(str::to_owned)),
        ("models", "link", around.map(str::to_owned)),
        ("models", ".", around.map(str::to_owned)),
        ("models", "models/gpt2/store", within("gpt2")),
        ("models", "models/org/a_b", within("org/a_b")),
        ("models", "link/org--a_b/x/y", within("org/a_b")),
        ("models", "models/org_a_b", within("org/a_b")),
        ("models", "models/models--org--a_b", within("org/a_b")),
        (
            "models",
            "list.txt",
            Some("config.json: \"storage_dir\": list.txt is not a directory".to_owned()),
        ),
        (
            "models",
            "list.txt/a/b",
            Some("config.json: \"storage_dir\": list.txt is not a directory".to_owned()),
        ),
        (
            "list.txt",
            "store",
            Some("config.json: \"model_dir\": list.txt is not a directory".to_owned()),
        ),
    ];
    for (models, store, expected) in cases {
        let (dir, path) = folder(&GOOD.replace("./models", models).replace("./store", store));
        std::os::unix::fs::symlink("models", dir.path().join("link")).unwrap();
        let result = Config::load(&path)
            .unwrap()
            .check_inputs(&ids(&["gpt2", "org/a_b"]));
        assert_eq!(
            result.err().map(|error| message(&error, dir.path())),
            expected,
            "{models} {store}"
        );
        assert!(!dir.path().join("store").exists(), "something was created");
    }
}
