"""What the project's figures have in common: size, colours, and lines with their spread."""

from __future__ import annotations

import textwrap
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


def wrap(text: str, width: int) -> str:
    """Breaks a title into lines of at most so many characters, also inside a long model name."""
    return "\n".join(textwrap.wrap(text, width))


def size_text(count: float) -> str:
    """Writes a number of bytes in GB or MB (1e9, 1e6 bytes), with three digits."""
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"


def panels(count: int, width: float = 4.6) -> tuple[Figure, list[Axes]]:
    """Makes a figure of `count` panels side by side, each `width` inches wide."""
    use_style()
    figure, axes = plt.subplots(1, count, figsize=(width * count, 4.4), squeeze=False)
    return figure, list(axes[0])


def caption(figure: Figure, title: str, note: str) -> None:
    """Writes a title and a line of smaller words above the panels, broken where the figure's width ends."""
    inches = figure.get_figwidth()
    figure.suptitle(f"{wrap(title, int(11 * inches))}\n{wrap(note, int(11 * inches))}", fontsize=9)


def legend_below(figure: Figure, *axes: Axes) -> None:
    """Explains the lines of all panels below them, each label once, where it covers nothing."""
    lines = {}
    for panel in axes:
        handles, labels = panel.get_legend_handles_labels()
        lines |= dict(zip(labels, handles, strict=True))
    figure.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=4, fontsize=9)


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
