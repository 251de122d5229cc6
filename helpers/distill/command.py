"""The course's pipeline as one command, for a terminal or a cluster.

    python -m helpers.distill --out runs/first
    python -m helpers.distill --track gpu --data mine.jsonl --out runs/mine
    accelerate launch --num_processes 4 -m helpers.distill --track gpu --out runs/four

generate -> filter -> cache -> train -> evaluate -> report, in the folder --out, which
also holds the student. Killed, it goes on with --resume.

`teacher_rows` and `distil`, the same in two calls, are in `pipeline`.
"""

import argparse
import os
import re
import shlex
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

CODE = 2  # of what the user can mend


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(arguments)
    if options.teacher_key and not re.fullmatch("[A-Z][A-Z0-9_]*", options.teacher_key):
        return _fail(
            "--teacher-key takes the name of an environment variable, in capitals, not "
            "the key itself"
        )
    print("loading the libraries ...", file=sys.stderr, flush=True)
    from . import crew, report, run  # these take seconds

    process = ""
    try:
        job = run.Run(track_of(options), settings_of(options), options.out)
        if job.crew.size > 1:
            process = f"process {job.crew.rank}: "
        elif _cpu_launch():
            job.note(
                "accelerate launch --cpu starts one process, whatever --num_processes "
                "says. For several: torchrun --nproc_per_node 2 -m helpers.distill ..."
            )
        if outcome := job(resume=options.resume):
            command = shlex.join(["python", "-m", "helpers.distill", *arguments])
            path = report.write(outcome, options.out, command)
            print(report.headline(outcome.report.table, outcome.material.gold))
            print(f"Read {path}")
    except crew.Elsewhere:
        return CODE  # the main process says why
    except _expected() as error:
        return _fail(f"{process}{error}")
    except KeyboardInterrupt:
        print("\nstopped; the same command with --resume goes on", file=sys.stderr)
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """The options; those left out have the value None, or are false."""
    found = argparse.ArgumentParser(
        prog="python -m helpers.distill",
        description=__doc__.partition("\n`teacher_rows`")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = found.add_argument
    add("--out", type=Path, required=True, help="folder of the run: new or empty")
    add("--resume", action="store_true", help="go on with the run in --out, if any")
    add = found.add_argument_group("models (see helpers/tracks.toml)").add_argument
    add("--track", help="tiny, gpu, api, ...; default: COURSE_TRACK, else tiny")
    add("--teacher", help="a folder or a name on the hub; of an API, its name there")
    add("--student", help="a folder or a name on the hub")
    add("--teacher-url", help="the teacher is an OpenAI-compatible API at this address")
    add("--teacher-key", metavar="VARIABLE", help="environment variable with its key")
    any_field = "any other field of the track, as in --set batch_size=4 max_length=512"
    add("--set", nargs="+", default=[], metavar="FIELD=VALUE", help=any_field)
    add = found.add_argument_group("data").add_argument
    add("--data", type=Path, metavar="FILE", help="JSONL; default: the helpdesk")
    add("--test", type=Path, metavar="FILE", help="default: a tenth of the data")
    add("--prompt-key", metavar="KEY", help="where a row of the file has its prompt")
    add("--answer-key", metavar="KEY", help="where it has the right answer, if any")
    add("--prompts", type=_whole, metavar="N", help="of the helpdesk (1000)")
    add("--held-out", type=_whole, metavar="N", help="at most, of each split (500)")
    near = "drop answers of the teacher with less token F1 to the right one (0)"
    add("--min-f1", type=_share, metavar="F1", help=near)
    add = found.add_argument_group("training").add_argument
    learnt = "the teacher's distribution or only its text; default: the track's"
    add("--signal", choices=("live", "cached", "text"), help=learnt)
    steps = "600; for --data three times over it, at least 60"
    add("--steps", type=_whole, metavar="N", help=steps)
    weight = "of the distribution beside the text (1)"
    add("--soft-weight", type=_share, metavar="W", help=weight)
    softens = "softens both distributions (1)"
    add("--temperature", type=_positive, metavar="T", help=softens)
    add("--rank", type=_whole, metavar="R", help="of LoRA; default: the track's")
    add("--full", action="store_true", help="train every weight instead of LoRA")
    rate = "default: the track's"
    add("--learning-rate", type=_positive, metavar="RATE", help=rate)
    add("--max-new-tokens", type=_whole, metavar="N", help="of an answer")
    add("--seed", type=int, metavar="N", help="of prompts, LoRA and order (0)")
    return found


def settings_of(options: argparse.Namespace):
    """The options as `Settings`."""
    from dataclasses import fields

    from .settings import Settings

    given = {f.name: getattr(options, f.name, None) for f in fields(Settings)}
    return Settings(**{name: v for name, v in given.items() if v is not None})


def track_of(options: argparse.Namespace):
    """The track with what the options change.

    Raises `TrackError` for a field that it does not have, and a value of another kind.
    """
    from dataclasses import fields, replace

    from .. import tracks

    track = tracks.load(options.track)
    changes = {
        "teacher": options.teacher,
        "student": options.student,
        "teacher_url": options.teacher_url,
        "teacher_key": options.teacher_key,
        "lora_rank": options.rank,
        "learning_rate": options.learning_rate,
        "max_new_tokens": options.max_new_tokens,
    }
    kinds = {field.name: field.type for field in fields(track)}
    for given in options.set:
        name, _, text = given.partition("=")
        if name not in kinds or name == "name":
            names = ", ".join(sorted(set(kinds) - {"name"}))
            raise tracks.TrackError(f"--set {given}: the fields of a track are {names}")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text  # a string without quotes
        if kinds[name] is float and isinstance(value, int):
            value = float(value)
        if type(value) is not kinds[name]:
            raise tracks.TrackError(
                f"--set {given}: needs a value of type {kinds[name].__name__}"
            )
        changes[name] = value
    changes = {name: value for name, value in changes.items() if value is not None}
    for role in ("teacher", "student"):
        if role in changes and Path(changes[role]).is_dir():
            changes[role] = str(Path(changes[role]).resolve())
    return replace(track, **changes)


def _cpu_launch() -> bool:
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true")
    return on_cpu and "MASTER_PORT" in os.environ and "WORLD_SIZE" not in os.environ


def _expected() -> tuple[type[BaseException], ...]:
    """What says by itself what to do: no traceback."""
    import torch

    from ..data.rows import DataError
    from ..generate.api import TeacherError
    from ..generate.budget import BudgetSpent
    from ..models.adapters import AdapterError
    from ..models.hub import ModelError
    from ..quality.base import RuleError
    from ..tracks import TrackError
    from ..train.cache_files import CacheError
    from .settings import RunError

    errors = (AdapterError, BudgetSpent, CacheError, DataError, ModelError, RuleError)
    errors += (RunError, TeacherError, TrackError, FloatingPointError, OSError)
    return (*errors, torch.OutOfMemoryError)


def _fail(text: str) -> int:
    print(f"helpers.distill: {text}", file=sys.stderr)
    return CODE


def _whole(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


def _share(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _positive(text: str) -> float:
    value = _number(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
