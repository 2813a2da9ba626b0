"""Writes a tiny family of models: a base, two fine-tunes with BF16 weights that differ in low bits, a gated one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

SHAPES = {"embed.weight": (512, 64), "layer.0.weight": (128, 128), "layer.0.bias": (129,), "norm.weight": (64,)}
BASE = "acme/tiny"
LARGE = "acme/large"  # 12 MiB: more than the piece of 10 MiB in which `huggingface_hub` takes what it downloads
TUNES = ("pyland/tiny-python", "rustfolk/tiny_rust-doc")


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Truncates float32 values to the bits of bfloat16, as uint16."""
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def write_safetensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Writes BF16 tensors, given as their uint16 bits, in the safetensors format."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, bits in tensors.items():
        header[name] = {"dtype": "BF16", "shape": bits.shape, "data_offsets": [position, position + bits.nbytes]}
        position += bits.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for bits in tensors.values():
            file.write(bits.astype("<u2").tobytes())


def write_model(directory: Path, tensors: dict[str, np.ndarray]) -> None:
    """Writes a model's directory: weights, settings, tokenizer, a nested and an empty file."""
    directory.mkdir(parents=True)
    write_safetensors(directory / "model.safetensors", tensors)
    (directory / "config.json").write_text(json.dumps({"architectures": ["Tiny"], "hidden_size": 64}))
    (directory / "tokenizer.json").write_text(json.dumps({"vocab": {f"token{n}": n for n in range(6000)}}))
    (directory / "README.md").write_text(f"# {directory.name}\n")
    (directory / "extra").mkdir()
    (directory / "extra" / "merges.txt").write_text("a b\n" * 50)
    (directory / "extra" / "empty.txt").touch()


def write_family(root: Path, random: np.random.Generator) -> None:
    """Writes the family below `root`, as `org/name`."""
    base = {name: random.normal(0, 0.02, shape).astype(np.float32) for name, shape in SHAPES.items()}
    write_model(root / BASE, {name: to_bfloat16(values) for name, values in base.items()})
    for tune in TUNES:
        changed = {name: values * (1 + random.normal(0, 1e-3, values.shape)) for name, values in base.items()}
        write_model(root / tune, {name: to_bfloat16(values) for name, values in changed.items()})
    write_model(root / LARGE, {"zeros.weight": np.zeros((6, 1 << 20), np.uint16)})
    write_model(root / "locked/gate", {"one.weight": to_bfloat16(base["norm.weight"])})
