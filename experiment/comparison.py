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
from matplotlib.ticker import LogLocator, NullFormatter

from figures import COLOURS, MARKERS, save, use_style

MIB = 2**20
WHOLE = "zipllm"  # the method that the others are compared with
# Its colour is the one that stands out most; the others share the rest.
WHOLE_COLOUR, *OTHER_COLOURS = (COLOURS[1], COLOURS[0], *COLOURS[2:])


def last_sessions(records: list[dict[str, Any]]) -> list[pd.DataFrame]:
    """Returns the runs of the last session of each label, with throughput (GB/s) and reduction (percent)."""
    if not records:
        return []
    runs = pd.DataFrame(records)
    runs["reduction"] = 100 * (1 - runs["stored_bytes"] / runs["original_bytes"])
    for action in ("ingest", "restore"):
        runs[action] = runs["original_bytes"] / runs[f"{action}_seconds"] / 1e9
    return [group[group["session"] == group["session"].iloc[-1]] for _, group in runs.groupby("label", sort=False)]


def colour(method: str, place: int) -> str:
    """Returns a method's colour."""
    return WHOLE_COLOUR if method == WHOLE else OTHER_COLOURS[place % len(OTHER_COLOURS)]


def spread(values: pd.Series) -> str:
    """Writes the median, and least to greatest where there are several."""
    text = f"{values.median():.3f}"
    return f"{text} ({values.min():.3f} to {values.max():.3f})" if len(values) > 1 else text


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
            memory = " / ".join(f"{rows[f'{a}_peak_memory_bytes'].max() / MIB:.0f}" for a in ("ingest", "restore"))
            share = rows["stored_bytes"].median() / first["original_bytes"]
            saved = round(100 * (1 - share), 1) + 0.0  # never -0.0
            text += (
                f"| {labels[method]} | {share:.4f} | {saved:.1f} % | {spread(rows['ingest'])} "
                f"| {spread(rows['restore'])} | {memory} | {'yes' if rows['exact'].all() else '**NO**'} |\n"
            )
        text += "\n"
    return text


def draw_panel(axes: Axes, runs: pd.DataFrame, action: str, labels: dict[str, str]) -> None:
    """Draws every method's data reduction against its throughput; a hollow mark is a method that was not exact."""
    for place, method in enumerate(labels):
        rows = runs[runs["method"] == method]
        if rows.empty:
            continue
        speed = rows[action]
        low, high = speed.median() - speed.min(), speed.max() - speed.median()
        whole = method == WHOLE
        axes.errorbar(
            speed.median(),
            rows["reduction"].median(),
            xerr=[[low], [high]],
            marker=MARKERS[place % len(MARKERS)],
            markersize=15 if whole else 8,
            color=colour(method, place),
            markerfacecolor=None if rows["exact"].all() else "none",
            markeredgecolor="black" if whole else None,
            linestyle="none",
            capsize=2,
            zorder=3 if whole else 2,
        )
    axes.set_xscale("log")
    axes.set_ylim(-4, 100)
    axes.set_xlabel(f"{action} throughput, GB/s")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(plt.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def draw(sessions: list[pd.DataFrame], labels: dict[str, str], path: Path) -> None:
    """Draws the project's headline figure: a row a family, data reduction against ingest and restore throughput."""
    use_style()
    figure, grid = plt.subplots(len(sessions), 2, figsize=(9, 3.1 * len(sessions) + 1.1), squeeze=False)
    for row, runs in zip(grid, sessions, strict=True):
        first = runs.iloc[0]
        row[0].set_ylabel("data reduction, %")
        for axes, action in zip(row, ("ingest", "restore"), strict=True):
            draw_panel(axes, runs, action, labels)
        row[0].set_title(f"{first['label']} ({first['original_bytes'] / 1e9:.2f} GB)", loc="left", fontsize=10)
    shown = set().union(*(runs["method"] for runs in sessions))
    inexact = {method for runs in sessions for method in runs.loc[~runs["exact"].astype(bool), "method"]}
    marks = [
        Line2D(
            [],
            [],
            marker=MARKERS[place % len(MARKERS)],
            color=colour(method, place),
            markerfacecolor="none" if method in inexact else None,
            linestyle="none",
            markersize=8,
            label=label + (" (not exact)" if method in inexact else ""),
        )
        for place, (method, label) in enumerate(labels.items())
        if method in shown
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=4, fontsize=9)
    first = sessions[0].iloc[0]
    figure.suptitle(f"{first['machine']}, {first['threads']} threads; median, bars from least to greatest", fontsize=9)
    save(figure, path)
