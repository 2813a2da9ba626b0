"""py_lib/download.py with the real `huggingface_hub` against the local hub."""

from __future__ import annotations

import filecmp
from pathlib import Path

import pytest
from conftest import Run
from hub_server import Fault, HubServer
from tiny_family import BASE, LARGE, TUNES

SCRIPT = "py_lib/download.py"


def tree(directory: Path) -> set[str]:
    """All files below a directory, as relative paths."""
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}


def assert_same(original: Path, copy: Path) -> None:
    """Both directories hold the same files with the same bytes."""
    assert tree(original) == tree(copy)
    different = filecmp.cmpfiles(original, copy, sorted(tree(original)), shallow=False)
    assert not different[1] and not different[2]


def weight_ranges(hub: HubServer) -> list[str | None]:
    """The `Range` headers of the requests for large files' bytes."""
    return [entry["range"] for entry in hub.log if entry["method"] == "GET" and entry["path"].startswith("/cdn/")]


def test_downloads_whole_models_from_a_list(family: Path, hub: HubServer, run: Run, tmp_path: Path) -> None:
    listing = tmp_path / "models.txt"
    listing.write_text(f"# a family\n{BASE}\n{TUNES[0]}  # a fine-tune\n\n{TUNES[1]}\n")
    result = run(SCRIPT, "--models_txts", listing, "--output_dir", tmp_path / "out", HF_ENDPOINT=hub.url)
    assert result.returncode == 0, result.stderr
    for model in (BASE, *TUNES):
        assert_same(family / model, tmp_path / "out" / model.replace("/", "--"))
    assert not (tmp_path / "out" / ".downloads").exists()
    assert (tmp_path / "out" / "already_downloads.txt").read_text().split() == [BASE, *TUNES]
    assert any("cursor" not in entry["path"] and "/tree/" in entry["path"] for entry in hub.log)


def test_record_spares_the_hub(hub: HubServer, run: Run, tmp_path: Path) -> None:
    record = tmp_path / "done.txt"
    options = ["--model", BASE, "--output_dir", tmp_path / "out", "--already_downloads_file", record]
    assert run(SCRIPT, *options, HF_ENDPOINT=hub.url).returncode == 0
    hub.log.clear()
    again = run(SCRIPT, *options, "--check_already_downloaded", HF_ENDPOINT=hub.url)
    assert again.returncode == 0 and "already downloaded" in again.stdout
    assert hub.log == [] and record.read_text() == f"{BASE}\n"


def test_an_incomplete_directory_is_completed(family: Path, hub: HubServer, run: Run, tmp_path: Path) -> None:
    options = ["--model", BASE, "--output_dir", tmp_path / "out", "--max_workers", 2]
    target = tmp_path / "out" / BASE
    target.mkdir(parents=True)
    (target / "config.json").write_bytes((family / BASE / "config.json").read_bytes())
    assert run(SCRIPT, *options, HF_ENDPOINT=hub.url).returncode == 0
    assert_same(family / BASE, target)


def test_suffix_selects_files(hub: HubServer, run: Run, tmp_path: Path) -> None:
    options = ["--model", BASE, "--output_dir", tmp_path, "--suffix", ".safetensors", ".md"]
    assert run(SCRIPT, *options, HF_ENDPOINT=hub.url).returncode == 0
    assert tree(tmp_path / "acme--tiny") == {"model.safetensors", "README.md"}
    none = run(SCRIPT, "--model", BASE, "--output_dir", tmp_path, "--suffix", ".gguf", HF_ENDPOINT=hub.url)
    assert none.returncode == 1 and "no file of it ends in any of: .gguf" in none.stderr


@pytest.mark.parametrize(
    "fault",
    [
        Fault("GET /cdn/", status=429, headers={"Retry-After": "1"}),
        Fault("HEAD .*/resolve/.*safetensors", status=503),
    ],
    ids=["too-many-requests", "server-fault"],
)
def test_faults_that_pass_are_survived(fault: Fault, family: Path, hub: HubServer, run: Run, tmp_path: Path) -> None:
    hub.faults = [fault]
    result = run(SCRIPT, "--model", BASE, "--output_dir", tmp_path, HF_ENDPOINT=hub.url, HF_TOKEN="hf_any")
    assert result.returncode == 0, result.stderr
    assert_same(family / BASE, tmp_path / "acme--tiny")


def test_a_cut_connection_is_resumed(family: Path, hub: HubServer, run: Run, tmp_path: Path) -> None:
    hub.faults = [Fault("GET /cdn/", cut_after=11 << 20)]
    options = ["--model", LARGE, "--output_dir", tmp_path, "--suffix", ".safetensors"]
    result = run(SCRIPT, *options, HF_ENDPOINT=hub.url)
    assert result.returncode == 0, result.stderr
    assert weight_ranges(hub) == [None, f"bytes={10 << 20}-"], "the download goes on where it was cut"
    assert filecmp.cmp(
        family / LARGE / "model.safetensors", tmp_path / "acme--large" / "model.safetensors", shallow=False
    )


def test_damaged_bytes_are_found_and_fetched_again(family: Path, hub: HubServer, run: Run, tmp_path: Path) -> None:
    hub.faults = [Fault("GET /cdn/", flip_byte=5000)]
    options = ["--model", BASE, "--output_dir", tmp_path]
    result = run(SCRIPT, *options, HF_ENDPOINT=hub.url)
    assert result.returncode == 1 and "sha256" in result.stderr
    assert not (tmp_path / "acme--tiny").exists(), "no model without right bytes"
    assert run(SCRIPT, *options, HF_ENDPOINT=hub.url).returncode == 0
    assert_same(family / BASE, tmp_path / "acme--tiny")


@pytest.mark.parametrize(
    ("model", "environment", "message"),
    [
        ("locked/gate", {}, "access to it is restricted"),
        ("locked/gate", {"HF_TOKEN": "hf_other"}, "access to it is restricted"),
        (TUNES[0], {"HF_TOKEN": "wrong"}, "refuses the token"),
        ("acme/none", {}, "no such model"),
        ("acme/none", {"HF_TOKEN": "hf_good"}, "no such model"),
        (TUNES[0], {"HF_ENDPOINT": "http://127.0.0.1:9"}, "cannot be reached"),
    ],
)
def test_each_failure_has_its_message(
    model: str, environment: dict[str, str], message: str, hub: HubServer, run: Run, tmp_path: Path
) -> None:
    result = run(SCRIPT, "--model", model, "--output_dir", tmp_path, **({"HF_ENDPOINT": hub.url} | environment))
    assert result.returncode == 1
    assert result.stderr.startswith(f"download: {model}: ") and message in result.stderr
    assert "Traceback" not in result.stderr


def test_one_failure_does_not_stop_the_others(hub: HubServer, run: Run, tmp_path: Path) -> None:
    listing = tmp_path / "models.txt"
    listing.write_text(f"acme/none\nlocked/gate\n{TUNES[1]}\n")
    options = ["--models_txts", listing, "--output_dir", tmp_path / "out"]
    result = run(SCRIPT, *options, HF_ENDPOINT=hub.url)
    assert result.returncode == 1 and "2 of 3 model(s) failed" in result.stderr
    assert (tmp_path / "out" / "rustfolk--tiny_rust-doc").is_dir()
    granted = run(SCRIPT, "--model", "locked/gate", *options[2:], HF_ENDPOINT=hub.url, HF_TOKEN="hf_good")
    assert granted.returncode == 0, granted.stderr


def test_revision(family: Path, hub: HubServer, run: Run, tmp_path: Path) -> None:
    other = family / f"{BASE}@v2"
    other.mkdir()
    (other / "config.json").write_text("{}")
    options = ["--model", BASE, "--output_dir", tmp_path]
    assert run(SCRIPT, *options, "--revision", "v2", HF_ENDPOINT=hub.url).returncode == 0
    assert (tmp_path / "acme--tiny" / "config.json").read_text() == "{}"
    unknown = run(SCRIPT, *options, "--revision", "v3", HF_ENDPOINT=hub.url)
    assert unknown.returncode == 1 and "no revision 'v3'" in unknown.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output_dir", "out"], "one of the arguments --model --models_txts is required"),
        (["--model", "../x", "--output_dir", "out"], "not a model id"),
        (["--model", "a/b", "--output_dir", "out", "--max_workers", "0"], "at least 1"),
        (["--models_txts", "absent.txt", "--output_dir", "out"], "absent.txt"),
    ],
)
def test_wrong_commands_are_refused(arguments: list[str], message: str, run: Run, tmp_path: Path) -> None:
    result = run(SCRIPT, *arguments, cwd=tmp_path)
    assert result.returncode == 2 and message in result.stderr
    assert list(tmp_path.glob("out")) == []
