"""analysis/restore_throughput_analysis.py by its command line, with stand-ins for the programs."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
from conftest import Run
from fake_programs import write_fakes

SCRIPT = "analysis/restore_throughput_analysis.py"
PNG_MAGIC = b"\x89PNG"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config.json with a list of two models."""
    path = tmp_path / "settings" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"models_to_process": "./list.txt", "model_dir": "m", "storage_dir": "s"}))
    (path.parent / "list.txt").write_text("# family\nacme/tiny\npyland/tiny-python\n")
    return path


def rows(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV file."""
    with path.open() as file:
        return list(csv.DictReader(file))


def test_measures_and_draws(config: Path, run: Run, tmp_path: Path) -> None:
    options = ["--config", "settings/config.json", "--bin-dir", write_fakes(tmp_path / "bin")]
    result = run(SCRIPT, *options, "--threads", 1, 4, 2, "--repeat", 2, "--analyze", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    output = tmp_path / "restore_results"
    lines = rows(output / "restore_throughput.csv")
    assert [(line["threads"], line["repeat"]) for line in lines] == [(t, r) for r in "12" for t in "124"]
    assert {line["model"] for line in lines} == {"pyland/tiny-python"}, "a fine-tune, whose base is decoded too"
    assert [float(line["gigabytes_per_second"]) for line in lines[:3]] == pytest.approx([0.5, 0.5 * 2**0.5, 1.0])
    assert float(lines[1]["peak_memory_mib"]) == 2.0
    assert (output / "restore_throughput.png").read_bytes().startswith(PNG_MAGIC)
    assert "0.707" in result.stdout, "efficiency of two threads"
    assert sorted(path.name for path in output.iterdir()) == ["restore_throughput.csv", "restore_throughput.png"]


def test_analyze_only_draws_the_last_session(config: Path, run: Run, tmp_path: Path) -> None:
    options = ["--config", config, "--bin-dir", write_fakes(tmp_path / "bin"), "--output", tmp_path / "out"]
    assert run(SCRIPT, *options, "--threads", 1, 2, "--repeat", 1, "--model", "acme/tiny").returncode == 0
    assert not (tmp_path / "out" / "restore_throughput.png").exists()
    table = tmp_path / "out" / "restore_throughput.csv"
    table.write_text(table.read_text() + "2999-01-01,acme/tiny,3,1,1000000000,1,1.0,5,False\n")
    result = run(SCRIPT, "--analyze-only", *options)
    assert result.returncode == 0 and "3" in result.stdout.split() and "2" not in result.stdout.split()
    assert (tmp_path / "out" / "restore_throughput.png").exists()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--threads", "0"], 2, "at least 1"),
        (["--threads", "two"], 2, "invalid"),
        (["--threads", "1025"], 2, "at most 1024"),
        (["--repeat", "0"], 2, "at least 1"),
        (["--model", "../x"], 2, "not a model id"),
        (["--analyze-only"], 2, "no results"),
        (["--model", "acme/broken"], 1, "the payload ends too early"),
        (["--bin-dir", "nowhere"], 1, "cargo build --release"),
        (["--config", "absent.json"], 2, "absent.json: no such file"),
    ],
)
def test_refusals(options: list[str], code: int, message: str, config: Path, run: Run, tmp_path: Path) -> None:
    known = ["--config", config, "--bin-dir", write_fakes(tmp_path / "bin")]
    result = run(SCRIPT, *known, *options, cwd=tmp_path)
    assert result.returncode == code and message in result.stderr, result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "config.json: has to hold a JSON object"),
        ("{", "config.json: not JSON: "),
        ("{}", "config.json: the key 'models_to_process' is missing"),
        ('{"models_to_process": 3}', "config.json: 'models_to_process' has to be a text, not 3"),
        ('{"models_to_process": "list.txt"}', "list.txt: no model is listed ('models_to_process' of"),
    ],
)
def test_wrong_settings_are_refused(text: str, message: str, config: Path, run: Run) -> None:
    config.write_text(text)
    (config.parent / "list.txt").write_text("# nothing\n")
    result = run(SCRIPT, "--config", config)
    assert result.returncode == 2 and message in result.stderr, result.stderr


@pytest.mark.parametrize("text", ["", 'a,b\n1,2,3,"'], ids=["empty", "no-table"])
def test_a_damaged_table_is_named(text: str, config: Path, run: Run, tmp_path: Path) -> None:
    table = tmp_path / "restore_throughput.csv"
    table.write_text(text)
    result = run(SCRIPT, "--analyze-only", "--config", config, "--output", tmp_path)
    assert result.returncode == 2 and f"{table}: not a table of results" in result.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="only without root")
def test_drop_cache_says_that_it_needs_root(config: Path, run: Run) -> None:
    result = run(SCRIPT, "--config", config, "--drop-cache")
    assert result.returncode == 2 and "needs root" in result.stderr
