"""Runs zipllm's programs and reads the JSON documents that they print."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
BIN_DIR = REPOSITORY / "target" / "release"


class ProgramError(Exception):
    """A program is missing, failed, or printed something else than JSON."""


def find_program(name: str, bin_dir: Path | None = None) -> Path:
    """Returns the path of a built program; an example is named `examples/NAME`.

    Raises ProgramError, saying how to build it.
    """
    path = (bin_dir or BIN_DIR) / name
    if not os.access(path, os.X_OK):
        target = f" --example {name.partition('/')[2]}" if "/" in name else ""
        raise ProgramError(f"{path}: not there; build it with: cargo build --release{target}")
    return path.resolve()


def find_example(name: str, bin_dir: Path | None = None) -> Path:
    """Returns the path of a built example; where no directory was named, it is built if it is not there.

    Raises ProgramError.
    """
    if bin_dir or os.access(BIN_DIR / "examples" / name, os.X_OK):
        return find_program(f"examples/{name}", bin_dir)
    command = ["cargo", "build", "--release", "--example", name]
    print(f"building {name}: {' '.join(command)}", file=sys.stderr, flush=True)
    try:
        result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ProgramError(
            f"{name} is not built, and cargo is not on the PATH: install Rust (https://rustup.rs), then: "
            f"{' '.join(command)}"
        ) from None
    if result.returncode != 0:
        raise ProgramError(f"cannot build {name}: {last_lines(result.stderr)}")
    return find_program(f"examples/{name}")


def run_json(command: list[str | Path]) -> dict[str, Any]:
    """Runs a program that prints one JSON document, and returns it.

    Raises ProgramError with the program's own words if it fails.
    """
    words = [str(word) for word in command]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise ProgramError(f"{' '.join(words)}: exit code {result.returncode}: {last_lines(result.stderr)}")
    try:
        document = json.loads(result.stdout)
    except ValueError as error:
        raise ProgramError(f"{' '.join(words)}: did not print JSON: {error}") from None
    if not isinstance(document, dict):
        raise ProgramError(f"{' '.join(words)}: did not print a JSON object")
    return document


def last_lines(text: str, count: int = 5) -> str:
    """Returns the last lines of what a program said."""
    return "\n".join(text.strip().splitlines()[-count:]) or "it said nothing"


def machine() -> str:
    """Describes the processor, for a figure's caption."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} CPUs"
