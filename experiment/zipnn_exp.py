#!/usr/bin/env python3
"""Compresses safetensors files with ZipNN (PyPI `zipnn`), to compare with.

`measure` prints one JSON document: sizes in bytes, times in seconds of wall time without reading and writing files,
and whether the bytes came back the same. ZipNN is not installed by requirements.txt, since it brings torch along:
`pip install -r requirements-compare.txt`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "py_lib"))

from counts import thread_count
from weights import main_dtype

ABSENT = "zipnn is not installed; install it with: pip install -r requirements-compare.txt"
EXIT_ABSENT = 3
# Bytes compressed at once: as much as keeps ZipNN at full speed in bounded memory.
PIECE_BYTES = 256 << 20
ZIPNN_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}


def is_installed() -> bool:
    """Whether ZipNN can be imported."""
    return importlib.util.find_spec("zipnn") is not None


def make_coder(dtype: str, threads: int) -> Any:
    """Makes ZipNN's coder for weights of a safetensors dtype."""
    from zipnn import ZipNN  # noqa: PLC0415  (it may be absent, and takes seconds to import)

    return ZipNN(bytearray_dtype=ZIPNN_DTYPES.get(dtype, "bfloat16"), threads=threads)


def pieces(file: BinaryIO) -> Iterator[bytearray]:
    """Reads a file in pieces; each is a copy that the coder may spoil."""
    while piece := file.read(PIECE_BYTES):
        yield bytearray(piece)


def measure(path: Path, threads: int) -> dict[str, Any]:
    """Compresses and decompresses a file in memory."""
    coder = make_coder(main_dtype(path), threads)
    report = {"bytes": 0, "compressed_bytes": 0, "compress_seconds": 0.0, "decompress_seconds": 0.0, "exact": True}
    with path.open("rb") as file:
        for piece in pieces(file):
            original = bytes(piece)
            start = time.perf_counter()
            packed = bytes(coder.compress(piece))
            middle = time.perf_counter()
            back = coder.decompress(packed)
            report["decompress_seconds"] += time.perf_counter() - middle
            report["compress_seconds"] += middle - start
            report["bytes"] += len(original)
            report["compressed_bytes"] += len(packed)
            report["exact"] &= bytes(back) == original
    return report


def compress(path: Path, output: Path, threads: int) -> None:
    """Writes a file's dtype, then its compressed pieces, each with its length before it."""
    dtype = main_dtype(path)
    coder = make_coder(dtype, threads)
    with path.open("rb") as file, output.open("xb") as packed:
        packed.write(dtype.encode().ljust(8))
        for piece in pieces(file):
            data = bytes(coder.compress(piece))
            packed.write(struct.pack("<Q", len(data)) + data)


def decompress(path: Path, output: Path, threads: int) -> None:
    """Undoes `compress`; raises ValueError for a file that is not of its making."""
    with path.open("rb") as packed, output.open("xb") as file:
        dtype, left = packed.read(8), path.stat().st_size - 8
        coder = make_coder(dtype.decode(errors="replace").strip(), threads)
        while left > 0:
            length = struct.unpack("<Q", packed.read(8).ljust(8, b"\xff"))[0]
            left -= 8 + length
            if left < 0:
                raise ValueError(f"{path}: not a file that was compressed here, or cut off")
            file.write(coder.decompress(packed.read(length)))


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("measure", "compress and decompress a file in memory, print JSON"),
        ("compress", "compress a file"),
        ("decompress", "decompress a file"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("file", type=Path)
        if name != "measure":
            command.add_argument("output", type=Path, help="file to write; must not exist")
        command.add_argument("--threads", type=thread_count, default=1, help="threads of ZipNN (default: 1)")
    return parser.parse_args()


def main() -> int:
    """Runs the program; returns its exit code: 1 for a file error, 3 if ZipNN is not installed."""
    arguments = parse_arguments()
    if not is_installed():
        print(f"zipnn_exp: {ABSENT}", file=sys.stderr)
        return EXIT_ABSENT
    try:
        if arguments.command == "measure":
            print(json.dumps(measure(arguments.file, arguments.threads)))
        elif arguments.command == "compress":
            compress(arguments.file, arguments.output, arguments.threads)
        else:
            decompress(arguments.file, arguments.output, arguments.threads)
    except (OSError, ValueError) as error:
        print(f"zipnn_exp: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
