#!/usr/bin/env python3
"""Measures BitX compression and decompression in memory, by number of threads, and draws it.

The work is done by `examples/benchmark_bitx.rs`, which reads both models first and reports JSON. Throughput is bytes
of the fine-tune's tensors by wall time, in GB/s (1e9 bytes a second). Every run's output is compared with the input.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "py_lib"))

from packages import stop_without

try:
    import pandas as pd

    from figures import caption, legend_below, panels, save, size_text, spread_line, thread_axis
except ImportError as missing:
    raise stop_without(missing) from None
from counts import repeat_count, thread_list
from programs import ProgramError, find_example, machine, run_json

DEFAULT_PREFIX = "bitx_throughput"
GB = 1e9


def as_frame(report: dict[str, Any]) -> pd.DataFrame:
    """Turns the benchmark's report into a table with one line a run; raises ProgramError for one of another kind."""
    try:
        size, compressed = int(report["bytes"]), int(report["compressed_bytes"])
        rows = [
            {
                "threads": int(run["threads"]),
                "repeat": int(run["repeat"]),
                "bytes": size,
                "compressed_bytes": compressed,
                "ratio": compressed / size,
                "compress_seconds": float(run["compress_seconds"]),
                "compress_gigabytes_per_second": size / float(run["compress_seconds"]) / GB,
                **decompression(run, size),
            }
            for run in report["runs"]
        ]
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ProgramError(f"the JSON of benchmark_bitx is of another kind: {error!r}") from None
    if not rows:
        raise ProgramError("the JSON of benchmark_bitx has no runs")
    return pd.DataFrame(rows)


def decompression(run: dict[str, Any], size: int) -> dict[str, Any]:
    """The columns of a run that are about decompression; empty where it was left out."""
    if run.get("decompress_seconds") is None:
        return {}
    seconds = float(run["decompress_seconds"])
    return {
        "decompress_seconds": seconds,
        "decompress_gigabytes_per_second": size / seconds / GB,
        "exact": bool(run["exact"]),
    }


def draw(results: pd.DataFrame, title: str, path: Path) -> None:
    """Draws the throughput against threads."""
    threads = sorted(results["threads"].unique().tolist())
    figure, (axes,) = panels(1, width=6.4)
    spread_line(axes, results, "compress_gigabytes_per_second", "compression")
    if "exact" in results:
        spread_line(axes, results, "decompress_gigabytes_per_second", "decompression", place=1)
    axes.set_ylabel("tensor bytes, GB/s")
    axes.set_ylim(bottom=0)
    thread_axis(axes, threads, os.cpu_count())
    legend_below(figure, axes)
    caption(figure, title, f"{machine()}; line: median, band: least to greatest, dots: runs")
    save(figure, path)


def summary(results: pd.DataFrame) -> pd.DataFrame:
    """Medians by thread count."""
    columns = [name for name in results.columns if name.endswith("gigabytes_per_second")]
    return results.groupby("threads")[columns].median()


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", type=Path, help="directory of the base model")
    parser.add_argument("finetune", type=Path, help="directory of the fine-tune")
    parser.add_argument("--threads", type=thread_list, default=[1, 2, 4, 8], help="thread counts, as in 1,4,8")
    parser.add_argument("--no-decompress", action="store_true", help="measure compression only, without the check")
    parser.add_argument("--output", default=DEFAULT_PREFIX, help=f"prefix of the results (default: {DEFAULT_PREFIX})")
    parser.add_argument("--repeat", type=repeat_count, default=3, help="runs of each thread count (default: 3)")
    parser.add_argument("--bin-dir", type=Path, help="where the built programs are (default: target/release)")
    arguments = parser.parse_args()
    for directory in (arguments.base, arguments.finetune):
        if not directory.is_dir():
            parser.error(f"{directory}: not a directory")
        if not any(directory.rglob("*.safetensors")):
            parser.error(f"{directory}: has no safetensors file")
    return arguments


def make_folder(folder: Path) -> None:
    """Makes the results' folder; raises ProgramError, before anything is measured, where they cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise ProgramError(f"{folder}: the results cannot be written there")


def benchmark(arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs the benchmark."""
    program = find_example("benchmark_bitx", arguments.bin_dir)
    threads = ",".join(map(str, arguments.threads))
    command = [program, arguments.base, arguments.finetune, "--threads", threads, "--repeat", str(arguments.repeat)]
    return run_json(command + (["--no-decompress"] if arguments.no_decompress else []))


def main() -> int:
    """Runs the program; returns its exit code: 1 for a failed or inexact run, 2 for wrong arguments."""
    arguments = parse_arguments()
    csv_path, png_path = Path(f"{arguments.output}.csv"), Path(f"{arguments.output}.png")
    try:
        make_folder(csv_path.parent)
        report = benchmark(arguments)
        results = as_frame(report)
        results.to_csv(csv_path, index=False)
        names = f"BitX: {arguments.base.resolve().name} → {arguments.finetune.resolve().name}"
        draw(results, f"{names}, {size_text(results['bytes'].iloc[0])}", png_path)
    except (OSError, ProgramError) as error:
        print(f"compression_throughput_analysis: {error}", file=sys.stderr)
        return 1
    print(f"stored {results['ratio'].iloc[0]:.4f} of {results['bytes'].iloc[0]} bytes")
    print(summary(results).to_string(float_format=lambda value: f"{value:.3f}"))
    print(f"{csv_path}, {png_path}")
    if "exact" in results and not results["exact"].all():
        print("compression_throughput_analysis: decompression did NOT give the same bytes back", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
