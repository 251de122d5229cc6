"""The map of the course: every notebook stands on it, the written ones are filled."""

import re
from pathlib import Path

import pytest

from helpers import plots
from helpers.plots.start_here import ABOUT, COURSE
from tests.plots.words import written

NUMBERS = [number for _, notebooks in COURSE for number, _, _ in notebooks]
SERIES = Path(__file__).parents[2] / "notebooks"


def test_course_map_fills_the_notebooks_that_are_written():
    (axes,) = plots.course_map(["00", "04"]).axes
    boxes = [text for text in written(axes) if text[:2].isdigit()]
    assert [box[:2] for box in boxes] == NUMBERS
    filled = [patch.get_facecolor()[-1] > 0 for patch in axes.patches]
    assert [n for n, full in zip(NUMBERS, filled, strict=True) if full] == ["00", "04"]
    assert axes.get_title(loc="left").startswith(f"2 of {len(NUMBERS)} notebooks")


@pytest.mark.parametrize("words", [*(part for part, _ in COURSE), *ABOUT.values()])
def test_course_map_names_parts_and_colours(words):
    assert words in written(plots.course_map([]).axes[0])


def test_the_map_numbers_the_syllabus_and_holds_every_notebook():
    assert NUMBERS == [f"{number:02d}" for number in range(len(NUMBERS))]
    there = {path.name[:2] for path in SERIES.glob("[0-9][0-9]_*.ipynb")}
    assert there <= set(NUMBERS)
    readme = (SERIES.parent / "README.md").read_text(encoding="utf-8")
    planned = set(re.findall(r"(?:·|\*\*)\s+(\d\d) [A-Z]", readme))
    assert there | planned == set(NUMBERS)
