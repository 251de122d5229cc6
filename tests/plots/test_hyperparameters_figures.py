"""Figures of the hyperparameters: what is drawn is what was given."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from helpers import plots

TITLE = "A title that states the finding"


@pytest.fixture(autouse=True)
def _style():
    plots.use_style()


def texts(figure: Figure) -> str:
    """All that is written in a figure, axes included."""
    figure.canvas.draw()
    found = [figure._suptitle.get_text()] if figure._suptitle else []
    for axes in figure.axes:
        found += [t.get_text() for t in axes.texts]
        found += [axes.get_title(loc="left"), axes.get_xlabel(), axes.get_ylabel()]
        found += [t.get_text() for t in axes.get_yticklabels()]
    return "\n".join(found)


def lines_of(axes, role: str) -> list[np.ndarray]:
    """The heights of the drawn lines of a role's colour."""
    colour = to_rgb(plots.COLOURS[role])
    return [
        np.asarray(line.get_ydata(), dtype=float)
        for line in axes.lines
        if to_rgb(line.get_color()) == colour and line.get_linestyle() != "None"
    ]


def points_of(axes) -> list[float]:
    """The heights of single points, in the order in which they were drawn."""
    points = [line for line in axes.lines if line.get_marker() == "."]
    return [float(y) for line in points for y in line.get_ydata()]


def test_first_step_draws_both_ways():
    figure = plots.first_step([64, 256], {"full": [50, 200], "LoRA": [15, 14]})
    full, lora = lines_of(figure.axes[0], "student")
    np.testing.assert_array_equal(full, [50, 200])
    np.testing.assert_array_equal(lora, [15, 14])
    assert {"full", "LoRA"} <= set(texts(figure).split("\n"))


def test_gradient_noise_is_held_against_the_root_of_the_batch():
    figure = plots.gradient_noise([4, 16, 64], [2.0, 1.1, 0.4])
    (expected,) = lines_of(figure.axes[0], "baseline")
    np.testing.assert_allclose(expected, [2, 1, 0.5])
    measured = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    np.testing.assert_array_equal(measured[0].get_ydata(), [2.0, 1.1, 0.4])


@pytest.fixture
def rates():
    rows = [
        (way, rate, seed, height + seed / 100)
        for way, heights in (("LoRA", (0.5, 0.8)), ("full", (0.7, 0.1)))
        for rate, height in zip((1e-3, 1e-2), heights, strict=True)
        for seed in range(3)
    ]
    return pd.DataFrame(rows, columns=["way", "learning_rate", "seed", "validation"])


def test_learning_rates_draws_the_mean_and_every_seed(rates):
    figure = plots.learning_rates(rates, 0.5, TITLE)
    lora, full = lines_of(figure.axes[0], "student")
    np.testing.assert_allclose([*lora, *full], [0.51, 0.81, 0.71, 0.11])
    np.testing.assert_allclose(points_of(figure.axes[0]), rates["validation"])
    (base,) = lines_of(figure.axes[0], "baseline")
    assert set(base) == {0.5} and TITLE in texts(figure)
    marks = {t.get_text(): t.xy for t in figure.axes[0].texts}
    assert marks["LoRA"] == pytest.approx((1e-2, 0.81))  # at the best of each way
    assert marks["full"] == pytest.approx((1e-3, 0.71))


def test_batch_sizes_has_a_panel_for_each_way():
    rows = [
        (way, size, seed, size / 200)
        for way in ("equal steps", "equal examples")
        for size in (128, 8)
        for seed in range(2)
    ]
    table = pd.DataFrame(rows, columns=["way", "batch_size", "seed", "validation"])
    figure = plots.batch_sizes(table, TITLE)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["equal steps", "equal examples"] and TITLE in texts(figure)
    for axes in figure.axes:
        (line,) = lines_of(axes, "student")
        np.testing.assert_allclose(line, [8 / 200, 128 / 200])


def test_over_fitting_marks_the_chosen_step():
    table = pd.DataFrame(
        {"train": [1.0, 0.5, 0.1], "validation": [1.0, 0.8, 1.2], "right": [0.5] * 3},
        index=[20, 40, 60],
    )
    figure = plots.over_fitting(table, 40, TITLE)
    left, right = figure.axes
    np.testing.assert_array_equal(lines_of(left, "gold")[0], table["train"])
    np.testing.assert_array_equal(lines_of(left, "student")[0], table["validation"])
    np.testing.assert_array_equal(lines_of(right, "student")[0], table["right"])
    for axes in figure.axes:
        assert list(axes.lines[-1].get_xdata()) == [40, 40]
    assert left.get_ylim()[1] > 1.2 and "step 40" in texts(figure)


def test_optimism_draws_two_histograms_and_their_means():
    reported, honest = np.array([0.8, 0.9, 1.0]), np.array([0.7, 0.7, 0.76])
    figure = plots.optimism(reported, honest, TITLE)
    axes = figure.axes[0]
    assert sum(bar.get_height() for bar in axes.patches) == 6
    means = [line.get_xdata()[0] for line in axes.lines]
    np.testing.assert_allclose(sorted(means), [0.72, 0.9])
    assert "on other prompts" in texts(figure) and "that chose it" in texts(figure)


def test_the_map_writes_every_number_and_frames_what_is_tied():
    values = pd.DataFrame([[0.81, 0.7], [0.8, 0.42]], [0.5, 1.0], [1.0, 4.0])
    tied = pd.DataFrame([[True, False], [True, False]], [0.5, 1.0], [1.0, 4.0])
    figure = plots.knob_map(values, tied, 0.66, TITLE)
    axes = figure.axes[0]
    places = {t.get_text(): t.get_position() for t in axes.texts}
    assert places == {"0.81": (0, 0), "0.70": (1, 0), "0.80": (0, 1), "0.42": (1, 1)}
    framed = [frame.get_center() for frame in axes.patches]
    np.testing.assert_allclose(framed, [(0, 0), (0, 1)])
    assert "0.66" in axes.get_xlabel() and axes.get_title(loc="left") == TITLE


def test_a_map_s_numbers_stand_out_from_their_cells():
    values = pd.DataFrame([np.linspace(0.2, 0.9, 12)])
    figure = plots.knob_map(values, values < 0, 0.2, TITLE)
    image = figure.axes[0].images[0]
    for text in figure.axes[0].texts:
        cell = np.array(image.cmap(image.norm(float(text.get_text()))))[:3]
        light = np.where(cell <= 0.04045, cell / 12.92, ((cell + 0.055) / 1.055) ** 2.4)
        light = light @ [0.2126, 0.7152, 0.0722]
        ink = {"white": 1.0, "black": 0.0}[text.get_color()]
        high, low = max(light, ink), min(light, ink)
        assert (high + 0.05) / (low + 0.05) >= 4.5  # WCAG 1.4.3, text


def test_progress_draws_a_curve_for_each_seed():
    curves = {
        "a": [([10, 20], [0.1, 0.4]), ([10, 30], [0.2, 0.3])],
        "b": [([5], [0.6])],
    }
    figure = plots.progress(curves, TITLE)
    heights = [[list(y) for y in lines_of(axes, "student")] for axes in figure.axes]
    assert heights == [[[0.1, 0.4], [0.2, 0.3]], [[0.6]]]
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a", "b"]


def test_ways_by_hand_have_the_baseline_s_colour():
    groups = {"by hand, 120 steps": [0.7, 0.8], "TPE": [0.9, 0.8]}
    figure = plots.ways_to_search(groups, TITLE)
    points = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    roles = [plots.COLOURS["baseline"], plots.COLOURS["student"]]
    assert [line.get_color() for line in points] == roles
    assert [list(line.get_xdata()) for line in points] == list(groups.values())
    assert all(name in texts(figure) for name in groups)
