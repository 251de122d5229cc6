"""What a cache stores of a distribution, as numbers of few bytes, and back."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..losses.sparse import SparseTargets

LOWEST = -6e4  # float16 ends at -65,504


def half(logprobs: Tensor) -> Tensor:
    """In float16, -inf and all else below its range at its lowest number."""
    return logprobs.clamp(min=LOWEST).half()


def id_bytes(vocab: int) -> int:
    """Bytes that hold the largest id: 2 up to 65,536 tokens, 3 up to 16.7 million."""
    return ((vocab - 1).bit_length() + 7) // 8


def pack(ids: Tensor, vocab: int) -> Tensor:
    """Ids (N, K) as their bytes (N, K, 2 or 3), the lowest first."""
    lowest_first = [ids >> 8 * i & 255 for i in range(id_bytes(vocab))]
    return torch.stack(lowest_first, dim=-1).to(torch.uint8)


def unpack(packed: Tensor) -> Tensor:
    """The ids that `pack` was given, (N, K)."""
    return sum(packed[..., i].long() << 8 * i for i in range(packed.shape[-1]))


def log_shares(ids: Tensor) -> Tensor:
    """Draws, sorted (N, S) -> log of each token's share, -inf where it is repeated."""
    counts = torch.searchsorted(ids, ids, right=True) - torch.searchsorted(ids, ids)
    repeated = F.pad(ids[:, 1:] == ids[:, :-1], (1, 0))
    return (counts / ids.shape[-1]).log().masked_fill(repeated, -torch.inf)


def replay(hidden: Tensor, head: dict[str, Tensor], softcap: float | None) -> Tensor:
    """The teacher's logits (N, V) from what entered its output matrix (N, H)."""
    logits = F.linear(hidden, head["weight"], head.get("bias"))
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def probabilities(targets: Tensor | SparseTargets, vocab: int) -> Tensor:
    """(N, V) of any targets; what a sparse one does not know is 0."""
    if not isinstance(targets, SparseTargets):
        return targets.float().softmax(-1)
    nothing = torch.zeros(len(targets.token_ids), vocab)
    return nothing.scatter_add(1, targets.token_ids, targets.logprobs.exp())
