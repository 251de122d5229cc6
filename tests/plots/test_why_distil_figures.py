"""Figures of why we distil: sizes, speeds, prices and pairs as they were given."""

import numpy as np
import pandas as pd

from helpers import plots
from helpers.plots.why_distil import PAIRS
from tests.plots.words import written


def test_weights_and_memory_draws_every_width_and_every_device():
    sizes = {"small": {4: 1, 16: 4}, "large": {4: 10, 16: 40}}
    (axes,) = plots.weights_and_memory(sizes, {"phone": 4.0, "node": 1015.2}).axes
    models, devices = axes.lines[:2], axes.lines[2:]
    assert [list(line.get_xdata()) for line in models] == [[1, 4], [10, 40]]
    roles = [plots.COLOURS["student"], plots.COLOURS["teacher"]]
    assert [line.get_color() for line in models] == roles
    assert [line.get_xdata()[0] for line in devices] == [4, 1015.2]
    assert written(axes) == ["4 bit", "16 bit", "phone, 4 GB", "node, 1,015 GB"]


def test_cache_growth_names_teacher_and_student_inside_the_picture():
    lines = {"big": [16.0, 50.0, 84.0], "small": [1.0, 30.0, 59.0]}
    (axes,) = plots.cache_growth([0, 1, 2], lines, 40, "title").axes
    big, small, memory = axes.lines
    assert list(big.get_ydata()) == lines["big"]
    assert small.get_color() == plots.COLOURS["student"]
    assert set(memory.get_ydata()) == {40}
    assert written(axes) == ["big", "small", "memory of the card, 40 GB"]
    low, high = axes.get_ylim()
    assert all(low <= text.xy[1] <= high for text in axes.texts)


def test_decode_speed_compares_with_both_bounds():
    named = {"teacher": (8_000_000, 0.5), "student": (1_000_000, 0.1)}
    figure = plots.decode_speed({5_000_000: 0.2}, named, bandwidth=1e9, operations=1e9)
    by_bytes, by_operations, ladder, teacher, student = figure.axes[0].lines
    assert np.allclose(by_bytes.get_ydata(), by_bytes.get_xdata())  # 1 MB in 1 ms
    assert np.allclose(by_operations.get_ydata(), by_bytes.get_ydata() / 2)
    assert (ladder.get_xdata()[0], ladder.get_ydata()[0]) == (5, 200)
    assert (teacher.get_xdata()[0], teacher.get_ydata()[0]) == (8, 500)
    assert student.get_color() == plots.COLOURS["student"]


def test_deployments_writes_speed_and_width_or_a_dash():
    bits = pd.DataFrame({"a": [4, 16], "b": [0, 8]}, index=["phone", "card"])
    speed = pd.DataFrame({"a": [4.25, 900], "b": [np.nan, 12]}, index=bits.index)
    limits = [("slow", 0), ("fast", 10)]
    figure = plots.deployments(bits, speed, limits)
    (axes,) = figure.axes
    assert written(axes) == ["4.2 /s\n4 bit", "–", "900 /s\n16 bit", "12 /s\n8 bit"]
    shades = [patch.get_facecolor() for patch in axes.patches]
    assert shades[1] == (1, 1, 1, 1) and shades[2] == shades[3]
    assert len(set(shades)) == 3
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["does not fit", "slow", "fast"]


def test_price_and_energy_ends_each_line_where_it_ends():
    lines = {
        "one": ("teacher", [1, 8], [4.0, 1.0], [40.0, 10.0]),
        "two": ("teacher", [1, 2], [2.0, 1.5], [20.0, 15.0]),
        "small": ("student", [1, 4], [0.4, 0.1], [3.0, 1.0]),
    }
    money, energy = plots.price_and_energy(lines, "title").axes
    assert [list(line.get_ydata()) for line in money.lines[::2]] == [
        [4, 1], [2, 1.5], [0.4, 0.1],
    ]  # fmt: skip
    assert list(energy.lines[-1].get_xdata()) == [4]
    looks = [(line.get_color(), line.get_linestyle()) for line in money.lines[::2]]
    assert len(set(looks)) == 3


def test_pairs_marks_conditions_and_leaves_out_what_is_no_pair():
    kinds = pd.DataFrame(
        {"s": ["logits", "text"], "t": ["terms", ""]}, index=["a", "b"]
    )
    heed = pd.DataFrame({"s": [True, False], "t": [True, True]}, index=["a", "b"])
    (axes,) = plots.pairs(kinds, heed).axes
    assert written(axes) == ["logits†", "terms", "text"]
    assert [bool(patch.get_hatch()) for patch in axes.patches] == [False, True, False]


def test_each_kind_of_pair_looks_different():
    looks = [look[:3] for look in PAIRS.values()]
    assert len(set(looks)) == len(looks)


def test_retention_without_n_draws_the_interval_and_the_teacher():
    figure = plots.retention_without_n([25, 100], [0.77, 0.84], [1.1, 1.01], 0.92)
    (axes,) = figure.axes
    assert [line.get_ydata()[0] for line in axes.lines] == [0.92, 1]
    corners = axes.collections[0].get_paths()[0].vertices
    assert {tuple(c) for c in corners} >= {(25, 0.77), (25, 1.1), (100, 1.01)}
