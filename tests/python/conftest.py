"""What the tests share: a small family of models, the local hub, and running the scripts as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hub_server import HubServer
from tiny_family import BASE, TUNES, write_family

REPOSITORY = Path(__file__).resolve().parents[2]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of three related models, in the hub's layout `org/name`."""
    root = tmp_path_factory.mktemp("hub")
    write_family(root, np.random.default_rng(7))
    return root


@pytest.fixture
def hub(family: Path) -> Iterator[HubServer]:
    """The local hub, serving the family."""
    server = HubServer(family, gated=("locked/gate",), tokens=("hf_good",)).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a script of the repository; keyword arguments are environment variables."""

    def call(script: str, *arguments: object, cwd: Path | None = None, **environment: str) -> Run:
        command = [sys.executable, str(REPOSITORY / script), *map(str, arguments)]
        kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        home = {"HF_HOME": str(tmp_path / "hf_home"), "NO_PROXY": "127.0.0.1,localhost"}
        return subprocess.run(
            command, cwd=cwd, env=kept | home | environment, capture_output=True, text=True, timeout=300, check=False
        )

    return call


@pytest.fixture(scope="session")
def bin_dir() -> Path:
    """Where the real programs are: `ZIPLLM_BIN_DIR`, else what `cargo build` made last."""
    named = os.environ.get("ZIPLLM_BIN_DIR")
    places = [Path(named)] if named else [REPOSITORY / "target" / profile for profile in ("debug", "release")]
    built = [place for place in places if (place / "zipllm").exists() and (place / "examples/benchmark_bitx").exists()]
    assert built, "the programs are not built: cargo build --bins --examples"
    return max(built, key=lambda place: (place / "zipllm").stat().st_mtime).resolve()


@pytest.fixture
def family_config(family: Path, tmp_path: Path) -> Path:
    """A config.json of zipllm for the family."""
    folder = tmp_path / "family"
    folder.mkdir()
    (folder / "models.txt").write_text("\n".join([BASE, *TUNES]) + "\n")
    (folder / "base_ft.json").write_text(json.dumps({BASE: list(TUNES)}))
    settings = {
        "model_dir": str(family),
        "storage_dir": "./store",
        "models_to_process": "./models.txt",
        "base_ft_path": "./base_ft.json",
        "threads": 2,
    }
    (folder / "config.json").write_text(json.dumps(settings))
    return folder / "config.json"
