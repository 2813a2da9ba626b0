"""py_lib/download.py with the real `huggingface_hub` against the local hub."""

from __future__ import annotations

import filecmp
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY, Run
from hub_server import Fault, HubServer
from tiny_family import BASE, LARGE, TUNES

from progress import Progress

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


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_cut_connection_is_resumed(reset: bool, family: Path, hub: HubServer, run: Run, tmp_path: Path) -> None:
    hub.faults = [Fault("GET /cdn/", cut_after=11 << 20, reset=reset)]
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
        (TUNES[0], {"HF_ENDPOINT": "nonsense"}, "cannot be reached"),
    ],
)
def test_each_failure_has_its_message(
    model: str, environment: dict[str, str], message: str, hub: HubServer, run: Run, tmp_path: Path
) -> None:
    result = run(SCRIPT, "--model", model, "--output_dir", tmp_path, **({"HF_ENDPOINT": hub.url} | environment))
    assert result.returncode == 1
    assert result.stderr.startswith(f"download: {model}: ") and message in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.glob(".downloads")) == [], "nothing without a byte is left behind"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"HF_TOKEN": "hf_\u00e9"}, "it is not ASCII"),
        ({"HF_ENDPOINT": "http://127.0.0.1:99999"}, "HF_ENDPOINT is not an address"),
    ],
)
def test_wrong_variables_are_named(variables: dict[str, str], message: str, run: Run, tmp_path: Path) -> None:
    result = run(SCRIPT, "--model", BASE, "--output_dir", tmp_path / "out", **variables)
    assert result.returncode == 2 and message in result.stderr and "Traceback" not in result.stderr


def test_connections_that_keep_breaking_have_their_message(hub: HubServer, run: Run, tmp_path: Path) -> None:
    hub.faults = [Fault("GET /cdn/", cut_after=1000, times=99)]
    options = ["--model", BASE, "--output_dir", tmp_path, "--suffix", ".safetensors"]
    result = run(SCRIPT, *options, HF_ENDPOINT=hub.url)
    assert result.returncode == 1 and "the connection broke (" in result.stderr
    assert "run it again later; what came is kept" in result.stderr


def listing(*siblings: object, sha: object = "0" * 40) -> dict[str, object]:
    """A model's description with these files."""
    return {"id": BASE, "sha": sha, "siblings": list(siblings)}


def sibling(name: object, size: object = 1) -> dict[str, object]:
    """A small file in a model's description."""
    return {"rfilename": name, "size": size, "blobId": "0" * 40}


UNSAFE_NAMES = [
    "../o.json",
    "/o.json",
    "a/../../o.json",
    "",
    "a//b.json",
    "./o.json",
    "a/.",
    "o" * 256,
    "a/" * 600 + "b",
]


WRONG_ANSWERS = [
    *((listing(sibling(name)), "unsafe name") for name in UNSAFE_NAMES),
    *((listing(sibling("a.json"), sha=sha), "the commit's name is malformed") for sha in ("../../../x", "", None, 7)),
    *((listing(sibling("a.json", size)), "the size of a.json is missing") for size in (None, -1, "9", True)),
    *((listing(one), "answer is not understood") for one in ({"size": 1}, "abc", sibling(7), sibling("\ud800.md"))),
    ([1, 2], "answer is not understood"),
]


def test_answers_that_cannot_be_are_refused(hub: HubServer, run: Run, tmp_path: Path) -> None:
    """A hostile hub neither writes outside the directory nor keeps the other models from coming."""
    wrong = [f"wrong/answer{number}" for number in range(len(WRONG_ANSWERS))]
    for model, (answer, _) in zip(wrong, WRONG_ANSWERS, strict=True):
        hub.canned[f"/api/models/{model}/revision/main"] = answer
    models = tmp_path / "models.txt"
    models.write_text("\n".join([*wrong, TUNES[0]]))
    options = ["--models_txts", models, "--output_dir", tmp_path / "out" / "models", "--suffix", ".md", ""]
    result = run(SCRIPT, *options, HF_ENDPOINT=hub.url)
    *said, last = result.stderr.splitlines()
    assert result.returncode == 1 and last.endswith(f"{len(wrong)} of {len(wrong) + 1} model(s) failed"), result.stderr
    for line, model, (answer, message) in zip(said, wrong, WRONG_ANSWERS, strict=True):
        assert line.startswith(f"download: {model}: ") and message in line, (answer, line)
    assert {path.name for path in tmp_path.iterdir()} - {"hf_home"} == {"models.txt", "out"}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["models"]
    there = {path.name for path in (tmp_path / "out" / "models").iterdir()}
    assert there == {"already_downloads.txt", TUNES[0].replace("/", "--")}


def test_names_of_files_do_not_act_on_the_terminal(hub: HubServer, run: Run, tmp_path: Path) -> None:
    model = "odd/names"
    directory = hub.repository.root / model
    directory.mkdir(parents=True)
    (directory / "a\x1b[31mred.json").write_text("{}")
    hub.faults = [Fault("GET .*red.json", flip_byte=0, times=9)]
    result = run(SCRIPT, "--model", model, "--output_dir", tmp_path, HF_ENDPOINT=hub.url)
    shutil.rmtree(directory.parent)
    assert result.returncode == 1 and r"a\x1b[31mred.json does not have the digest" in result.stderr
    assert "\x1b" not in result.stderr


def test_two_processes_at_one_model_do_not_meet(hub: HubServer, run: Run, family: Path, tmp_path: Path) -> None:
    """The second is told; when it went on, it added to the file of the first, also after that was checked."""
    hub.bytes_per_second = 4 << 20
    options = ["--model", LARGE, "--output_dir", tmp_path / "out", "--suffix", ".safetensors"]
    command = [sys.executable, REPOSITORY / SCRIPT, *options]
    variables = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "127.0.0.1"}
    first = subprocess.Popen(list(map(str, command)), env=variables, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").rglob("*.parts/*")):
        assert time.monotonic() < deadline and first.poll() is None
        time.sleep(0.05)
    second = run(SCRIPT, *options, HF_ENDPOINT=hub.url)
    assert second.returncode == 1 and "another process is fetching it" in second.stderr
    assert first.wait(60) == 0
    copy = tmp_path / "out" / "acme--large" / "model.safetensors"
    assert filecmp.cmp(family / LARGE / "model.safetensors", copy, shallow=False)
    assert not (tmp_path / "out" / ".downloads").exists()


def test_a_record_of_another_kind_is_refused(hub: HubServer, run: Run, tmp_path: Path) -> None:
    """Before anything is fetched."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for record, message in (("binary", "not a record of downloaded models"), (".", "Is a directory")):
        options = ["--model", BASE, "--output_dir", tmp_path / "out", "--already_downloads_file", tmp_path / record]
        result = run(SCRIPT, *options, HF_ENDPOINT=hub.url)
        assert result.returncode == 2 and message in result.stderr and "Traceback" not in result.stderr
    assert hub.log == []


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


def test_a_break_between_two_commits_mixes_nothing(hub: HubServer, run: Run, tmp_path: Path) -> None:
    """The first run breaks off with a file of the old commit; the revision then names a new one without that file."""
    model = "moving/target"
    shutil.copytree(hub.repository.root / LARGE, hub.repository.root / model)
    directory = hub.repository.root / model
    (directory / "an_old.json").write_text("{}")
    options = ["--model", model, "--output_dir", tmp_path / "out", "--max_workers", 1]
    hub.faults = [Fault("GET /cdn/", status=404, times=99)]
    first = run(SCRIPT, *options, HF_ENDPOINT=hub.url)
    assert first.returncode == 1 and not (tmp_path / "out" / "moving--target").exists()
    assert list((tmp_path / "out" / ".downloads").rglob("an_old.json")), "the old commit's file had come"
    (directory / "an_old.json").unlink()
    (directory / "README.md").write_text("# New\n")
    hub.faults = []
    second = run(SCRIPT, *options, HF_ENDPOINT=hub.url)
    assert second.returncode == 0, second.stderr
    assert_same(directory, tmp_path / "out" / "moving--target")
    assert not (tmp_path / "out" / ".downloads").exists(), "nothing of the old commit is left"
    shutil.rmtree(directory.parent)


@pytest.mark.parametrize(("name", "bytes_"), [("config.json", b"{}"), ("model.safetensors", b"other weights")])
def test_a_directory_of_another_revision_is_left_alone(
    name: str, bytes_: bytes, family: Path, hub: HubServer, run: Run, tmp_path: Path
) -> None:
    copy = tmp_path / "acme--tiny"
    shutil.copytree(family / BASE, copy)
    (copy / name).write_bytes(bytes_)
    (copy / "README.md").unlink()
    result = run(SCRIPT, "--model", BASE, "--output_dir", tmp_path, HF_ENDPOINT=hub.url)
    assert result.returncode == 1 and "is of another revision than 'main', or was changed" in result.stderr
    assert f"{name} has" in result.stderr and "move it away" in result.stderr
    assert (copy / name).read_bytes() == bytes_ and not (copy / "README.md").exists()


def test_says_how_much_and_how_fast(hub: HubServer, run: Run, tmp_path: Path) -> None:
    options = ["--model", LARGE, "--output_dir", tmp_path]
    result = run(SCRIPT, *options, HF_ENDPOINT=hub.url)
    said = re.fullmatch(r"acme/large: \S+ \(12\.\d MB in \d+\.\d s, (\d+\.\d) MB/s\)\n", result.stdout)
    assert said and float(said[1]) > 0, result.stdout
    again = run(SCRIPT, *options, HF_ENDPOINT=hub.url)
    assert again.returncode == 0 and again.stdout.endswith("acme--large (complete)\n")


def test_progress_on_a_terminal(tmp_path: Path) -> None:
    class Terminal(io.StringIO):
        """A stream that takes itself for a terminal."""

        def isatty(self) -> bool:
            return True

    stream = Terminal()
    (tmp_path / "here").write_bytes(bytes(2_000_000))
    with Progress("acme/tiny", [tmp_path], 4_000_000, stream):
        (tmp_path / "new").write_bytes(bytes(1_000_000))
        deadline = time.monotonic() + 20
        while "3.0 of 4.0 MB" not in stream.getvalue():
            assert time.monotonic() < deadline, stream.getvalue()
            time.sleep(0.05)
    speed = re.search(r"acme/tiny: 3\.0 of 4\.0 MB, (\d+\.\d) MB/s", stream.getvalue())
    assert speed and float(speed[1]) < 2.1, "only this run's bytes count"
    assert stream.getvalue().endswith("\x1b[K"), "the line is taken away in the end"


def test_ctrl_c_ends_it_at_once_and_loses_nothing(hub: HubServer, run: Run, family: Path, tmp_path: Path) -> None:
    hub.bytes_per_second = 1 << 20
    script = str(REPOSITORY / SCRIPT)
    options = ["--model", LARGE, "--output_dir", str(tmp_path / "out"), "--suffix", ".safetensors"]
    variables = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, script, *options]
    process = subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size > 0 for path in (tmp_path / "out").rglob("*.parts/*")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130 and time.monotonic() - start < 5
    assert "download: interrupted; what was fetched is kept, run it again to go on" in said
    assert "Traceback" not in said and not (tmp_path / "out" / "acme--large").exists()
    hub.bytes_per_second = 0
    assert run(SCRIPT, *options, HF_ENDPOINT=hub.url).returncode == 0
    copy = tmp_path / "out" / "acme--large" / "model.safetensors"
    assert filecmp.cmp(family / LARGE / "model.safetensors", copy, shallow=False)
    assert weight_ranges(hub)[-1] not in (None, "bytes=0-"), "it went on where it was"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output_dir", "out"], "one of the arguments --model --models_txts is required"),
        (["--model", "../x", "--output_dir", "out"], "not a model id"),
        (["--model", "a/b", "--output_dir", "out", "--max_workers", "0"], "at least 1"),
        (["--model", "a/b", "--output_dir", "out", "--max_workers", "65"], "at most 64"),
        (["--models_txts", "absent.txt", "--output_dir", "out"], "absent.txt"),
    ],
)
def test_wrong_commands_are_refused(arguments: list[str], message: str, run: Run, tmp_path: Path) -> None:
    result = run(SCRIPT, *arguments, cwd=tmp_path)
    assert result.returncode == 2 and message in result.stderr
    assert list(tmp_path.glob("out")) == []
