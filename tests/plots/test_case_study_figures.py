"""Figures of the case study: every interval and every claim is drawn where it is."""

import numpy as np
import pytest
from matplotlib import colors

from helpers import plots
from helpers.evaluate import Interval


@pytest.fixture
def budgets():
    found = {
        "careless labels": {
            250: Interval(0.5, 0.4, 0.6),
            8000: Interval(0.9, 0.8, 0.95),
        },
        "distilled": {250: Interval(0.7, 0.6, 0.75), 8000: Interval(0.95, 0.9, 0.97)},
        "gold labels": {8000: Interval(0.96, 0.94, 0.98)},
    }
    references = {"teacher": 0.97, "student base": 0.5}
    figure = plots.labels_or_teacher(found, references, "Few prompts")
    return found, figure


@pytest.fixture
def claims():
    kept = {
        "student base": Interval(0.52, 0.5, 0.55),
        "distilled": Interval(0.98, 0.96, 1),
    }
    left = {"seconds": (0.15, Interval(0.11, 0.1, 0.12)),
            "bytes": (0.05, Interval(0.02, 0.02, 0.02))}  # fmt: skip
    return kept, left, plots.claims(kept, 0.92, left, "The ratios hold")


def of_colour(artists, role):
    wanted = colors.to_rgba(plots.COLOURS[role])
    return [a for a in artists if colors.to_rgba_array(a.get_color())[0][:3].tolist()
            == list(wanted[:3])]  # fmt: skip


def test_both_figures_can_be_shown(budgets, claims):
    for figure in (budgets[-1], claims[-1]):
        assert plots.png(figure).startswith(b"\x89PNG")


def test_budgets_draw_every_value_with_its_interval(budgets):
    found, figure = budgets
    (axes,) = figure.axes
    assert [c.get_label() for c in axes.containers] == list(found)
    for container, by_prompts in zip(axes.containers, found.values(), strict=True):
        line, _, (bars,) = container.lines
        np.testing.assert_allclose(
            line.get_ydata(), [i.value for i in by_prompts.values()]
        )
        ends = [(segment[0][1], segment[1][1]) for segment in bars.get_segments()]
        np.testing.assert_allclose(ends, [(i.low, i.high) for i in by_prompts.values()])


def test_budgets_are_not_hidden_behind_each_other(budgets):
    _, figure = budgets
    (axes,) = figure.axes
    last = [container.lines[0].get_xdata()[-1] for container in axes.containers]
    assert len(set(last)) == 3 and max(last) / min(last) < 1.2
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["250", "8,000"]


def test_budgets_name_the_models_to_compare_with(budgets):
    (axes,) = budgets[-1].axes
    assert {"teacher", "student base"} <= {t.get_text() for t in axes.texts}
    (line,) = of_colour(axes.lines[-2:], "teacher")
    assert set(line.get_ydata()) == {0.97}


def test_claims_stand_beside_what_was_measured(claims):
    kept, left, figure = claims
    here, there = figure.axes
    assert [t.get_text() for t in here.get_yticklabels()] == list(kept)
    assert [t.get_text() for t in there.get_yticklabels()] == list(left)
    drawn = [line for line in there.lines if len(line.get_xdata())]  # else a legend's
    claimed = [line for line in drawn if line.get_marker() == "D"]
    assert [line.get_xdata()[0] for line in claimed] == [0.15, 0.05]
    ours = [line for line in drawn if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in ours] == [0.11, 0.02]
    assert all(line in of_colour(ours, "student") for line in ours)
    reach = [c.get_segments()[0][:, 0].tolist() for c in there.collections]
    assert reach == [[0.1, 0.12], [0.02, 0.02]]
    assert any(set(line.get_xdata()) == {0.92} for line in here.lines)


def test_the_share_kept_is_written_at_every_student(claims):
    here, _ = claims[-1].axes
    assert {"52.0%", "98.0%", "page: 92%"} <= {text.get_text() for text in here.texts}


def test_accuracy_by_task_keeps_models_apart_in_the_row_of_a_task():
    found = {
        "teacher": {"math": (0.9, 0.8, 1.0), "summary": (0.8, 0.7, 0.9)},
        "student base": {"math": (0.1, 0.0, 0.2), "summary": (0.2, 0.1, 0.3)},
        "distilled student": {"math": (0.7, 0.6, 0.8), "summary": (0.6, 0.5, 0.7)},
    }
    (axes,) = plots.accuracy_by_task(found, "title").axes
    assert [list(line.get_xdata()) for line in axes.lines] == [
        [0.9, 0.8], [0.1, 0.2], [0.7, 0.6],
    ]  # fmt: skip
    for row in range(2):
        heights = {line.get_ydata()[row] for line in axes.lines}
        assert len(heights) == 3 and all(abs(y - row) < 0.5 for y in heights)
    for bars, by_task in zip(axes.collections, found.values(), strict=True):
        ends = [tuple(bar[:, 0]) for bar in bars.get_segments()]
        assert ends == [(low, high) for _, low, high in by_task.values()]
    roles = ("teacher", "baseline", "student")
    assert [
        of_colour([line], role) for line, role in zip(axes.lines, roles, strict=True)
    ] == [[line] for line in axes.lines]
