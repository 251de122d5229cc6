"""Figures of `evaluation`: what was kept, what single numbers hide, what load does."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from pandas import DataFrame

from .base import COLOURS, Interval, headline, mark_interval, name_rows, role_of


def kept_and_saved(
    accuracy: Mapping[str, tuple], costs: Mapping[str, float], title: str
) -> Figure:
    """The lap in one picture: what was kept, and what is left of each cost.

    accuracy: model -> (value, low, high); costs: name -> student as a share of teacher.
    """
    figure = Figure(figsize=(8, 2.9))
    headline(figure, title)
    left, right = figure.subplots(1, 2)
    for row, (model, (value, low, high)) in enumerate(accuracy.items()):
        colour = COLOURS[role_of(model)]
        left.barh(row, value, 0.6, color=colour)
        left.hlines(row, low, high, color="black", lw=1.5)
        left.annotate(f"{value:.0%}", (0.02, row), va="center", color="white",
                      fontweight="bold")  # fmt: skip
    name_rows(left, accuracy)
    left.set(xlim=(0, 1), xlabel="right answers on test (95 % interval)")
    for row, share in enumerate(costs.values()):
        right.barh(row, 1, 0.6, color=COLOURS["teacher"], alpha=0.25)
        right.barh(row, share, 0.6, color=COLOURS["student"])
        right.annotate(f"{share:.0%} of the teacher's", (share, row), (4, 0),
                       va="center", textcoords="offset points")  # fmt: skip
    name_rows(right, costs)
    right.set(xlim=(0, 1), xticks=[], xlabel="what the distilled student still costs")
    return figure


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
    name_rows(axes, rows)
    values = [value for pair in rows.values() for value in pair]
    axes.set(xlim=(min(values) - 0.1, max(values) + 0.1), xlabel=xlabel, title=title)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}" if x < 1.001 else "")
    axes.grid(axis="x")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def small_samples(shares: Mapping[int, Sequence[float]], truth: float) -> Figure:
    """Retention measured on many random samples of each size, against that of all."""
    figure = Figure(figsize=(6, 2.6))
    axes = figure.subplots()
    rng = np.random.default_rng(0)
    for row, values in enumerate(shares.values()):
        heights = row + rng.uniform(-0.25, 0.25, len(values))
        axes.plot(values, heights, "o", ms=3, alpha=0.4, color=COLOURS["student"])
    axes.axvline(truth, color="black", lw=1, ls=":")
    name_rows(axes, [f"{size} examples" for size in shares])
    axes.set(xlabel="retention measured on a sample",
             title="Few examples show whatever chance wants")  # fmt: skip
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


def reliability(tables: Mapping[str, DataFrame], title: str) -> Figure:
    """Confidence against accuracy, a panel a model: the tables of
    `evaluate.reliability`. A larger dot holds more items; on the line a model is as
    right as it is sure, below it over-confident."""
    figure = Figure(figsize=(max(3.4, 2.9 * len(tables)), 3.3))
    headline(figure, title)
    panels = figure.subplots(1, len(tables), squeeze=False, sharey=True)[0]
    for axes, (name, table) in zip(panels, tables.items(), strict=True):
        some = table[table["count"] > 0]
        share = some["count"] / some["count"].sum()
        colour = COLOURS[role_of(name)]
        error = (share * (some["accuracy"] - some["confidence"]).abs()).sum()
        axes.plot([0, 1], [0, 1], ":", color="black", lw=1)
        axes.vlines(some["confidence"], some["confidence"], some["accuracy"],
                    color=colour, alpha=0.5, lw=1.5)  # fmt: skip
        axes.scatter(some["confidence"], some["accuracy"], 20 + 200 * share,
                     color=colour, clip_on=False, zorder=3)  # fmt: skip
        axes.text(0.03, 0.95, f"ECE {error:.2f}", color=colour, va="top")
        axes.set(xlim=(0, 1), ylim=(0, 1), title=name, xlabel="confidence, mean of bin")
        axes.set_aspect("equal")
    panels[0].set_ylabel("share of right ones")
    return figure


MARKERS = ("o", "s", "^", "D", "v")  # for models of one role


def scores(
    table: DataFrame, title: str, metric: str = "accuracy", by: str = "task"
) -> Figure:
    """One metric of `evaluate.summarise`, a panel a split, a row for each group of `by`
    and for all items, a dot with its interval for each model."""
    table = table[(table["metric"] == metric) & table["by"].isin([by, "all"])]
    if table.empty:
        raise ValueError(f"the table has no {metric!r} by {by!r}")
    # The whole stands below its parts.
    groups = [*table.loc[table["by"] == by, "group"].unique(), "all"]
    groups = list(dict.fromkeys(groups))
    names, splits = table["model"].unique(), table["split"].unique()
    height = 1.6 + (0.2 + 0.14 * len(names)) * len(groups)
    figure = Figure(figsize=(1.8 + 3.2 * len(splits), height))
    headline(figure, title)
    panels = figure.subplots(1, len(splits), squeeze=False, sharex=True, sharey=True)[0]
    roles = [role_of(name) for name in names]
    for axes, split in zip(panels, splits, strict=True):
        for place, name in enumerate(names):
            chosen = table[(table["split"] == split) & (table["model"] == name)]
            rows = [groups.index(group) for group in chosen["group"]]
            rows = np.array(rows) + 0.7 * ((place + 0.5) / len(names) - 0.5)
            colour = COLOURS[roles[place]]
            marker = MARKERS[roles[:place].count(roles[place]) % len(MARKERS)]
            mark_interval(axes, rows, chosen, colour, lw=1.5, marker=marker,
                          label=name, clip_on=False)  # fmt: skip
        name_rows(axes, groups)
        axes.set(title=split, xlabel=f"{metric} (95 % interval)")
        axes.grid(axis="x")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(names))
    return figure


LOOKS = ("o-", "s--", "^:", "D-.")  # for models of one role


def load(table: DataFrame, title: str, limit_seconds: float | None = None) -> Figure:
    """`profile.concurrency`: tokens a second on the left, p95 of an answer's seconds on
    the right, against users at a time; medians, and bars from the least repeat to the
    most. Both axes are logarithmic. A dotted line marks the limit."""
    figure = Figure(figsize=(8.4, 3.4))
    headline(figure, title)
    panels = figure.subplots(1, 2)
    names = list(table["model"].unique())
    roles = [role_of(name) for name in names]
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


def ratios(
    intervals: Mapping[str, Interval],
    title: str,
    xlabel: str,
    role: str = "student",
    line: float | None = 1,
) -> Figure:
    """The interval of a ratio in each row, and a line where the ratio should be."""
    figure = Figure(figsize=(7.4, 1 + 0.42 * len(intervals)))
    axes = figure.subplots()
    for row, i in enumerate(intervals.values()):
        mark_interval(axes, row, i, COLOURS[role])
        axes.annotate(f"{i.value:.2f}", (i.value, row), (0, 6), ha="center",
                      textcoords="offset points")  # fmt: skip
    if line is not None:
        axes.axvline(line, color="black", lw=1, ls=":")
    name_rows(axes, intervals, above=0.7)
    axes.set(title=title, xlabel=xlabel)
    axes.grid(axis="x")
    return figure
