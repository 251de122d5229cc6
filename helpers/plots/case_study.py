"""Figures of `case_study`: people's labels or a teacher, claims beside measurements."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from .base import (
    COLOURS,
    Interval,
    count_axis,
    headline,
    mark_interval,
    name_rows,
    reference_line,
    role_of,
)

# Green learns from people, orange from the teacher, as everywhere in the course.
METHODS = {
    "distilled": ("student", "o-"),
    "careless labels": ("gold", "v--"),
    "gold labels": ("gold", "D"),
}


def labels_or_teacher(
    methods: Mapping[str, Mapping[int, Interval]],
    references: Mapping[str, float],
    title: str,
) -> Figure:
    """Right answers against the number of prompts, with intervals: a line a method of
    teaching (`METHODS`), and the models to compare with as dotted lines."""
    figure = Figure(figsize=(7.2, 3.8))
    axes = figure.subplots()
    for place, (method, by_prompts) in enumerate(methods.items()):
        role, look = METHODS[method]
        x = 1.06 ** (place - 1) * np.array(list(by_prompts))  # side by side
        found = list(by_prompts.values())
        value = np.array([i.value for i in found])
        reach = [value - [i.low for i in found], [i.high for i in found] - value]
        axes.errorbar(x, value, reach, fmt=look, color=COLOURS[role], label=method,
                      capsize=3, lw=1.5)  # fmt: skip
    for name, value in references.items():
        reference_line(axes, name, value)
    prompts = sorted({n for by_prompts in methods.values() for n in by_prompts})
    count_axis(axes, prompts)
    axes.set(title=title, xlabel="prompts, each with one answer", ylim=(0, 1.08),
             ylabel="right answers (95 % interval)")  # fmt: skip
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:.0%}")
    axes.grid(axis="y")
    figure.legend(loc="outside lower center", ncols=len(methods))
    return figure


def accuracy_by_task(
    intervals: Mapping[str, Mapping[str, tuple]], title: str
) -> Figure:
    """Accuracy and interval: model -> task -> (value, low, high), a row a task."""
    tasks = list(next(iter(intervals.values())))
    figure = Figure(figsize=(7, 0.9 + 0.5 * len(tasks)))
    axes = figure.subplots()
    for offset, (model, by_task) in zip(
        (0.22, 0, -0.22), intervals.items(), strict=True
    ):
        colour = COLOURS[role_of(model)]
        rows = np.arange(len(tasks)) - offset
        found = [by_task[task] for task in tasks]
        table = DataFrame(found, columns=["value", "low", "high"])
        mark_interval(axes, rows, table, colour, lw=1.5, label=model)
    name_rows(axes, tasks, above=0.6, below=0.6)
    axes.set(xlim=(-0.02, 1.02), title=title,
             xlabel="share of right answers (95 % interval)")  # fmt: skip
    axes.grid(axis="x")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def claims(
    kept: Mapping[str, Interval],
    claimed: float,
    left: Mapping[str, tuple[float, Interval]],
    title: str,
) -> Figure:
    """A published case beside a measured one, all as shares of the teacher's.

    Left: the accuracy that each student keeps, and a line where `claimed` is. Right,
    logarithmic: what is left of each cost, the claim hollow, ours with its interval.
    """
    figure = Figure(figsize=(8.8, 1.5 + 0.4 * max(len(kept), len(left))))
    headline(figure, title)
    panels = figure.subplots(1, 2)
    for row, (name, i) in enumerate(kept.items()):
        role = METHODS[name][0] if name in METHODS else role_of(name)
        _dot(panels[0], row, i, COLOURS[role])
    panels[0].axvline(claimed, color="black", lw=1, ls=":")
    panels[0].annotate(f"page: {claimed:.0%}", (claimed, -0.62), (-4, 0), ha="right",
                       va="center", textcoords="offset points",
                       fontsize=8)  # fmt: skip
    panels[0].set(xlim=(0.4, 1.04), xlabel="accuracy kept: more is better")
    for row, (page, i) in enumerate(left.values()):
        panels[1].plot(page, row, "D", mfc="white", mec="black", ms=6)
        _dot(panels[1], row, i, COLOURS["student"])
    panels[1].set(xscale="log", xlim=(0.01, 1), xlabel="left of it: less is better")
    panels[1].set_xticks([0.01, 0.03, 0.1, 0.3, 1])
    for axes, names in zip(panels, (kept, left), strict=True):
        _rows(axes, list(names))
    panels[1].plot([], [], "D", mfc="white", mec="black", label="the page")
    panels[1].plot([], [], "o", color=COLOURS["student"], label="measured here")
    figure.legend(loc="outside lower right", ncols=2)
    return figure


def _dot(axes: Axes, row: int, i: Interval, colour: str) -> None:
    mark_interval(axes, row, i, colour)
    axes.annotate(f"{i.value:.1%}", (i.value, row), (0, 6), ha="center", fontsize=8,
                  textcoords="offset points",
                  bbox={"fc": "white", "ec": "none", "pad": 0.5})  # fmt: skip


def _rows(axes: Axes, names: Sequence[str]) -> None:
    name_rows(axes, names, above=0.8)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    axes.xaxis.minorticks_off()
    axes.grid(axis="x")
