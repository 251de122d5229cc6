"""How far the student's distribution is from the teacher's, token by token.

Notation: p is the teacher's distribution, q the student's, both softened by the same
temperature T, V the size of the vocabulary that they share, and KL(a || b) the sum of
a log(a / b) over it.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

KINDS = ("forward_kl", "reverse_kl", "jsd", "tvd", "skew_forward_kl", "skew_reverse_kl")


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
    log_q = torch.log_softmax(widen(student_logits) / temperature, dim=-1)
    log_p = torch.log_softmax(widen(teacher_logits) / temperature, dim=-1)
    log_ratio = log_p - log_q
    if kind == "forward_kl":
        terms = log_p.exp() * log_ratio
    elif kind == "reverse_kl":
        terms = -log_q.exp() * log_ratio
    elif kind == "tvd":
        terms = 0.5 * (log_p.exp() - log_q.exp()).abs()
    elif kind == "skew_forward_kl":
        terms = log_p.exp() * log_over_mixture(log_ratio, skew)
    elif kind == "skew_reverse_kl":
        terms = log_q.exp() * log_over_mixture(-log_ratio, skew)
    elif kind == "jsd":
        p_to_m = log_p.exp() * log_over_mixture(log_ratio, beta)
        q_to_m = log_q.exp() * log_over_mixture(-log_ratio, 1 - beta)
        terms = beta * p_to_m + (1 - beta) * q_to_m
    else:
        raise NotImplementedError(f"{kind} is in KINDS, but nothing computes it here")
    return lift(terms.sum(-1))


def widen(logits: Tensor) -> Tensor:
    """To float32 at least: half precision would lose the digits of a softmax."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def lift(divergence: Tensor) -> Tensor:
    """Rounding can end a hair below zero: lift the value, leave the gradient alone."""
    return divergence - divergence.detach().clamp(max=0)


def log_over_mixture(log_ratio: Tensor, share: float) -> Tensor:
    """log(a / m) for m = share a + (1 - share) b, from log_ratio = log(a / b).

    By Bayes' rule share a / m = sigmoid(log_ratio + c), c the log-odds of share: no exp
    overflows and no log meets zero, in the value or in its gradient.
    """
    if share in (0, 1):  # 1 also where rounding makes it so; then m = a
        return (1 - share) * log_ratio
    # As large as log_ratio, so that a = b gives exactly 0 in any kernel.
    c = torch.full_like(log_ratio, math.log(share) - math.log1p(-share))
    return F.logsigmoid(log_ratio + c) - F.logsigmoid(c)
