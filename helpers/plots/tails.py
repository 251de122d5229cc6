"""The figure of lab 03: what a loss makes of the words that a cache leaves out."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from .base import COLOURS, TAILS


def kept_mass(
    masses: Mapping[str, Sequence[float]], kl: Mapping[str, float], truth: float
) -> Figure:
    """The mass that students give to the words of a cache, step by step, `truth` being
    the teacher's, and how far from the teacher each student ends."""
    figure = Figure(figsize=(8, 3))
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    steps = max(map(len, masses.values()))
    for row, name in enumerate(masses):
        role, dash = TAILS[name]
        left.plot(masses[name], dash, color=COLOURS[role], label=name)
        bar = right.barh(row, kl[name], 0.6, color=COLOURS[role])
        right.bar_label(bar, fmt="{:.2f}", padding=3)
    left.axhline(truth, color="black", lw=1, ls=":", label="the teacher")
    left.set(xlabel="step", ylabel="student's mass on the kept words", ylim=(0, 1.05),
             xlim=(0, steps), title="Without a tail: over-confident")  # fmt: skip
    left.legend(loc="lower center", ncols=3, fontsize=8)
    right.set_yticks(range(len(masses)), masses)
    right.invert_yaxis()
    right.tick_params(axis="y", length=0)
    right.set(xlabel="KL(teacher || student), nats",
              xlim=(0, 1.25 * max(kl.values())))  # fmt: skip
    return figure
