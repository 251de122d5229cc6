"""Which positions count, and the mean over them: the only place that shifts."""

import torch
from torch import Tensor


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
