"""Numbers on command lines, for argparse's `type`."""

from __future__ import annotations

import argparse

MAX_THREADS = 1024
MAX_REPEATS = 1000


def count(text: str, most: int) -> int:
    """Reads a whole number from 1 to `most`."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid number: {text!r}") from None
    if not 1 <= value <= most:
        raise argparse.ArgumentTypeError(f"has to be at least 1 and at most {most}, not {value}")
    return value


def thread_count(text: str) -> int:
    """Reads a number of threads."""
    return count(text, MAX_THREADS)


def thread_list(text: str) -> list[int]:
    """Reads numbers of threads, as in `1,4,8`; returns each once, in order."""
    return sorted({thread_count(word.strip()) for word in text.split(",")})


def repeat_count(text: str) -> int:
    """Reads how often a measurement is made."""
    return count(text, MAX_REPEATS)
