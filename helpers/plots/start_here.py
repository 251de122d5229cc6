"""The figure of `start_here`: the map of the course."""

from collections.abc import Collection

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from .base import COLOURS

# row by row: (part of the course, (number, topic, role whose colour it has))
COURSE = (
    ("The core: one lap", (
        ("00", "start here", "baseline"), ("01", "why distil,\nwhich pair", "baseline"),
        ("02", "synthetic\ndata", "teacher"), ("03", "data\nquality", "teacher"),
        ("04", "soft targets", "teacher"), ("05", "training", "student"),
        ("06", "LoRA", "student"), ("07", "evaluation", "gold"))),
    ("Deeper", (
        ("08", "teacher\ncaches", "teacher"), ("09", "hidden\nlayers", "student"),
        ("10", "on-policy", "student"), ("11", "many\nteachers", "teacher"),
        ("12", "reasoning", "student"), ("13", "hyper-\nparameters", "gold"))),
    ("In production", (
        ("14", "long runs", "teacher"), ("15", "memory\nand costs", "baseline"),
        ("16", "export,\nserving", "student"), ("17", "case study", "baseline"),
        ("18", "a real\nmodel", "gold"))),
)  # fmt: skip
ABOUT = {
    "baseline": "the whole",
    "teacher": "the teacher",
    "student": "the student",
    "gold": "what it kept",
}


def course_map(written: Collection[str]) -> Figure:
    """The notebooks by part; those whose number is in `written` are filled."""
    figure = Figure(figsize=(8.4, 4.0))
    axes = figure.subplots()
    for row, (part, notebooks) in enumerate(COURSE):
        y = -1.25 * row
        axes.text(-0.45, y + 0.47, part, color="#222222", weight="bold", fontsize=9)
        for x, (number, topic, role) in enumerate(notebooks):
            there = number in written
            axes.add_patch(
                FancyBboxPatch(
                    (x - 0.41, y - 0.35), 0.82, 0.7, boxstyle="round,pad=0.03",
                    ec=COLOURS[role], fc=(COLOURS[role], 0.25 if there else 0.0), lw=2,
                    ls="-" if there else ":",
                )
            )  # fmt: skip
            axes.text(
                x, y, f"{number}\n{topic}", ha="center", va="center", fontsize=8,
                color="#222222", weight="bold" if there else "normal", linespacing=1.15,
            )  # fmt: skip
    for line, (role, about) in enumerate(ABOUT.items()):
        axes.text(6.6, -2.2 - 0.25 * line, about, color=COLOURS[role], fontsize=9)
    axes.set(xlim=(-0.55, 7.55), ylim=(-3.0, 0.7))
    axes.set_axis_off()
    total = sum(len(notebooks) for _, notebooks in COURSE)
    axes.set_title(f"{len(written)} of {total} notebooks are ready (filled), "
                   "the others are planned", loc="left", pad=10)  # fmt: skip
    return figure
