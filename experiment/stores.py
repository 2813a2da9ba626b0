#!/usr/bin/env python3
"""The methods that compare.py compares, each as a store: a directory of models goes in and comes back.

    python3 stores.py METHOD ingest MODELS STORE --threads 2
    python3 stores.py METHOD restore STORE OUTPUT --threads 2

prints one JSON document: seconds of wall time, imports left out, and the peak memory in bytes. What was stored is
flushed to disk within the time, whatever the method, so that all make the same promise.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import BinaryIO

EXPERIMENT = Path(__file__).resolve().parent
sys.path.insert(0, str(EXPERIMENT.parent / "py_lib"))

import zipnn_exp  # noqa: E402
from counts import thread_count  # noqa: E402
from programs import ProgramError, find_program, last_lines  # noqa: E402
from run_exp import build_fastcdc  # noqa: E402
from weights import spans  # noqa: E402

PIECE_BYTES = 1 << 20
ZSTD_LEVEL = 3
AVERAGE_CHUNK_BYTES = 65_536
RECIPES = "recipes.json"
FAMILY = "family.json"  # beside the models: what zipllm's and BitX's base is


@dataclass(frozen=True)
class Task:
    """What a method works on: a directory of models and its store, or a store and the output."""

    source: Path
    target: Path
    threads: int
    bin_dir: Path | None


@dataclass(frozen=True)
class Method:
    """A way to keep a directory of models; `missing` says what it lacks to run here, empty if nothing."""

    label: str
    ingest: Callable[[Task], None]
    restore: Callable[[Task], None]
    missing: Callable[[Path | None], str] = lambda bin_dir: ""


def list_files(root: Path) -> list[Path]:
    """Lists all files below a directory, in a fixed order."""
    return sorted(path for path in root.rglob("*") if path.is_file())


def each(task: Task, items: list, work: Callable) -> list:
    """Calls `work` with every item on the task's threads; returns the results in order."""
    with ThreadPoolExecutor(task.threads) as pool:
        return list(pool.map(work, items))


def run(command: list[str | Path], cwd: Path | None = None) -> None:
    """Runs a program; raises ProgramError with its words if it fails."""
    words = [str(word) for word in command]
    result = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise ProgramError(f"{' '.join(words)}: exit code {result.returncode}: {last_lines(result.stderr)}")


def pieces(file: BinaryIO, length: int) -> Iterator[bytes]:
    """Reads so many bytes of a file, a piece at a time."""
    while length > 0:
        piece = file.read(min(PIECE_BYTES, length))
        if not piece:
            raise ProgramError(f"{file.name}: ended too early")
        length -= len(piece)
        yield piece


def create(root: Path, name: str) -> BinaryIO:
    """Creates a file below a directory."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("xb")


# File dedup


def ingest_unique_files(task: Task) -> None:
    """Copies each file once, under its sha256; the recipes say which file has which."""
    known: set[str] = set()
    lock = Lock()

    def store(path: Path) -> tuple[str, str]:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        with lock:
            new = digest not in known
            known.add(digest)
        if new:
            shutil.copyfile(path, task.target / digest)
        return path.relative_to(task.source).as_posix(), digest

    task.target.mkdir()
    recipes = each(task, list_files(task.source), store)
    (task.target / RECIPES).write_text(json.dumps(recipes))


def restore_unique_files(task: Task) -> None:
    """Copies the files back."""

    def restore(recipe: list[str]) -> None:
        path = task.target / recipe[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(task.source / recipe[1], path)

    each(task, json.loads((task.source / RECIPES).read_text()), restore)


# Tensor dedup


def ingest_unique_tensors(task: Task) -> None:
    """Writes each tensor's bytes once to one pack; the recipes list every file's places in it."""
    places: dict[bytes, tuple[int, int]] = {}
    lock = Lock()
    task.target.mkdir()
    with (task.target / "tensors.bin").open("xb") as pack:

        def store(path: Path) -> tuple[str, list[tuple[int, int]]]:
            recipe = []
            with path.open("rb") as file:
                for start, end in spans(path):
                    file.seek(start)
                    data = file.read(end - start)
                    digest = hashlib.sha256(data).digest()
                    with lock:
                        if digest not in places:
                            places[digest] = (pack.tell(), len(data))
                            pack.write(data)
                    recipe.append(places[digest])
            return path.relative_to(task.source).as_posix(), recipe

        recipes = each(task, list_files(task.source), store)
    (task.target / RECIPES).write_text(json.dumps(recipes))


def restore_unique_tensors(task: Task) -> None:
    """Writes the files back from the pack."""

    def restore(recipe: tuple[str, list[tuple[int, int]]]) -> None:
        with (task.source / "tensors.bin").open("rb") as pack, create(task.target, recipe[0]) as file:
            for start, length in recipe[1]:
                pack.seek(start)
                for piece in pieces(pack, length):
                    file.write(piece)

    each(task, json.loads((task.source / RECIPES).read_text()), restore)


# FastCDC


def ingest_chunks(task: Task) -> None:
    """Stores unique content-defined chunks, by experiment/fastcdc_exp."""
    average = str(AVERAGE_CHUNK_BYTES)
    threads = str(task.threads)
    run([build_fastcdc(), "ingest", task.target, task.source, "--avg-size", average, "--threads", threads])


def restore_chunks(task: Task) -> None:
    """Puts the files together again."""
    run([build_fastcdc(), "restore", task.source, task.target, "--threads", str(task.threads)])


def missing_fastcdc(bin_dir: Path | None) -> str:
    """Builds the chunking program, which is not measured; says why if it cannot be built."""
    try:
        build_fastcdc()
    except ProgramError as error:
        return str(error)
    return ""


# Compressors of single files


def zstd_file(path: Path, output: BinaryIO) -> None:
    """Compresses a file with zstd."""
    import zstandard  # noqa: PLC0415  (each method loads its own library only)

    with path.open("rb") as file:
        zstandard.ZstdCompressor(level=ZSTD_LEVEL).copy_stream(file, output, size=path.stat().st_size)


def unzstd_file(path: Path, output: BinaryIO) -> None:
    """Decompresses a file of `zstd_file`."""
    import zstandard  # noqa: PLC0415

    with path.open("rb") as file:
        zstandard.ZstdDecompressor().copy_stream(file, output)


def ingest_zstd(task: Task) -> None:
    """Compresses every file, several at once."""

    def store(path: Path) -> None:
        with create(task.target, f"{path.relative_to(task.source)}.zst") as output:
            zstd_file(path, output)

    each(task, list_files(task.source), store)


def restore_zstd(task: Task) -> None:
    """Decompresses every file, several at once."""

    def restore(path: Path) -> None:
        with create(task.target, str(path.relative_to(task.source)).removesuffix(".zst")) as output:
            unzstd_file(path, output)

    each(task, list_files(task.source), restore)


def ingest_zipnn(task: Task) -> None:
    """Compresses safetensors files with ZipNN, one after the other on all threads, other files with zstd."""
    for path in list_files(task.source):
        name = str(path.relative_to(task.source))
        if path.suffix == ".safetensors":
            output = task.target / f"{name}.znn"
            output.parent.mkdir(parents=True, exist_ok=True)
            zipnn_exp.compress(path, output, task.threads)
        else:
            with create(task.target, f"{name}.zst") as file:
                zstd_file(path, file)


def restore_zipnn(task: Task) -> None:
    """Undoes `ingest_zipnn`."""
    for path in list_files(task.source):
        output = task.target / path.relative_to(task.source).with_suffix("")
        output.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".znn":
            zipnn_exp.decompress(path, output, task.threads)
        else:
            with output.open("xb") as file:
                unzstd_file(path, file)


def missing_zipnn(bin_dir: Path | None) -> str:
    """Says whether ZipNN is absent; loads it otherwise, which takes seconds that are not measured."""
    if not zipnn_exp.is_installed():
        return zipnn_exp.ABSENT
    zipnn_exp.make_coder("BF16", 1)
    return ""


# lmzip


def find_lmz() -> str | None:
    """Finds lmzip's program, beside this Python or on the path."""
    return shutil.which("lmz", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


def ingest_lmzip(task: Task) -> None:
    """Writes one archive of all models, with lmzip's own dedup and differences."""
    task.target.mkdir()
    run([find_lmz() or "lmz", "compress", task.source, task.target / "models.lmz", "-q", "-j", str(task.threads)])


def restore_lmzip(task: Task) -> None:
    """Unpacks the archive."""
    run([find_lmz() or "lmz", "decompress", task.source / "models.lmz", task.target, "-q", "-j", str(task.threads)])


def missing_lmzip(bin_dir: Path | None) -> str:
    """Says whether lmzip is absent."""
    return "" if find_lmz() else "lmzip is not installed; install it with: pip install -r requirements-compare.txt"


# BitX, file against file


def base_files(models: Path) -> dict[str, str]:
    """Maps each fine-tune's weights to the file of the base with the same name and size, where there is one."""
    family = json.loads((models.parent / FAMILY).read_text())
    pairs = {}
    for model, base in family["bases"].items():
        for path in (models / model).rglob("*.safetensors"):
            twin = models / base / path.relative_to(models / model)
            if twin.is_file() and twin.stat().st_size == path.stat().st_size:
                pairs[path.relative_to(models).as_posix()] = twin.relative_to(models).as_posix()
    return pairs


def ingest_bitx(task: Task) -> None:
    """Stores weights as two zstd streams of the XOR with the base's file; everything else by zstd."""
    program = find_program("examples/bitx", task.bin_dir)
    pairs = base_files(task.source)
    task.target.mkdir()
    (task.target / RECIPES).write_text(json.dumps(pairs))

    def store(path: Path) -> None:
        name = path.relative_to(task.source).as_posix()
        if name not in pairs:
            with create(task.target / "files", f"{name}.zst") as file:
                zstd_file(path, file)
            return
        output = task.target / "files" / name
        output.parent.mkdir(parents=True, exist_ok=True)
        streams = ["--compressed-exp", f"{output}.exp", "--compressed-sm", f"{output}.sm"]
        run([program, task.source / pairs[name], path, "--compress", *streams])

    each(task, list_files(task.source), store)


def restore_bitx(task: Task) -> None:
    """Decompresses the files without a base, then XORs the others with theirs."""
    program = find_program("examples/bitx", task.bin_dir)
    pairs = json.loads((task.source / RECIPES).read_text())
    files = task.source / "files"

    def unpack(path: Path) -> None:
        if path.suffix == ".zst":
            with create(task.target, path.relative_to(files).as_posix().removesuffix(".zst")) as output:
                unzstd_file(path, output)

    def restore(pair: tuple[str, str]) -> None:
        name, base = pair
        (task.target / name).parent.mkdir(parents=True, exist_ok=True)
        streams = ["--compressed-exp", f"{files / name}.exp", "--compressed-sm", f"{files / name}.sm"]
        run([program, task.target / base, task.target / name, "--decompress", *streams])

    each(task, list_files(files), unpack)
    each(task, list(pairs.items()), restore)


def missing_bitx(bin_dir: Path | None) -> str:
    """Says whether the BitX tool is not built."""
    return missing_program("examples/bitx", bin_dir)


def missing_program(name: str, bin_dir: Path | None) -> str:
    """Says whether a program is not built."""
    try:
        find_program(name, bin_dir)
    except ProgramError as error:
        return str(error)
    return ""


# zipllm


def ingest_zipllm(task: Task, codec: str = "auto") -> None:
    """Stores the family with zipllm, as its user would."""
    family = json.loads((task.source.parent / FAMILY).read_text())
    task.target.mkdir()
    (task.target / "models.txt").write_text("\n".join(family["models"].values()) + "\n")
    mapping: dict[str, list[str]] = {}
    for model, base in family["bases"].items():
        mapping.setdefault(family["models"][base], []).append(family["models"][model])
    (task.target / "base_ft.json").write_text(json.dumps(mapping))
    settings = {
        "model_dir": str(task.source.resolve()),
        "storage_dir": "./store",
        "models_to_process": "./models.txt",
        "base_ft_path": "./base_ft.json",
        "threads": task.threads,
        "codec": codec,
    }
    (task.target / "config.json").write_text(json.dumps(settings))
    (task.target / FAMILY).write_text(json.dumps(family))
    run([find_program("zipllm", task.bin_dir), task.target / "config.json", "--json"])


def ingest_zipllm_bitx(task: Task) -> None:
    """Stores the family with zipllm and the codecs of BitX."""
    ingest_zipllm(task, "bitx")


def restore_zipllm(task: Task) -> None:
    """Restores every model, verified, one after the other."""
    program = find_program("restore", task.bin_dir)
    for directory, model in json.loads((task.source / FAMILY).read_text())["models"].items():
        run([program, task.source / "config.json", model, task.target / directory, "--json"])


def missing_zipllm(bin_dir: Path | None) -> str:
    """Says whether zipllm is not built."""
    return missing_program("zipllm", bin_dir) or missing_program("restore", bin_dir)


METHODS: dict[str, Method] = {
    "file-dedup": Method("file dedup", ingest_unique_files, restore_unique_files),
    "tensor-dedup": Method("tensor dedup", ingest_unique_tensors, restore_unique_tensors),
    "fastcdc": Method("FastCDC", ingest_chunks, restore_chunks, missing_fastcdc),
    "zstd": Method("zstd -3", ingest_zstd, restore_zstd),
    "zipnn": Method("ZipNN", ingest_zipnn, restore_zipnn, missing_zipnn),
    "lmzip": Method("lmzip", ingest_lmzip, restore_lmzip, missing_lmzip),
    "bitx": Method("BitX (file by file)", ingest_bitx, restore_bitx, missing_bitx),
    "zipllm-bitx": Method("zipllm, BitX", ingest_zipllm_bitx, restore_zipllm, missing_zipllm),
    "zipllm": Method("zipllm", ingest_zipllm, restore_zipllm, missing_zipllm),
}


def flush(root: Path) -> None:
    """Makes every file below a directory durable."""
    for path in list_files(root):
        with path.open("rb") as file:
            os.fsync(file.fileno())


def peak_memory_bytes() -> int:
    """The greatest resident size that this process, or one of the programs it ran, had.

    A new program's own count begins with the size of the process that started it, so this process asks /proc for its
    own, and what it reports for a small program is no less than its own size (some 20 MiB).
    """
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    status = Path("/proc/self/status").read_text()
    own = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    return max(own, children)


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("action", choices=["ingest", "restore"])
    parser.add_argument("source", type=Path, help="directory of models, or the store")
    parser.add_argument("target", type=Path, help="store to make, or the output")
    parser.add_argument("--threads", type=thread_count, default=1, help="threads (default: 1)")
    parser.add_argument("--bin-dir", type=Path, help="where the built programs are (default: target/release)")
    return parser.parse_args()


def main() -> int:
    """Runs the program; returns its exit code: 1 if the method failed, 3 if it lacks something."""
    arguments = parse_arguments()
    method = METHODS[arguments.method]
    if reason := method.missing(arguments.bin_dir):
        print(f"stores: {reason}", file=sys.stderr)
        return 3
    task = Task(arguments.source, arguments.target, arguments.threads, arguments.bin_dir)
    start = time.perf_counter()
    try:
        if arguments.action == "ingest":
            method.ingest(task)
            flush(task.target)
        else:
            method.restore(task)
    except (OSError, ProgramError) as error:
        print(f"stores: {error}", file=sys.stderr)
        return 1
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak_memory_bytes": peak_memory_bytes()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
