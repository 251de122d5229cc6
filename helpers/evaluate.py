"""What was kept: accuracy by task, retention, agreement, each with an interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel

from .data import collate
from .generate import answer
from .losses import shift_and_mask, token_divergence
from .models import ChatModel
from .world import Example, verify


@dataclass(frozen=True)
class Interval:
    """An estimate and the 95 % interval around it."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}]"


def bootstrap(
    statistic, *samples: Sequence[float], resamples: int = 2000, seed: int = 0
) -> Interval:
    """The value of `statistic(*samples)` with a percentile interval (Efron 1979).

    Samples of equal length are resampled together, item by item, so that what two
    models said to the same prompt stays paired. Raises `ValueError` when the lengths
    differ or are zero.
    """
    arrays = [np.asarray(sample, dtype=float) for sample in samples]
    n = len(arrays[0])
    if n == 0 or any(len(array) != n for array in arrays):
        raise ValueError("paired samples need one length, of at least one item")
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(resamples):
        rows = rng.integers(0, n, n)
        draws.append(statistic(*(array[rows] for array in arrays)))
    low, high = np.percentile(draws, [2.5, 97.5])
    return Interval(float(statistic(*arrays)), float(low), float(high))


def accuracy(right: Sequence[bool]) -> Interval:
    """Share of right answers."""
    return bootstrap(np.mean, right)


def retention(student_right: Sequence[bool], teacher_right: Sequence[bool]) -> Interval:
    """The student's accuracy as a share of the teacher's, on the same items.

    The ratio of two means over one set of items, not a mean of ratios; the bootstrap is
    paired. Raises `ValueError` when the teacher was never right.
    """
    if not np.any(teacher_right):
        raise ValueError("the teacher has no right answer, so nothing can be retained")

    def ratio(student, teacher):
        return student.mean() / max(teacher.mean(), 1 / len(teacher))

    return bootstrap(ratio, student_right, teacher_right)


def score(examples: Sequence[Example], answers: Sequence[str]) -> pd.DataFrame:
    """One row an example: id, task, the answer and whether the verifier accepts it."""
    return pd.DataFrame(
        {
            "id": [e.id for e in examples],
            "task": [e.task for e in examples],
            "answer": list(answers),
            "right": [verify(e, a) for e, a in zip(examples, answers, strict=True)],
        }
    )


def compare(
    models: Mapping[str, ChatModel], examples: Sequence[Example], **settings
) -> pd.DataFrame:
    """Every model answers every example: the rows of `score` with a column `model`.

    `settings` go to `generate.answer`; the default is greedy.
    """
    prompts = [e.messages for e in examples]
    scored = []
    for name, (model, tokenizer) in models.items():
        rows = score(examples, answer(model, tokenizer, prompts, **settings))
        scored.append(rows.assign(model=name))
    return pd.concat(scored, ignore_index=True)


def by_task(scored: pd.DataFrame) -> pd.DataFrame:
    """Accuracy, one row a task (and "all"), one column a model."""
    scored = scored.assign(right=scored["right"].astype(float))
    names, tasks = scored["model"].unique(), scored["task"].unique()
    table = scored.pivot_table(index="task", columns="model", values="right")
    table = table.loc[tasks, names]
    table.loc["all"] = scored.groupby("model")["right"].mean()[names]
    return table.rename_axis(index=None, columns=None)


@torch.inference_mode()
def agreement(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    rows: Sequence[dict],
    *,
    batch_size: int = 64,
) -> dict[str, float]:
    """How alike two models predict, over the answer tokens of tokenised `rows`.

    `top1`: share of positions where both put the same token first. `forward_kl`: mean
    KL(teacher || student) in nats a token, at temperature 1. Both read the same text
    (teacher forcing), so this says how alike they are, not how right.
    """
    same, divergence, tokens = 0, 0.0, 0
    for start in range(0, len(rows), batch_size):
        chunk = [rows[i] for i in range(start, min(start + batch_size, len(rows)))]
        batch = collate(chunk, student.config.pad_token_id)
        batch = {key: value.to(student.device) for key, value in batch.items()}
        _, mask = shift_and_mask(batch.pop("labels"))
        ours = student(**batch).logits[:, :-1][mask]
        theirs = teacher(**batch).logits[:, :-1][mask]
        same += (ours.argmax(-1) == theirs.argmax(-1)).sum().item()
        divergence += token_divergence(ours, theirs).sum().item()
        tokens += len(ours)
    return {"top1": same / tokens, "forward_kl": divergence / tokens}
