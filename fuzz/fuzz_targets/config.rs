//! Any bytes as `config.json`, as a list of models and as a map of bases: refused by name, or values that keep to their limits.
#![no_main]

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

use zipllm::config::{BaseMap, Config};
use zipllm::name::ModelId;

/// A directory of this process, in memory where there is one.
fn directory() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let parent = if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    };
    let path = parent.join(format!("zipllm-fuzz-{}", std::process::id()));
    fs::create_dir_all(&path).unwrap();
    path
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((&mode, rest)) = input.split_first() else {
        return;
    };
    let place = directory();
    let (config, list) = (place.join("config.json"), place.join("list.txt"));
    let honest = r#"{"model_dir": "m", "storage_dir": "s", "models_to_process": "list.txt", "base_ft_path": "bases.json"}"#;
    match mode & 3 {
        0 => {
            fs::write(&config, rest).unwrap();
            if let Ok(found) = Config::load(&config) {
                assert!((1..=1024).contains(&found.threads));
                assert!((1..=22).contains(&found.zstd_level));
                assert!(found.model_dir.is_absolute() && found.storage_dir.is_absolute());
            }
        }
        1 => {
            fs::write(&config, honest).unwrap();
            fs::write(&list, rest).unwrap();
            if let Ok(list) = Config::load(&config).unwrap().model_list() {
                let different: HashSet<_> = list.models.iter().collect();
                assert!(!list.models.is_empty() && different.len() == list.models.len());
            }
        }
        _ => bases(&String::from_utf8_lossy(rest)),
    }
});

/// Every model comes once in the order of a map, its base before it.
fn bases(text: &str) {
    let models: Vec<ModelId> = ["a/b", "c", "d/e", "f", "g"]
        .map(|id| id.parse().unwrap())
        .into();
    let Ok(map) = BaseMap::parse(text, "bases.json".as_ref()) else {
        return;
    };
    let order = map.order(&models);
    let different: HashSet<_> = order.iter().map(|planned| &planned.id).collect();
    assert_eq!(different.len(), order.len());
    assert_eq!(
        order.iter().filter(|planned| !planned.unlisted).count(),
        models.len()
    );
    for (at, planned) in order.iter().enumerate() {
        let base = planned.base.as_ref();
        let place = base.map(|base| order.iter().position(|other| other.id == *base));
        assert!(
            place.is_none_or(|place| place.is_some_and(|place| place < at)),
            "{order:?}"
        );
    }
}
