"""Does it fit, and what to change where it does not, in order: first what changes no
number, then what changes it a little, then what changes the task."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import NamedTuple

import torch

from ..models.adapters import in_4_bits
from ..tracks import Track
from . import ledger
from .ledger import GIB, Ledger, Step

ASKED, LEARNS = "the teacher answers", "the student learns"
ANSWERS = "the student answers"
RESERVE = 0.15  # of a card: CUDA's own memory, and what is lost between tensors


class MemoryShortage(torch.OutOfMemoryError):
    """Out of memory; the message says what to change, in order."""


class Change(NamedTuple):
    """One thing to change, and the bytes that it saves beside those before it."""

    setting: str
    saves: int

    def __str__(self) -> str:
        return f"{self.setting} (saves {self.saves / GIB:.2g} GiB)"


@dataclass(frozen=True)
class Verdict:
    """What `fits` found: true where the track fits. Print it to read it."""

    track: str
    usable: int  # bytes
    stages: dict[str, Ledger]  # as the track stands
    changes: list[Change]
    after: int  # bytes of the fullest stage when all is changed

    def __bool__(self) -> bool:
        return max(ledger.total for ledger in self.stages.values()) <= self.usable

    def __str__(self) -> str:
        lines = [f"{self.track}: {self.usable / GIB:.1f} GiB to use"]
        lines += [f"{name}: {stage}" for name, stage in self.stages.items()]
        if self:
            return "\n".join([*lines, "it fits"])
        lines += ["it does not fit; change, in this order:"]
        lines += [f"{i}. {change}" for i, change in enumerate(self.changes, 1)]
        if self.after > self.usable:
            lines += ["and even then it does not: choose smaller models"]
        return "\n".join(lines)


def fits(track: Track, gpu_gib: float) -> Verdict:
    """Whether all stages of a track fit a GPU of `gpu_gib`, one after the other: the
    teacher answers, the student is trained, the student answers.

    `RESERVE` of the card is left free. The teacher of an API needs no memory here.
    """
    track = replace(track, device="cuda")
    usable = int((1 - RESERVE) * gpu_gib * GIB)
    found, changes, changed = stages(track), [], track
    for stage in found:
        for rule in RULES[stage]:
            before = changed
            while stages(changed)[stage].total > usable and (less := rule(changed)):
                changed = less
            if changed != before:
                saved = stages(before)[stage].total - stages(changed)[stage].total
                changes.append(Change(_difference(before, changed), saved))
    after = max(ledger.total for ledger in stages(changed).values())
    return Verdict(track.name, usable, found, changes, after)


def stages(track: Track) -> dict[str, Ledger]:
    """The ledgers of a track's stages, one after the other."""
    rows = track.generate_batch_size
    sizes = {"length": track.max_length, "answer": track.max_new_tokens}
    common = {"rows": rows, "dtype": track.dtype, **sizes}
    found = {}
    if not track.teacher_url:
        quantise = {"quantise": track.quantise_teacher}
        found[ASKED] = ledger.generating(track.teacher, **quantise, **common)
    found[LEARNS] = ledger.training(track.student, Step.of(track), track.teacher)
    quantise = {"quantise": track.quantise_student}
    found[ANSWERS] = ledger.generating(track.student, **quantise, **common)
    return found


def shortage(
    student: torch.nn.Module,
    rows: Sequence[dict],
    batch_size: int,
    *,
    accumulation: int = 1,
    teacher: object | None = None,
    kind: str = "forward_kl",
) -> MemoryShortage:
    """The error for a training that ran out of memory: what to change, in order.

    The arguments are those of `train.fit`; the longest of the rows counts. To be raised
    from the `torch.OutOfMemoryError`.
    """
    config, reader = student.config, getattr(teacher, "config", None)
    adapter = getattr(student, "peft_config", {}).get("default")
    signal = "live" if reader else "cached"
    step = Step(
        batch_size,
        max(len(row["input_ids"]) for row in rows),
        max(sum(label >= 0 for label in row["labels"]) for row in rows),
        student.dtype,
        student.device.type,
        lora_rank=adapter.r if adapter else 0,
        accumulation=accumulation,
        checkpointing=student.is_activation_checkpointing,
        quantise_student=in_4_bits(student),
        teacher_signal="text" if teacher is None else signal,
    )
    changes = []
    for rule in TRAINING:
        if less := rule(step):
            now, then = (
                ledger.training(config, s, reader, kind=kind) for s in (step, less)
            )
            changes.append(Change(_difference(step, less), now.total - then.total))
            step = less
    lines = [f"{i}. {change}" for i, change in enumerate(changes[:3], 1)]
    return MemoryShortage(
        "the training step needs more memory than there is. Change, in this order:\n"
        + "\n".join(lines)
        + "\nRestart the kernel first: it may still hold what was left behind."
    )


# ---------------------------------------------------------------- what to change

# Each takes the settings and returns smaller ones, or None where there is nothing left.


def _half_batch(step: Step | Track) -> Step | Track | None:
    """The same rows in a step, so the same gradient, in smaller pieces."""
    if step.batch_size == 1:
        return None
    half = step.batch_size // 2
    times = -(-step.accumulation * step.batch_size // half)
    return replace(step, batch_size=half, accumulation=times)


def _checkpoint(step: Step | Track) -> Step | Track | None:
    """The same gradient, about a third more time."""
    return None if step.checkpointing else replace(step, checkpointing=True)


def _cache(step: Step | Track) -> Step | Track | None:
    """The same signal where the cache holds hidden states (`train.write_cache`)."""
    live = step.teacher_signal == "live" and not getattr(step, "teacher_url", "")
    return replace(step, teacher_signal="cached") if live else None


def _adapt(step: Step | Track) -> Step | Track | None:
    """LoRA in place of full fine-tuning: it learns less where much is new."""
    return None if step.lora_rank else replace(step, lora_rank=16)


def _quantise(step: Step | Track) -> Step | Track | None:
    """The student's frozen weights in 4 bits, rounded."""
    return None if step.quantise_student else replace(step, quantise_student=True)


def _shorten(step: Step | Track) -> Step | Track | None:
    """Other data: rows that are longer must be dropped."""
    shorter = step.max_length // 2
    fits_answers = shorter > step.max_new_tokens
    return replace(step, max_length=shorter) if fits_answers else None


TRAINING = (_half_batch, _checkpoint, _cache, _adapt, _quantise, _shorten)


def _fewer_answers(track: Track, least: int) -> Track | None:
    """The same answers, more slowly."""
    half = track.generate_batch_size // 2
    return replace(track, generate_batch_size=half) if half >= least else None


def _quantise_teacher(track: Track) -> Track | None:
    """Answers and signal of a coarser teacher."""
    return None if track.quantise_teacher else replace(track, quantise_teacher=True)


def _answering(quantise: Callable) -> tuple[Callable, ...]:
    return partial(_fewer_answers, least=8), quantise, partial(_fewer_answers, least=1)


RULES = {
    ASKED: _answering(_quantise_teacher),
    LEARNS: TRAINING,
    ANSWERS: _answering(_quantise),
}


def _difference(before: Step | Track, after: Step | Track) -> str:
    names = [field.name for field in fields(before)]
    return ", ".join(
        f"{name} = {getattr(after, name)}"
        for name in names
        if getattr(after, name) != getattr(before, name)
    )
