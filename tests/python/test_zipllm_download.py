"""`zipllm download` and `zipllm --download` (the hf-hub crate) against the local hub."""

from __future__ import annotations

import contextlib
import fcntl
import filecmp
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_server import Fault, HubServer
from tiny_family import BASE, LARGE, TUNES

Zipllm = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config.json whose models are not there yet."""
    settings = {
        "model_dir": "models",
        "storage_dir": "store",
        "models_to_process": "list.txt",
        "base_ft_path": "b.json",
    }
    (tmp_path / "config.json").write_text(json.dumps(settings | {"threads": 2}))
    (tmp_path / "b.json").write_text(json.dumps({BASE: list(TUNES)}))
    list_models(tmp_path, BASE)
    return tmp_path / "config.json"


def list_models(folder: Path, *models: str) -> None:
    """Writes the list of models."""
    (folder / "list.txt").write_text("\n".join(models) + "\n")


def environment(tmp_path: Path, **changes: str) -> dict[str, str]:
    """The environment without the hub's variables, but for those given."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    return kept | {"HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "127.0.0.1,localhost"} | changes


@pytest.fixture
def zipllm(bin_dir: Path, tmp_path: Path, hub: HubServer) -> Zipllm:
    """Runs zipllm from another directory; keyword arguments are environment variables."""

    def call(*arguments: object, **changes: str) -> subprocess.CompletedProcess[str]:
        variables = environment(tmp_path, **({"HF_ENDPOINT": hub.url} | changes))
        command = [str(bin_dir / "zipllm"), *map(str, arguments)]
        return subprocess.run(command, cwd="/", env=variables, capture_output=True, text=True, timeout=120, check=False)

    return call


def same_tree(original: Path, copy: Path) -> bool:
    """Both directories hold the same files with the same bytes."""
    names = sorted(path.relative_to(original).as_posix() for path in original.rglob("*") if path.is_file())
    copied = sorted(path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file())
    return names == copied and filecmp.cmpfiles(original, copy, names, shallow=False)[0] == names


def ranges(hub: HubServer) -> list[str | None]:
    """The `Range` headers of the requests for large files' bytes."""
    return [entry["range"] for entry in hub.log if entry["path"].startswith("/cdn/")]


def test_fetches_what_is_not_there(config: Path, family: Path, hub: HubServer, zipllm: Zipllm) -> None:
    list_models(config.parent, BASE, *TUNES)
    result = zipllm("download", config, "--json", HF_TOKEN="hf_any")  # the CDN refuses requests with a token
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert [row["status"] for row in report["models"]] == ["fetched"] * 3
    assert report["bytes_received"] == sum(row["bytes"] for row in report["models"])
    models = config.parent / "models"
    for model in (BASE, *TUNES):
        assert same_tree(family / model, models / model.replace("/", "--"))
    assert sorted(path.name for path in models.iterdir()) == sorted(m.replace("/", "--") for m in (BASE, *TUNES))
    hub.log.clear()
    again = zipllm("download", config)
    assert again.returncode == 0 and again.stdout.count("already there") == 3 and hub.log == []


@pytest.mark.parametrize(
    ("fault", "requests"),
    [
        (Fault("GET /cdn/", cut_after=5 << 20), [None, f"bytes={5 << 20}-"]),
        (Fault("GET /cdn/", status=429, headers={"Retry-After": "1"}), [None, None]),
        (Fault("GET /cdn/", status=503), [None, None]),
        (Fault("GET .*/resolve/", status=500, times=2), [None]),
        (Fault("GET /api/models/", status=502), [None]),
        (Fault("GET /cdn/", flip_byte=70_000), [None, None]),
    ],
    ids=["cut", "too-many-requests", "cdn-fault", "resolve-fault", "list-fault", "damaged"],
)
def test_faults_that_pass_are_survived(
    fault: Fault, requests: list[str | None], config: Path, family: Path, hub: HubServer, zipllm: Zipllm
) -> None:
    list_models(config.parent, LARGE)
    hub.faults = [fault]
    start = time.monotonic()
    result = zipllm("download", config, "--include", "*.safetensors", "--json")
    assert result.returncode == 0, result.stderr
    copy = config.parent / "models" / "acme--large" / "model.safetensors"
    assert filecmp.cmp(family / LARGE / "model.safetensors", copy, shallow=False)
    assert ranges(hub) == requests
    if fault.status == 429:
        assert time.monotonic() - start >= 1, "Retry-After is honoured"
    if fault.cut_after:
        assert json.loads(result.stdout)["bytes_received"] == copy.stat().st_size, "no byte came twice"


def test_a_server_without_ranges_starts_anew(config: Path, family: Path, hub: HubServer, zipllm: Zipllm) -> None:
    list_models(config.parent, LARGE)
    hub.faults = [Fault("GET /cdn/", cut_after=5 << 20), Fault("GET /cdn/", ignore_range=True)]
    result = zipllm("download", config, "--include", "*.safetensors")
    assert result.returncode == 0, result.stderr
    copy = config.parent / "models" / "acme--large" / "model.safetensors"
    assert filecmp.cmp(family / LARGE / "model.safetensors", copy, shallow=False)


@pytest.mark.parametrize(
    ("cuts", "ignore_range", "attempts"),
    [
        # Each second attempt gets farther than the one before it, but none goes on where one ended.
        ([5 << 20, 3 << 20, 6 << 20, 3 << 20, 7 << 20, 3 << 20, 8 << 20, 3 << 20] * 9, True, 6),
        ([1000] * 90, False, 5),
    ],
    ids=["restarts", "trickle"],
)
def test_broken_connections_do_not_go_on_for_ever(
    cuts: list[int], ignore_range: bool, attempts: int, config: Path, hub: HubServer, zipllm: Zipllm
) -> None:
    list_models(config.parent, LARGE)
    hub.faults = [Fault("GET /cdn/", cut_after=cut, ignore_range=ignore_range) for cut in cuts]
    result = zipllm("download", config, "--include", "*.safetensors")
    assert result.returncode == 1
    assert f"error: {LARGE}: model.safetensors: the connection broke" in result.stderr
    assert len(ranges(hub)) == attempts
    hub.faults = []
    assert zipllm("download", config).returncode == 0, "what came is kept"


def test_goes_on_after_it_was_killed(
    config: Path, family: Path, hub: HubServer, bin_dir: Path, zipllm: Zipllm, tmp_path: Path
) -> None:
    list_models(config.parent, LARGE)
    hub.bytes_per_second = 6 << 20
    command = [bin_dir / "zipllm", "download", config]
    process = subprocess.Popen(command, env=environment(tmp_path, HF_ENDPOINT=hub.url), stderr=subprocess.DEVNULL)
    parts = config.parent / "models" / ".downloads"
    deadline = time.monotonic() + 30
    while not any(part.is_file() and part.stat().st_size > 2 << 20 for part in parts.rglob("*-*")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    second = zipllm("download", config)
    assert second.returncode == 1 and f"error: {LARGE}: another process is fetching it" in second.stderr
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (config.parent / "models" / "acme--large").exists(), "a model is there whole or not at all"
    (parts / f"acme--large@{'0' * 40}").mkdir()  # of a commit that is not the newest any more
    hub.bytes_per_second = 0
    hub.log.clear()
    result = zipllm("download", config, "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["bytes_received"] < report["models"][0]["bytes"] - (1 << 20)
    assert any(asked and asked != "bytes=0-" for asked in ranges(hub))
    assert same_tree(family / LARGE, config.parent / "models" / "acme--large")
    assert not parts.exists()


@pytest.mark.parametrize(
    ("model", "variables", "message"),
    [
        ("locked/gate", {}, "access to it is restricted"),
        ("locked/gate", {"HF_TOKEN": "hf_other"}, "access to it is restricted"),
        (BASE, {"HF_TOKEN": "wrong"}, "the hub refuses the token"),
        ("acme/none", {}, "no such model"),
        ("acme/none", {"HF_TOKEN": "hf_good"}, "no such model"),
        (BASE, {"HF_ENDPOINT": "http://127.0.0.1:9"}, "cannot be reached"),
        (BASE, {"HF_ENDPOINT": "nonsense"}, "is no address of a hub"),
        (BASE, {"HF_ENDPOINT": "http://a host"}, "is no address of a hub"),
    ],
)
def test_each_failure_has_its_message(
    model: str, variables: dict[str, str], message: str, config: Path, zipllm: Zipllm
) -> None:
    list_models(config.parent, model)
    result = zipllm("download", config, **variables)
    assert result.returncode == 1
    assert any(line.startswith(f"error: {model}: ") and message in line for line in result.stderr.splitlines())
    assert not (config.parent / "models" / model.replace("/", "--")).exists()
    parts = [path for path in (config.parent / "models").rglob("*") if ".parts" in str(path)]
    assert parts == [], "no part without a byte is left behind"


@pytest.mark.parametrize(
    ("status", "message"), [(429, "too many requests: try again later"), (503, "a fault of its own (HTTP 503)")]
)
def test_faults_that_stay_have_their_message(
    status: int, message: str, config: Path, hub: HubServer, zipllm: Zipllm
) -> None:
    list_models(config.parent, BASE, LARGE)
    hub.faults = [Fault(f"GET /api/models/{BASE}", status=status, headers={"Retry-After": "0"}, times=100)]
    result = zipllm("download", config, "--json")
    assert result.returncode == 1 and f"error: {BASE}: " in result.stderr and message in result.stderr
    assert [row["status"] for row in json.loads(result.stdout)["models"]] == ["failed", "fetched"]


def test_one_failure_does_not_stop_the_others(config: Path, zipllm: Zipllm, tmp_path: Path) -> None:
    list_models(config.parent, "acme/none", "locked/gate", BASE)
    result = zipllm("download", config, "--json")
    assert result.returncode == 1
    assert [row["status"] for row in json.loads(result.stdout)["models"]] == ["failed", "failed", "fetched"]
    token = tmp_path / "hf" / "token"  # where the hub's own tools keep it
    token.parent.mkdir(exist_ok=True)
    token.write_text("hf_good\n")
    list_models(config.parent, "locked/gate", BASE)
    granted = zipllm("download", config)
    assert granted.returncode == 0, granted.stderr


def test_bytes_that_stay_wrong_are_refused(config: Path, hub: HubServer, zipllm: Zipllm) -> None:
    hub.faults = [Fault("GET /cdn/.*", flip_byte=5000, times=100)]
    result = zipllm("download", config, "--include", "*.safetensors")
    assert result.returncode == 1 and "do not have the sha256" in result.stderr
    assert not (config.parent / "models" / "acme--tiny").exists()


def test_revision_and_patterns(config: Path, family: Path, zipllm: Zipllm) -> None:
    other = family / f"{BASE}@v1.0"
    other.mkdir(exist_ok=True)
    (other / "config.json").write_text('{"v": 1}')
    (other / "a name with #, % and ü.txt").write_text("x")
    assert zipllm("download", config, "--revision", "v1.0").returncode == 0
    copy = config.parent / "models" / "acme--tiny"
    assert same_tree(other, copy)
    unknown = zipllm("download", config, "--revision", "v9")
    assert unknown.returncode == 0, "what is there is not asked for"
    list_models(config.parent, TUNES[0])
    unknown = zipllm("download", config, "--revision", "v9")
    assert unknown.returncode == 1 and 'no revision "v9"' in unknown.stderr
    nothing = zipllm("download", config, "--include", "*.gguf")
    assert nothing.returncode == 1 and "no file that the patterns let through" in nothing.stderr
    some = zipllm("download", config, "--include", "extra/", "--include", "*.json", "--exclude", "tokenizer*")
    assert some.returncode == 0
    copy = config.parent / "models" / "pyland--tiny-python"
    names = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    assert names == {"config.json", "extra/merges.txt", "extra/empty.txt"}


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/outside.txt", "a/../../outside.txt", "", "a//b"])
def test_names_that_leave_the_directory_are_refused(name: str, config: Path, hub: HubServer, zipllm: Zipllm) -> None:
    listing = {"sha": "0" * 40, "siblings": [{"rfilename": name, "size": 1, "blobId": "0" * 40}]}
    hub.canned = {f"/api/models/{BASE}/revision/main": listing}
    result = zipllm("download", config)
    assert result.returncode == 1 and "is refused" in result.stderr
    assert sorted(path.name for path in (config.parent / "models").iterdir()) == []


def test_what_no_request_can_be_made_of_is_told_at_once(config: Path, hub: HubServer, zipllm: Zipllm) -> None:
    for token in ("hf_good\nhf_other", "hf_göod"):
        result = zipllm("download", config, HF_TOKEN=token)
        assert result.returncode == 1 and "check HF_TOKEN" in result.stderr
    for revision in ("", "v1\n"):
        result = zipllm("download", config, "--revision", revision)
        assert result.returncode == 2 and "has to be the name of a branch" in result.stderr
    assert hub.log == []


def test_listings_that_make_no_sense_are_refused_at_once(config: Path, hub: HubServer, zipllm: Zipllm) -> None:
    file = {"rfilename": "a.txt", "size": 1, "blobId": "0" * 40}
    address = f"/api/models/{BASE}/revision/main"
    for listing, message in (
        ({"sha": "0" * 40, "siblings": [file, file]}, "the hub lists a.txt twice"),
        ([1, 2], "the hub's answer is not understood"),
    ):
        hub.canned, hub.log = {address: listing}, []
        result = zipllm("download", config)
        assert result.returncode == 1 and message in result.stderr
        assert len(hub.log) == 1, "asking again would not help"


def test_download_and_store_in_one_run(
    config: Path, family: Path, hub: HubServer, zipllm: Zipllm, bin_dir: Path
) -> None:
    list_models(config.parent, BASE, TUNES[0], TUNES[1])
    hub.faults = [Fault(f"GET /api/models/{TUNES[1]}", status=404, times=9)]
    result = zipllm(config, "--download", "--json")
    report = json.loads(result.stdout)
    assert result.returncode == 1 and f"{TUNES[1]}: the hub" in result.stderr, result.stderr
    assert [model["status"] for model in report["models"]] == ["stored", "stored", "failed"]
    assert report["models"][1]["base"] == BASE and report["store"]["models"] == 2
    for directory in (config.parent / "models").iterdir():
        subprocess.run(["rm", "-r", str(directory)], check=True)
    hub.faults = []
    hub.log.clear()
    again = zipllm(config, "--download", "--json")
    assert again.returncode == 0, again.stderr
    assert [model["status"] for model in json.loads(again.stdout)["models"]] == ["already_stored"] * 2 + ["stored"]
    assert not any(TUNES[0] in entry["path"] for entry in hub.log), "what is stored is not fetched again"
    output = config.parent / "out"
    subprocess.run([bin_dir / "restore", config, TUNES[1], output], check=True, capture_output=True)
    assert same_tree(family / TUNES[1], output)


def test_a_fine_tune_waits_for_its_base(config: Path, hub: HubServer, zipllm: Zipllm) -> None:
    list_models(config.parent, BASE, TUNES[0])
    hub.faults = [Fault(f"GET /api/models/{BASE}", status=404, times=9)]
    result = zipllm(config, "--download", "--json")
    assert result.returncode == 1
    assert [model["status"] for model in json.loads(result.stdout)["models"]] == ["failed", "not_tried"]
    assert f"its base {BASE} could not be fetched" in result.stderr


def test_what_patterns_leave_out_is_told_and_fetched_later(
    config: Path, family: Path, hub: HubServer, zipllm: Zipllm, bin_dir: Path
) -> None:
    models = config.parent / "models"
    copy, note = models / "acme--tiny", models / ".downloads" / "acme--tiny.json"
    some = zipllm("download", config, "--exclude", "extra/", "--json")
    row = json.loads(some.stdout)["models"][0]
    left_out = ["extra/empty.txt", "extra/merges.txt"]
    assert row["left_out"] == json.loads(note.read_text()) and row["left_out"]["files"] == left_out
    again = zipllm("download", config, "--exclude", "extra/")
    assert f"{BASE}: already there; without 2 files (extra/empty.txt, extra/merges.txt)" in again.stdout
    stored = zipllm(config)
    assert stored.returncode == 0
    assert f"warning: {BASE}: its download left out 2 files (extra/empty.txt, extra/merges.txt)" in stored.stderr

    hub.log.clear()
    one = zipllm("download", config, "--include", "*/merges.txt", "--json")
    row = json.loads(one.stdout)["models"][0]
    assert (row["status"], row["files"], row["left_out"]["files"]) == ("fetched", 1, ["extra/empty.txt"])
    other = zipllm("download", config, "--revision", "v9")
    assert other.returncode == 1 and 'no revision "v9"' in other.stderr
    rest = zipllm("download", config, "--json")
    assert rest.returncode == 0 and "left_out" not in json.loads(rest.stdout)["models"][0], rest.stderr
    assert same_tree(family / BASE, copy) and not note.parent.exists()
    assert not any("config.json" in entry["path"] for entry in hub.log), "what is there is not fetched again"

    whole = zipllm(config, "--json")
    model = json.loads(whole.stdout)["models"][0]
    assert (model["version"], model.get("warnings")) == (2, None)
    subprocess.run([bin_dir / "restore", config, BASE, config.parent / "out"], check=True, capture_output=True)
    assert same_tree(family / BASE, config.parent / "out")


def test_the_rest_of_a_model_is_of_the_same_commit(
    config: Path, hub: HubServer, zipllm: Zipllm, tmp_path: Path
) -> None:
    changing = tmp_path / "hub" / BASE
    changing.mkdir(parents=True)
    (changing / "config.json").write_text("{}")
    (changing / "README.md").write_text("old")
    server = HubServer(tmp_path / "hub").start()
    assert zipllm("download", config, "--exclude", "*.md", HF_ENDPOINT=server.url).returncode == 0
    (changing / "README.md").write_text("new")
    moved = zipllm("download", config, "--revision", "main", HF_ENDPOINT=server.url)
    assert moved.returncode == 1 and "main is another: ask for --revision" in moved.stderr
    gone = zipllm("download", config, HF_ENDPOINT=server.url)
    assert gone.returncode == 1 and "it has no revision" in gone.stderr, "the server keeps no old commits"
    (changing / "README.md").write_text("old")
    assert zipllm("download", config, HF_ENDPOINT=server.url).returncode == 0
    assert (config.parent / "models" / "acme--tiny" / "README.md").read_text() == "old"
    server.shutdown()
    server.server_close()


def test_a_note_that_is_damaged_is_told(config: Path, zipllm: Zipllm) -> None:
    assert zipllm("download", config, "--exclude", "extra/").returncode == 0
    (config.parent / "models" / ".downloads" / "acme--tiny.json").write_text("{")
    for arguments, code, kind in [(("download", config), 1, "error"), ((config,), 0, "warning")]:
        result = zipllm(*arguments)
        assert result.returncode == code
        assert any(line.startswith(kind) and "not the note of a download" in line for line in result.stderr.split("\n"))


def test_patterns_and_revision_with_download_and_store(
    config: Path, hub: HubServer, zipllm: Zipllm, bin_dir: Path
) -> None:
    alone = zipllm(config, "--exclude", "extra/")
    assert alone.returncode == 2 and "--download" in alone.stderr, "without --download they mean nothing"
    first = zipllm(config, "--download", "--exclude", "extra/", "--revision", "main", "--jobs", "1", "--json")
    model = json.loads(first.stdout)["models"][0]
    assert first.returncode == 0 and model["files"] == 4 and "left out 2 files" in model["warnings"][0]
    subprocess.run(["rm", "-r", config.parent / "models" / "acme--tiny"], check=True)
    hub.log.clear()
    again = zipllm(config, "--download", "--exclude", "extra/")
    assert again.returncode == 0 and hub.log == [], "what is stored is not fetched again"
    whole = zipllm(config, "--download", "--json")
    model = json.loads(whole.stdout)["models"][0]
    assert (model["files"], model["version"], model.get("warnings")) == (6, 2, None), whole.stderr


def test_what_delete_source_removed_is_not_fetched_again(config: Path, hub: HubServer, zipllm: Zipllm) -> None:
    assert zipllm("download", config).returncode == 0
    assert zipllm(config, "--delete-source").returncode == 0
    list_models(config.parent, BASE, TUNES[0])
    hub.log.clear()
    again = json.loads(zipllm("download", config, "--json").stdout)
    assert [(row["status"], row.get("version")) for row in again["models"]] == [
        ("already stored", 1),
        ("fetched", None),
    ]
    assert not any(BASE in entry["path"] for entry in hub.log), "what is stored is not asked for"
    offline = zipllm("download", config, HF_ENDPOINT="http://127.0.0.1:9")
    assert offline.returncode == 0
    assert f"{BASE}: already stored, as version 1; restore gives its files back" in offline.stdout
    named = json.loads(zipllm("download", config, "--revision", "main", "--json").stdout)
    assert named["models"][0]["status"] == "fetched", "nothing says which commit the store has"


def test_a_commit_that_the_store_has_is_not_fetched(config: Path, family: Path, hub: HubServer, zipllm: Zipllm) -> None:
    commit = "a" * 40
    cache = config.parent / "models" / "models--acme--tiny"
    shutil.copytree(family / BASE, cache / "snapshots" / commit)
    (cache / "blobs").mkdir()
    assert zipllm(config).returncode == 0
    shutil.rmtree(cache)
    hub.log.clear()
    has = json.loads(zipllm("download", config, "--revision", commit, "--json").stdout)
    assert (has["models"][0]["status"], hub.log) == ("already stored", [])
    lacks = zipllm("download", config, "--revision", "b" * 40)
    assert lacks.returncode == 1 and "it has no revision" in lacks.stderr


def test_a_base_that_is_not_listed_is_fetched_where_it_is_needed(config: Path, hub: HubServer, zipllm: Zipllm) -> None:
    list_models(config.parent, TUNES[0])
    result = zipllm("download", config, "--json")
    assert [row["model"] for row in json.loads(result.stdout)["models"]] == [BASE, TUNES[0]]
    assert f"{BASE} is not listed, and fetched too" in result.stderr
    subprocess.run(["rm", "-r", config.parent / "models"], check=True)
    result = zipllm(config, "--download", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert [(model["model"], model["status"]) for model in report["models"]] == [
        (BASE, "stored"),
        (TUNES[0], "stored"),
    ]
    assert report["models"][1]["base"] == BASE
    subprocess.run(["rm", "-r", config.parent / "models", config.parent / "store"], check=True)
    hub.faults = [Fault(f"GET /api/models/{BASE}", status=404, times=9)]
    result = zipllm(config, "--download", "--json")
    assert [model["status"] for model in json.loads(result.stdout)["models"]] == ["failed", "not_tried"]


def test_a_base_of_stored_models_is_not_fetched(config: Path, hub: HubServer, zipllm: Zipllm) -> None:
    list_models(config.parent, TUNES[0])
    (config.parent / "b.json").write_text("{}")
    assert zipllm(config, "--download").returncode == 0
    (config.parent / "b.json").write_text(json.dumps({BASE: [TUNES[0]]}))
    hub.log.clear()
    assert zipllm(config, "--download").returncode == 0 and hub.log == []


def test_a_model_is_stored_before_the_next_is_fetched(config: Path, hub: HubServer, zipllm: Zipllm) -> None:
    models = (BASE, TUNES[0], TUNES[1])
    list_models(config.parent, *models)
    stored: dict[str, int] = {}

    def note(path: str) -> None:
        model = path.removeprefix("/api/models/").partition("/revision")[0]
        if model in models:
            stored[model] = len(list((config.parent / "store").glob("models/**/*.json")))

    hub.on_request = note
    assert zipllm(config, "--download").returncode == 0
    assert stored == {BASE: 0, TUNES[0]: 1, TUNES[1]: 2}


def test_ids_that_differ_in_case_are_refused(config: Path, hub: HubServer, zipllm: Zipllm) -> None:
    list_models(config.parent, BASE, BASE.upper())
    result = zipllm(config, "--download", "--json")
    assert [model["status"] for model in json.loads(result.stdout)["models"]] == ["failed"] * 2 and hub.log == []
    assert "differs only in case" in result.stderr


def test_a_link_to_a_snapshot_of_the_cache_is_a_model(
    config: Path, family: Path, zipllm: Zipllm, bin_dir: Path
) -> None:
    cache = config.parent / "hf" / "hub" / "models--acme--tiny"
    snapshot = cache / "snapshots" / ("a" * 40)
    (cache / "blobs").mkdir(parents=True)
    for number, source in enumerate(sorted(path for path in (family / BASE).rglob("*") if path.is_file())):
        blob, link = cache / "blobs" / f"{number:040x}", snapshot / source.relative_to(family / BASE)
        blob.write_bytes(source.read_bytes())
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    (config.parent / "models" / "acme").mkdir(parents=True)
    (config.parent / "models" / BASE).symlink_to(snapshot)
    result = zipllm(config)
    assert result.returncode == 0, result.stderr
    subprocess.run([bin_dir / "restore", config, BASE, config.parent / "out"], check=True, capture_output=True)
    assert same_tree(family / BASE, config.parent / "out")


class Terminal:
    """`zipllm download` on a terminal of 80 columns."""

    def __init__(self, config: Path, bin_dir: Path, variables: dict[str, str]) -> None:
        self.screen, program_side = pty.openpty()
        fcntl.ioctl(program_side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        command = [bin_dir / "zipllm", "download", config]
        streams = {"stdin": program_side, "stdout": program_side, "stderr": program_side}
        # In a session of its own, whose terminal it makes this one: Ctrl-C is for those whose terminal it is.
        own = ["env", "--default-signal=INT", "setsid", "--ctty"]
        self.process = subprocess.Popen([*own, *command], env=variables, **streams)
        os.close(program_side)
        self.shown = b""

    def read(self) -> bool:
        """Adds what is shown next; false at the end."""
        with contextlib.suppress(OSError):  # the end of a terminal
            piece = os.read(self.screen, 4096)
            self.shown += piece
            return bool(piece)
        return False


def test_a_terminal_shows_how_far_it_is(config: Path, hub: HubServer, bin_dir: Path, tmp_path: Path) -> None:
    list_models(config.parent, LARGE)
    hub.bytes_per_second = 8 << 20
    terminal = Terminal(config, bin_dir, environment(tmp_path, HF_ENDPOINT=hub.url, TERM="xterm"))
    while terminal.read():
        pass
    assert terminal.process.wait() == 0
    text = terminal.shown.decode()
    assert f"{LARGE} [" in text and " / 12.70 MB  " in text and " MB/s  " in text, text
    lines = re.split(r"[\r\n]|\x1b\[2K", text)
    assert max(map(len, lines)) <= 80, "a line fits the terminal"


def test_an_interrupt_leaves_no_bar_on_the_terminal(
    config: Path, hub: HubServer, bin_dir: Path, tmp_path: Path
) -> None:
    list_models(config.parent, LARGE)
    hub.bytes_per_second = 2 << 20
    terminal = Terminal(config, bin_dir, environment(tmp_path, HF_ENDPOINT=hub.url, TERM="xterm"))
    while b" MB/s  " not in terminal.shown and terminal.read():
        pass
    os.write(terminal.screen, b"\x03")
    while terminal.read():
        pass
    assert terminal.process.wait() == -signal.SIGINT
    after = terminal.shown.decode().rpartition("^C")[2]
    gone = "\x1b[1A\x1b[2K"  # the line above the key's, which is the bar's
    assert after.partition(gone)[2] == "interrupted; stored models are whole, and a new run goes on from there\r\n", (
        after
    )
