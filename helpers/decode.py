"""One decoding loop for a batch of prompts: finished rows leave it."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, TopPLogitsWarper

LEAVE = 0.25  # of the rows must be finished before the batch is packed again


class Decoded(NamedTuple):
    """The tokens of an answer, without the one that ended it; `ended` by the model."""

    tokens: list[int]
    ended: bool


class Greedy:
    """The most likely token, always."""

    def __call__(self, logits: Tensor, rows: Tensor, step: int) -> Tensor:
        return logits.argmax(-1)


class Draw:
    """A token from softmax(logits / temperature), with a stream of chance a row.

    A row's uniform numbers depend on its seed alone, and its token at a step is where
    the cumulated probabilities pass the step's number (inverse transform sampling), so
    that an answer is the same in any batch and any order. `top_p` below 1 keeps the
    smallest set of tokens with at least that mass (Holtzman et al. 2020).
    """

    def __init__(
        self,
        seeds: Sequence[int],
        max_new_tokens: int,
        temperature: float,
        top_p: float = 1.0,
    ):
        streams = [torch.Generator().manual_seed(seed) for seed in seeds]
        uniform = [torch.rand(max_new_tokens, generator=g) for g in streams]
        # A little below 1, so that rounding never leads past the last likely token.
        self.uniform = torch.stack(uniform).clamp_(max=1 - 2e-7)
        self.temperature = temperature
        self.nucleus = TopPLogitsWarper(top_p) if top_p < 1 else None

    def __call__(self, logits: Tensor, rows: Tensor, step: int) -> Tensor:
        scores = logits.float() / self.temperature
        if self.nucleus:
            scores = self.nucleus(None, scores)
        mass = scores.softmax(-1).cumsum(-1)
        wanted = self.uniform[rows.cpu(), step, None].to(mass.device) * mass[:, -1:]
        return torch.searchsorted(mass, wanted, right=True)[:, 0]


@torch.inference_mode()
def decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    choose: Greedy | Draw,
    *,
    stop: Collection[int],
    max_new_tokens: int,
    vocab: int | None = None,
) -> list[Decoded]:
    """Continue each prompt (token ids) until one of the `stop` ids or the limit.

    The batch is padded on the left, so that every answer starts at the same place. A
    prompt that is asked several times is read once. Keys and values of the past are
    kept, and once a quarter of the rows is finished the others go on without them.
    Only the first `vocab` columns of the logits are chosen from, by default all.
    Nothing of the model's own generation settings is used; it should be in eval mode.
    """
    unique = list(dict.fromkeys(map(tuple, prompts)))
    where = {prompt: row for row, prompt in enumerate(unique)}
    copies = torch.tensor([where[tuple(p)] for p in prompts], device=model.device)
    ids, mask = _pad_left(unique)
    ids, mask = ids.to(model.device), mask.to(model.device)
    ends = torch.tensor(sorted(stop), device=model.device)
    rows = torch.arange(len(prompts), device=model.device)  # those still in the batch
    said = torch.full((len(prompts), max_new_tokens), -1, device=model.device)
    done = torch.zeros(len(prompts), dtype=torch.bool, device=model.device)
    positions = (mask.cumsum(1) - 1).clamp_(min=0)
    cache = DynamicCache(config=model.config)
    for step in range(max_new_tokens):
        logits = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1, :vocab]
        if step == 0 and len(unique) < len(prompts):
            cache.batch_select_indices(copies)
            logits, mask, positions = (x[copies] for x in (logits, mask, positions))
        token = choose(logits, rows, step)
        said[rows, step] = torch.where(done, -1, token)
        done = done | torch.isin(token, ends)
        if done.all():
            break
        if done.float().mean() >= LEAVE:
            left = (~done).nonzero()[:, 0]
            cache.batch_select_indices(left)
            kept = (rows, token, done, mask, positions)
            rows, token, done, mask, positions = (x[left] for x in kept)
        ids, positions = token[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
    return [_cut(tokens, stop) for tokens in said.tolist()]


def _pad_left(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids, 0 where the mask is 0."""
    ids = torch.zeros(len(prompts), max(map(len, prompts)), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, -len(prompt) :] = torch.tensor(prompt)
        mask[row, -len(prompt) :] = 1
    return ids, mask


def _cut(tokens: list[int], stop: Collection[int]) -> Decoded:
    for place, token in enumerate(tokens):
        if token in stop:
            return Decoded(tokens[:place], True)
    return Decoded([token for token in tokens if token >= 0], False)
