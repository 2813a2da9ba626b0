"""experiment/compare.py with the real programs on the test family."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import tensors
from conftest import Run
from tiny_family import BASE

from weights import spans

SCRIPT = "experiment/compare.py"
METHODS = ["file-dedup", "tensor-dedup", "fastcdc", "zstd", "bitx", "zipllm-bitx", "zipllm"]
# Where they are installed they are tried, too.
TOOLS = [name for name, package in (("zipnn", "zipnn"), ("lmzip", "lmz")) if importlib.util.find_spec(package)]


def test_every_method_gives_the_files_back(family_config: Path, bin_dir: Path, run: Run, tmp_path: Path) -> None:
    output, figure = tmp_path / "results", tmp_path / "docs" / "figure.png"
    options = ["--config", family_config, "--output", output, "--repeat", 1, "--threads", 2, "--bin-dir", bin_dir]
    result = run(
        SCRIPT, *options, "--label", "tiny", "--work", tmp_path, "--figure", figure, "--methods", *METHODS, *TOOLS
    )
    assert result.returncode == 0, result.stderr
    records = [json.loads(line) for line in (output / "compare.jsonl").read_text().splitlines()]
    assert [record["method"] for record in records] == METHODS + TOOLS
    assert all(record["exact"] for record in records)
    stored = {record["method"]: record["stored_bytes"] for record in records}
    assert (
        stored["zipllm"]
        < stored["zipllm-bitx"]
        < stored["bitx"]
        < stored["zstd"]
        < stored["tensor-dedup"]
        < records[0]["original_bytes"] * 1.01
    )
    assert "| zipllm | 0." in (output / "comparison.md").read_text()
    summary = json.loads((output / "comparison.json").read_text())[0]
    assert (summary["label"], summary["models"], summary["threads"]) == ("tiny", 3, 2)
    assert {row["method"]: row["stored_bytes"] for row in summary["methods"]} == stored
    assert all(row["exact"] and row["restore_gigabytes_per_second"]["least"] > 0 for row in summary["methods"])
    assert figure.stat().st_size > 10_000
    assert not list(tmp_path.glob("compare-*")), "nothing is left behind"


def test_absent_tools_are_named(family_config: Path, run: Run, tmp_path: Path) -> None:
    options = ["--config", family_config, "--output", tmp_path / "results", "--repeat", 1, "--bin-dir", tmp_path]
    result = run(SCRIPT, *options, "--methods", "file-dedup", "zipllm", "bitx")
    assert result.returncode == 0, result.stderr
    assert "without zipllm" in result.stderr and "cargo build --release" in result.stderr
    assert "file dedup" in result.stdout and "| zipllm" not in result.stdout


@pytest.mark.parametrize(
    ("restore", "shown"),
    [("os.makedirs(sys.argv[3])", " to "), ("sys.exit('a payload ends too early')", "| fails |")],
    ids=["not-exact", "cannot-restore"],
)
def test_a_method_that_is_not_exact_is_shown_as_such(
    restore: str, shown: str, family_config: Path, run: Run, tmp_path: Path
) -> None:
    """Stand-ins for zipllm that store a lot less than everything."""
    for name, action in (("zipllm", "pass"), ("restore", restore)):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/usr/bin/env python3\nimport os, sys\n{action}\n")
        program.chmod(0o755)
    options = ["--config", family_config, "--output", tmp_path / "results", "--repeat", 2]
    result = run(SCRIPT, *options, "--methods", "zipllm", "file-dedup", "--bin-dir", tmp_path / "bin")
    assert result.returncode == 0, result.stderr
    line = next(line for line in result.stdout.splitlines() if line.startswith("| zipllm |"))
    assert "**NO**" in line and shown in line, line
    summary = json.loads((tmp_path / "results" / "comparison.json").read_text())
    assert [row["exact"] for row in summary[0]["methods"]] == [True, False]
    assert (tmp_path / "results" / "comparison.png").stat().st_size > 10_000


def test_two_families_in_one_table(family: Path, run: Run, tmp_path: Path) -> None:
    """One by a directory of models, one by a config without a map and with a Hugging Face cache."""
    plain = tmp_path / "plain"
    for name in ("acme_tiny", "pyland_tiny-python", ".downloads"):
        shutil.copytree(family / name.replace("_", "/", 1) if name[0] != "." else family / BASE, plain / name)
    cached = tmp_path / "models" / "models--acme--tiny"
    shutil.copytree(family / BASE, cached / "snapshots" / ("0" * 40))
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0" * 40)
    (tmp_path / "list.txt").write_text(f"{BASE}\n")
    (tmp_path / "config.json").write_text('{"model_dir": "models", "models_to_process": "list.txt"}')
    options = ["--output", tmp_path / "results", "--repeat", 1, "--methods", "file-dedup", "--keep-last"]
    for _ in range(2):
        assert run(SCRIPT, "--models-dir", plain, "--label", "a", *options).returncode == 0
    result = run(SCRIPT, "--config", tmp_path / "config.json", "--label", "b", *options)
    assert result.returncode == 0, result.stderr
    assert "**a**: 2 models" in result.stdout and "**b**: 1 models" in result.stdout
    assert len((tmp_path / "results" / "compare.jsonl").read_text().splitlines()) == 2, "earlier sessions are dropped"
    drawn = run(SCRIPT, "--draw-only", "--output", tmp_path / "results", "--figure", tmp_path / "again.png")
    assert drawn.returncode == 0 and (tmp_path / "again.png").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models_to_process": None}, "config.json: 'models_to_process' has to be a text, not null"),
        ({"model_dir": ...}, "config.json: the key 'model_dir' is missing"),
        ({"models_to_process": "./nothing.txt"}, "nothing.txt: no model is listed ('models_to_process' of"),
        ({"models_to_process": "./absent.txt"}, "absent.txt"),
        ({"model_dir": "."}, "acme--tiny: no such directory (listed in"),
        ({"base_ft_path": "./wrong.json"}, "wrong.json: 'acme/tiny' has to be a list of models"),
        ({"base_ft_path": "./models.txt"}, "models.txt: not JSON: "),
    ],
)
def test_wrong_settings_are_refused(
    changes: dict[str, object], message: str, family_config: Path, run: Run, tmp_path: Path
) -> None:
    settings = json.loads(family_config.read_text()) | changes
    family_config.write_text(json.dumps({key: value for key, value in settings.items() if value is not ...}))
    (family_config.parent / "nothing.txt").write_text("# nothing\n")
    (family_config.parent / "wrong.json").write_text('{"acme/tiny": "x/y"}')
    result = run(SCRIPT, "--config", family_config, "--output", tmp_path / "results")
    assert result.returncode == 2 and message in result.stderr, result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "one of --config, --models-dir and --draw-only is required"),
        (["--config", "x", "--models-dir", "y"], "not allowed with"),
        (["--config", "x", "--threads", "2000"], "at most 1024"),
        (["--config", "absent.json"], "absent.json"),
        (["--models-dir", "."], "has no directories of models"),
        (["--draw-only", "--output", "."], "compare.jsonl: no results"),
    ],
)
def test_wrong_commands_are_refused(options: list[str], message: str, run: Run, tmp_path: Path) -> None:
    result = run(SCRIPT, *options, cwd=tmp_path)
    assert result.returncode == 2 and message in result.stderr, result.stderr


def test_spans_tile_every_file(family: Path) -> None:
    """The tensor dedup's own reader of safetensors agrees with the independent package."""
    path = family / "acme/tiny/model.safetensors"
    data = path.read_bytes()
    found = spans(path)
    assert b"".join(data[start:end] for start, end in found) == data
    assert {content for _, _, content in tensors.load(path).values()} <= {data[start:end] for start, end in found}
