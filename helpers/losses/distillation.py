"""The loss of a distillation: what labels and teacher say, weighed and added up."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .divergences import token_divergence, widen
from .positions import reduce_tokens, shift_and_mask
from .sparse import SparseTargets, sparse_divergence


class LossParts(NamedTuple):
    """Scalars, in nats per kept token; `soft` holds T² and is NaN without a teacher."""

    loss: Tensor  # what is trained on, the weighted sum of the next two
    hard: Tensor
    soft: Tensor


def loss_parts(
    student_logits: Tensor,
    labels: Tensor,
    targets: Tensor | SparseTargets | None,
    *,
    soft_weight: float = 0.5,
    temperature: float = 2.0,
    kind: str = "forward_kl",
    num_items: int | Tensor | None = None,
    ignore_index: int = -100,
) -> LossParts:
    """`distillation_loss` with its parts, for a teacher known at the kept positions.

    `targets` are the teacher's logits or log-probabilities (N, V), or `SparseTargets`,
    at the N positions that the labels (B, T) keep, row by row; None leaves the hard
    loss alone. The student's logits are (B, T, V), or (N, V) for the same positions.
    """
    if not 0 <= soft_weight <= 1:
        raise ValueError(f"soft_weight is {soft_weight}; it must lie between 0 and 1")
    token_ids, mask = shift_and_mask(labels, ignore_index)
    if student_logits.dim() == 3:
        if student_logits.shape[:2] != labels.shape:
            raise ValueError(
                f"labels {labels.shape} and logits {student_logits.shape} "
                "must share (B, T)"
            )
        # Only the kept positions go through a softmax: faster, and the same numbers.
        student_logits = student_logits[:, :-1][mask]
    student = widen(student_logits)  # (N, V)
    token_ids, kept = token_ids[mask], mask[mask]
    if len(student) != len(kept):
        raise ValueError(f"{len(student)} logits for {len(kept)} kept positions")
    per_token = F.cross_entropy(student, token_ids, reduction="none")  # (N,)
    hard = reduce_tokens(per_token, kept, num_items)
    if targets is None:
        return LossParts(hard, hard, torch.full_like(hard, torch.nan))
    per_token = _soft_loss(student, targets, kind, temperature)
    soft = temperature**2 * reduce_tokens(per_token, kept, num_items)
    if soft_weight == 1:
        hard = hard.detach()  # to be watched: 0 times its gradient would cost time
    return LossParts((1 - soft_weight) * hard + soft_weight * soft, hard, soft)


def _soft_loss(student: Tensor, targets, kind: str, temperature: float) -> Tensor:
    """Divergence from the targets, dense or sparse, at each of the N positions."""
    if not isinstance(targets, SparseTargets):
        if len(targets) != len(student):
            raise ValueError(
                f"{len(targets)} targets for {len(student)} kept positions: a "
                "signal holds one row for each label that shift_and_mask keeps"
            )
        return token_divergence(
            student, targets.detach(), kind, temperature=temperature
        )
    if kind != "forward_kl":
        raise ValueError(
            f"sparse targets serve kind='forward_kl' only, not {kind!r}: "
            "write a cache of kind 'hidden' or 'dense', or use the live teacher"
        )
    if targets.temperature != temperature:
        raise ValueError(
            f"the targets were softened by temperature {targets.temperature}, the loss "
            f"asks for {temperature}: train with temperature={targets.temperature}, "
            "or write the cache anew"
        )
    return sparse_divergence(
        student,
        targets.token_ids,
        targets.logprobs,
        tail=targets.tail,
        temperature=temperature,
    )


def distillation_loss(
    student_logits: Tensor,
    labels: Tensor,
    teacher_logits: Tensor,
    *,
    soft_weight: float = 0.5,
    temperature: float = 2.0,
    kind: str = "forward_kl",
    num_items: int | Tensor | None = None,
    ignore_index: int = -100,
) -> Tensor:
    """(1 - soft_weight) CE + soft_weight T² divergence, per kept token; a scalar.

    (B, T, V), (B, T), (B, T, V), labels unshifted; `num_items` as in `reduce_tokens`.
    No gradient reaches the teacher. T² stands here and nowhere else: the gradient of a
    KL shrinks as 1 / T², and T² keeps its size beside that of the CE (Hinton, Vinyals,
    Dean 2015). That of tvd shrinks as 1 / T only, so with T² it grows.

    Raises `ValueError` where shapes do not fit together or a setting is out of range.
    """
    if teacher_logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"labels {labels.shape} and logits {teacher_logits.shape} must share (B, T)"
        )
    _, mask = shift_and_mask(labels, ignore_index)
    return loss_parts(
        student_logits,
        labels,
        teacher_logits[:, :-1][mask],
        soft_weight=soft_weight,
        temperature=temperature,
        kind=kind,
        num_items=num_items,
        ignore_index=ignore_index,
    ).loss


def mix_teachers(logprobs: Tensor, weights: Tensor) -> Tensor:
    """Log-probabilities of a mixture of K teachers: logsumexp(log w + log p).

    (K, ..., V), (K,) -> (..., V), weights scaled to sum to 1; `ValueError` where they
    cannot be. The result can stand wherever teacher logits are asked for.
    """
    if weights.shape != logprobs.shape[:1] or (weights < 0).any() or not weights.any():
        raise ValueError("give each teacher one weight of at least 0, not all 0")
    log_w = (weights / weights.sum()).log().view(-1, *[1] * (logprobs.dim() - 1))
    return torch.logsumexp(log_w + logprobs, dim=0)
