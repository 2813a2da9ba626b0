//! Tests of `locate`, `scan` and `open` on real directories.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::checkpoint::ReadAt;
use crate::error::{Error, ErrorKind};
use crate::name::RelPath;

fn put(root: &Path, path: &str, content: &[u8]) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// Makes `models/org/name` in a new directory, with a secret beside `models`.
fn model() -> (TempDir, std::path::PathBuf) {
    let temp = TempDir::new().unwrap();
    put(temp.path(), "secret", b"secret");
    let root = temp.path().join("models/org/name");
    fs::create_dir_all(&root).unwrap();
    (temp, root)
}

fn find(models: &Path, id: &str) -> Result<Option<ModelDir>, Error> {
    locate(models, &id.parse().unwrap())
}

fn scan(temp: &TempDir) -> Result<Listing, Error> {
    find(&temp.path().join("models"), "org/name")?
        .unwrap()
        .scan()
}

fn paths(listing: &Listing) -> Vec<&str> {
    listing
        .files
        .iter()
        .map(|file| file.path.as_str())
        .collect()
}

fn content(file: &SourceFile) -> Vec<u8> {
    let open = file.open().unwrap();
    let mut bytes = vec![0; usize::try_from(file.size).unwrap()];
    open.read_exact_at(0, &mut bytes).unwrap();
    open.check_unchanged().unwrap();
    bytes
}

fn assert_fails<T: std::fmt::Debug>(result: Result<T, Error>, parts: &[&str]) {
    let text = result.unwrap_err().to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

/// Permissions do not bind root; a test of them then has nothing to see.
fn permissions_bind(locked: &Path) -> bool {
    let bind = fs::File::open(locked).is_err();
    if !bind {
        println!("SKIP: this user may read everything");
    }
    bind
}

#[test]
fn the_first_directory_that_exists_is_taken() {
    let temp = TempDir::new().unwrap();
    assert_eq!(find(temp.path(), "a/b").unwrap(), None);
    assert_eq!(find(&temp.path().join("nowhere"), "a/b").unwrap(), None);
    for name in ["models--a--b/snapshots/r1", "a_b", "a--b", "a/b"] {
        fs::create_dir_all(temp.path().join(name)).unwrap();
        let found = find(temp.path(), "a/b").unwrap().unwrap();
        assert_eq!(found.root(), temp.path().join(name));
        assert_eq!(
            found.canonical(),
            temp.path().join(name).canonicalize().unwrap()
        );
        assert_eq!(found.commit(), name.strip_prefix("models--a--b/snapshots/"));
    }
    fs::create_dir(temp.path().join("gpt2")).unwrap();
    assert!(find(temp.path(), "gpt2").unwrap().is_some());
}

#[test]
fn a_model_directory_may_be_a_link() {
    let (temp, root) = model();
    put(&root, "a", b"1");
    symlink(&root, temp.path().join("models/org_other")).unwrap();
    let found = find(&temp.path().join("models"), "org/other")
        .unwrap()
        .unwrap();
    assert_eq!(found.canonical(), root.canonicalize().unwrap());
    assert_eq!(paths(&found.scan().unwrap()), ["a"]);
}

#[test]
fn what_is_no_directory_is_refused() {
    let temp = TempDir::new().unwrap();
    put(temp.path(), "a_b", b"");
    assert_fails(find(temp.path(), "a/b"), &["a_b", "not a directory"]);
    symlink("nowhere", temp.path().join("c_d")).unwrap();
    assert_fails(find(temp.path(), "c/d"), &["c_d", "cannot resolve"]);
    put(temp.path(), "models--e--f", b"");
    assert_fails(
        find(temp.path(), "e/f"),
        &["models--e--f", "not a directory"],
    );
}

/// Makes a cache folder with the snapshots `aaa` and `bbb`, each with a link into `blobs/`.
fn cache(temp: &TempDir) -> std::path::PathBuf {
    let cache = temp.path().join("models--org--name");
    put(&cache, "blobs/0a1b", b"weights");
    for revision in ["aaa", "bbb"] {
        put(
            &cache,
            &format!("snapshots/{revision}/config.json"),
            revision.as_bytes(),
        );
        let link = cache.join("snapshots").join(revision).join("m.safetensors");
        symlink("../../blobs/0a1b", link).unwrap();
    }
    cache
}

#[test]
fn refs_main_picks_the_snapshot() {
    let temp = TempDir::new().unwrap();
    let cache = cache(&temp);
    for text in ["bbb", "bbb\n", " bbb\r\n"] {
        put(&cache, "refs/main", text.as_bytes());
        let found = find(temp.path(), "org/name").unwrap().unwrap();
        assert_eq!(found.commit(), Some("bbb"));
        assert_eq!(found.boundary(), cache.canonicalize().unwrap());
        let listing = found.scan().unwrap();
        assert_eq!(paths(&listing), ["config.json", "m.safetensors"]);
        assert_eq!(content(&listing.files[0]), b"bbb");
        assert_eq!(content(&listing.files[1]), b"weights");
    }
}

#[test]
fn refs_main_cannot_be_a_path() {
    let temp = TempDir::new().unwrap();
    let cache = cache(&temp);
    let long = "a".repeat(1 << 20);
    for text in [
        "",
        "..",
        ".",
        "../aaa",
        "aaa/../bbb",
        "/etc",
        "aaa\0",
        "a b",
        "aaa\nbbb",
        "é",
        ".hidden",
        &long,
    ] {
        put(&cache, "refs/main", text.as_bytes());
        assert_fails(
            find(temp.path(), "org/name"),
            &["refs/main", "is not a revision"],
        );
    }
    put(&cache, "refs/main", b"\xff");
    assert_fails(find(temp.path(), "org/name"), &["refs/main", "cannot read"]);
    fs::remove_file(cache.join("refs/main")).unwrap();
    symlink("../snapshots/aaa/config.json", cache.join("refs/main")).unwrap();
    assert_fails(find(temp.path(), "org/name"), &["refs/main", "cannot open"]);
    fs::remove_file(cache.join("refs/main")).unwrap();
    put(&cache, "refs/main", b"ccc");
    assert_fails(
        find(temp.path(), "org/name"),
        &["models--org--name", "ccc", "not there"],
    );
    fs::remove_file(cache.join("refs/main")).unwrap();
    make_fifo(&cache.join("refs/main"));
    assert_fails(
        find(temp.path(), "org/name"),
        &["refs/main", "is not a revision"],
    );
}

#[test]
fn without_refs_main_there_has_to_be_one_snapshot() {
    let temp = TempDir::new().unwrap();
    let cache = cache(&temp);
    assert_fails(
        find(temp.path(), "org/name"),
        &["2 snapshots (aaa, bbb)", "refs/main"],
    );
    fs::remove_dir_all(cache.join("snapshots/aaa")).unwrap();
    put(&cache, "snapshots/.DS_Store", b"");
    assert_eq!(
        find(temp.path(), "org/name").unwrap().unwrap().commit(),
        Some("bbb")
    );
    fs::remove_dir_all(cache.join("snapshots")).unwrap();
    assert_eq!(find(temp.path(), "org/name").unwrap(), None);
    fs::create_dir(cache.join("snapshots")).unwrap();
    assert_eq!(find(temp.path(), "org/name").unwrap(), None);
    for found in [at(&cache).map(drop), every_revision_at(&cache).map(drop)] {
        assert_fails(found, &["models--org--name", "no snapshot"]);
    }
    for i in 10..30 {
        fs::create_dir(cache.join(format!("snapshots/r{i}"))).unwrap();
    }
    assert_fails(
        find(temp.path(), "org/name"),
        &["20 snapshots (r10, r11,", "r17, ...)"],
    );
}

fn commits(found: Vec<ModelDir>) -> Vec<String> {
    let current: Vec<_> = found.iter().map(ModelDir::is_current).collect();
    assert!(
        matches!(current.as_slice(), [older @ .., true] if !older.contains(&true)),
        "{current:?}"
    );
    let commit = |one: ModelDir| one.commit().unwrap_or_default().to_owned();
    found.into_iter().map(commit).collect()
}

/// Snapshots come by age, what `refs/main` names comes last, and those without files are left out.
#[test]
fn every_revision_is_found_the_current_one_last() {
    let temp = TempDir::new().unwrap();
    let cache = cache(&temp);
    let id = "org/name".parse().unwrap();
    let find = || every_revision(temp.path(), &id);
    put(&cache, "snapshots/a0/config.json", b"a0");
    for (name, age) in [("aaa", 3), ("bbb", 2), ("a0", 1)] {
        let time = std::time::SystemTime::now() - std::time::Duration::from_secs(1000 * age);
        let snapshot = fs::File::open(cache.join("snapshots").join(name)).unwrap();
        snapshot.set_modified(time).unwrap();
    }
    assert_eq!(commits(find().unwrap()), ["aaa", "bbb", "a0"]);
    for (main, expected) in [
        ("aaa", ["bbb", "a0", "aaa"]),
        ("bbb", ["aaa", "a0", "bbb"]),
        ("a0", ["aaa", "bbb", "a0"]),
    ] {
        put(&cache, "refs/main", main.as_bytes());
        assert_eq!(commits(find().unwrap()), expected);
        assert_eq!(commits(every_revision_at(&cache).unwrap()), expected);
    }
    fs::create_dir(cache.join("snapshots/empty")).unwrap();
    assert_eq!(commits(find().unwrap()), ["aaa", "bbb", "a0"]);
    put(&cache, "refs/main", b"empty");
    assert_eq!(commits(find().unwrap()), ["aaa", "bbb", "a0", "empty"]);
    put(&cache, "refs/main", b"gone");
    assert_fails(find(), &["refs/main", "gone", "not there"]);
    // What is found before the cache folder is the model.
    symlink(cache.join("snapshots/bbb"), temp.path().join("org_name")).unwrap();
    assert_eq!(commits(find().unwrap()), ["bbb"]);
    let linked = temp.path().join("org_name");
    assert_fails(every_revision_at(&linked), &["org_name", "no folder of"]);
    let nothing = every_revision(temp.path(), &"no/model".parse().unwrap());
    assert_eq!(nothing.unwrap(), []);
}

#[test]
fn cache_links_stay_in_their_cache_folder() {
    let temp = TempDir::new().unwrap();
    let cache = cache(&temp);
    put(&cache, "refs/main", b"aaa");
    put(temp.path(), "models--org--other/blobs/1", b"1");
    let link = cache.join("snapshots/aaa/x");
    symlink("../../../models--org--other/blobs/1", &link).unwrap();
    assert_fails(
        find(temp.path(), "org/name").unwrap().unwrap().scan(),
        &["aaa/x", "models--org--other/blobs/1", "leads out of"],
    );
    fs::remove_file(&link).unwrap();
    symlink("..", &link).unwrap();
    assert_fails(
        find(temp.path(), "org/name").unwrap().unwrap().scan(),
        &["aaa/x/aaa", "leads back to"],
    );
    fs::remove_dir_all(cache.join("snapshots/aaa")).unwrap();
    symlink(temp.path(), cache.join("snapshots/aaa")).unwrap();
    assert_fails(
        find(temp.path(), "org/name"),
        &["snapshots/aaa", "leads out of its cache folder"],
    );
}

#[test]
fn a_link_to_a_snapshot_has_the_links_of_its_cache_folder() {
    let temp = TempDir::new().unwrap();
    let cache = cache(&temp);
    let models = temp.path().join("models");
    fs::create_dir_all(models.join("org")).unwrap();
    for (name, link) in [
        ("org/linked", "org/linked"),
        ("org/dashed", "org--dashed"),
        ("org/line", "org_line"),
    ] {
        symlink(cache.join("snapshots/aaa"), models.join(link)).unwrap();
        let found = find(&models, name).unwrap().unwrap();
        assert_eq!(found.commit(), Some("aaa"));
        assert_eq!(found.boundary(), cache.canonicalize().unwrap());
        let listing = found.scan().unwrap();
        assert_eq!(paths(&listing), ["config.json", "m.safetensors"]);
        assert_eq!(content(&listing.files[1]), b"weights");
    }
    put(temp.path(), "secret", b"secret");
    put(temp.path(), "models--org--other/blobs/1", b"1");
    let link = cache.join("snapshots/aaa/x");
    for target in ["../../../secret", "../../../models--org--other/blobs/1"] {
        symlink(target, &link).unwrap();
        let found = find(&models, "org/linked").unwrap().unwrap();
        assert_fails(found.scan(), &["aaa/x", target, "leads out of"]);
        fs::remove_file(&link).unwrap();
    }
}

#[test]
fn only_a_link_to_a_snapshot_widens_the_boundary() {
    let temp = TempDir::new().unwrap();
    let cache = cache(&temp);
    // A directory, not a link, that lies in a cache folder.
    let found = find(&cache.join("snapshots"), "aaa").unwrap().unwrap();
    assert_fails(found.scan(), &["m.safetensors", "leads out of"]);
    // Links to what only looks like a snapshot.
    for place in [
        "models--org--name/snapshots/aaa/deep",
        "models--org--name/other/aaa",
        "mine/snapshots/aaa",
        "models--org--name/snapshots/.a",
    ] {
        let place = temp.path().join(place);
        put(&place, "a", b"1");
        symlink("../a", place.join("out")).unwrap();
        put(place.parent().unwrap(), "a", b"2");
        let link = temp.path().join("org--linked");
        symlink(&place, &link).unwrap();
        let found = find(temp.path(), "org/linked").unwrap().unwrap();
        assert_eq!(
            (found.boundary(), found.commit()),
            (found.canonical(), None)
        );
        assert_fails(found.scan(), &["out", "leads out of"]);
        fs::remove_file(&link).unwrap();
    }
}

#[test]
fn every_file_is_listed_by_path() {
    let (temp, root) = model();
    let names = [
        "b/c.txt",
        "a",
        "b.txt",
        "b/a/\u{fc} \n",
        ".hidden/x",
        "B",
        "C:\\x",
        "-rf",
    ];
    for name in names {
        put(&root, name, name.as_bytes());
    }
    put(&root, "zero", b"");
    fs::create_dir_all(root.join("e/m/p")).unwrap();
    fs::create_dir(root.join("b/none")).unwrap();
    fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o755)).unwrap();
    let listing = scan(&temp).unwrap();
    let sorted = [
        "-rf",
        ".hidden/x",
        "B",
        "C:\\x",
        "a",
        "b.txt",
        "b/a/\u{fc} \n",
        "b/c.txt",
        "zero",
    ];
    assert_eq!(paths(&listing), sorted);
    let empty: Vec<&str> = listing.empty_dirs.iter().map(RelPath::as_str).collect();
    assert_eq!(empty, ["b/none", "e/m/p"]);
    assert_eq!(listing.warnings, Vec::<String>::new());
    for file in &listing.files {
        assert_eq!(file.executable, file.path.as_str() == "a", "{}", file.path);
        assert_eq!(file.size, file.stamp.size);
        let expected = if file.size == 0 {
            ""
        } else {
            file.path.as_str()
        };
        assert_eq!(content(file), expected.as_bytes());
    }
    assert_eq!(scan(&temp).unwrap(), listing);
}

#[test]
fn a_model_without_files_has_an_empty_listing() {
    let (temp, _) = model();
    assert_eq!(scan(&temp).unwrap(), Listing::default());
}

#[test]
fn links_inside_are_stored_as_what_they_lead_to() {
    let (temp, root) = model();
    put(&root, "d/a", b"1");
    symlink("d/a", root.join("file")).unwrap();
    symlink("d", root.join("dir")).unwrap();
    symlink(root.join("file"), root.join("twice")).unwrap();
    symlink("../../org/name/d/../d/a", root.join("around")).unwrap();
    let listing = scan(&temp).unwrap();
    assert_eq!(paths(&listing), ["around", "d/a", "dir/a", "file", "twice"]);
    let target = root.join("d/a").canonicalize().unwrap();
    assert!(
        listing
            .files
            .iter()
            .all(|file| file.absolute == target && content(file) == b"1")
    );
}

#[test]
fn links_that_lead_elsewhere_fail_the_model() {
    #[rustfmt::skip]
    let cases: [(&str, &str, &[&str]); 10] = [
        ("up", "../../../secret", &["name/up", "../../../secret", "leads out of"]),
        ("absolute", "/etc/passwd", &["name/absolute", "/etc/passwd", "leads out of"]),
        ("device", "/dev/null", &["name/device", "/dev/null", "leads out of"]),
        ("root", "/", &["name/root", "leads out of"]),
        ("parent", "..", &["name/parent", "leads out of"]),
        ("sibling", "../name2", &["name/sibling", "../name2", "leads out of"]),
        ("dangling", "nowhere", &["name/dangling", "nowhere", "not there"]),
        ("dangling-out", "/nowhere/at/all", &["name/dangling-out", "/nowhere/at/all", "not there"]),
        ("itself", "itself", &["name/itself", "circle"]),
        ("here", ".", &["name/here", "leads back to"]),
    ];
    for (name, target, parts) in cases {
        let (temp, root) = model();
        fs::create_dir(temp.path().join("models/org/name2")).unwrap();
        symlink(target, root.join(name)).unwrap();
        assert_fails(scan(&temp), parts);
    }
}

#[test]
fn of_several_faults_the_first_by_name_is_told() {
    let (temp, root) = model();
    for i in (0..50).rev() {
        symlink("nowhere", root.join(format!("link{i:02}"))).unwrap();
    }
    assert_fails(scan(&temp), &["name/link00", "not there"]);
}

#[test]
fn circles_of_directories_are_refused() {
    let (temp, root) = model();
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    symlink("../..", root.join("a/b/up")).unwrap();
    assert_fails(scan(&temp), &["a/b/up", "leads back to"]);
    fs::remove_file(root.join("a/b/up")).unwrap();
    fs::create_dir(root.join("x")).unwrap();
    symlink("../a", root.join("x/to-a")).unwrap();
    symlink("../../x", root.join("a/b/to-x")).unwrap();
    assert_fails(scan(&temp), &["leads back to"]);
}

#[test]
fn links_that_multiply_directories_end_at_a_limit() {
    let (temp, root) = model();
    for level in 0..24 {
        fs::create_dir(root.join(format!("l{level}"))).unwrap();
        for link in ["a", "b"] {
            symlink(
                format!("../l{}", level + 1),
                root.join(format!("l{level}/{link}")),
            )
            .unwrap();
        }
    }
    fs::create_dir(root.join("l24")).unwrap();
    let model = find(&temp.path().join("models"), "org/name")
        .unwrap()
        .unwrap();
    assert_fails(
        model.scan_up_to(1000),
        &["org/name", "more than 1000 entries"],
    );
}

#[test]
fn names_that_cannot_be_kept_are_refused() {
    let (temp, root) = model();
    let bad = root.join("sub").join(OsStr::from_bytes(b"caf\xe9.txt"));
    fs::create_dir(root.join("sub")).unwrap();
    fs::write(&bad, b"").unwrap();
    assert_fails(scan(&temp), &["name/sub", r"caf\xe9.txt", "not UTF-8"]);
    fs::remove_file(&bad).unwrap();
    let part = "d".repeat(200);
    let deep = [part.as_str(); 6].join("/");
    fs::create_dir_all(root.join(&deep)).unwrap();
    assert_fails(scan(&temp), &["ddd", "1024 bytes"]);
}

fn make_fifo(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode};
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

#[test]
fn special_files_are_passed_over_with_a_warning() {
    let (temp, root) = model();
    put(&root, "a", b"1");
    fs::create_dir(root.join("only")).unwrap();
    make_fifo(&root.join("only/fifo"));
    put(&root, "some/a", b"2");
    make_fifo(&root.join("some/z"));
    symlink("only/fifo", root.join("link")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    let listing = scan(&temp).unwrap();
    assert_eq!(paths(&listing), ["a", "some/a"]);
    assert_eq!(listing.empty_dirs, ["only".parse().unwrap()]);
    let expected = [
        "link: a FIFO is not stored",
        "only/fifo: a FIFO is not stored",
        "socket: a socket is not stored",
        "some/z: a FIFO is not stored",
    ];
    assert_eq!(listing.warnings, expected);
}

#[test]
fn what_cannot_be_read_is_named() {
    let (temp, root) = model();
    put(&root, "file", b"1");
    fs::set_permissions(root.join("file"), fs::Permissions::from_mode(0o000)).unwrap();
    let listing = scan(&temp).unwrap();
    if permissions_bind(&root.join("file")) {
        assert_fails(
            listing.files[0].open(),
            &["name/file", "cannot open", "denied"],
        );
        let locked = root.join("locked");
        fs::create_dir(&locked).unwrap();
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
        assert_fails(scan(&temp), &["name/locked", "cannot list", "denied"]);
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o700)).unwrap();
    }
}

#[test]
fn a_file_that_vanishes_is_an_io_error() {
    let (temp, root) = model();
    put(&root, "file", b"1");
    let listing = scan(&temp).unwrap();
    fs::remove_file(root.join("file")).unwrap();
    let error = listing.files[0].open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_fails::<()>(Err(error), &["name/file", "cannot open"]);
}

type Swap = fn(&Path);

/// What may be done to a file after it was found.
fn swaps() -> [(&'static str, Swap); 8] {
    [
        ("written over, its time put back", |path| {
            let before = fs::metadata(path).unwrap().modified().unwrap();
            fs::write(path, b"other").unwrap();
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.set_modified(before).unwrap();
        }),
        ("grown", |path| append(path, b"more")),
        ("shrunk", |path| {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(2).unwrap();
        }),
        ("written over", |path| fs::write(path, b"other").unwrap()),
        ("replaced by its like", |path| {
            let new = path.with_extension("new");
            fs::write(&new, b"first").unwrap();
            fs::rename(new, path).unwrap();
        }),
        ("replaced by a directory", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
        ("replaced by a FIFO", |path| {
            fs::remove_file(path).unwrap();
            make_fifo(path);
        }),
        ("replaced by a link", |path| {
            fs::remove_file(path).unwrap();
            symlink("/etc/passwd", path).unwrap();
        }),
    ]
}

fn append(path: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

/// Lets the clock of the file system tick, so that a later write has a later time.
fn wait_for_tick() {
    std::thread::sleep(std::time::Duration::from_millis(15));
}

#[test]
fn what_changed_since_it_was_found_is_not_opened() {
    for (case, swap) in swaps() {
        let (temp, root) = model();
        put(&root, "file", b"first");
        let listing = scan(&temp).unwrap();
        wait_for_tick();
        swap(&root.join("file"));
        let error = listing.files[0].open().unwrap_err();
        let is_link = case == "replaced by a link";
        assert_eq!(
            matches!(error, Error::Io { .. }),
            is_link,
            "{case}: {error}"
        );
        assert_eq!(
            matches!(error, Error::Changed { .. }),
            !is_link,
            "{case}: {error}"
        );
        assert!(error.to_string().contains("name/file"), "{case}: {error}");
    }
}

#[test]
fn what_changes_while_it_is_open_is_noticed() {
    for (case, swap) in &swaps()[..4] {
        let (temp, root) = model();
        put(&root, "file", b"first");
        let open = scan(&temp).unwrap().files[0].open().unwrap();
        assert_eq!(ReadAt::len(&open), 5);
        open.check_unchanged().unwrap();
        wait_for_tick();
        swap(&root.join("file"));
        assert!(
            matches!(open.check_unchanged(), Err(Error::Changed { .. })),
            "{case}"
        );
    }
}

#[test]
fn a_file_that_shrinks_gives_no_short_read() {
    let (temp, root) = model();
    put(&root, "file", b"first");
    let open = scan(&temp).unwrap().files[0].open().unwrap();
    let mut three = [0; 3];
    open.read_at(2, &mut three).unwrap();
    assert_eq!(&three, b"rst");
    OpenOptions::new()
        .write(true)
        .open(root.join("file"))
        .unwrap()
        .set_len(4)
        .unwrap();
    for (offset, length) in [(2, 3), (4, 1), (1 << 40, 1)] {
        let result = open.read_exact_at(offset, &mut vec![0; length]);
        assert!(
            matches!(result, Err(Error::Changed { .. })),
            "{offset} {length}"
        );
    }
    let past = open.read_exact_at(u64::MAX, &mut [0]);
    assert_fails(past, &["name/file"]);
}

#[test]
fn stamps_keep_their_meaning_as_json() {
    let (temp, root) = model();
    put(&root, "file", b"first");
    put(&root, "other", b"first");
    let listing = scan(&temp).unwrap();
    let [file, other] = listing.files.as_slice() else {
        panic!()
    };
    let text = serde_json::to_string(&file.stamp).unwrap();
    assert_eq!(serde_json::from_str::<Stamp>(&text).unwrap(), file.stamp);
    assert_ne!(file.stamp, other.stamp);
    assert_eq!(*file.open().unwrap().stamp(), file.stamp);
}
