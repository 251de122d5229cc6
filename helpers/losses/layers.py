"""Losses between layers: hidden states and attention."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module

from .divergences import lift, widen


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
            per_token = lift(1 - F.cosine_similarity(student, teacher, dim=-1))
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
        losses.append(lift(divergence).sum() / max(1, divergence.numel()))
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
        yield widen(student[i]), widen(teacher[j].detach())


def _keep(layer: Tensor, mask: Tensor | None) -> Tensor:
    """(B, T, ...) -> (N, ...): padding must not even be computed with."""
    return layer.flatten(0, 1) if mask is None else layer[mask.bool()]
