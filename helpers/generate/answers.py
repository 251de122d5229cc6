"""Stage 1: a teacher answers prompts; the answers are on disk as soon as they exist."""

import json
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path

from tqdm.auto import tqdm

from ..data.journal import Journal
from ..data.jsonl import write_json
from ..data.rows import DataError
from ..models.loading import ChatModel
from .budget import Budget, BudgetSpent, Usage, usage_of
from .teachers import LocalTeacher, Reply, Request, Sampling, Teacher, seed_of


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
