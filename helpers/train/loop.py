"""Stage 2: train the student, in a plain loop to be read from top to bottom."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from datasets import Dataset
from torch.nn import Module
from tqdm.auto import tqdm
from transformers import PreTrainedModel, get_scheduler

from ..data.tokens import IGNORE_INDEX, collate
from ..losses.distillation import loss_parts
from ..losses.positions import shift_and_mask
from ..memory.verdicts import shortage
from ..models.adapters import adamw
from .batching import batches, padding
from .signals import LiveTeacher, Signal, kept_logits

# Measures the student, in eval mode, after a step; see `fit`.
Watch = Callable[[int, PreTrainedModel], object]


class StopTraining(Exception):
    """Raised by a `Watch` to end `fit` after this step; its argument is the result."""


@dataclass
class History:
    """One entry a step, ready to plot; losses in nats per answer token.

    `loss` was trained on: the weighted sum of `hard_loss`, the cross-entropy with the
    text, and `soft_loss`, T² times the divergence (NaN without a teacher).
    """

    step: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    hard_loss: list[float] = field(default_factory=list)
    soft_loss: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    watched: dict[int, object] = field(default_factory=dict)  # step -> what watch said
    seconds: float = 0.0  # of the whole run


def fit(
    student: PreTrainedModel,
    rows: Sequence[dict] | Dataset,
    *,
    teacher: PreTrainedModel | Signal | None = None,
    steps: int,
    batch_size: int = 32,
    learning_rate: float,
    soft_weight: float = 0.5,
    temperature: float = 2.0,
    kind: str = "forward_kl",
    vocab: int | None = None,
    accumulation: int = 1,
    warmup: float = 0.05,
    schedule: str = "cosine",
    weight_decay: float = 0.0,
    max_grad_norm: float = 1.0,
    group_by_length: bool = True,
    pad_token_id: int | None = None,
    every: int = 0,
    watch: Watch | None = None,
    seed: int = 0,
    progress: bool = True,
) -> History:
    """Train `student` in place and leave it in eval mode; the teacher never changes.

    The loss is `losses.distillation_loss`; without a teacher, the cross-entropy alone.

    - teacher: a model, to be run on every batch, or any signal: a cache opened by
      `open_cache`, a `TeacherMixture`, a function of yours.
    - rows: `input_ids` and unshifted `labels`, from `data.encode_chat`.
    - steps: of the optimiser, AdamW, on the parameters that require a gradient. A step
      reads `accumulation` batches of `batch_size` rows; all their answer tokens weigh
      alike.
    - learning_rate: rising from 0 over the share `warmup` of the steps, then falling
      along `schedule` (linear, cosine, … of `transformers.get_scheduler`).
    - vocab: logit columns that both models share (`models.shared_vocab`); needed only
      where their widths differ.
    - group_by_length: batches of similar length, which pads less (see `batches`).
    - pad_token_id: by default that of the student's configuration.
    - every, watch: after every `every` steps, and after the last, `watch(step,
      student)` measures the student in eval mode; `history.watched` keeps the results.
      It changes nothing in the training that follows. `raise StopTraining(result)`
      ends the training there; any other exception goes through.

    Raises `ValueError` for what cannot be trained, and `FloatingPointError`, naming the
    step and its rows, before a loss or gradient that is not finite spoils the weights.
    """
    trained = [p for p in student.parameters() if p.requires_grad]
    check(student, teacher, rows, trained)
    if pad_token_id is None:
        pad_token_id = padding(student)
    if (watch is None) != (every < 1):
        raise ValueError("watch and every, a number of steps, go together: give both")
    optimiser = adamw(student, learning_rate, weight_decay)
    scheduler = get_scheduler(schedule, optimiser, int(warmup * steps), steps)
    lengths = [len(row["input_ids"]) for row in rows]
    stream = batches(lengths, batch_size * accumulation, seed, group_by_length)
    history, start = History(), time.perf_counter()
    torch.manual_seed(seed)  # for dropout
    signal = LiveTeacher(teacher, vocab) if isinstance(teacher, Module) else teacher
    student.train()
    try:
        for step in (bar := tqdm(range(1, steps + 1), "fit", disable=not progress)):
            chosen = next(stream)
            micro_batches = [
                collate([rows[i] for i in chosen[j : j + batch_size]], pad_token_id)
                for j in range(0, len(chosen), batch_size)
            ]
            masks = [shift_and_mask(batch["labels"])[1] for batch in micro_batches]
            num_items = sum(mask.sum().item() for mask in masks)
            sums = torch.zeros(3)  # loss, hard, soft
            for batch in micro_batches:
                batch = {key: value.to(student.device) for key, value in batch.items()}
                targets = None if signal is None else signal(batch)
                parts = loss_parts(
                    kept_logits(student, batch, vocab),  # (N, V)
                    batch["labels"],
                    targets,
                    soft_weight=soft_weight,
                    temperature=temperature,
                    kind=kind,
                    num_items=num_items,
                )
                parts.loss.backward()
                sums += torch.stack(parts).detach().cpu()
            norm = torch.nn.utils.clip_grad_norm_(trained, max_grad_norm).item()
            loss, hard, soft = sums.tolist()
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise FloatingPointError(
                    f"step {step}: the loss is {loss}, its gradient's norm {norm}. "
                    f"Look at rows {sorted(chosen)}, or lower learning_rate"
                )
            history.step.append(step)
            history.loss.append(loss)
            history.hard_loss.append(hard)
            history.soft_loss.append(soft)
            history.learning_rate.append(scheduler.get_last_lr()[0])
            optimiser.step()
            scheduler.step()
            optimiser.zero_grad()
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            if watch and (step % every == 0 or step == steps):
                history.watched[step] = look(watch, step, student)
    except StopTraining as stop:
        history.watched[step] = stop.args[0] if stop.args else None
    except torch.OutOfMemoryError as error:
        memory = dict(accumulation=accumulation, teacher=teacher, kind=kind)
        raise shortage(student, rows, batch_size, **memory) from error
    finally:  # also where the learner interrupts the cell
        optimiser.zero_grad()
        student.eval()
    history.seconds = time.perf_counter() - start
    return history


def look(watch: Watch, step: int, student: PreTrainedModel) -> object:
    """What `watch` says of the student; random state and train mode are as before."""
    gpus = [student.device] if student.device.type == "cuda" else []
    student.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(gpus):
            return watch(step, student)
    finally:
        student.train()


def check(student, teacher, rows, trained) -> None:
    """Raise `ValueError` for what cannot be trained."""
    if all(set(row["labels"][1:]) <= {IGNORE_INDEX} for row in rows):
        raise ValueError(
            "no row has a label to learn: is the answer missing, or cut off? "
            "Make rows with data.encode_chat"
        )
    if not trained:
        raise ValueError(
            "no parameter of the student requires a gradient: "
            "call student.requires_grad_(True), or models.add_lora"
        )
    if hasattr(teacher, "parameters"):
        if set(student.parameters()) & set(teacher.parameters()):
            raise ValueError(
                "teacher and student share parameters, so the teacher would train with "
                "the student: give one of them as copy.deepcopy(model)"
            )
