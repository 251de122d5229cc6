"""Several processes at one job: what each takes over, and one result of all.

`accelerate launch` or `torchrun` starts them; without either there is one. They share a
folder. Each writes a part of its own beside the file or cache it contributes to, and
the main process joins the parts: also those of a run that was killed, whatever the
number of its processes.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from safetensors import safe_open

from ..data.journal import Journal
from ..data.jsonl import read_chat, write_json
from ..generate.answers import generate_answers
from ..generate.teachers import LocalTeacher, Reply, Request, Sampling, Teacher
from ..models.loading import ChatModel
from ..tracks import Track
from ..train.cache import write_cache
from ..train.cache_files import HEAD, MANIFEST, CacheError
from ..train.cache_recorder import row_key


class Elsewhere(RuntimeError):
    """Another process failed and says why: there is nothing to add."""


class Crew:
    """The processes of this job, seen from one of them: number `rank` of `size`."""

    def __init__(self, track: Track):
        # While the main process works alone, the others may have to wait for long.
        state = PartialState(cpu=track.device == "cpu", timeout=timedelta(days=2))
        self.rank, self.size = state.process_index, state.num_processes
        self.main, self.device = self.rank == 0, state.device

    def place(self, track: Track) -> Track:
        """The track on the device of this process."""
        if self.size == 1 or self.device.type == track.device == "cpu":
            return track
        return replace(track, device=str(self.device))

    def share(self, things: Sequence) -> Sequence:
        """What this process takes over: every thing is one process's."""
        return things[self.rank :: self.size]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            PartialState().wait_for_everyone()

    def leave(self) -> None:
        """The work of this process is done; others may go on alone."""
        if self.size > 1:
            PartialState().destroy_process_group()

    def first(self, work: Callable[[], object]) -> None:
        """`work` on the main process, while the others wait.

        Where it raises, so does every process: the main one its error, the others
        `Elsewhere`.
        """
        error = None
        if self.main:
            try:
                work()
            except Exception as raised:
                error = raised
        failed = [error is not None]
        if self.size > 1:
            broadcast_object_list(failed)
        if error:
            raise error
        if failed[0] and not self.main:
            raise Elsewhere

    def main_first(self, work: Callable):
        """`work` on all: the main process fetches files, or fails, for all."""
        done = []
        self.first(lambda: done.append(work()))
        return done[0] if self.main else work()


# ---------------------------------------------------------------- answers


class Replay:
    """A teacher whose answers are known: rows that `generate_answers` left in files.

    `rows` may hold failures, with an `error`. A prompt that is not among them fails.
    """

    def __init__(self, rows: Iterable[dict], description: dict | None = None):
        self.rows, self.description = {}, description or {}
        for row in rows:
            prompt = row["messages"] if "error" in row else row["messages"][:-1]
            self.rows[json.dumps(prompt)] = row

    def knows(self, prompt: dict) -> bool:
        return json.dumps(list(prompt["messages"])) in self.rows

    def describe(self) -> dict:
        return self.description

    def replies(
        self, requests: Iterable[Request], sampling: Sampling
    ) -> Iterator[tuple[int, Reply]]:
        for place, request in enumerate(requests):
            row = self.rows.get(json.dumps(list(request.messages)))
            if row is None:
                yield place, Reply.failed("the teacher did not answer this prompt")
            elif "error" in row:
                yield place, Reply.failed(row["error"], **row["usage"])
            else:
                text, reason = row["messages"][-1]["content"], row["finish_reason"]
                yield place, Reply(text, reason, **row["usage"])


def answers(
    crew: Crew,
    teacher: ChatModel | Teacher,
    prompts: Sequence[dict],
    path: Path,
    *,
    batch_size: int,
    **settings,
) -> list[dict]:
    """`generate.generate_answers`, each process asking for its share of the prompts."""
    if isinstance(teacher, ChatModel):
        teacher = LocalTeacher(teacher, batch_size)
    settings = {"progress": crew.main, **settings}

    def join() -> None:
        _mended(path, _failed(path))
        files = [file for part in _parts(path) for file in (part, _failed(part))]
        replay = Replay(_mended(*files), teacher.describe())
        if known := [prompt for prompt in prompts if replay.knows(prompt)]:
            generate_answers(replay, known, path, **settings | {"progress": False})
        for part in _parts(path):
            for file in path.parent.glob(part.name.removesuffix(path.suffix) + ".*"):
                file.unlink()

    crew.first(join)  # what a killed run left behind
    if crew.size == 1:
        return generate_answers(teacher, prompts, path, **settings)
    there = {row["id"] for row in _rows(path, _failed(path))}
    mine = crew.share([prompt for prompt in prompts if prompt["id"] not in there])
    crew.wait()  # all have read before anyone writes
    if mine:
        generate_answers(teacher, mine, _part(path, crew.rank), **settings)
    crew.wait()
    crew.first(join)
    answered = {row["id"]: row for row in _rows(path)}
    return [answered[p["id"]] for p in prompts if p["id"] in answered]


def _part(path: Path, rank: int) -> Path:
    return path.with_name(f"{path.stem}.part{rank}{path.suffix}")


def _failed(path: Path) -> Path:
    return path.with_suffix(".failed.jsonl")


def _parts(path: Path) -> list[Path]:
    parts = sorted(path.parent.glob(f"{path.stem}.part*{path.suffix}"))
    return [part for part in parts if not part.name.endswith(".failed.jsonl")]


def _rows(*paths: Path) -> list[dict]:
    return [row for path in paths if path.exists() for row in read_chat(path)]


def _mended(*paths: Path) -> list[dict]:
    """The rows of files whose last line a killed process may have left torn."""
    rows = []
    for path in paths:
        if path.exists():
            with Journal(path) as journal:
                rows += journal.rows
    return rows


# ---------------------------------------------------------------- caches


def cached(
    crew: Crew, teacher: ChatModel, rows: Sequence[dict], folder: Path, **settings
) -> None:
    """`train.write_cache`, each process recording its share of the rows."""
    settings = {"progress": crew.main, **settings}
    crew.first(lambda: _join(folder))  # what a killed run left behind
    if crew.size == 1:
        write_cache(teacher, rows, folder, **settings)
        return
    todo, done = {}, _keys(folder)
    for row in rows:
        key = row_key(torch.tensor(row["input_ids"]), torch.tensor(row["labels"]))
        if key not in done:
            todo[key] = row
    crew.wait()
    if mine := crew.share(list(todo.values())):
        write_cache(teacher, mine, _part(folder, crew.rank), **settings)
    crew.wait()
    crew.first(lambda: _join(folder))


def _join(folder: Path) -> None:
    """Move the shards of all parts into the folder; killed on the way, it goes on."""
    for part in _parts(folder):
        if (part / MANIFEST).exists():
            _take_over(part, folder)
        shutil.rmtree(part)


def _take_over(part: Path, folder: Path) -> None:
    theirs = _manifest(part)
    ours = _manifest(folder) or {**theirs, "files": {}}
    if ours["settings"] != theirs["settings"]:
        raise CacheError(
            f"{part} was written otherwise than {folder}: delete one of them"
        )
    folder.mkdir(exist_ok=True)
    there = {entry["blake2b"] for entry in ours["files"].values()}
    for name, entry in theirs["files"].items():
        if entry["blake2b"] in there:
            continue
        names = (f"shard-{number:05}.safetensors" for number in count())
        new = HEAD if name == HEAD else next(n for n in names if n not in ours["files"])
        shutil.copyfile(part / name, folder / new)
        ours["files"][new] = entry
        write_json(folder / MANIFEST, ours)


def _keys(folder: Path) -> set[bytes]:
    """Of the rows that a cache holds."""
    keys = set()
    for name in (_manifest(folder) or {"files": {}})["files"]:
        if name != HEAD:
            with safe_open(folder / name, "pt") as shard:
                keys.update(key.numpy().tobytes() for key in shard.get_tensor("keys"))
    return keys


def _manifest(folder: Path) -> dict | None:
    path = folder / MANIFEST
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
