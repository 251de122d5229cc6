"""Stage 1: a teacher answers prompts; the answers are on disk as soon as they exist."""

import hashlib
import json
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .data import DataError, need_template, render_prompt, write_json
from .decode import Draw, Greedy, decode, eval_mode
from .hub import origin
from .journal import Journal
from .models import ChatModel, end_tokens, weights_hash

# ------------------------------------------------------------------ asking a teacher


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


# ------------------------------------------------------------------ what it costs


class Usage(NamedTuple):
    """Tokens read and tokens written by a teacher."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def plus(self, prompt_tokens: int, completion_tokens: int) -> "Usage":
        return Usage(
            self.prompt_tokens + prompt_tokens,
            self.completion_tokens + completion_tokens,
        )


@dataclass(frozen=True)
class Prices:
    """Money for a million tokens that the teacher reads, and for a million it writes.

    Prices change: take them from your provider's page.
    """

    prompt: float = 0.0
    completion: float = 0.0

    def cost(self, usage: Usage) -> float:
        written = usage.completion_tokens * self.completion
        return (usage.prompt_tokens * self.prompt + written) / 1e6


@dataclass(frozen=True)
class Budget:
    """The most that one answers file may cost, over all calls that write to it.

    A request is sent when the budget covers its worst case: a token for each character
    of the prompt, and `max_new_tokens`. What an API charges beyond that (its template,
    an empty answer that is asked for again) can pass the limit by a little.
    """

    tokens: int | None = None
    money: float | None = None
    prices: Prices = field(default_factory=Prices)

    def __post_init__(self):
        if self.money is not None and not self.prices.cost(Usage(1, 1)):
            raise ValueError(
                "a budget in money needs prices: Budget(money=5, prices=Prices(...))"
            )

    def allows(self, usage: Usage) -> bool:
        return (self.tokens is None or sum(usage) <= self.tokens) and (
            self.money is None or self.prices.cost(usage) <= self.money
        )

    def __str__(self) -> str:
        limits = []
        if self.tokens is not None:
            limits.append(f"{self.tokens:,} tokens")
        if self.money is not None:
            limits.append(f"{self.money:,.2f} in money")
        return " and ".join(limits)


class BudgetSpent(RuntimeError):
    """The budget ends the run; what was answered is in the file."""


def usage_of(rows: Iterable[dict]) -> Usage:
    """The tokens of all rows that `generate_answers` wrote."""
    total = Usage()
    for row in rows:
        total = total.plus(**row.get("usage", {}))
    return total


# ------------------------------------------------------------------ answers in a file


def generate_answers(
    teacher: ChatModel | Teacher,
    prompts: Sequence[dict],
    path: str | Path,
    *,
    samples: int = 1,
    max_new_tokens: int = 64,
    batch_size: int = 64,
    sampling_temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    budget: Budget | None = None,
    retry_failed: bool = False,
    progress: bool = True,
) -> list[dict]:
    """Let the teacher answer every prompt; return the rows and leave them in `path`.

    A prompt is a row `{"id": ..., "messages": [..., user], ...}`; its answer is
    appended to the messages, `finish_reason` and `usage` are added, and other keys are
    kept. With `samples` above 1 there are as many rows an id, told apart by `sample`.
    The rows come back in the order of the prompts; in the chat JSONL file they stand as
    they got ready. Killed at any moment, a second call drops a torn last line and asks
    only for what is missing. Answers to prompts that are not asked for stay there.

    Beside `x.jsonl`, `x.manifest.json` says which teacher wrote with which settings,
    and `x.failed.jsonl` is the log of prompts that could not be answered, with the
    reason as `error`; `retry_failed` asks these again. A `budget` counts everything in
    the two files; prompts under way are answered and written before the run ends.

    Raises `DataError` when two prompts share an id, when the file answers another
    prompt under one of these ids or was written by another teacher or with other
    settings, when it cannot be written, or when somebody else writes to it;
    `BudgetSpent` when the budget is too small for the rest; `ValueError` for several
    samples of greedy text, which are all the same.
    """
    path = Path(path)
    sampling = Sampling(max_new_tokens, sampling_temperature, top_p)
    if samples > 1 and not sampling_temperature:
        raise ValueError(
            "several samples need sampling_temperature > 0: greedy text is always the "
            "same"
        )
    asked = {
        (row["id"], sample): row for row in prompts for sample in range(samples)
    }  # fmt: skip
    if len(asked) < samples * len(prompts):
        raise DataError("two prompts share an id; give every prompt its own")
    if isinstance(teacher, ChatModel):
        teacher = LocalTeacher(teacher, batch_size)
    with ExitStack() as stack:
        answers = stack.enter_context(Journal(path))
        failures = stack.enter_context(Journal(path.with_suffix(".failed.jsonl")))
        _check_manifest(
            path,
            {"teacher": teacher.describe(), "sampling": asdict(sampling), "seed": seed},
            answers.rows,
        )
        finished = {_key(row): row for row in answers.rows if _key(row) in asked}
        for key, row in finished.items():
            if list(asked[key]["messages"]) != row["messages"][:-1]:
                raise DataError(
                    f"{path} already answers another prompt under id {key[0]!r}; "
                    "write to another file, or delete this one to start afresh"
                )
        failed = set() if retry_failed else {_key(row) for row in failures.rows}
        todo = [key for key in asked if key not in finished and key not in failed]
        requests = []
        for id, sample in todo:
            messages = list(asked[id, sample]["messages"])
            requests.append(Request(messages, seed_of(messages, seed, sample)))
        spent = usage_of([*answers.rows, *failures.rows])
        feed = _Feed(requests, sampling, budget, spent)
        started = time.perf_counter()
        with tqdm(total=len(todo), desc="teacher answers", disable=not progress) as bar:
            while True:  # once, unless a teacher takes up the budget with one handful
                first = feed.given
                # Closed at once when something fails here: requests cost money.
                with closing(teacher.replies(feed.round(), sampling)) as replies:
                    for place, reply in replies:
                        key = todo[first + place]
                        row = _row(asked[key], reply, key[1] if samples > 1 else None)
                        (failures if reply.error else answers).append(row)
                        if not reply.error:
                            finished[key] = row
                        feed.replied(first + place, reply)
                        written = feed.spent.completion_tokens - spent.completion_tokens
                        speed = written / (time.perf_counter() - started)
                        bar.set_postfix_str(f"{speed:,.0f} tokens/s", refresh=False)
                        bar.update()
                if feed.given in (first, len(todo)):
                    break
    if feed.given < len(todo):
        raise BudgetSpent(
            f"the budget of {budget} is spent ({sum(feed.spent):,} tokens): "
            f"{len(finished)} of {len(asked)} answers are in {path}. "
            "Raise the budget and call again for the rest"
        )
    if missing := len(asked) - len(finished):
        warnings.warn(
            f"{missing} of {len(asked)} answers are missing; the reasons are in "
            f"{failures.path}. Call again with retry_failed=True to ask once more",
            stacklevel=2,
        )
    return [finished[key] for key in asked if key in finished]


class _Feed:
    """Hands out requests as long as the budget covers the worst they can cost."""

    def __init__(self, requests: Sequence[Request], sampling: Sampling, budget, spent):
        self.requests, self.sampling = requests, sampling
        self.budget, self.spent = budget, spent
        self.given, self.reserved = 0, {}

    def round(self) -> Iterator[Request]:
        """Requests until the budget is taken up by those that are under way."""
        while self.given < len(self.requests) and self.affordable():
            self.given += 1
            yield self.requests[self.given - 1]

    def affordable(self) -> bool:
        """Whether the next request fits; if so, what it may cost is reserved."""
        if self.budget:
            messages = self.requests[self.given].messages
            # A character is seldom more than one token.
            characters = sum(len(message["content"]) for message in messages)
            worst = Usage(characters, self.sampling.max_new_tokens)
            taken = self.spent
            for usage in (worst, *self.reserved.values()):
                taken = taken.plus(*usage)
            if not self.budget.allows(taken):
                return False
            self.reserved[self.given] = worst
        return True

    def replied(self, place: int, reply: Reply) -> None:
        self.spent = self.spent.plus(reply.prompt_tokens, reply.completion_tokens)
        self.reserved.pop(place, None)


def _key(row: dict) -> tuple:
    return row["id"], row.get("sample", 0)


def _row(prompt: dict, reply: Reply, sample: int | None) -> dict:
    """The row of a reply as it stands in the file."""
    usage = {
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
    }
    row = {**prompt, "messages": list(prompt["messages"]), "usage": usage}
    if sample is not None:
        row["sample"] = sample
    if reply.error:
        return {**row, "error": reply.error}
    # Half of a surrogate pair, which a server may send, cannot be written as UTF-8.
    text = reply.text.encode(errors="replace").decode()
    row["messages"].append({"role": "assistant", "content": text})
    return {**row, "finish_reason": reply.finish_reason}


def _check_manifest(path: Path, settings: dict, rows: Sequence[dict]) -> None:
    """One teacher and one set of settings a file: compare, or write them down."""
    manifest = path.with_suffix(".manifest.json")
    if not rows:
        write_json(manifest, settings)
        return
    advice = f"write to another file, or delete {path} to start afresh"
    try:
        before = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DataError(
            f"{path} has no readable {manifest.name}, so nobody knows which teacher "
            f"wrote it; {advice}"
        ) from None
    old, new = _flat(before), _flat(settings)
    changed = [
        f"{name} was {old.get(name)!r} and is now {new.get(name)!r}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]
    if changed:
        raise DataError(f"{path} was begun otherwise: {'; '.join(changed)}; {advice}")


def _flat(settings: dict) -> dict:
    return {
        f"{group}.{name}" if isinstance(values, dict) else group: value
        for group, values in settings.items()
        for name, value in (
            values.items() if isinstance(values, dict) else [("", values)]
        )
    }
