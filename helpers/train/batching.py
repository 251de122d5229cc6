"""Which rows are read together, in which order."""

import itertools
import random
from collections.abc import Iterator, Sequence

from transformers import PreTrainedModel


def batches(
    lengths: Sequence[int], size: int, seed: int = 0, group_by_length: bool = True
) -> Iterator[list[int]]:
    """Endless batches of row numbers; an epoch is a new shuffle with every row once.

    Inside a batch rows stand by length, so that its micro-batches pad little; this
    changes no gradient. `group_by_length` cuts batches from sorted windows of 8: steps
    are cheaper, each a little less representative. An epoch's last may be smaller.
    """
    for epoch in itertools.count():
        yield from epoch_batches(lengths, size, seed, epoch, group_by_length)


def epoch_batches(
    lengths: Sequence[int], size: int, seed: int, epoch: int, group_by_length: bool
) -> list[list[int]]:
    """The batches of one epoch of `batches`."""
    window = size * (8 if group_by_length else 1)
    rng = random.Random(f"{seed} {epoch}")
    order = rng.sample(range(len(lengths)), len(lengths))
    groups = []
    for start in range(0, len(order), window):
        rows = sorted(order[start : start + window], key=lengths.__getitem__)
        groups += [rows[i : i + size] for i in range(0, len(rows), size)]
    rest = [groups.pop()] if len(groups[-1]) < size else []
    rng.shuffle(groups)
    return groups + rest


def padding(student: PreTrainedModel) -> int:
    """The id to pad with; any would do, for attention and loss mask the padding."""
    return getattr(student.config, "pad_token_id", None) or 0
