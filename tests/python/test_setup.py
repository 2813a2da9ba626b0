"""setup_test_models.sh: the whole set-up, in a copy of what it needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tensors
from conftest import REPOSITORY
from hub_server import HubServer
from tiny_family import BASE, TUNES

CONFIG = {
    "model_dir": "./my models",
    "storage_dir": "./storage",
    "models_to_process": "./list.txt",
    "base_ft_path": "./map.json",
}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A directory with the script and what it calls."""
    root = tmp_path / "clone"
    shutil.copytree(REPOSITORY / "py_lib", root / "py_lib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup_test_models.sh", "requirements.txt"):
        shutil.copy(REPOSITORY / name, root / name)
    (root / "config.json").write_text(json.dumps(CONFIG))
    return root


def setup(clone: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the script from another directory, with this Python's virtual environment."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    added = {"VENV": sys.prefix, "HF_HOME": str(clone / "hf"), "NO_PROXY": "127.0.0.1,localhost"}
    command = [str(clone / "setup_test_models.sh"), *options]
    return subprocess.run(
        command, cwd="/", env=kept | added | environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_downloads_and_maps(clone: Path, family: Path, hub: HubServer) -> None:
    (clone / "list.txt").write_text("\n".join([BASE, *TUNES]))
    result = setup(clone, HF_ENDPOINT=hub.url)
    assert result.returncode == 0, result.stderr
    assert json.loads((clone / "map.json").read_text()) == {BASE: list(TUNES)}
    for model in (BASE, *TUNES):
        copy = clone / "my models" / model.replace("/", "--") / "model.safetensors"
        assert copy.read_bytes() == (family / model / "model.safetensors").read_bytes()
    hub.log.clear()
    assert setup(clone, HF_ENDPOINT=hub.url).returncode == 0, "running it again is harmless"
    assert hub.log == []


def test_makes_its_own_virtual_environment(clone: Path, hub: HubServer) -> None:
    """With the packages that the download needs, at the versions of requirements.txt; all would take minutes."""
    requirements = clone / "requirements.txt"
    pins = [
        line for line in requirements.read_text().splitlines() if line.startswith(("httpx2==", "huggingface_hub=="))
    ]
    assert len(pins) == 2
    requirements.write_text("\n".join(pins))
    (clone / "list.txt").write_text(BASE)
    half_made = [sys.executable, "-m", "venv", "--without-pip", clone / ".venv"]  # as a set-up that broke off leaves it
    subprocess.run(half_made, check=True)
    result = setup(clone, VENV="", HF_ENDPOINT=hub.url)
    assert result.returncode == 0, result.stderr
    code = "import huggingface_hub, sys; print(sys.prefix)"
    prefix = subprocess.run([clone / ".venv/bin/python", "-c", code], capture_output=True, text=True, check=True).stdout
    assert Path(prefix.strip()) == clone / ".venv"
    assert (clone / "my models" / "acme--tiny" / "model.safetensors").is_file()


def test_installs_nothing_outside_a_virtual_environment(clone: Path, tmp_path: Path) -> None:
    (clone / "list.txt").write_text(BASE)
    other = tmp_path / "python"  # a directory with a Python that has pip, but is not a virtual environment
    (other / "bin").mkdir(parents=True)
    (other / "bin" / "python").write_text(f"#!/bin/sh\necho called >> {tmp_path}/calls\n")
    (other / "bin" / "python").chmod(0o755)
    result = setup(clone, VENV=str(other))
    assert result.returncode == 2 and "is no virtual environment" in result.stderr
    assert not (tmp_path / "calls").exists()


def test_an_old_python_is_refused(clone: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "python3").chmod(0o755)
    for options in ([], ["--demo"]):
        result = setup(clone, *options, PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        assert result.returncode == 1 and "python3 has to be 3.11 or newer" in result.stderr


def test_demo_needs_no_network(clone: Path) -> None:
    result = setup(clone, "--demo", HF_ENDPOINT="http://127.0.0.1:9")
    assert result.returncode == 0, result.stderr
    settings = json.loads((clone / "demo" / "config.json").read_text())
    mapping = json.loads((clone / "demo" / settings["base_ft_path"]).read_text())
    base = tensors.load(clone / "demo" / "models" / "demo--base" / "model.safetensors")
    for tune in mapping["demo/base"]:
        tuned = tensors.load(clone / "demo" / "models" / tune.replace("/", "--") / "model.safetensors")
        assert tuned.keys() == base.keys()
        assert tuned != base


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--frob"], "unknown option: --frob"),
        (["--config"], "--config needs a file"),
        (["--config", "/nowhere.json"], "/nowhere.json"),
        ([], "no such file"),
    ],
)
def test_wrong_commands_are_refused(options: list[str], message: str, clone: Path) -> None:
    result = setup(clone, *options)
    assert result.returncode == 2 and message in result.stderr, result.stderr


def test_a_missing_key_is_named(clone: Path) -> None:
    (clone / "config.json").write_text("{}")
    result = setup(clone)
    assert result.returncode == 2 and f"{clone}/config.json: the key 'model_dir' is missing" in result.stderr
