"""Stage 2: train the student, in a plain loop to be read from top to bottom."""

import itertools
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor
from torch.nn import Module
from tqdm.auto import tqdm
from transformers import PreTrainedModel, get_scheduler

from .adapters import adamw
from .data import IGNORE_INDEX, collate
from .fits import shortage
from .losses import SparseTargets, loss_parts, mix_teachers, shift_and_mask

# What a teacher says about a batch of `data.collate`: logits or log-probabilities
# (N, V), or `SparseTargets`, for the N positions that `shift_and_mask` keeps.
Signal = Callable[[dict[str, Tensor]], Tensor | SparseTargets]

# Measures the student, in eval mode, after a step; see `fit`.
Watch = Callable[[int, PreTrainedModel], object]


class StopTraining(Exception):
    """Raised by a `Watch` to end `fit` after this step; its argument is the result."""


class LiveTeacher:
    """The signal of a model that is run on each batch, in eval mode, gradients off.

    `vocab`: logit columns shared with the student (`models.shared_vocab`). The model
    may be on another device than the batch.
    """

    def __init__(self, model: PreTrainedModel, vocab: int | None = None):
        self.model, self.vocab = model, vocab

    @torch.no_grad()
    def __call__(self, batch: dict[str, Tensor]) -> Tensor:
        self.model.eval()
        there = {key: value.to(self.model.device) for key, value in batch.items()}
        logits = kept_logits(self.model, there, self.vocab)
        return logits.to(batch["labels"].device)

    def parameters(self) -> Iterator[Tensor]:
        return self.model.parameters()


class TeacherMixture:
    """The mean of several teachers' distributions, by weight (`losses.mix_teachers`).

    The signals are dense and as wide as each other. A weight is a teacher's share.
    """

    def __init__(self, signals: Sequence[Signal], weights: Sequence[float]):
        if len(signals) != len(weights):
            raise ValueError(f"{len(signals)} teachers, but {len(weights)} weights")
        self.signals, self.weights = list(signals), torch.tensor(weights)

    def __call__(self, batch: dict[str, Tensor]) -> Tensor:
        targets = [signal(batch) for signal in self.signals]
        if any(isinstance(target, SparseTargets) for target in targets):
            raise ValueError("sparse targets cannot be mixed: use 'hidden' or 'dense'")
        logprobs = torch.stack([z.float().log_softmax(-1) for z in targets])
        return mix_teachers(logprobs, self.weights.to(logprobs))

    def parameters(self) -> Iterator[Tensor]:
        for signal in self.signals:
            yield from signal.parameters() if hasattr(signal, "parameters") else ()


def kept_logits(
    model: PreTrainedModel, batch: dict[str, Tensor], vocab: int | None = None
) -> Tensor:
    """The model's logits (N, V) where a label is kept; no others are computed.

    Prompts are long, answers short: most of the work of the output matrix is saved.
    """
    _, mask = shift_and_mask(batch["labels"])
    keep = F.pad(mask, (0, 1))  # (B, T): no label follows the last position
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    logits = model(**inputs, use_cache=False, logits_to_keep=keep).logits
    return logits[..., :vocab]


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
      `cache.open_cache`, a `TeacherMixture`, a function of yours.
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


def batches(
    lengths: Sequence[int], size: int, seed: int = 0, group_by_length: bool = True
) -> Iterator[list[int]]:
    """Endless batches of row numbers; an epoch is a new shuffle with every row once.

    Inside a batch rows stand by length, so that its micro-batches pad little; this
    changes no gradient. `group_by_length` cuts batches from sorted windows of 8: steps
    are cheaper, each a little less representative. An epoch's last may be smaller.
    """
    for epoch in itertools.count():
        yield from epoch_batches(lengths, size, seed, epoch, group_by_length)


def epoch_batches(
    lengths: Sequence[int], size: int, seed: int, epoch: int, group_by_length: bool
) -> list[list[int]]:
    """The batches of one epoch of `batches`."""
    window = size * (8 if group_by_length else 1)
    rng = random.Random(f"{seed} {epoch}")
    order = rng.sample(range(len(lengths)), len(lengths))
    groups = []
    for start in range(0, len(order), window):
        rows = sorted(order[start : start + window], key=lengths.__getitem__)
        groups += [rows[i : i + size] for i in range(0, len(rows), size)]
    rest = [groups.pop()] if len(groups[-1]) < size else []
    rng.shuffle(groups)
    return groups + rest


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


def padding(student: PreTrainedModel) -> int:
    """The id to pad with; any would do, for attention and loss mask the padding."""
    return getattr(student.config, "pad_token_id", None) or 0


def __getattr__(name: str):
    # transformers.Trainer takes long to import: only who asks for it shall wait.
    if name == "DistillationTrainer":
        from .trainer import DistillationTrainer

        return DistillationTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
