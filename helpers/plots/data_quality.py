"""Figures of `data_quality`: what rules drop, what votes say, what data teach."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from pandas import DataFrame

from .base import COLOURS, name_rows, role_of, seed_points


def funnel(table: DataFrame) -> Figure:
    """Rows left after each rule of a `quality.Funnel.table`; what the rule dropped is
    pale, and written beside the bar. Raises `ValueError` for a table without rules."""
    if table.empty:
        raise ValueError("a funnel without rules has nothing to draw")
    figure = Figure(figsize=(7, 1.1 + 0.32 * len(table)))
    axes = figure.subplots()
    left, dropped = table["left"].to_numpy(), table["dropped"].to_numpy()
    total = table["in"].iloc[0]
    colour, places = COLOURS["teacher"], np.arange(len(table))
    axes.barh(places, left, 0.7, color=colour)
    axes.barh(places, dropped, 0.7, left, color=colour, alpha=0.25)
    for place, (kept, out) in enumerate(zip(left, dropped, strict=True)):
        text = f"{kept:,} left" + (f", {out:,} dropped" if out else "")
        axes.annotate(text, (kept + out, place), (4, 0), va="center", fontsize=9,
                      textcoords="offset points")  # fmt: skip
    name_rows(axes, table["rule"])
    axes.set(xlim=(0, 1.45 * max(total, 1)), xlabel="rows")
    axes.set_title(f"{left[-1]:,} of {total:,} rows are kept")
    return figure


def vote_confidence(votes: DataFrame) -> Figure:
    """Share of right answers (`mean`) by the share of votes that they won (the index);
    beside each point how many answers it stands for (`count`)."""
    figure = Figure(figsize=(6, 2.8))
    axes = figure.subplots()
    axes.plot(votes.index, votes["mean"], "o-", color=COLOURS["teacher"], clip_on=False)
    for share, row in votes.iterrows():
        below = row["mean"] > 0.5
        axes.annotate(f"{row['count']:.0f} answers", (share, row["mean"]),
                      (0, -15 if below else 8), textcoords="offset points",
                      ha="center", fontsize=9)  # fmt: skip
    axes.set(xlim=(0, 1.1), ylim=(0, 1.05), ylabel="share that is right",
             xlabel="share of the draws that agree",
             title="The more draws agree, the safer the answer")  # fmt: skip
    return figure


def three_seeds(groups: Mapping[str, Sequence[float]], references: Mapping) -> Figure:
    """Accuracy of each way of teaching, a point a seed; dotted lines for references.

    Ways whose name ends in "labels" have the colour of gold, the others the student's.
    """
    figure = Figure(figsize=(7, 0.5 * len(groups) + 1.3))
    axes = figure.subplots()
    roles = ["gold" if name.endswith("labels") else "student" for name in groups]
    seed_points(axes, groups, [COLOURS[role] for role in roles])
    for name, value in references.items():
        colour = COLOURS[role_of(name)]
        axes.axvline(value, color=colour, lw=1.5, ls=":")
        axes.annotate(f"{name} ", (value, -0.45), ha="right", va="top", color=colour)
    axes.set(xlim=(0, 1), xlabel="right answers on test",
             title="Ways to teach at equal budget, three seeds each")  # fmt: skip
    axes.grid(axis="x")
    return figure
