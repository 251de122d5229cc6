"""The report of a run: what was kept, what it costs now, and how to repeat it.

`write` leaves `report.md` with its `figures/`, the same as one file in `report.html`,
and the numbers in `results.json`.
"""

import base64
import html
import re
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from nbconvert.filters import markdown2html

from .. import plots
from ..data.results import run_card, write_results
from ..train.loop import History
from .run import Outcome
from .settings import name_of

SHOWN = ("accuracy", "retention", "exact match", "token F1", "ROUGE-L", "NLL")
SHOWN += ("forward KL", "top-1", "ECE")
SIGNALS = {
    "live": "the teacher's distribution, computed in training",
    "cached": "the teacher's distribution, read from a cache",
    "text": "the teacher's text alone",
}
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ max-width: 60em; margin: 2em auto; padding: 0 1em; font-family: sans-serif }}
table {{ border-collapse: collapse }}
td, th {{ padding: .2em .7em; border-bottom: 1px solid #ccc; text-align: right }}
td:first-child, th:first-child {{ text-align: left }}
img {{ max-width: 100% }}
pre {{ overflow-x: auto }}
.anchor-link {{ display: none }}
</style>
{body}</html>
"""


def write(outcome: Outcome, folder: Path, command: str) -> Path:
    """The report of a run into its folder; returns the path of `report.md`."""
    card = run_card(command, **outcome.card)
    (folder / "figures").mkdir(exist_ok=True)
    pictures = {}  # alt text by name of the file
    for name, (figure, alt) in _figures(outcome).items():
        (folder / "figures" / f"{name}.png").write_bytes(plots.png(figure))
        pictures[name] = f"![{alt}](figures/{name}.png)"
    text = _text(outcome, card, pictures)
    path = folder / "report.md"
    path.write_text(text, encoding="utf-8")
    (folder / "report.html").write_text(as_html(text, folder), encoding="utf-8")
    table = outcome.report.table.replace({np.nan: None})
    write_results(folder / "results.json", list(table), table.values.tolist(), card)
    return path


def as_html(text: str, folder: Path) -> str:
    """The report as one page that holds its pictures."""

    def embedded(match: re.Match) -> str:
        picture = base64.b64encode((folder / match[1]).read_bytes()).decode()
        return f'src="data:image/png;base64,{picture}"'

    title = html.escape(text.partition("\n")[0].removeprefix("# "))
    body = re.sub(r'src="(figures/[^"]+)"', embedded, markdown2html(text))
    return PAGE.format(title=title, body=body)


def _text(outcome: Outcome, card: dict, pictures: dict[str, str]) -> str:
    track, table = outcome.track, outcome.report.table
    names = [_plain(name_of(n)) for n in (track.teacher, track.student)]
    parts = [f"# {names[0]} → {names[1]}", headline(table, outcome.material.gold)]
    parts += [f"**Note.** {_plain(note)}" for note in outcome.notes]
    parts += ["## What was kept", pictures["kept"]]
    for split in table["split"].unique():
        items = table[(table["split"] == split) & (table["by"] == "all")]["items"].max()
        parts += [f"{split}: {items:,} held-out prompts", scores(table, split)]
    parts += [
        "In brackets the 95 % interval over held-out prompts. It says nothing about "
        "another seed of the training."
    ]
    parts += ["## What it costs", _markdown(outcome.costs.map(_rounded))]
    parts += ["## The data", pictures["funnel"], _markdown(_funnel(outcome.funnel))]
    parts += ["## The training", _training(outcome), pictures["loss"]]
    lines = [f"{k}: {v}" for k, v in card.items() if not isinstance(v, dict)]
    lines += [f"{k} {v}" for k, v in card["versions"].items()]
    stages = ", ".join(f"{k} {v:.1f}" for k, v in outcome.minutes.items())
    parts += ["## Run card", "```", *lines, f"minutes by stage: {stages}", "```"]
    text = "\n\n".join(parts)
    return re.sub(r"\n\n(?=[^`]*```\n*$)", "\n", text) + "\n"


def headline(table: pd.DataFrame, gold: bool) -> str:
    """One sentence: the student between its base and the teacher."""
    metric = "accuracy" if gold else "token F1"
    split = table["split"].iloc[0]
    whole = table[(table["by"] == "all") & (table["split"] == split)]
    values = whole[whole["metric"] == metric].set_index("model")["value"]
    named = ", ".join(f"{name} {value:.1%}" for name, value in values.items())
    return f"{metric[0].upper()}{metric[1:]} on {split}: {named}."


def scores(table: pd.DataFrame, split: str) -> str:
    """A row a model, a column a metric, each value with its interval."""
    whole = table[(table["split"] == split) & (table["by"] == "all")]
    said = {}
    for row in whole.itertuples():
        reach = f" [{row.low:.3f}, {row.high:.3f}]" if row.low == row.low else ""
        said.setdefault(row.model, {})[row.metric] = f"{row.value:.3f}{reach}"
    wide = pd.DataFrame(said).T
    return _markdown(wide[[m for m in SHOWN if m in wide]].fillna("–"))


def _figures(outcome: Outcome) -> dict[str, tuple[Figure, str]]:
    """Each figure with the text that says what it shows."""
    table, funnel = outcome.report.table, outcome.funnel
    metric = "token F1" if outcome.material.own else "accuracy"
    by = "task" if len(outcome.report.answers["task"].unique()) > 1 else "all"
    found = headline(table, not outcome.material.own)
    title = found.removesuffix(".").replace(" on ", ", ", 1)
    kept = outcome.report.figure(title.replace(": ", "\n", 1), metric, by)
    left, asked = funnel["left"].iloc[-1], funnel["in"].iloc[0]
    history = outcome.history
    fell = f"The loss went from {history.loss[0]:.3g} to {history.loss[-1]:.3g}"
    return {
        "kept": (kept, found),
        "funnel": (plots.funnel(funnel), f"Of {asked} prompts {left} rows are kept"),
        "loss": (loss_curve(history, fell), f"{fell} nats per token"),
    }


def loss_curve(history: History, title: str) -> Figure:
    """The loss that was trained on, against the step."""
    figure = Figure(figsize=(6, 2.8))
    axes = figure.subplots()
    axes.plot(history.step, history.loss, color=plots.COLOURS["student"])
    axes.set(xlabel="step", ylabel="loss, nats per token", title=title)
    axes.set_ylim(bottom=0)
    return figure


def _training(outcome: Outcome) -> str:
    settings, track = outcome.settings, outcome.track
    way = "every weight" if settings.full else f"LoRA of rank {track.lora_rank}"
    softly = f", soft weight {settings.soft_weight:g} at temperature "
    softly += f"{settings.temperature:g}"
    return (
        f"The student learnt from {SIGNALS[outcome.signal]}"
        f"{'' if outcome.signal == 'text' else softly}: {way}, "
        f"{outcome.trained:,} trained parameters, {outcome.history.step[-1]:,} steps "
        f"of {track.batch_size * track.accumulation} rows, learning rate "
        f"{track.learning_rate:g}."
    )


def _funnel(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(share=table["share"].map("{:.1%}".format)).set_index("rule")


def _plain(text: str) -> str:
    """Text in which nothing is markup, such as the token <pad>."""
    return html.escape(text, quote=False)


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _markdown(table: pd.DataFrame) -> str:
    """A table with its index as the first column."""
    lines = [["", *table.columns], ["---"] + ["---:"] * len(table.columns)]
    lines += [[name, *row] for name, row in zip(table.index, table.values, strict=True)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
