"""Shows how far a download is, by the bytes that lie in its directories."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

TERMINAL_SECONDS, LOG_SECONDS = 0.5, 30.0
MB = 1e6


def data_bytes(directories: Sequence[Path]) -> int:
    """Adds up the files of a download, unfinished ones too; a file that is moved meanwhile may be missed."""
    total = 0
    for path in itertools.chain.from_iterable(directory.rglob("*") for directory in directories):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total


def rate(size: int, seconds: float) -> str:
    """Writes a size in MB (1e6 bytes), and how fast it came."""
    return f"{size / MB:.1f} MB in {seconds:.1f} s, {size / MB / max(seconds, 1e-3):.1f} MB/s"


class Progress:
    """Reports on a download while it runs: one line that renews itself on a terminal, else a line now and then."""

    def __init__(self, label: str, directories: Sequence[Path], total: int, stream: TextIO = sys.stderr) -> None:
        self.label, self.directories, self.total, self.stream = label, directories, total, stream
        self.start, self.had = time.monotonic(), data_bytes(directories)
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def line(self) -> str:
        """Says how much is there, and the mean speed of this run."""
        now = data_bytes(self.directories)
        speed = max(0, now - self.had) / MB / max(time.monotonic() - self.start, 1e-3)
        return f"{self.label}: {now / MB:.1f} of {self.total / MB:.1f} MB, {speed:.1f} MB/s"

    def _watch(self) -> None:
        terminal = self.stream.isatty()
        while not self.ended.wait(TERMINAL_SECONDS if terminal else LOG_SECONDS):
            print(f"\r\x1b[K{self.line()}" if terminal else self.line(), end="" if terminal else "\n", file=self.stream)
            self.stream.flush()
        if terminal:
            print("\r\x1b[K", end="", file=self.stream, flush=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended.set()
        self.thread.join()
