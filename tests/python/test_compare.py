"""experiment/compare.py with the real programs on the test family."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tensors
from conftest import Run

from weights import spans

SCRIPT = "experiment/compare.py"
METHODS = ["file-dedup", "tensor-dedup", "fastcdc", "zstd", "zipllm"]


def test_every_method_gives_the_files_back(family_config: Path, bin_dir: Path, run: Run, tmp_path: Path) -> None:
    output, figure = tmp_path / "results", tmp_path / "docs" / "figure.png"
    options = ["--config", family_config, "--output", output, "--repeat", 1, "--threads", 2, "--bin-dir", bin_dir]
    result = run(SCRIPT, *options, "--label", "tiny", "--work", tmp_path, "--figure", figure, "--methods", *METHODS)
    assert result.returncode == 0, result.stderr
    records = [json.loads(line) for line in (output / "compare.jsonl").read_text().splitlines()]
    assert [record["method"] for record in records] == METHODS
    assert all(record["exact"] for record in records)
    stored = {record["method"]: record["stored_bytes"] for record in records}
    assert stored["zipllm"] < stored["zstd"] < stored["tensor-dedup"] < records[0]["original_bytes"] * 1.01
    assert "| zipllm | 0." in (output / "comparison.md").read_text()
    assert figure.stat().st_size > 10_000
    assert not list(tmp_path.glob("compare-*")), "nothing is left behind"


def test_absent_tools_are_named(family_config: Path, run: Run, tmp_path: Path) -> None:
    options = ["--config", family_config, "--output", tmp_path / "results", "--repeat", 1, "--bin-dir", tmp_path]
    result = run(SCRIPT, *options, "--methods", "file-dedup", "zipllm", "bitx")
    assert result.returncode == 0, result.stderr
    assert "without zipllm" in result.stderr and "cargo build --release" in result.stderr
    assert "file dedup" in result.stdout and "| zipllm" not in result.stdout


def test_a_method_that_is_not_exact_is_shown_as_such(family_config: Path, run: Run, tmp_path: Path) -> None:
    """A stand-in for zipllm that stores a lot less than everything."""
    for name, action in (("zipllm", "pass"), ("restore", "os.makedirs(sys.argv[3])")):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/usr/bin/env python3\nimport os, sys\n{action}\n")
        program.chmod(0o755)
    options = ["--config", family_config, "--output", tmp_path / "results", "--repeat", 1]
    result = run(SCRIPT, *options, "--methods", "zipllm", "--bin-dir", tmp_path / "bin")
    assert result.returncode == 0 and "**NO**" in result.stdout, result.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [("{}", "'models_to_process' is missing"), ("{", "compare: "), (None, "config.json")],
)
def test_wrong_settings_are_refused(text: str | None, message: str, run: Run, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    result = run(SCRIPT, "--config", tmp_path / "config.json", "--output", tmp_path / "results")
    assert result.returncode == 2 and message in result.stderr
    assert "Traceback" not in result.stderr


def test_spans_tile_every_file(family: Path) -> None:
    """The tensor dedup's own reader of safetensors agrees with the independent package."""
    path = family / "acme/tiny/model.safetensors"
    data = path.read_bytes()
    found = spans(path)
    assert b"".join(data[start:end] for start, end in found) == data
    assert {content for _, _, content in tensors.load(path).values()} <= {data[start:end] for start, end in found}
