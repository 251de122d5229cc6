"""Figures of `why_distil`: memory, speed, energy and price, and who can teach whom."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colors
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from pandas import DataFrame

from .base import COLOURS, count_axis, headline


def weights_and_memory(
    gigabytes: Mapping[str, Mapping[int, float]], memory: Mapping[str, float]
) -> Figure:
    """Model -> bits a weight -> GB, as points on a line, the largest model last; a
    dotted line for the memory of each device."""
    figure = Figure(figsize=(8.4, 2.3 + 0.33 * len(gigabytes)))
    axes = figure.subplots()
    for row, by_bits in enumerate(gigabytes.values()):
        colour = COLOURS["teacher" if 2 * row >= len(gigabytes) else "student"]
        axes.plot(list(by_bits.values()), [row] * len(by_bits), "o-", color=colour)
        if row == len(gigabytes) - 1:
            for bits, size in by_bits.items():
                axes.annotate(f"{bits} bit", (size, row), (0, -13), fontsize=8,
                              ha="center", textcoords="offset points")  # fmt: skip
    for device, size in memory.items():
        axes.axvline(size, color="black", lw=1, ls=":")
        number = f"{size:,.0f}" if size >= 100 else f"{size:g}"
        axes.annotate(f"{device}, {number} GB", (size, 1), (-2, 4), rotation=50,
                      xycoords=("data", "axes fraction"), fontsize=8,
                      textcoords="offset points")  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.set_yticks(range(len(gigabytes)), gigabytes)
    axes.tick_params(axis="y", length=0)
    axes.set(ylim=(-0.5, len(gigabytes) - 0.3), xlabel="GB of weights")
    axes.set_title("Students fit where teachers do not", pad=95)
    return figure


def cache_growth(
    conversations: Sequence[int],
    gigabytes: Mapping[str, Sequence[float]],
    memory: float,
    title: str,
) -> Figure:
    """GB of weights and caches against the number of conversations at a time, teacher
    first, then student, below the memory of a card."""
    figure = Figure(figsize=(7, 3))
    axes = figure.subplots()
    places = {"teacher": ((-6, 5), "right"), "student": ((6, -12), "left")}
    for (name, line), role in zip(gigabytes.items(), places, strict=True):
        axes.plot(conversations, line, color=COLOURS[role])
        seen = sum(value <= 1.3 * memory for value in line)  # the rest is cut off
        middle, (offset, side) = max(seen, 1) // 2, places[role]
        axes.annotate(name, (conversations[middle], line[middle]), offset, ha=side,
                      textcoords="offset points", color=COLOURS[role])  # fmt: skip
    axes.axhline(memory, color="black", lw=1, ls=":")
    axes.annotate(f"memory of the card, {memory:,g} GB", (1, memory), (-4, 3),
                  xycoords=("axes fraction", "data"), ha="right", fontsize=8,
                  textcoords="offset points")  # fmt: skip
    axes.set(xlabel="conversations at a time", ylabel="GB of weights and caches",
             xlim=(0, conversations[-1]), ylim=(0, 1.4 * memory),
             title=title)  # fmt: skip
    return figure


def decode_speed(
    ladder: Mapping[int, float],
    named: Mapping[str, tuple[int, float]],
    bandwidth: float,
    operations: float,
) -> Figure:
    """Milliseconds a token against MB of weights: models of one depth (bytes -> s) and
    named ones (role -> bytes, s), beside what bytes a second and operations a second
    predict; weights are float32, two operations each."""
    figure = Figure(figsize=(7, 3.6))
    axes = figure.subplots()
    ends = np.array([min(s for s, _ in named.values()), 1.6 * max(ladder)])
    lines = {"bytes / bandwidth": (ends / bandwidth, "--"),
             "operations / speed": (2 * ends / 4 / operations, ":")}  # fmt: skip
    for name, (seconds, dash) in lines.items():
        axes.plot(ends / 1e6, 1e3 * seconds, dash, color="black", lw=1.2)
        axes.annotate(name, (ends[1] / 1e6, 1e3 * seconds[1]), (4, 0), va="center",
                      textcoords="offset points", fontsize=8,
                      annotation_clip=False)  # fmt: skip
    x, y = np.array(list(ladder)) / 1e6, 1e3 * np.array(list(ladder.values()))
    axes.plot(x, y, "o-", color=COLOURS["baseline"], lw=1,
              label="random weights, all of one depth")  # fmt: skip
    axes.legend(loc="lower right", fontsize=8)
    for role, (size, seconds) in named.items():
        axes.plot(size / 1e6, 1e3 * seconds, "D", color=COLOURS[role], ms=7)
        axes.annotate(role, (size / 1e6, 1e3 * seconds), (0, 8), color=COLOURS[role],
                      ha="center", textcoords="offset points")  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="MB of weights, read for every token",
             ylabel="milliseconds a token",
             title="Bandwidth rules large models, overhead the small ones")  # fmt: skip
    axes.set_xlim(0.6 * ends[0] / 1e6, 1.1 * ends[1] / 1e6)
    axes.grid(axis="y")
    return figure


def deployments(
    bits: DataFrame, tokens: DataFrame, limits: Sequence[tuple[str, float]]
) -> Figure:
    """Devices (rows) x models (columns): bits a weight, and tokens a second at best,
    NaN where a model does not fit; a shade for each of the rising `limits`."""
    figure = Figure(figsize=(9, 1.3 + 0.5 * len(bits)))
    axes = figure.subplots()
    base = np.array(colors.to_rgb(COLOURS["student"]))
    names = ["does not fit", *[name for name, _ in limits]]
    strength = np.linspace(0, 0.85, len(names))
    for row, device in enumerate(bits.index):
        for column, model in enumerate(bits.columns):
            width, speed = bits.loc[device, model], tokens.loc[device, model]
            fits = not np.isnan(speed)
            level = sum(speed >= least for _, least in limits) if fits else 0
            shade = 1 - strength[level] * (1 - base)
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fc=shade,
                                     ec="white", lw=2))  # fmt: skip
            number = f"{speed:,.0f}" if speed >= 10 else f"{speed:.1f}"
            text = f"{number} /s\n{width:.0f} bit" if fits else "–"
            axes.text(column, row, text, ha="center", va="center", fontsize=8)
    axes.set(xlim=(-0.5, bits.shape[1] - 0.5), ylim=(len(bits) - 0.5, -0.5))
    axes.set_xticks(range(bits.shape[1]), bits.columns, fontsize=8)
    axes.set_yticks(range(len(bits)), bits.index)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    handles = [Rectangle((0, 0), 1, 1, fc=1 - s * (1 - base), ec="grey", label=name)
               for name, s in zip(names, strength, strict=True)]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=len(names))
    axes.set_title("Small models run everywhere; tokens a second at best, one reader")
    return figure


def price_and_energy(
    lines: Mapping[str, tuple[str, Sequence[int], Sequence[float], Sequence[float]]],
    title: str,
) -> Figure:
    """USD and watt-hours of a million tokens against conversations at a time; name ->
    (role, conversations, USD, Wh), a line ending where the memory is full."""
    figure = Figure(figsize=(8.4, 3.4))
    headline(figure, title)
    panels = figure.subplots(1, 2)
    names = ("USD for a million tokens", "watt-hours for a million tokens")
    dashes = {}  # the second line of a role is dashed
    for name, (role, batches, *values) in lines.items():
        dash = dashes.setdefault(role, iter(("-", "--", ":")))
        look = next(dash)
        for axes, line in zip(panels, values, strict=True):
            axes.plot(batches, line, look, color=COLOURS[role], label=name)
            axes.plot(batches[-1], line[-1], "o", color=COLOURS[role])
    for axes, name in zip(panels, names, strict=True):
        axes.set(xscale="log", yscale="log", xlabel="conversations at a time",
                 ylabel=name)  # fmt: skip
        axes.grid(axis="y")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8)
    return figure


# What a teacher may give a student: colour, its strength, hatching, colour of the word.
PAIRS = {
    "logits": (COLOURS["teacher"], 1.0, "", "white"),
    "sliced": (COLOURS["teacher"], 0.8, "", "white"),
    "text": (COLOURS["teacher"], 0.2, "", "black"),
    "terms": (COLOURS["baseline"], 0.25, "////", "black"),
}


def pairs(kinds: DataFrame, conditions: DataFrame) -> Figure:
    """Teachers (rows) x students (columns): a key of `PAIRS` or "" for no pair; a
    dagger where `conditions` are true."""
    figure = Figure(figsize=(9.4, 1.7 + 0.36 * len(kinds)))
    axes = figure.subplots()
    for row, teacher in enumerate(kinds.index):
        for column, student in enumerate(kinds.columns):
            if not (kind := kinds.loc[teacher, student]):
                continue
            colour, alpha, hatch, ink = PAIRS[kind]
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, ec="white",
                                     fc=(colour, alpha), hatch=hatch))  # fmt: skip
            mark = "†" if conditions.loc[teacher, student] and kind != "terms" else ""
            box = {"fc": "white", "ec": "none", "pad": 1} if hatch else None
            axes.text(column, row, kind + mark, ha="center", va="center", fontsize=8,
                      color=ink, bbox=box)  # fmt: skip
    axes.set(xlim=(-0.5, kinds.shape[1] - 0.5), ylim=(len(kinds) - 0.5, -0.5))
    axes.set_xticks(range(kinds.shape[1]), kinds.columns, rotation=30, ha="right")
    axes.set_yticks(range(len(kinds)), kinds.index)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="student († the licence sets conditions)", ylabel="teacher")
    axes.set_title("Only models of one family share logits; text suits every pair")
    return figure


def retention_without_n(
    n: Sequence[int], low: Sequence[float], high: Sequence[float], kept: float
) -> Figure:
    """The 95 % interval of a retention `kept` against the number of test examples."""
    figure = Figure(figsize=(6.4, 2.8))
    axes = figure.subplots()
    axes.fill_between(n, low, high, color=COLOURS["student"], alpha=0.25, lw=0)
    axes.axhline(kept, color=COLOURS["student"])
    axes.axhline(1, color=COLOURS["teacher"], ls=":", lw=1.5)
    axes.annotate("as good as the teacher", (n[-1], 1), (0, 3), ha="right",
                  textcoords="offset points", color=COLOURS["teacher"])  # fmt: skip
    count_axis(axes, n)
    axes.set(xlabel="test examples of each model (the page does not say)",
             ylabel="share of accuracy kept", xlim=(n[0], n[-1]),
             title="With few examples the claim says little")  # fmt: skip
    return figure
