"""experiment/run_exp.py, zipnn_exp.py and plots.ipynb on the test family."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from pathlib import Path

import nbformat
import pytest
from conftest import REPOSITORY, Run
from nbclient import NotebookClient
from results import reduction

SCRIPT = "experiment/run_exp.py"
HAS_ZIPNN = importlib.util.find_spec("zipnn") is not None
FILES = 5  # safetensors files in the family


def write_config(folder: Path, model_root: Path, changes: dict[str, object] | None = None) -> Path:
    """Writes the experiments' settings."""
    settings = {"output_root": "./results", "model_root": str(model_root), "fastcdc_avg_size": 4096}
    path = folder / "config.json"
    path.write_text(json.dumps(settings | (changes or {})))
    return path


def records(path: Path) -> list[dict[str, object]]:
    """The results in a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_runs_resumes_and_draws(family: Path, run: Run, tmp_path: Path) -> None:
    config = write_config(tmp_path, family)
    hidden = family / ".downloads" / "acme--tiny@0" / "model.safetensors"  # an unfinished download
    hidden.parent.mkdir(parents=True)
    hidden.write_bytes(b"half")
    first = run(SCRIPT, "--config", config, "--methods", "fastcdc", "--workers", 2)
    assert first.returncode == 0, first.stderr
    assert f"[{FILES}/{FILES}] fastcdc" in first.stdout
    results = tmp_path / "results" / "fastcdc.jsonl"
    lines = results.read_text().splitlines()
    assert len(lines) == FILES
    shutil.rmtree(family / ".downloads")
    by_file = {record["file"]: record for record in records(results)}
    whole = by_file["acme/tiny/model.safetensors"]
    assert whole["bytes"] == (family / "acme/tiny/model.safetensors").stat().st_size
    assert whole["bytes"] / 16384 < whole["chunks"] < whole["bytes"] / 1024
    assert by_file["acme/large/model.safetensors"]["unique_bytes"] < 100_000, "twelve MiB of zeros are one chunk"

    results.write_text("\n".join(lines[:-1]) + '\n{"file": "cut o')  # as if the last write had been cut off
    again = run(SCRIPT, "--config", config, "--methods", "fastcdc")
    assert again.returncode == 0 and f"1 of {FILES} results to make" in again.stdout, again.stderr
    assert sorted(str(record["file"]) for record in records(results)) == sorted(by_file)

    execute_notebook(config)
    for name in ("reduction.png", "fastcdc.png"):
        assert (tmp_path / "results" / "figures" / name).stat().st_size > 5000


def test_settings_that_are_no_json_are_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    result = run(SCRIPT, "--config", tmp_path / "config.json")
    assert result.returncode == 2 and "config.json: not JSON: " in result.stderr
    bounded = run(SCRIPT, "--config", tmp_path / "config.json", "--workers", 0)
    assert bounded.returncode == 2 and "at least 1" in bounded.stderr


def execute_notebook(config: Path) -> None:
    """Runs the notebook from start to end; raises if a cell does."""
    notebook = nbformat.read(REPOSITORY / "experiment" / "plots.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "the notebook is kept without outputs"
    folder = {"metadata": {"path": str(REPOSITORY / "experiment")}}
    os.environ["EXPERIMENT_CONFIG"] = str(config)
    try:
        NotebookClient(notebook, timeout=120, kernel_name="python3", resources=folder).execute()
    finally:
        del os.environ["EXPERIMENT_CONFIG"]
    drawn = [output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in str(output)]
    assert len(drawn) >= 2


@pytest.mark.skipif(HAS_ZIPNN, reason="only where ZipNN is absent")
def test_without_zipnn_it_says_so(family: Path, run: Run, tmp_path: Path) -> None:
    config = write_config(tmp_path, family)
    asked = run(SCRIPT, "--config", config, "--methods", "zipnn")
    assert asked.returncode == 1 and "pip install -r requirements-compare.txt" in asked.stderr
    both = run(SCRIPT, "--config", config)
    assert both.returncode == 0 and "without ZipNN" in both.stderr
    alone = run("experiment/zipnn_exp.py", "measure", config)
    assert alone.returncode == 3 and "zipnn is not installed" in alone.stderr


@pytest.mark.skipif(not HAS_ZIPNN, reason="only where ZipNN is installed")
def test_zipnn_is_exact(family: Path, run: Run, tmp_path: Path) -> None:
    weights = family / "acme/tiny/model.safetensors"
    report = json.loads(run("experiment/zipnn_exp.py", "measure", weights).stdout)
    assert report["exact"] and report["compressed_bytes"] < report["bytes"] == weights.stat().st_size
    assert run("experiment/zipnn_exp.py", "compress", weights, tmp_path / "packed").returncode == 0
    assert run("experiment/zipnn_exp.py", "decompress", tmp_path / "packed", tmp_path / "back").returncode == 0
    assert (tmp_path / "back").read_bytes() == weights.read_bytes()


@pytest.mark.skipif(not HAS_ZIPNN, reason="only where ZipNN is installed")
def test_zipnn_refuses_what_it_did_not_make(family: Path, run: Run, tmp_path: Path) -> None:
    weights, packed = family / "acme/tiny/model.safetensors", tmp_path / "packed"
    assert run("experiment/zipnn_exp.py", "compress", weights, packed).returncode == 0
    cut = tmp_path / "cut"
    cut.write_bytes(packed.read_bytes()[:-1])
    for path in (cut, weights):
        result = run("experiment/zipnn_exp.py", "decompress", path, tmp_path / f"{path.name}.back")
        assert result.returncode == 1 and f"{path}: not a file that was compressed here, or cut off" in result.stderr
    threads = run("experiment/zipnn_exp.py", "measure", weights, "--threads", 0)
    assert threads.returncode == 2 and "at least 1" in threads.stderr


def test_empty_files_are_no_division_by_nothing() -> None:
    assert reduction(0, 0) == 0 and reduction(1, 4) == 75


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fastcdc_avg_size": 100}, "'fastcdc_avg_size' has to be a number from 1024"),
        ({"fastcdc_avg_size": "64k"}, "config.json: 'fastcdc_avg_size' has to be a number"),
        ({"model_root": 3}, "config.json: 'model_root' has to be a text, not 3"),
        ({"model_root": "./nowhere"}, "nowhere: no such directory"),
        ({"model_root": "."}, "has no safetensors files"),
        ({"output": "x"}, "unknown key 'output'"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, object], message: str, run: Run, tmp_path: Path) -> None:
    config = write_config(tmp_path, tmp_path, changes)
    result = run(SCRIPT, "--config", config, "--methods", "fastcdc")
    assert result.returncode == 2 and message in result.stderr, result.stderr
    assert not (tmp_path / "results").exists()
