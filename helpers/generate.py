"""Stage 1: a model answers prompts, in batches, written to disk, resumable."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from tqdm.auto import tqdm
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TopPLogitsWarper,
)

from .data import DataError, read_chat, render_prompt
from .models import ChatModel


class _Sampler(LogitsProcessor):
    """Turns greedy search into sampling, with a stream of chance for each row.

    The largest of logits / temperature + Gumbel noise is a sample from the softmax
    (Gumbel 1954; Maddison, Tarlow and Minka 2014). A stream seeded by the prompt makes
    the answer to a prompt the same in any batch and any order.
    """

    def __init__(self, seeds: Sequence[int], temperature: float, top_p: float):
        self.streams = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.temperature = temperature
        self.nucleus = TopPLogitsWarper(top_p) if top_p < 1 else None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.float() / self.temperature
        if self.nucleus:
            scores = self.nucleus(input_ids, scores)
        noise = [torch.empty(scores.shape[-1]).exponential_(generator=g).log_()
                 for g in self.streams]  # fmt: skip
        return scores - torch.stack(noise).to(scores.device)


def _seed_of(text: str, seed: int) -> int:
    digest = hashlib.blake2b(f"{seed} {text}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big")


@contextmanager
def _answering(model: PreTrainedModel, settings: GenerationConfig) -> Iterator[None]:
    """The model in eval mode under our settings; afterwards as it was, come what may.

    `generate` fills what a caller left open from the model's own defaults, so those
    must be ours as well.
    """
    was_training, own_defaults = model.training, model.generation_config
    model.eval()
    model.generation_config = settings
    try:
        yield
    finally:
        model.generation_config = own_defaults
        model.train(was_training)


@torch.inference_mode()
def answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[dict]],
    *,
    max_new_tokens: int = 64,
    batch_size: int = 64,
    sampling_temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    progress: bool = False,
) -> list[str]:
    """The model's answer to each prompt (a list of chat messages), in the order given.

    Prompts are batched by length so that little is padded. `sampling_temperature=0` is
    greedy; above it, a prompt's sample depends on `seed` and the prompt alone, not on
    its neighbours. Every setting is passed explicitly: the defaults that a model
    carries in its own generation file never leak in.

    Raises `ValueError` for a negative temperature or a `top_p` outside (0, 1].
    """
    if sampling_temperature < 0 or not 0 < top_p <= 1:
        raise ValueError("sampling_temperature must be >= 0 and top_p in (0, 1]")
    texts = [render_prompt(tokenizer, prompt) for prompt in prompts]
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    answers = [""] * len(ids)
    starts = range(0, len(ids), batch_size)
    for start in tqdm(starts, desc="answers", disable=not progress):
        rows = order[start : start + batch_size]
        width = max(len(ids[i]) for i in rows)
        # Prompts are padded on the left, so that every answer starts at the same place.
        batch = torch.full((len(rows), width), tokenizer.pad_token_id)
        mask = torch.zeros_like(batch)
        for r, i in enumerate(rows):
            batch[r, width - len(ids[i]) :] = torch.tensor(ids[i])
            mask[r, width - len(ids[i]) :] = 1
        chance = LogitsProcessorList()
        if sampling_temperature > 0:
            seeds = [_seed_of(texts[i], seed) for i in rows]
            chance.append(_Sampler(seeds, sampling_temperature, top_p))
        with _answering(model, settings):
            output = model.generate(
                input_ids=batch.to(model.device),
                attention_mask=mask.to(model.device),
                generation_config=settings,
                logits_processor=chance,
            )
        for i, tokens in zip(rows, output[:, width:], strict=True):
            answers[i] = tokenizer.decode(tokens, skip_special_tokens=True).strip()
    return answers


def generate_answers(
    teacher: ChatModel,
    prompts: Sequence[dict],
    path: str | Path,
    *,
    max_new_tokens: int = 64,
    batch_size: int = 64,
    sampling_temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    progress: bool = True,
) -> list[dict]:
    """Let the teacher answer every prompt; return the rows and leave them in `path`.

    A prompt is a row `{"id": ..., "messages": [..., user], ...}`; its answer is
    appended to the messages, and other keys are kept. The chat JSONL file grows a few
    batches at a time, in the order of the prompts. Killed at any moment, a second call
    drops a torn last line and answers only what is missing. Answers to prompts that are
    not asked for stay in the file.

    Raises `DataError` when two prompts share an id, or when the file already answers
    another prompt under one of these ids.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    by_id = {row["id"]: row for row in prompts}
    if len(by_id) < len(prompts):
        raise DataError("two prompts share an id; give every prompt its own")
    done = [row for row in _finished(path) if row["id"] in by_id]
    for row in done:
        if list(by_id[row["id"]]["messages"]) != row["messages"][:-1]:
            raise DataError(
                f"{path} already answers another prompt under id {row['id']!r}; "
                "write to another file, or delete this one to start afresh"
            )
    finished = {row["id"] for row in done}
    todo = [row for row in prompts if row["id"] not in finished]
    with path.open("a", encoding="utf-8") as file:
        with tqdm(total=len(todo), desc="teacher answers", disable=not progress) as bar:
            # A few batches at a time: enough to sort by length, little to lose.
            for start in range(0, len(todo), 4 * batch_size):
                rows = todo[start : start + 4 * batch_size]
                said = answer(
                    teacher.model,
                    teacher.tokenizer,
                    [row["messages"] for row in rows],
                    max_new_tokens=max_new_tokens,
                    batch_size=batch_size,
                    sampling_temperature=sampling_temperature,
                    top_p=top_p,
                    seed=seed,
                )
                for row, text in zip(rows, said, strict=True):
                    reply = {"role": "assistant", "content": text}
                    row = {**row, "messages": [*row["messages"], reply]}
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                    done.append(row)
                file.flush()
                os.fsync(file.fileno())
                bar.update(len(rows))
    order = {id: i for i, id in enumerate(by_id)}
    return sorted(done, key=lambda row: order[row["id"]])


def _finished(path: Path) -> list[dict]:
    """The whole lines already there; a torn last line is cut off the file."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("rb+") as file:
            file.truncate(whole)
    return read_chat(path)
