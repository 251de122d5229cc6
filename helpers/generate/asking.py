"""A model asked for its opinion: questions by id, replies by id."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..models.loading import ChatModel
from .answers import generate_answers
from .teachers import Teacher


def turns_of(messages: Sequence[dict]) -> str:
    """A conversation as a judge reads it: a line a message, led by its role."""
    return "\n".join(f"{m['role']}: {m['content']}" for m in messages)


def ask(
    judge: ChatModel | Teacher,
    questions: Mapping[str, str],
    path: str | Path | None = None,
    **settings,
) -> dict[str, str]:
    """The judge's reply to each question, by its id; failed ones are missing.

    What was thought aloud before "</think>" is cut off. With `path` the replies stay in
    files; `settings` are those of `generate.generate_answers`.
    """
    prompts = [
        {"id": id, "messages": [{"role": "user", "content": text}]}
        for id, text in questions.items()
    ]
    with tempfile.TemporaryDirectory() as folder:
        place = path or Path(folder) / "verdicts.jsonl"
        rows = generate_answers(judge, prompts, place, **settings)
    said = {row["id"]: row["messages"][-1]["content"] for row in rows}
    return {id: text.rpartition("</think>")[2] for id, text in said.items()}
