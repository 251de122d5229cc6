"""The lap in two calls: the teacher's verified text, then a student taught with
LoRA."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from . import data, evaluate, generate, models, profile
from .models import ChatModel
from .tracks import Track
from .train import History, Signal, fit
from .world import Example


def teacher_rows(
    teacher: ChatModel, examples: Sequence[Example], path: str | Path, **settings
) -> list[dict]:
    """The teacher's answers to the examples' prompts, without those it got wrong.

    All answers are left in `path` (see `generate.generate_answers`, which also takes
    the `settings`); only verified ones are returned, as chat rows to train on.
    """
    prompts = [{"id": e.id, "messages": list(e.messages)} for e in examples]
    answered = generate.generate_answers(teacher, prompts, path, **settings)
    texts = [row["messages"][-1]["content"] for row in answered]
    right = evaluate.score(examples, texts)["right"]
    return [row for row, keep in zip(answered, right, strict=True) if keep]


def distil(
    student: ChatModel,
    rows: Sequence[dict],
    track: Track,
    *,
    teacher: PreTrainedModel | Signal | None = None,
    rank: int | None = None,
    full: bool = False,
    learning_rate: float | None = None,
    soft_weight: float = 1.0,
    temperature: float = 1.0,
    seed: int = 0,
    **settings,
) -> tuple[ChatModel, History, int]:
    """Teach a copy of the student: with the teacher's logits, or without one the text.

    LoRA of `rank` (by default the track's), merged at the end; `full` trains every
    weight instead. Other `settings` (steps, kind, ...) are those of `train.fit`.
    Returns the new model, the history of its training and the number of
    parameters that were trained. The student handed in does not change.
    """
    torch.manual_seed(seed)  # LoRA's random half
    lora = models.add_lora(student.model, rank or track.lora_rank)
    model = lora.unload().requires_grad_(True) if full else lora
    history = fit(
        model,
        data.encode_chat(rows, student.tokenizer),
        teacher=teacher,
        batch_size=track.batch_size,
        learning_rate=learning_rate or track.learning_rate,
        soft_weight=soft_weight,
        temperature=temperature,
        seed=seed,
        **settings,
    )
    trained = profile.parameters(model, trainable=True)
    model = model if full else models.merge(model)
    return ChatModel(model.eval(), student.tokenizer), history, trained
