"""Figures of `lora`: memory of a step, rank, and what adapters reach."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from pandas import DataFrame

from .base import COLOURS, Interval, headline, mark_interval, name_rows, seed_points

# The parts of `memory.Ledger`; what grows with the *trained* parameters has the
# student's colour.
LEDGER = {
    "weights": (COLOURS["baseline"], 0.5),
    "teacher": (COLOURS["teacher"], 0.6),
    "adapters": (COLOURS["student"], 1.0),
    "gradients": (COLOURS["student"], 0.7),
    "optimiser": (COLOURS["student"], 0.4),
    "activations": ("#CC79A7", 0.8),
    "loss head": ("#CC79A7", 0.4),
}


def memory_ledger(
    ledgers: Mapping[str, Mapping[str, float]], cards: Sequence[float], title: str
) -> Figure:
    """A bar for each training step, made of the parts of its `memory.Ledger` in bytes;
    a line for each GPU memory in `cards`, in GiB."""
    figure = Figure(figsize=(7, 1.6 + 0.5 * len(ledgers)))
    axes = figure.subplots()
    totals = [sum(parts.values()) / 2**30 for parts in ledgers.values()]
    labels = {part: part for part in LEDGER}  # each stands in the legend once
    for row, (parts, total) in enumerate(zip(ledgers.values(), totals, strict=True)):
        left = 0.0
        for part, (colour, alpha) in LEDGER.items():
            size = parts.get(part, 0) / 2**30
            axes.barh(row, size, 0.6, left, color=colour, alpha=alpha,
                      label=labels.pop(part, None) if size else None)  # fmt: skip
            left += size
        axes.annotate(f"{total:.1f}", (total, row), (5, 0), va="center", fontsize=9,
                      textcoords="offset points", zorder=3,
                      bbox={"fc": "white", "ec": "none", "pad": 1})  # fmt: skip
    for size in cards:
        axes.axvline(size, color="black", lw=1, ls=":", zorder=2)
        axes.annotate(f"{size:g} GB", (size, len(ledgers) - 0.55), (3, 0),
                      textcoords="offset points", fontsize=8)  # fmt: skip
    name_rows(axes, ledgers, below=0.7)
    axes.set(xlim=(0, 1.12 * max(*totals, *cards)), title=title, xlabel="GiB")
    figure.legend(loc="outside lower center", ncols=4, fontsize=8)
    return figure


def starts(losses: Mapping[str, Sequence[float]]) -> Figure:
    """The loss (values) step by step, one line per way to start A and B (keys)."""
    figure = Figure(figsize=(6, 2.8))
    axes = figure.subplots()
    colours = (COLOURS["student"], COLOURS["baseline"], "#CC79A7")
    for (name, values), colour in zip(losses.items(), colours, strict=True):
        axes.semilogy(values, color=colour)
        axes.annotate(name, (len(values) - 1, values[-1]), (5, 0), va="center",
                      textcoords="offset points", color=colour)  # fmt: skip
    steps = max(map(len, losses.values()))
    axes.set(xlabel="step", ylabel="squared error", xlim=(0, 1.35 * steps),
             title="From two zeros nothing is learnt")  # fmt: skip
    axes.set_xticks(range(0, steps + 1, steps // 3))
    return figure


def rank_error(
    ranks: Sequence[int], trained: Sequence[float], floor: Sequence[float]
) -> Figure:
    """What is left of a wanted change after training at each rank, and by theory."""
    figure = Figure(figsize=(6, 2.8))
    axes = figure.subplots()
    axes.semilogy(ranks, floor, color=COLOURS["baseline"], zorder=1)
    axes.scatter(ranks, trained, 40, color=COLOURS["student"], zorder=2)
    axes.annotate("best possible, by singular values", (ranks[0], floor[0]), (12, -1),
                  textcoords="offset points", color=COLOURS["baseline"])  # fmt: skip
    axes.annotate("trained", (ranks[-1], trained[-1]), (-12, -4), ha="right",
                  textcoords="offset points", color=COLOURS["student"])  # fmt: skip
    axes.set(xlabel="rank", ylabel="share of the change missed",
             title="Rank r reaches r directions, not more")  # fmt: skip
    axes.set_xticks(ranks)
    axes.minorticks_off()
    return figure


def accuracy_bars(
    intervals: Mapping[str, Interval], roles: Sequence[str], title: str
) -> Figure:
    """The accuracy of each model, as a point with its interval."""
    figure = Figure(figsize=(7, 0.9 + 0.45 * len(intervals)))
    axes = figure.subplots()
    for row, (interval, role) in enumerate(zip(intervals.values(), roles, strict=True)):
        mark_interval(axes, row, interval, COLOURS[role], capstyle="projecting",
                      clip_on=False)  # fmt: skip
        axes.annotate(f"{interval.value:.0%}", (interval.value, row), (0, 6),
                      textcoords="offset points", ha="center",
                      color=COLOURS[role])  # fmt: skip
    name_rows(axes, intervals, above=0.7)
    axes.set(xlim=(0, 1), title=title,
             xlabel="accuracy on test prompts, with 95 % interval")  # fmt: skip
    axes.grid(axis="x")
    return figure


def step_memory(table: DataFrame) -> Figure:
    """Peak memory of a training step: a panel for each batch size, in it a bar for each
    method as measured, and a stroke where the ledger had predicted it.

    Columns: batch, method, predicted, measured, both in MB.
    """
    sizes, methods = table["batch"].unique(), table["method"].unique()
    figure = Figure(figsize=(7, 1.7 + 0.3 * len(methods)))
    headline(figure, "LoRA saves at a small batch, activations fill a large one")
    panels = figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
    places = np.arange(len(methods))
    for axes, size in zip(panels, sizes, strict=True):
        rows = table[table["batch"] == size].set_index("method").loc[methods]
        bars = axes.barh(places, rows["measured"], 0.6, color=COLOURS["student"],
                         alpha=0.6)  # fmt: skip
        axes.bar_label(bars, fmt="{:.1f}", padding=8)
        axes.vlines(rows["predicted"], places - 0.4, places + 0.4, color="black", lw=2)
        axes.set(title=f"batch of {size}", xlabel="peak of a step, MB",
                 xlim=(0, 1.25 * table.loc[table["batch"] == size, "measured"].max()),
                 ylim=(len(methods) - 0.5, -0.5))  # fmt: skip
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(places, methods)
    stroke = panels[0].collections[0]
    figure.legend([bars[0], stroke], ["measured", "predicted by the ledger"],
                  loc="outside lower center", ncols=2)  # fmt: skip
    return figure


def recorded_lora(groups: Mapping[str, Sequence[float]], title: str) -> Figure:
    """Accuracy of each way to train, every seed as a point and the mean as a stroke.

    Ways whose name begins with "full" have the colour of the baseline.
    """
    figure = Figure(figsize=(7, 1.0 + 0.38 * len(groups)))
    axes = figure.subplots()
    roles = ["baseline" if name.startswith("full") else "student" for name in groups]
    seed_points(axes, groups, [COLOURS[role] for role in roles])
    axes.set(xlabel="right answers on test (the axis does not start at 0)", title=title)
    axes.grid(axis="x")
    return figure


def rounded_update(
    sizes: Sequence[float], survives: Sequence[float], here: float
) -> Figure:
    """The share of an update that is left when the sum is rounded to 4 bits, against
    the update's size relative to the weight; `here`: the size of a real one."""
    figure = Figure(figsize=(6, 2.8))
    axes = figure.subplots()
    axes.semilogx(sizes, survives, "o-", color=COLOURS["student"], clip_on=False)
    axes.axvline(here, color=COLOURS["baseline"], ls=":", lw=1.5)
    axes.annotate("our adapter ", (here, 0.05), ha="right", color=COLOURS["baseline"])
    axes.set_xticks(sizes, [f"{size:.1%}" for size in sizes])
    axes.minorticks_off()
    axes.set(xlabel="size of the update, as a share of the weight's",
             ylabel="share that survives", ylim=(0, 1.1),
             title="Four bits swallow a small update")  # fmt: skip
    return figure
