"""What all figures share: words for every picture, colours that all can tell apart."""

import io
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib import colors, rcParams
from matplotlib.figure import Figure
from nbclient import NotebookClient
from PIL import Image

from helpers import plots
from helpers.evaluate import Interval
from helpers.plots import base

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

    monkeypatch.setattr(base, "display", display)
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
    root = str(Path(__file__).resolve().parents[2])
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
    base.seed_points(axes, {"a": [0.1, 0.2, 0.6], "b": [0.5]}, ["red", "blue"])
    assert [sorted(line.get_xdata()) for line in axes.lines] == [[0.1, 0.2, 0.6], [0.5]]
    means = [bar.get_segments()[0][0, 0] for bar in axes.collections]
    assert means == pytest.approx([0.3, 0.5])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]


@pytest.mark.parametrize(
    ("model", "role"),
    [
        ("teacher", "teacher"),
        ("student base", "baseline"),
        ("undistilled student", "baseline"),
        ("distilled student", "student"),
        ("LoRA", "student"),
    ],
)
def test_a_model_has_the_role_that_its_name_says(model, role):
    assert base.role_of(model) == role


def test_seed_line_goes_through_the_means_also_where_a_seed_is_missing():
    axes = Figure().subplots()
    base.seed_line(axes, [1, 2], [[0.2, 0.4], [0.6, np.nan]], "o-", "red", label="a")
    line, *points = axes.lines
    assert list(line.get_ydata()) == pytest.approx([0.3, 0.6])
    assert line.get_label() == "a" and len(points) == 2
    assert list(points[0].get_ydata()) == [0.2, 0.4]
    assert list(points[0].get_xdata()) == [1, 1]


def test_mark_interval_takes_one_interval_or_a_table_of_them():
    axes = Figure().subplots()
    base.mark_interval(axes, 3, Interval(0.5, 0.4, 0.7), "red")
    table = pd.DataFrame({"value": [1, 2], "low": [0, 1], "high": [3, 4]})
    base.mark_interval(axes, [0, 1], table, "red", marker="s")
    one, two = axes.collections
    assert one.get_segments()[0].tolist() == [[0.4, 3], [0.7, 3]]
    assert [bar.tolist() for bar in two.get_segments()] == [
        [[0, 0], [3, 0]],
        [[1, 1], [4, 1]],
    ]
    dots = [line.get_xydata().tolist() for line in axes.lines]
    assert dots == [[[0.5, 3]], [[1, 0], [2, 1]]]


def test_name_rows_counts_from_the_top():
    axes = Figure().subplots()
    base.name_rows(axes, ["first", "second"], above=0.7)
    assert axes.get_ylim() == (1.5, -0.7)
    assert [t.get_text() for t in axes.get_yticklabels()] == ["first", "second"]


def test_count_axis_writes_each_count_in_full():
    axes = Figure().subplots()
    base.count_axis(axes, [250, 8000])
    assert axes.get_xscale() == "log"
    assert [t.get_text() for t in axes.get_xticklabels()] == ["250", "8,000"]
    assert not list(axes.get_xticks(minor=True))


def test_a_reference_line_is_named_only_where_it_should_be():
    axes = Figure().subplots()
    base.reference_line(axes, "teacher", 0.9)
    base.reference_line(axes, "student base", 0.2, named=False)
    assert [text.get_text() for text in axes.texts] == ["teacher"]
    assert [line.get_ydata()[0] for line in axes.lines] == [0.9, 0.2]
    roles = [plots.COLOURS["teacher"], plots.COLOURS["baseline"]]
    assert [line.get_color() for line in axes.lines] == roles
