"""A fresh copy of the repository to run documented commands in, with stand-ins for what a test cannot wait for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

# "Builds" the programs that the tests were given; for other crates it is cargo itself.
CARGO = """#!/usr/bin/env bash
set -eu
build() { mkdir -p "$(dirname "target/release/$1")"; ln -sf "$BUILT/$1" "target/release/$1"; }
case "$*" in
"build --release") [ -f src/lib.rs ]; build zipllm; build restore ;;
"build --release --example "*) [ -f "examples/$4.rs" ]; build "examples/$4" ;;
"build --release --quiet"*) exec "$CARGO" "$@" ;;
*) echo "unexpected: cargo $*" >&2; exit 1 ;;
esac
"""
# Edits as the README suggests: takes the other list of models.
VIM = """#!/usr/bin/env bash
set -eu
sed -i s,./test_models.txt,./test_models_llama31.txt, "$1"
"""


def copy_repository(target: Path) -> set[str]:
    """Copies what git has, or would have, of the repository; returns the files' paths."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True).stdout.decode()
    names = {name for name in listed.split("\0") if (REPOSITORY / name).is_file()}
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, target / name)
    chunking = "experiment/fastcdc_exp/target"  # so that its dependencies are not built again
    (REPOSITORY / chunking).mkdir(exist_ok=True)
    (target / chunking).symlink_to(REPOSITORY / chunking)
    return names | {chunking}


class Checkout:
    """A copy of the repository; `run` gives its shell lines to bash, with the local hub as the hub."""

    def __init__(self, root: Path, built: Path, hub: str, **variables: str) -> None:
        self.files = copy_repository(root / "zipllm")
        self.root = root / "zipllm"
        tools = root / "tools"
        tools.mkdir()
        real = bool(os.environ.get("ZIPLLM_REAL_CARGO"))  # takes minutes: `make test-full`
        for name, text in [("vim", VIM)] + ([] if real else [("cargo", CARGO)]):
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)
        kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        self.environment = kept | {
            "PATH": f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "BUILT": str(built),
            "CARGO": shutil.which("cargo") or "cargo",
            "VENV": sys.prefix,
            "HF_HOME": str(root / "hf"),
            "HF_ENDPOINT": hub,
            "NO_PROXY": "127.0.0.1,localhost",
            **variables,
        }

    def run(self, lines: str, folder: str = ".") -> subprocess.CompletedProcess[str]:
        """Runs lines of shell; stops at the first that fails."""
        return subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", lines],
            cwd=self.root / folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )
