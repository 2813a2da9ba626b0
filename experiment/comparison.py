"""Table and figure of what compare.py measured."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "py_lib"))

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from figures import save, size_text, use_style, wrap

MIB = 2**20
WHOLE = "zipllm"  # the method that the others are compared with
# Colour and mark of each method; related methods have related colours.
STYLES = {
    "file-dedup": ("#999999", "o"),
    "tensor-dedup": ("#666666", "s"),
    "fastcdc": ("#000000", "^"),
    "zstd": ("#E69F00", "D"),
    "zipnn": ("#009E73", "v"),
    "lmzip": ("#CC79A7", "P"),
    "bitx": ("#56B4E9", "<"),
    "zipllm-bitx": ("#0072B2", "X"),
    WHOLE: ("#D55E00", "*"),
}
MARK_SIZE, WHOLE_MARK_SIZE = 8, 16


def last_records(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leaves out the runs of all but the last session of each label."""
    sessions = {record["label"]: record["session"] for record in records}
    return [record for record in records if record["session"] == sessions[record["label"]]]


def last_sessions(records: list[dict[str, Any]]) -> list[pd.DataFrame]:
    """Returns the runs of the last session of each label, with throughput (GB/s) and reduction (percent)."""
    if not records:
        return []
    runs = pd.DataFrame(last_records(records))
    runs["reduction"] = 100 * (1 - runs["stored_bytes"] / runs["original_bytes"])
    for action in ("ingest", "restore"):
        runs[action] = runs["original_bytes"] / pd.to_numeric(runs[f"{action}_seconds"]) / 1e9
    return [group for _, group in runs.groupby("label", sort=False)]


def summarize(runs: pd.DataFrame, labels: dict[str, str]) -> dict[str, Any]:
    """Returns a session for a JSON file: throughputs in GB/s as median, least and greatest, memory in bytes."""
    first = runs.iloc[0]
    summary: dict[str, Any] = {
        "label": first["label"],
        "session": first["session"],
        "machine": first["machine"],
        "threads": int(first["threads"]),
        "models": int(first["models"]),
        "original_bytes": int(first["original_bytes"]),
        "methods": [],
    }
    for method in (name for name in labels if name in set(runs["method"])):
        rows = runs[runs["method"] == method]
        row: dict[str, Any] = {
            "method": method,
            "label": labels[method],
            "runs": len(rows),
            "stored_bytes": int(rows["stored_bytes"].median()),
            "data_reduction": round(float(rows["reduction"].median()) / 100, 4),
            "exact": bool(rows["exact"].all()),
        }
        for action in ("ingest", "restore"):
            speed = rows[action].dropna()
            if speed.empty:
                row[f"{action}_gigabytes_per_second"] = row[f"{action}_peak_memory_bytes"] = None
                continue
            values = {"median": speed.median(), "least": speed.min(), "greatest": speed.max()}
            row[f"{action}_gigabytes_per_second"] = {name: round(float(value), 4) for name, value in values.items()}
            row[f"{action}_peak_memory_bytes"] = int(rows[f"{action}_peak_memory_bytes"].max())
        summary["methods"].append(row)
    return summary


def spread(values: pd.Series) -> str:
    """Writes the median, and least to greatest where there are several; a method that could not restore has none."""
    if values.isna().any():
        return "fails"
    text = f"{values.median():.3f}"
    return f"{text} ({values.min():.3f} to {values.max():.3f})" if len(values) > 1 else text


def memory_text(values: pd.Series) -> str:
    """Writes the greatest peak memory, in MiB."""
    return "-" if values.isna().all() else f"{values.max() / MIB:.0f}"


def markdown(sessions: list[pd.DataFrame], labels: dict[str, str]) -> str:
    """Writes one table a label; figures are medians, with least and greatest."""
    text = ""
    for runs in sessions:
        first = runs.iloc[0]
        text += (
            f"**{first['label']}**: {first['models']} models, {first['original_bytes'] / 1e9:.3f} GB; "
            f"{first['machine']}, {first['threads']} threads, "
            f"{runs['repeat'].max()} run(s), {first['session'][:10]}\n\n"
            "| method | stored | data reduction | ingest, GB/s | restore, GB/s | peak memory, MiB | exact |\n"
            "|---|---|---|---|---|---|---|\n"
        )
        for method in (name for name in labels if name in set(runs["method"])):
            rows = runs[runs["method"] == method]
            memory = " / ".join(memory_text(rows[f"{action}_peak_memory_bytes"]) for action in ("ingest", "restore"))
            share = rows["stored_bytes"].median() / first["original_bytes"]
            saved = round(100 * (1 - share), 1) + 0.0  # never -0.0
            text += (
                f"| {labels[method]} | {share:.4f} | {saved:.1f} % | {spread(rows['ingest'])} "
                f"| {spread(rows['restore'])} | {memory} | {'yes' if rows['exact'].all() else '**NO**'} |\n"
            )
        text += "\n"
    return text


def marks(method: str, exact: bool = True) -> dict[str, Any]:
    """Returns how a method's point looks: hollow if the method was not exact."""
    colour, marker = STYLES[method]
    edge = "black" if method == WHOLE else colour
    return {
        "marker": marker,
        "markersize": WHOLE_MARK_SIZE if method == WHOLE else MARK_SIZE,
        "color": colour,
        "markerfacecolor": colour if exact else "none",
        "markeredgecolor": edge,
        "linestyle": "none",
    }


def draw_panel(axes: Axes, runs: pd.DataFrame, action: str) -> None:
    """Draws every method's data reduction against its throughput, with a bar from the slowest to the fastest run."""
    for method, rows in runs.groupby("method"):
        speed = rows[action].dropna()
        if speed.empty:
            continue
        exact = bool(rows["exact"].all())
        low, high = speed.median() - speed.min(), speed.max() - speed.median()
        axes.errorbar(
            speed.median(),
            rows["reduction"].median(),
            xerr=[[low], [high]],
            capsize=2,
            zorder=3 if method == WHOLE else 2,
            **marks(str(method), exact),
        )
        if not exact:
            place = (speed.median(), rows["reduction"].median())
            axes.annotate("not exact", place, (0, -15), textcoords="offset points", ha="center", fontsize=8)
    axes.set_xscale("log")
    axes.margins(x=0.1)
    axes.set_ylim(-5, 100)
    axes.set_xlabel(f"{action} throughput, GB/s (log scale)")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def draw(sessions: list[pd.DataFrame], labels: dict[str, str], path: Path) -> None:
    """Draws the project's headline figure: a row a family, data reduction against ingest and restore throughput."""
    use_style()
    size = (9, 3.1 * len(sessions) + 1.2)
    figure, grid = plt.subplots(len(sessions), 2, figsize=size, squeeze=False, sharex="col", sharey=True)
    for row, runs in zip(grid, sessions, strict=True):
        first = runs.iloc[0]
        row[0].set_ylabel("data reduction, %")
        for axes, action in zip(row, ("ingest", "restore"), strict=True):
            draw_panel(axes, runs, action)
            axes.tick_params(labelbottom=True)
        title = f"{first['label']}: {first['models']} models, {size_text(first['original_bytes'])}"
        row[0].set_title(wrap(title, 60), loc="left", fontsize=10)
    shown = set().union(*(runs["method"] for runs in sessions))
    handles = [Line2D([], [], label=label, **marks(name)) for name, label in labels.items() if name in shown]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(5, len(handles)), fontsize=9)
    figure.suptitle(caption(sessions), fontsize=9)
    save(figure, path)


def caption(sessions: list[pd.DataFrame]) -> str:
    """Says which machines and how many threads the sessions had."""
    places = dict.fromkeys(f"{runs.iloc[0]['machine']}, {runs.iloc[0]['threads']} threads" for runs in sessions)
    return wrap("; ".join(places), 110) + "\npoints: medians; bars: slowest to fastest run"
