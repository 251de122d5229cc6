"""Divergences from the few tokens of a teacher that were kept."""

from typing import NamedTuple

import torch
from torch import Tensor

from .divergences import lift, widen

TAILS = ("bucket", "renormalise", "truncate", "sampled")


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
    student = widen(student_logits) / temperature
    highest = student.detach().amax(-1, keepdim=True)
    student = student - highest  # changes no softmax; sums keep their digits
    token_ids = token_ids.long()
    log_q = student.gather(-1, token_ids)  # (N, K), not normalised yet
    log_p = widen(logprobs)
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
    return divergence if tail == "truncate" else lift(divergence)
