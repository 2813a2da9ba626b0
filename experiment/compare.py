#!/usr/bin/env python3
"""Compares ways to keep a family of models: one table and one figure, from the same files in the same run.

The family is that of a zipllm config.json. Every method stores the whole family and gives it back; the methods take
turns, and what comes back is compared with the original byte by byte. Each run is a line of `OUTPUT/compare.jsonl`;
the table and the figure show the last session of every label there. Throughput is the family's bytes by wall time, in
GB/s (1e9 bytes a second); data reduction is the share of the family's bytes that the store saves.
"""

from __future__ import annotations

import argparse
import datetime
import filecmp
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

EXPERIMENT = Path(__file__).resolve().parent
sys.path.insert(0, str(EXPERIMENT.parent / "py_lib"))

from comparison import draw, last_sessions, markdown  # noqa: E402
from model_list import model_directory, read_models  # noqa: E402
from programs import ProgramError, machine, run_json  # noqa: E402
from records import append_record, read_records  # noqa: E402
from stores import FAMILY, METHODS, list_files  # noqa: E402

RECORDS = "compare.jsonl"
TABLE = "comparison.md"
FIGURE = "comparison.png"


def read_family(config: Path) -> dict[str, Any]:
    """Reads the listed models' directories and their bases from a zipllm config.

    Returns `directories` (name of the copy: path), `models` (name of the copy: id) and `bases` (copy: copy of its
    base). Raises ValueError and OSError.
    """
    settings = json.loads(config.read_text(encoding="utf-8"))
    folder = config.resolve().parent
    try:
        models = read_models([folder / settings["models_to_process"]])
        mapping = json.loads((folder / settings["base_ft_path"]).read_text(encoding="utf-8"))
        root = folder / settings["model_dir"]
    except KeyError as error:
        raise ValueError(f"{config}: the key {error} is missing") from None
    names = {model: model.replace("/", "--") for model in models}
    directories = {names[model]: model_directory(root, model) for model in models}
    if absent := [path for path in directories.values() if not path.is_dir()]:
        raise ValueError(f"{absent[0]}: no such directory (listed in {settings['models_to_process']})")
    bases = {
        names[tune]: names[base] for base, tunes in mapping.items() for tune in tunes if {base, tune} <= set(names)
    }
    return {"directories": directories, "models": {names[model]: model for model in models}, "bases": bases}


def lay_out(family: dict[str, Any], work: Path) -> Path:
    """Links the family's files into one directory, so that all methods see the same; copies where links do not work."""
    models = work / "models"
    for name, directory in family["directories"].items():
        for path in list_files(directory):
            twin = models / name / path.relative_to(directory)
            twin.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path.resolve(), twin)
            except OSError:
                shutil.copyfile(path, twin)
    (work / FAMILY).write_text(json.dumps({key: family[key] for key in ("models", "bases")}))
    return models


def tree_bytes(root: Path) -> int:
    """Adds up the bytes of all files below a directory."""
    return sum(path.stat().st_size for path in list_files(root))


def is_same(original: Path, copy: Path) -> bool:
    """Whether two directories hold the same files with the same bytes."""
    names = [path.relative_to(original).as_posix() for path in list_files(original)]
    if names != [path.relative_to(copy).as_posix() for path in list_files(copy)]:
        return False
    return filecmp.cmpfiles(original, copy, names, shallow=False)[0] == names


def run_method(name: str, models: Path, work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Stores the family with one method and restores it; returns what was measured."""
    store, output = work / f"store-{name}", work / f"restored-{name}"
    options: list[str | Path] = ["--threads", str(arguments.threads)]
    if arguments.bin_dir:
        options += ["--bin-dir", arguments.bin_dir.resolve()]
    script = EXPERIMENT / "stores.py"
    try:
        ingest = run_json([sys.executable, script, name, "ingest", models, store, *options])
        stored_bytes = tree_bytes(store)
        restore = run_json([sys.executable, script, name, "restore", store, output, *options])
        exact = is_same(models, output)
    finally:
        shutil.rmtree(store, ignore_errors=True)
        shutil.rmtree(output, ignore_errors=True)
    return {
        "stored_bytes": stored_bytes,
        "ingest_seconds": ingest["seconds"],
        "restore_seconds": restore["seconds"],
        "ingest_peak_memory_bytes": ingest["peak_memory_bytes"],
        "restore_peak_memory_bytes": restore["peak_memory_bytes"],
        "exact": exact,
    }


def usable(names: list[str], bin_dir: Path | None) -> list[str]:
    """Leaves out the methods that lack something here, with a word for each."""
    kept = []
    for name in names:
        if reason := METHODS[name].missing(bin_dir):
            print(f"compare: without {METHODS[name].label}: {reason}", file=sys.stderr)
        else:
            kept.append(name)
    return kept


def compare(arguments: argparse.Namespace) -> int:
    """Runs all methods; returns how many runs failed."""
    family = read_family(arguments.config)
    names = usable(arguments.methods, arguments.bin_dir)
    session = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    failed = 0
    with tempfile.TemporaryDirectory(prefix="compare-", dir=arguments.work) as scratch:
        models = lay_out(family, Path(scratch))
        original_bytes = tree_bytes(models)
        known = {
            "session": session,
            "label": arguments.label or arguments.config.resolve().parent.name,
            "original_bytes": original_bytes,
            "models": len(family["models"]),
            "threads": arguments.threads,
            "machine": machine(),
        }
        for repeat in range(1, arguments.repeat + 1):
            for name in names:
                try:
                    measured = run_method(name, models, Path(scratch), arguments)
                except ProgramError as error:
                    failed += 1
                    print(f"compare: {name}: {error}", file=sys.stderr)
                    continue
                append_record(arguments.output / RECORDS, known | {"method": name, "repeat": repeat} | measured)
                share = measured["stored_bytes"] / original_bytes
                print(f"run {repeat}, {name}: {share:.4f} stored, exact: {measured['exact']}", flush=True)
    return failed


def report(arguments: argparse.Namespace) -> None:
    """Writes and prints the table, and draws the figure."""
    sessions = last_sessions(read_records(arguments.output / RECORDS))
    if not sessions:
        raise ValueError(f"{arguments.output / RECORDS}: no results")
    labels = {name: method.label for name, method in METHODS.items()}
    table = markdown(sessions, labels)
    (arguments.output / TABLE).write_text(table, encoding="utf-8")
    draw(sessions, labels, arguments.figure or arguments.output / FIGURE)
    print(table)


def positive(text: str) -> int:
    """Reads a number of at least 1."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError("has to be at least 1")
    return int(text)


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True, help="zipllm's config.json: the family to keep")
    parser.add_argument("--label", help="the family's name in table and figure (default: the config's folder)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="methods (default: all)")
    parser.add_argument("--threads", type=positive, default=os.cpu_count() or 1, help="threads (default: CPUs)")
    parser.add_argument("--repeat", type=positive, default=3, help="runs of each method (default: 3)")
    parser.add_argument("--output", type=Path, default=EXPERIMENT / "results", help="directory for the results")
    parser.add_argument("--figure", type=Path, help=f"where to draw the figure (default: OUTPUT/{FIGURE})")
    parser.add_argument("--work", type=Path, help="directory with room for twice the family (default: the system's)")
    parser.add_argument("--bin-dir", type=Path, help="where the built programs are (default: target/release)")
    parser.add_argument("--draw-only", action="store_true", help="only write table and figure from earlier results")
    return parser.parse_args()


def main() -> int:
    """Runs the program; returns its exit code: 1 if a method failed, 2 for wrong arguments or settings."""
    arguments = parse_arguments()
    try:
        failed = 0 if arguments.draw_only else compare(arguments)
        report(arguments)
    except (OSError, ValueError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
