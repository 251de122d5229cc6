"""What a run learns from and is measured on: the helpdesk's prompts, or anyone's JSONL.

Nothing that is held out for measuring is ever trained on: a prompt belongs to one side,
and prompts that share half of their text with a held-out one are dropped.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from .. import quality, world
from ..data.jsonl import iter_chat
from ..data.rows import DataError, as_prompts, to_chat
from ..data.text import answer_of, encoded, normalised, prompt_of
from ..evaluate.metrics import token_f1
from ..evaluate.scoring import Question
from ..quality.base import Rule

PROMPT_KEYS = ("prompt", "question", "instruction", "input", "query")
ANSWER_KEYS = ("answer", "completion", "response", "output", "target")
FORMAT = (
    'a row needs "messages" ([{"role": "user", "content": "..."}, ...]), or its prompt '
    f"under one of {', '.join(PROMPT_KEYS)}, and may have the right answer under one "
    f"of {', '.join(ANSWER_KEYS)}; name other keys with --prompt-key and --answer-key"
)
HELD_OUT = 0.1  # of the prompts, at most, where no test file is given
# Words shared by more training prompts than this are a form, not a leak.
COMMON = 10


@dataclass(frozen=True)
class Material:
    """`prompts` to train on, questions to measure on by split, rules for the answers.

    `own`: not the helpdesk's. `gold`: the held-out questions have right answers, else
    the teacher's must serve. `table`: the funnel of the prompts.
    """

    prompts: list[dict]
    held_out: dict[str, Sequence[Question]]
    rules: dict[str, Rule]
    own: bool
    gold: bool
    table: pd.DataFrame
    notes: tuple[str, ...] = ()


def helpdesk(prompts: int, held_out: int, seed: int) -> Material:
    """The world's train prompts; measured on its splits `test` and `shifted`."""
    examples = world.examples("train", prompts, seed)
    asked = [example.question() for example in examples]
    splits = {name: world.examples(name, held_out) for name in ("test", "shifted")}
    rules = {"verified": quality.verified(examples)}
    questions = {name: [e.question() for e in its] for name, its in splits.items()}
    # In this world one other word is another question: all runs count.
    kept, table = _separate(asked, questions, share=0.5)
    return Material(kept, splits, _rules(**rules), False, True, table)


def own(
    path: Path,
    test: Path | None = None,
    *,
    prompt_key: str | None = None,
    answer_key: str | None = None,
    held_out: int = 500,
    min_f1: float = 0.0,
) -> Material:
    """The prompts of a JSONL file; measured on `test`, or on a tenth of them.

    The tenth, at most `held_out`, are the prompts with the smallest hashes, so that
    neither the order of the rows nor a seed decides. Where prompts have gold answers,
    those of the teacher with a lower token F1 than `min_f1` are dropped.

    Raises `DataError` for a file that cannot be used, naming line, keys and cure.
    """
    rows, notes = read_prompts(path, prompt_key, answer_key), []
    if test:
        questions = read_prompts(test, prompt_key, answer_key)[:held_out]
    else:
        chosen = _smallest_hashes(rows, held_out, path)
        questions = [row for row in rows if _said(row) in chosen]
        rows = [row for row in rows if _said(row) not in chosen]
    golden = [row for row in questions if row.get("answer") is not None]
    if golden and len(golden) < len(questions):
        missing = len(questions) - len(golden)
        notes.append(f"{missing} held-out rows have no right answer and are left out.")
    kept, table = _separate(rows, {"test": questions}, share=0.5, common=COMMON)
    if not kept:
        raise DataError(
            f"{path}: all {len(rows)} prompts share half of their text with held-out "
            "ones, so that measuring would be cheating; give other data, or in --test "
            "a file of other prompts"
        )
    rules = _rules(**{"like the gold": like_gold(rows, min_f1)} if min_f1 else {})
    splits = {"test": golden or questions}
    return Material(kept, splits, rules, True, bool(golden), table, tuple(notes))


def read_prompts(
    path: Path, prompt_key: str | None = None, answer_key: str | None = None
) -> list[dict]:
    """The rows of a JSONL file as prompts (`data.as_prompts`), whatever their keys.

    Raises `DataError` that lists the defects of the whole file, each with its line and
    cure, and `FileNotFoundError` naming files of a similar name.
    """

    def convert(row: object) -> object:
        row = as_chat(row, prompt_key, answer_key)
        if isinstance(row, dict) and "messages" not in row:
            keys = ", ".join(map(json.dumps, list(row)[:6])) or "no key"
            raise DataError(f"has {keys}; {FORMAT}")
        return row

    rows = list(iter_chat(path, convert))
    try:
        return as_prompts(rows)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def as_chat(row: object, prompt_key: str | None, answer_key: str | None) -> object:
    """A row as a conversation, with the right answer, if any, as `answer`."""
    if not isinstance(row, dict):
        return row
    row = dict(row)
    if prompt_key is None:
        row = to_chat(row)
        named = [key for key in PROMPT_KEYS if key in row]
        prompt_key = None if "messages" in row else next(iter(named), None)
    if prompt_key in row:
        said = row.pop(prompt_key)
        turns = said if isinstance(said, list) else [{"role": "user", "content": said}]
        row["messages"] = turns
    if row.get("answer") is None or answer_key:
        keys = [answer_key] if answer_key else ANSWER_KEYS
        if found := [key for key in keys if key in row]:
            row["answer"] = row.pop(found[0])
    return row


def like_gold(rows: Sequence[dict], least: float) -> Rule:
    """Keep answers whose token F1 with the gold answer is at least `least`."""
    golds = {row["id"]: row.get("answer") for row in rows}

    def rule(row: dict) -> str:
        gold = golds.get(row["id"])
        if gold is None:
            return ""
        f1 = token_f1(answer_of(row), gold)
        return f"F1 {f1:.2f} with the gold answer" if f1 < least else ""

    return rule


def short_enough(tokenize: Callable[[list[dict]], object]) -> Rule:
    """Keep rows that `tokenize` takes, without a `DataError`."""

    def rule(row: dict) -> str:
        try:
            tokenize(row["messages"])
        except DataError as error:
            return str(error)
        return ""

    return rule


def _rules(**of_content: Rule) -> dict[str, Rule]:
    """What can be said of an answer's form, then of its content; repeated rows last."""
    return {
        "cut off": quality.truncated(),
        "empty": quality.length(1),
        "loops": quality.repetition(),
        "refusals": quality.refusal(),
        **of_content,
        "repeated rows": quality.near_duplicates(1.0),
    }


def _separate(
    prompts: Sequence[dict], held_out: Mapping[str, Sequence[dict]], **how
) -> tuple[list[dict], pd.DataFrame]:
    leaks = quality.decontaminate(held_out, **how)
    passed = quality.funnel(prompts, {"shared with the test": leaks})
    return passed.kept, passed.table


def _said(row: dict) -> str:
    return normalised(prompt_of(row))


def _smallest_hashes(rows: Sequence[dict], most: int, path: Path) -> set[str]:
    """The prompts to hold out."""

    def digest(prompt: str) -> bytes:
        return hashlib.blake2b(encoded(prompt), digest_size=8).digest()

    prompts = sorted({_said(row) for row in rows}, key=digest)
    if len(prompts) < 2:
        raise DataError(
            f"{path}: one prompt is too few, for some must be held out to measure on; "
            "give them as --test FILE.jsonl"
        )
    return set(prompts[: max(1, min(most, round(HELD_OUT * len(prompts))))])
