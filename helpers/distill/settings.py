"""What a run depends on, and what of it must not change when the run goes on."""

import hashlib
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ..tracks import Track

# Fields of a track that change where and how fast, not what is computed.
FREE = ("device", "card", "generate_batch_size", "checkpointing", "fused_head")
FREE += ("batch_size", "accumulation", "teacher_url", "teacher_key")


class RunError(ValueError):
    """A run that cannot start or go on; the message says what to do."""


@dataclass(frozen=True)
class Settings:
    """What a run depends on beside its track."""

    data: Path | None = None  # None: the helpdesk's prompts, as many as `prompts`
    test: Path | None = None  # None: a tenth of the data
    prompt_key: str | None = None
    answer_key: str | None = None
    prompts: int = 1000
    held_out: int = 500  # at most, of each split
    min_f1: float = 0.0
    signal: str | None = None  # live, cached or text; None: the track's
    steps: int | None = None  # None: see STEPS and PASSES of `run`
    soft_weight: float = 1.0
    temperature: float = 1.0
    full: bool = False
    seed: int = 0


def facts(track: Track, settings: Settings) -> dict:
    """What must not change: files' content, and the track's fields but for `FREE`."""
    names = [field.name for field in fields(track) if field.name not in FREE]
    found = {name: getattr(track, name) for name in names}
    found |= {role: name_of(found[role]) for role in ("teacher", "student")}
    found["rows a step"] = track.batch_size * track.accumulation
    for name, value in asdict(settings).items():
        if isinstance(value, Path):
            found[f"content of {name}"] = _digest(value)
        else:
            found[name] = value
    return found


def check_same(before: dict, now: dict, folder: Path) -> None:
    """Compare the `facts` of two calls. Raises `RunError` that names what differs."""
    changed = [
        f"{name} was {before.get(name)!r} and is now {now.get(name)!r}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    if changed:
        raise RunError(
            f"{folder} was begun otherwise: {'; '.join(changed)}; give the "
            "settings it was begun with, or choose another folder"
        )


def name_of(model: str) -> str:
    """A hub id, or the last part of a folder."""
    return Path(model).name if Path(model).is_absolute() else model


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError:
        return "no file"  # reading it will say more
