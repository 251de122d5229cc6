"""Distillation losses: what the student pays for not saying what the teacher would.

Notation: p is the teacher's distribution, q the student's, both softened by the same
temperature T, V the size of the vocabulary that they share, and KL(a || b) the sum of
a log(a / b) over it.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module

KINDS = ("forward_kl", "reverse_kl", "jsd", "tvd", "skew_forward_kl", "skew_reverse_kl")
TAILS = ("bucket", "renormalise", "truncate", "sampled")


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
    return _lift(terms.sum(-1))


class SparseTargets(NamedTuple):
    """A teacher's distribution at N positions, known for K tokens of the vocabulary.

    What `sparse_divergence` asks for: token_ids (N, K), their log-probabilities (N, K),
    softened by `temperature`, and what to make of the `tail`, all other tokens.
    """

    token_ids: Tensor
    logprobs: Tensor
    tail: str = "bucket"
    temperature: float = 1.0


def sparse_divergence(
    student_logits: Tensor,
    token_ids: Tensor,
    logprobs: Tensor,
    *,
    tail: str = "bucket",
    temperature: float = 1.0,
) -> Tensor:
    """KL(p || q) where only K of the V values of p are known, per token.

    (N, V), (N, K), (N, K) -> (N,), in nats, no T² in here. `logprobs` are the teacher's
    after softening by the same `temperature`. P and Q are the masses of p and q on the
    K tokens, which are distinct. The tail, all other tokens:

    - bucket: one token more, 1 - P against 1 - Q. Never above the full KL. The gradient
      in the student's logits, times T, is q - p, and q (1 - (1-P) / (1-Q)) in the tail.
    - renormalise: p / P against q / Q; what q does in the tail is free.
    - truncate: left out. The optimum is q = p / P, over-confident, and the value may be
      negative: here to show what goes wrong.
    - sampled: the tokens were drawn from p, and `logprobs` are the logarithms of their
      shares among the draws, -inf where a place is empty. The expected gradient is that
      of the full KL (Anshumann et al. 2025); the value is the KL from those shares.

    Raises `ValueError` for an unknown tail or where shapes do not fit together.
    """
    if tail not in TAILS:
        raise ValueError(f"no tail {tail!r}; choose one of {', '.join(TAILS)}")
    if token_ids.shape != logprobs.shape or len(token_ids) != len(student_logits):
        raise ValueError(
            f"token_ids {token_ids.shape} and logprobs {logprobs.shape} must be (N, K) "
            f"for student_logits (N, V), here {student_logits.shape}"
        )
    student = _widen(student_logits) / temperature
    highest = student.detach().amax(-1, keepdim=True)
    student = student - highest  # changes no softmax; sums keep their digits
    token_ids = token_ids.long()
    log_q = student.gather(-1, token_ids)  # (N, K), not normalised yet
    log_p = _widen(logprobs)
    if tail == "bucket" and token_ids.shape[-1] < student.shape[-1]:
        # The others join the K as one token more. Theirs is a sum over the others, for
        # 1 - Q would lose its digits as Q nears 1.
        others = student.scatter(-1, token_ids, -torch.inf)
        log_q = torch.cat([log_q, others.logsumexp(-1, keepdim=True)], dim=-1)
        rest = 1 - log_p.exp().sum(-1, keepdim=True)
        log_p = torch.cat([log_p, rest.clamp(min=0).log()], dim=-1)
    log_p = log_p.clamp(min=torch.finfo(log_p.dtype).min)  # 0 log 0 = 0
    if tail in ("bucket", "renormalise"):
        log_q, log_p = log_q.log_softmax(-1), log_p.log_softmax(-1)
    else:
        log_q = log_q - student.logsumexp(-1, keepdim=True)
    divergence = (log_p.exp() * (log_p - log_q)).sum(-1)
    return divergence if tail == "truncate" else _lift(divergence)


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
    student = _widen(student_logits)  # (N, V)
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


def hidden_state_loss(
    student_states: Sequence[Tensor],
    teacher_states: Sequence[Tensor],
    pairs: Sequence[tuple[int, int]],
    projections: Sequence[Module] | None = None,
    mask: Tensor | None = None,
    kind: str = "mse",
) -> Tensor:
    """Distance between hidden states: mean over the pairs and the kept positions.

    - states: (B, T, H) each, what a model called with `output_hidden_states=True` gives
      as `hidden_states`: number 0 are the embeddings, number i what layer i returns.
    - pairs: (student's number, teacher's number) of states that should agree.
    - projections: one module a pair, from the student's width to the teacher's; needed
      where these differ, and trained with the student (FitNets, Romero et al. 2014).
    - mask (B, T): positions that count, such as the attention mask; without it, all.
    - kind: mse, the squared difference averaged over H (TinyBERT, Jiao et al. 2019), or
      cosine, 1 - the cosine of the angle (DistilBERT, Sanh et al. 2019).

    No gradient reaches the teacher. Raises `ValueError` where states do not fit.
    """
    if kind not in ("mse", "cosine"):
        raise ValueError(f"no kind {kind!r}; choose mse or cosine")
    if projections is not None and len(projections) != len(pairs):
        raise ValueError(f"{len(projections)} projections for {len(pairs)} pairs")
    losses = []
    layers = _paired(student_states, teacher_states, pairs)
    for number, pair in enumerate(layers):
        student, teacher = (_keep(states, mask) for states in pair)  # (N, H)
        if projections is not None:
            student = projections[number](student)
        if student.shape != teacher.shape:
            raise ValueError(
                f"pair {pairs[number]}: student {student.shape[-1]} wide, teacher "
                f"{teacher.shape[-1]}: give projections, torch.nn.Linear("
                f"{student.shape[-1]}, {teacher.shape[-1]}) for this pair"
            )
        if kind == "mse":
            per_token = (student - teacher).square().mean(-1)
        else:
            per_token = _lift(1 - F.cosine_similarity(student, teacher, dim=-1))
        losses.append(per_token.sum() / max(1, len(per_token)))
    return torch.stack(losses).mean()


def attention_loss(
    student_attentions: Sequence[Tensor],
    teacher_attentions: Sequence[Tensor],
    pairs: Sequence[tuple[int, int]],
    mask: Tensor | None = None,
) -> Tensor:
    """KL from the teacher's attention to the student's, in nats for each query.

    Attentions (B, heads, T, T), each row a distribution over the keys, as a model gives
    with `output_attentions=True`, loaded with `attn_implementation="eager"`; `pairs` of
    layers, counted from 0; `mask` (B, T), the queries that count. The mean over pairs,
    queries and heads (MiniLM, Wang et al. 2020); where the numbers of heads differ,
    their mean attentions are compared (after Zagoruyko and Komodakis 2016).

    No gradient reaches the teacher. Raises `ValueError` where layers do not fit.
    """
    losses = []
    for pair in _paired(student_attentions, teacher_attentions, pairs):
        # (N, heads, T): queries first, then chosen like positions
        student, teacher = (_keep(layer.transpose(1, 2), mask) for layer in pair)
        if student.shape[1] != teacher.shape[1]:
            student, teacher = (a.mean(1, keepdim=True) for a in (student, teacher))
        log_q = student.clamp(min=torch.finfo(student.dtype).tiny).log()
        divergence = (torch.xlogy(teacher, teacher) - teacher * log_q).sum(-1)
        losses.append(_lift(divergence).sum() / max(1, divergence.numel()))
    return torch.stack(losses).mean()


def _paired(student, teacher, pairs) -> Iterator[tuple[Tensor, Tensor]]:
    """The two layers of each pair, in float32, the teacher's without a gradient."""
    if not pairs or not student or not teacher or student[0] is None:
        raise ValueError(
            "nothing to compare: give pairs (student layer, teacher layer), and call "
            "both models with output_hidden_states=True or, loaded with "
            "attn_implementation='eager', with output_attentions=True"
        )
    for i, j in pairs:
        if not (0 <= i < len(student) and 0 <= j < len(teacher)):
            raise ValueError(
                f"pair {(i, j)}: the student has layers 0 to {len(student) - 1} here, "
                f"the teacher 0 to {len(teacher) - 1}"
            )
        yield _widen(student[i]), _widen(teacher[j].detach())


def _keep(layer: Tensor, mask: Tensor | None) -> Tensor:
    """(B, T, ...) -> (N, ...): padding must not even be computed with."""
    return layer.flatten(0, 1) if mask is None else layer[mask.bool()]


def _widen(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _lift(divergence: Tensor) -> Tensor:
    """Rounding can end a hair below zero: lift the value, leave the gradient alone."""
    return divergence - divergence.detach().clamp(max=0)


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
