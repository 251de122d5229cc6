"""Figures of `synthetic_data`: how a teacher writes, and at what price."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from pandas import DataFrame

from .base import COLOURS, name_rows


def batch_speed(speed: Mapping[int, float]) -> Figure:
    """Answers a second (values) against the number of prompts in a batch (keys)."""
    figure = Figure(figsize=(6, 2.8))
    axes = figure.subplots()
    sizes, rates = list(speed), list(speed.values())
    axes.plot(sizes, rates, "o-", color=COLOURS["teacher"], clip_on=False)
    for size, rate in speed.items():
        axes.annotate(f"{rate:.1f}", (size, rate), (0, 7), textcoords="offset points",
                      ha="center", color=COLOURS["teacher"])  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, sizes)
    axes.set(
        xlabel="prompts in a batch", ylabel="answers a second",
        title="The same answers, sooner", ylim=(0, 1.15 * max(rates)),
    )  # fmt: skip
    return figure


def sampling(
    temperatures: Sequence[float], different: np.ndarray, right: np.ndarray
) -> Figure:
    """Different answers and share of right ones, both (prompts, temperatures), against
    the sampling temperature: a thin line for each prompt, the mean as a thick one."""
    figure = Figure(figsize=(7, 2.8))
    panels = figure.subplots(1, 2)
    names = ("different answers to a prompt", "share of right answers")
    titles = ("Warmer draws vary more …", "… and are right less often")
    rows = zip(panels, (different, right), names, titles, strict=True)
    for axes, values, name, title in rows:
        colour = COLOURS["teacher"]
        axes.plot(temperatures, values.T, color=colour, alpha=0.25, lw=1, clip_on=False)
        axes.plot(temperatures, values.mean(0), "o-", color=colour, clip_on=False)
        axes.set(xlabel="sampling_temperature (0 is greedy)", ylabel=name, title=title)
        axes.set_xticks(temperatures, [f"{t:g}" for t in temperatures])
        axes.set_ylim(0, None)
    panels[1].set_ylim(0, 1)
    return figure


def best_of(shares: Mapping[str, Sequence[float]]) -> Figure:
    """Share of prompts with at least one right answer among 1, 2, … draws (values), a
    line for each way of drawing (keys)."""
    figure = Figure(figsize=(6, 2.8))
    axes = figure.subplots()
    for name, values in shares.items():
        draws = range(1, len(values) + 1)
        axes.plot(draws, values, "o-", color=COLOURS["teacher"], clip_on=False)
        axes.annotate(name, (1, values[0]), (-9, 0), textcoords="offset points",
                      ha="right", va="center", color=COLOURS["teacher"])  # fmt: skip
    longest = max(map(len, shares.values()))
    axes.set_xticks(range(1, longest + 1))
    axes.set(
        xlim=(1 - longest / 7, longest), ylim=(0, 1.05), xlabel="draws a prompt",
        ylabel="prompts with a right one", title="More draws, more prompts answered",
    )  # fmt: skip
    return figure


def bills(bills: DataFrame, title: str) -> Figure:
    """Money for what a teacher reads (column `read`) and writes (`written`), a bar for
    each row; the sum stands beside it."""
    figure = Figure(figsize=(7, 1.3 + 0.36 * len(bills)))
    axes = figure.subplots()
    places, total = np.arange(len(bills)), bills["read"] + bills["written"]
    colour, left = COLOURS["teacher"], 0
    for name, alpha in (("read", 1), ("written", 0.35)):
        axes.barh(places, bills[name], 0.7, left, color=colour, alpha=alpha, label=name)
        left = left + bills[name]
    for place, money in zip(places, total, strict=True):
        axes.annotate(f"{money:,.0f}", (money, place), (4, 0), va="center",
                      textcoords="offset points", fontsize=9)  # fmt: skip
    name_rows(axes, bills.index)
    axes.set(xlim=(0, 1.15 * total.max()),
             xlabel="money, in the currency of the prices")  # fmt: skip
    axes.set_title(title, loc="left")
    axes.legend(title="tokens that are")
    return figure
