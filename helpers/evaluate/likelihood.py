"""What a model thinks of given answers, token by token (teacher forcing)."""

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..data.tokens import collate
from ..losses.divergences import token_divergence
from ..losses.positions import shift_and_mask
from ..models.modes import eval_mode
from ..train.batching import padding
from ..train.signals import kept_logits

_AT_ONCE = 1024  # tokens whose probabilities are held in float32


@torch.inference_mode()
def token_scores(
    model: PreTrainedModel,
    rows: Sequence[dict],
    teacher: PreTrainedModel | None = None,
    *,
    top_k: int = 10,
    vocab: int | None = None,
    batch_size: int = 64,
) -> pd.DataFrame:
    """One line for each answer token of tokenised `rows` (`data.encode_chat`).

    `row`: its place in `rows`. `nll`: -log probability of the token, in nats.
    `confidence`: probability of the likeliest token; `hit`: whether that is the token
    that stands there. With a `teacher`: `forward_kl`, KL(teacher || model) in nats at
    temperature 1; `top1`: both put the same token first; `top_k`: the share of the
    teacher's `top_k` likeliest tokens that are among the model's. The end-of-answer
    token counts as a token, the prompt does not count.

    `vocab`: logit columns that both share (`models.shared_vocab`), where their widths
    differ; it concerns the comparison with the teacher only. Both models read the rows
    in eval mode. Raises `ValueError` where there are no rows.
    """
    rows = list(rows)
    if not rows:
        raise ValueError("no rows to score: were all filtered out?")
    by_length = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
    parts = []
    for start in range(0, len(rows), batch_size):
        chosen = by_length[start : start + batch_size]
        batch = collate([rows[i] for i in chosen], padding(model))
        labels, mask = shift_and_mask(batch["labels"])
        said, places = labels[mask], torch.tensor(chosen).repeat_interleave(mask.sum(1))
        ours = _logits(model, batch)
        theirs = _logits(teacher, batch).to(ours.device) if teacher else None
        for first in range(0, len(said), _AT_ONCE):
            piece = slice(first, first + _AT_ONCE)
            scores = _of_tokens(ours[piece], said[piece].to(ours.device))
            if theirs is not None:
                pair = ours[piece, :vocab], theirs[piece, :vocab]
                scores |= _of_pairs(*pair, top_k)
            columns = {name: values.cpu() for name, values in scores.items()}
            parts.append(pd.DataFrame({"row": places[piece], **columns}))
    table = pd.concat(parts, ignore_index=True)
    return table.sort_values("row", kind="stable", ignore_index=True)


def nll(model: PreTrainedModel, rows: Sequence[dict], *, batch_size: int = 64) -> float:
    """Negative log-likelihood of the answers of `rows`, in nats a token.

    The mean over all tokens, so a long answer weighs more than a short one. Tokens of
    two tokenizers are not the same unit: compare models of one tokenizer only.
    """
    return float(token_scores(model, rows, batch_size=batch_size)["nll"].mean())


def agreement(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    rows: Sequence[dict],
    *,
    batch_size: int = 64,
    vocab: int | None = None,
    top_k: int | None = None,
) -> dict[str, float]:
    """How alike two models predict, over the answer tokens of tokenised `rows`.

    `top1`: share of positions where both put the same token first. `forward_kl`: mean
    KL(teacher || student) in nats a token, at temperature 1. `top_k`, where a number is
    given: mean share of the teacher's that many likeliest tokens which are among the
    student's. Both read the same text (teacher forcing), so this says how alike they
    are, not how right. `vocab`: logit columns that both share (`models.shared_vocab`),
    where their widths differ.
    """
    settings = {"vocab": vocab, "batch_size": batch_size, "top_k": top_k or 1}
    table = token_scores(student, rows, teacher, **settings)
    names = ["top1", "forward_kl"] + (["top_k"] if top_k else [])
    return {name: float(table[name].mean()) for name in names}


def _logits(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    with eval_mode(model):
        there = {key: value.to(model.device) for key, value in batch.items()}
        return kept_logits(model, there)


def _of_tokens(logits: Tensor, said: Tensor) -> dict[str, Tensor]:
    logprobs = logits.float().log_softmax(-1)  # (N, V)
    best, first = logprobs.max(-1)
    nll = -logprobs.gather(-1, said[:, None])[:, 0]
    return {"nll": nll, "confidence": best.exp(), "hit": first == said}


def _of_pairs(student: Tensor, teacher: Tensor, top_k: int) -> dict[str, Tensor]:
    k = min(top_k, student.shape[-1])
    ours, theirs = student.topk(k).indices, teacher.topk(k).indices  # (N, k)
    shared = (theirs[:, :, None] == ours[:, None, :]).any(-1)
    return {
        "forward_kl": token_divergence(student, teacher),
        "top1": student.argmax(-1) == teacher.argmax(-1),
        "top_k": shared.float().mean(-1),
    }
