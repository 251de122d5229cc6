"""The figure of `start_here`: the map of the course."""

from collections.abc import Collection

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from .base import COLOURS

# column by column: (stage, role whose colour it has, (number, topic) of its notebooks)
COURSE = (
    ("Start", "baseline", (("00", "start here"), ("01", "why distil,\nwhich pair"))),
    ("Stage 1: data", "teacher", (("02", "synthetic\ndata"), ("03", "data\nquality"))),
    ("The loss", "teacher", (("04", "soft targets"),)),
    ("Stage 2: student", "student",
     (("05", "training"), ("06", "teacher\ncaches"), ("07", "LoRA"))),
    ("", "student",
     (("08", "hidden layers"), ("09", "on-policy,\nmany teachers"))),
    ("Measure", "gold", (("10", "evaluation"), ("11", "hyper-\nparameters"))),
    ("Use", "baseline", (("12", "deployment"), ("13", "case study"))),
)  # fmt: skip


def course_map(written: Collection[str]) -> Figure:
    """The notebooks by stage; those whose number is in `written` are filled."""
    figure = Figure(figsize=(8.4, 2.9))
    axes = figure.subplots()
    for x, (stage, role, notebooks) in enumerate(COURSE):
        colour = COLOURS[role]
        axes.text(x - 0.45, 0.62, stage, color=colour, weight="bold", fontsize=9)
        for y, (number, topic) in enumerate(notebooks):
            there = number in written
            axes.add_patch(
                FancyBboxPatch(
                    (x - 0.41, -y - 0.35), 0.82, 0.7, boxstyle="round,pad=0.03",
                    ec=colour, fc=(colour, 0.25 if there else 0.0), lw=2,
                    ls="-" if there else ":",
                )
            )  # fmt: skip
            axes.text(
                x, -y, f"{number}\n{topic}", ha="center", va="center", fontsize=8,
                color="#222222", weight="bold" if there else "normal", linespacing=1.15,
            )  # fmt: skip
    axes.set(xlim=(-0.55, len(COURSE) - 0.45), ylim=(-2.5, 0.8))
    axes.set_axis_off()
    total = sum(len(notebooks) for _, _, notebooks in COURSE)
    axes.set_title(f"{len(written)} of {total} notebooks are ready (filled), "
                   "the others are planned", loc="left", pad=10)  # fmt: skip
    return figure
