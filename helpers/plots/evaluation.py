"""Figures of notebook 10: what single numbers hide, and what a model does under load.

Built like those of `plots`, which also shows them.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from pandas import DataFrame

from .base import COLOURS, _role, _title

LOOKS = ("o-", "s--", "^:", "D-.")  # for models of one role


def two_numbers(
    rows: Mapping[str, tuple[float, float]], title: str, xlabel: str
) -> Figure:
    """For each way to mislead the number that was reported, hollow, and the one that
    careful measuring gives, filled: name -> (reported, measured)."""
    figure = Figure(figsize=(7.4, 1.2 + 0.42 * len(rows)))
    axes = figure.subplots()
    for row, (reported, measured) in enumerate(rows.values()):
        axes.plot([reported, measured], [row, row], color="#BBBBBB", zorder=1)
        axes.plot(reported, row, "o", mfc="white", mec="black", ms=7)
        axes.plot(measured, row, "o", color=COLOURS["student"], ms=7)
        for value, other in ((reported, measured), (measured, reported)):
            side = 1 if value >= other else -1
            axes.annotate(f"{value:.0%}", (value, row), (9 * side, 0), va="center",
                          ha="left" if side > 0 else "right",
                          textcoords="offset points")  # fmt: skip
    axes.plot([], [], "o", mfc="white", mec="black", ms=7, label="as reported")
    axes.plot([], [], "o", color=COLOURS["student"], ms=7, label="measured with care")
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(axis="y", length=0)
    values = [value for pair in rows.values() for value in pair]
    axes.set(xlim=(min(values) - 0.1, max(values) + 0.1), xlabel=xlabel, title=title,
             ylim=(len(rows) - 0.5, -0.5))  # fmt: skip
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}" if x < 1.001 else "")
    axes.grid(axis="x")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def agreement_and_accuracy(
    runs: DataFrame, agreement: str, accuracy: str, title: str
) -> Figure:
    """Each run as a point, likeness to the teacher across, right answers up; the mean
    of each `kind` is named."""
    figure = Figure(figsize=(7, 3.6))
    axes = figure.subplots()
    axes.plot(runs[agreement], runs[accuracy], "o", ms=4, alpha=0.5,
              color=COLOURS["student"])  # fmt: skip
    means = runs.groupby("kind")[[agreement, accuracy]].mean().sort_values(agreement)
    for place, (kind, (x, y)) in enumerate(means.iterrows()):
        axes.plot(x, y, "D", color=COLOURS["student"], mec="black", ms=6)
        # The leftmost name stands on the left, where no other point is.
        side, where = (7, "left") if place else (-7, "right")
        axes.annotate(kind.replace("_", " "), (x, y), (side, -3), va="top", ha=where,
                      textcoords="offset points", fontsize=8)  # fmt: skip
    axes.margins(x=0.12)
    axes.set(title=title, xlabel="tokens on which student and teacher agree",
             ylabel="right answers")  # fmt: skip
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:.1%}")
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:.0%}")
    axes.grid()
    return figure


def ratios(
    intervals: Mapping[str, object],
    title: str,
    xlabel: str,
    role: str = "student",
    line: float | None = 1,
) -> Figure:
    """An `Interval` of a ratio in each row, and a line where the ratio should be."""
    figure = Figure(figsize=(7.4, 1 + 0.42 * len(intervals)))
    axes = figure.subplots()
    for row, i in enumerate(intervals.values()):
        axes.hlines(row, i.low, i.high, color=COLOURS[role])
        axes.plot(i.value, row, "o", color=COLOURS[role])
        axes.annotate(f"{i.value:.2f}", (i.value, row), (0, 6), ha="center",
                      textcoords="offset points")  # fmt: skip
    if line is not None:
        axes.axvline(line, color="black", lw=1, ls=":")
    axes.set_yticks(range(len(intervals)), intervals)
    axes.tick_params(axis="y", length=0)
    axes.set(ylim=(len(intervals) - 0.5, -0.7), title=title, xlabel=xlabel)
    axes.grid(axis="x")
    return figure


def load(table: DataFrame, title: str, limit_seconds: float | None = None) -> Figure:
    """`profile.concurrency`: tokens a second on the left, p95 of an answer's seconds on
    the right, against users at a time; medians, and bars from the least repeat to the
    most. Both axes are logarithmic. A dotted line marks the limit."""
    figure = Figure(figsize=(8.4, 3.4))
    _title(figure, title)
    panels = figure.subplots(1, 2)
    names = list(table["model"].unique())
    roles = [_role(name) for name in names]
    levels = sorted(table["concurrency"].unique())
    for axes, column in zip(panels, ("tokens a second", "p95"), strict=True):
        for place, name in enumerate(names):
            groups = table[table["model"] == name].groupby("concurrency")[column]
            middle = groups.median()
            reach = np.abs([groups.min() - middle, groups.max() - middle])
            look = LOOKS[roles[:place].count(roles[place]) % len(LOOKS)]
            axes.errorbar(middle.index, middle, reach, fmt=look, lw=1.5,
                          color=COLOURS[roles[place]], label=name)  # fmt: skip
        axes.set(xscale="log", yscale="log", xlabel="users at a time")
        axes.set_xticks(levels, [str(level) for level in levels])
        axes.xaxis.minorticks_off()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.minorticks_off()
        axes.grid(axis="y")
    panels[0].set_ylabel("tokens written a second")
    panels[1].set_ylabel("seconds for 95 of 100 answers")
    if limit_seconds is not None:
        panels[1].axhline(limit_seconds, color="black", lw=1, ls=":")
        panels[1].annotate("limit", (1, limit_seconds), (0, -3), ha="right", va="top",
                           xycoords=panels[1].get_yaxis_transform(),
                           textcoords="offset points")  # fmt: skip
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(names))
    return figure
