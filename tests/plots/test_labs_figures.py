"""Figures that only labs show draw what they are given."""

from helpers import plots


def test_kept_mass_draws_each_way_and_the_teacher():
    masses = {"full": [0.5, 0.6], "truncate": [0.5, 0.9]}
    left, right = plots.kept_mass(masses, {"full": 0.0, "truncate": 1.5}, 0.6).axes
    full, truncate, teacher = left.lines
    assert list(full.get_ydata()) == [0.5, 0.6]
    assert list(truncate.get_ydata()) == [0.5, 0.9]
    assert set(teacher.get_ydata()) == {0.6}
    assert truncate.get_color() == plots.COLOURS["baseline"]
    assert [bar.get_width() for bar in right.patches] == [0.0, 1.5]
    names = [text.get_text() for text in left.get_legend().get_texts()]
    assert names == ["full", "truncate", "the teacher"]


def test_a_panel_for_each_bug_shows_its_curve_and_the_right_one():
    found = {"right": ([3.0, 2.0, 1.0], 0.1)}
    found |= {f"bug {i}": ([3.0, 2.5, i / 4], i / 10) for i in range(8)}
    figure = plots.bug_curves(found)
    titles = [axes.get_title("left") or axes.get_title() for axes in figure.axes]
    assert titles == [f"bug {i}" for i in range(8)]
    for i, axes in enumerate(figure.axes):
        right, bug = (list(line.get_ydata()) for line in axes.lines)
        assert right == [3.0, 2.0, 1.0] and bug == [3.0, 2.5, i / 4]
        assert axes.texts[0].get_text() == f"KL {i / 10:.2f}"
    assert "KL 0.10" in figure.get_suptitle() and plots.png(figure)
