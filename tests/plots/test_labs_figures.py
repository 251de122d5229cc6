"""The figure of lab 06."""

from helpers import plots
from helpers.plots import bugs as plots_bugs


def test_a_panel_for_each_bug_shows_its_curve_and_the_right_one():
    found = {"right": ([3.0, 2.0, 1.0], 0.1)}
    found |= {f"bug {i}": ([3.0, 2.5, i / 4], i / 10) for i in range(8)}
    figure = plots_bugs.bug_curves(found)
    titles = [axes.get_title("left") or axes.get_title() for axes in figure.axes]
    assert titles == [f"bug {i}" for i in range(8)]
    for i, axes in enumerate(figure.axes):
        right, bug = (list(line.get_ydata()) for line in axes.lines)
        assert right == [3.0, 2.0, 1.0] and bug == [3.0, 2.5, i / 4]
        assert axes.texts[0].get_text() == f"KL {i / 10:.2f}"
    assert "KL 0.10" in figure.get_suptitle() and plots.png(figure)
