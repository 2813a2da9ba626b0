#!/usr/bin/env python3
"""Measures how fast `restore` brings a model back, by number of threads, and draws it.

Each run is one line of `restore_throughput.csv`; `--analyze` and `--analyze-only` draw the last session's runs as
`restore_throughput.png`. Throughput is restored bytes by wall time as `restore --json` gives them, verification
included, in GB/s (1e9 bytes a second).
"""

from __future__ import annotations

import argparse
import csv
import datetime
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "py_lib"))

from packages import stop_without

try:
    import pandas as pd

    from figures import caption, legend_below, panels, save, size_text, spread_line, thread_axis
except ImportError as missing:
    raise stop_without(missing) from None
from counts import repeat_count, thread_count
from model_list import check_model_id, read_models
from programs import ProgramError, find_program, machine, run_json
from settings import path_setting, read_object

CSV_NAME = "restore_throughput.csv"
PNG_NAME = "restore_throughput.png"
DROP_CACHES = Path("/proc/sys/vm/drop_caches")
COLUMNS = [
    "session",
    "model",
    "threads",
    "repeat",
    "bytes",
    "seconds",
    "gigabytes_per_second",
    "peak_memory_mib",
    "cache_dropped",
]


def choose_model(config: Path) -> str:
    """Returns the first fine-tune of the list of models, whose base has to be decoded too; else the only model.

    Raises ValueError, naming file and key, or OSError.
    """
    listing = path_setting(config, read_object(config), "models_to_process")
    models = read_models([listing])
    if not models:
        raise ValueError(f"{listing}: no model is listed ('models_to_process' of {config})")
    return models[1] if len(models) > 1 else models[0]


def drop_caches() -> None:
    """Makes the kernel forget what it read from disk; raises ProgramError where it may not, as in a container."""
    os.sync()
    try:
        DROP_CACHES.write_text("3\n")
    except OSError as error:
        raise ProgramError(f"--drop-cache: {DROP_CACHES} cannot be written: {error.strerror}") from None


def restore_once(program: Path, config: Path, model: str, threads: int, scratch: Path) -> dict[str, Any]:
    """Restores a model into a scratch directory and returns what `restore` reports."""
    output = Path(tempfile.mkdtemp(prefix="restored-", dir=scratch))
    try:
        return run_json([program, config, model, output / "model", "--threads", str(threads), "--json"])
    finally:
        shutil.rmtree(output, ignore_errors=True)


def as_row(report: dict[str, Any], **known: object) -> dict[str, Any]:
    """Turns a report into a line of the CSV file; raises ProgramError for a report of another kind."""
    try:
        size, seconds = int(report["bytes"]), float(report["seconds"])
        memory = float(report["peak_memory_bytes"]) / 2**20
    except (KeyError, TypeError, ValueError) as error:
        raise ProgramError(f"the JSON of restore lacks {error}") from None
    if seconds <= 0:
        raise ProgramError("the JSON of restore gives no time")
    speed = size / seconds / 1e9
    row = known | {"bytes": size, "seconds": seconds, "gigabytes_per_second": speed, "peak_memory_mib": memory}
    return {column: row[column] for column in COLUMNS}


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Adds a line to the CSV file, so that a break loses no earlier run."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow(row)


def measure(arguments: argparse.Namespace, model: str) -> None:
    """Runs all experiments; the thread counts take turns, so that a slow minute of the machine hits all of them."""
    program = find_program("restore", arguments.bin_dir)
    session = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    arguments.output.mkdir(parents=True, exist_ok=True)
    if not arguments.drop_cache:
        restore_once(program, arguments.config, model, max(arguments.threads), arguments.output)  # fills the cache
    for repeat in range(1, arguments.repeat + 1):
        for threads in arguments.threads:
            if arguments.drop_cache:
                drop_caches()
            report = restore_once(program, arguments.config, model, threads, arguments.output)
            known = {"session": session, "model": model, "threads": threads, "repeat": repeat}
            row = as_row(report, cache_dropped=arguments.drop_cache, **known)
            append_row(arguments.output / CSV_NAME, row)
            print(f"{threads:3} threads, run {repeat}: {row['gigabytes_per_second']:.3f} GB/s", flush=True)


def read_results(path: Path, model: str | None) -> pd.DataFrame:
    """Reads the last session's runs, of one model if it is named; raises ValueError if there are none."""
    if not path.exists():
        raise ValueError(f"{path}: no results; run without --analyze-only first")
    try:
        results = pd.read_csv(path)
    except ValueError as error:
        raise ValueError(f"{path}: not a table of results: {error}") from None
    if missing := set(COLUMNS) - set(results.columns):
        raise ValueError(f"{path}: columns are missing: {', '.join(sorted(missing))}")
    if model:
        results = results[results["model"] == model]
    if results.empty:
        raise ValueError(f"{path}: no runs{f' of {model}' if model else ''}")
    return results[results["session"] == results["session"].iloc[-1]]


def add_efficiency(results: pd.DataFrame) -> pd.DataFrame:
    """Adds `efficiency`: throughput by (threads x throughput of one thread), which is 1 for perfect scaling.

    The smallest thread count stands in for one thread where that was not run.
    """
    least = results["threads"].min()
    single = results.loc[results["threads"] == least, "gigabytes_per_second"].median() / least
    return results.assign(efficiency=results["gigabytes_per_second"] / (results["threads"] * single))


def summary(results: pd.DataFrame) -> pd.DataFrame:
    """Medians and spread by thread count."""
    groups = results.groupby("threads")
    return pd.DataFrame(
        {
            "runs": groups.size(),
            "GB/s": groups["gigabytes_per_second"].median(),
            "min": groups["gigabytes_per_second"].min(),
            "max": groups["gigabytes_per_second"].max(),
            "efficiency": groups["efficiency"].median(),
            "peak MiB": groups["peak_memory_mib"].max(),
        }
    )


def draw(results: pd.DataFrame, path: Path) -> None:
    """Draws throughput and efficiency against threads."""
    threads = sorted(results["threads"].unique().tolist())
    figure, (speed, efficiency) = panels(2)
    spread_line(speed, results, "gigabytes_per_second", "throughput")
    speed.set_ylabel("restored, GB/s")
    speed.set_ylim(bottom=0)
    spread_line(efficiency, results, "efficiency", "efficiency", place=1)
    efficiency.axhline(1, color="#999999", linestyle="--", linewidth=1, label="perfect scaling")
    efficiency.set_ylabel(f"efficiency, {threads[0]} thread{'s' if threads[0] > 1 else ''} = 1")
    efficiency.set_ylim(0, max(1.1, results["efficiency"].max() * 1.1))
    for axes in (speed, efficiency):
        thread_axis(axes, threads, os.cpu_count())
    legend_below(figure, speed, efficiency)
    cache = "cold" if results["cache_dropped"].any() else "warm"
    caption(
        figure,
        f"Restore of {results['model'].iloc[0]}, {size_text(results['bytes'].iloc[0])}, {cache} cache",
        f"{machine()}; line: median, band: least to greatest, dots: runs",
    )
    save(figure, path)


def analyze(output: Path, model: str | None) -> None:
    """Prints a table of the last session, and draws it."""
    results = add_efficiency(read_results(output / CSV_NAME, model))
    print(summary(results).to_string(float_format=lambda value: f"{value:.3f}"))
    draw(results, output / PNG_NAME)
    print(output / PNG_NAME)


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True, help="zipllm's config.json")
    parser.add_argument("--threads", type=thread_count, nargs="+", default=[1, 2, 4, 8], help="thread counts to try")
    parser.add_argument("--model", metavar="ORG/NAME", help="model to restore (default: the list's first fine-tune)")
    parser.add_argument("--output", type=Path, default=Path("restore_results"), help="directory for the results")
    parser.add_argument("--repeat", type=repeat_count, default=3, help="runs of each thread count (default: 3)")
    parser.add_argument("--drop-cache", action="store_true", help="empty the page cache before each run; needs root")
    parser.add_argument("--analyze", action="store_true", help="draw the results after the runs")
    parser.add_argument("--analyze-only", action="store_true", help="draw the results of earlier runs")
    parser.add_argument("--bin-dir", type=Path, help="where the built programs are (default: target/release)")
    arguments = parser.parse_args()
    if arguments.drop_cache and os.geteuid() != 0:
        parser.error("--drop-cache needs root: run it with sudo")
    arguments.threads = sorted(set(arguments.threads))
    return arguments


def main() -> int:
    """Runs the program; returns its exit code: 1 for a failed run, 2 for wrong arguments or settings."""
    arguments = parse_arguments()
    try:
        path_setting(arguments.config, read_object(arguments.config), "models_to_process")
        named = check_model_id(arguments.model) if arguments.model else None
        if not arguments.analyze_only:
            measure(arguments, named or choose_model(arguments.config))
        if arguments.analyze or arguments.analyze_only:
            analyze(arguments.output, named)
    except ValueError as error:
        print(f"restore_throughput_analysis: {error}", file=sys.stderr)
        return 2
    except FileNotFoundError as error:
        print(f"restore_throughput_analysis: {error.filename}: no such file", file=sys.stderr)
        return 2
    except (OSError, ProgramError) as error:
        print(f"restore_throughput_analysis: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
