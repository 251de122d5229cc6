"""Stage 2 for long runs: the loss of `train.fit` inside `transformers.Trainer`."""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import gather_object
from datasets import Dataset
from torch import Tensor
from torch.nn import Module
from torch.utils.data import DataLoader, Subset
from transformers import PreTrainedModel, Trainer

from ..data.tokens import IGNORE_INDEX, collate
from ..losses.distillation import LossParts, loss_parts
from ..losses.sparse import SparseTargets
from .batching import epoch_batches, padding
from .loop import check
from .signals import LiveTeacher, Signal, kept_logits


class DistillationTrainer(Trainer):
    """The loss of `fit` inside `transformers.Trainer`, for all that a long run needs.

    Mixed precision, several GPUs, checkpoints, evaluation and reports are the
    Trainer's, set by `TrainingArguments`. Signal, loss, order of the rows and count of
    tokens are those of `fit`, and so are the weights after the same steps, on one
    process or shared by several: a step then reads batch size x accumulation x
    processes rows, each process others.

    - train_dataset, eval_dataset: rows from `data.encode_chat`.
    - teacher, soft_weight, temperature, kind, vocab, group_by_length: as in `fit`.

    Beside the loss it logs, per answer token, `hard_loss` and `soft_loss`, and of the
    step that is logged the student's `entropy` in nats, its `agreement` with the
    teacher's likeliest token and, where the signal is sparse, the `mass` that it puts
    on the cached tokens. `evaluate` gives the same over all tokens of a dataset.

    `train(resume_from_checkpoint=True)` goes on from the last checkpoint to the same
    weights. Raises `FloatingPointError`, naming the rows, before a loss that is not
    finite spoils the weights.
    """

    def __init__(
        self,
        *args,
        teacher: PreTrainedModel | Signal | None = None,
        soft_weight: float = 0.5,
        temperature: float = 2.0,
        kind: str = "forward_kl",
        vocab: int | None = None,
        group_by_length: bool = True,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        rows = self.eval_dataset if self.train_dataset is None else self.train_dataset
        check(self.model, teacher, rows, trained)
        if isinstance(teacher, Module):
            teacher = LiveTeacher(teacher.to(self.args.device), vocab)
        self.signal, self.vocab, self.group_by_length = teacher, vocab, group_by_length
        self.settings = dict(
            soft_weight=soft_weight, temperature=temperature, kind=kind
        )
        self.data_collator = partial(_collate, pad_token_id=padding(self.model))
        self.model_accepts_loss_kwargs = True  # makes it count the tokens of a step
        self.watched = _Means()

    def get_train_dataloader(self) -> DataLoader:
        order = _Order(
            [len(row["input_ids"]) for row in self.train_dataset],
            self.args.per_device_train_batch_size,
            self.args.gradient_accumulation_steps * self.accelerator.num_processes,
            self.args.seed,
            self.group_by_length,
            self.accelerator.process_index,
            self.accelerator.num_processes,
        )
        rows = _Numbered(self.train_dataset)
        loader = DataLoader(rows, batch_sampler=order, collate_fn=self.data_collator)
        # Not shared out again: accelerate would fill up the last batches of an epoch
        # with rows that were there before.
        alone = {"num_processes": 1, "process_index": 0, "put_on_device": True}
        return prepare_data_loader(loader, self.args.device, **alone)

    def get_eval_dataloader(self, eval_dataset=None) -> DataLoader:
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        share = range(
            self.accelerator.process_index, len(rows), self.accelerator.num_processes
        )
        return DataLoader(
            Subset(rows, share),
            self.args.per_device_eval_batch_size,
            collate_fn=self.data_collator,
        )

    def compute_loss(
        self, model, inputs, return_outputs=False, num_items_in_batch=None
    ):
        parts, logits, targets = self._parts(model, inputs, num_items_in_batch)
        if not torch.isfinite(parts.loss):
            raise FloatingPointError(
                f"step {self.state.global_step + 1}: the loss is {parts.loss.item()}. "
                f"Look at rows {sorted(inputs['row'].tolist())}, or lower learning_rate"
            )
        tokens = num_items_in_batch or len(logits)
        self.watched.add(len(logits), hard_loss=parts.hard * tokens)
        if targets is not None:
            self.watched.add(len(logits), soft_loss=parts.soft * tokens)
        if (self.state.global_step + 1) % self.state.logging_steps == 0:
            self.watched.add(len(logits), **_diagnosis(logits, targets))
        # Gradients are averaged over the processes; where tokens are counted over all,
        # the sum is meant.
        counted_over_all = self.args.average_tokens_across_devices
        loss = parts.loss * (self.accelerator.num_processes if counted_over_all else 1)
        return (loss, {"logits": logits}) if return_outputs else loss

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        means = self._means(self.watched) if "loss" in logs else {}
        super().log({**logs, **means}, *args, **kwargs)

    @torch.no_grad()
    def evaluate(
        self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Means per answer token over a dataset: a batch of long answers weighs more
        than one of short answers."""
        self.model.eval()
        means = _Means()
        for inputs in self.get_eval_dataloader(eval_dataset):
            inputs = self._prepare_inputs(inputs)
            parts, logits, targets = self._parts(self.model, inputs, None)
            named = {"loss": parts.loss, "hard_loss": parts.hard}
            if targets is not None:
                named["soft_loss"] = parts.soft
            sums = {name: value * len(logits) for name, value in named.items()}
            means.add(len(logits), **sums, **_diagnosis(logits, targets))
        metrics = self._means(means, f"{metric_key_prefix}_")
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _means(self, watched: "_Means", prefix: str = "") -> dict[str, float]:
        """What all processes watched, and forget it."""
        together = _Means()
        for totals in gather_object([watched.totals]):
            for name, (total, count) in totals.items():
                together.add(count, **{name: torch.tensor(total)})
        watched.totals = {}
        return together.take(prefix)

    def _parts(
        self, model: Module, inputs: dict, num_items: Tensor | None
    ) -> tuple[LossParts, Tensor, Tensor | SparseTargets | None]:
        batch = {key: value for key, value in inputs.items() if key != "row"}
        targets = None if self.signal is None else self.signal(batch)
        with self.compute_loss_context_manager():
            logits = kept_logits(model, batch, self.vocab)
        parts = loss_parts(
            logits, batch["labels"], targets, num_items=num_items, **self.settings
        )
        return parts, logits, targets


class _Order:
    """The batch sampler of an epoch: the groups of `batches`, in micro-batches, those
    of one process. All processes have equally many, in each group."""

    drop_last = False

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        micro_batches: int,
        seed: int,
        group_by_length: bool,
        process: int = 0,
        processes: int = 1,
    ):
        self.lengths, self.batch_size, self.epoch = lengths, batch_size, 0
        self.settings = batch_size * micro_batches, seed, group_by_length
        self.process, self.processes = process, processes

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        size, seed, group_by_length = self.settings
        groups = epoch_batches(self.lengths, size, seed, self.epoch, group_by_length)
        for rows in groups:
            pieces = self.processes * -(
                -len(rows) // (self.batch_size * self.processes)
            )
            # Neighbours in length go to different processes, which then wait less.
            for piece in range(self.process, pieces, self.processes):
                start, stop = (i * len(rows) // pieces for i in (piece, piece + 1))
                # A step of fewer rows than processes: a row without labels.
                yield rows[start:stop] or [~rows[0]]

    def __len__(self) -> int:
        return -(-len(self.lengths) // (self.batch_size * self.processes))


class _Numbered:
    """Rows that know their number, to be named in an error; `~number` is the row with
    nothing to learn."""

    def __init__(self, rows: Sequence[dict] | Dataset):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> dict:
        if number >= 0:
            return {**self.rows[number], "row": number}
        row = self.rows[~number]
        silent = [IGNORE_INDEX] * len(row["labels"])
        return {**row, "labels": silent, "row": ~number}


def _collate(rows: Sequence[dict], pad_token_id: int) -> dict[str, Tensor]:
    numbers = torch.tensor([row.get("row", -1) for row in rows])
    return {**collate(rows, pad_token_id), "row": numbers}


class _Means:
    """Means per token, name by name, since they were last taken."""

    def __init__(self):
        self.totals: dict[str, tuple[float, int]] = {}

    def add(self, tokens: int, **sums: Tensor) -> None:
        for name, value in sums.items():
            total, count = self.totals.get(name, (0.0, 0))
            self.totals[name] = total + value.detach().item(), count + tokens

    def take(self, prefix: str = "") -> dict[str, float]:
        means = {prefix + n: t / max(1, c) for n, (t, c) in self.totals.items()}
        self.totals.clear()
        return means


@torch.no_grad()
def _diagnosis(
    student_logits: Tensor, targets: Tensor | SparseTargets | None
) -> dict[str, Tensor]:
    """What a loss hides, summed over the tokens: a student growing too sure (entropy),
    or leaving the tokens that a cache knows (mass)."""
    log_q = student_logits.float().log_softmax(-1)  # (N, V)
    found = {"entropy": -(log_q.exp() * log_q).sum()}
    if isinstance(targets, SparseTargets):
        ids, known = targets.token_ids.long(), targets.logprobs > -torch.inf
        found["mass"] = (log_q.gather(-1, ids).exp() * known).sum()
        best = ids.gather(-1, targets.logprobs.argmax(-1, keepdim=True)).squeeze(-1)
    elif targets is not None:
        best = targets.argmax(-1)
    if targets is not None:
        found["agreement"] = (log_q.argmax(-1) == best).sum()
    return found
