"""Figures that only labs show: what tails teach, and what bugs do to a loss."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from .base import COLOURS, headline
from .the_expensive_teacher import TAILS


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


def bug_curves(found: Mapping[str, tuple[Sequence[float], float]]) -> Figure:
    """A panel for each bug with the loss that it prints (name -> losses, final KL to
    the teacher), and in each the curve of the first entry, the right version."""
    (right, (truth, goal)), *bugs = found.items()
    figure = Figure(figsize=(8, 4.4))
    panels = figure.subplots(2, -(-len(bugs) // 2), sharex=True, sharey=True)
    for axes, (name, (losses, gap)) in zip(panels.flat, bugs, strict=False):
        axes.plot(range(1, len(truth) + 1), truth, color=COLOURS["student"])
        axes.plot(range(1, len(losses) + 1), losses, color=COLOURS["baseline"])
        axes.set_title(name, fontsize=9)
        axes.annotate(
            f"KL {gap:.2f}", (0.95, 0.9), xycoords="axes fraction", ha="right",
            fontsize=9, color=COLOURS["baseline"],
        )  # fmt: skip
    for axes in panels[-1]:
        axes.set_xlabel("step")
    for axes in panels[:, 0]:
        axes.set_ylabel("printed loss")
    title = "The printed loss with one bug (grey), and without"
    headline(figure, f"{title} ({right}: KL {goal:.2f})")
    return figure
