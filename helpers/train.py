"""Stage 2: train the student, in a plain loop to be read from top to bottom."""

import itertools
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedModel, get_scheduler

from .data import IGNORE_INDEX, collate
from .losses import loss_parts, shift_and_mask


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
    seconds: float = 0.0  # of the whole run


def fit(
    student: PreTrainedModel,
    rows: Sequence[dict] | Dataset,
    *,
    teacher: PreTrainedModel | None = None,
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
    seed: int = 0,
    progress: bool = True,
) -> History:
    """Train `student` in place and leave it in eval mode; the teacher never changes.

    The loss is `losses.distillation_loss`; without a teacher, the cross-entropy alone.

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

    Raises `ValueError` for what cannot be trained, and `FloatingPointError`, naming the
    step and its rows, before a loss or gradient that is not finite spoils the weights.
    """
    trained = [p for p in student.parameters() if p.requires_grad]
    _check(student, teacher, rows, trained)
    if pad_token_id is None:  # any id would do: attention and loss mask the padding
        pad_token_id = getattr(student.config, "pad_token_id", None) or 0
    optimiser = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=weight_decay)
    scheduler = get_scheduler(schedule, optimiser, int(warmup * steps), steps)
    lengths = [len(row["input_ids"]) for row in rows]
    stream = batches(lengths, batch_size * accumulation, seed, group_by_length)
    history, start = History(), time.perf_counter()
    torch.manual_seed(seed)  # for dropout
    if teacher is not None:
        teacher.eval()
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
                labels = batch.pop("labels")
                teacher_logits = None
                if teacher is not None:
                    with torch.no_grad():
                        output = teacher(**batch, use_cache=False)
                    teacher_logits = output.logits[..., :vocab]
                parts = loss_parts(
                    student(**batch, use_cache=False).logits[..., :vocab],  # (B, T, V)
                    labels,
                    teacher_logits,
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
    finally:  # also where the learner interrupts the cell
        optimiser.zero_grad()
        student.eval()
    history.seconds = time.perf_counter() - start
    return history


def batches(
    lengths: Sequence[int], size: int, seed: int = 0, group_by_length: bool = True
) -> Iterator[list[int]]:
    """Endless batches of row numbers; an epoch is a new shuffle with every row once.

    Inside a batch rows stand by length, so that its micro-batches pad little; this
    changes no gradient. `group_by_length` cuts batches from sorted windows of 8: steps
    are cheaper, each a little less representative. An epoch's last may be smaller.
    """
    window = size * (8 if group_by_length else 1)
    for epoch in itertools.count():
        rng = random.Random(f"{seed} {epoch}")
        order = rng.sample(range(len(lengths)), len(lengths))
        groups = []
        for start in range(0, len(order), window):
            rows = sorted(order[start : start + window], key=lengths.__getitem__)
            groups += [rows[i : i + size] for i in range(0, len(rows), size)]
        rng.shuffle(groups)
        yield from groups


def _check(student, teacher, rows, trained) -> None:
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
    if teacher is not None:
        if set(student.parameters()) & set(teacher.parameters()):
            raise ValueError(
                "teacher and student share parameters, so the teacher would train with "
                "the student: give one of them as copy.deepcopy(model)"
            )
