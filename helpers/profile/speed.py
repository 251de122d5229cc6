"""How fast: latency, first token, throughput against concurrency, honest ratios.

Every number here is measured with a warm-up, with a device's queue emptied before the
clock is read, and with the models taking turns, so that a slow moment of the machine
falls on all of them. Compare ratios from one run, never seconds from two.
"""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from ..data.rows import DataError
from ..data.tokens import render_prompt
from ..evaluate.intervals import Interval, bootstrap
from ..generate.teachers import LocalTeacher, Request, Sampling, Teacher
from ..models.loading import ChatModel

Prompts = Sequence[Sequence[dict]]  # chat messages that end in a user's


def latency(
    models: Mapping[str, ChatModel | Teacher],
    prompts: Prompts,
    *,
    max_new_tokens: int = 64,
    warm_up: int = 2,
) -> dict[str, np.ndarray]:
    """Seconds for each prompt, answered alone (batch 1), greedy: name ->
    (len(prompts),).

    The models take turns, prompt by prompt; `warm_up` prompts are answered first and
    not counted. A model that says less is done earlier: look at the lengths, too.
    A `generate.Teacher`, such as an `ApiTeacher`, is timed with its network.
    Raises `ValueError` without prompts and `DataError` for one that gets no answer.
    """
    if not len(prompts):
        raise ValueError("no prompts to time")
    engines = {name: _engine(model, 1) for name, model in models.items()}
    seconds = {name: [] for name in models}
    for count, prompt in enumerate([*prompts[:warm_up], *prompts]):
        for name, engine in engines.items():
            taken = _ask(engine, [prompt], max_new_tokens).seconds
            if count >= min(warm_up, len(prompts)):
                seconds[name].append(taken)
    return {name: np.array(values) for name, values in seconds.items()}


def first_token(
    models: Mapping[str, ChatModel | Teacher], prompts: Prompts, *, warm_up: int = 2
) -> dict[str, np.ndarray]:
    """Seconds until the first token of each answer, as `latency` measures them.

    The prompt is rendered, read, and one token chosen: what a reader waits for before
    text begins to appear.
    """
    return latency(models, prompts, max_new_tokens=1, warm_up=warm_up)


def throughput(
    models: Mapping[str, ChatModel | Teacher],
    prompts: Prompts,
    *,
    batch_size: int = 64,
    max_new_tokens: int = 64,
    repeats: int = 2,
) -> dict[str, float]:
    """Answers a second when prompts come in batches; the best of interleaved repeats.

    The best, because everything else that a machine does can only slow a run down; so
    the first repeat may serve as the warm-up. For the spread see `concurrency`.
    """
    best = dict.fromkeys(models, float("inf"))
    for _ in range(repeats):
        for name, model in models.items():
            run = _ask(_engine(model, batch_size), prompts, max_new_tokens)
            best[name] = min(best[name], run.seconds)
    return {name: len(prompts) / seconds for name, seconds in best.items()}


# ---------------------------------------------------------------- under load


def concurrency(
    models: Mapping[str, ChatModel | Teacher],
    prompts: Prompts,
    *,
    levels: Sequence[int] = (1, 4, 16, 64),
    max_new_tokens: int = 64,
    repeats: int = 3,
) -> pd.DataFrame:
    """What a model does for so many users at a time: a row a model, level and repeat.

    Each user asks, waits for the answer, and asks again at once (a closed loop); so
    `concurrency` answers are wanted at every moment, until the prompts run out. Columns
    beside these three: `answers a second`, `tokens a second` (those written, ends
    included), and `p50` and `p95`: seconds from the question to the whole answer, the
    wait for a free place included.

    All levels answer the same prompts, the longest first, as the engine takes them. The
    models take turns at every level, in every repeat; before that each of them answers
    `level` prompts at each level, not counted. With fewer than about a hundred prompts
    p95 is hardly less than the slowest answer.
    Raises `ValueError` for a level below 1, or with fewer prompts than users.
    """
    if not levels or min(levels) < 1 or max(levels) > len(prompts) or repeats < 1:
        raise ValueError(
            f"levels {list(levels)} and {repeats} repeats with {len(prompts)} prompts: "
            "every level needs at least one user, and a prompt for each"
        )
    asked = {name: _by_length(model, prompts) for name, model in models.items()}
    turns = [(n, level, _engine(models[n], level)) for level in levels for n in models]
    for name, level, engine in turns:  # where memory is short, a batch shrinks here
        _ask(engine, asked[name][:level], max_new_tokens)
    rows = []
    for repeat in range(repeats):
        for name, level, engine in turns:
            run = _ask(engine, asked[name], max_new_tokens)
            rows.append([name, level, repeat, *run.rates(level)])
    columns = ["model", "concurrency", "repeat", "answers a second"]
    return pd.DataFrame(rows, columns=[*columns, "tokens a second", "p50", "p95"])


def spread(table: pd.DataFrame) -> pd.DataFrame:
    """`concurrency` with its repeats drawn together: median, min and max of each."""
    groups = table.drop(columns="repeat").groupby(["model", "concurrency"], sort=False)
    return groups.agg(["median", "min", "max"])


def speed_up(table: pd.DataFrame, fast: str, slow: str) -> pd.DataFrame:
    """How many times the answers a second of `slow` the model `fast` gives, by level.

    One ratio a repeat of `concurrency`, from the same minutes of the machine; their
    median, min and max.
    """
    index = ["concurrency", "repeat"]
    rates = table.pivot(index=index, columns="model", values="answers a second")
    if missing := {fast, slow} - set(rates):
        raise ValueError(f"no {sorted(missing)} in the table, only {sorted(rates)}")
    times = rates[fast] / rates[slow]
    return times.groupby("concurrency", sort=False).agg(["median", "min", "max"])


def users_served(table: pd.DataFrame, limit_seconds: float) -> dict[str, int]:
    """Model -> most users at a time of whom 95 % have the answer within the limit.

    The largest level of `concurrency` at which this held in every repeat, as at all
    smaller levels; 0 where even one user waits longer.
    """
    worst = table.groupby(["model", "concurrency"])["p95"].max()
    served = {}
    for name in table["model"].unique():
        kept = (worst[name].sort_index() <= limit_seconds).cummin()
        served[name] = int(max(kept.index[kept], default=0))
    return served


# ---------------------------------------------------------------- ratios


def ratio(
    seconds: Sequence[float],
    of: Sequence[float],
    *,
    statistic: Callable = np.median,
    **settings: int,
) -> Interval:
    """`seconds` as a share of `of`, both from one call of `latency`, with an interval.

    The ratio of two medians, which one slow moment does not move, or, with
    `statistic=np.mean`, of two means, which is what a bill counts. The bootstrap is
    paired: prompts are resampled, and both times of a prompt stay together. `settings`:
    resamples and seed. Raises `ValueError` when the two were not timed on the same
    number of prompts.
    """

    def share(above, below, axis=-1):
        return statistic(above, axis=axis) / statistic(below, axis=axis)

    return bootstrap(share, seconds, of, **settings)


# ---------------------------------------------------------------- one timed run


class _Run(NamedTuple):
    """Place of a prompt -> seconds until its reply; seconds and tokens of the whole."""

    moments: dict[int, float]
    seconds: float
    tokens: int

    def rates(self, users: int) -> list[float]:
        """Answers and tokens a second; p50 and p95 of the seconds of an answer."""
        # The first users ask at 0; whoever gets an answer asks the next question.
        asked = [0.0] * users + sorted(self.moments.values())
        waits = [moment - asked[place] for place, moment in self.moments.items()]
        answers, tokens = len(waits) / self.seconds, self.tokens / self.seconds
        return [answers, tokens, *np.percentile(waits, [50, 95])]


def _ask(engine: Teacher, prompts: Prompts, max_new_tokens: int) -> _Run:
    """Answer prompts with an eye on the clock."""
    requests = [Request(list(prompt)) for prompt in prompts]
    sampling = Sampling(max_new_tokens)
    moments, tokens = {}, 0
    _synchronise(engine)
    start = time.perf_counter()
    for place, reply in engine.replies(requests, sampling):
        if reply.error:
            raise DataError(f"prompt {place + 1} cannot be timed: {reply.error}")
        moments[place] = time.perf_counter() - start
        tokens += reply.completion_tokens
    _synchronise(engine)
    return _Run(moments, time.perf_counter() - start, tokens)


def _engine(model: ChatModel | Teacher, users: int) -> Teacher:
    if isinstance(model, ChatModel):
        return LocalTeacher(model, users)
    if isinstance(model, LocalTeacher):
        return LocalTeacher(model.chat, users)
    teacher = copy.copy(model)
    teacher.concurrency = users
    return teacher


def _by_length(model: ChatModel | Teacher, prompts: Prompts) -> Prompts:
    """In the order in which `generate.decode` takes them: the longest first."""
    engine = _engine(model, 1)
    if not isinstance(engine, LocalTeacher):
        return prompts
    tokenizer = engine.chat.tokenizer
    texts = [render_prompt(tokenizer, prompt) for prompt in prompts]
    ids = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return [prompts[i] for i in sorted(range(len(ids)), key=lambda i: -len(ids[i]))]


def _synchronise(engine: Teacher) -> None:
    """Wait until the device has done all it was given: it works behind our back."""
    if isinstance(engine, LocalTeacher):
        device = engine.chat.model.device
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
