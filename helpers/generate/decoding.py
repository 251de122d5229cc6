"""One decoding loop for many prompts: where a row is finished, the next one enters."""

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, TopPLogitsWarper
from transformers.cache_utils import DynamicLayer

LEAVE = 0.25  # of the rows must be finished before others take their place


class Decoded(NamedTuple):
    """The tokens of an answer, without the one that ended it; `ended` by the model."""

    tokens: list[int]
    ended: bool


class Greedy:
    """The most likely token, always."""

    def __call__(self, logits: Tensor, prompts: Tensor, steps: Tensor) -> Tensor:
        return logits.argmax(-1)


class Draw:
    """A token from softmax(logits / temperature), with a stream of chance a prompt.

    A prompt's uniform numbers depend on its seed alone, and its token at a step is
    where the cumulated probabilities pass the step's number (inverse transform
    sampling), so that an answer is the same in any batch and any order. `top_p` below 1
    keeps the smallest set of tokens with at least that mass (Holtzman et al. 2020).
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

    def __call__(self, logits: Tensor, prompts: Tensor, steps: Tensor) -> Tensor:
        scores = logits.float() / self.temperature
        if self.nucleus:
            scores = self.nucleus(None, scores)
        mass = scores.softmax(-1).cumsum(-1)
        numbers = self.uniform[prompts.cpu(), steps.cpu(), None].to(mass.device)
        return torch.searchsorted(mass, numbers * mass[:, -1:], right=True)[:, 0]


class _Layer(DynamicLayer):
    """Keys and values of one layer, in buffers with room for more columns.

    A new token is written beside the last one and nothing is copied. All rows end at
    the same column, `batch.end`; what stands before `batch.first` nobody reads.
    """

    def __init__(self, batch: "_Batch", keys: Tensor, values: Tensor):
        super().__init__()
        self.batch = batch
        shapes = [(batch.rows, x.shape[1], batch.room, x.shape[3])
                  for x in (keys, values)]  # fmt: skip
        # Zeros, since 0 x what is in fresh memory need not be 0.
        self.buffers = [keys.new_zeros(shape) for shape in shapes]

    def update(self, keys, values, *args, **kwargs):
        first, end = self.batch.first, self.batch.end
        for buffer, new in zip(self.buffers, (keys, values), strict=True):
            buffer[:, :, end : end + 1] = new
        return tuple(buffer[:, :, first : end + 1] for buffer in self.buffers)

    def get_seq_length(self) -> int:
        return self.batch.end - self.batch.first

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0


class _Batch:
    """Rows under way: each a prompt and what was said so far, aligned on the right."""

    def __init__(self, model: PreTrainedModel, rows: int, room: int):
        self.model, self.rows, self.room = model, rows, room
        self.first = self.end = 0  # the columns that are in use
        self.cache = DynamicCache()
        like = {"dtype": torch.long, "device": model.device}
        self.prompt = torch.full((rows,), -1, **like)  # its number; -1: a free row
        self.start = torch.zeros(rows, **like)  # the column of its first token
        self.steps = torch.zeros(rows, **like)  # tokens said so far
        self.token = torch.zeros(rows, **like)  # the last of them
        self.mask = torch.zeros(rows, room, **like)

    def enter(self, numbers: Sequence[int], prompts: Sequence[Sequence[int]]) -> Tensor:
        """Read prompts into free rows; the rows, and the logits after each prompt."""
        unique = list(dict.fromkeys(map(tuple, prompts)))
        place = {prompt: row for row, prompt in enumerate(unique)}
        copies = torch.tensor(
            [place[tuple(p)] for p in prompts], device=self.token.device
        )
        ids, mask = (x.to(self.token.device) for x in _pad_left(unique))
        past, width = DynamicCache(), ids.shape[1]
        all_differ = len(unique) == len(prompts)
        logits = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp_(min=0),
            past_key_values=past,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        if not self.cache.layers:
            self.cache.layers = [_Layer(self, x.keys, x.values) for x in past.layers]
            self.cache.layer_class_to_replicate = None
        if (self.prompt < 0).all():
            self.first, self.end = 0, width
        rows = (self.prompt < 0).nonzero()[: len(prompts), 0]
        columns = slice(self.end - width, self.end)
        for layer, read in zip(self.cache.layers, past.layers, strict=True):
            for buffer, new in zip(
                layer.buffers, (read.keys, read.values), strict=True
            ):
                buffer[rows, :, columns] = new if all_differ else new[copies]
        self.mask[rows] = 0
        self.mask[rows, columns] = mask[copies]
        self.start[rows] = self.end - mask.sum(1)[copies]
        self.prompt[rows] = torch.tensor(numbers, device=rows.device)
        self.steps[rows] = 0
        return rows, logits[copies]

    def next_logits(self) -> Tensor:
        """Append each row's token; the logits after it."""
        busy = self.prompt >= 0
        self.first = int(self.start[busy].min())
        if self.end == self.room:
            self._move_left()
        self.mask[:, self.end] = 1
        logits = self.model(
            input_ids=self.token[:, None],
            attention_mask=self.mask[:, self.first : self.end + 1],
            position_ids=(self.end - self.start).clamp_(min=0)[:, None],
            past_key_values=self.cache,
            use_cache=True,
        ).logits[:, -1]
        self.end += 1
        return logits

    def _move_left(self) -> None:
        """Make room on the right: no row is as long as the buffers."""
        kept = slice(self.first, self.end)
        tensors = [b for layer in self.cache.layers for b in layer.buffers]
        for tensor in tensors:
            tensor[:, :, : self.end - self.first] = tensor[:, :, kept].clone()
        self.mask[:, : self.end - self.first] = self.mask[:, kept].clone()
        self.mask[:, self.end - self.first :] = 0
        self.start -= self.first
        self.first, self.end = 0, self.end - self.first

    def leave(self) -> None:
        """Drop the free rows."""
        busy = (self.prompt >= 0).nonzero()[:, 0]
        for name in ("prompt", "start", "steps", "token", "mask"):
            setattr(self, name, getattr(self, name)[busy])
        for layer in self.cache.layers:
            layer.buffers = [buffer[busy] for buffer in layer.buffers]
        self.rows = len(busy)


@torch.inference_mode()
def decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    choose: Greedy | Draw,
    *,
    stop: Collection[int],
    max_new_tokens: int,
    batch_size: int = 64,
    vocab: int | None = None,
) -> Iterator[tuple[int, Decoded]]:
    """Continue prompts (token ids) until one of the `stop` ids or the limit.

    Yields (number of the prompt, answer) as answers end. The longest prompts are read
    first, `batch_size` at a time; once a quarter of the rows is finished, the next
    prompts take their place (continuous batching, Yu et al. 2022), or, when none is
    left, the others go on without them. A prompt that is asked several times in a row
    is read once. Only the first `vocab` columns of the logits are chosen from. Nothing
    of the model's own generation settings is used; it should be in eval mode.
    """
    queue = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))[::-1]
    if not queue:
        return
    longest = len(prompts[queue[-1]]) + max_new_tokens
    room = longest + longest // 4 + 8  # a quarter more: columns seldom move
    batch = _Batch(model, min(batch_size, len(queue)), room)
    like = {"dtype": torch.long, "device": model.device}
    said = torch.zeros(len(prompts), max_new_tokens, **like)
    ends = torch.tensor(sorted(stop), **like)

    def say(rows: Tensor, logits: Tensor) -> Iterator[tuple[int, Decoded]]:
        token = choose(logits[:, :vocab], batch.prompt[rows], batch.steps[rows])
        said[batch.prompt[rows], batch.steps[rows]] = token
        batch.token[rows] = token
        batch.steps[rows] += 1
        ended = torch.isin(token, ends)
        done = ended | (batch.steps[rows] == max_new_tokens)
        finished = zip(batch.prompt[rows][done].tolist(),
                       batch.steps[rows][done].tolist(), ended[done].tolist(),
                       strict=True)  # fmt: skip
        batch.prompt[rows[done]] = -1
        for number, length, by_model in finished:
            yield number, Decoded(said[number, : length - by_model].tolist(), by_model)

    while True:
        free = int((batch.prompt < 0).sum())
        if queue and free >= LEAVE * batch.rows:
            numbers = [queue.pop() for _ in range(min(free, len(queue)))]
            yield from say(*batch.enter(numbers, [prompts[i] for i in numbers]))
            continue
        if free == batch.rows:
            return
        if free >= LEAVE * batch.rows:
            batch.leave()
        busy = (batch.prompt >= 0).nonzero()[:, 0]
        yield from say(busy, batch.next_logits()[busy])


def _pad_left(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids, 0 where the mask is 0."""
    ids = torch.zeros(len(prompts), max(map(len, prompts)), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, -len(prompt) :] = torch.tensor(prompt)
        mask[row, -len(prompt) :] = 1
    return ids, mask
