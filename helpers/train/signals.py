"""What a teacher says about a batch: the signal that a student is trained on."""

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from ..losses.distillation import mix_teachers
from ..losses.positions import shift_and_mask
from ..losses.sparse import SparseTargets

# What a teacher says about a batch of `data.collate`: logits or log-probabilities
# (N, V), or `SparseTargets`, for the N positions that `shift_and_mask` keeps.
Signal = Callable[[dict[str, Tensor]], Tensor | SparseTargets]


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
