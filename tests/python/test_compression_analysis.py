"""analysis/compression_throughput_analysis.py by its command line, with stand-ins for the programs."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, Run
from fake_programs import write_fakes
from tiny_family import BASE, TUNES

SCRIPT = "analysis/compression_throughput_analysis.py"


def test_measures_and_draws(family: Path, run: Run, tmp_path: Path) -> None:
    options = ["--bin-dir", write_fakes(tmp_path / "bin"), "--threads", "1,4", "--repeat", 2]
    result = run(SCRIPT, family / BASE, family / TUNES[0], *options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    with (tmp_path / "bitx_throughput.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 4 and {line["exact"] for line in lines} == {"True"}
    assert float(lines[0]["compress_gigabytes_per_second"]) == pytest.approx(1 / 2.01)
    assert float(lines[1]["decompress_gigabytes_per_second"]) == pytest.approx(1 / 0.26)
    assert (tmp_path / "bitx_throughput.png").stat().st_size > 10_000
    assert "0.2500" in result.stdout


def test_without_decompression(family: Path, run: Run, tmp_path: Path) -> None:
    options = ["--bin-dir", write_fakes(tmp_path / "bin"), "--no-decompress", "--output", tmp_path / "sub" / "x"]
    result = run(SCRIPT, family / BASE, family / TUNES[0], *options, "--repeat", 1)
    assert result.returncode == 0, result.stderr
    assert "decompress" not in (tmp_path / "sub" / "x.csv").read_text()
    assert (tmp_path / "sub" / "x.png").exists()


def test_inexact_output_is_an_error(family: Path, run: Run, tmp_path: Path) -> None:
    inexact = tmp_path / "inexact"
    inexact.mkdir()
    (inexact / "model.safetensors").write_bytes((family / BASE / "model.safetensors").read_bytes())
    result = run(SCRIPT, family / BASE, inexact, "--bin-dir", write_fakes(tmp_path / "bin"), cwd=tmp_path)
    assert result.returncode == 1 and "NOT give the same bytes" in result.stderr


@pytest.mark.parametrize(
    ("base", "options", "code", "message"),
    [
        ("absent", [], 2, "absent: not a directory"),
        (".", [], 2, "has no safetensors file"),
        (None, ["--threads", "1,0"], 2, "at least 1"),
        (None, ["--threads", "1;4"], 2, "invalid"),
        (None, ["--threads", "1,5000"], 2, "at most 1024"),
        (None, ["--repeat", "0"], 2, "at least 1"),
        (None, ["--bin-dir", "nowhere"], 1, "cargo build --release --example benchmark_bitx"),
    ],
)
def test_refusals(
    base: str | None, options: list[str], code: int, message: str, family: Path, run: Run, tmp_path: Path
) -> None:
    result = run(SCRIPT, base or family / BASE, family / TUNES[0], *options, cwd=tmp_path)
    assert result.returncode == code and message in result.stderr, result.stderr
    assert "Traceback" not in result.stderr


def test_a_place_that_cannot_be_written_is_told_before_the_benchmark(family: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "bin" / "examples").mkdir(parents=True)
    program = tmp_path / "bin" / "examples" / "benchmark_bitx"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/measured\n")
    program.chmod(0o755)
    options = ["--bin-dir", tmp_path / "bin", "--output", tmp_path / "file" / "x"]
    result = run(SCRIPT, family / BASE, family / TUNES[0], *options)
    assert result.returncode == 1 and "file" in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "measured").exists()


@pytest.mark.parametrize(
    ("cargo", "message"),
    [
        (None, "cargo is not on the PATH: install Rust"),
        ("echo 'error: linker not found' >&2; exit 101", "cannot build benchmark_bitx: error: linker not found"),
    ],
)
def test_the_benchmark_that_cannot_be_built(cargo: str | None, message: str, family: Path, tmp_path: Path) -> None:
    """In a copy, where it is not built; test_documented_commands.py has the case that it can be."""
    for folder in ("analysis", "py_lib"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "bin").mkdir()
    if cargo:
        (tmp_path / "bin" / "cargo").write_text(f"#!/bin/sh\n{cargo}\n")
        (tmp_path / "bin" / "cargo").chmod(0o755)
    command = [sys.executable, tmp_path / SCRIPT, family / BASE, family / TUNES[0]]
    variables = os.environ | {"PATH": str(tmp_path / "bin")}
    result = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert result.returncode == 1 and message in result.stderr, result.stderr
    assert "building benchmark_bitx: cargo build --release --example benchmark_bitx" in result.stderr
