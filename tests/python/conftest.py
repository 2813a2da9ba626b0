"""What the tests share: a small family of models, the local hub, and running the scripts as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hub_server import HubServer
from tiny_family import write_family

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
