"""The map of the course: every notebook stands on it, the written ones are filled."""

import pytest

from helpers import plots
from helpers.plots.start_here import COURSE
from tests.plots.words import written


def test_course_map_fills_the_notebooks_that_are_written():
    (axes,) = plots.course_map(["00", "04"]).axes
    numbers = [number for _, _, notebooks in COURSE for number, _ in notebooks]
    boxes = [text for text in written(axes) if text[:2].isdigit()]
    assert [box[:2] for box in boxes] == numbers
    filled = [patch.get_facecolor()[-1] > 0 for patch in axes.patches]
    assert [n for n, full in zip(numbers, filled, strict=True) if full] == ["00", "04"]
    assert axes.get_title(loc="left").startswith(f"2 of {len(numbers)} notebooks")


@pytest.mark.parametrize("stage", [stage for stage, _, _ in COURSE if stage])
def test_course_map_names_every_stage(stage):
    assert stage in written(plots.course_map([]).axes[0])
