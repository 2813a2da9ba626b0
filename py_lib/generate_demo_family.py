#!/usr/bin/env python3
"""Writes a small generated family of models: a base and three fine-tunes, in BF16 safetensors files.

It needs neither a network nor anything but Python's standard library. The weights are drawn from a normal
distribution, the changes of the fine-tunes likewise, with a size as ordinary training leaves it; they are for trying
things out, not for figures about compression.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import struct
import sys
from array import array
from collections.abc import Callable
from pathlib import Path

BASE = "demo/base"
# Fine-tune: (standard deviation of the change of a weight, names of tensors that are frozen begin with).
TUNES = {
    "demo/tune-light": (1e-5, ()),
    "demo/tune-typical": (1e-4, ()),
    "demo/tune-last-layer": (1e-4, ("model.embed", "model.layers.0", "model.layers.1")),
}
WEIGHT_STD = 0.03
WIDTH, INNER, VOCABULARY, LAYERS = 256, 768, 4096, 3
TABLE = 4096  # values that a distribution is drawn from
Tensors = dict[str, array]


def shapes() -> dict[str, tuple[int, ...]]:
    """Returns the names and shapes of the tensors, like a small Llama's."""
    result: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, WIDTH)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            result[f"{prefix}.self_attn.{name}.weight"] = (WIDTH, WIDTH)
        result[f"{prefix}.mlp.gate_proj.weight"] = (INNER, WIDTH)
        result[f"{prefix}.mlp.up_proj.weight"] = (INNER, WIDTH)
        result[f"{prefix}.mlp.down_proj.weight"] = (WIDTH, INNER)
        result[f"{prefix}.input_layernorm.weight"] = (WIDTH,)
    result["model.norm.weight"] = (WIDTH,)
    return result


def to_bits(value: float) -> int:
    """Rounds a number to bfloat16; returns its 16 bits."""
    bits = struct.unpack("<I", struct.pack("<f", value))[0]
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) & 0xFFFF


def from_bits(bits: int) -> float:
    """Returns the number that the 16 bits of a bfloat16 stand for."""
    return struct.unpack("<f", struct.pack("<I", bits << 16))[0]


def quantiles(std: float) -> list[float]:
    """Returns evenly likely values of a normal distribution."""
    normal = statistics.NormalDist(0, std)
    return [normal.inv_cdf((n + 0.5) / TABLE) for n in range(TABLE)]


def draws(source: random.Random, count: int) -> array:
    """Draws places in a table of quantiles, at random."""
    numbers = array("H", source.randbytes(2 * count))
    return array("H", (number % TABLE for number in numbers))


def base_tensors(source: random.Random) -> Tensors:
    """Draws the base model's weights, as bits of bfloat16."""
    table = [to_bits(value) for value in quantiles(WEIGHT_STD)]
    return {
        name: array("H", map(table.__getitem__, draws(source, math.prod(shape)))) for name, shape in shapes().items()
    }


def stepper(std: float) -> Callable[[int], list[int]]:
    """Returns a function from a weight's bits to the bits it may have after training, each as likely."""
    changes = quantiles(std)
    known: dict[int, list[int]] = {}

    def steps(bits: int) -> list[int]:
        if bits not in known:
            known[bits] = [to_bits(from_bits(bits) + change) for change in changes[:: TABLE // 64]]
        return known[bits]

    return steps


def tuned_tensors(base: Tensors, std: float, frozen: tuple[str, ...], source: random.Random) -> Tensors:
    """Returns the base's weights after a training that changed each by about `std`."""
    steps = stepper(std)
    result = {}
    for name, bits in base.items():
        if frozen and name.startswith(frozen):
            result[name] = bits
            continue
        result[name] = array(
            "H", (steps(old)[draw % 64] for old, draw in zip(bits, source.randbytes(len(bits)), strict=True))
        )
    return result


def write_safetensors(path: Path, tensors: Tensors) -> None:
    """Writes tensors in the safetensors format."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in shapes().items():
        end = position + 2 * len(tensors[name])
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in shapes():
            bits = tensors[name]
            if sys.byteorder == "big":
                bits = array("H", bits)
                bits.byteswap()
            bits.tofile(file)


def write_model(directory: Path, model: str, tensors: Tensors) -> None:
    """Writes a model's directory: weights, settings, a tokenizer and a card."""
    directory.mkdir(parents=True, exist_ok=True)
    write_safetensors(directory / "model.safetensors", tensors)
    settings = {"architectures": ["LlamaForCausalLM"], "hidden_size": WIDTH, "vocab_size": VOCABULARY}
    (directory / "config.json").write_text(json.dumps(settings, indent=2))
    vocabulary = {f"token{number}": number for number in range(VOCABULARY)}
    (directory / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": vocabulary}}))
    (directory / "README.md").write_text(f"# {model}\n\nGenerated weights, for trying zipllm out.\n")


def write_family(output_dir: Path, seed: int) -> list[str]:
    """Writes all models below a directory, as `org--name`; returns their names, the base first."""
    source = random.Random(seed)
    base = base_tensors(source)
    write_model(output_dir / BASE.replace("/", "--"), BASE, base)
    for model, (std, frozen) in TUNES.items():
        write_model(output_dir / model.replace("/", "--"), model, tuned_tensors(base, std, frozen, source))
    return [BASE, *TUNES]


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output_dir", type=Path, help="directory for the models")
    parser.add_argument("models_txt", type=Path, help="list of the models to write")
    parser.add_argument("--seed", type=int, default=1, help="start of the random numbers (default: 1)")
    return parser.parse_args()


def main() -> int:
    """Runs the program; returns its exit code."""
    arguments = parse_arguments()
    try:
        models = write_family(arguments.output_dir, arguments.seed)
        arguments.models_txt.write_text("\n".join(["# A generated family; the base first.", *models]) + "\n")
    except OSError as error:
        print(f"generate_demo_family: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.output_dir}: {len(models)} models")
    return 0


if __name__ == "__main__":
    sys.exit(main())
