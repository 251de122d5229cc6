"""Figures of evaluation: true values, and what readers must be able to tell apart."""

import numpy as np
import pandas as pd
import pytest

from helpers import plots
from helpers.evaluate import Interval
from helpers.plots import evaluation as plots_evaluation


def written(axes):
    return [text.get_text() for text in axes.texts]


def test_two_numbers_shows_what_was_reported_and_what_is():
    rows = {"one seed": (0.54, 0.47), "greedy": (0.8, 0.9)}
    figure = plots_evaluation.two_numbers(rows, "finding", "share")
    (axes,) = figure.axes
    assert written(axes) == ["54%", "47%", "80%", "90%"]
    dots = [
        line
        for line in axes.lines
        if line.get_marker() == "o" and len(line.get_xdata())
    ]
    assert [float(dot.get_xdata()[0]) for dot in dots] == [0.54, 0.47, 0.8, 0.9]
    assert [dot.get_markerfacecolor() for dot in dots[:2]] == [
        "white",
        plots.COLOURS["student"],
    ]
    # The number stands on the outer side, not on the line between the two.
    sides = [text.get_horizontalalignment() for text in axes.texts]
    assert sides == ["left", "right", "right", "left"]


def test_agreement_and_accuracy_names_the_mean_of_each_kind():
    runs = pd.DataFrame(
        {"kind": ["reverse_kl"] * 2 + ["tvd"], "top1": [0.9, 0.94, 0.95],
         "test": [0.5, 0.7, 0.8]}
    )  # fmt: skip
    figure = plots_evaluation.agreement_and_accuracy(runs, "top1", "test", "finding")
    (axes,) = figure.axes
    assert written(axes) == ["reverse kl", "tvd"]
    runs_drawn, *means = axes.lines
    assert len(runs_drawn.get_xdata()) == 3
    assert [m.get_xdata()[0] for m in means] == pytest.approx([0.92, 0.95])
    assert [m.get_ydata()[0] for m in means] == pytest.approx([0.6, 0.8])


def test_ratios_have_their_intervals_and_a_line_at_one():
    intervals = {"fair": Interval(1.0, 0.9, 1.1), "unfair": Interval(2.0, 1.5, 2.5)}
    figure = plots_evaluation.ratios(intervals, "finding", "ratio")
    (axes,) = figure.axes
    bars = [c.get_segments()[0][:, 0].tolist() for c in axes.collections]
    assert bars == [[0.9, 1.1], [1.5, 2.5]]
    assert written(axes) == ["1.00", "2.00"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["fair", "unfair"]
    assert list(axes.lines[-1].get_xdata()) == [1, 1]


def test_load_draws_medians_with_the_spread_of_repeats():
    rows = [
        (name, users, repeat, 1.0, pace * users * (repeat + 1), users / pace)
        for name, pace in (("teacher", 1.0), ("student", 10.0))
        for users in (1, 4)
        for repeat in range(3)
    ]
    names = ["model", "concurrency", "repeat", "answers a second", "tokens a second"]
    table = pd.DataFrame(rows, columns=[*names, "p95"])
    figure = plots_evaluation.load(table, "finding", limit_seconds=2.0)
    left, right = figure.axes
    teacher, student = left.containers
    assert list(teacher.lines[0].get_ydata()) == [2, 8]
    reach = teacher.lines[2][0].get_segments()
    assert np.allclose([bar[:, 1] for bar in reach], [[1, 3], [4, 12]])
    assert student.lines[0].get_color() == plots.COLOURS["student"]
    assert list(right.containers[1].lines[0].get_ydata()) == [0.1, 0.4]
    assert "limit" in written(right) and "limit" not in written(left)
    assert [label.get_text() for label in left.get_xticklabels()] == ["1", "4"]
