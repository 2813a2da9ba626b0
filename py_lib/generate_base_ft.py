#!/usr/bin/env python3
"""Writes the mapping of base models to fine-tunes that zipllm's `base_ft_path` names.

The first model of a list is the base of the others; several families in one list are parted by blank lines.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from model_list import read_families


def base_mapping(families: list[list[str]]) -> dict[str, list[str]]:
    """Maps each family's base to its fine-tunes; families with one base are joined.

    Raises ValueError for a model that would have two bases or be its own.
    """
    mapping: dict[str, list[str]] = {}
    base_of: dict[str, str] = {}
    for base, *tunes in families:
        known = mapping.setdefault(base, [])
        for tune in tunes:
            if tune == base:
                raise ValueError(f"{tune} is listed as a fine-tune of itself")
            if base_of.setdefault(tune, base) != base:
                raise ValueError(f"{tune} has two bases, {base_of[tune]} and {base}")
            if tune not in known:
                known.append(tune)
    return mapping


def write_json(path: Path, value: object) -> None:
    """Writes a JSON file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        json.dump(value, file, indent=2)
        file.write("\n")
    written = Path(file.name)
    written.chmod(0o644)
    written.replace(path)


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, help="list of models, one org/name a line, the base first")
    parser.add_argument("output", type=Path, help="mapping to write, as in base_ft.json")
    return parser.parse_args()


def main() -> int:
    """Runs the program; returns its exit code."""
    arguments = parse_arguments()
    try:
        families = read_families(arguments.models)
        if not families:
            raise ValueError(f"{arguments.models}: no model is listed")
        mapping = base_mapping(families)
        write_json(arguments.output, mapping)
    except (OSError, ValueError) as error:
        print(f"generate_base_ft: {error}", file=sys.stderr)
        return 2
    tunes = sum(len(models) for models in mapping.values())
    print(f"{arguments.output}: {len(mapping)} base model(s), {tunes} fine-tune(s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
