"""Figures: words for every picture, colours that all can tell apart, true values."""

import io
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import colors, rcParams
from matplotlib.figure import Figure
from nbclient import NotebookClient
from PIL import Image

from helpers import plots
from helpers.evaluate import Interval
from helpers.memory import Step, training

ALT = "The student reaches the accuracy of the teacher."


def linear(colour):
    """A colour as linear RGB, from sRGB."""
    rgb = np.array(colors.to_rgb(colour))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """Linear RGB as CIE L*a*b* under D65, where distance is visible difference."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722],
              [0.0193, 0.1192, 0.9505]]  # fmt: skip
    xyz = to_xyz @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


# Machado, Oliveira and Fernandes 2009, full severity; they act on linear RGB.
SIGHT = {
    "all colours": np.eye(3),
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                 [-0.011820, 0.042940, 0.968881]],
}  # fmt: skip


@pytest.fixture
def figure():
    figure = Figure(figsize=(4, 2))
    figure.subplots().plot([0, 1], [0, 1])
    return figure


@pytest.fixture
def shown(monkeypatch):
    """What reaches the notebook: a list of (data, metadata)."""
    outputs = []

    def display(data, *, raw, metadata=None):
        assert raw
        outputs.append((data, metadata))

    monkeypatch.setattr(plots, "display", display)
    return outputs


def test_show_stores_the_alt_text_and_prints_it(figure, shown, capsys):
    plots.show(figure, ALT)
    ((data, metadata),) = shown
    assert list(data) == ["image/png"]
    assert metadata["image/png"]["alt"] == ALT
    assert capsys.readouterr().out == ALT + "\n"


def test_the_alt_text_lands_in_the_notebook(tmp_path):
    code = (
        "from matplotlib.figure import Figure\nfrom helpers import plots\n"
        f"plots.show(Figure(), {ALT!r})"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    root = str(Path(__file__).resolve().parents[1])
    client = NotebookClient(notebook, kernel_name="python3", timeout=120)
    client.execute(cwd=root)
    path = tmp_path / "one.ipynb"
    nbformat.write(notebook, path)
    outputs = nbformat.read(path, as_version=4).cells[0].outputs
    pictures = [o for o in outputs if o.output_type == "display_data"]
    assert len(pictures) == 1  # and not drawn a second time by the kernel
    assert pictures[0].metadata["image/png"]["alt"] == ALT
    assert [o.text for o in outputs if o.output_type == "stream"] == [ALT + "\n"]


@pytest.mark.parametrize("alt", ["", "Figure", "A bar chart"])
def test_show_refuses_an_alt_text_that_says_nothing(figure, alt):
    with pytest.raises(ValueError, match="say in a sentence"):
        plots.show(figure, alt)


def test_png_is_a_picture_with_the_style_s_resolution(figure):
    plots.use_style()
    picture = Image.open(io.BytesIO(plots.png(figure)))
    assert picture.format == "PNG"
    assert picture.size == (4 * rcParams["savefig.dpi"], 2 * rcParams["savefig.dpi"])


def test_each_role_has_a_colour_that_reads_on_white():
    assert set(plots.COLOURS) == {"teacher", "student", "baseline", "gold"}
    assert len(set(plots.COLOURS.values())) == 4
    for colour in plots.COLOURS.values():
        luminance = linear(colour) @ [0.2126, 0.7152, 0.0722]
        assert 1.05 / (luminance + 0.05) >= 3  # WCAG 1.4.11, graphics


@pytest.mark.parametrize("sight", SIGHT.values(), ids=SIGHT)
def test_no_two_roles_look_alike(sight):
    seen = [lab(np.array(sight) @ linear(c)) for c in plots.COLOURS.values()]
    gaps = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
    assert min(gaps) > 20  # a difference of 2 is just visible


def test_the_style_s_first_colours_are_the_roles():
    plots.use_style()
    cycle = [entry["color"].upper() for entry in rcParams["axes.prop_cycle"]]
    roles = [colour.strip("#").upper() for colour in plots.COLOURS.values()]
    assert [colour.strip("#") for colour in cycle[:4]] == roles


def test_the_slider_redraws(monkeypatch, shown):
    import ipywidgets

    made = []
    real = ipywidgets.SelectionSlider

    def slider(**settings):
        made.append(real(**settings))
        return made[-1]

    monkeypatch.setattr(ipywidgets, "SelectionSlider", slider)
    drawn = []

    def draw(value):
        drawn.append(value)
        return Figure(figsize=(1, 1))

    plots.show_slider(draw, [0.5, 1, 2], 1, "temperature")
    made[0].value = 2
    assert drawn == [1, 2]
    ((data, _),) = shown
    assert "move the temperature" in data["text/plain"]
    assert "application/vnd.jupyter.widget-view+json" in data


def test_seed_points_draws_every_seed_and_the_mean():
    axes = Figure().subplots()
    plots.seed_points(axes, {"a": [0.1, 0.2, 0.6], "b": [0.5]}, ["red", "blue"])
    assert [sorted(line.get_xdata()) for line in axes.lines] == [[0.1, 0.2, 0.6], [0.5]]
    means = [bar.get_segments()[0][0, 0] for bar in axes.collections]
    assert means == pytest.approx([0.3, 0.5])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]


# ---------------------------------------------------------------- figures of 02


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


# ---------------------------------------------------------------- figures of 04

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


def test_three_seeds_colours_labels_as_gold():
    groups = {"gold labels": [0.8, 0.9], "mix": [0.7, 0.7]}
    (axes,) = plots.three_seeds(groups, {"teacher": 0.95}).axes
    colours = [line.get_color() for line in axes.lines[:2]]
    assert colours == [plots.COLOURS["gold"], plots.COLOURS["student"]]


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


def texts(axes):
    return [text.get_text() for text in axes.texts]


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
    assert texts(axes) == ["", " b .5, c .5"]


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
    assert list(left.lines[0].get_xdata()) == [0.6, 0.8]
    assert [bar.get_width() for bar in right.patches] == [0.3]


def test_budgets_draws_means_seeds_and_references_in_each_panel():
    methods = {name: {60: [0.5, 0.7], 250: [0.8, 0.8]} for name in plots.SOURCES}
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


# ---------------------------------------------------------------- figures of 06


def written(axes):
    """All words that stand in the axes beside its ticks."""
    return [text.get_text() for text in axes.texts]


def test_cache_sizes_writes_every_size_and_the_disk():
    figure = plots.cache_sizes({"dense": 3039, "top-64": 3.22}, disk=1000)
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [3039, 3.22]
    assert written(axes) == ["3,039 GB", "3.2 GB", "disk of 1,000 GB"]
    assert axes.get_xscale() == "log" and axes.get_xlim()[1] > 3039


def test_tail_treatments_draws_each_loss_and_the_teacher_s_mass():
    masses = {name: [0.1, place / 10] for place, name in enumerate(plots.TAILS)}
    kl = {name: place / 2 for place, name in enumerate(plots.TAILS)}
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


# ---------------------------------------------------------------- figures of 03


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


# ---------------------------------------------------------------- figures of 01


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
    looks = [look[:3] for look in plots.PAIRS.values()]
    assert len(set(looks)) == len(looks)


def test_retention_without_n_draws_the_interval_and_the_teacher():
    figure = plots.retention_without_n([25, 100], [0.77, 0.84], [1.1, 1.01], 0.92)
    (axes,) = figure.axes
    assert [line.get_ydata()[0] for line in axes.lines] == [0.92, 1]
    corners = axes.collections[0].get_paths()[0].vertices
    assert {tuple(c) for c in corners} >= {(25, 0.77), (25, 1.1), (100, 1.01)}


# ---------------------------------------------------------------- figures of 10


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


# ---------------------------------------------------------------- 07, LoRA


def test_memory_ledger_stacks_the_parts_of_each_step_in_gib():
    gib = 2**30
    steps = {
        "full": {"weights": 16 * gib, "gradients": 32 * gib, "activations": 0},
        "LoRA": {"weights": 16 * gib, "adapters": gib, "loss head": gib},
    }
    figure = plots.memory_ledger(steps, [24], "title")
    (axes,) = figure.axes
    assert written(axes) == ["48.0", "18.0", "24 GB"]
    ends = [bar.get_x() + bar.get_width() for bar in axes.patches]
    assert max(ends[: len(plots.LEDGER)]) == 48 and ends[-1] == 18
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["weights", "gradients", "adapters", "loss head"]


def test_every_part_of_a_ledger_has_its_own_look():
    step = Step(1, 8, 4, torch.bfloat16, "cuda", lora_rank=2)
    parts = training("Qwen/Qwen3-0.6B", step, "Qwen/Qwen3-1.7B").parts
    assert set(parts) == set(plots.LEDGER)
    assert len(set(plots.LEDGER.values())) == len(plots.LEDGER)


def test_starts_draws_one_line_each_and_names_it():
    (axes,) = plots.starts({"a": [4, 3, 2], "b": [4, 2, 1], "c": [4, 4, 4]}).axes
    assert written(axes) == ["a", "b", "c"]
    assert [line.get_ydata()[-1] for line in axes.lines] == [2, 1, 4]


def test_rank_error_draws_what_was_trained_on_what_is_possible():
    (axes,) = plots.rank_error([1, 2], [0.5, 0.3], [0.5, 0.25]).axes
    assert list(axes.lines[0].get_ydata()) == [0.5, 0.25]
    assert axes.collections[0].get_offsets()[:, 1].tolist() == [0.5, 0.3]


def test_step_memory_marks_the_prediction_of_each_bar():
    rows = [(1, "full", 3.0, 3.3), (1, "LoRA", 2.0, 2.1),
            (8, "full", 9.0, 9.5), (8, "LoRA", 8.0, 8.1)]  # fmt: skip
    columns = ["batch", "method", "predicted", "measured"]
    small, large = plots.step_memory(pd.DataFrame(rows, columns=columns)).axes
    assert [bar.get_width() for bar in small.patches] == [3.3, 2.1]
    strokes = large.collections[0].get_segments()
    assert [stroke[0][0] for stroke in strokes] == [9.0, 8.0]
    assert [tick.get_text() for tick in small.get_yticklabels()] == ["full", "LoRA"]


def test_recorded_lora_tells_full_fine_tuning_from_lora():
    groups = {"LoRA": [0.8, 0.9], "full, equal time": [0.7, 0.8]}
    (axes,) = plots.recorded_lora(groups, "title").axes
    points = [line for line in axes.lines if line.get_linestyle() == "None"]
    assert [list(line.get_xdata()) for line in points] == [[0.8, 0.9], [0.7, 0.8]]
    found = [line.get_color() for line in points]
    assert found == [plots.COLOURS["student"], plots.COLOURS["baseline"]]


def test_rounded_update_marks_the_real_one():
    (axes,) = plots.rounded_update([0.01, 0.1], [0.05, 0.9], here=0.2).axes
    curve, mark = axes.lines
    assert list(curve.get_ydata()) == [0.05, 0.9] and mark.get_xdata()[0] == 0.2
    ticks = [tick.get_text() for tick in axes.get_xticklabels()]
    assert ticks == ["1.0%", "10.0%"]
