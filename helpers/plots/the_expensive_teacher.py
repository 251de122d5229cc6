"""Figures of `the_expensive_teacher`: sizes of caches, their tails, the loss head."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from pandas import DataFrame

from .base import COLOURS, Interval, count_axis, headline, mark_interval, name_rows


def cache_sizes(gigabytes: Mapping[str, float], disk: float) -> Figure:
    """Size of each kind of cache on a logarithmic axis, beside a disk of so many GB."""
    figure = Figure(figsize=(7, 1.2 + 0.35 * len(gigabytes)))
    axes = figure.subplots()
    values = list(gigabytes.values())
    bars = axes.barh(range(len(values)), values, 0.6, color=COLOURS["teacher"])
    axes.bar_label(
        bars, [f"{v:,.0f} GB" if v > 10 else f"{v:.1f} GB" for v in values], padding=3
    )
    axes.axvline(disk, color="black", lw=1, ls=":")
    axes.annotate(f"disk of {disk:,g} GB", (disk, len(values) - 0.6), (4, 0),
                  textcoords="offset points", fontsize=8)  # fmt: skip
    axes.set_xscale("log")
    name_rows(axes, gigabytes, below=0.6)
    axes.set(xlim=(0.05, 30 * max(values)),
             xlabel="GB for ten million answer tokens, 151,936 words",
             title="Every probability kept: more than a disk holds")  # fmt: skip
    return figure


# What a loss makes of the words that a cache leaves out.
TAILS = {
    "full": ("teacher", "-"),
    "bucket": ("student", "-"),
    "sampled": ("student", ":"),
    "truncate": ("baseline", "-"),
    "renormalise": ("baseline", "--"),
}


def tail_treatments(
    masses: Mapping[str, Sequence[float]], kl: Mapping[str, float], truth: float
) -> Figure:
    """The mass that a student gives to the known words, step by step, `truth` being the
    teacher's; and how far from the teacher it ends."""
    figure = Figure(figsize=(8, 3))
    headline(figure, "Without a tail the student is over-confident")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for row, (name, (role, dash)) in enumerate(TAILS.items()):
        left.plot(masses[name], dash, color=COLOURS[role], label=name)
        right.barh(row, kl[name], 0.6, color=COLOURS[role])
        right.annotate(f"{kl[name]:.2f}", (kl[name], row), (3, 0), va="center",
                       textcoords="offset points")  # fmt: skip
    left.axhline(truth, color="black", lw=1, ls=":")
    left.annotate("the teacher's", (1, truth), (0, -10), ha="right",
                  xycoords=("axes fraction", "data"),
                  textcoords="offset points", fontsize=8)  # fmt: skip
    left.set(xlabel="step", ylabel="student's mass on the top words", ylim=(0, 1.02))
    left.legend(loc="center right", bbox_to_anchor=(1, 0.7), fontsize=8)
    right.set_yticks(range(len(TAILS)), TAILS)
    right.invert_yaxis()
    right.tick_params(axis="y", length=0)
    right.set(xlabel="KL(teacher || student), nats",
              xlim=(0, 1.25 * max(kl.values())))  # fmt: skip
    return figure


def cache_students(
    sizes: Mapping[str, float],
    divergences: Mapping[str, float],
    accuracy: Mapping[str, Interval],
) -> Figure:
    """Students by the signal they learnt from: its bytes a token, how far from the
    teacher they are, and their accuracy."""
    figure = Figure(figsize=(8.4, 1.1 + 0.36 * len(sizes)))
    headline(figure, "Answers hide what the truncated student thinks")
    panels = figure.subplots(1, 3, sharey=True)
    names = ("bytes a token on the disk", "KL(teacher || student), nats",
             "right answers (95 % interval)")  # fmt: skip
    for row, name in enumerate(sizes):
        colour = COLOURS["baseline" if name == "truncated" else "student"]
        measures = (sizes[name], f"{sizes[name]:.0f}"), (divergences[name],
                    f"{divergences[name]:.2f}")  # fmt: skip
        for axes, (value, text) in zip(panels, measures, strict=False):
            axes.barh(row, value, 0.6, color=colour)
            axes.annotate(text, (value, row), (3, 0), va="center",
                          textcoords="offset points")  # fmt: skip
        mark_interval(panels[2], row, accuracy[name], colour, lw=1.5)
    for axes, name in zip(panels, names, strict=True):
        axes.set_xlabel(name)
        axes.set_xlim(0, 1.25 * axes.dataLim.xmax)
        axes.tick_params(axis="y", length=0)
    name_rows(panels[0], sizes)
    panels[2].set_xlim(0, 1)
    panels[2].grid(axis="x")
    return figure


def passes(live: float, cached: float, written: float) -> Figure:
    """Time of a training against passes over the data, from the seconds of a pass with
    a live teacher, of one with a cache, and those that it takes to write the cache."""
    figure = Figure(figsize=(6, 2.8))
    axes = figure.subplots()
    n = np.arange(9)
    lines = {
        "live teacher": (0, live, "teacher"),
        "cache": (written, cached, "student"),
    }
    for name, (start, each, role) in lines.items():
        seconds = start + each * n
        axes.plot(n, seconds, color=COLOURS[role])
        axes.annotate(name, (n[-1], seconds[-1]), (6, 0), va="center",
                      color=COLOURS[role], textcoords="offset points",
                      annotation_clip=False)  # fmt: skip
    axes.set(xlabel="passes over the data", ylabel="seconds", xlim=(0, 9.8),
             title="A cache pays when the data are read again")  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.set_xticks(n)
    return figure


def head_memory(
    words: Sequence[int],
    peaks: Mapping[str, Mapping[int, float]],
    laws: Mapping[str, Sequence[float]],
) -> Figure:
    """Peak bytes of a loss head against the vocabulary: way -> words -> bytes measured,
    as points; way -> bytes by formula at each of `words`, as lines."""
    figure = Figure(figsize=(7, 3.4))
    axes = figure.subplots()
    looks = {
        "whole": ("baseline", "o"),
        "chunked": ("baseline", "^"),
        "fused": ("student", "o"),
    }
    for name, by_words in peaks.items():
        role, marker = looks[name]
        measured = [by_words[V] / 2**20 for V in by_words]
        axes.plot(list(by_words), measured, marker, color=COLOURS[role], ms=6)
        end = words[-1] if name in laws else list(by_words)[-1]
        height = laws[name][-1] / 2**20 if name in laws else measured[-1]
        axes.annotate(name, (end, height), (8, 0), va="center", color=COLOURS[role],
                      textcoords="offset points", annotation_clip=False)  # fmt: skip
    for name, values in laws.items():
        axes.plot(words, np.array(values) / 2**20, "--", lw=1.2, zorder=0,
                  color=COLOURS[looks[name][0]])  # fmt: skip
    axes.set_yscale("log")
    count_axis(axes, words)
    axes.set(xlabel="words in the vocabulary", ylabel="peak memory, MiB",
             xlim=(0.8 * words[0], 2 * words[-1]),
             title="Measured (points) and by formula (dashed lines)")  # fmt: skip
    axes.grid(axis="y")
    return figure


def recorded_heads(runs: DataFrame) -> Figure:
    """Peak memory and time of each route of the loss head, sizes one below the other.

    runs: a table with N, V, H_student, route, MiB and seconds.
    """
    sizes = list(runs.groupby(["N", "V", "H_student"], sort=False))
    headings, ticks, names, place = [], [], [], 0.0
    for size, group in sizes:
        place += 0.9  # room for the heading
        headings.append(
            (place - 0.75, "N = {:,.0f}, V = {:,.0f}, H = {:,.0f}".format(*size))
        )
        for route in group["route"]:
            ticks.append(place)
            names.append(route)
            place += 1
    colours = [COLOURS["student" if name == "fused" else "baseline"] for name in names]
    figure = Figure(figsize=(8, 0.9 + 0.26 * place))
    headline(figure, "The loss head at full size, forward and backward")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, column in zip(panels, ("MiB", "seconds"), strict=True):
        values = [v for _, group in sizes for v in group[column]]
        bars = axes.barh(ticks, values, 0.75, color=colours)
        axes.bar_label(bars, [f"{v:,.0f}" if v >= 10 else f"{v:.2f}" for v in values],
                       padding=3, fontsize=8)  # fmt: skip
        axes.set_xlim(0, 1.2 * max(values))
        axes.tick_params(axis="y", length=0)
    for height, heading in headings:
        panels[0].annotate(heading, (0, height), (2, 0), va="center", fontsize=8,
                           textcoords="offset points", fontweight="bold")  # fmt: skip
    panels[0].set_yticks(ticks, names)
    panels[0].set_ylim(place - 0.3, -0.2)
    panels[0].set_xlabel("peak above the inputs, MiB")
    panels[1].set_xlabel("seconds")
    return figure
