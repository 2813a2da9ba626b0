"""What the project's figures have in common: size, colours, and lines with their spread."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DOTS_PER_INCH = 160


def use_style() -> None:
    """Sets fonts, grid and colours for all figures that follow."""
    mpl.rcParams.update(
        {
            "figure.constrained_layout.use": True,
            "savefig.dpi": DOTS_PER_INCH,
            "font.size": 10,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": mpl.cycler(color=COLOURS),
            "grid.color": "#DDDDDD",
            "legend.frameon": False,
        }
    )


def panels(count: int) -> tuple[Figure, list[Axes]]:
    """Makes a figure of `count` panels side by side."""
    use_style()
    figure, axes = plt.subplots(1, count, figsize=(4.6 * count, 3.6), squeeze=False)
    return figure, list(axes[0])


def spread_line(axes: Axes, runs: pd.DataFrame, y: str, label: str, place: int = 0) -> None:
    """Draws `y` by `threads`: the medians as a line, least to greatest as a band, every run as a dot."""
    groups = runs.groupby("threads")[y]
    medians, low, high = groups.median(), groups.min(), groups.max()
    colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
    axes.plot(medians.index, medians, color=colour, marker=marker, label=label)
    axes.fill_between(medians.index, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(runs["threads"], runs[y], linestyle="none", marker=".", markersize=4, color=colour, alpha=0.6)


def thread_axis(axes: Axes, threads: list[int], cpus: int | None = None) -> None:
    """Labels the axis of thread counts, and marks the number of the machine's CPUs."""
    axes.set_xlabel("threads")
    if max(threads) / min(threads) >= 4:
        axes.set_xscale("log", base=2)
    axes.set_xticks(threads, [str(count) for count in threads])
    axes.minorticks_off()
    if cpus and min(threads) <= cpus <= max(threads):
        axes.axvline(cpus, color="#999999", linestyle=":", linewidth=1.2, label=f"CPUs ({cpus})")


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG and frees it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)
