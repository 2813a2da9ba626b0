"""What run_exp.py found, for plots.ipynb: tables of results and the duplicates among all files' chunks."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "py_lib"))

import pandas as pd

from records import read_records
from run_exp import Settings, results_path

HASH_BYTES, LENGTH_BYTES = 32, 4


def table(settings: Settings, method: str) -> pd.DataFrame:
    """Returns a method's last result for each file, by file name; FastCDC's for the configured chunk size."""
    runs = pd.DataFrame(read_records(results_path(settings, method)))
    if runs.empty:
        return runs
    if method == "fastcdc":
        runs = runs[runs["avg_size"] == settings.average]
    return runs.drop_duplicates("file", keep="last").sort_values("file").reset_index(drop=True)


def read_chunks(path: Path) -> list[tuple[bytes, int]]:
    """Reads a chunk list: each chunk's hash and length in bytes."""
    data = path.read_bytes()
    step = HASH_BYTES + LENGTH_BYTES
    return [
        (data[at : at + HASH_BYTES], int.from_bytes(data[at + HASH_BYTES : at + step], "little"))
        for at in range(0, len(data), step)
    ]


def reduction(kept: int, total: int) -> float:
    """Returns the share of the bytes that is saved, in percent; of empty files nothing is."""
    return 100 * (1 - kept / total) if total else 0.0


def dedup_curve(settings: Settings) -> pd.DataFrame:
    """Adds up the files' bytes, and those of chunks not seen in an earlier file, in the order of their names."""
    seen: set[bytes] = set()
    total = unique = 0
    rows = []
    for run in table(settings, "fastcdc").itertuples():
        for name, length in read_chunks(settings.output_root / run.chunk_list):
            total += length
            if name not in seen:
                seen.add(name)
                unique += length
        rows.append({"file": run.file, "bytes": total, "unique_bytes": unique, "reduction": reduction(unique, total)})
    return pd.DataFrame(rows)


def reduction_by_method(settings: Settings) -> pd.Series:
    """Returns the share of all files' bytes that each method saves, in percent."""
    shares = {}
    curve, zipnn = dedup_curve(settings), table(settings, "zipnn")
    if not curve.empty:
        shares["FastCDC"] = curve["reduction"].iloc[-1]
    if not zipnn.empty:
        shares["ZipNN"] = reduction(zipnn["compressed_bytes"].sum(), zipnn["bytes"].sum())
    return pd.Series(shares, dtype=float)
