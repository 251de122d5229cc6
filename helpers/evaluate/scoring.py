"""Models answer questions; a verifier says which answers are right."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..data.rows import DataError
from ..generate.teachers import Request, Sampling, Teacher, answer, seed_of
from ..models.loading import ChatModel
from ..world.verifier import Example, verify
from .metrics import exact_match

# A question with a gold answer: the helpdesk's, or a chat row of anyone's data.
Question = Example | dict
Answerer = ChatModel | Teacher


class Item(NamedTuple):
    """A question in one form, wherever it comes from."""

    id: object
    task: str
    split: str
    messages: list[dict]
    gold: str | Sequence[str]


def item_of(question: Question, place: int = 0) -> Item:
    """The question as an `Item`; `place` names a row that has no id.

    Raises `DataError` for a row without a gold answer.
    """
    if isinstance(question, Example):
        e = question
        return Item(e.id, e.task, e.split, list(e.messages), e.answer)
    *messages, last = question["messages"]
    gold = last["content"]
    if last["role"] != "assistant":
        messages, gold = [*messages, last], question.get("answer")
    if gold is None:
        raise DataError(
            f"row {question.get('id', place)!r} has no gold answer: end its messages "
            "in the assistant's, or give it a key `answer`"
        )
    named = question.get("id", place), question.get("task", "-")
    return Item(*named, question.get("split", "-"), messages, gold)


def accepted(question: Question, said: str) -> bool:
    """The verifier's word for the helpdesk's examples, `exact_match` for other rows."""
    if isinstance(question, Example):
        return verify(question, said)
    return exact_match(said, item_of(question).gold)


def score(
    examples: Sequence[Question],
    answers: Sequence[str],
    *,
    right: Callable[[Question, str], bool] = accepted,
) -> pd.DataFrame:
    """One row an example: id, task, answer, whether it is `right`, split, turns.

    `turns` counts the user's messages. An example is the helpdesk's, checked by its
    verifier, or a chat row with a gold answer, last in `messages` or as `answer`; such
    a row is checked by `exact_match`, or by your own `right(row, answer)`.
    Raises `ValueError` for unequal numbers of both, and for none.
    """
    if not len(examples) == len(answers) > 0:
        raise ValueError(
            f"{len(examples)} examples and {len(answers)} answers: each example needs "
            "one answer, and there must be one at least"
        )
    items = [item_of(example, place) for place, example in enumerate(examples)]
    return pd.DataFrame(
        {
            "id": [item.id for item in items],
            "task": [item.task for item in items],
            "answer": list(answers),
            "right": [
                bool(right(e, a)) for e, a in zip(examples, answers, strict=True)
            ],
            "split": [item.split for item in items],
            "turns": [sum(m["role"] == "user" for m in i.messages) for i in items],
        }
    )


def compare(
    models: Mapping[str, Answerer | Sequence[Answerer]],
    examples: Sequence[Question],
    *,
    right: Callable[[Question, str], bool] = accepted,
    **settings,
) -> pd.DataFrame:
    """Every model answers every example: the rows of `score`, with `model` and `seed`.

    A list of models under one name are students of several seeds (0, 1, ...).
    `settings` go to `generate.answer`; the default is greedy. A `generate.Teacher`, for
    instance an `ApiTeacher`, may stand in for a model: of the settings it reads
    `max_new_tokens`, `sampling_temperature`, `top_p` and `seed`.
    """
    prompts = [item_of(e, place).messages for place, e in enumerate(examples)]
    scored = []
    for name, entry in models.items():
        for seed, model in enumerate(students_of(entry)):
            answers = _answers(model, prompts, settings)
            rows = score(examples, answers, right=right)
            scored.append(rows.assign(model=name, seed=seed))
    if not scored:
        raise ValueError("no models to compare")
    return pd.concat(scored, ignore_index=True)


def students_of(entry: Answerer | Sequence[Answerer]) -> list[Answerer]:
    """The students of one name: one, or one a seed."""
    # A ChatModel is itself a tuple, of model and tokenizer.
    several = isinstance(entry, Sequence) and not isinstance(entry, ChatModel)
    return list(entry) if several else [entry]


def _answers(model: Answerer, prompts: list[list[dict]], settings: dict) -> list[str]:
    if isinstance(model, ChatModel):
        return answer(*model, prompts, **settings)
    local = ("batch_size", "progress", "seed")
    drawn = {name: value for name, value in settings.items() if name not in local}
    seeds = [seed_of(prompt, settings.get("seed", 0)) for prompt in prompts]
    requests = map(Request, prompts, seeds)
    answers, failed = [""] * len(prompts), 0
    for place, reply in model.replies(requests, Sampling(**drawn)):
        answers[place] = reply.text
        failed += bool(reply.error)
    if failed:
        warnings.warn(
            f"{failed} of {len(prompts)} requests failed and count as wrong answers",
            stacklevel=3,
        )
    return answers


def by_task(scored: pd.DataFrame) -> pd.DataFrame:
    """Accuracy, one row a task (and "all"), one column a model."""
    scored = scored.assign(right=scored["right"].astype(float))
    names, tasks = scored["model"].unique(), scored["task"].unique()
    table = scored.pivot_table(index="task", columns="model", values="right")
    table = table.loc[tasks, names]
    table.loc["all"] = scored.groupby("model")["right"].mean()[names]
    return table.rename_axis(index=None, columns=None)


def paired(scored: pd.DataFrame, column: str = "right") -> dict[str, np.ndarray]:
    """A column of `compare`, one array a model: (items,), or (seeds, items) where it
    has several seeds. Items stand in one order, so that models can be paired.

    Raises `ValueError` when a model answered other items, or one twice.
    """
    if scored.duplicated(["model", "seed", "split", "id"]).any():
        raise ValueError("a model answers one id twice; give every example its own id")
    values = scored[column].astype(float)
    table = scored.assign(value=values).pivot(
        index=["model", "seed"], columns=["split", "id"], values="value"
    )
    order = scored[["split", "id"]].drop_duplicates()
    table = table.reindex(columns=pd.MultiIndex.from_frame(order))
    answered = scored.groupby(["model", "seed"], sort=False).size()
    if (answered < len(order)).any():
        raise ValueError(
            f"{answered.idxmin()[0]!r} did not answer all the items that others did: "
            "pairs need one set of ids"
        )
    arrays = {name: table.loc[name].to_numpy() for name in scored["model"].unique()}
    return {name: a[0] if len(a) == 1 else a for name, a in arrays.items()}
