"""Figures of the synthetic data: every draw and every bill is drawn."""

import numpy as np
import pandas as pd

from helpers import plots
from tests.plots.words import written


def test_batch_speed_writes_every_rate():
    (axes,) = plots.batch_speed({1: 2.5, 8: 12.04}).axes
    assert list(axes.lines[0].get_xdata()) == [1, 8] and axes.get_xscale() == "log"
    assert list(axes.lines[0].get_ydata()) == [2.5, 12.04]
    assert written(axes) == ["2.5", "12.0"]


def test_sampling_draws_every_prompt_and_the_mean():
    different, right = np.array([[1, 4], [3, 6]]), np.array([[1, 0.5], [0, 0.5]])
    left, there = plots.sampling([0, 1], different, right).axes
    assert [list(line.get_ydata()) for line in left.lines] == [[1, 4], [3, 6], [2, 5]]
    assert list(there.lines[-1].get_ydata()) == [0.5, 0.5]
    assert there.get_ylim() == (0, 1)


def test_best_of_draws_a_named_line_for_each_way():
    (axes,) = plots.best_of({"warm": [0.5, 0.75, 1.0], "hot": [0.25, 0.5]}).axes
    assert [list(line.get_xdata()) for line in axes.lines] == [[1, 2, 3], [1, 2]]
    assert [list(line.get_ydata()) for line in axes.lines] == [[0.5, 0.75, 1.0],
                                                               [0.25, 0.5]]  # fmt: skip
    assert written(axes) == ["warm", "hot"]


def test_bills_stacks_reading_and_writing_and_writes_the_sum():
    bills = pd.DataFrame({"read": [1200.0, 3.0], "written": [300.0, 1.0]},
                         index=["long prompts", "short ones"])  # fmt: skip
    (axes,) = plots.bills(bills, "Reading costs more").axes
    assert [bar.get_width() for bar in axes.patches] == [1200, 3, 300, 1]
    assert [bar.get_x() for bar in axes.patches] == [0, 0, 1200, 3]
    assert written(axes) == ["1,500", "4"]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(bills.index)
    assert axes.get_title(loc="left") == "Reading costs more"
