"""Figures of the data's quality: what is left, what was dropped."""

import pandas as pd
import pytest

from helpers import plots
from tests.plots.words import written


def test_funnel_draws_what_is_left_and_what_each_rule_dropped():
    columns = ["rule", "in", "dropped", "left", "share"]
    table = pd.DataFrame([["a", 1200, 200, 1000, 1 / 6], ["b", 1000, 0, 1000, 0]],
                         columns=columns)  # fmt: skip
    (axes,) = plots.funnel(table).axes
    assert [bar.get_width() for bar in axes.patches] == [1000, 1000, 200, 0]
    assert [bar.get_x() for bar in axes.patches] == [0, 0, 1000, 1000]
    assert written(axes) == ["1,000 left, 200 dropped", "1,000 left"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    titles = {axes.get_title(loc=side) for side in ("left", "center")}
    assert "1,000 of 1,200 rows are kept" in titles
    with pytest.raises(ValueError, match="without rules"):
        plots.funnel(table[:0])


def test_vote_confidence_draws_a_point_for_each_share_of_votes():
    votes = pd.DataFrame({"mean": [0.4, 0.9], "count": [5, 20]}, index=[0.5, 1.0])
    (axes,) = plots.vote_confidence(votes).axes
    (line,) = axes.lines
    assert list(zip(*line.get_data(), strict=True)) == [(0.5, 0.4), (1.0, 0.9)]
    assert written(axes) == ["5 answers", "20 answers"]


def test_three_seeds_colours_labels_as_gold():
    groups = {"gold labels": [0.8, 0.9], "mix": [0.7, 0.7]}
    (axes,) = plots.three_seeds(groups, {"teacher": 0.95}).axes
    colours = [line.get_color() for line in axes.lines[:2]]
    assert colours == [plots.COLOURS["gold"], plots.COLOURS["student"]]
