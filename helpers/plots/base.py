"""Every figure of the course: one function each, one style file, one colour per role.

Figures are built without pyplot, so nothing is drawn twice and no state is kept; `show`
is the one way to display them, and it asks for a text that says what the picture shows.
"""

import base64
import io
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from IPython.display import display
from matplotlib import colors, style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
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


# ---------------------------------------------------------------- 00, the course

# column by column: (stage, role whose colour it has, (number, topic) of its notebooks)
COURSE = (
    ("Start", "baseline", (("00", "start here"), ("01", "why distil,\nwhich pair"))),
    ("Stage 1: data", "teacher", (("02", "synthetic\ndata"), ("03", "data\nquality"))),
    ("The loss", "teacher", (("04", "soft targets"),)),
    ("Stage 2: student", "student",
     (("05", "training"), ("06", "teacher\ncaches"), ("07", "LoRA"))),
    ("", "student",
     (("08", "hidden layers"), ("09", "on-policy,\nmany teachers"))),
    ("Measure", "gold", (("10", "evaluation"), ("11", "hyper-\nparameters"))),
    ("Use", "baseline", (("12", "deployment"), ("13", "case study"))),
)  # fmt: skip


def course_map(written: Collection[str]) -> Figure:
    """The notebooks by stage; those whose number is in `written` are filled."""
    figure = Figure(figsize=(8.4, 2.9))
    axes = figure.subplots()
    for x, (stage, role, notebooks) in enumerate(COURSE):
        colour = COLOURS[role]
        axes.text(x - 0.45, 0.62, stage, color=colour, weight="bold", fontsize=9)
        for y, (number, topic) in enumerate(notebooks):
            there = number in written
            axes.add_patch(
                FancyBboxPatch(
                    (x - 0.41, -y - 0.35), 0.82, 0.7, boxstyle="round,pad=0.03",
                    ec=colour, fc=(colour, 0.25 if there else 0.0), lw=2,
                    ls="-" if there else ":",
                )
            )  # fmt: skip
            axes.text(
                x, -y, f"{number}\n{topic}", ha="center", va="center", fontsize=8,
                color="#222222", weight="bold" if there else "normal", linespacing=1.15,
            )  # fmt: skip
    axes.set(xlim=(-0.55, len(COURSE) - 0.45), ylim=(-2.5, 0.8))
    axes.set_axis_off()
    total = sum(len(notebooks) for _, _, notebooks in COURSE)
    axes.set_title(f"{len(written)} of {total} notebooks are ready (filled), "
                   "the others are planned", loc="left", pad=10)  # fmt: skip
    return figure


# ---------------------------------------------------------------- 02, synthetic data


def batch_speed(speed: Mapping[int, float]) -> Figure:
    """Answers a second (values) against the number of prompts in a batch (keys)."""
    figure = Figure(figsize=(6, 2.8))
    axes = figure.subplots()
    sizes, rates = list(speed), list(speed.values())
    axes.plot(sizes, rates, "o-", color=COLOURS["teacher"], clip_on=False)
    for size, rate in speed.items():
        axes.annotate(f"{rate:.1f}", (size, rate), (0, 7), textcoords="offset points",
                      ha="center", color=COLOURS["teacher"])  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, sizes)
    axes.set(
        xlabel="prompts in a batch", ylabel="answers a second",
        title="The same answers, sooner", ylim=(0, 1.15 * max(rates)),
    )  # fmt: skip
    return figure


def sampling(
    temperatures: Sequence[float], different: np.ndarray, right: np.ndarray
) -> Figure:
    """Different answers and share of right ones, both (prompts, temperatures), against
    the sampling temperature: a thin line for each prompt, the mean as a thick one."""
    figure = Figure(figsize=(7, 2.8))
    panels = figure.subplots(1, 2)
    names = ("different answers to a prompt", "share of right answers")
    titles = ("Warmer draws vary more …", "… and are right less often")
    rows = zip(panels, (different, right), names, titles, strict=True)
    for axes, values, name, title in rows:
        colour = COLOURS["teacher"]
        axes.plot(temperatures, values.T, color=colour, alpha=0.25, lw=1, clip_on=False)
        axes.plot(temperatures, values.mean(0), "o-", color=colour, clip_on=False)
        axes.set(xlabel="sampling_temperature (0 is greedy)", ylabel=name, title=title)
        axes.set_xticks(temperatures, [f"{t:g}" for t in temperatures])
        axes.set_ylim(0, None)
    panels[1].set_ylim(0, 1)
    return figure


def best_of(shares: Mapping[str, Sequence[float]]) -> Figure:
    """Share of prompts with at least one right answer among 1, 2, … draws (values), a
    line for each way of drawing (keys)."""
    figure = Figure(figsize=(6, 2.8))
    axes = figure.subplots()
    for name, values in shares.items():
        draws = range(1, len(values) + 1)
        axes.plot(draws, values, "o-", color=COLOURS["teacher"], clip_on=False)
        axes.annotate(name, (1, values[0]), (-9, 0), textcoords="offset points",
                      ha="right", va="center", color=COLOURS["teacher"])  # fmt: skip
    longest = max(map(len, shares.values()))
    axes.set_xticks(range(1, longest + 1))
    axes.set(
        xlim=(1 - longest / 7, longest), ylim=(0, 1.05), xlabel="draws a prompt",
        ylabel="prompts with a right one", title="More draws, more prompts answered",
    )  # fmt: skip
    return figure


def bills(bills: DataFrame, title: str) -> Figure:
    """Money for what a teacher reads (column `read`) and writes (`written`), a bar for
    each row; the sum stands beside it."""
    figure = Figure(figsize=(7, 1.3 + 0.36 * len(bills)))
    axes = figure.subplots()
    places, total = np.arange(len(bills)), bills["read"] + bills["written"]
    colour, left = COLOURS["teacher"], 0
    for name, alpha in (("read", 1), ("written", 0.35)):
        axes.barh(places, bills[name], 0.7, left, color=colour, alpha=alpha, label=name)
        left = left + bills[name]
    for place, money in zip(places, total, strict=True):
        axes.annotate(f"{money:,.0f}", (money, place), (4, 0), va="center",
                      textcoords="offset points", fontsize=9)  # fmt: skip
    axes.set_yticks(places, bills.index)
    axes.tick_params(axis="y", length=0)
    axes.set(xlim=(0, 1.15 * total.max()), ylim=(len(bills) - 0.5, -0.5),
             xlabel="money, in the currency of the prices")  # fmt: skip
    axes.set_title(title, loc="left")
    axes.legend(title="tokens that are")
    return figure


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


def divergences(
    q: np.ndarray,
    values: Mapping[str, np.ndarray],
    gradients: Mapping[str, np.ndarray],
    teacher: float,
) -> Figure:
    """Each kind of divergence, and the size of its gradient, against the student's
    probability `q` of a word to which the teacher gives `teacher`."""
    figure = Figure(figsize=(7, 3.4))
    _title(figure, "Far from the teacher only forward KL keeps pulling")
    styles = ("-", "--")
    panels = figure.subplots(1, 2)
    for axes, curves, label in zip(
        panels,
        (values, {kind: np.abs(g) for kind, g in gradients.items()}),
        ("divergence, nats", "size of its gradient in the logit"),
        strict=True,
    ):
        for i, (kind, curve) in enumerate(curves.items()):
            colour = COLOURS[("student", "baseline", "gold")[i // 2]]
            axes.plot(q, curve, styles[i % 2], color=colour, label=kind, lw=1.8)
        axes.axvline(teacher, color=COLOURS["teacher"], ls=":", lw=1.5)
        axes.set(xlabel="student's probability of the word", ylabel=label)
        axes.set(xlim=(0, 1), ylim=(0, 2.4 if axes is panels[0] else 1))
    panels[0].annotate("teacher ", (teacher, 2.2), ha="right", color=COLOURS["teacher"])
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
    return figure


def precision(
    divergence: Sequence[float], errors: Mapping[str, Sequence[float]]
) -> Figure:
    """Relative error of a gradient against the KL that is left, one line a way to
    compute it; training goes from left to right."""
    figure = Figure(figsize=(7, 2.8))
    axes = figure.subplots()
    colours = [COLOURS[role] for role in ("baseline", "student", "teacher")]
    for (name, line), colour in zip(errors.items(), colours, strict=True):
        axes.plot(divergence, line, "o-", color=colour)
        above = line[-1] == max(values[-1] for values in errors.values())
        place, side = (divergence[-1], line[-1]), "bottom" if above else "top"
        axes.annotate(f" {name}", place, va=side, color=colour)
    axes.set(xscale="log", yscale="log", ylabel="relative error of the gradient",
             xlabel="KL to the teacher, nats; training goes to the right",
             title="The better the student, the worse its gradient")  # fmt: skip
    axes.set_xlim(2 * max(divergence), min(divergence) / 60)
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


# ---------------------------------------------------------------- 07, LoRA

# The parts of `ledger.Ledger`; what grows with the *trained* parameters has the
# student's colour.
LEDGER = {
    "weights": (COLOURS["baseline"], 0.5),
    "teacher": (COLOURS["teacher"], 0.6),
    "adapters": (COLOURS["student"], 1.0),
    "gradients": (COLOURS["student"], 0.7),
    "optimiser": (COLOURS["student"], 0.4),
    "activations": ("#CC79A7", 0.8),
    "loss head": ("#CC79A7", 0.4),
}


def memory_ledger(
    ledgers: Mapping[str, Mapping[str, float]], cards: Sequence[float], title: str
) -> Figure:
    """A bar for each training step, made of the parts of its `ledger.Ledger` in bytes;
    a line for each GPU memory in `cards`, in GiB."""
    figure = Figure(figsize=(7, 1.6 + 0.5 * len(ledgers)))
    axes = figure.subplots()
    totals = [sum(parts.values()) / 2**30 for parts in ledgers.values()]
    labels = {part: part for part in LEDGER}  # each stands in the legend once
    for row, (parts, total) in enumerate(zip(ledgers.values(), totals, strict=True)):
        left = 0.0
        for part, (colour, alpha) in LEDGER.items():
            size = parts.get(part, 0) / 2**30
            axes.barh(row, size, 0.6, left, color=colour, alpha=alpha,
                      label=labels.pop(part, None) if size else None)  # fmt: skip
            left += size
        axes.annotate(f"{total:.1f}", (total, row), (5, 0), va="center", fontsize=9,
                      textcoords="offset points", zorder=3,
                      bbox={"fc": "white", "ec": "none", "pad": 1})  # fmt: skip
    for size in cards:
        axes.axvline(size, color="black", lw=1, ls=":", zorder=2)
        axes.annotate(f"{size:g} GB", (size, len(ledgers) - 0.55), (3, 0),
                      textcoords="offset points", fontsize=8)  # fmt: skip
    axes.set_yticks(range(len(ledgers)), ledgers)
    axes.tick_params(axis="y", length=0)
    axes.set(xlim=(0, 1.12 * max(*totals, *cards)), ylim=(len(ledgers) - 0.3, -0.5),
             title=title, xlabel="GiB")  # fmt: skip
    figure.legend(loc="outside lower center", ncols=4, fontsize=8)
    return figure


def starts(losses: Mapping[str, Sequence[float]]) -> Figure:
    """The loss (values) step by step, one line per way to start A and B (keys)."""
    figure = Figure(figsize=(6, 2.8))
    axes = figure.subplots()
    colours = (COLOURS["student"], COLOURS["baseline"], "#CC79A7")
    for (name, values), colour in zip(losses.items(), colours, strict=True):
        axes.semilogy(values, color=colour)
        axes.annotate(name, (len(values) - 1, values[-1]), (5, 0), va="center",
                      textcoords="offset points", color=colour)  # fmt: skip
    steps = max(map(len, losses.values()))
    axes.set(xlabel="step", ylabel="squared error", xlim=(0, 1.35 * steps),
             title="From two zeros nothing is learnt")  # fmt: skip
    axes.set_xticks(range(0, steps + 1, steps // 3))
    return figure


def rank_error(
    ranks: Sequence[int], trained: Sequence[float], floor: Sequence[float]
) -> Figure:
    """What is left of a wanted change after training at each rank, and by theory."""
    figure = Figure(figsize=(6, 2.8))
    axes = figure.subplots()
    axes.semilogy(ranks, floor, color=COLOURS["baseline"], zorder=1)
    axes.scatter(ranks, trained, 40, color=COLOURS["student"], zorder=2)
    axes.annotate("best possible, by singular values", (ranks[0], floor[0]), (12, -1),
                  textcoords="offset points", color=COLOURS["baseline"])  # fmt: skip
    axes.annotate("trained", (ranks[-1], trained[-1]), (-12, -4), ha="right",
                  textcoords="offset points", color=COLOURS["student"])  # fmt: skip
    axes.set(xlabel="rank", ylabel="share of the change missed",
             title="Rank r reaches r directions, not more")  # fmt: skip
    axes.set_xticks(ranks)
    axes.minorticks_off()
    return figure


def accuracy_bars(
    intervals: Mapping[str, object], roles: Sequence[str], title: str
) -> Figure:
    """An `evaluate.Interval` of accuracy per model, as a point with its interval."""
    figure = Figure(figsize=(7, 0.9 + 0.45 * len(intervals)))
    axes = figure.subplots()
    for row, (interval, role) in enumerate(zip(intervals.values(), roles, strict=True)):
        axes.plot([interval.low, interval.high], [row, row], color=COLOURS[role])
        axes.plot(interval.value, row, "o", color=COLOURS[role], clip_on=False)
        axes.annotate(f"{interval.value:.0%}", (interval.value, row), (0, 6),
                      textcoords="offset points", ha="center",
                      color=COLOURS[role])  # fmt: skip
    axes.set_yticks(range(len(intervals)), intervals)
    axes.tick_params(axis="y", length=0)
    axes.set(xlim=(0, 1), ylim=(len(intervals) - 0.5, -0.7), title=title,
             xlabel="accuracy on test prompts, with 95 % interval")  # fmt: skip
    axes.grid(axis="x")
    return figure


def step_memory(table: DataFrame) -> Figure:
    """Peak memory of a training step: a panel for each batch size, in it a bar for each
    method as measured, and a stroke where the ledger had predicted it.

    Columns: batch, method, predicted, measured, both in MB.
    """
    sizes, methods = table["batch"].unique(), table["method"].unique()
    figure = Figure(figsize=(7, 1.7 + 0.3 * len(methods)))
    _title(figure, "LoRA saves at a small batch, activations fill a large one")
    panels = figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
    places = np.arange(len(methods))
    for axes, size in zip(panels, sizes, strict=True):
        rows = table[table["batch"] == size].set_index("method").loc[methods]
        bars = axes.barh(places, rows["measured"], 0.6, color=COLOURS["student"],
                         alpha=0.6)  # fmt: skip
        axes.bar_label(bars, fmt="{:.1f}", padding=8)
        axes.vlines(rows["predicted"], places - 0.4, places + 0.4, color="black", lw=2)
        axes.set(title=f"batch of {size}", xlabel="peak of a step, MB",
                 xlim=(0, 1.25 * table.loc[table["batch"] == size, "measured"].max()),
                 ylim=(len(methods) - 0.5, -0.5))  # fmt: skip
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(places, methods)
    stroke = panels[0].collections[0]
    figure.legend([bars[0], stroke], ["measured", "predicted by the ledger"],
                  loc="outside lower center", ncols=2)  # fmt: skip
    return figure


def recorded_lora(groups: Mapping[str, Sequence[float]], title: str) -> Figure:
    """Accuracy of each way to train, every seed as a point and the mean as a stroke.

    Ways whose name begins with "full" have the colour of the baseline.
    """
    figure = Figure(figsize=(7, 1.0 + 0.38 * len(groups)))
    axes = figure.subplots()
    roles = ["baseline" if name.startswith("full") else "student" for name in groups]
    seed_points(axes, groups, [COLOURS[role] for role in roles])
    axes.set(xlabel="right answers on test (the axis does not start at 0)", title=title)
    axes.grid(axis="x")
    return figure


def rounded_update(
    sizes: Sequence[float], survives: Sequence[float], here: float
) -> Figure:
    """The share of an update that is left when the sum is rounded to 4 bits, against
    the update's size relative to the weight; `here`: the size of a real one."""
    figure = Figure(figsize=(6, 2.8))
    axes = figure.subplots()
    axes.semilogx(sizes, survives, "o-", color=COLOURS["student"], clip_on=False)
    axes.axvline(here, color=COLOURS["baseline"], ls=":", lw=1.5)
    axes.annotate("our adapter ", (here, 0.05), ha="right", color=COLOURS["baseline"])
    axes.set_xticks(sizes, [f"{size:.1%}" for size in sizes])
    axes.minorticks_off()
    axes.set(xlabel="size of the update, as a share of the weight's",
             ylabel="share that survives", ylim=(0, 1.1),
             title="Four bits swallow a small update")  # fmt: skip
    return figure


# ---------------------------------------------------------------- 10, evaluation


ROLES = {
    "teacher": "teacher",
    "student base": "baseline",
    "distilled student": "student",
}


def accuracy_by_task(
    intervals: Mapping[str, Mapping[str, tuple]], title: str
) -> Figure:
    """Accuracy and interval: model -> task -> (value, low, high), a row a task."""
    tasks = list(next(iter(intervals.values())))
    figure = Figure(figsize=(7, 0.9 + 0.5 * len(tasks)))
    axes = figure.subplots()
    for offset, (model, by_task) in zip(
        (0.22, 0, -0.22), intervals.items(), strict=True
    ):
        colour = COLOURS[ROLES[model]]
        rows = np.arange(len(tasks)) - offset
        values, lows, highs = np.array([by_task[task] for task in tasks]).T
        axes.hlines(rows, lows, highs, color=colour, lw=1.5)
        axes.plot(values, rows, "o", color=colour, label=model)
    axes.set_yticks(range(len(tasks)), tasks)
    axes.tick_params(axis="y", length=0)
    axes.set(xlim=(-0.02, 1.02), ylim=(len(tasks) - 0.4, -0.6), title=title,
             xlabel="share of right answers (95 % interval)")  # fmt: skip
    axes.grid(axis="x")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def kept_and_saved(
    accuracy: Mapping[str, tuple], costs: Mapping[str, float], title: str
) -> Figure:
    """The lap in one picture: what was kept, and what is left of each cost.

    accuracy: model -> (value, low, high); costs: name -> student as a share of teacher.
    """
    figure = Figure(figsize=(8, 2.9))
    _title(figure, title)
    left, right = figure.subplots(1, 2)
    for row, (model, (value, low, high)) in enumerate(accuracy.items()):
        colour = COLOURS[ROLES[model]]
        left.barh(row, value, 0.6, color=colour)
        left.hlines(row, low, high, color="black", lw=1.5)
        left.annotate(f"{value:.0%}", (0.02, row), va="center", color="white",
                      fontweight="bold")  # fmt: skip
    left.set_yticks(range(len(accuracy)), accuracy)
    left.set(xlim=(0, 1), ylim=(len(accuracy) - 0.5, -0.5),
             xlabel="right answers on test (95 % interval)")  # fmt: skip
    for row, share in enumerate(costs.values()):
        right.barh(row, 1, 0.6, color=COLOURS["teacher"], alpha=0.25)
        right.barh(row, share, 0.6, color=COLOURS["student"])
        right.annotate(f"{share:.0%} of the teacher's", (share, row), (4, 0),
                       va="center", textcoords="offset points")  # fmt: skip
    right.set_yticks(range(len(costs)), costs)
    right.set(xlim=(0, 1), ylim=(len(costs) - 0.5, -0.5), xticks=[])
    right.set_xlabel("what the distilled student still costs")
    for axes in (left, right):
        axes.tick_params(axis="y", length=0)
    return figure


def small_samples(shares: Mapping[int, Sequence[float]], truth: float) -> Figure:
    """Retention measured on many random samples of each size, against that of all."""
    figure = Figure(figsize=(6, 2.6))
    axes = figure.subplots()
    rng = np.random.default_rng(0)
    for row, values in enumerate(shares.values()):
        heights = row + rng.uniform(-0.25, 0.25, len(values))
        axes.plot(values, heights, "o", ms=3, alpha=0.4, color=COLOURS["student"])
    axes.axvline(truth, color="black", lw=1, ls=":")
    axes.set_yticks(range(len(shares)), [f"{size} examples" for size in shares])
    axes.set(ylim=(len(shares) - 0.5, -0.5), xlabel="retention measured on a sample",
             title="Few examples show whatever chance wants")  # fmt: skip
    axes.tick_params(axis="y", length=0)
    return figure


def three_seeds(groups: Mapping[str, Sequence[float]], references: Mapping) -> Figure:
    """Accuracy of each way of teaching, a point a seed; dotted lines for references.

    Ways whose name ends in "labels" have the colour of gold, the others the student's.
    """
    figure = Figure(figsize=(7, 0.5 * len(groups) + 1.3))
    axes = figure.subplots()
    roles = ["gold" if name.endswith("labels") else "student" for name in groups]
    seed_points(axes, groups, [COLOURS[role] for role in roles])
    for name, value in references.items():
        colour = COLOURS[ROLES[name]]
        axes.axvline(value, color=colour, lw=1.5, ls=":")
        axes.annotate(f"{name} ", (value, -0.45), ha="right", va="top", color=colour)
    axes.set(xlim=(0, 1), xlabel="right answers on test",
             title="Ways to teach at equal budget, three seeds each")  # fmt: skip
    axes.grid(axis="x")
    return figure


# ---------------------------------------------------------------- 05, training

# Green learns from people, orange from the teacher; shape and dash say from what.
SOURCES = {
    "gold labels": ("gold", "o-"),
    "careless labels": ("gold", "v:"),
    "teacher's text": ("student", "s--"),
    "teacher's logits": ("student", "o-"),
    "mix": ("student", "^:"),
}
PARTS = {
    "prompt": ("#333333", "white"),
    "answer": (COLOURS["student"], "#FBE9DE"),
    "end": (COLOURS["gold"], "#DDEEE8"),
    "padding": (COLOURS["baseline"], "#EEEEEE"),
}


def token_labels(
    inputs: Sequence[str], labels: Sequence[str], parts: Sequence[str], first: int = 0
) -> Figure:
    """One row of a batch from top to bottom: what goes in at each position, its label
    ("" where it is -100), and what the logits there are asked for: the label below.

    parts: a key of `PARTS` for each position; `first`: the number of the first one.
    """
    figure = Figure(figsize=(7, 0.8 + 0.27 * len(inputs)))
    axes = figure.subplots()
    columns = {"position": -0.25, "input_ids": 0.1, "labels": 1.1,
               "target of the logits": 2.1}  # fmt: skip
    for name, x in columns.items():
        axes.text(x, -1, name, weight="bold", va="center", fontsize=9)

    def box(x: float, row: int, text: str, part: str) -> None:
        colour, filling = PARTS[part] if text else (COLOURS["baseline"], "white")
        patch = FancyBboxPatch((x, row - 0.34), 0.68, 0.68, ec="none", fc=filling,
                               boxstyle="round,pad=0.02")  # fmt: skip
        axes.add_patch(patch)
        axes.text(x + 0.03, row, text or "-100", color=colour, va="center",
                  fontsize=8, family="monospace")  # fmt: skip

    for row, (token, label, part) in enumerate(zip(inputs, labels, parts, strict=True)):
        axes.text(-0.15, row, first + row, va="center", fontsize=8)
        box(0.1, row, token, part)
        box(1.1, row, label, part)
        if row:  # the shift: this label belongs to the logits one position earlier
            box(2.1, row - 1, label, part)
            if label:
                axes.annotate("", (2.08, row - 1), (1.8, row), arrowprops={
                    "arrowstyle": "->", "color": PARTS[part][0]})  # fmt: skip
    axes.set(xlim=(-0.3, 2.9), ylim=(len(inputs) - 0.4, -1.5))
    axes.set_axis_off()
    _title(figure, "The label of the next position is the target of this one")
    return figure


def loss_curves(
    curves: Mapping[str, tuple[Sequence[float], str]], title: str
) -> Figure:
    """Loss against the step: name -> (values, role), the scale logarithmic."""
    figure = Figure(figsize=(6, 2.8))
    axes = figure.subplots()
    for name, (values, role) in curves.items():
        axes.semilogy(range(1, len(values) + 1), values, color=COLOURS[role])
        axes.annotate(name, (len(values), values[-1]), (5, 0), va="center",
                      textcoords="offset points", color=COLOURS[role])  # fmt: skip
    steps = max(len(values) for values, _ in curves.values())
    axes.set(xlabel="step", ylabel="loss, nats per token", xlim=(0, 1.4 * steps),
             title=title)  # fmt: skip
    axes.set_xticks(range(0, steps + 1, 20))
    return figure


def hesitation(
    tokens: Sequence[str], entropy: Sequence[float], others: Sequence[str]
) -> Figure:
    """Entropy of the teacher's next token at each place of an answer, with the words
    that it weighs (`others`, "" where it is sure)."""
    figure = Figure(figsize=(7, 0.9 + 0.22 * len(tokens)))
    axes = figure.subplots()
    rows = range(len(tokens))
    axes.barh(rows, entropy, 0.7, color=COLOURS["teacher"])
    for row, (value, words) in enumerate(zip(entropy, others, strict=True)):
        axes.annotate(words, (value, row), (5, 0), textcoords="offset points",
                      va="center", fontsize=8, color=COLOURS["teacher"])  # fmt: skip
    axes.set_yticks(rows, [repr(token) for token in tokens], family="monospace",
                    fontsize=8)  # fmt: skip
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="entropy of the teacher's next token, nats",
             xlim=(0, max(1.0, 2 * max(entropy))), ylim=(len(tokens) - 0.5, -0.5),
             title="The teacher hesitates at few tokens")  # fmt: skip
    return figure


def draws_needed(
    draws: Sequence[int], errors: Sequence[float], greedy: float
) -> Figure:
    """How far the mean gradient of n drawn labels is from that of the logits; `greedy`
    is that of the likeliest label, however often it is seen."""
    figure = Figure(figsize=(6, 2.8))
    axes = figure.subplots()
    rule = errors[0] * (np.array(draws) / draws[0]) ** -0.5
    axes.loglog(draws, rule, color=COLOURS["baseline"], ls=":")
    axes.loglog(draws, errors, "o-", color=COLOURS["teacher"])
    axes.annotate("1 / √n", (draws[3], rule[3]), (-8, -12), ha="right",
                  textcoords="offset points", color=COLOURS["baseline"])  # fmt: skip
    axes.axhline(greedy, color=COLOURS["student"], ls="--")
    axes.annotate("greedy text", (draws[-1], greedy), (0, 4), ha="right",
                  textcoords="offset points", color=COLOURS["student"])  # fmt: skip
    axes.set(xlabel="labels drawn from the teacher, n", ylabel="error of the gradient",
             title="One row of logits is worth many drawn labels")  # fmt: skip
    axes.set_xticks(draws, [f"{n:,}" for n in draws])
    axes.minorticks_off()
    return figure


def right_and_alike(
    intervals: Mapping[str, object],
    divergences: Mapping[str, float],
    roles: Sequence[str],
    title: str,
) -> Figure:
    """Two questions to the same models: an `evaluate.Interval` of accuracy on the left,
    KL(teacher || student) on the right; models without a divergence have no bar."""
    figure = Figure(figsize=(8, 0.9 + 0.4 * len(intervals)))
    _title(figure, title)
    left, right = figure.subplots(1, 2, sharey=True)
    for row, (name, interval) in enumerate(intervals.items()):
        colour = COLOURS[roles[row]]
        left.plot([interval.low, interval.high], [row, row], color=colour)
        left.plot(interval.value, row, "o", color=colour, clip_on=False)
        if name in divergences:
            bar = right.barh(row, divergences[name], 0.6, color=colour)
            right.bar_label(bar, fmt="{:.2f}", padding=3)
    left.set_yticks(range(len(intervals)), intervals)
    left.set(xlim=(0, 1), ylim=(len(intervals) - 0.5, -0.5),
             xlabel="right answers, 95 % interval")  # fmt: skip
    left.grid(axis="x")
    right.set(xlim=(0, 1.25 * max(divergences.values())),
              xlabel="KL(teacher || student), nats per token")  # fmt: skip
    for axes in (left, right):
        axes.tick_params(axis="y", length=0)
    return figure


def budgets(
    panels: Mapping[str, tuple[Mapping[str, Mapping], Mapping[str, float]]], title: str
) -> Figure:
    """Accuracy against the number of prompts: a panel for each test, holding
    method -> prompts -> accuracies (a point a seed, a line through the means), and the
    models to compare with as dotted lines."""
    figure = Figure(figsize=(8.4, 4.4))
    _title(figure, title)
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (test, (methods, references)) in zip(row, panels.items(), strict=True):
        for place, (method, by_prompts) in enumerate(methods.items()):
            role, look = SOURCES[method]
            # Side by side, so that no method hides another.
            aside = 1.05 ** (place - (len(methods) - 1) / 2)
            x = aside * np.array(list(by_prompts))
            means = [np.mean(values) for values in by_prompts.values()]
            axes.plot(x, means, look, color=COLOURS[role], lw=1.5, label=method)
            for where, values in zip(x, by_prompts.values(), strict=True):
                axes.plot([where] * len(values), values, ".", ms=4, alpha=0.5,
                          color=COLOURS[role], clip_on=False)  # fmt: skip
        for name, value in references.items():
            colour = COLOURS[ROLES[name]]
            axes.axhline(value, color=colour, lw=1.5, ls=(0, (1, 1)))
            if axes is row[0]:
                axes.annotate(name, (1, value), (0, 3), ha="right", color=colour,
                              xycoords=axes.get_yaxis_transform(), fontsize=8,
                              textcoords="offset points")  # fmt: skip
        axes.set_xscale("log")
        axes.set_xticks(list(by_prompts), [f"{n:,}" for n in by_prompts])
        axes.minorticks_off()
        axes.set(title=test, xlabel="prompts, each with one answer", ylim=(0, 1.04))
        axes.grid(axis="y")
    row[0].set_ylabel("right answers")
    handles, labels = row[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(handles))
    return figure


def divergence_kinds(
    right: Mapping[str, Sequence[float]],
    alike: Mapping[str, Sequence[float]],
    title: str,
) -> Figure:
    """Students of each divergence, a point a seed: accuracy on the left, and on the
    right how far from the teacher they are."""
    figure = Figure(figsize=(8, 1.0 + 0.34 * len(right)))
    _title(figure, title)
    names = ("right answers on test", "KL(teacher || student), nats per token")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, groups, name in zip(panels, (right, alike), names, strict=True):
        seed_points(axes, groups, [COLOURS["student"]] * len(groups))
        axes.set_xlabel(name)
        axes.grid(axis="x")
    # A little of the scale on both sides, so that small distances look small.
    low, high = panels[0].get_xlim()
    panels[0].set_xlim(max(0, low - 0.05), min(1, high + 0.05))
    panels[1].set_xlim(left=0)
    return figure


# ---------------------------------------------------------------- 06, caches, loss head


def cache_sizes(gigabytes: Mapping[str, float], disk: float) -> Figure:
    """Size of each kind of cache on a logarithmic axis, beside a disk of so many GB."""
    figure = Figure(figsize=(7, 1.2 + 0.35 * len(gigabytes)))
    axes = figure.subplots()
    values = list(gigabytes.values())
    bars = axes.barh(range(len(values)), values, 0.6, color=COLOURS["teacher"])
    axes.bar_label(
        bars, [f"{v:,.0f} GB" if v > 10 else f"{v:.1f} GB" for v in values], padding=3
    )
    axes.axvline(disk, color="black", lw=1, ls=":")
    axes.annotate(f"disk of {disk:,g} GB", (disk, len(values) - 0.6), (4, 0),
                  textcoords="offset points", fontsize=8)  # fmt: skip
    axes.set_xscale("log")
    axes.set_yticks(range(len(values)), gigabytes)
    axes.tick_params(axis="y", length=0)
    axes.set(xlim=(0.05, 30 * max(values)), ylim=(len(values) - 0.4, -0.5),
             xlabel="GB for ten million answer tokens, 151,936 words",
             title="Every probability kept: more than a disk holds")  # fmt: skip
    return figure


# What a loss makes of the words that a cache leaves out.
TAILS = {
    "full": ("teacher", "-"),
    "bucket": ("student", "-"),
    "sampled": ("student", ":"),
    "truncate": ("baseline", "-"),
    "renormalise": ("baseline", "--"),
}


def tail_treatments(
    masses: Mapping[str, Sequence[float]], kl: Mapping[str, float], truth: float
) -> Figure:
    """The mass that a student gives to the known words, step by step, `truth` being the
    teacher's; and how far from the teacher it ends."""
    figure = Figure(figsize=(8, 3))
    _title(figure, "Without a tail the student is over-confident")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for row, (name, (role, dash)) in enumerate(TAILS.items()):
        left.plot(masses[name], dash, color=COLOURS[role], label=name)
        right.barh(row, kl[name], 0.6, color=COLOURS[role])
        right.annotate(f"{kl[name]:.2f}", (kl[name], row), (3, 0), va="center",
                       textcoords="offset points")  # fmt: skip
    left.axhline(truth, color="black", lw=1, ls=":")
    left.annotate("the teacher's", (1, truth), (0, -10), ha="right",
                  xycoords=("axes fraction", "data"),
                  textcoords="offset points", fontsize=8)  # fmt: skip
    left.set(xlabel="step", ylabel="student's mass on the top words", ylim=(0, 1.02))
    left.legend(loc="center right", bbox_to_anchor=(1, 0.7), fontsize=8)
    right.set_yticks(range(len(TAILS)), TAILS)
    right.invert_yaxis()
    right.tick_params(axis="y", length=0)
    right.set(xlabel="KL(teacher || student), nats",
              xlim=(0, 1.25 * max(kl.values())))  # fmt: skip
    return figure


def cache_students(
    sizes: Mapping[str, float],
    divergences: Mapping[str, float],
    accuracy: Mapping[str, object],
) -> Figure:
    """Students by the signal they learnt from: its bytes a token, how far from the
    teacher they are, and an `evaluate.Interval` of accuracy."""
    figure = Figure(figsize=(8.4, 1.1 + 0.36 * len(sizes)))
    _title(figure, "Answers hide what the truncated student thinks")
    panels = figure.subplots(1, 3, sharey=True)
    names = ("bytes a token on the disk", "KL(teacher || student), nats",
             "right answers (95 % interval)")  # fmt: skip
    for row, name in enumerate(sizes):
        colour = COLOURS["baseline" if name == "truncated" else "student"]
        measures = (sizes[name], f"{sizes[name]:.0f}"), (divergences[name],
                    f"{divergences[name]:.2f}")  # fmt: skip
        for axes, (value, text) in zip(panels, measures, strict=False):
            axes.barh(row, value, 0.6, color=colour)
            axes.annotate(text, (value, row), (3, 0), va="center",
                          textcoords="offset points")  # fmt: skip
        interval = accuracy[name]
        panels[2].hlines(row, interval.low, interval.high, color=colour, lw=1.5)
        panels[2].plot(interval.value, row, "o", color=colour)
    for axes, name in zip(panels, names, strict=True):
        axes.set_xlabel(name)
        axes.set_xlim(0, 1.25 * axes.dataLim.xmax)
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(sizes)), sizes)
    panels[0].set_ylim(len(sizes) - 0.5, -0.5)
    panels[2].set_xlim(0, 1)
    panels[2].grid(axis="x")
    return figure


def passes(live: float, cached: float, written: float) -> Figure:
    """Time of a training against passes over the data, from the seconds of a pass with
    a live teacher, of one with a cache, and those that it takes to write the cache."""
    figure = Figure(figsize=(6, 2.8))
    axes = figure.subplots()
    n = np.arange(9)
    lines = {
        "live teacher": (0, live, "teacher"),
        "cache": (written, cached, "student"),
    }
    for name, (start, each, role) in lines.items():
        seconds = start + each * n
        axes.plot(n, seconds, color=COLOURS[role])
        axes.annotate(name, (n[-1], seconds[-1]), (6, 0), va="center",
                      color=COLOURS[role], textcoords="offset points",
                      annotation_clip=False)  # fmt: skip
    axes.set(xlabel="passes over the data", ylabel="seconds", xlim=(0, 9.8),
             title="A cache pays when the data are read again")  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.set_xticks(n)
    return figure


def head_memory(
    words: Sequence[int],
    peaks: Mapping[str, Mapping[int, float]],
    laws: Mapping[str, Sequence[float]],
) -> Figure:
    """Peak bytes of a loss head against the vocabulary: way -> words -> bytes measured,
    as points; way -> bytes by formula at each of `words`, as lines."""
    figure = Figure(figsize=(7, 3.4))
    axes = figure.subplots()
    looks = {
        "whole": ("baseline", "o"),
        "chunked": ("baseline", "^"),
        "fused": ("student", "o"),
    }
    for name, by_words in peaks.items():
        role, marker = looks[name]
        measured = [by_words[V] / 2**20 for V in by_words]
        axes.plot(list(by_words), measured, marker, color=COLOURS[role], ms=6)
        end = words[-1] if name in laws else list(by_words)[-1]
        height = laws[name][-1] / 2**20 if name in laws else measured[-1]
        axes.annotate(name, (end, height), (8, 0), va="center", color=COLOURS[role],
                      textcoords="offset points", annotation_clip=False)  # fmt: skip
    for name, values in laws.items():
        axes.plot(words, np.array(values) / 2**20, "--", lw=1.2, zorder=0,
                  color=COLOURS[looks[name][0]])  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(words, [f"{V:,}" for V in words])
    axes.minorticks_off()
    axes.set(xlabel="words in the vocabulary", ylabel="peak memory, MiB",
             xlim=(0.8 * words[0], 2 * words[-1]),
             title="Measured (points) and by formula (dashed lines)")  # fmt: skip
    axes.grid(axis="y")
    return figure


def recorded_heads(runs: DataFrame) -> Figure:
    """Peak memory and time of each route of the loss head, sizes one below the other.

    runs: a table with N, V, H_student, route, MiB and seconds.
    """
    sizes = list(runs.groupby(["N", "V", "H_student"], sort=False))
    headings, ticks, names, place = [], [], [], 0.0
    for size, group in sizes:
        place += 0.9  # room for the heading
        headings.append(
            (place - 0.75, "N = {:,.0f}, V = {:,.0f}, H = {:,.0f}".format(*size))
        )
        for route in group["route"]:
            ticks.append(place)
            names.append(route)
            place += 1
    colours = [COLOURS["student" if name == "fused" else "baseline"] for name in names]
    figure = Figure(figsize=(8, 0.9 + 0.26 * place))
    _title(figure, "The loss head at full size, forward and backward")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, column in zip(panels, ("MiB", "seconds"), strict=True):
        values = [v for _, group in sizes for v in group[column]]
        bars = axes.barh(ticks, values, 0.75, color=colours)
        axes.bar_label(bars, [f"{v:,.0f}" if v >= 10 else f"{v:.2f}" for v in values],
                       padding=3, fontsize=8)  # fmt: skip
        axes.set_xlim(0, 1.2 * max(values))
        axes.tick_params(axis="y", length=0)
    for height, heading in headings:
        panels[0].annotate(heading, (0, height), (2, 0), va="center", fontsize=8,
                           textcoords="offset points", fontweight="bold")  # fmt: skip
    panels[0].set_yticks(ticks, names)
    panels[0].set_ylim(place - 0.3, -0.2)
    panels[0].set_xlabel("peak above the inputs, MiB")
    panels[1].set_xlabel("seconds")
    return figure


# ---------------------------------------------------------------- 03, data quality


def funnel(table: DataFrame) -> Figure:
    """Rows left after each rule of a `quality.Funnel.table`; what the rule dropped is
    pale, and written beside the bar. Raises `ValueError` for a table without rules."""
    if table.empty:
        raise ValueError("a funnel without rules has nothing to draw")
    figure = Figure(figsize=(7, 1.1 + 0.32 * len(table)))
    axes = figure.subplots()
    left, dropped = table["left"].to_numpy(), table["dropped"].to_numpy()
    total = table["in"].iloc[0]
    colour, places = COLOURS["teacher"], np.arange(len(table))
    axes.barh(places, left, 0.7, color=colour)
    axes.barh(places, dropped, 0.7, left, color=colour, alpha=0.25)
    for place, (kept, out) in enumerate(zip(left, dropped, strict=True)):
        text = f"{kept:,} left" + (f", {out:,} dropped" if out else "")
        axes.annotate(text, (kept + out, place), (4, 0), va="center", fontsize=9,
                      textcoords="offset points")  # fmt: skip
    axes.set_yticks(places, table["rule"])
    axes.tick_params(axis="y", length=0)
    axes.set(xlim=(0, 1.45 * max(total, 1)), ylim=(len(table) - 0.5, -0.5),
             xlabel="rows")  # fmt: skip
    axes.set_title(f"{left[-1]:,} of {total:,} rows are kept")
    return figure


def vote_confidence(votes: DataFrame) -> Figure:
    """Share of right answers (`mean`) by the share of votes that they won (the index);
    beside each point how many answers it stands for (`count`)."""
    figure = Figure(figsize=(6, 2.8))
    axes = figure.subplots()
    axes.plot(votes.index, votes["mean"], "o-", color=COLOURS["teacher"], clip_on=False)
    for share, row in votes.iterrows():
        below = row["mean"] > 0.5
        axes.annotate(f"{row['count']:.0f} answers", (share, row["mean"]),
                      (0, -15 if below else 8), textcoords="offset points",
                      ha="center", fontsize=9)  # fmt: skip
    axes.set(xlim=(0, 1.1), ylim=(0, 1.05), ylabel="share that is right",
             xlabel="share of the draws that agree",
             title="The more draws agree, the safer the answer")  # fmt: skip
    return figure


# ---------------------------------------------------------------- 01, why distil


def weights_and_memory(
    gigabytes: Mapping[str, Mapping[int, float]], memory: Mapping[str, float]
) -> Figure:
    """Model -> bits a weight -> GB, as points on a line, the largest model last; a
    dotted line for the memory of each device."""
    figure = Figure(figsize=(8.4, 2.3 + 0.33 * len(gigabytes)))
    axes = figure.subplots()
    for row, by_bits in enumerate(gigabytes.values()):
        colour = COLOURS["teacher" if 2 * row >= len(gigabytes) else "student"]
        axes.plot(list(by_bits.values()), [row] * len(by_bits), "o-", color=colour)
        if row == len(gigabytes) - 1:
            for bits, size in by_bits.items():
                axes.annotate(f"{bits} bit", (size, row), (0, -13), fontsize=8,
                              ha="center", textcoords="offset points")  # fmt: skip
    for device, size in memory.items():
        axes.axvline(size, color="black", lw=1, ls=":")
        number = f"{size:,.0f}" if size >= 100 else f"{size:g}"
        axes.annotate(f"{device}, {number} GB", (size, 1), (-2, 4), rotation=50,
                      xycoords=("data", "axes fraction"), fontsize=8,
                      textcoords="offset points")  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.set_yticks(range(len(gigabytes)), gigabytes)
    axes.tick_params(axis="y", length=0)
    axes.set(ylim=(-0.5, len(gigabytes) - 0.3), xlabel="GB of weights")
    axes.set_title("Students fit where teachers do not", pad=95)
    return figure


def cache_growth(
    conversations: Sequence[int],
    gigabytes: Mapping[str, Sequence[float]],
    memory: float,
    title: str,
) -> Figure:
    """GB of weights and caches against the number of conversations at a time, teacher
    first, then student, below the memory of a card."""
    figure = Figure(figsize=(7, 3))
    axes = figure.subplots()
    places = {"teacher": ((-6, 5), "right"), "student": ((6, -12), "left")}
    for (name, line), role in zip(gigabytes.items(), places, strict=True):
        axes.plot(conversations, line, color=COLOURS[role])
        seen = sum(value <= 1.3 * memory for value in line)  # the rest is cut off
        middle, (offset, side) = max(seen, 1) // 2, places[role]
        axes.annotate(name, (conversations[middle], line[middle]), offset, ha=side,
                      textcoords="offset points", color=COLOURS[role])  # fmt: skip
    axes.axhline(memory, color="black", lw=1, ls=":")
    axes.annotate(f"memory of the card, {memory:,g} GB", (1, memory), (-4, 3),
                  xycoords=("axes fraction", "data"), ha="right", fontsize=8,
                  textcoords="offset points")  # fmt: skip
    axes.set(xlabel="conversations at a time", ylabel="GB of weights and caches",
             xlim=(0, conversations[-1]), ylim=(0, 1.4 * memory),
             title=title)  # fmt: skip
    return figure


def decode_speed(
    ladder: Mapping[int, float],
    named: Mapping[str, tuple[int, float]],
    bandwidth: float,
    operations: float,
) -> Figure:
    """Milliseconds a token against MB of weights: models of one depth (bytes -> s) and
    named ones (role -> bytes, s), beside what bytes a second and operations a second
    predict; weights are float32, two operations each."""
    figure = Figure(figsize=(7, 3.6))
    axes = figure.subplots()
    ends = np.array([min(s for s, _ in named.values()), 1.6 * max(ladder)])
    lines = {"bytes / bandwidth": (ends / bandwidth, "--"),
             "operations / speed": (2 * ends / 4 / operations, ":")}  # fmt: skip
    for name, (seconds, dash) in lines.items():
        axes.plot(ends / 1e6, 1e3 * seconds, dash, color="black", lw=1.2)
        axes.annotate(name, (ends[1] / 1e6, 1e3 * seconds[1]), (4, 0), va="center",
                      textcoords="offset points", fontsize=8,
                      annotation_clip=False)  # fmt: skip
    x, y = np.array(list(ladder)) / 1e6, 1e3 * np.array(list(ladder.values()))
    axes.plot(x, y, "o-", color=COLOURS["baseline"], lw=1,
              label="random weights, all of one depth")  # fmt: skip
    axes.legend(loc="lower right", fontsize=8)
    for role, (size, seconds) in named.items():
        axes.plot(size / 1e6, 1e3 * seconds, "D", color=COLOURS[role], ms=7)
        axes.annotate(role, (size / 1e6, 1e3 * seconds), (0, 8), color=COLOURS[role],
                      ha="center", textcoords="offset points")  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="MB of weights, read for every token",
             ylabel="milliseconds a token",
             title="Bandwidth rules large models, overhead the small ones")  # fmt: skip
    axes.set_xlim(0.6 * ends[0] / 1e6, 1.1 * ends[1] / 1e6)
    axes.grid(axis="y")
    return figure


def deployments(
    bits: DataFrame, tokens: DataFrame, limits: Sequence[tuple[str, float]]
) -> Figure:
    """Devices (rows) x models (columns): bits a weight, and tokens a second at best,
    NaN where a model does not fit; a shade for each of the rising `limits`."""
    figure = Figure(figsize=(9, 1.3 + 0.5 * len(bits)))
    axes = figure.subplots()
    base = np.array(colors.to_rgb(COLOURS["student"]))
    names = ["does not fit", *[name for name, _ in limits]]
    strength = np.linspace(0, 0.85, len(names))
    for row, device in enumerate(bits.index):
        for column, model in enumerate(bits.columns):
            width, speed = bits.loc[device, model], tokens.loc[device, model]
            fits = not np.isnan(speed)
            level = sum(speed >= least for _, least in limits) if fits else 0
            shade = 1 - strength[level] * (1 - base)
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fc=shade,
                                     ec="white", lw=2))  # fmt: skip
            number = f"{speed:,.0f}" if speed >= 10 else f"{speed:.1f}"
            text = f"{number} /s\n{width:.0f} bit" if fits else "–"
            axes.text(column, row, text, ha="center", va="center", fontsize=8)
    axes.set(xlim=(-0.5, bits.shape[1] - 0.5), ylim=(len(bits) - 0.5, -0.5))
    axes.set_xticks(range(bits.shape[1]), bits.columns, fontsize=8)
    axes.set_yticks(range(len(bits)), bits.index)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    handles = [Rectangle((0, 0), 1, 1, fc=1 - s * (1 - base), ec="grey", label=name)
               for name, s in zip(names, strength, strict=True)]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=len(names))
    axes.set_title("Small models run everywhere; tokens a second at best, one reader")
    return figure


def price_and_energy(
    lines: Mapping[str, tuple[str, Sequence[int], Sequence[float], Sequence[float]]],
    title: str,
) -> Figure:
    """USD and watt-hours of a million tokens against conversations at a time; name ->
    (role, conversations, USD, Wh), a line ending where the memory is full."""
    figure = Figure(figsize=(8.4, 3.4))
    _title(figure, title)
    panels = figure.subplots(1, 2)
    names = ("USD for a million tokens", "watt-hours for a million tokens")
    dashes = {}  # the second line of a role is dashed
    for name, (role, batches, *values) in lines.items():
        dash = dashes.setdefault(role, iter(("-", "--", ":")))
        look = next(dash)
        for axes, line in zip(panels, values, strict=True):
            axes.plot(batches, line, look, color=COLOURS[role], label=name)
            axes.plot(batches[-1], line[-1], "o", color=COLOURS[role])
    for axes, name in zip(panels, names, strict=True):
        axes.set(xscale="log", yscale="log", xlabel="conversations at a time",
                 ylabel=name)  # fmt: skip
        axes.grid(axis="y")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8)
    return figure


# What a teacher may give a student: colour, its strength, hatching, colour of the word.
PAIRS = {
    "logits": (COLOURS["teacher"], 1.0, "", "white"),
    "sliced": (COLOURS["teacher"], 0.8, "", "white"),
    "text": (COLOURS["teacher"], 0.2, "", "black"),
    "terms": (COLOURS["baseline"], 0.25, "////", "black"),
}


def pairs(kinds: DataFrame, conditions: DataFrame) -> Figure:
    """Teachers (rows) x students (columns): a key of `PAIRS` or "" for no pair; a
    dagger where `conditions` are true."""
    figure = Figure(figsize=(9.4, 1.7 + 0.36 * len(kinds)))
    axes = figure.subplots()
    for row, teacher in enumerate(kinds.index):
        for column, student in enumerate(kinds.columns):
            if not (kind := kinds.loc[teacher, student]):
                continue
            colour, alpha, hatch, ink = PAIRS[kind]
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, ec="white",
                                     fc=(colour, alpha), hatch=hatch))  # fmt: skip
            mark = "†" if conditions.loc[teacher, student] and kind != "terms" else ""
            box = {"fc": "white", "ec": "none", "pad": 1} if hatch else None
            axes.text(column, row, kind + mark, ha="center", va="center", fontsize=8,
                      color=ink, bbox=box)  # fmt: skip
    axes.set(xlim=(-0.5, kinds.shape[1] - 0.5), ylim=(len(kinds) - 0.5, -0.5))
    axes.set_xticks(range(kinds.shape[1]), kinds.columns, rotation=30, ha="right")
    axes.set_yticks(range(len(kinds)), kinds.index)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="student († the licence sets conditions)", ylabel="teacher")
    axes.set_title("Only models of one family share logits; text suits every pair")
    return figure


def retention_without_n(
    n: Sequence[int], low: Sequence[float], high: Sequence[float], kept: float
) -> Figure:
    """The 95 % interval of a retention `kept` against the number of test examples."""
    figure = Figure(figsize=(6.4, 2.8))
    axes = figure.subplots()
    axes.fill_between(n, low, high, color=COLOURS["student"], alpha=0.25, lw=0)
    axes.axhline(kept, color=COLOURS["student"])
    axes.axhline(1, color=COLOURS["teacher"], ls=":", lw=1.5)
    axes.annotate("as good as the teacher", (n[-1], 1), (0, 3), ha="right",
                  textcoords="offset points", color=COLOURS["teacher"])  # fmt: skip
    axes.set_xscale("log")
    axes.set_xticks(n, [f"{count:,}" for count in n])
    axes.minorticks_off()
    axes.set(xlabel="test examples of each model (the page does not say)",
             ylabel="share of accuracy kept", xlim=(n[0], n[-1]),
             title="With few examples the claim says little")  # fmt: skip
    return figure


# ---------------------------------------------------------------- 10, evaluation


def reliability(tables: Mapping[str, DataFrame], title: str) -> Figure:
    """Confidence against accuracy, a panel a model: the tables of
    `calibration.reliability`. A larger dot holds more items; on the line a model is as
    right as it is sure, below it over-confident."""
    figure = Figure(figsize=(max(3.4, 2.9 * len(tables)), 3.3))
    _title(figure, title)
    panels = figure.subplots(1, len(tables), squeeze=False, sharey=True)[0]
    for axes, (name, table) in zip(panels, tables.items(), strict=True):
        some = table[table["count"] > 0]
        share = some["count"] / some["count"].sum()
        colour = COLOURS[_role(name)]
        error = (share * (some["accuracy"] - some["confidence"]).abs()).sum()
        axes.plot([0, 1], [0, 1], ":", color="black", lw=1)
        axes.vlines(some["confidence"], some["confidence"], some["accuracy"],
                    color=colour, alpha=0.5, lw=1.5)  # fmt: skip
        axes.scatter(some["confidence"], some["accuracy"], 20 + 200 * share,
                     color=colour, clip_on=False, zorder=3)  # fmt: skip
        axes.text(0.03, 0.95, f"ECE {error:.2f}", color=colour, va="top")
        axes.set(xlim=(0, 1), ylim=(0, 1), title=name, xlabel="confidence, mean of bin")
        axes.set_aspect("equal")
    panels[0].set_ylabel("share of right ones")
    return figure


def _role(model: str) -> str:
    """The role whose colour a model of this name has."""
    if "teacher" in model:
        return "teacher"
    return "baseline" if "base" in model or "undistilled" in model else "student"


MARKERS = ("o", "s", "^", "D", "v")  # for models of one role


def scores(
    table: DataFrame, title: str, metric: str = "accuracy", by: str = "task"
) -> Figure:
    """One metric of `evaluate.summarise`, a panel a split, a row for each group of `by`
    and for all items, a dot with its interval for each model."""
    table = table[(table["metric"] == metric) & table["by"].isin([by, "all"])]
    if table.empty:
        raise ValueError(f"the table has no {metric!r} by {by!r}")
    # The whole stands below its parts.
    groups = [*table.loc[table["by"] == by, "group"].unique(), "all"]
    groups = list(dict.fromkeys(groups))
    names, splits = table["model"].unique(), table["split"].unique()
    height = 1.6 + (0.2 + 0.14 * len(names)) * len(groups)
    figure = Figure(figsize=(1.8 + 3.2 * len(splits), height))
    _title(figure, title)
    panels = figure.subplots(1, len(splits), squeeze=False, sharex=True, sharey=True)[0]
    roles = [_role(name) for name in names]
    for axes, split in zip(panels, splits, strict=True):
        for place, name in enumerate(names):
            chosen = table[(table["split"] == split) & (table["model"] == name)]
            rows = [groups.index(group) for group in chosen["group"]]
            rows = np.array(rows) + 0.7 * ((place + 0.5) / len(names) - 0.5)
            colour = COLOURS[roles[place]]
            marker = MARKERS[roles[:place].count(roles[place]) % len(MARKERS)]
            axes.hlines(rows, chosen["low"], chosen["high"], color=colour, lw=1.5)
            axes.plot(chosen["value"], rows, marker, color=colour, label=name,
                      clip_on=False)  # fmt: skip
        axes.set(title=split, xlabel=f"{metric} (95 % interval)",
                 ylim=(len(groups) - 0.5, -0.5))  # fmt: skip
        axes.set_yticks(range(len(groups)), groups)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(names))
    return figure
