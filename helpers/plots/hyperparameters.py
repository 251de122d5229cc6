"""Figures of `hyperparameters`: what the settings of a training do."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from pandas import DataFrame

from .base import COLOURS, headline, seed_line, seed_points

# Two ways to train one student share its colour and differ in the line.
LINES = {"LoRA": "-", "full": "--"}
PAGE = (1e-5, 5e-5)  # learning rates that recipes for large models name


def _label(axes: Axes, text: str, at: tuple[float, float], colour: str, **how) -> None:
    how = {"xytext": (5, 0), "ha": "left", "va": "center"} | how
    axes.annotate(text, at, textcoords="offset points", color=colour, **how)


def first_step(widths: Sequence[int], moved: Mapping[str, Sequence[float]]) -> Figure:
    """How far a layer's output moves in one step of AdamW, against its width."""
    figure = Figure(figsize=(6, 2.8))
    axes = figure.subplots()
    for name, values in moved.items():
        axes.loglog(widths, values, "o" + LINES[name], color=COLOURS["student"])
        _label(axes, name, (widths[-1], values[-1]), COLOURS["student"])
    axes.set_xticks(widths, widths)
    axes.minorticks_off()
    axes.set(
        xlim=(widths[0] / 1.2, widths[-1] * 2), xlabel="width of the layer",
        ylabel="output moves by,\nin learning rates",
        title="The wider the layer, the further one step of it goes",
    )  # fmt: skip
    return figure


def gradient_noise(sizes: Sequence[int], spread: Sequence[float]) -> Figure:
    """Noise of a batch's gradient as a share of its length, against the batch, and the
    line of 1 / sqrt(batch) through the first point."""
    figure = Figure(figsize=(6, 2.8))
    axes = figure.subplots()
    expected = spread[0] * np.sqrt(sizes[0] / np.asarray(sizes))
    axes.loglog(sizes, expected, ":", color=COLOURS["baseline"])
    axes.loglog(sizes, spread, "o", color=COLOURS["student"])
    middle = len(sizes) // 2
    how = {"xytext": (8, 8)}
    at = sizes[middle], expected[middle]
    _label(axes, "1 / root of the batch", at, COLOURS["baseline"], **how)
    axes.set_xticks(sizes, sizes)
    axes.set_yticks(spread, [f"{value:.1f}" for value in spread])
    axes.minorticks_off()
    axes.set(
        xlabel="rows in a batch", ylabel="noise / gradient",
        title="Four times the rows, half the noise",
    )  # fmt: skip
    return figure


def learning_rates(runs: DataFrame, base: float, title: str) -> Figure:
    """Right answers on validation against the learning rate, by `way`; `base` is the
    student before training. Columns: way, learning_rate, seed, validation."""
    figure = Figure(figsize=(7, 3.2))
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.axvspan(*PAGE, color=COLOURS["teacher"], alpha=0.12, lw=0)
    axes.annotate("recipes for\nlarge models", (np.sqrt(np.prod(PAGE)), 0.03),
                  ha="center", va="bottom", color=COLOURS["teacher"])  # fmt: skip
    axes.axhline(base, color=COLOURS["baseline"], ls=":")
    _label(axes, "before training", (runs["learning_rate"].max(), base),
           COLOURS["baseline"], ha="right", xytext=(40, 7))  # fmt: skip
    for way, style in LINES.items():
        chosen = runs[runs["way"] == way]
        table = chosen.pivot(index="learning_rate", columns="seed", values="validation")
        best = table.mean(axis=1).idxmax()
        seed_line(axes, table.index, table.to_numpy(), style, COLOURS["student"],
                  zorder=2.1)  # fmt: skip
        at = best, table.loc[best].mean()
        how = {"ha": "center", "xytext": (0, 12)}
        _label(axes, way, at, COLOURS["student"], **how)
    axes.set(ylim=(0, 1), xlabel="learning rate", ylabel="right answers on validation",
             title=title)  # fmt: skip
    return figure


def batch_sizes(runs: DataFrame, title: str) -> Figure:
    """Right answers on validation against the batch, a panel for each `way` of making
    batches comparable. Columns: way, batch_size, seed, validation."""
    ways = list(dict.fromkeys(runs["way"]))
    figure = Figure(figsize=(8, 2.8))
    panels = figure.subplots(1, len(ways), sharey=True)
    for axes, way in zip(panels, ways, strict=True):
        chosen = runs[runs["way"] == way]
        table = chosen.pivot(index="batch_size", columns="seed", values="validation")
        axes.set_xscale("log", base=2)
        seed_line(axes, table.index, table.to_numpy(), "-", COLOURS["student"],
                  zorder=2.1)  # fmt: skip
        axes.set_xticks(table.index, table.index)
        axes.set_xlabel("rows in a batch")
        axes.set_title(way, fontsize=9)
    panels[0].set(ylim=(0, 1), ylabel="right answers\non validation")
    headline(figure, title)
    return figure


def over_fitting(table: DataFrame, chosen: int, title: str) -> Figure:
    """Left: NLL of the training and validation answers by step (the index); right: the
    share of right answers on validation. The step `chosen` is marked."""
    figure = Figure(figsize=(7, 2.8))
    panels = figure.subplots(1, 2)
    first, last = table.index[0], table.index[-1]
    for name, role in (("train", "gold"), ("validation", "student")):
        panels[0].plot(table.index, table[name], color=COLOURS[role])
    _label(panels[0], "training rows", (first, table["train"].iloc[0]), COLOURS["gold"])
    _label(panels[0], "validation", (last, table["validation"].iloc[-1]),
           COLOURS["student"], ha="right", xytext=(0, 8))  # fmt: skip
    panels[1].plot(table.index, table["right"], color=COLOURS["student"])
    for axes, name in zip(
        panels, ("NLL, nats per token", "right answers"), strict=True
    ):
        axes.axvline(chosen, color=COLOURS["baseline"], ls=":")
        axes.set(xlabel="step", ylabel=name, ylim=(0, None), xlim=(0, last))
    panels[0].set_ylim(top=1.15 * table[["train", "validation"]].max().max())
    panels[1].set_ylim(0, 1)
    _label(panels[1], f"lowest NLL: step {chosen}", (chosen, 0.06), COLOURS["baseline"])
    headline(figure, title)
    return figure


def optimism(reported: np.ndarray, honest: np.ndarray, title: str) -> Figure:
    """Two histograms over repeated choices: the winner's share of right answers on the
    prompts that chose it, and on other prompts."""
    figure = Figure(figsize=(7, 2.6))
    axes = figure.subplots()
    # Shares of a few prompts are coarse: a bar for each value, so that none is empty.
    width = np.diff(np.unique(reported)).min()
    low, high = min(reported.min(), honest.min()), max(reported.max(), honest.max())
    bins = np.arange(low - width / 2, high + width, width)
    for values, role, name, side in (
        (honest, "student", "on other prompts", "right"),
        (reported, "baseline", "on the prompts\nthat chose it", "left"),
    ):
        counts, *_ = axes.hist(values, bins, color=COLOURS[role], alpha=0.45)
        axes.axvline(values.mean(), color=COLOURS[role])
        sign = -1 if side == "right" else 1
        _label(axes, name, (values.mean(), 1.1 * counts.max()), COLOURS[role],
               ha=side, xytext=(sign * 5, 0))  # fmt: skip
    axes.set(xlabel="right answers of the chosen checkpoint", yticks=[], title=title)
    axes.set_ylim(top=1.35 * axes.get_ylim()[1])
    return figure


def knob_map(values: DataFrame, tied: DataFrame, text: float, title: str) -> Figure:
    """Right answers for each temperature (columns) and soft weight (rows), a number in
    each cell; framed where `tied` says that the best is no better for sure. `text` is
    soft weight 0, where the temperature plays no part."""
    figure = Figure(figsize=(6, 3.4))
    axes = figure.subplots()
    low = min(text, values.to_numpy().min())
    image = axes.imshow(values, cmap="viridis", aspect="auto", vmin=low)
    for (y, x), value in np.ndenumerate(values.to_numpy()):
        dark = image.norm(value) < 0.43  # of viridis
        axes.text(x, y, f"{value:.2f}", ha="center", va="center",
                  color="white" if dark else "black")  # fmt: skip
        if tied.iloc[y, x]:
            axes.add_patch(Rectangle((x - 0.44, y - 0.42), 0.88, 0.84, fill=False,
                                     ec=COLOURS["student"], lw=2.5))  # fmt: skip
    axes.set_xticks(range(values.shape[1]), [f"{t:g}" for t in values.columns])
    axes.set_yticks(range(values.shape[0]), [f"{w:g}" for w in values.index])
    axes.grid(False)
    axes.set(
        xlabel=f"temperature   (soft weight 0, text alone: {text:.2f})",
        ylabel="soft weight", title=title,
    )  # fmt: skip
    return figure


def progress(curves: Mapping[str, Sequence[tuple]], title: str) -> Figure:
    """Best value so far against steps spent: for each way the curves of its seeds,
    (steps, values)."""
    figure = Figure(figsize=(8, 2.8))
    panels = figure.subplots(1, len(curves), sharex=True, sharey=True)
    for axes, (way, seeds) in zip(panels, curves.items(), strict=True):
        for steps, values in seeds:
            axes.step(steps, values, where="post", color=COLOURS["student"], alpha=0.7)
        axes.set_xlabel("training steps spent")
        axes.set_title(way, fontsize=9)
    panels[0].set_ylabel("best so far,\nright on validation")
    headline(figure, title)
    return figure


def ways_to_search(groups: Mapping[str, Sequence[float]], title: str) -> Figure:
    """Right answers on test, a point a seed; ways by hand in grey."""
    figure = Figure(figsize=(7, 0.5 * len(groups) + 1.3))
    axes = figure.subplots()
    roles = ["baseline" if "hand" in name else "student" for name in groups]
    seed_points(axes, groups, [COLOURS[role] for role in roles])
    axes.set(xlabel="right answers on test", title=title)
    axes.grid(axis="x")
    return figure
