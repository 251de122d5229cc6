"""One course in several sizes: which models, on which device, with which settings."""

import os
import random
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

from . import plots
from .threads import number

HERE = Path(__file__).parent
SETTINGS = HERE / "tracks.toml"
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "datasets")


class TrackError(ValueError):
    """No such track, or one written wrongly; the message says what to do."""


def best_device() -> str:
    """`cuda`, else `mps`, else `cpu`."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@dataclass(frozen=True)
class Track:
    """The settings of one track.

    `teacher` and `student` are folders or names on the hub. Where `teacher_url` is set,
    the teacher is `teacher` at that OpenAI-compatible address, and `teacher_key` names
    the environment variable that holds the key.
    """

    name: str
    teacher: str
    student: str
    batch_size: int  # rows that are in memory together while training
    learning_rate: float
    lora_rank: int
    max_new_tokens: int  # of an answer
    max_length: int  # tokens of a training row: prompt and answer
    accumulation: int = 1  # batches in a step of the optimiser
    generate_batch_size: int = 64  # prompts answered together
    checkpointing: bool = False  # compute activations again instead of keeping them
    quantise_student: bool = False  # the frozen weights in 4 bits: QLoRA
    quantise_teacher: bool = False  # its signal degrades a little
    teacher_signal: str = "live"  # or "cached": the teacher is not there in training
    fused_head: bool = False  # losses from hidden states: no logits
    card: int = 0  # GB of the GPU that these settings are for; 0: any machine
    device: str = field(default_factory=best_device)
    teacher_url: str = ""
    teacher_key: str = ""

    @property
    def offline(self) -> bool:
        """True where both models ship with the course, so that no network is needed."""
        return not self.teacher_url and all(
            Path(model).is_absolute() for model in (self.teacher, self.student)
        )

    @property
    def dtype(self) -> torch.dtype:
        """bfloat16 on an accelerator; float32 on a CPU, where it is fast and exact."""
        return torch.float32 if self.device == "cpu" else torch.bfloat16


def gpu_gib() -> float:
    """Memory of the first GPU in GiB; 0 without one."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory / 2**30
    if torch.backends.mps.is_available():
        return torch.mps.recommended_max_memory() / 2**30
    return 0.0


def names(path: Path = SETTINGS) -> list[str]:
    """The tracks one can choose, in the order of the settings file."""
    return list(_read(path))


def cards(name: str, path: Path = SETTINGS) -> list[int]:
    """The sizes of GPU memory, in GB, that the track has settings for."""
    return [int(key) for key, value in _read(path)[name].items() if _is_card(value)]


def load(name: str | None = None, path: Path = SETTINGS) -> Track:
    """The track called `name`; None reads COURSE_TRACK and falls back to `tiny`.

    Where a track has settings for several sizes of GPU memory, the GPU that is there
    decides, without one the smallest size; `gpu-16` asks for those of a 16 GB card.

    Raises `TrackError` for an unknown name, listing the choices, and for an entry of
    the settings file with a missing or a misspelt field.
    """
    name = name or os.environ.get("COURSE_TRACK") or "tiny"
    entries = _read(path)
    base, _, size = name.rpartition("-")
    if name in entries:
        entry, size = entries[name], ""
    elif base in entries and size in entries[base]:
        entry = entries[base]
    else:
        raise TrackError(
            f"there is no track {name!r}; set COURSE_TRACK to one of: "
            f"{', '.join(entries)} (gpu-8, gpu-16, ...: for a card of so many GB)"
        )
    sizes = {key: entry.pop(key) for key in list(entry) if _is_card(entry[key])}
    if sizes:
        size = size or _fitting(sizes, gpu_gib())
        entry |= sizes[size] | {"card": int(size)}
    for role in ("teacher", "student"):
        # "weights/..." is a folder of this package, wherever the package is installed.
        if str(entry.get(role, "")).startswith("weights/"):
            entry[role] = str(HERE / entry[role])
    try:
        return Track(name=name, **entry)
    except TypeError as error:
        raise TrackError(
            f"{path.name}, [{name}]: {error}; compare with [tiny]"
        ) from None


def setup(seed: int = 0, threads: int | None = None) -> Track:
    """Make this process repeatable, quiet and in style; print what it runs on.

    Fixes the seeds of random, numpy and torch, and the number of threads, by default
    that of `threads.number`. On a CPU torch then uses only deterministic operations.
    With `settle`, the one place of the course with global state.
    """
    track, threads = load(), threads or number()
    settle(track, seed)
    torch.set_num_threads(threads)
    print(card(track, seed, threads))
    return track


def settle(track: Track, seed: int) -> None:
    """`setup` for a track that is already there: threads stay as they are, and nothing
    is printed."""
    _quiet_hub(track.offline)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    # On a GPU some operations of attention exist only in a non-deterministic form.
    torch.use_deterministic_algorithms(track.device == "cpu")
    torch.utils.deterministic.fill_uninitialized_memory = False  # only a debugging aid
    plots.use_style()


def _is_card(value: object) -> bool:
    """Tables inside a track hold its settings for one size of GPU memory."""
    return isinstance(value, dict)


def _fitting(sizes: Iterable[str], gib: float) -> str:
    """The largest card that this memory amounts to. What a GPU reports is up to a tenth
    less than the GB it is sold with."""
    smaller = [size for size in sizes if 0.9 * int(size) <= gib]
    return max(smaller, key=int) if smaller else min(sizes, key=int)


def _read(path: Path) -> dict[str, dict]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _quiet_hub(offline: bool) -> None:
    """No telemetry, no progress bars; no requests where everything is shipped."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    # The hub reads these once, when it is imported; a library may have done so already.
    if constants := sys.modules.get("huggingface_hub.constants"):
        constants.HF_HUB_DISABLE_TELEMETRY = True
        constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE or offline
        sys.modules["huggingface_hub"].utils.disable_progress_bars()
    if transformers_logging := sys.modules.get("transformers.utils.logging"):
        transformers_logging.disable_progress_bar()


def _version(package: str) -> str:
    try:
        return version(package).split("+")[0]  # "2.13.0+cpu" is 2.13.0 on every machine
    except PackageNotFoundError:
        raise TrackError(
            f"{package} is not installed; run `make course`, "
            "or `pip install -r requirements.txt`"
        ) from None


def card(track: Track, seed: int, threads: int) -> str:
    """Versions, track, device and seed: the same text on every machine of a kind."""
    python = f"python {sys.version_info.major}.{sys.version_info.minor}"
    versions = " · ".join([python, *(f"{name} {_version(name)}" for name in PACKAGES)])
    dtype = str(track.dtype).removeprefix("torch.")
    gpu = f", settings for a card of {track.card} GB" if track.card else ""
    return (
        f"{versions}\n"
        f"track {track.name}{gpu} · device {track.device} · {dtype} · "
        f"{threads} threads · seed {seed}"
    )
