"""Rows as a model reads them: token ids, labels, padded batches."""

from collections.abc import Iterable, Sequence
from itertools import islice
from os.path import commonprefix

import torch
from datasets import Dataset, concatenate_datasets
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from .rows import DataError

IGNORE_INDEX = -100


def render_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict]) -> str:
    """The prompt as text, up to and including the marker that asks for an answer.

    A model with a thinking mode (Qwen3) is asked to answer without it. Raises
    `DataError` where there is no chat template or it refuses the conversation.
    """
    need_template(tokenizer)
    return _render(tokenizer, messages, add_generation_prompt=True)


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

    Raises `DataError` when the last message is not the assistant's or holds the end
    token, when the template refuses the conversation or does not keep the prompt as a
    prefix, or when the row is longer than `max_length` tokens (cutting would silently
    drop the end-of-answer token).
    """
    row = _tokenize(tokenizer, [_split(tokenizer, messages)])[0]
    if max_length is not None and len(row["labels"]) > max_length:
        raise DataError(_too_long(len(row["labels"]), max_length))
    return row


def encode_chat(
    rows: Iterable[dict],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int | None = None,
) -> Dataset:
    """Tokenised rows as a `datasets.Dataset` with the columns `input_ids` and `labels`.

    Raises `DataError` naming the row that cannot be tokenised, and where there are no
    rows; with `max_length`, how many rows are longer and the length of the longest.
    """
    encoded, longer, total, rows = [], {}, 0, iter(rows)
    while chunk := list(islice(rows, 1000)):  # one tokenizer call for many rows
        texts = []
        for number, row in enumerate(chunk, total + 1):
            try:
                texts.append(_split(tokenizer, row["messages"]))
            except DataError as error:
                raise DataError(f"row {number}: {error}") from None
        tokenized = _tokenize(tokenizer, texts)
        for number, row in enumerate(tokenized, total + 1):
            if max_length is not None and len(row["labels"]) > max_length:
                longer[number] = len(row["labels"])
        encoded.append(Dataset.from_list(tokenized))
        total += len(chunk)
    if longer:
        number, length = next(iter(longer.items()))
        raise DataError(
            f"row {number}: {_too_long(length, max_length)} ({len(longer):,} of "
            f"{total:,} rows exceed it; the longest has {max(longer.values())} tokens)"
        )
    if not encoded:
        raise DataError("no rows; is the file empty, or was everything filtered out?")
    return concatenate_datasets(encoded)


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


def need_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise `DataError` for a tokenizer without a chat template or an end token."""
    name = tokenizer.name_or_path or "this tokenizer"
    if not tokenizer.chat_template:
        raise DataError(
            f"{name} has no chat template; "
            "set tokenizer.chat_template, or take the instruct version of the model"
        )
    if tokenizer.eos_token_id is None:
        raise DataError(
            f"{name} has no end token; set tokenizer.eos_token to the one that the "
            "chat template puts after an answer"
        )


def _render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict], **how: bool
) -> str:
    try:
        return tokenizer.apply_chat_template(
            list(messages), tokenize=False, enable_thinking=False, **how
        )
    except TemplateError as error:
        raise DataError(
            f"the chat template refuses this conversation ({error}); a model without "
            "a system role takes its text at the start of the first user message"
        ) from None


def _split(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict]
) -> tuple[str, str]:
    """A conversation as text, cut into the prompt and what must be learnt."""
    if not messages or messages[-1]["role"] != "assistant":
        raise DataError("a training row must end in an assistant message")
    prompt = render_prompt(tokenizer, messages[:-1])
    if tokenizer.eos_token in messages[-1]["content"]:
        raise DataError(
            f"the answer contains the end token {tokenizer.eos_token}, and would be "
            "cut there; remove it from the text"
        )
    whole = _render(tokenizer, messages)
    if not whole.startswith(prompt):
        at = len(commonprefix([prompt, whole]))
        raise DataError(
            "the chat template renders the prompt differently once it is answered "
            f"({whole[at : at + 20]!r} in place of {prompt[at : at + 20]!r}); labels "
            "cannot be placed. Use a template that keeps it, and answers without "
            "thinking marks"
        )
    return prompt, whole[len(prompt) :]


def _tokenize(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[tuple[str, str]]
) -> list[dict[str, list[int]]]:
    """Ids and labels of prompts and answers, all in one call."""
    flat = [text for pair in texts for text in pair]
    ids = tokenizer(flat, add_special_tokens=False)["input_ids"]
    end, rows = tokenizer.eos_token_id, []
    for prompt, answer in zip(ids[::2], ids[1::2], strict=True):
        if end in answer:  # some templates add a line break after it: not to be learnt
            answer = answer[: answer.index(end) + 1]
        else:
            answer = [*answer, end]
        labels = [IGNORE_INDEX] * len(prompt) + answer
        rows.append({"input_ids": prompt + answer, "labels": labels})
    return rows


def _too_long(length: int, max_length: int) -> str:
    return (
        f"a row of {length} tokens exceeds max_length={max_length}; "
        "raise max_length or drop the row"
    )
