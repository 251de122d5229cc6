"""Which of two answers is better? A judge model says, asked in both orders."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..generate.asking import ask, turns_of
from ..generate.teachers import Teacher
from ..models.loading import ChatModel
from .intervals import Interval, bootstrap

QUESTION = """Here is a conversation, and two answers to its last message.

{prompt}

Answer A: {a}

Answer B: {b}

Which answer is more right, complete and helpful? Its place and its length do not
matter. Reply with one word: A, B, or tie."""
_VERDICT = re.compile(
    r"\W*(?:answer\s+)?(A|B|tie)(?=\W*$|[ \t]*[^\w \t])", re.IGNORECASE
)


def judge_pairs(
    judge: ChatModel | Teacher,
    prompts: Sequence[Sequence[dict]],
    first: Sequence[str],
    second: Sequence[str],
    *,
    question: str = QUESTION,
    path: str | Path | None = None,
    **settings,
) -> pd.DataFrame:
    """A row a prompt: what the judge said in both orders, and the `winner`.

    `judge` is a `ChatModel` or a `generate.Teacher`. A judge leans towards a place
    (Zheng et al. 2023), so each pair is shown twice: `in_order`, where A is the first
    answer, and `swapped`, where A is the second. Both columns hold "first", "second",
    "tie" or "unclear". `winner` is what both say; "tie" where they differ; "unclear"
    where a reply is no verdict or never came, so that a mute judge is not taken for an
    undecided one.

    `question` holds {prompt}, {a} and {b}. With `path` the verdicts are kept in files
    and a second run asks for the missing ones only; `settings` (max_new_tokens, budget,
    ...) are those of `generate.generate_answers`. A judge prefers long answers and its
    own, and obeys an answer that tells it what to say: check a sample by hand.

    Raises `ValueError` for unequal numbers of prompts and answers, for none, and for a
    question without the three names.
    """
    if not len(prompts) == len(first) == len(second) > 0:
        raise ValueError(
            f"{len(prompts)} prompts, {len(first)} and {len(second)} answers: each "
            "prompt needs one answer of both"
        )
    _check_question(question)
    asked = {}
    for i, pair in enumerate(zip(first, second, strict=True)):
        turns = turns_of(prompts[i])
        for order, (a, b) in (("in order", pair), ("swapped", pair[::-1])):
            asked[f"{i} {order}"] = question.format(prompt=turns, a=a, b=b)
    said = {i: _verdict(r) for i, r in ask(judge, asked, path, **settings).items()}

    def meant(order: str, a: str, b: str) -> list[str]:
        words = (said.get(f"{i} {order}", "unclear") for i in range(len(prompts)))
        return [{"a": a, "b": b}.get(word, word) for word in words]

    table = pd.DataFrame(
        {
            "in_order": meant("in order", "first", "second"),
            "swapped": meant("swapped", "second", "first"),
        }
    )
    return table.assign(winner=[_winner(*row) for row in table.itertuples(index=False)])


def _check_question(question: str) -> None:
    shown = {"prompt": "(prompt)", "a": "(first)", "b": "(second)"}
    try:
        text = question.format(**shown)
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"question: {error!r}; double any other brace") from None
    if not all(words in text for words in shown.values()):
        raise ValueError("question needs {prompt}, {a} and {b}, or the judge is blind")


def _verdict(reply: str) -> str:
    """The verdict that opens the reply; "A better one is B" opens with none."""
    found = _VERDICT.match(reply)
    return found[1].lower() if found else "unclear"


def _winner(in_order: str, swapped: str) -> str:
    if "unclear" in (in_order, swapped):
        return "unclear"
    return in_order if in_order == swapped else "tie"


def win_rate(judged: pd.DataFrame) -> Interval:
    """Share of prompts that the first answer won, a tie counting one half, of those
    with a clear verdict. Raises `ValueError` where there is none."""
    clear = judged.loc[judged["winner"] != "unclear", "winner"]
    return bootstrap(np.mean, clear.map({"first": 1.0, "tie": 0.5, "second": 0.0}))


def position_bias(judged: pd.DataFrame) -> float:
    """Share of clear pairs in which the judge chose one *place* both times: the sign of
    what place alone decides. 0 for a judge that reads."""
    clear = judged[judged["winner"] != "unclear"]
    both = clear[["in_order", "swapped"]].isin(["first", "second"]).all(axis=1)
    return float((both & (clear["in_order"] != clear["swapped"])).mean())
