"""`zipllm download` and `zipllm --download` (the hf-hub crate) against the local hub."""

from __future__ import annotations

import filecmp
import json
import os
import signal
import subprocess
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


def test_goes_on_after_it_was_killed(
    config: Path, family: Path, hub: HubServer, bin_dir: Path, zipllm: Zipllm, tmp_path: Path
) -> None:
    list_models(config.parent, LARGE)
    hub.bytes_per_second = 8 << 20
    command = [bin_dir / "zipllm", "download", config]
    process = subprocess.Popen(command, env=environment(tmp_path, HF_ENDPOINT=hub.url), stderr=subprocess.DEVNULL)
    parts = config.parent / "models" / ".downloads"
    deadline = time.monotonic() + 30
    while not any(part.is_file() and part.stat().st_size > 2 << 20 for part in parts.rglob("*-*")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (config.parent / "models" / "acme--large").exists(), "a model is there whole or not at all"
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
        (BASE, {"HF_ENDPOINT": "nonsense"}, "cannot be reached"),
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


def test_one_failure_does_not_stop_the_others(config: Path, zipllm: Zipllm, tmp_path: Path) -> None:
    list_models(config.parent, "acme/none", "locked/gate", TUNES[1])
    result = zipllm("download", config, "--json")
    assert result.returncode == 1
    assert [row["status"] for row in json.loads(result.stdout)["models"]] == ["failed", "failed", "fetched"]
    token = tmp_path / "hf" / "token"  # where the hub's own tools keep it
    token.parent.mkdir(exist_ok=True)
    token.write_text("hf_good\n")
    list_models(config.parent, "locked/gate", TUNES[1])
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
