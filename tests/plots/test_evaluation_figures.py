"""Figures of evaluation: true values, and what readers must be able to tell apart."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import colors

from helpers import plots
from helpers.evaluate import Interval
from tests.plots.words import written


def test_two_numbers_shows_what_was_reported_and_what_is():
    rows = {"one seed": (0.54, 0.47), "greedy": (0.8, 0.9)}
    figure = plots.two_numbers(rows, "finding", "share")
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
    figure = plots.agreement_and_accuracy(runs, "top1", "test", "finding")
    (axes,) = figure.axes
    assert written(axes) == ["reverse kl", "tvd"]
    runs_drawn, *means = axes.lines
    assert len(runs_drawn.get_xdata()) == 3
    assert [m.get_xdata()[0] for m in means] == pytest.approx([0.92, 0.95])
    assert [m.get_ydata()[0] for m in means] == pytest.approx([0.6, 0.8])


def test_reliability_draws_bins_that_hold_items():
    table = pd.DataFrame({"low": [0, 0.5], "high": [0.5, 1], "count": [0, 4]})
    table = table.assign(confidence=[np.nan, 0.9], accuracy=[np.nan, 0.5])
    figure = plots.reliability({"teacher": table, "student": table}, "finding")
    left, right = figure.axes
    dots = left.collections[1]
    assert dots.get_offsets().tolist() == [[0.9, 0.5]]
    assert written(left) == ["ECE 0.40"]
    looks = [colors.to_hex(axes.collections[1].get_facecolor()[0])
             for axes in (left, right)]  # fmt: skip
    roles = [plots.COLOURS["teacher"], plots.COLOURS["student"]]
    assert looks == [colors.to_hex(role) for role in roles]


def test_scores_has_a_panel_a_split_and_all_items_below():
    lines = [
        (split, by, group, model, "accuracy", 0.5, 0.4, 0.7)
        for split in ("test", "shifted")
        for by, group in (("all", "all"), ("task", "qa"), ("turns", "2"))
        for model in ("teacher", "student base", "one", "two")
    ]
    names = ["split", "by", "group", "model", "metric", "value", "low", "high"]
    table = pd.DataFrame(lines, columns=names)
    figure = plots.scores(table, "finding")
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["qa", "all"]
    assert len(left.lines) == len(right.lines) == 4
    looks = {(line.get_color(), line.get_marker()) for line in left.lines}
    assert len(looks) == 4  # two students are told apart
    (bar,) = {tuple(s[:, 0]) for c in left.collections for s in c.get_segments()}
    assert bar == (0.4, 0.7)
    with pytest.raises(ValueError, match="no 'BLEU'"):
        plots.scores(table, "finding", "BLEU")


def test_ratios_have_their_intervals_and_a_line_at_one():
    intervals = {"fair": Interval(1.0, 0.9, 1.1), "unfair": Interval(2.0, 1.5, 2.5)}
    figure = plots.ratios(intervals, "finding", "ratio")
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
    figure = plots.load(table, "finding", limit_seconds=2.0)
    left, right = figure.axes
    teacher, student = left.containers
    assert list(teacher.lines[0].get_ydata()) == [2, 8]
    reach = teacher.lines[2][0].get_segments()
    assert np.allclose([bar[:, 1] for bar in reach], [[1, 3], [4, 12]])
    assert student.lines[0].get_color() == plots.COLOURS["student"]
    assert list(right.containers[1].lines[0].get_ydata()) == [0.1, 0.4]
    assert "limit" in written(right) and "limit" not in written(left)
    assert [label.get_text() for label in left.get_xticklabels()] == ["1", "4"]


def test_kept_and_saved_writes_what_was_kept_and_what_each_cost_still_is():
    accuracy = {"teacher": (0.9, 0.8, 1.0), "distilled student": (0.6, 0.5, 0.7)}
    figure = plots.kept_and_saved(accuracy, {"bytes": 0.05, "time": 0.25}, "title")
    left, right = figure.axes
    assert written(left) == ["90%", "60%"]
    assert written(right) == ["5% of the teacher's", "25% of the teacher's"]
    assert [bar.get_width() for bar in right.patches] == [1, 0.05, 1, 0.25]
    bars = [c.get_segments()[0][:, 0].tolist() for c in left.collections]
    assert bars == [[0.8, 1.0], [0.5, 0.7]]
    names = [label.get_text() for label in left.get_yticklabels()]
    assert names == list(accuracy)


def test_small_samples_draws_every_sample_in_the_row_of_its_size():
    shares = {25: [0.7, 1.1, 0.9], 100: [0.9, 0.95]}
    (axes,) = plots.small_samples(shares, 0.92).axes
    *rows, truth = axes.lines
    assert [list(row.get_xdata()) for row in rows] == list(shares.values())
    assert all(abs(row.get_ydata() - i).max() < 0.5 for i, row in enumerate(rows))
    assert truth.get_xdata()[0] == 0.92
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["25 examples", "100 examples"]
