"""Figures of training the student: the shift is right, and no method hides."""

import pytest

from helpers import plots
from helpers.evaluate import Interval
from helpers.plots.training_the_student import SOURCES
from tests.plots.words import written


def test_token_labels_moves_each_label_up_by_one():
    figure = plots.token_labels(
        ["?", "a", "<e>", "<p>"], ["", "a", "<e>", ""],
        ["prompt", "answer", "end", "padding"], first=7,
    )  # fmt: skip
    (axes,) = figure.axes
    at = {(round(t.get_position()[0], 2), t.get_position()[1]): t.get_text()
          for t in axes.texts if t.get_text()}  # fmt: skip
    assert [at[0.13, row] for row in range(4)] == ["?", "a", "<e>", "<p>"]
    assert [at[1.13, row] for row in range(4)] == ["-100", "a", "<e>", "-100"]
    assert [at.get((2.13, row)) for row in range(4)] == ["a", "<e>", "-100", None]
    assert at[-0.15, 0] == "7"


def test_loss_curves_draws_every_step_on_a_log_axis():
    figure = plots.loss_curves({"a": ([3, 2, 1], "gold"), "b": ([3, 1], "student")}, "")
    (axes,) = figure.axes
    assert [list(line.get_xdata()) for line in axes.lines] == [[1, 2, 3], [1, 2]]
    assert list(axes.lines[0].get_ydata()) == [3, 2, 1]
    assert axes.get_yscale() == "log"


def test_hesitation_names_the_words_that_the_teacher_weighs():
    figure = plots.hesitation([" a", " b"], [0.0, 0.7], ["", " b .5, c .5"])
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [0.0, 0.7]
    assert written(axes) == ["", " b .5, c .5"]


def test_draws_needed_compares_with_the_rule_and_with_greedy_text():
    (axes,) = plots.draws_needed([1, 4, 16, 64], [0.8, 0.4, 0.2, 0.1], 0.6).axes
    rule, measured, greedy = (list(line.get_ydata()) for line in axes.lines)
    assert measured == [0.8, 0.4, 0.2, 0.1]
    assert rule == pytest.approx(measured)
    assert greedy == [0.6, 0.6]


def test_right_and_alike_leaves_out_what_was_not_measured():
    intervals = {"text": Interval(0.7, 0.6, 0.8), "teacher": Interval(0.9, 0.8, 1)}
    figure = plots.right_and_alike(intervals, {"text": 0.3}, ["student", "teacher"], "")
    left, right = figure.axes
    assert list(left.collections[0].get_segments()[0][:, 0]) == [0.6, 0.8]
    assert [bar.get_width() for bar in right.patches] == [0.3]


def test_budgets_draws_means_seeds_and_references_in_each_panel():
    methods = {name: {60: [0.5, 0.7], 250: [0.8, 0.8]} for name in SOURCES}
    panels = {"test": (methods, {"teacher": 0.9}), "shifted": (methods, {})}
    figure = plots.budgets(panels, "finding")
    left, right = figure.axes
    assert list(left.lines[0].get_ydata()) == pytest.approx([0.6, 0.8])
    assert list(left.lines[1].get_ydata()) == [0.5, 0.7]
    assert list(left.lines[-1].get_ydata()) == [0.9, 0.9]
    assert len(left.lines) == len(right.lines) + 1 == 3 * len(methods) + 1
    looks = {(line.get_color(), line.get_linestyle(), line.get_marker())
             for line in left.lines[:-1:3]}  # fmt: skip
    assert len(looks) == len(methods)  # told apart without the colour of a neighbour
    # All seeds of a method stand at one place, near the number of prompts.
    assert all(50 < x < 70 for x in left.lines[1].get_xdata())


def test_divergence_kinds_shows_both_measures_of_a_kind_in_one_row():
    figure = plots.divergence_kinds({"a": [0.5, 0.6]}, {"a": [0.1, 0.3]}, "finding")
    left, right = figure.axes
    assert list(left.lines[0].get_xdata()) == [0.5, 0.6]
    assert list(right.lines[0].get_xdata()) == [0.1, 0.3]
