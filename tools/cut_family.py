#!/usr/bin/env python3
"""Cuts a few tensors, and the first rows of some, out of a family of models.

The same cut is made of every model directory under SOURCE; config.json and README.md are kept. Used to make
testdata/real from a family of 30 MB models:

    python3 tools/cut_family.py SOURCE testdata/real/models
"""

import argparse
import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# Tensor and the rows kept of it; None keeps all.
CUT: dict[str, int | None] = {
    "model.embed_tokens.weight": 192,
    "model.layers.2.input_layernorm.weight": None,
    "model.layers.2.post_attention_layernorm.weight": None,
    "model.layers.2.self_attn.k_proj.weight": None,
    "model.layers.2.self_attn.o_proj.weight": 288,
    "model.layers.2.self_attn.v_proj.weight": None,
    "model.norm.weight": None,
}
KEPT_FILES = ("config.json", "README.md")
BF16 = np.dtype("<u2")

Tensors = dict[str, npt.NDArray[np.uint16]]


def read_cut(path: Path) -> Tensors:
    """Reads the tensors of CUT from a BF16 safetensors file."""
    data = np.memmap(path, dtype=np.uint8, mode="r")
    (header_size,) = struct.unpack("<Q", data[:8].tobytes())
    header: dict[str, Any] = json.loads(data[8 : 8 + header_size].tobytes())
    tensors: Tensors = {}
    for name, rows in CUT.items():
        entry = header[name]
        if entry["dtype"] != "BF16":
            raise SystemExit(f"{path}: {name}: not BF16 but {entry['dtype']}")
        start, end = (8 + header_size + offset for offset in entry["data_offsets"])
        tensors[name] = data[start:end].view(BF16).reshape(entry["shape"])[:rows]
    return tensors


def write(path: Path, tensors: Tensors) -> None:
    """Writes a safetensors file with its header padded to 8 bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, values in tensors.items():
        header[name] = {
            "dtype": "BF16",
            "shape": list(values.shape),
            "data_offsets": [offset, offset + values.nbytes],
        }
        offset += values.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for values in tensors.values():
            out.write(values.tobytes())


def cut_model(source: Path, target: Path) -> None:
    """Writes the cut of one model directory."""
    target.mkdir(parents=True)
    write(target / "model.safetensors", read_cut(source / "model.safetensors"))
    for name in KEPT_FILES:
        shutil.copyfile(source / name, target / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="directory of model directories, each with a model.safetensors")
    parser.add_argument("target", type=Path, help="directory to write the cuts to; the models must not be there yet")
    arguments = parser.parse_args()
    models = sorted(path.parent for path in arguments.source.glob("*/model.safetensors"))
    if not models:
        parser.error(f"{arguments.source}: no directory with a model.safetensors")
    for model in models:
        cut_model(model, arguments.target / model.name)
        print(arguments.target / model.name)


if __name__ == "__main__":
    main()
