#!/usr/bin/env python3
"""Compares ways to keep a family of models: one table and one figure, from the same files in the same run.

The family is that of a zipllm config.json, or a directory of models. Every method stores the whole family and gives it
back; the methods take turns, and what comes back is compared with the original byte by byte. Each run is a line of
`OUTPUT/compare.jsonl`; `comparison.md`, `comparison.json` and the figure show the last session of every label there.
Throughput is the family's bytes by wall time, in GB/s (1e9 bytes a second); data reduction is the share of the family's
bytes that the store saves.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EXPERIMENT = Path(__file__).resolve().parent
sys.path.insert(0, str(EXPERIMENT.parent / "py_lib"))

from packages import stop_without  # noqa: E402

try:
    from comparison import draw, last_records, last_sessions, markdown, summarize
except ImportError as missing:
    raise stop_without(missing) from None
from counts import repeat_count, thread_count  # noqa: E402
from model_list import directory_model, find_model, read_models  # noqa: E402
from programs import ProgramError, machine, run_json  # noqa: E402
from records import append_record, read_records, write_records  # noqa: E402
from settings import path_setting, read_object  # noqa: E402
from stores import FAMILY, METHODS, list_files  # noqa: E402

RECORDS = "compare.jsonl"
TABLE = "comparison.md"
SUMMARY = "comparison.json"
FIGURE = "comparison.png"


@dataclass(frozen=True)
class Family:
    """Models to keep, by the name of their copy: their directories, ids, and the copies of their bases."""

    directories: dict[str, Path]
    models: dict[str, str]
    bases: dict[str, str]


def make_family(directories: dict[str, Path], mapping: dict[str, list[str]]) -> Family:
    """Makes a family of model ids with their directories and the mapping of bases to fine-tunes."""
    names = {model: model.replace("/", "--") for model in directories}
    bases = {
        names[tune]: names[base] for base, tunes in mapping.items() for tune in tunes if {base, tune} <= set(names)
    }
    return Family(
        {names[model]: path for model, path in directories.items()},
        {name: model for model, name in names.items()},
        bases,
    )


def read_config(config: Path) -> Family:
    """Reads the listed models and their bases from a zipllm config; without a `base_ft_path` the first is the base.

    Raises ValueError, naming file and key, and OSError.
    """
    settings = read_object(config)
    listing = path_setting(config, settings, "models_to_process")
    root = path_setting(config, settings, "model_dir")
    models = read_models([listing])
    if not models:
        raise ValueError(f"{listing}: no model is listed ('models_to_process' of {config})")
    mapping = {models[0]: models[1:]}
    if "base_ft_path" in settings:
        path = path_setting(config, settings, "base_ft_path")
        mapping = read_object(path)
        for base, tunes in mapping.items():
            if not isinstance(tunes, list) or not all(isinstance(tune, str) for tune in tunes):
                raise ValueError(f"{path}: {base!r} has to be a list of models")
    try:
        directories = {model: find_model(root, model) for model in models}
    except ValueError as error:
        raise ValueError(f"{error} (listed in {listing})") from None
    return make_family(directories, mapping)


def scan_directory(root: Path) -> Family:
    """Takes every directory below `root` as a model; the first with "base" in its name, else the first, is the base.

    Raises ValueError and OSError.
    """
    found = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not found:
        raise ValueError(f"{root}: has no directories of models")
    base = next((path for path in found if "base" in path.name), found[0])
    directories = {directory_model(path.name): path for path in sorted(found, key=lambda path: path != base)}
    first, *others = directories
    return make_family(directories, {first: others})


def lay_out(family: Family, work: Path) -> Path:
    """Links the family's files into one directory, so that all methods see the same; copies where links do not work."""
    models = work / "models"
    for name, directory in family.directories.items():
        for path in list_files(directory):
            twin = models / name / path.relative_to(directory)
            twin.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path.resolve(), twin)
            except OSError:
                shutil.copyfile(path, twin)
    (work / FAMILY).write_text(json.dumps({"models": family.models, "bases": family.bases}))
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
    """Stores the family with one method and restores it; returns what was measured.

    A method that cannot restore what it stored is not exact, and has no restore time. Raises ProgramError if it
    cannot store the family.
    """
    store, output = work / f"store-{name}", work / f"restored-{name}"
    options: list[str | Path] = ["--threads", str(arguments.threads)]
    if arguments.bin_dir:
        options += ["--bin-dir", arguments.bin_dir.resolve()]
    script = EXPERIMENT / "stores.py"
    restore: dict[str, Any] = {"seconds": None, "peak_memory_bytes": None}
    exact = False
    try:
        ingest = run_json([sys.executable, script, name, "ingest", models, store, *options])
        stored_bytes = tree_bytes(store)
        try:
            restore = run_json([sys.executable, script, name, "restore", store, output, *options])
            exact = is_same(models, output)
        except ProgramError as error:
            print(f"compare: {name} cannot restore what it stored: {error}", file=sys.stderr)
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
    family = read_config(arguments.config) if arguments.config else scan_directory(arguments.models_dir)
    source = arguments.config.resolve().parent if arguments.config else arguments.models_dir.resolve()
    names = usable(arguments.methods, arguments.bin_dir)
    session = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    failed = 0
    with tempfile.TemporaryDirectory(prefix="compare-", dir=arguments.work) as scratch:
        models = lay_out(family, Path(scratch))
        known = {
            "session": session,
            "label": arguments.label or source.name,
            "original_bytes": tree_bytes(models),
            "models": len(family.models),
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
                share = measured["stored_bytes"] / known["original_bytes"]
                print(f"run {repeat}, {name}: {share:.4f} stored, exact: {measured['exact']}", flush=True)
    return failed


def report(arguments: argparse.Namespace) -> None:
    """Writes and prints the table, and draws the figure."""
    records = last_records(read_records(arguments.output / RECORDS))
    if not records:
        raise ValueError(f"{arguments.output / RECORDS}: no results")
    if arguments.keep_last:
        write_records(arguments.output / RECORDS, records)
    sessions = last_sessions(records)
    labels = {name: method.label for name, method in METHODS.items()}
    table = markdown(sessions, labels)
    (arguments.output / TABLE).write_text(table, encoding="utf-8")
    summary = json.dumps([summarize(runs, labels) for runs in sessions], indent=2)
    (arguments.output / SUMMARY).write_text(summary + "\n", encoding="utf-8")
    draw(sessions, labels, arguments.figure or arguments.output / FIGURE)
    print(table)


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--config", type=Path, help="zipllm's config.json: the family to keep")
    source.add_argument("--models-dir", type=Path, help="or a directory with one directory a model")
    parser.add_argument("--label", help="the family's name in table and figure (default: that of the folder)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="methods (default: all)")
    parser.add_argument("--threads", type=thread_count, default=os.cpu_count() or 1, help="threads (default: CPUs)")
    parser.add_argument("--repeat", type=repeat_count, default=3, help="runs of each method (default: 3)")
    parser.add_argument("--output", type=Path, default=EXPERIMENT / "results", help="directory for the results")
    parser.add_argument("--figure", type=Path, help=f"where to draw the figure (default: OUTPUT/{FIGURE})")
    parser.add_argument("--work", type=Path, help="directory with room for twice the family (default: the system's)")
    parser.add_argument("--bin-dir", type=Path, help="where the built programs are (default: target/release)")
    parser.add_argument("--keep-last", action="store_true", help="drop earlier sessions of a label from the results")
    parser.add_argument("--draw-only", action="store_true", help="only write table and figure from earlier results")
    arguments = parser.parse_args()
    if not (arguments.config or arguments.models_dir or arguments.draw_only):
        parser.error("one of --config, --models-dir and --draw-only is required")
    return arguments


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
