"""Rows as text: the words of a prompt or an answer, forms made equal."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

from .rows import DataError

Part = Literal["prompt", "answer", "both"]

# A run of letters and digits, or one character of a script written without spaces.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


def words(text: str) -> list[str]:
    """The words of a text: no case, no punctuation, Unicode forms made equal (NFKC).

    Each Chinese or Japanese character counts as a word.
    """
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def ngrams(text_words: Sequence[str], n: int) -> list[str]:
    """All runs of `n` words, each as one string; none where there are fewer words."""
    return [" ".join(text_words[i : i + n]) for i in range(len(text_words) - n + 1)]


def normalised(text: str) -> str:
    """The words of the text only: equal for answers that differ in case or commas.

    A text without words (signs, emoji) stays as it is.
    """
    return " ".join(words(text)) or text.strip()


def encoded(text: str) -> bytes:
    """UTF-8 of any string, for hashes."""
    return text.encode("utf-8", "surrogatepass")  # JSON may hold half of a pair


def answer_of(row: dict) -> str:
    """The last message of a row, which must be the assistant's (else `DataError`)."""
    last = row["messages"][-1]
    if last["role"] != "assistant":
        raise DataError(
            f"row {row.get('id', 'without id')!r} has no answer: its last message must "
            "be the assistant's"
        )
    return last["content"]


def prompt_of(row: dict) -> str:
    """What the answer answers: all turns before it, without the system message."""
    turns = row["messages"]
    turns = turns[:-1] if turns[-1]["role"] == "assistant" else turns
    return "\n".join(turn["content"] for turn in turns if turn["role"] != "system")


def text_of(row: dict, part: Part) -> str:
    """The part of a row that a rule reads."""
    if part == "prompt":
        return prompt_of(row)
    return answer_of(row) if part == "answer" else f"{prompt_of(row)}\n{answer_of(row)}"


def check_part(part: Part) -> None:
    """Raise `ValueError` where there is no such part."""
    if part not in ("prompt", "answer", "both"):
        raise ValueError(f'on={part!r}: choose "prompt", "answer" or "both"')


def task_of(row: dict) -> str:
    """The name of the row's task, or "no task"."""
    return str(row.get("task", "no task"))
