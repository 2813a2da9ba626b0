"""The parts of a safetensors file, for the methods that look inside."""

from __future__ import annotations

import itertools
import json
import struct
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

MAX_HEADER_BYTES = 100_000_000


class Span(NamedTuple):
    """A run of a file's bytes, from `start` up to `end`."""

    start: int
    end: int


def read_header(path: Path) -> tuple[int, dict[str, Any]]:
    """Returns the length of a file's header, its 8 length bytes included, and the tensors it lists.

    A file that is not a safetensors file has no tensors and a header of length 0.
    """
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else MAX_HEADER_BYTES + 1
        if length > MAX_HEADER_BYTES:
            return 0, {}
        try:
            header = json.loads(file.read(length))
        except ValueError:
            return 0, {}
    if not isinstance(header, dict):
        return 0, {}
    header.pop("__metadata__", None)
    return 8 + length, header


def spans(path: Path) -> list[Span]:
    """Cuts a file at its tensors' borders; the spans give every byte of it, in order."""
    size = path.stat().st_size
    begin, tensors = read_header(path)
    borders = {0, begin, size}
    for tensor in tensors.values():
        borders.update(begin + int(offset) for offset in tensor["data_offsets"])
    cuts = sorted(border for border in borders if border <= size)
    return [Span(start, end) for start, end in itertools.pairwise(cuts)]


def main_dtype(path: Path) -> str:
    """Returns the dtype, as in "BF16", that most bytes of a file have; empty if it has no tensors."""
    sizes: Counter[str] = Counter()
    for tensor in read_header(path)[1].values():
        start, end = tensor["data_offsets"]
        sizes[tensor["dtype"]] += end - start
    return sizes.most_common(1)[0][0] if sizes else ""
