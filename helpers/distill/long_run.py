"""Training that may be killed: `distil` with checkpoints, and by many processes."""

import json
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import (
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainingArguments,
)

from .. import models, profile
from ..data.jsonl import write_json
from ..memory.verdicts import shortage
from ..models.loading import ChatModel
from ..tracks import Track
from ..train.loop import History
from ..train.signals import Signal
from ..train.trainer import DistillationTrainer
from .crew import Crew
from .pipeline import adapted, finished
from .settings import RunError

ADAPTER, STUDENT = "adapter", "student"


def distil_long(
    student: ChatModel,
    rows: Dataset,
    track: Track,
    folder: Path,
    crew: Crew,
    *,
    teacher: torch.nn.Module | Signal | None,
    vocab: int | None,
    steps: int,
    soft_weight: float,
    temperature: float,
    full: bool,
    seed: int,
) -> tuple[ChatModel, History, int]:
    """What `distil` returns, by the Trainer: the same steps, the same weights.

    A checkpoint after each tenth of the steps; called again, it goes on from the last,
    or loads what is finished. `folder` is left with `student/`, or `adapter/` where it
    cannot be merged, and with `training.json`. `rows`: from `data.encode_chat`.
    Raises `memory.MemoryShortage` with what to change.
    """
    record = folder / "training.json"
    if record.exists():
        known = json.loads(record.read_text(encoding="utf-8"))
        taught = _saved(student, folder, track)
        return taught, History(**known["history"]), known["trained"]
    model = adapted(student, track, full=full, seed=seed)
    trained = profile.parameters(model, trainable=True)
    size, accumulation = shares(track, crew.size)
    start, checkpoints = time.perf_counter(), folder / "checkpoints"
    cuda = track.device.startswith("cuda")
    arguments = TrainingArguments(  # those of `train.fit`
        output_dir=str(checkpoints),
        max_steps=steps,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=accumulation,
        learning_rate=track.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=int(0.05 * steps),
        weight_decay=0.0,
        max_grad_norm=1.0,
        optim="paged_adamw_32bit"
        if cuda and models.in_4_bits(model)
        else "adamw_torch",
        save_strategy="steps",
        save_steps=max(1, steps // 10),
        save_total_limit=2,
        logging_steps=max(1, steps // 100),
        seed=seed,
        use_cpu=track.device == "cpu",
        ddp_find_unused_parameters=False,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = DistillationTrainer(
        model,
        arguments,
        train_dataset=rows,
        teacher=teacher,
        soft_weight=soft_weight,
        temperature=temperature,
        vocab=vocab,
        callbacks=[_Progress()] if crew.main else [],
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    crew.first(lambda: _drop_torn(checkpoints))
    try:
        trainer.train(resume_from_checkpoint=_last(checkpoints))
    except torch.OutOfMemoryError as error:
        memory = dict(accumulation=accumulation, teacher=teacher)
        raise shortage(model, rows, size, **memory) from error
    history = _history(trainer.state.log_history, time.perf_counter() - start)
    taught = ChatModel(finished(model), student.tokenizer)
    if crew.main:
        save(taught, folder)
        write_json(record, {"history": asdict(history), "trained": trained})
        shutil.rmtree(checkpoints, ignore_errors=True)
    return taught, history, trained


def shares(track: Track, processes: int) -> tuple[int, int]:
    """Batch size and accumulation of each process, for the same rows in a step."""
    total = track.batch_size * track.accumulation
    if total % processes:
        raise RunError(
            f"{total} rows a step cannot be shared by {processes} processes: start a "
            "number of processes that divides them, or change --set batch_size=..."
        )
    rows = total // processes
    most = min(rows, track.batch_size)
    size = next(size for size in range(most, 0, -1) if rows % size == 0)
    return size, rows // size


def save(taught: ChatModel, folder: Path) -> None:
    """The weights appear whole or not at all."""
    adapter = hasattr(taught.model, "peft_config")
    target = folder / (ADAPTER if adapter else STUDENT)
    part = target.with_name(target.name + ".part")
    for old in (part, target):
        shutil.rmtree(old, ignore_errors=True)
    if adapter:
        models.save_adapter(taught.model, part)
    else:
        taught.model.save_pretrained(part)
        taught.tokenizer.save_pretrained(part)
    part.replace(target)


def _saved(base: ChatModel, folder: Path, track: Track) -> ChatModel:
    if (adapter := folder / ADAPTER).exists():
        return ChatModel(models.load_adapter(base.model, adapter), base.tokenizer)
    return models.load(folder / STUDENT, device=track.device, dtype=track.dtype)


class _Progress(TrainerCallback):
    def on_train_begin(self, args, state, control, **_):
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc="train")

    def on_step_end(self, args, state, control, **_):
        self.bar.update()

    def on_log(self, args, state, control, logs=None, **_):
        if "loss" in (logs or {}):
            self.bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)

    def on_train_end(self, args, state, control, **_):
        self.bar.close()


def _history(log: Sequence[dict], seconds: float) -> History:
    lines = [line for line in log if "hard_loss" in line]
    return History(
        step=[line["step"] for line in lines],
        loss=[line["loss"] for line in lines],
        hard_loss=[line["hard_loss"] for line in lines],
        soft_loss=[line.get("soft_loss", math.nan) for line in lines],
        learning_rate=[line["learning_rate"] for line in lines],
        seconds=seconds,
    )


def _drop_torn(checkpoints: Path) -> None:
    """Checkpoints that were being written when the run was killed: their state, which
    comes last, is missing or torn."""
    for folder in checkpoints.glob("checkpoint-*"):
        try:
            json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            shutil.rmtree(folder)


def _last(checkpoints: Path) -> str | None:
    found = checkpoints.glob("checkpoint-*")
    last = max(found, key=lambda folder: int(folder.name.split("-")[1]), default=None)
    return str(last) if last else None
