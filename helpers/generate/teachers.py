"""Asking a teacher: requests, replies, and the model in this process."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, Protocol

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.rows import DataError
from ..data.tokens import need_template, render_prompt
from ..models.hub import origin
from ..models.loading import ChatModel, end_tokens, weights_hash
from ..models.modes import eval_mode
from .decoding import Draw, Greedy, decode


class Request(NamedTuple):
    """One question to a teacher: messages that end in a user's, and the draw's seed."""

    messages: list[dict]
    seed: int = 0


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn; `sampling_temperature=0` is greedy.

    Raises `ValueError` for settings that no teacher can follow.
    """

    max_new_tokens: int = 64
    sampling_temperature: float = 0.0
    top_p: float = 1.0

    def __post_init__(self):
        if self.sampling_temperature < 0 or not 0 < self.top_p <= 1:
            raise ValueError("sampling_temperature must be >= 0 and top_p in (0, 1]")
        if self.max_new_tokens < 1:
            raise ValueError("max_new_tokens must be at least 1")


@dataclass(frozen=True)
class Reply:
    """What a teacher said, or, with `finish_reason="error"`, why it said nothing.

    `finish_reason` is `stop` when the teacher ended the answer and `length` when it was
    cut at `max_new_tokens`.
    """

    text: str = ""
    finish_reason: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str = ""

    @classmethod
    def failed(cls, reason: str, **tokens: int) -> "Reply":
        return cls(finish_reason="error", error=reason, **tokens)


class Teacher(Protocol):
    """Anything that answers: a model in this process, or one behind an address."""

    def describe(self) -> dict:
        """What identifies the teacher, as JSON, for the manifest; never a key."""

    def replies(
        self, requests: Iterable[Request], sampling: Sampling
    ) -> Iterator[tuple[int, Reply]]:
        """A generator of pairs, a request's place and its reply, as they get ready.

        Requests are taken from the iterator as the teacher gets to them, and each one
        taken gives one reply. A request that fails is a reply with `error`; an
        exception means that no request can succeed. Closed early, it breaks off.
        """


class LocalTeacher:
    """A model in this process; `batch_size` prompts are under way at a time."""

    def __init__(self, chat: ChatModel, batch_size: int = 64):
        need_template(chat.tokenizer)
        self.chat, self.batch_size = chat, batch_size

    def describe(self) -> dict:
        model, tokenizer = self.chat
        name, revision = origin(model.config._name_or_path)
        template = hashlib.blake2b(tokenizer.chat_template.encode(), digest_size=8)
        return {
            "model": name,
            "revision": revision,
            "weights": weights_hash(model),
            "template": template.hexdigest(),
        }

    def replies(
        self, requests: Iterable[Request], sampling: Sampling
    ) -> Iterator[tuple[int, Reply]]:
        """See `Teacher`. A batch too large for the memory is halved."""
        numbered = enumerate(requests)
        # Many batches at a time: prompts of one length are read together, and those
        # that are done early make room for others.
        while window := list(islice(numbered, 16 * self.batch_size)):
            fitting = {}
            for place, request in window:
                ids, problem = self._prompt(request, sampling)
                if problem:
                    yield place, Reply.failed(problem, prompt_tokens=len(ids))
                else:
                    fitting[place] = request, ids
            while fitting:
                try:
                    for place, reply in self._answers(fitting, sampling):
                        del fitting[place]
                        yield place, reply
                except torch.OutOfMemoryError:
                    if self.batch_size == 1:
                        raise
                    self.batch_size //= 2
                    torch.cuda.empty_cache()

    def _prompt(self, request: Request, sampling: Sampling) -> tuple[list[int], str]:
        """The token ids of a prompt, and why it cannot be answered, if it cannot."""
        model, tokenizer = self.chat
        try:
            text = render_prompt(tokenizer, request.messages)
        except DataError as error:
            return [], str(error)
        # `verbose` is for its warning of long texts; the answer to these is below.
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        limit = getattr(model.config, "max_position_embeddings", None)
        if limit and len(ids) + sampling.max_new_tokens > limit:
            return ids, (
                f"a prompt of {len(ids)} tokens and {sampling.max_new_tokens} new ones "
                f"exceed the model's {limit} positions; shorten the prompt"
            )
        return ids, ""

    def _answers(
        self, asked: dict[int, tuple[Request, list[int]]], sampling: Sampling
    ) -> Iterator[tuple[int, Reply]]:
        model, tokenizer = self.chat
        new, heat = sampling.max_new_tokens, sampling.sampling_temperature
        places, prompts = list(asked), [ids for _, ids in asked.values()]
        seeds = [request.seed for request, _ in asked.values()]
        choose = Draw(seeds, new, heat, sampling.top_p) if heat else Greedy()
        stop = end_tokens(model, tokenizer)
        settings = {
            "stop": stop,
            "max_new_tokens": new,
            "batch_size": self.batch_size,
            # Columns of logits beyond the tokenizer's ids are padding.
            "vocab": max(len(tokenizer) - 1, *stop) + 1,
        }
        with eval_mode(model):
            for i, (tokens, ended) in decode(model, prompts, choose, **settings):
                text = tokenizer.decode(tokens, skip_special_tokens=True).strip()
                reason, read = "stop" if ended else "length", len(prompts[i])
                yield places[i], Reply(text, reason, read, len(tokens) + ended)


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

    Prompts are batched by length so that little is padded, and where a row is finished
    the next prompt takes its place. `sampling_temperature=0` is greedy; above it, a
    prompt's sample depends on `seed` and the prompt alone, not on its neighbours. The
    sampling defaults that a model carries in its own generation file never leak in.

    Raises `ValueError` for a negative temperature or a `top_p` outside (0, 1], and
    `DataError` for a prompt that the model cannot read.
    """
    sampling = Sampling(max_new_tokens, sampling_temperature, top_p)
    teacher = LocalTeacher(ChatModel(model, tokenizer), batch_size)
    requests = [Request(list(p), seed_of(p, seed)) for p in prompts]
    answers = [""] * len(requests)
    replies = teacher.replies(requests, sampling)
    total = len(requests)
    for i, reply in tqdm(replies, "answers", total=total, disable=not progress):
        if reply.error:
            raise DataError(f"prompt {i + 1}: {reply.error}")
        answers[i] = reply.text
    return answers


def seed_of(messages: Sequence[dict], seed: int, sample: int = 0) -> int:
    """The seed of one draw: a hash of the prompt, the run's seed and the sample."""
    text = json.dumps([seed, sample, list(messages)])
    digest = hashlib.blake2b(text.encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big") >> 3  # 53 bits: a whole number in any JSON
