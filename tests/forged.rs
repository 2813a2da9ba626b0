//! Forged stores (T13): manifests and objects with right checksums and hostile content. Nothing is written
//! outside the output directory, nothing panics or goes round in circles, and every refusal has a reason.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of tests may fail the test"
)]

#[path = "common/disk.rs"]
mod disk;
#[path = "common/forge.rs"]
mod forge;
#[path = "common/random.rs"]
mod random;
#[path = "common/small.rs"]
mod small;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use disk::MemDisk;
use forge::{Forged, seal};
use random::Random;
use serde_json::{Value, json};
use small::{Family, Files, Tensor, check, job, safetensors};
use zipllm::hash::Hash;
use zipllm::report::{NoMonitor, Status};
use zipllm::restore::{self, Options};
use zipllm::store::Store;
use zipllm::store::fs::LocalDisk;
use zipllm::{Error, ErrorKind};

/// A family of one model on the local disk: a plain file, one in a directory, and an empty directory.
fn plain() -> Family {
    let mut files = Files::new();
    files.insert("a.bin".into(), (Random::new(1).bytes(64), false));
    files.insert("sub/b.bin".into(), (Random::new(2).bytes(64), false));
    let family = Family::of(
        BTreeMap::from([("org/m".to_owned(), files)]),
        vec![job("org/m", None)],
    );
    fs::create_dir(family.model_dir().join("org/m/void")).unwrap();
    family.ingest(&LocalDisk);
    family
}

/// The model's manifest, parsed, without its checksum.
fn manifest(store: &Store) -> Value {
    let path = store.layout().manifest(&"org/m".parse().unwrap(), 1);
    let mut value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    value.as_object_mut().unwrap().remove("checksum");
    value
}

/// Puts a forged manifest in place, and restores what it says.
fn restore_forged(family: &Family, document: &[u8], out: &Path, force: bool) -> Result<(), Error> {
    let store = family.open(&LocalDisk).unwrap();
    let id = "org/m".parse().unwrap();
    fs::write(store.layout().manifest(&id, 1), document).unwrap();
    let manifest = store.newest(&id)?.unwrap();
    let options = Options { threads: 2, force };
    let (_, mut errors) = restore::run(&store, &manifest, out, options, &NoMonitor)?;
    errors.pop().map_or(Ok(()), Err)
}

fn seal_value(value: &Value) -> Vec<u8> {
    seal(&serde_json::to_vec(value).unwrap())
}

/// Every path below a directory, and the bytes of every file.
fn everything(dir: &Path, into: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let shown = entry.path().to_str().unwrap().to_owned();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            into.insert(shown, Vec::new());
            everything(&entry.path(), into);
        } else if kind.is_file() {
            into.insert(shown, fs::read(entry.path()).unwrap());
        } else {
            into.insert(shown, b"special".to_vec());
        }
    }
}

/// A directory with a victim next to where models are restored to.
struct Scene {
    dir: tempfile::TempDir,
    before: BTreeMap<String, Vec<u8>>,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("outside/sub")).unwrap();
        fs::write(dir.path().join("outside/victim"), "untouched").unwrap();
        let mut before = BTreeMap::new();
        everything(&dir.path().join("outside"), &mut before);
        Self { dir, before }
    }

    fn out(&self) -> std::path::PathBuf {
        self.dir.path().join("a/b/out")
    }

    /// Asserts that nothing outside the output directory changed.
    fn assert_outside_untouched(&self, what: &str) {
        let mut after = BTreeMap::new();
        everything(&self.dir.path().join("outside"), &mut after);
        assert_eq!(self.before, after, "{what}");
        let names = |dir: &str| {
            let entries = fs::read_dir(self.dir.path().join(dir))
                .into_iter()
                .flatten();
            entries
                .map(|entry| entry.unwrap().file_name())
                .collect::<Vec<_>>()
        };
        assert!(
            names("").len() <= 2 && names("a").len() <= 1 && names("a/b").len() <= 1,
            "{what}"
        );
    }
}

#[test]
fn paths_that_leave_are_refused_and_odd_ones_stay_inside() {
    let family = plain();
    let good = manifest(&family.open(&LocalDisk).unwrap());
    let scene = Scene::new();
    // The ways out that Borg's tests know, absolute paths, and names that no file can have.
    let leaving = [
        "..",
        "../",
        "../..",
        "/..",
        "../x",
        "../../outside/victim",
        "x/..",
        "x/../",
        "x/../y",
        "x/../../outside/victim",
        "./..",
        "./../x",
        "a/./../b",
        "..//x",
        "x//../y",
        "a/b/../../..",
        "/etc/passwd",
        "/tmp/x",
        "//x",
        "/",
        ".",
        "./x",
        "x/.",
        "x/./y",
        "x//y",
        "x/",
        "",
        "a\0b",
        "\0",
        &"x".repeat(256),
        &"x/".repeat(600),
    ];
    for path in leaving {
        for place in ["file", "empty_dir"] {
            let mut forged = good.clone();
            match place {
                "file" => forged["files"][0]["path"] = json!(path),
                _ => forged["empty_dirs"][0] = json!(path),
            }
            let what = format!("{place} {path:?}");
            let error =
                restore_forged(&family, &seal_value(&forged), &scene.out(), true).unwrap_err();
            assert!(error.kind() == ErrorKind::Corrupt, "{what}: {error}");
            assert!(error.to_string().contains("000001.json"), "{what}: {error}");
            scene.assert_outside_untouched(&what);
        }
    }
    // Legal on Unix, odd elsewhere.
    let odd = [
        "C:",
        "C:x",
        "C:\\x",
        "..\\x",
        "\\\\host\\x",
        "con",
        "NUL",
        "aux.txt",
        "a.",
        "a ",
        "...",
        "~",
        "$HOME",
        "-rf",
        "a\nb",
        "\u{202e}x",
        "ü/é",
        ".zipllm-1-0.part",
    ];
    for (number, path) in odd.into_iter().enumerate() {
        let mut forged = good.clone();
        forged["files"][0]["path"] = json!(path);
        let out = scene.out().join(number.to_string());
        restore_forged(&family, &seal_value(&forged), &out, false).unwrap();
        assert_eq!(
            fs::read(out.join(path)).unwrap(),
            family.models["org/m"]["a.bin"].0,
            "{path:?}"
        );
        scene.assert_outside_untouched(path);
    }
    println!(
        "{} ways out refused, {} odd names kept inside",
        2 * leaving.len(),
        odd.len()
    );
}

#[test]
fn manifests_that_contradict_themselves_are_refused() {
    let family = plain();
    let good = manifest(&family.open(&LocalDisk).unwrap());
    let text = serde_json::to_string(&good).unwrap();
    let edit = |pointer: &str, value: Value| {
        let mut forged = good.clone();
        *forged.pointer_mut(pointer).unwrap() = value;
        seal_value(&forged)
    };
    let add = |pointer: &str, key: &str| {
        let mut forged = good.clone();
        forged.pointer_mut(pointer).unwrap()[key] = json!(1);
        seal_value(&forged)
    };
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let twice = json!([good["files"][0], good["files"][0]]);
    #[rustfmt::skip]
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("a file's size", edit("/files/0/size", json!(65)), "do not add up to the file"),
        ("the model's size", edit("/bytes", json!(129)), "do not add up to the model"),
        ("a huge size", edit("/bytes", json!(u64::MAX)), "do not add up to the model"),
        ("a huge segment", edit("/files/0/segments/0/length", json!(u64::MAX)), "do not add up to the file"),
        ("an empty segment", edit("/files/0/segments/0/length", json!(0)), "do not add up to the file"),
        ("no segments", edit("/files/0/segments", json!([])), "do not add up to the file"),
        ("a negative size", edit("/bytes", json!(-1)), "damaged manifest"),
        ("a fraction", edit("/bytes", json!(1.5)), "damaged manifest"),
        ("over 64 bits", seal(text.replacen("\"bytes\":128", "\"bytes\":99999999999999999999", 1).as_bytes()), "damaged manifest"),
        ("the same path twice", edit("/files", twice), "listed twice"),
        ("a file inside a file", edit("/files/1/path", json!("a.bin/b")), "lies inside the file"),
        ("a directory inside a file", edit("/empty_dirs/0", json!("a.bin/b")), "lies inside the file"),
        ("a file that is a directory", edit("/empty_dirs/0", json!("a.bin")), "both a file and a directory"),
        ("an unknown member", add("", "extra"), "unknown field"),
        ("an unknown member of a file", add("/files/0", "mode"), "unknown field"),
        ("an unknown member of a segment", add("/files/0/segments/0", "offset"), "unknown field"),
        ("a member twice", seal(text.replacen("\"version\":1", "\"version\":1,\"version\":1", 1).as_bytes()), "duplicate field"),
        ("a hash in capitals", edit("/files/0/segments/0/object", json!("A".repeat(64))), "not a BLAKE3 hash"),
        ("a short hash", edit("/files/0/blake3", json!("ab")), "not a BLAKE3 hash"),
        ("another model", edit("/model", json!("org/n")), "belongs to org/n"),
        ("an id that leaves", edit("/model", json!("../m")), "not a model id"),
        ("another version", edit("/version", json!(2)), "version 2"),
        ("a newer format", edit("/format", json!(2)), "manifest format 2"),
        ("deep arrays", seal(text.replacen("128", &deep, 1).as_bytes()), "damaged manifest"),
        ("a list", seal(b"[1,2,3]"), "damaged manifest"),
        ("nothing", seal(b"{}"), "damaged manifest"),
        ("no UTF-8", seal(&text.replace("a.bin", "a\u{1}bin").into_bytes().iter().map(|b| if *b == 1 { 0xff } else { *b }).collect::<Vec<_>>()), "damaged manifest"),
        ("bytes after the end", [seal(text.as_bytes()), b"\n".to_vec()].concat(), "checksum"),
        ("over 64 MiB", seal(&[b"{\"format\":\"", &vec![b'x'; 64 << 20][..], b"\"}"].concat()), "longer than 64 MiB"),
    ];
    let scene = Scene::new();
    for (what, document, reason) in &cases {
        let error = restore_forged(&family, document, &scene.out(), true).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(reason) && text.contains("000001.json"),
            "{what}: {text}"
        );
        assert!(text.len() < 1000, "{what}: {} bytes of message", text.len());
        assert!(!scene.out().exists(), "{what}");
    }
    println!("{} forged manifests refused", cases.len());
}

#[test]
fn sizes_that_only_the_objects_contradict_leave_nothing() {
    let family = plain();
    let good = manifest(&family.open(&LocalDisk).unwrap());
    for length in [63u64, 65, 1 << 40, u64::MAX - 64] {
        let mut forged = good.clone();
        forged["files"][0]["segments"][0]["length"] = json!(length);
        forged["files"][0]["size"] = json!(length);
        forged["bytes"] = json!(length + 64);
        let scene = Scene::new();
        let error = restore_forged(&family, &seal_value(&forged), &scene.out(), false).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("org/m: a.bin: cannot be restored: object"),
            "{error}"
        );
        let mut left = BTreeMap::new();
        everything(&scene.out(), &mut left);
        let files: Vec<_> = left.keys().filter(|path| path.contains(".bin")).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        // The batch's sums must not overflow either.
        let report = family.try_ingest(Arc::new(LocalDisk), &NoMonitor).unwrap();
        assert_eq!(report.models[0].status, Status::Stored);
        fs::remove_file(family.store().join("models/org--m/000002.json")).unwrap();
    }
}

#[test]
fn links_in_the_output_lead_nowhere() {
    let family = plain();
    let good = seal_value(&manifest(&family.open(&LocalDisk).unwrap()));
    #[rustfmt::skip]
    let cases: [(&str, &str, bool, bool); 9] = [
        // Where, what it leads to, whether it stops a plain restore, and one by force.
        ("sub", "../../../outside/sub", true, true),
        ("sub", "../../../outside/victim", true, true),
        ("sub", "../../../outside/new", true, true),
        ("sub", "/tmp", true, true),
        ("void", "../../../outside/sub", true, true),
        ("a.bin", "../../../outside/victim", true, false),
        ("a.bin", "../../../outside/new", true, false),
        ("a.bin", "../../../outside", true, false),
        ("sub/b.bin", "../../../../outside/victim", true, false),
    ];
    for (place, target, stops, stops_force) in cases {
        for (force, stops) in [(false, stops), (true, stops_force)] {
            let scene = Scene::new();
            let link = scene.out().join(place);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(target, &link).unwrap();
            let what = format!("{place} -> {target}, force {force}");
            let done = restore_forged(&family, &good, &scene.out(), force);
            assert_eq!(done.is_err(), stops, "{what}: {done:?}");
            if let Err(error) = done {
                assert!(
                    error.to_string().contains(&*link.to_string_lossy()),
                    "{what}: {error}"
                );
            } else {
                assert!(link.symlink_metadata().unwrap().is_file(), "{what}");
            }
            scene.assert_outside_untouched(&what);
        }
    }
    println!("{} planted links, 0 bytes outside", 2 * cases.len());
}

/// A store with one model of two opaque objects of equal length, in memory.
fn objects() -> (Family, MemDisk, [Hash; 2], [Vec<u8>; 2]) {
    let raw = [1, 2].map(|seed| Random::new(seed).bytes(64));
    let mut files = Files::new();
    files.insert("a.bin".into(), (raw[0].clone(), false));
    files.insert("b.bin".into(), (raw[1].clone(), false));
    let family = Family::of(
        BTreeMap::from([("m".to_owned(), files)]),
        vec![job("m", None)],
    );
    let disk = MemDisk::new(&family.store());
    family.ingest(&disk);
    (family, disk, raw.each_ref().map(|raw| Hash::of(raw)), raw)
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn forged_objects_are_refused() {
    let (family, disk, [a, b], [raw, other]) = objects();
    let layout = family.open(&disk).unwrap().layout().clone();
    let good = || Forged::new(64, 0, &raw);
    let based = |depth: u8, base: &Hash| good().with_base(depth, base, 64);
    let long = |len: u64| good().set(16, &len.to_le_bytes());
    let with = |change: &dyn Fn(&mut Forged)| {
        let mut forged = good();
        change(&mut forged);
        forged
    };
    #[rustfmt::skip]
    let cases: Vec<(&str, Forged, Option<Forged>, &str)> = vec![
        ("magic", good().set(0, b"ZLOC"), None, "not an object file"),
        ("a newer version", good().set(4, &[2]), None, "object format version 2"),
        ("version 0", good().set(4, &[0]), None, "object format version 0"),
        ("a feature", good().set(10, &[32]), None, "object features 0x0020"),
        ("nothing in common", good().set(10, &[4]), None, "nothing in common"),
        ("predicted parts without factors", good().set(10, &[3]), None, "nothing to predict parts with"),
        ("unknown dtype", good().set(6, &[16]), None, "unknown dtype"),
        ("dtype and element size", good().set(6, &[1]), None, "malformed head"),
        ("an element of 2^255 bytes", good().set(7, &[255]), None, "malformed head"),
        ("reserved bytes", good().set(14, &[1]), None, "malformed head"),
        ("17 bases", good().set(9, &[17]), None, "malformed head"),
        ("255 bases, and no byte of one", good().set(8, &[1, 255]), None, "malformed head"),
        ("16 bases, and few bytes", good().set(8, &[1, 16]), None, "base"),
        ("depth 5", based(5, &b), None, "impossible depth"),
        ("depth 255", based(255, &b), None, "impossible depth"),
        ("depth without a base", good().set(8, &[1]), None, "impossible depth"),
        ("a base without depth", based(0, &b), None, "impossible depth"),
        ("no length", long(0), None, "impossible length"),
        ("2^64 - 1 bytes", long(u64::MAX), None, "cut short"),
        ("2^63 bytes", long(1 << 63), None, "cut short"),
        ("2^40 bytes", long(1 << 40), None, "cut short"),
        ("a chunk more", long((1 << 20) + 1), None, "damaged"),
        ("a byte less", long(63), None, "length"),
        ("a byte more", long(65), None, "length"),
        ("rows longer than the object", good().set(24, &[65]), None, "impossible length"),
        ("rows of 2^64 - 1", good().set(24, &[255; 8]), None, "impossible length"),
        ("a shared section over 64 MiB", good().set(32, &[1, 0, 0, 4]), None, "shared section over 64 MiB"),
        ("a shared section longer than the file", good().set(32, &[0, 0, 0, 4]), None, "damaged"),
        ("a shared section that is not there", with(&|f| { *f = f.clone().with_shared(b"xy"); f.payload.truncate(60) }), None, "cut short"),
        ("an unknown codec", with(&|f| f.codec = 200), None, "codec 200"),
        ("flat tails that are not announced", with(&|f| { f.codec = 5; f.payload[0] = 5 }), None, "flat tails"),
        ("skips that are not announced", with(&|f| { f.codec = 4; f.payload[0] = 17 }), None, "skips"),
        ("an empty payload", with(&|f| { f.encoded_len = 0; f.payload.clear() }), None, "ends too early"),
        ("a payload of no length", with(&|f| f.encoded_len = 0), None, "cut short"),
        ("a payload longer than the file", with(&|f| f.encoded_len = 65), None, "cut short"),
        ("a payload of 16 MiB", with(&|f| f.encoded_len = 0xFF_FFFF), None, "cut short"),
        ("another object's payload", with(&|f| f.payload.clone_from(&other)), None, "wrong bytes"),
        ("a base needed and not there", with(&|f| f.codec = 3), None, "has none"),
        ("itself as its base", based(1, &a), None, "base"),
        ("a missing base", based(1, &Hash::of(b"nobody")), None, "missing from the store"),
        ("bases in a circle", based(1, &b), Some(Forged::new(64, 0, &other).with_base(1, &a, 64)), "base"),
        ("bases in a deep circle", based(4, &b), Some(Forged::new(64, 0, &other).with_base(3, &a, 64)), "base"),
        ("a base of another length", based(1, &b), Some(Forged::new(63, 0, &other[..63])), "base"),
        ("a base that covers a part", good().with_base(1, &b, 63), None, "does not cover"),
        ("a base from element 1", based(1, &b).set(36 + 32, &[1]), None, "does not cover"),
        ("a base for element 1", based(1, &b).set(36 + 48, &[1]), None, "does not cover"),
        ("a base of another dtype", based(1, &b).set(36 + 56, &[8]), None, "does not cover"),
        ("a base of unknown dtype", based(1, &b).set(36 + 56, &[99]), None, "unknown dtype of a base"),
        ("a base with reserved bytes", based(1, &b).set(36 + 57, &[1]), None, "malformed base"),
        ("two bases", based(1, &b).with_base(1, &b, 64), None, "does not cover"),
        ("a part past the end", based(1, &b).set(10, &[1]).set(36 + 48, &[1]), None, "does not fit"),
        ("a part near 2^64", based(1, &b).set(10, &[1]).set(36 + 48, &[255; 8]), None, "does not fit"),
        ("an empty part", good().with_base(1, &b, 0).set(10, &[1]), None, "does not fit"),
        ("parts that overlap", based(1, &b).with_base(1, &b, 64).set(10, &[1]), None, "does not fit"),
        ("parts of two objects", good().with_base(1, &b, 9).with_base(1, &a, 9).set(10, &[1]).set(96 + 48, &[9]), None, "does not fit"),
        ("a part that is not converted", based(1, &b).set(10, &[1]).set(36 + 56, &[3]), None, "does not fit"),
        ("a part past the base's end", based(1, &b).set(10, &[1]).set(36 + 32, &[1]), None, "another length"),
        ("a part at 2^64 of the base", based(1, &b).set(10, &[1]).set(36 + 32, &[255; 8]), None, "another length"),
    ];
    for (what, forged, second, reason) in &cases {
        let disk = disk.fork();
        disk.put(&layout.object(&a), forged.bytes(&a));
        if let Some(second) = second {
            disk.put(&layout.object(&b), second.bytes(&b));
        }
        let store = family.open(&disk).unwrap();
        let report = check(&store);
        let reasons: Vec<_> = report.damage.iter().map(|d| d.reason.as_str()).collect();
        assert!(
            reasons.iter().any(|r| r.contains(reason)),
            "{what}: {reasons:?}"
        );
        let named = |r: &str| r.contains("objects.log") || r.contains("object");
        assert!(reasons.iter().all(|r| named(r)), "{what}: {reasons:?}");
        family.restores(&store, "m").expect_err(what);
        // A run heals it or says why not; what it must not do is hang, panic or make things worse.
        let report = family
            .try_ingest(Arc::new(disk.clone()), &NoMonitor)
            .unwrap();
        let model = &report.models[0];
        assert_eq!(
            model.error.is_some(),
            model.status == Status::Failed,
            "{what}: {model:?}"
        );
    }
    println!("{} forged objects refused", cases.len());

    let harmless = good().set(12, &[1]);
    disk.put(&layout.object(&a), harmless.bytes(&a));
    family.assert_whole(&disk, "an optional feature");
}

#[test]
fn a_circle_of_bases_does_not_hold_up_a_fine_tune() {
    let mut random = Random::new(3);
    let [one, two, three] = [1, 2, 3].map(|_| small::weights(&mut random, 200));
    let model = |w: &[u8]| {
        let file = safetensors(&[Tensor("w", "BF16", w.to_vec())]);
        Files::from([("model.safetensors".to_owned(), (file, false))])
    };
    let models = [("base", &one), ("other", &two), ("tuned", &three)];
    let models = models.map(|(name, w)| (name.to_owned(), model(w)));
    let mut family = Family::of(
        BTreeMap::from(models),
        vec![job("base", None), job("other", None)],
    );
    let disk = MemDisk::new(&family.store());
    family.ingest(&disk);
    let layout = family.open(&disk).unwrap().layout().clone();
    let [a, b] = [&one, &two].map(|raw| Hash::of(raw));
    for (name, raw, base) in [(&a, &one, &b), (&b, &two, &a)] {
        let forged = Forged::new(400, 0, raw).with_base(2, base, 200);
        let forged = forged.set(6, &[1, 1]).set(36 + 56, &[1]);
        disk.put(&layout.object(name), forged.bytes(name));
    }
    family.jobs = vec![job("tuned", Some("base"))];
    let report = family.ingest(&disk);
    assert!(report.models[0].damage, "{report:?}");
    assert!(
        family
            .restores(&family.open(&disk).unwrap(), "tuned")
            .unwrap()
    );
}

#[test]
fn figures_too_great_for_their_sums_are_no_panic() {
    let (family, disk, [a, _], _) = objects();
    let store = family.open(&disk).unwrap();
    let mut record = zipllm::store::index::Record::of(&a, &store.object(&a).unwrap().frame);
    record.stored_len = u64::MAX;
    let log = disk.get(&store.layout().object_log()).unwrap();
    let forged = [&log[..], &record.to_bytes()].concat();
    disk.put(&store.layout().object_log(), forged);
    assert!(check(&store).is_damaged());
    family.ingest(&disk);

    // The last version that there can be leaves none for the next.
    let id = "m".parse().unwrap();
    let last = store.layout().manifest(&id, u32::MAX);
    disk.put(&last, seal(b"{}"));
    let report = family
        .try_ingest(Arc::new(disk.clone()), &NoMonitor)
        .unwrap();
    let error = report.models[0].error.as_ref().unwrap();
    assert!(error.contains("4294967295"), "{error}");
}
