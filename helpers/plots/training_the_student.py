"""Figures of `training_the_student`: shifted labels, losses, and what to learn from."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from .base import (
    COLOURS,
    Interval,
    count_axis,
    headline,
    mark_interval,
    name_rows,
    reference_line,
    seed_line,
    seed_points,
)

# Green learns from people, orange from the teacher; shape and dash say from what.
SOURCES = {
    "gold labels": ("gold", "o-"),
    "careless labels": ("gold", "v:"),
    "teacher's text": ("student", "s--"),
    "teacher's logits": ("student", "o-"),
    "mix": ("student", "^:"),
}
PARTS = {
    "prompt": ("#333333", "white"),
    "answer": (COLOURS["student"], "#FBE9DE"),
    "end": (COLOURS["gold"], "#DDEEE8"),
    "padding": (COLOURS["baseline"], "#EEEEEE"),
}


def token_labels(
    inputs: Sequence[str], labels: Sequence[str], parts: Sequence[str], first: int = 0
) -> Figure:
    """One row of a batch from top to bottom: what goes in at each position, its label
    ("" where it is -100), and what the logits there are asked for: the label below.

    parts: a key of `PARTS` for each position; `first`: the number of the first one.
    """
    figure = Figure(figsize=(7, 0.8 + 0.27 * len(inputs)))
    axes = figure.subplots()
    columns = {"position": -0.25, "input_ids": 0.1, "labels": 1.1,
               "target of the logits": 2.1}  # fmt: skip
    for name, x in columns.items():
        axes.text(x, -1, name, weight="bold", va="center", fontsize=9)

    def box(x: float, row: int, text: str, part: str) -> None:
        colour, filling = PARTS[part] if text else (COLOURS["baseline"], "white")
        patch = FancyBboxPatch((x, row - 0.34), 0.68, 0.68, ec="none", fc=filling,
                               boxstyle="round,pad=0.02")  # fmt: skip
        axes.add_patch(patch)
        axes.text(x + 0.03, row, text or "-100", color=colour, va="center",
                  fontsize=8, family="monospace")  # fmt: skip

    for row, (token, label, part) in enumerate(zip(inputs, labels, parts, strict=True)):
        axes.text(-0.15, row, first + row, va="center", fontsize=8)
        box(0.1, row, token, part)
        box(1.1, row, label, part)
        if row:  # the shift: this label belongs to the logits one position earlier
            box(2.1, row - 1, label, part)
            if label:
                axes.annotate("", (2.08, row - 1), (1.8, row), arrowprops={
                    "arrowstyle": "->", "color": PARTS[part][0]})  # fmt: skip
    axes.set(xlim=(-0.3, 2.9), ylim=(len(inputs) - 0.4, -1.5))
    axes.set_axis_off()
    headline(figure, "The label of the next position is the target of this one")
    return figure


def loss_curves(
    curves: Mapping[str, tuple[Sequence[float], str]], title: str
) -> Figure:
    """Loss against the step: name -> (values, role), the scale logarithmic."""
    figure = Figure(figsize=(6, 2.8))
    axes = figure.subplots()
    for name, (values, role) in curves.items():
        axes.semilogy(range(1, len(values) + 1), values, color=COLOURS[role])
        axes.annotate(name, (len(values), values[-1]), (5, 0), va="center",
                      textcoords="offset points", color=COLOURS[role])  # fmt: skip
    steps = max(len(values) for values, _ in curves.values())
    axes.set(xlabel="step", ylabel="loss, nats per token", xlim=(0, 1.4 * steps),
             title=title)  # fmt: skip
    axes.set_xticks(range(0, steps + 1, 20))
    return figure


def hesitation(
    tokens: Sequence[str], entropy: Sequence[float], others: Sequence[str]
) -> Figure:
    """Entropy of the teacher's next token at each place of an answer, with the words
    that it weighs (`others`, "" where it is sure)."""
    figure = Figure(figsize=(7, 0.9 + 0.22 * len(tokens)))
    axes = figure.subplots()
    axes.barh(range(len(tokens)), entropy, 0.7, color=COLOURS["teacher"])
    for row, (value, words) in enumerate(zip(entropy, others, strict=True)):
        axes.annotate(words, (value, row), (5, 0), textcoords="offset points",
                      va="center", fontsize=8, color=COLOURS["teacher"])  # fmt: skip
    name_rows(axes, [repr(t) for t in tokens], family="monospace", fontsize=8)
    axes.set(xlabel="entropy of the teacher's next token, nats",
             xlim=(0, max(1.0, 2 * max(entropy))),
             title="The teacher hesitates at few tokens")  # fmt: skip
    return figure


def draws_needed(
    draws: Sequence[int], errors: Sequence[float], greedy: float
) -> Figure:
    """How far the mean gradient of n drawn labels is from that of the logits; `greedy`
    is that of the likeliest label, however often it is seen."""
    figure = Figure(figsize=(6, 2.8))
    axes = figure.subplots()
    rule = errors[0] * (np.array(draws) / draws[0]) ** -0.5
    axes.loglog(draws, rule, color=COLOURS["baseline"], ls=":")
    axes.loglog(draws, errors, "o-", color=COLOURS["teacher"])
    axes.annotate("1 / √n", (draws[3], rule[3]), (-8, -12), ha="right",
                  textcoords="offset points", color=COLOURS["baseline"])  # fmt: skip
    axes.axhline(greedy, color=COLOURS["student"], ls="--")
    axes.annotate("greedy text", (draws[-1], greedy), (0, 4), ha="right",
                  textcoords="offset points", color=COLOURS["student"])  # fmt: skip
    axes.set(xlabel="labels drawn from the teacher, n", ylabel="error of the gradient",
             title="One row of logits is worth many drawn labels")  # fmt: skip
    count_axis(axes, draws)
    return figure


def right_and_alike(
    intervals: Mapping[str, Interval],
    divergences: Mapping[str, float],
    roles: Sequence[str],
    title: str,
) -> Figure:
    """Two questions to the same models: accuracy with its interval on the left,
    KL(teacher || student) on the right; models without a divergence have no bar."""
    figure = Figure(figsize=(8, 0.9 + 0.4 * len(intervals)))
    headline(figure, title)
    left, right = figure.subplots(1, 2, sharey=True)
    for row, (name, interval) in enumerate(intervals.items()):
        colour = COLOURS[roles[row]]
        mark_interval(left, row, interval, colour, capstyle="projecting", clip_on=False)
        if name in divergences:
            bar = right.barh(row, divergences[name], 0.6, color=colour)
            right.bar_label(bar, fmt="{:.2f}", padding=3)
    name_rows(left, intervals)
    left.set(xlim=(0, 1), xlabel="right answers, 95 % interval")
    left.grid(axis="x")
    right.set(xlim=(0, 1.25 * max(divergences.values())),
              xlabel="KL(teacher || student), nats per token")  # fmt: skip
    right.tick_params(axis="y", length=0)
    return figure


def budgets(
    panels: Mapping[str, tuple[Mapping[str, Mapping], Mapping[str, float]]], title: str
) -> Figure:
    """Accuracy against the number of prompts: a panel for each test, holding
    method -> prompts -> accuracies (a point a seed, a line through the means), and the
    models to compare with as dotted lines."""
    figure = Figure(figsize=(8.4, 4.4))
    headline(figure, title)
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (test, (methods, references)) in zip(row, panels.items(), strict=True):
        for place, (method, by_prompts) in enumerate(methods.items()):
            role, look = SOURCES[method]
            # Side by side, so that no method hides another.
            aside = 1.05 ** (place - (len(methods) - 1) / 2)
            x = aside * np.array(list(by_prompts))
            seed_line(axes, x, by_prompts.values(), look, COLOURS[role], ms=4,
                      clip_on=False, lw=1.5, label=method)  # fmt: skip
        for name, value in references.items():
            reference_line(axes, name, value, named=axes is row[0])
        count_axis(axes, list(by_prompts))
        axes.set(title=test, xlabel="prompts, each with one answer", ylim=(0, 1.04))
        axes.grid(axis="y")
    row[0].set_ylabel("right answers")
    handles, labels = row[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(handles))
    return figure


def divergence_kinds(
    right: Mapping[str, Sequence[float]],
    alike: Mapping[str, Sequence[float]],
    title: str,
) -> Figure:
    """Students of each divergence, a point a seed: accuracy on the left, and on the
    right how far from the teacher they are."""
    figure = Figure(figsize=(8, 1.0 + 0.34 * len(right)))
    headline(figure, title)
    names = ("right answers on test", "KL(teacher || student), nats per token")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, groups, name in zip(panels, (right, alike), names, strict=True):
        seed_points(axes, groups, [COLOURS["student"]] * len(groups))
        axes.set_xlabel(name)
        axes.grid(axis="x")
    # A little of the scale on both sides, so that small distances look small.
    low, high = panels[0].get_xlim()
    panels[0].set_xlim(max(0, low - 0.05), min(1, high + 0.05))
    panels[1].set_xlim(left=0)
    return figure
