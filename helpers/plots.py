"""Every figure of the course: one function each, one style file, one colour per role.

Figures are built without pyplot, so nothing is drawn twice and no state is kept; `show`
is the one way to display them, and it asks for a text that says what the picture shows.
"""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from IPython.display import display
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# After Okabe and Ito (2008), their green darkened: beside grey it looks grey to readers
# who see no red or no green. All four stand out on white.
COLOURS = {
    "teacher": "#0072B2",
    "student": "#D55E00",
    "baseline": "#808080",
    "gold": "#00523C",
}
STYLE = Path(__file__).with_name("course.mplstyle")


# ---------------------------------------------------------------- showing figures


def use_style() -> None:
    """Draw all later figures in the style of the course."""
    style.use(STYLE)


def png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def show(figure: Figure, alt: str) -> None:
    """Display a figure as PNG and print `alt`, the finding in words, as its caption.

    The same text is stored as `metadata["image/png"]["alt"]`, for readers who hear the
    page rather than see it. Raises `ValueError` where it is too short to say anything.
    """
    if len(alt.split()) < 5:
        raise ValueError(f"alt text {alt!r}: say in a sentence what the figure shows")
    width, height = (round(inches * 100) for inches in figure.get_size_inches())
    data = {"image/png": base64.b64encode(png(figure)).decode()}
    metadata = {"alt": alt, "width": width, "height": height}
    display(data, metadata={"image/png": metadata}, raw=True)
    print(alt)


def show_slider(
    draw: Callable[[float], Figure], values: Sequence[float], value: float, name: str
) -> None:
    """Display a slider called `name` over `values`; `draw` makes the figure for each.

    The stored notebook keeps a sentence in its place, so follow it by a static figure.
    """
    import ipywidgets as widgets  # only figures that move need it

    slider = widgets.SelectionSlider(
        options=[(f"{v:g}", v) for v in values], value=value, description=name
    )
    image = widgets.Image(value=png(draw(value)), format="png", width=700)
    slider.observe(
        lambda change: setattr(image, "value", png(draw(change.new))), "value"
    )
    data = widgets.VBox([slider, image])._repr_mimebundle_()
    data["text/plain"] = f"A slider: run this cell, then move the {name}."
    display(data, raw=True)


# ---------------------------------------------------------------- parts of figures


def _title(figure: Figure, text: str) -> None:
    """The finding, above all panels, flush left like the titles of single panels."""
    figure.suptitle(text, x=0.01, ha="left")


def seed_points(
    axes: Axes, groups: Mapping[str, Sequence[float]], colours: Sequence[str]
) -> None:
    """One row per group: every seed as a point, their mean as a bar across."""
    for row, (values, colour) in enumerate(zip(groups.values(), colours, strict=True)):
        # Points are moved apart a little, so that equal values stay visible.
        heights = row + np.linspace(-0.15, 0.15, len(values))
        axes.plot(values, heights, "o", color=colour, alpha=0.8, clip_on=False)
        axes.vlines(np.mean(values), row - 0.3, row + 0.3, color=colour, clip_on=False)
    axes.set_yticks(range(len(groups)), groups)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


# ---------------------------------------------------------------- 04, soft targets


def digit_row(images: np.ndarray, captions: Sequence[str], title: str) -> Figure:
    """Images (n, 8, 8) side by side, each over its caption."""
    figure = Figure(figsize=(7, 1.35))
    panels = figure.subplots(1, len(images))
    for axes, image, caption in zip(panels, images, captions, strict=True):
        axes.imshow(image)
        axes.set(xticks=[], yticks=[])
        axes.set_xlabel(caption)
        axes.spines[:].set_visible(False)
    _title(figure, title)
    return figure


def temperature_bars(
    image: np.ndarray, label: int, logits: np.ndarray, temperatures: Sequence[float]
) -> Figure:
    """A digit (8, 8) beside the teacher's answer (10,) at each temperature."""
    figure = Figure(figsize=(7, 2.8))
    _title(figure, "Temperature brings out what the teacher also considered")
    panels = figure.subplots(1, 1 + len(temperatures))
    panels[0].imshow(image)
    panels[0].set(xticks=[], yticks=[])
    panels[0].set_title(f"label: {label}", color=COLOURS["gold"])
    panels[0].spines[:].set_visible(False)
    for axes, temperature in zip(panels[1:], temperatures, strict=True):
        weights = np.exp((logits - logits.max()) / temperature)
        colours = [COLOURS["teacher"]] * len(logits)
        colours[label] = COLOURS["gold"]
        axes.bar(range(len(logits)), weights / weights.sum(), color=colours)
        axes.set(ylim=(0, 1), title=f"T = {temperature:g}", xlabel="digit")
        axes.set_xticks(range(len(logits)), range(len(logits)), fontsize=7)
        if axes is not panels[1]:
            axes.set_yticklabels([])
    panels[1].set_ylabel("probability")
    return figure


def gradient_norms(
    temperatures: Sequence[float], plain: Sequence[float], scaled: Sequence[float]
) -> Figure:
    """Size of the soft loss's gradient against T, without and with the factor T²."""
    figure = Figure(figsize=(6, 3.2))
    axes = figure.subplots()
    lines = [("with T²", scaled, "student"), ("without T²", plain, "baseline")]
    for name, norms, role in lines:
        axes.loglog(temperatures, norms, "o-", color=COLOURS[role])
        middle = len(norms) // 2
        axes.annotate(
            name, (temperatures[middle], norms[middle]), (6, 8),
            textcoords="offset points", color=COLOURS[role],
        )  # fmt: skip
    axes.set(
        xlabel="temperature T", ylabel="gradient norm per example",
        title="Without T², a warmer loss is a weaker loss",
    )  # fmt: skip
    axes.set_xticks(temperatures, [f"{t:g}" for t in temperatures])
    axes.minorticks_off()
    axes.set_ylim(top=5 * max(scaled))  # room for the label of the upper line
    return figure


def two_peaks(
    grid: np.ndarray, target: np.ndarray, fits: Mapping[str, np.ndarray]
) -> Figure:
    """A target with two peaks, and in each panel a single bell fitted to it."""
    figure = Figure(figsize=(7, 2.6))
    panels = figure.subplots(1, len(fits), sharey=True)
    for axes, (name, fit) in zip(panels, fits.items(), strict=True):
        axes.fill_between(grid, target, color=COLOURS["teacher"], alpha=0.3, lw=0)
        axes.plot(grid, fit, color=COLOURS["student"])
        axes.set(title=name, xlabel="outcome", yticks=[])
    panels[0].set_ylabel("probability")
    panels[0].set_ylim(bottom=0)
    panels[0].annotate("teacher", (0.04, 0.6), xycoords="axes fraction",
                       color=COLOURS["teacher"])  # fmt: skip
    panels[-1].annotate("student", (0.96, 0.85), xycoords="axes fraction", ha="right",
                        color=COLOURS["student"])  # fmt: skip
    return figure


def withheld_digit(
    plain: Mapping[str, Sequence[float]],
    fixed: Mapping[str, Sequence[float]],
    teacher: float,
) -> Figure:
    """Accuracy on a digit no student ever saw, before and after the bias fix.

    Each group of students has one accuracy per seed; `teacher` is the teacher's own.
    """
    figure = Figure(figsize=(7, 2.8))
    colours = [COLOURS["baseline"], *[COLOURS["student"]] * (len(plain) - 1)]
    _title(figure, "Soft targets teach a digit that the student never saw")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, groups, name in zip(
        panels, (plain, fixed), ("as trained", "one bias fixed"), strict=True
    ):
        seed_points(axes, groups, colours)
        axes.axvline(teacher, color=COLOURS["teacher"], ls=":", lw=1.5)
        axes.set(xlim=(0, 1), title=name, xlabel="accuracy on the withheld digit")
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
        axes.grid(axis="x")
    panels[0].annotate(
        "teacher ", (teacher, 0), ha="right", va="center", color=COLOURS["teacher"]
    )
    return figure


def next_token_bars(
    tokens: Sequence[str], teacher: np.ndarray, student: np.ndarray
) -> Figure:
    """Probabilities (n,) of the same n next tokens under teacher and student."""
    figure = Figure(figsize=(6, 3.0))
    axes = figure.subplots()
    rows = np.arange(len(tokens))
    axes.barh(rows - 0.2, teacher, 0.38, color=COLOURS["teacher"], label="teacher")
    axes.barh(rows + 0.2, student, 0.38, color=COLOURS["student"], label="student base")
    axes.set_yticks(rows, [repr(token) for token in tokens], family="monospace")
    axes.invert_yaxis()
    axes.set(
        xlabel="probability of the next token",
        title="Where the teacher hesitates, several words are right",
    )
    axes.legend(loc="lower right")
    return figure
