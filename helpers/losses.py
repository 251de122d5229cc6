"""Distillation losses: what the student pays for not saying what the teacher would.

Notation: p is the teacher's distribution, q the student's, both softened by the same
temperature T, V the size of the vocabulary that they share, and KL(a || b) the sum of
a log(a / b) over it.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

KINDS = ("forward_kl", "reverse_kl", "jsd", "tvd", "skew_forward_kl", "skew_reverse_kl")


def shift_and_mask(labels: Tensor, ignore_index: int = -100) -> tuple[Tensor, Tensor]:
    """Next-token targets and the mask of those that count; the only place that shifts.

    labels (B, T), `ignore_index` on prompt and padding -> targets (B, T-1) and mask
    (B, T-1), True where the target is kept. They belong to `logits[:, :-1]`: the logits
    at position t predict the token at t + 1.
    """
    targets = labels[..., 1:]
    return targets, targets != ignore_index


def reduce_tokens(
    per_token: Tensor, mask: Tensor, num_items: int | Tensor | None = None
) -> Tensor:
    """Sum of `per_token` where `mask` is True, divided by the number of kept tokens.

    Both of one shape -> scalar. With gradient accumulation, `num_items` is the number
    of kept tokens in *all* micro-batches of the step, and their losses are added up: a
    mean of means would weigh short answers too much. Nothing kept gives 0, gradient 0.
    """
    count = mask.sum() if num_items is None else torch.as_tensor(num_items)
    return per_token[mask].sum() / count.clamp(min=1)


def token_divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    kind: str = "forward_kl",
    *,
    temperature: float = 1.0,
    beta: float = 0.5,
    skew: float = 0.1,
) -> Tensor:
    """Divergence between teacher p and student q, both softmax(logits / T), per token.

    (..., V), (..., V) -> (...), in nats, no T² in here. Half precision is computed in
    float32; identical logits give exactly 0. With b = `beta` and a = `skew`:

    - forward_kl: KL(p || q), the teacher's view (Hinton, Vinyals, Dean 2015): q must
      cover all that p finds likely.
    - reverse_kl: KL(q || p), the student's view (MiniLLM, Gu et al. 2023): q must avoid
      what p finds unlikely.
    - jsd: b KL(p || m) + (1 - b) KL(q || m), m = b p + (1 - b) q (GKD, Agarwal et al.
      2023). About b KL(p || q) for small b, so b also scales the step; it would vanish
      at the ends, so there, as in TRL, b = 0 is forward_kl and b = 1 reverse_kl.
    - tvd: half the sum of |p - q|, at most 1, symmetric.
    - skew_forward_kl, KL(p || a p + (1 - a) q), and skew_reverse_kl, the same with p
      and q exchanged (DistiLLM, Ko et al. 2024): at most log(1 / a).

    Raises `ValueError` for an unknown kind, a setting out of range, or unequal shapes.
    """
    if kind not in KINDS:
        raise ValueError(f"no divergence {kind!r}; choose one of {', '.join(KINDS)}")
    if not (temperature > 0 and 0 <= beta <= 1 and 0 <= skew < 1):
        raise ValueError("needed: temperature > 0, 0 <= beta <= 1 and 0 <= skew < 1")
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"student {student_logits.shape}, teacher {teacher_logits.shape}: if they "
            "differ in width, slice both to the shared_vocab columns before the softmax"
        )
    if kind == "jsd" and beta in (0, 1):
        kind = "reverse_kl" if beta else "forward_kl"
    log_q = torch.log_softmax(_widen(student_logits) / temperature, dim=-1)
    log_p = torch.log_softmax(_widen(teacher_logits) / temperature, dim=-1)
    log_ratio = log_p - log_q
    if kind == "forward_kl":
        terms = log_p.exp() * log_ratio
    elif kind == "reverse_kl":
        terms = -log_q.exp() * log_ratio
    elif kind == "tvd":
        terms = 0.5 * (log_p.exp() - log_q.exp()).abs()
    elif kind == "skew_forward_kl":
        terms = log_p.exp() * _log_over_mixture(log_ratio, skew)
    elif kind == "skew_reverse_kl":
        terms = log_q.exp() * _log_over_mixture(-log_ratio, skew)
    else:
        p_to_m = log_p.exp() * _log_over_mixture(log_ratio, beta)
        q_to_m = log_q.exp() * _log_over_mixture(-log_ratio, 1 - beta)
        terms = beta * p_to_m + (1 - beta) * q_to_m
    divergence = terms.sum(-1)
    # Rounding can end a hair below zero: lift the value, leave the gradient alone.
    return divergence - divergence.detach().clamp(max=0)


class LossParts(NamedTuple):
    """Scalars, in nats per kept token; `soft` holds T² and is NaN without a teacher."""

    loss: Tensor  # what is trained on, the weighted sum of the next two
    hard: Tensor
    soft: Tensor


def loss_parts(
    student_logits: Tensor,
    labels: Tensor,
    teacher_logits: Tensor | None,
    *,
    soft_weight: float = 0.5,
    temperature: float = 2.0,
    kind: str = "forward_kl",
    num_items: int | Tensor | None = None,
    ignore_index: int = -100,
) -> LossParts:
    """`distillation_loss` with its parts; where there is no teacher, the hard one."""
    if not 0 <= soft_weight <= 1:
        raise ValueError(f"soft_weight is {soft_weight}; it must lie between 0 and 1")
    shapes = [z.shape for z in (student_logits, teacher_logits) if z is not None]
    if any(shape[:-1] != labels.shape for shape in shapes):
        raise ValueError(f"labels {labels.shape} and logits {shapes} must share (B, T)")
    targets, mask = shift_and_mask(labels, ignore_index)
    # Only the kept positions go through a softmax: faster, and the same numbers.
    student = _widen(student_logits[:, :-1][mask])  # (N, V)
    per_token = F.cross_entropy(student, targets[mask], reduction="none")  # (N,)
    hard = reduce_tokens(per_token, mask[mask], num_items)
    if teacher_logits is None:
        return LossParts(hard, hard, torch.full_like(hard, torch.nan))
    teacher = teacher_logits.detach()[:, :-1][mask]
    per_token = token_divergence(student, teacher, kind, temperature=temperature)
    soft = temperature**2 * reduce_tokens(per_token, mask[mask], num_items)
    return LossParts((1 - soft_weight) * hard + soft_weight * soft, hard, soft)


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
    return loss_parts(
        student_logits,
        labels,
        teacher_logits,
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


def _widen(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _log_over_mixture(log_ratio: Tensor, share: float) -> Tensor:
    """log(a / m) for m = share a + (1 - share) b, from log_ratio = log(a / b).

    By Bayes' rule share a / m = sigmoid(log_ratio + c), c the log-odds of share: no exp
    overflows and no log meets zero, in the value or in its gradient.
    """
    if share in (0, 1):  # 1 also where rounding makes it so; then m = a
        return (1 - share) * log_ratio
    # As large as log_ratio, so that a = b gives exactly 0 in any kernel.
    c = torch.full_like(log_ratio, math.log(share) - math.log1p(-share))
    return F.logsigmoid(log_ratio + c) - F.logsigmoid(c)
