//! Errors (T19): a real situation for each variant; every message names what it is about and why.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail the test"
)]

#[path = "common/disk.rs"]
mod disk;
#[path = "common/random.rs"]
mod random;
#[path = "common/small.rs"]
mod small;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use small::{Family, check};
use zipllm::config::Config;
use zipllm::restore::{self, Options, find_manifest};
use zipllm::source::locate;
use zipllm::store::fs::LocalDisk;
use zipllm::store::{Store, StoreWriter};
use zipllm::{Error, ErrorKind};

/// An error as it came about, the kind it should be of, and what its message has to say.
struct Case {
    error: Error,
    kind: ErrorKind,
    says: Vec<String>,
}

fn case(error: Error, kind: ErrorKind, says: &[&str]) -> Case {
    let says = says.iter().map(|text| (*text).to_owned()).collect();
    Case { error, kind, says }
}

fn restore_into(store: &Store, model: &str, out: &Path) -> Error {
    let manifest = find_manifest(store, &model.parse().unwrap()).unwrap();
    let options = Options {
        threads: 1,
        force: false,
    };
    let done = restore::run(store, &manifest, out, options, &zipllm::report::NoMonitor);
    done.map_or_else(
        |error| error,
        |(_, errors)| errors.into_iter().next().unwrap(),
    )
}

/// Settings and inputs that are not as they should be.
fn input_cases(family: &Family) -> Vec<Case> {
    let root = family.path();
    let config = root.join("config.json");
    fs::write(&config, r#"{"model_dir": 5}"#).unwrap();
    let link = family.model_dir().join("leaves");
    fs::create_dir(&link).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", link.join("file")).unwrap();
    let scan = |model: &str| {
        let id = model.parse().unwrap();
        locate(&family.model_dir(), &id).unwrap().unwrap().scan()
    };
    let files = scan("lone").unwrap().files;
    let open = files[1].open().unwrap();
    fs::write(&files[1].absolute, "shorter").unwrap();
    vec![
        case(
            Config::load(&config).unwrap_err(),
            ErrorKind::Invalid,
            &["config.json", "model_dir"],
        ),
        case(
            scan("leaves").unwrap_err(),
            ErrorKind::Invalid,
            &["leaves/file", "link"],
        ),
        case(
            open.check_unchanged().unwrap_err(),
            ErrorKind::Io,
            &["weights.bin", "changed while it was read"],
        ),
        case(
            "a/../b".parse::<zipllm::name::ModelId>().unwrap_err(),
            ErrorKind::Invalid,
            &["a/../b", "not a model id"],
        ),
        case(
            Store::open(&root.join("models")).err().unwrap(),
            ErrorKind::Invalid,
            &["models", "no store here"],
        ),
    ]
}

/// A store that is asked for what it has not, or is in use.
fn store_cases(family: &Family) -> Vec<Case> {
    let store = family.open(&LocalDisk).unwrap();
    let writer = StoreWriter::open(&family.store()).unwrap();
    let locked = StoreWriter::open(&family.store()).err().unwrap();
    drop(writer);
    let pid = std::process::id().to_string();
    let out = family.path().join("out");
    fs::create_dir_all(&out).unwrap();
    fs::write(out.join("config.json"), "mine").unwrap();
    let file = family.path().join("a_file");
    fs::write(&file, "").unwrap();
    vec![
        case(locked, ErrorKind::Io, &["store", "in use by process", &pid]),
        case(
            find_manifest(&store, &"org/bose".parse().unwrap()).unwrap_err(),
            ErrorKind::Missing,
            &["org/bose", "did you mean org/base"],
        ),
        case(
            find_manifest(&store, &"org/base@7".parse().unwrap()).unwrap_err(),
            ErrorKind::Missing,
            &["org/base", "no version 7"],
        ),
        case(
            restore_into(&store, "org/base", &out),
            ErrorKind::Invalid,
            &["out/config.json", "other content"],
        ),
        case(
            restore_into(&store, "org/base", &file.join("x")),
            ErrorKind::Io,
            &["a_file/x", "cannot create"],
        ),
    ]
}

/// A store that is damaged, or of a newer version.
fn damage_cases(family: &Family) -> Vec<Case> {
    let store = family.open(&LocalDisk).unwrap();
    let layout = store.layout().clone();
    let id = "org/base".parse().unwrap();
    let manifest = store.newest(&id).unwrap().unwrap();
    let segments: Vec<_> = manifest
        .files
        .iter()
        .flat_map(|file| &file.segments)
        .collect();
    let [cut, gone, newer] = [0, 1, 2].map(|at| segments[at].object);
    let path = layout.object(&cut);
    fs::write(&path, &fs::read(&path).unwrap()[..40]).unwrap();
    fs::remove_file(layout.object(&gone)).unwrap();
    let path = layout.object(&newer);
    let mut bytes = fs::read(&path).unwrap();
    bytes[4] = 9;
    fs::write(&path, bytes).unwrap();
    let [cut_name, gone_name, newer_name] = [cut, gone, newer].map(|name| name.to_string());
    let out = family.path().join("damaged");
    let damaged = restore_into(&store, "org/base", &out);
    assert!(check(&store).damage.len() >= 3);
    let path = layout.manifest(&id, 1);
    fs::write(&path, "{}").unwrap();
    vec![
        case(
            store.object(&cut).err().unwrap(),
            ErrorKind::Corrupt,
            &[&cut_name, "damaged"],
        ),
        case(
            store.object(&gone).err().unwrap(),
            ErrorKind::Corrupt,
            &[&gone_name, "missing from the store"],
        ),
        case(
            store.object(&newer).err().unwrap(),
            ErrorKind::Invalid,
            &[&newer_name, "version 9", "a newer zipllm"],
        ),
        case(
            damaged,
            ErrorKind::Corrupt,
            &["org/base: ", "cannot be restored: object"],
        ),
        case(
            store.newest(&id).unwrap_err(),
            ErrorKind::Corrupt,
            &["org--base/000001.json", "damaged manifest", "checksum"],
        ),
    ]
}

/// The variants as `src/error.rs` has them.
fn variants() -> BTreeSet<String> {
    let source = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/error.rs")).unwrap();
    let body = source
        .split("pub enum Error {")
        .nth(1)
        .unwrap()
        .split("\n}\n")
        .next()
        .unwrap();
    let names = body
        .lines()
        .filter_map(|line| line.strip_prefix("    ")?.strip_suffix(" {"));
    names
        .filter(|name| !name.starts_with(' '))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_variant_comes_about_and_says_what_it_is_about() {
    let family = Family::new();
    family.ingest(&LocalDisk);
    let groups = [
        input_cases(&family),
        store_cases(&family),
        damage_cases(&family),
    ];
    let cases: Vec<_> = groups.into_iter().flatten().collect();
    let mut met = BTreeSet::new();
    for Case { error, kind, says } in &cases {
        let text = error.to_string();
        assert_eq!(error.kind(), *kind, "{text}");
        for part in says {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
        assert!(!text.contains('\n'), "{text:?}");
        let debug = format!("{error:?}");
        met.insert(debug.split([' ', '{', '(']).next().unwrap().to_owned());
    }
    assert_eq!(met, variants());
    println!("{} errors of {} variants", cases.len(), met.len());
}
