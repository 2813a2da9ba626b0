"""Reads weights with the independent `safetensors` package."""

from __future__ import annotations

from pathlib import Path

import safetensors

Tensor = tuple[str, tuple[int, ...], bytes]


def load(path: Path) -> dict[str, Tensor]:
    """Returns dtype, shape and bytes of each tensor of a file."""
    return {
        name: (tensor["dtype"], tuple(tensor["shape"]), bytes(tensor["data"]))
        for name, tensor in safetensors.deserialize(path.read_bytes())
    }
