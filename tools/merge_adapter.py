#!/usr/bin/env python3
"""Trains a LoRA adapter on a small causal language model with PEFT, merges it, and writes the merged model.

What `examples/lowrank` and the store make of merges by the library that makes most of them. Needs
requirements-compare.txt, in an environment of its own:

    python3 tools/merge_adapter.py BASE OUT [--safe]

OUT gets model.safetensors (BF16), config.json and, with --keep-adapter, PEFT's adapter files. The tokens are random:
the optimiser is a real one, there is no data set. PEFT adds the F32 product to BF16 weights and rounds once; with
--safe (its `safe_merge`) it rounds the product first.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

# Tokens of a step: sequences, and the length of each.
BATCH = (4, 64)


def train(model: torch.nn.Module, steps: int, learning_rate: float, seed: int) -> None:
    """Trains what requires gradients, on random tokens."""
    generator = torch.Generator().manual_seed(seed)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate)
    for _ in range(steps):
        tokens = torch.randint(model.config.vocab_size, BATCH, generator=generator)
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def merged(base: Path, adapter: Path, is_safe: bool) -> dict[str, torch.Tensor]:
    """Returns the tensors of the base, loaded as BF16, with the adapter merged into it."""
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16), adapter)
    return model.merge_and_unload(safe_merge=is_safe).state_dict()


def write(base: Path, out: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Writes those tensors that the base's file has, in its names and shapes, and copies the config."""
    names = load_file(base / "model.safetensors").keys()
    save_file({name: tensors[name].contiguous().clone() for name in names}, out / "model.safetensors", {"format": "pt"})
    shutil.copyfile(base / "config.json", out / "config.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path, help="a model directory with a BF16 model.safetensors")
    parser.add_argument("out", type=Path, help="the directory to write; it must not be there yet")
    parser.add_argument("--safe", action="store_true", help="round products before they are added")
    parser.add_argument("--rank", type=int, default=16, help="default: 16")
    parser.add_argument("--steps", type=int, default=20, help="optimiser's steps (default: 20)")
    parser.add_argument("--learning-rate", type=float, default=2e-4, help="default: 2e-4")
    parser.add_argument("--seed", type=int, default=1, help="of the adapter and the tokens (default: 1)")
    parser.add_argument("--keep-adapter", action="store_true", help="leave the adapter's files beside the merged model")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    arguments.out.mkdir(parents=True)
    model = AutoModelForCausalLM.from_pretrained(arguments.base, dtype=torch.float32)
    config = LoraConfig(r=arguments.rank, lora_alpha=2 * arguments.rank, target_modules="all-linear")
    model = get_peft_model(model, config)
    train(model, arguments.steps, arguments.learning_rate, arguments.seed)
    model.save_pretrained(arguments.out)
    tensors = merged(arguments.base, arguments.out, arguments.safe)
    write(arguments.base, arguments.out, tensors)
    if not arguments.keep_adapter:
        for name in ("adapter_model.safetensors", "adapter_config.json", "README.md"):
            (arguments.out / name).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
