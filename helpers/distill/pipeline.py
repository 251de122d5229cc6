"""The lap in two calls: the teacher's verified text, then a student taught with LoRA.

Their parts, `adapted` and `finished`, serve the command `python -m helpers.distill` too
(see `run`), which trains with `train.DistillationTrainer` in between.
"""

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from .. import data, generate, models, profile
from ..models.loading import ChatModel
from ..tracks import Track
from ..train.loop import History, fit
from ..train.signals import Signal
from ..world.verifier import Example, verify


def teacher_rows(
    teacher: ChatModel, examples: Sequence[Example], path: str | Path, **settings
) -> list[dict]:
    """The teacher's answers to the examples' prompts, without those it got wrong.

    All answers are left in `path` (see `generate.generate_answers`, which also takes
    the `settings`); only verified ones are returned, as chat rows to train on.
    """
    asked = {example.id: example for example in examples}
    prompts = [example.question() for example in examples]
    answered = generate.generate_answers(teacher, prompts, path, **settings)
    return [
        row
        for row in answered
        if verify(asked[row["id"]], row["messages"][-1]["content"])
    ]


def distil(
    student: ChatModel,
    rows: Sequence[dict],
    track: Track,
    *,
    teacher: ChatModel | PreTrainedModel | Signal | None = None,
    rank: int | None = None,
    alpha: float | None = None,
    targets: str | list[str] = "all-linear",
    full: bool = False,
    learning_rate: float | None = None,
    soft_weight: float = 1.0,
    temperature: float = 1.0,
    seed: int = 0,
    **settings,
) -> tuple[ChatModel, History, int]:
    """Teach a copy of the student: with the teacher's logits, or without one the text.

    LoRA of `rank` (by default the track's), `alpha` and `targets` (see
    `models.add_lora`), merged at the end; `full` trains every weight instead. Other
    `settings` (steps, kind, ...) are those of `train.fit`.
    A teacher with its tokenizer is compared with the student first
    (`models.check_pair`), and columns of logits that they do not share are left out.
    Returns the new model, the history of its training and the number of
    parameters that were trained. The student handed in does not change.

    A student in 4 bits keeps its adapter, for it cannot hold the sum: see
    `models.merge`, which takes the base in full precision. So does, with a warning, one
    whose merged logits are others.
    """
    if isinstance(teacher, ChatModel):
        settings = {"vocab": models.check_pair(student, teacher)} | settings
        teacher = teacher.model
    settings = {"accumulation": track.accumulation} | settings
    lora = {"rank": rank, "alpha": alpha, "targets": targets}
    model = adapted(student, track, full=full, seed=seed, **lora)
    history = fit(
        model,
        data.encode_chat(rows, student.tokenizer, max_length=track.max_length),
        teacher=teacher,
        batch_size=track.batch_size,
        learning_rate=learning_rate or track.learning_rate,
        soft_weight=soft_weight,
        temperature=temperature,
        seed=seed,
        **settings,
    )
    trained = profile.parameters(model, trainable=True)
    return ChatModel(finished(model), student.tokenizer), history, trained


def adapted(
    student: ChatModel,
    track: Track,
    *,
    rank: int | None = None,
    alpha: float | None = None,
    targets: str | list[str] = "all-linear",
    full: bool = False,
    seed: int = 0,
) -> torch.nn.Module:
    """The student, ready to be trained: under an adapter, or a copy for `full`."""
    torch.manual_seed(seed)  # LoRA's random half
    if full:
        model = copy.deepcopy(student.model).requires_grad_(True)
    else:
        rank = rank or track.lora_rank
        model = models.add_lora(student.model, rank, alpha=alpha, targets=targets)
    if track.checkpointing:
        models.checkpoint(model)
    return model


def finished(model: torch.nn.Module) -> torch.nn.Module:
    """What `adapted` made, after its training: merged, where that can be done."""
    if hasattr(model, "peft_config") and not models.in_4_bits(model):
        try:
            model = models.merge(model)
        except ValueError as error:  # a night's training shall not be lost by this
            warnings.warn(f"the student keeps its adapter: {error}", stacklevel=3)
    return model.eval()
