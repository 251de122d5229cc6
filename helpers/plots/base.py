"""What all figures share: style, a colour per role, how to show them, common marks.

Figures are built without pyplot, so nothing is drawn twice and no state is kept; `show`
is the one way to display them, and it asks for a text that says what the picture shows.
"""

import base64
import io
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from IPython.display import display
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from pandas import DataFrame

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


class Interval(Protocol):
    """A value and the ends of its interval, as `evaluate.Interval` has them."""

    @property
    def value(self) -> float: ...

    @property
    def low(self) -> float: ...

    @property
    def high(self) -> float: ...


def role_of(model: str) -> str:
    """The role whose colour a model of this name has."""
    if "teacher" in model:
        return "teacher"
    return "baseline" if "base" in model or "undistilled" in model else "student"


def headline(figure: Figure, text: str) -> None:
    """The finding, above all panels, flush left like the titles of single panels."""
    figure.suptitle(text, x=0.01, ha="left")


def name_rows(
    axes: Axes, names: Collection[str], above: float = 0.5, below: float = 0.5, **font
) -> None:
    """Rows from the top down, at 0, 1, …, a name for each; `above` and `below` are
    the room that the first and the last one have."""
    axes.set_yticks(range(len(names)), names, **font)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(names) - 1 + below, -above)


def count_axis(axes: Axes, counts: Sequence[int]) -> None:
    """A logarithmic axis below, with ticks at these counts alone."""
    axes.set_xscale("log")
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.minorticks_off()


def mark_interval(
    axes: Axes,
    row: ArrayLike,
    interval: Interval | DataFrame,
    colour: str,
    lw: float | None = None,
    capstyle: str = "butt",
    marker: str = "o",
    **dot,
) -> None:
    """A dot at the value and a bar from low to high; many at once where `row` is an
    array and `interval` a table with these columns. `dot` goes to the dots alone."""
    ends = interval.low, interval.high
    axes.hlines(row, *ends, color=colour, lw=lw, capstyle=capstyle)
    axes.plot(interval.value, row, marker, color=colour, **dot)


def seed_points(
    axes: Axes, groups: Mapping[str, Sequence[float]], colours: Sequence[str]
) -> None:
    """One row per group: every seed as a point, their mean as a bar across."""
    for row, (values, colour) in enumerate(zip(groups.values(), colours, strict=True)):
        # Points are moved apart a little, so that equal values stay visible.
        heights = row + np.linspace(-0.15, 0.15, len(values))
        axes.plot(values, heights, "o", color=colour, alpha=0.8, clip_on=False)
        axes.vlines(np.mean(values), row - 0.3, row + 0.3, color=colour, clip_on=False)
    name_rows(axes, groups)


def seed_line(
    axes: Axes,
    places: Sequence[float],
    seeds: Iterable[Sequence[float]],
    look: str,
    colour: str,
    ms: float = 5,
    clip_on: bool = True,
    **line,
) -> None:
    """A line through the means of each place's seeds, and every seed as a point; `line`
    goes to the line alone."""
    seeds = list(seeds)
    axes.plot(places, [np.nanmean(s) for s in seeds], look, color=colour, **line)
    for place, values in zip(places, seeds, strict=True):
        axes.plot([place] * len(values), values, ".", ms=ms, alpha=0.5, color=colour,
                  clip_on=clip_on)  # fmt: skip


def reference_line(axes: Axes, name: str, value: float, named: bool = True) -> None:
    """A dotted line across for a model to compare with, and its name at the right."""
    colour = COLOURS[role_of(name)]
    axes.axhline(value, color=colour, lw=1.5, ls=(0, (1, 1)))
    if named:
        axes.annotate(name, (1, value), (0, 3), color=colour, fontsize=8, ha="right",
                      xycoords=axes.get_yaxis_transform(),
                      textcoords="offset points")  # fmt: skip
