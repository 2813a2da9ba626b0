"""The README's way from nothing to a restored model, with the real programs; and the analysis scripts on it."""

from __future__ import annotations

import filecmp
import json
import subprocess
import sys
from pathlib import Path

import pytest
import tensors
from conftest import REPOSITORY, Run
from hub_server import HubServer
from tiny_family import BASE, TUNES


def call(*command: object) -> dict[str, object]:
    """Runs a program that prints JSON, from a foreign directory."""
    words = [str(word) for word in command]
    result = subprocess.run(words, cwd="/", capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("model", [BASE, *TUNES])
def test_restored_weights_load_and_are_equal(
    model: str, family: Path, family_config: Path, bin_dir: Path, tmp_path: Path
) -> None:
    report = call(bin_dir / "zipllm", family_config, "--json")
    assert report["stored_bytes"] < report["bytes"]
    restored = tmp_path / "out"
    call(bin_dir / "restore", family_config, model, restored, "--json")
    names = [path.relative_to(family / model) for path in (family / model).rglob("*") if path.is_file()]
    assert len(names) == len([path for path in restored.rglob("*") if path.is_file()])
    for name in names:
        assert filecmp.cmp(family / model / name, restored / name, shallow=False), name
    assert tensors.load(restored / "model.safetensors") == tensors.load(family / model / "model.safetensors")


def test_quick_start(hub: HubServer, family: Path, bin_dir: Path, run: Run, tmp_path: Path) -> None:
    settings = {"model_dir": "models", "storage_dir": "s", "models_to_process": "list.txt", "base_ft_path": "map.json"}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    (tmp_path / "list.txt").write_text("\n".join([BASE, *TUNES]))
    download = ["--models_txts", tmp_path / "list.txt", "--output_dir", tmp_path / "models"]
    assert run("py_lib/download.py", *download, HF_ENDPOINT=hub.url).returncode == 0
    assert run("py_lib/generate_base_ft.py", tmp_path / "list.txt", tmp_path / "map.json").returncode == 0
    report = call(bin_dir / "zipllm", tmp_path / "config.json", "--json")
    assert [model["base"] for model in report["models"] if model.get("base")] == [BASE] * len(TUNES)
    call(bin_dir / "restore", tmp_path / "config.json", TUNES[1], tmp_path / "out", "--json")
    assert filecmp.cmp(family / TUNES[1] / "model.safetensors", tmp_path / "out" / "model.safetensors", shallow=False)


def test_restore_analysis(family_config: Path, bin_dir: Path, run: Run, tmp_path: Path) -> None:
    call(bin_dir / "zipllm", family_config, "--json")
    options = ["--config", family_config, "--bin-dir", bin_dir, "--output", tmp_path / "out", "--repeat", 2]
    result = run("analysis/restore_throughput_analysis.py", *options, "--threads", 1, 2, "--analyze")
    assert result.returncode == 0, result.stderr
    assert len((tmp_path / "out" / "restore_throughput.csv").read_text().splitlines()) == 5
    unknown = run("analysis/restore_throughput_analysis.py", *options, "--model", "acme/none")
    assert unknown.returncode == 1 and "acme/none" in unknown.stderr


def test_compression_analysis(family: Path, bin_dir: Path, run: Run, tmp_path: Path) -> None:
    options = ["--bin-dir", bin_dir, "--threads", "1,2", "--repeat", 2, "--output", tmp_path / "x"]
    result = run("analysis/compression_throughput_analysis.py", family / BASE, family / TUNES[0], *options)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "x.csv").read_text().count("True") == 4


def test_every_script_explains_itself() -> None:
    scripts = [*REPOSITORY.glob("analysis/*.py"), *REPOSITORY.glob("experiment/*.py"), *REPOSITORY.glob("py_lib/*.py")]
    programs = [path for path in scripts if "__main__" in path.read_text()]
    assert len(programs) >= 8
    for path in programs:
        result = subprocess.run([sys.executable, str(path), "--help"], capture_output=True, text=True, check=False)
        assert result.returncode == 0 and "usage:" in result.stdout, path


@pytest.mark.parametrize(
    ("script", "package"),
    [
        ("analysis/restore_throughput_analysis.py", "pandas"),
        ("analysis/compression_throughput_analysis.py", "pandas"),
        ("experiment/compare.py", "matplotlib"),
        ("py_lib/download.py", "httpx2"),
    ],
)
def test_a_missing_package_is_named(script: str, package: str) -> None:
    """`-S` leaves installed packages out, as in a Python that requirements.txt was not installed for."""
    command = [sys.executable, "-S", str(REPOSITORY / script), "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    expected = f"{Path(script).name}: the Python package '{package}' is missing: pip3 install -r requirements.txt"
    assert result.stderr.startswith(expected) and len(result.stderr.splitlines()) == 1, result.stderr
