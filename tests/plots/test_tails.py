"""The figure of lab 03 draws what it is given."""

from helpers import plots
from helpers.plots import kept_mass


def test_kept_mass_draws_each_way_and_the_teacher():
    masses = {"full": [0.5, 0.6], "truncate": [0.5, 0.9]}
    left, right = kept_mass(masses, {"full": 0.0, "truncate": 1.5}, 0.6).axes
    full, truncate, teacher = left.lines
    assert list(full.get_ydata()) == [0.5, 0.6]
    assert list(truncate.get_ydata()) == [0.5, 0.9]
    assert set(teacher.get_ydata()) == {0.6}
    assert truncate.get_color() == plots.COLOURS["baseline"]
    assert [bar.get_width() for bar in right.patches] == [0.0, 1.5]
    names = [text.get_text() for text in left.get_legend().get_texts()]
    assert names == ["full", "truncate", "the teacher"]
