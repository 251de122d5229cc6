"""Figures of the caches and the loss head: true sizes, losses told apart."""

import pandas as pd
from matplotlib import colors

from helpers import plots
from helpers.evaluate import Interval
from helpers.plots.the_expensive_teacher import TAILS
from tests.plots.words import written


def test_cache_sizes_writes_every_size_and_the_disk():
    figure = plots.cache_sizes({"dense": 3039, "top-64": 3.22}, disk=1000)
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [3039, 3.22]
    assert written(axes) == ["3,039 GB", "3.2 GB", "disk of 1,000 GB"]
    assert axes.get_xscale() == "log" and axes.get_xlim()[1] > 3039


def test_tail_treatments_draws_each_loss_and_the_teacher_s_mass():
    masses = {name: [0.1, place / 10] for place, name in enumerate(TAILS)}
    kl = {name: place / 2 for place, name in enumerate(TAILS)}
    left, right = plots.tail_treatments(masses, kl, 0.42).axes
    *lines, teacher = left.lines
    assert [line.get_ydata()[1] for line in lines] == [0, 0.1, 0.2, 0.3, 0.4]
    assert list(teacher.get_ydata()) == [0.42, 0.42]
    assert [bar.get_width() for bar in right.patches] == [0, 0.5, 1, 1.5, 2]
    looks = {(line.get_color(), line.get_linestyle()) for line in lines}
    assert len(looks) == 5  # told apart without their names


def test_cache_students_gives_truncation_another_colour():
    sizes = {"hidden": 512, "truncated": 34}
    intervals = {name: Interval(0.7, 0.6, 0.8) for name in sizes}
    figure = plots.cache_students(sizes, {"hidden": 0.36, "truncated": 0.91}, intervals)
    bytes_, divergence, right = figure.axes
    assert [bar.get_width() for bar in bytes_.patches] == [512, 34]
    assert [bar.get_width() for bar in divergence.patches] == [0.36, 0.91]
    assert [list(bar.get_segments()[0][:, 0]) for bar in right.collections] == [
        [0.6, 0.8],
        [0.6, 0.8],
    ]
    used = [colors.to_hex(bar.get_facecolor()).upper() for bar in divergence.patches]
    assert used == [plots.COLOURS["student"], plots.COLOURS["baseline"]]


def test_passes_cross_where_the_cache_has_paid():
    (axes,) = plots.passes(live=3, cached=1, written=4).axes
    live, cached = (line.get_ydata() for line in axes.lines)
    assert list(live[:4]) == [0, 3, 6, 9] and list(cached[:4]) == [4, 5, 6, 7]


def test_head_memory_shows_mebibytes_measured_and_by_formula():
    mib = 2**20
    peaks = {"whole": {8: 4 * mib}, "chunked": {8: 2 * mib}, "fused": {8: mib}}
    laws = {"whole": [4 * mib, 8 * mib], "fused": [mib, 2 * mib]}
    (axes,) = plots.head_memory([8, 16], peaks, laws).axes
    assert [list(line.get_ydata()) for line in axes.lines] == [
        [4], [2], [1], [4, 8], [1, 2],
    ]  # fmt: skip
    assert written(axes) == ["whole", "chunked", "fused"]


def test_recorded_heads_has_a_bar_for_each_route_and_a_heading_for_each_size():
    columns = ["N", "V", "H_student", "route", "MiB", "seconds"]
    rows = [
        (512, 32768, 256, "TRL", 760, 1.8),
        (512, 32768, 256, "fused", 110, 0.7),
        (1024, 151936, 256, "fused", 300, 9.0),
    ]
    memory, times = plots.recorded_heads(pd.DataFrame(rows, columns=columns)).axes
    assert [bar.get_width() for bar in memory.patches] == [760, 110, 300]
    assert [bar.get_width() for bar in times.patches] == [1.8, 0.7, 9.0]
    names = [label.get_text() for label in memory.get_yticklabels()]
    assert names == ["TRL", "fused", "fused"]
    headings = [text for text in written(memory) if text.startswith("N =")]
    assert headings == [
        "N = 512, V = 32,768, H = 256",
        "N = 1,024, V = 151,936, H = 256",
    ]
    low, high = sorted(memory.get_ylim())
    ticks = memory.get_yticks()
    assert low < min(ticks) and max(ticks) < high  # no bar is cut
