#!/usr/bin/env python3
"""Runs FastCDC chunking and ZipNN over every safetensors file under `model_root` of config.json.

Each result is one line of `OUTPUT_ROOT/fastcdc.jsonl` or `OUTPUT_ROOT/zipnn.jsonl`. A run that was broken off goes on
where it stopped; a file that changed is measured again. Look at the results with plots.ipynb.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EXPERIMENT = Path(__file__).resolve().parent
sys.path.insert(0, str(EXPERIMENT.parent / "py_lib"))

import zipnn_exp  # noqa: E402
from counts import thread_count  # noqa: E402
from programs import ProgramError, run_json  # noqa: E402
from records import append_record, read_records  # noqa: E402
from settings import path_setting, read_object  # noqa: E402

MIN_AVERAGE, MAX_AVERAGE = 1024, 4_194_304


@dataclass(frozen=True)
class Settings:
    """config.json, with its paths resolved against its folder; `average` is FastCDC's chunk size in bytes."""

    output_root: Path
    model_root: Path
    average: int


@dataclass(frozen=True)
class Job:
    """One method on one file; `key` tells it from every other, also from the same file before it changed."""

    method: str
    file: str
    key: dict[str, Any]
    work: Callable[[], dict[str, Any]]


def read_settings(path: Path) -> Settings:
    """Reads config.json; raises ValueError naming file and key, or OSError."""
    values = read_object(path)
    if unknown := sorted(set(values) - {"output_root", "model_root", "fastcdc_avg_size"}):
        raise ValueError(f"{path}: unknown key {unknown[0]!r}")
    average = values.get("fastcdc_avg_size")
    if not isinstance(average, int) or not MIN_AVERAGE <= average <= MAX_AVERAGE:
        raise ValueError(f"{path}: 'fastcdc_avg_size' has to be a number from {MIN_AVERAGE} to {MAX_AVERAGE}, of bytes")
    return Settings(path_setting(path, values, "output_root"), path_setting(path, values, "model_root"), average)


@functools.cache
def build_fastcdc() -> Path:
    """Builds the chunking program if need be, and returns its path; asks cargo once."""
    crate = EXPERIMENT / "fastcdc_exp"
    command = ["cargo", "build", "--release", "--quiet", "--locked", "--message-format=json"]
    try:
        result = subprocess.run(command, cwd=crate, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ProgramError("cargo is needed to build fastcdc_exp: install Rust") from None
    messages = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    built = [message["executable"] for message in messages if message.get("executable")]
    if result.returncode != 0 or not built:
        raise ProgramError(f"cannot build fastcdc_exp: {result.stderr.strip()}")
    return Path(built[-1])


def chunk_list(settings: Settings, file: str) -> Path:
    """Where a file's chunk list is kept."""
    name = hashlib.sha256(file.encode()).hexdigest()[:32]
    return settings.output_root / "chunks" / str(settings.average) / f"{name}.bin"


def fastcdc_work(program: Path, settings: Settings, file: str) -> Callable[[], dict[str, Any]]:
    """Chunks a file when it is called."""

    def work() -> dict[str, Any]:
        output = chunk_list(settings, file)
        output.parent.mkdir(parents=True, exist_ok=True)
        path = settings.model_root / file
        report = run_json([program, "chunk", path, "--avg-size", str(settings.average), "--chunks", output])
        return report | {"chunk_list": str(output.relative_to(settings.output_root))}

    return work


def zipnn_work(settings: Settings, file: str) -> Callable[[], dict[str, Any]]:
    """Compresses a file with ZipNN when it is called, in a process of its own."""
    script = EXPERIMENT / "zipnn_exp.py"
    return lambda: run_json([sys.executable, script, "measure", settings.model_root / file])


def list_weights(root: Path) -> list[str]:
    """Lists the safetensors files below a directory, by their paths in it; what a dot hides is left out.

    So are unfinished downloads, which lie in `.downloads`.
    """
    found = (path.relative_to(root) for path in root.rglob("*.safetensors") if path.is_file())
    return sorted(path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts))


def list_jobs(settings: Settings, methods: list[str]) -> list[Job]:
    """Lists what is to be done, all methods of a file together."""
    program = build_fastcdc() if "fastcdc" in methods else None
    jobs = []
    for file in list_weights(settings.model_root):
        path = settings.model_root / file
        stat = path.stat()
        key = {"file": file, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        if program:
            average = {"avg_size": settings.average}
            jobs.append(Job("fastcdc", file, key | average, fastcdc_work(program, settings, file)))
        if "zipnn" in methods:
            jobs.append(Job("zipnn", file, key, zipnn_work(settings, file)))
    return jobs


def results_path(settings: Settings, method: str) -> Path:
    """Where a method's results are."""
    return settings.output_root / f"{method}.jsonl"


def open_jobs(settings: Settings, jobs: list[Job]) -> list[Job]:
    """Leaves out the jobs whose results are there."""
    done = {method: read_records(results_path(settings, method)) for method in {job.method for job in jobs}}
    return [job for job in jobs if not any(job.key.items() <= record.items() for record in done[job.method])]


def run_jobs(settings: Settings, jobs: list[Job], workers: int) -> int:
    """Does the jobs, several at once, and writes each result down; returns how many failed."""
    failed = 0
    with ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(job.work): job for job in jobs}
        for number, future in enumerate(as_completed(futures), start=1):
            job = futures[future]
            place = f"[{number}/{len(jobs)}] {job.method} {job.file}"
            try:
                report = future.result()
            except (OSError, ProgramError) as error:
                failed += 1
                print(f"{place}: failed: {error}", file=sys.stderr, flush=True)
                continue
            append_record(results_path(settings, job.method), job.key | report)
            print(place, flush=True)
    return failed


def choose_methods(asked: list[str] | None) -> list[str]:
    """Returns the methods to run; ZipNN is left out with a word if it is absent, an error if it was asked for."""
    if zipnn_exp.is_installed():
        return asked or ["fastcdc", "zipnn"]
    if asked and "zipnn" in asked:
        raise ProgramError(zipnn_exp.ABSENT)
    if not asked:
        print(f"run_exp: without ZipNN: {zipnn_exp.ABSENT}", file=sys.stderr)
    return asked or ["fastcdc"]


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = EXPERIMENT / "config.json"
    parser.add_argument("--config", type=Path, default=default, help="settings (default: config.json beside this file)")
    parser.add_argument("--methods", nargs="+", choices=["fastcdc", "zipnn"], help="methods to run (default: both)")
    parser.add_argument(
        "--workers", type=thread_count, default=os.cpu_count() or 1, help="files at once (default: CPUs)"
    )
    return parser.parse_args()


def main() -> int:
    """Runs the program; returns its exit code: 1 if a file failed, 2 for wrong settings."""
    arguments = parse_arguments()
    try:
        settings = read_settings(arguments.config)
        if not settings.model_root.is_dir():
            raise ValueError(f"{settings.model_root}: no such directory ('model_root' of {arguments.config})")
        jobs = list_jobs(settings, choose_methods(arguments.methods))
        if not jobs:
            raise ValueError(f"{settings.model_root}: has no safetensors files")
        to_do = open_jobs(settings, jobs)
    except (OSError, ValueError) as error:
        print(f"run_exp: {error}", file=sys.stderr)
        return 2
    except ProgramError as error:
        print(f"run_exp: {error}", file=sys.stderr)
        return 1
    print(f"{len(to_do)} of {len(jobs)} results to make; they go to {settings.output_root}", flush=True)
    failed = run_jobs(settings, to_do, arguments.workers)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
