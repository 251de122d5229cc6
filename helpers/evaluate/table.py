"""The table of a distillation: everything that was measured, each with an interval.

`report` lets models answer (`compare`) and measures all about their answers, and
`summarise` makes one tidy table of it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..data.tokens import encode_chat
from ..models.loading import ChatModel, check_pair
from ..models.vocabulary import TemplateMismatch, VocabularyMismatch
from .calibration import answer_confidence, ece
from .intervals import (
    Interval,
    accuracy,
    bootstrap,
    over_seeds,
    ratio_of_means,
    retention,
)
from .likelihood import token_scores
from .metrics import bleu, text_scores
from .scoring import (
    Answerer,
    Item,
    Question,
    accepted,
    compare,
    item_of,
    paired,
    students_of,
)

# metric -> column of the answers, and the column by whose mean its mean is divided
METRICS = {
    "accuracy": ("right", None),
    "exact match": ("exact", None),
    "token F1": ("f1", None),
    "ROUGE-L": ("rouge_l", None),
    "NLL": ("nll", "tokens"),
    "forward KL": ("forward_kl", "tokens"),
    "top-1": ("top1", "tokens"),
    "top-k": ("top_k", "tokens"),
}


@dataclass(frozen=True)
class Report:
    """`answers`: a row an answer, with all that was measured about it. `table`: tidy, a
    row for each split, group, model and metric; see `summarise`."""

    answers: pd.DataFrame
    table: pd.DataFrame

    def wide(self, split: str, by: str = "all") -> pd.DataFrame:
        """The values of a split, a column a metric; a row a model or, with `by` "task"
        or "turns", a row a group and model."""
        chosen = self.table[(self.table["split"] == split) & (self.table["by"] == by)]
        index = ["model"] if by == "all" else ["group", "model"]
        wide = chosen.pivot_table("value", index, "metric", sort=False)
        return wide.rename_axis(columns=None)

    def figure(self, title: str, metric: str = "accuracy", by: str = "task"):
        """One metric with its intervals: a panel a split, a row a group."""
        from .. import plots  # matplotlib: only figures need it

        return plots.scores(self.table, title, metric, by)


def report(
    models: Mapping[str, Answerer | Sequence[Answerer]],
    splits: Mapping[str, Sequence[Question]],
    *,
    teacher: str = "teacher",
    right: Callable[[Question, str], bool] = accepted,
    top_k: int = 10,
    resamples: int = 2000,
    **settings,
) -> Report:
    """Everything about these models on these splits, with intervals; see `summarise`.

    `teacher` names the model that the others are held against; without a model of that
    name there is no retention and no divergence. Likelihood, divergence and agreement
    are measured on the *gold* answers (the first, where there are several), so that all
    models read the same text. They are left out for a `generate.Teacher`, which shows
    no logits, and the last two for a student of another vocabulary or template.
    `right` and `settings` are as in `compare`. Raises `ValueError` without splits.
    """
    if not splits:
        raise ValueError("no splits to report on: give {'test': examples, ...}")
    size = {name: settings[name] for name in ("batch_size",) if name in settings}
    parts = []
    for split, examples in splits.items():
        items = [item_of(example, place) for place, example in enumerate(examples)]
        golds = [item.gold for item in items]
        scored = compare(models, examples, right=right, **settings)
        for (name, seed), rows in scored.groupby(["model", "seed"], sort=False):
            rows = rows.reset_index(drop=True).assign(split=split, gold=golds)
            rows = rows.join(text_scores(rows["answer"], golds))
            model = students_of(models[name])[seed]
            if isinstance(model, ChatModel):
                reference = None if name == teacher else models.get(teacher)
                rows = rows.join(_on_gold(model, reference, items, top_k, size))
                prompts = [item.messages for item in items]
                sure = answer_confidence(model, prompts, rows["answer"], **size)
                rows["confidence"] = sure["token_mean"]
            parts.append(rows)
    answers = pd.concat(parts, ignore_index=True)
    return Report(answers, summarise(answers, teacher=teacher, resamples=resamples))


def _on_gold(
    model: ChatModel, teacher, items: Sequence[Item], top_k: int, size: dict
) -> pd.DataFrame:
    """The number of tokens of each gold answer, and sums over these tokens."""
    rows = []
    for item in items:
        gold = item.gold if isinstance(item.gold, str) else item.gold[0]
        said = {"role": "assistant", "content": gold}
        rows.append({"messages": [*item.messages, said]})
    other, vocab = None, None
    if isinstance(teacher, ChatModel):
        try:
            other, vocab = teacher.model, check_pair(model, teacher)
        except (VocabularyMismatch, TemplateMismatch):
            other = None  # no logits to compare
    encoded = encode_chat(rows, model.tokenizer)
    settings = {"top_k": top_k, "vocab": vocab, **size}
    tokens = token_scores(model.model, encoded, other, **settings).groupby("row")
    sums = tokens.sum().drop(columns=["confidence", "hit"])
    return sums.assign(tokens=tokens.size())


def summarise(
    answers: pd.DataFrame,
    *,
    teacher: str = "teacher",
    by: Sequence[str] = ("task", "turns"),
    resamples: int = 2000,
) -> pd.DataFrame:
    """The tidy table of answers: split, by, group, model, metric, value, low, high,
    items, seeds.

    `answers` holds the columns of `compare`, and of `METRICS` those that were measured.
    These metrics are ratios of means over items, with the paired bootstrap, or with
    `over_seeds` where a model has several seeds. "retention" is the accuracy as a share
    of the teacher's. "BLEU", and "ECE" (15 bins; confidence is the geometric mean of
    the probabilities of an answer's tokens, end included), are means over the seeds and
    have no interval. Rows come for each split as a whole ("all") and for each value of
    the columns `by`. The table's `attrs["BLEU"]` is the signature to quote.

    Raises `ValueError` where there are no answers, or models answered other items.
    """
    if answers.empty:
        raise ValueError("no answers to summarise")
    lines, signatures = [], set()
    for split, whole in answers.groupby("split", sort=False):
        groups = [("all", "all", whole)]
        for column in by:
            numbers = pd.api.types.is_numeric_dtype(whole[column])
            for name, part in whole.groupby(column, sort=numbers):
                groups.append((column, str(name), part))
        for column, name, part in groups:
            items = part["id"].nunique()
            measured = [*_ratios(part, teacher, resamples), *_wholes(part, signatures)]
            for model, metric, i, seeds in measured:
                line = [split, column, name, model, metric, i.value, i.low, i.high]
                lines.append([*line, items, seeds])
    columns = ["split", "by", "group", "model", "metric", "value", "low", "high"]
    table = pd.DataFrame(lines, columns=[*columns, "items", "seeds"])
    if signatures:
        table.attrs["BLEU"] = ", ".join(sorted(signatures))
    return table


def _ratios(part: pd.DataFrame, teacher: str, resamples: int) -> Iterator[tuple]:
    """Model, metric, interval and number of seeds, of every ratio of means."""
    settings = {"resamples": resamples}
    for metric, (above, below) in METRICS.items():
        if above not in part:
            continue
        has = part[part[above].notna()]
        values = paired(has, above) if len(has) else {}
        counts = paired(has, below) if below else {}
        for model, value in values.items():
            seeds = 1 if value.ndim == 1 else len(value)
            if not below:
                interval = accuracy(value, **settings)
            else:
                ways = bootstrap if seeds == 1 else over_seeds
                count = np.atleast_2d(counts[model])[0]
                interval = ways(ratio_of_means, value, count, **settings)
            yield model, metric, interval, seeds
            known = np.atleast_2d(values.get(teacher, 0)).mean(0)
            if metric == "accuracy" and model != teacher and known.any():
                yield model, "retention", retention(value, known, **settings), seeds


def _wholes(part: pd.DataFrame, signatures: set[str]) -> Iterator[tuple]:
    """The same of BLEU and ECE, which are no means over items."""
    for model, rows in part.groupby("model", sort=False):
        found = {"BLEU": [], "ECE": []}
        for _, run in rows.groupby("seed"):
            if "gold" in run:
                value, signature = bleu(list(run["answer"]), list(run["gold"]))
                found["BLEU"].append(value)
                signatures.add(signature)
            if "confidence" in run and run["confidence"].notna().all():
                found["ECE"].append(ece(run["confidence"], run["right"]))
        for metric, values in found.items():
            if values:
                interval = Interval(float(np.mean(values)), np.nan, np.nan)
                yield model, metric, interval, len(values)
