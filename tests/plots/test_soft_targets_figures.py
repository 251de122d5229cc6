"""Figures of the soft targets: true values of the teacher's probabilities."""

import numpy as np
import pytest
from matplotlib import colors

from helpers import plots

IMAGE = np.eye(8)


LOGITS = np.arange(10.0)


def test_digit_row_writes_each_caption():
    figure = plots.digit_row(np.stack([IMAGE, IMAGE]), ["8", "3"], "Two digits")
    assert [axes.get_xlabel() for axes in figure.axes] == ["8", "3"]


@pytest.mark.parametrize("shift", [0, 1e4])
def test_temperature_bars_are_softmax(shift):
    figure = plots.temperature_bars(IMAGE, 9, LOGITS + shift, [1, 4])
    for axes, temperature in zip(figure.axes[1:], [1, 4], strict=True):
        heights = [bar.get_height() for bar in axes.patches]
        weights = np.exp(LOGITS / temperature)
        assert heights == pytest.approx(weights / weights.sum())
        gold = [colors.to_hex(bar.get_facecolor()).upper() for bar in axes.patches]
        assert gold.index(plots.COLOURS["gold"]) == 9 and len(set(gold)) == 2


def test_gradient_norms_draws_both_lines_on_log_axes():
    figure = plots.gradient_norms([1, 10, 100], [1, 0.01, 1e-4], [1, 1, 1])
    (axes,) = figure.axes
    assert [list(line.get_ydata()) for line in axes.lines] == [
        [1, 1, 1],
        [1, 0.01, 1e-4],
    ]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_two_peaks_cuts_no_curve():
    grid = np.linspace(-1, 1, 5)
    low, high = np.full(5, 0.1), np.array([0, 0, 0.9, 0, 0])
    figure = plots.two_peaks(grid, low, {"one": low, "two": high})
    assert [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes] == [
        "one",
        "two",
    ]
    assert all(axes.get_ylim()[1] >= 0.9 for axes in figure.axes)


def test_divergences_and_their_gradients_share_the_probability():
    q = np.linspace(0, 1, 5)
    curves = {kind: q * i for i, kind in enumerate("abcdef")}
    figure = plots.divergences(q, curves, {k: -v for k, v in curves.items()}, 0.9)
    values, sizes = figure.axes
    assert [list(line.get_ydata()) for line in sizes.lines[:6]] == [
        list(line.get_ydata()) for line in values.lines[:6]
    ]
    styles = {(line.get_color(), line.get_linestyle()) for line in values.lines[:6]}
    assert len(styles) == 6


def test_precision_goes_from_far_to_near():
    errors = {"half": [0.1, 0.2], "mixed": [0.01, 0.02], "single": [1e-6, 1e-5]}
    (axes,) = plots.precision([1.0, 0.01], errors).axes
    assert axes.xaxis_inverted() and axes.get_yscale() == "log"
    assert [list(line.get_ydata()) for line in axes.lines] == list(errors.values())


def test_withheld_digit_has_a_panel_before_and_after():
    before, after = (
        {"hard": [0, 0], "soft": [0.5, 0.6]},
        {"hard": [0, 0.1], "soft": [1, 1]},
    )
    figure = plots.withheld_digit(before, after, 0.95)
    left, right = figure.axes
    assert list(left.lines[1].get_xdata()) == [0.5, 0.6]
    assert list(right.lines[0].get_xdata()) == [0, 0.1]
    assert list(right.lines[-1].get_xdata()) == [0.95, 0.95]


def test_next_token_bars_pairs_teacher_and_student():
    figure = plots.next_token_bars([" a", " b"], np.array([0.7, 0.3]), np.array([0, 1]))
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == [0.7, 0.3, 0, 1]
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["' a'", "' b'"]  # quotes show the space that belongs to a token
