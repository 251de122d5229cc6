"""The figure of lab 06: what a bug does to the loss that one watches."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from .base import COLOURS


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
    figure.suptitle(
        f"The printed loss with one bug (grey), and without ({right}: KL {goal:.2f})",
        x=0.01, ha="left", fontsize=11,
    )  # fmt: skip
    return figure
