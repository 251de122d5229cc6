"""Figures of `soft_targets`: temperature, divergences, a digit never seen."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from .base import COLOURS, headline, seed_points


def digit_row(images: np.ndarray, captions: Sequence[str], title: str) -> Figure:
    """Images (n, 8, 8) side by side, each over its caption."""
    figure = Figure(figsize=(7, 1.35))
    panels = figure.subplots(1, len(images))
    for axes, image, caption in zip(panels, images, captions, strict=True):
        axes.imshow(image)
        axes.set(xticks=[], yticks=[])
        axes.set_xlabel(caption)
        axes.spines[:].set_visible(False)
    headline(figure, title)
    return figure


def temperature_bars(
    image: np.ndarray, label: int, logits: np.ndarray, temperatures: Sequence[float]
) -> Figure:
    """A digit (8, 8) beside the teacher's answer (10,) at each temperature."""
    figure = Figure(figsize=(7, 2.8))
    headline(figure, "Temperature brings out what the teacher also considered")
    panels = figure.subplots(1, 1 + len(temperatures))
    panels[0].imshow(image)
    panels[0].set(xticks=[], yticks=[])
    panels[0].set_title(f"label: {label}", color=COLOURS["gold"])
    panels[0].spines[:].set_visible(False)
    for axes, temperature in zip(panels[1:], temperatures, strict=True):
        weights = np.exp((logits - logits.max()) / temperature)
        colours = [COLOURS["teacher"]] * len(logits)
        colours[label] = COLOURS["gold"]
        axes.bar(range(len(logits)), weights / weights.sum(), color=colours)
        axes.set(ylim=(0, 1), title=f"T = {temperature:g}", xlabel="digit")
        axes.set_xticks(range(len(logits)), range(len(logits)), fontsize=7)
        if axes is not panels[1]:
            axes.set_yticklabels([])
    panels[1].set_ylabel("probability")
    return figure


def gradient_norms(
    temperatures: Sequence[float], plain: Sequence[float], scaled: Sequence[float]
) -> Figure:
    """Size of the soft loss's gradient against T, without and with the factor T²."""
    figure = Figure(figsize=(6, 3.2))
    axes = figure.subplots()
    lines = [("with T²", scaled, "student"), ("without T²", plain, "baseline")]
    for name, norms, role in lines:
        axes.loglog(temperatures, norms, "o-", color=COLOURS[role])
        middle = len(norms) // 2
        axes.annotate(
            name, (temperatures[middle], norms[middle]), (6, 8),
            textcoords="offset points", color=COLOURS[role],
        )  # fmt: skip
    axes.set(
        xlabel="temperature T", ylabel="gradient norm per example",
        title="Without T², a warmer loss is a weaker loss",
    )  # fmt: skip
    axes.set_xticks(temperatures, [f"{t:g}" for t in temperatures])
    axes.minorticks_off()
    axes.set_ylim(top=5 * max(scaled))  # room for the label of the upper line
    return figure


def two_peaks(
    grid: np.ndarray, target: np.ndarray, fits: Mapping[str, np.ndarray]
) -> Figure:
    """A target with two peaks, and in each panel a single bell fitted to it."""
    figure = Figure(figsize=(7, 2.6))
    panels = figure.subplots(1, len(fits), sharey=True)
    for axes, (name, fit) in zip(panels, fits.items(), strict=True):
        axes.fill_between(grid, target, color=COLOURS["teacher"], alpha=0.3, lw=0)
        axes.plot(grid, fit, color=COLOURS["student"])
        axes.set(title=name, xlabel="outcome", yticks=[])
    panels[0].set_ylabel("probability")
    panels[0].set_ylim(bottom=0)
    panels[0].annotate("teacher", (0.04, 0.6), xycoords="axes fraction",
                       color=COLOURS["teacher"])  # fmt: skip
    panels[-1].annotate("student", (0.96, 0.85), xycoords="axes fraction", ha="right",
                        color=COLOURS["student"])  # fmt: skip
    return figure


def divergences(
    q: np.ndarray,
    values: Mapping[str, np.ndarray],
    gradients: Mapping[str, np.ndarray],
    teacher: float,
) -> Figure:
    """Each kind of divergence, and the size of its gradient, against the student's
    probability `q` of a word to which the teacher gives `teacher`."""
    figure = Figure(figsize=(7, 3.4))
    headline(figure, "Far from the teacher only forward KL keeps pulling")
    styles = ("-", "--")
    panels = figure.subplots(1, 2)
    for axes, curves, label in zip(
        panels,
        (values, {kind: np.abs(g) for kind, g in gradients.items()}),
        ("divergence, nats", "size of its gradient in the logit"),
        strict=True,
    ):
        for i, (kind, curve) in enumerate(curves.items()):
            colour = COLOURS[("student", "baseline", "gold")[i // 2]]
            axes.plot(q, curve, styles[i % 2], color=colour, label=kind, lw=1.8)
        axes.axvline(teacher, color=COLOURS["teacher"], ls=":", lw=1.5)
        axes.set(xlabel="student's probability of the word", ylabel=label)
        axes.set(xlim=(0, 1), ylim=(0, 2.4 if axes is panels[0] else 1))
    panels[0].annotate("teacher ", (teacher, 2.2), ha="right", color=COLOURS["teacher"])
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
    return figure


def precision(
    divergence: Sequence[float], errors: Mapping[str, Sequence[float]]
) -> Figure:
    """Relative error of a gradient against the KL that is left, one line a way to
    compute it; training goes from left to right."""
    figure = Figure(figsize=(7, 2.8))
    axes = figure.subplots()
    colours = [COLOURS[role] for role in ("baseline", "student", "teacher")]
    for (name, line), colour in zip(errors.items(), colours, strict=True):
        axes.plot(divergence, line, "o-", color=colour)
        above = line[-1] == max(values[-1] for values in errors.values())
        place, side = (divergence[-1], line[-1]), "bottom" if above else "top"
        axes.annotate(f" {name}", place, va=side, color=colour)
    axes.set(xscale="log", yscale="log", ylabel="relative error of the gradient",
             xlabel="KL to the teacher, nats; training goes to the right",
             title="The better the student, the worse its gradient")  # fmt: skip
    axes.set_xlim(2 * max(divergence), min(divergence) / 60)
    return figure


def withheld_digit(
    plain: Mapping[str, Sequence[float]],
    fixed: Mapping[str, Sequence[float]],
    teacher: float,
) -> Figure:
    """Accuracy on a digit no student ever saw, before and after the bias fix.

    Each group of students has one accuracy per seed; `teacher` is the teacher's own.
    """
    figure = Figure(figsize=(7, 2.8))
    colours = [COLOURS["baseline"], *[COLOURS["student"]] * (len(plain) - 1)]
    headline(figure, "Soft targets teach a digit that the student never saw")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, groups, name in zip(
        panels, (plain, fixed), ("as trained", "one bias fixed"), strict=True
    ):
        seed_points(axes, groups, colours)
        axes.axvline(teacher, color=COLOURS["teacher"], ls=":", lw=1.5)
        axes.set(xlim=(0, 1), title=name, xlabel="accuracy on the withheld digit")
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
        axes.grid(axis="x")
    panels[0].annotate(
        "teacher ", (teacher, 0), ha="right", va="center", color=COLOURS["teacher"]
    )
    return figure


def next_token_bars(
    tokens: Sequence[str], teacher: np.ndarray, student: np.ndarray
) -> Figure:
    """Probabilities (n,) of the same n next tokens under teacher and student."""
    figure = Figure(figsize=(6, 3.0))
    axes = figure.subplots()
    rows = np.arange(len(tokens))
    axes.barh(rows - 0.2, teacher, 0.38, color=COLOURS["teacher"], label="teacher")
    axes.barh(rows + 0.2, student, 0.38, color=COLOURS["student"], label="student base")
    axes.set_yticks(rows, [repr(token) for token in tokens], family="monospace")
    axes.invert_yaxis()
    axes.set(
        xlabel="probability of the next token",
        title="Where the teacher hesitates, several words are right",
    )
    axes.legend(loc="lower right")
    return figure
