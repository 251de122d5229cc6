"""Chat data: JSONL on disk, token ids in memory, padded batches for a model."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

IGNORE_INDEX = -100
ROLES = ("system", "user", "assistant")


class DataError(ValueError):
    """A data file that cannot be used; the message names file, line and cure."""


def write_chat(path: str | Path, rows: Iterable[dict]) -> Path:
    """Write rows (`{"messages": [...], ...}`) as JSONL, one conversation a line.

    The file appears whole or not at all: it is written beside its place and then moved.
    Raises `DataError` for a row that is no conversation.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        for number, row in enumerate(rows, 1):
            _check_row(row, f"{path}, row {number}")
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    part.replace(path)
    return path


def write_json(path: str | Path, value: dict) -> Path:
    """Write an indented JSON file, whole or not at all, as `write_chat` does."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    part.replace(path)
    return path


def read_chat(path: str | Path) -> list[dict]:
    """Read a chat JSONL file into a list of rows; blank lines are skipped.

    Raises `DataError` naming the file and the line when a line is not JSON or not a
    conversation, and `FileNotFoundError` when there is no such file.
    """
    rows = []
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                row = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{where}: not UTF-8 ({error}); save the file as UTF-8"
                ) from None
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{where}, column {error.colno}: not JSON ({error.msg}); "
                    "every line must be one complete JSON object"
                ) from None
            _check_row(row, where)
            rows.append(row)
    return rows


def _check_row(row: object, where: str) -> None:
    """One conversation: system first if at all, then user and assistant in turn."""
    if not isinstance(row, dict) or not isinstance(row.get("messages"), list):
        raise DataError(f'{where}: needs an object with a list "messages"')
    if not row["messages"]:
        raise DataError(
            f'{where}: "messages" is empty; it needs at least one user message'
        )
    for index, message in enumerate(row["messages"]):
        spot = f"{where}, message {index + 1}"
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise DataError(f'{spot}: "role" must be one of {", ".join(ROLES)}')
        if not isinstance(message.get("content"), str):
            raise DataError(f'{spot}: "content" must be a string')
    roles = [message["role"] for message in row["messages"]]
    turns = roles[1:] if roles[0] == "system" else roles
    if turns != [("user", "assistant")[i % 2] for i in range(len(turns))] or not turns:
        raise DataError(
            f"{where}: roles are {roles}; after an optional system message, "
            "user and assistant must take turns, user first"
        )


def render_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict]) -> str:
    """The prompt as text, up to and including the marker that asks for an answer."""
    _need_template(tokenizer)
    return tokenizer.apply_chat_template(
        list(messages), tokenize=False, add_generation_prompt=True
    )


def tokenize_chat(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[dict],
    *,
    max_length: int | None = None,
) -> dict[str, list[int]]:
    """Token ids and labels of one conversation that ends in the assistant's answer.

    Labels repeat the ids of the last answer and of its end-of-answer token and are -100
    everywhere else, so that a loss sees exactly what the student must learn to say.
    Labels are *not* shifted here: `losses.shift_and_mask` is the only place that
    shifts.

    Raises `DataError` when the last message is not the assistant's, when the template
    does not keep the prompt as a prefix, or when the row is longer than `max_length`
    tokens (cutting would silently drop the end-of-answer token).
    """
    if not messages or messages[-1]["role"] != "assistant":
        raise DataError("a training row must end in an assistant message")
    prompt = render_prompt(tokenizer, messages[:-1])
    whole = tokenizer.apply_chat_template(list(messages), tokenize=False)
    if not whole.startswith(prompt):
        raise DataError(
            "the chat template renders the prompt differently once it is answered; "
            "labels cannot be placed. Use a template that keeps it"
        )
    prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    answer_ids = tokenizer(whole[len(prompt) :], add_special_tokens=False)["input_ids"]
    end = tokenizer.eos_token_id
    if end in answer_ids:  # some templates add a line break after it: not to be learnt
        answer_ids = answer_ids[: answer_ids.index(end) + 1]
    else:
        answer_ids = [*answer_ids, end]
    if max_length is not None and len(prompt_ids) + len(answer_ids) > max_length:
        raise DataError(
            f"a row of {len(prompt_ids) + len(answer_ids)} tokens exceeds max_length="
            f"{max_length}; raise max_length or drop the row"
        )
    return {
        "input_ids": prompt_ids + answer_ids,
        "labels": [IGNORE_INDEX] * len(prompt_ids) + answer_ids,
    }


def encode_chat(
    rows: Iterable[dict],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int | None = None,
) -> Dataset:
    """Tokenised rows as a `datasets.Dataset` with the columns `input_ids` and `labels`.

    Raises `DataError` naming the row that cannot be tokenised.
    """
    encoded = []
    for number, row in enumerate(rows, 1):
        try:
            encoded.append(
                tokenize_chat(tokenizer, row["messages"], max_length=max_length)
            )
        except DataError as error:
            raise DataError(f"row {number}: {error}") from None
    return Dataset.from_list(encoded)


def collate(rows: Sequence[dict], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Pad rows on the right into one batch: `input_ids`, `attention_mask`, `labels`,
    (B, T).

    The mask comes from the lengths, never from comparing ids with the padding id: where
    a tokenizer pads with its end-of-answer token, the real one must still be learnt.
    """
    width = max(len(row["input_ids"]) for row in rows)
    input_ids = torch.full((len(rows), width), pad_token_id)
    labels = torch.full((len(rows), width), IGNORE_INDEX)
    attention_mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        length = len(row["input_ids"])
        input_ids[i, :length] = torch.tensor(row["input_ids"])
        labels[i, :length] = torch.tensor(row["labels"])
        attention_mask[i, :length] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def _need_template(tokenizer: PreTrainedTokenizerBase) -> None:
    if not tokenizer.chat_template:
        raise DataError(
            f"{tokenizer.name_or_path or 'this tokenizer'} has no chat template; "
            "set tokenizer.chat_template, or take the instruct version of the model"
        )
