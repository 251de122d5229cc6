"""The loss head without the logits: hidden states in, one loss per token out.

A language model ends in `logits = hidden @ weight.T`, and a distillation loss compares
two of them, the student's and the teacher's. For 1,024 tokens over 152,000 words these
weigh 1.2 GB in float32, and autograd keeps several more of that size for the gradient.
None of them is needed as a whole:

1. **Tiles.** The loss of a token needs no other token. A few tokens at a time go
   through both output layers, and the vocabulary in blocks that stay in the cache.
2. **Online log-sum-exp.** The softmax needs one sum over the vocabulary; it is added up
   block by block (Milakov, Gimelshein 2018).
3. **The gradient at once, in closed form.** While a tile is there, its gradient costs
   two matrix products; later, the logits would have to be computed again. Kept are only
   the gradients of `hidden` (N, H) and `weight` (V, H), as large as these themselves.

The third is a bet. The gradient of `weight` is a sum over tokens, each times a factor
that only `backward` will know. Below a sum or a mean the factor is the same for all, so
the sum can be taken first. Where it is not, the bet is lost: `backward` goes through
the tiles again. The result is right all the same, but takes longer.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .divergences import KINDS, log_over_mixture
from .sparse import TAILS, sparse_divergence

# Bytes of a tile (tokens x words) and of one block of it, found by measurement: on a
# CPU a block and its temporaries should fit the cache; on a GPU a tile should hold 250
# tokens or more, or reading the weight takes longer than multiplying with it.
MIB = 2**20
CPU_BYTES, GPU_BYTES = (48 * MIB, MIB), (256 * MIB, 64 * MIB)


def linear_divergence(
    student_hidden: Tensor,
    student_weight: Tensor,
    teacher_hidden: Tensor,
    teacher_weight: Tensor,
    *,
    kind: str = "forward_kl",
    temperature: float = 1.0,
    beta: float = 0.5,
    skew: float = 0.1,
    student_bias: Tensor | None = None,
    teacher_bias: Tensor | None = None,
    student_scale: float = 1.0,
    teacher_scale: float = 1.0,
    student_softcap: float | None = None,
    teacher_softcap: float | None = None,
    token_chunk: int = 1024,
    vocab_chunk: int | None = None,
) -> Tensor:
    """`losses.token_divergence` of two output layers, without their logits.

    Hidden states (N, H_student) and (N, H_teacher), weights (V, H_student) and
    (V, H_teacher), biases (V,) -> (N,), nats per token, float32 inside, no T² in here.
    Logits are `scale * (hidden @ weight.T + bias)`, and where a model caps them (Gemma
    2), `softcap * tanh(logits / softcap)`. Gradients reach the student's hidden states,
    weight and bias as far as these require one; the teacher gets none.

    A tile holds at most `token_chunk` tokens, fewer where it would pass `CPU_BYTES` or
    `GPU_BYTES`, and is worked through in blocks of `vocab_chunk` words (None: as many
    as fit). Neither changes the result. Memory: the gradients and two tiles, with a
    student's softcap three.

    Raises `ValueError` for an unknown kind, a setting out of range, or unequal shapes.
    """
    if kind not in KINDS:
        raise ValueError(f"no divergence {kind!r}; choose one of {', '.join(KINDS)}")
    if not (0 <= beta <= 1 and 0 <= skew < 1):
        raise ValueError("needed: 0 <= beta <= 1 and 0 <= skew < 1")
    if len(teacher_weight) != len(student_weight):
        raise ValueError(
            f"{len(student_weight)} words of the student, {len(teacher_weight)} of the "
            "teacher: slice both weights to the shared_vocab rows"
        )
    _check_positions(student_hidden, teacher_hidden)
    if kind == "jsd" and beta in (0, 1):
        kind = "reverse_kl" if beta else "forward_kl"
    if skew == 0:
        kind = kind.removeprefix("skew_")
    student = _head(
        (student_hidden, student_weight, student_bias),
        (student_scale, student_softcap, temperature),
        (token_chunk, vocab_chunk),
    )
    teacher = _head(
        (teacher_hidden, teacher_weight, teacher_bias),
        (teacher_scale, teacher_softcap, temperature),
        (token_chunk, vocab_chunk),
    )
    terms = partial(_terms, kind, beta, skew)
    return _losses(student, partial(_with_layer, teacher, terms))


def linear_sparse_divergence(
    student_hidden: Tensor,
    student_weight: Tensor,
    token_ids: Tensor,
    logprobs: Tensor,
    *,
    tail: str = "bucket",
    temperature: float = 1.0,
    student_bias: Tensor | None = None,
    student_scale: float = 1.0,
    student_softcap: float | None = None,
    token_chunk: int = 1024,
    vocab_chunk: int | None = None,
) -> Tensor:
    """`losses.sparse_divergence` of an output layer, without its logits.

    Hidden states (N, H), weight (V, H), token_ids and logprobs (N, K) -> (N,); the rest
    as in `linear_divergence` and `sparse_divergence`. With K = 1, logprobs 0 and tail
    "truncate" it is the cross-entropy with the tokens `token_ids`.

    Raises `ValueError` for an unknown tail, a setting out of range, or unequal shapes.
    """
    if tail not in TAILS:
        raise ValueError(f"no tail {tail!r}; choose one of {', '.join(TAILS)}")
    if token_ids.shape != logprobs.shape or token_ids.dim() != 2:
        raise ValueError(
            f"token_ids {token_ids.shape} and logprobs {logprobs.shape} must be (N, K)"
        )
    _check_positions(student_hidden, token_ids)
    if tail == "bucket" and token_ids.shape[1] == len(student_weight):
        tail = "renormalise"  # all are known: the bucket is empty
    student = _head(
        (student_hidden, student_weight, student_bias),
        (student_scale, student_softcap, temperature),
        (token_chunk, vocab_chunk),
    )
    return _losses(student, partial(_with_tokens, token_ids.long(), logprobs, tail))


# ------------------------------------------------ a tile compared with the teacher

# Takes (rows, the student's logits (n, V), blocks of columns), returns losses (n,), and
# leaves their gradient where the logits were.
Compare = Callable[[slice, Tensor, Sequence[slice]], Tensor]


def _with_layer(teacher: "_Head", terms: Callable) -> Compare:
    """Divergence from a teacher's output layer.

    A logit acts through q = softmax(z), and dq_i / dz_j = q_i (1[i = j] - q_j). So the
    gradient is pull - q sum(pull), where each word pulls with q df/dq.
    """
    tile = teacher.new_tile()  # one for all rows: new memory costs time

    def compare(rows: slice, z: Tensor, blocks: Sequence[slice]) -> Tensor:
        z_teacher = teacher.logits(rows, tile)
        top, rest = _log_sum_exp(z, blocks)
        teacher_top, teacher_rest = _log_sum_exp(z_teacher, blocks)
        losses, total_pull = torch.zeros_like(top), torch.zeros_like(top)
        for block in blocks:
            log_q = (z[:, block] - top).sub_(rest)
            log_p = (z_teacher[:, block] - teacher_top).sub_(teacher_rest)
            q = torch.exp(log_q, out=z[:, block])  # the logits are not needed any more
            f, pull = terms(log_q, log_p, q)
            z_teacher[:, block] = pull  # nor are these
            losses += f.sum(-1, keepdim=True)
            total_pull += pull.sum(-1, keepdim=True)
        for block in blocks:
            z[:, block].mul_(-total_pull).add_(z_teacher[:, block])
        return losses.clamp(min=0).squeeze(-1)  # rounding can end a hair below 0

    return compare


def _terms(
    kind: str, beta: float, skew: float, log_q: Tensor, log_p: Tensor, q: Tensor
) -> tuple[Tensor, Tensor]:
    """Each word's share f(p, q) of the divergence, and its pull q df/dq.

    A part of df/dq that is the same for all words changes no gradient: it is left out.
    """
    log_ratio = log_p - log_q
    if kind == "forward_kl":
        p = log_p.exp()
        return p * log_ratio, -p
    if kind == "reverse_kl":
        f = -q * log_ratio
        return f, f
    if kind == "tvd":
        gap = (q - log_p.exp()) / 2
        return gap.abs(), q * gap.sign() / 2
    if kind == "skew_forward_kl":
        log_p_m = log_over_mixture(log_ratio, skew)  # log(p / m)
        return log_p.exp() * log_p_m, (skew - 1) * q * log_p_m.exp()
    if kind == "skew_reverse_kl":
        log_q_m = log_over_mixture(-log_ratio, skew)
        return q * log_q_m, q * (log_q_m - skew * log_q_m.exp())
    if kind == "jsd":
        log_p_m = log_over_mixture(log_ratio, beta)  # log(q / m) is log_ratio less
        pull = (1 - beta) * q * (log_p_m - log_ratio)
        return beta * log_p.exp() * log_p_m + pull, pull
    raise NotImplementedError(f"{kind} has no closed form here yet")


def _with_tokens(token_ids: Tensor, logprobs: Tensor, tail: str) -> Compare:
    """Divergence from K known tokens.

    To this loss all other tokens are one. So it is taken, with its gradient, over a
    vocabulary of K + 1, the last being the log-sum-exp of the others, and then shared
    out among these by softmax.
    """
    # An empty place of a sample repeats the likeliest token, without its mass.
    empty = (logprobs == -torch.inf) & (tail == "sampled")
    likeliest = token_ids.gather(-1, logprobs.argmax(-1, keepdim=True))
    token_ids = token_ids.where(~empty, likeliest)
    places = torch.arange(token_ids.shape[-1], device=token_ids.device)

    def compare(rows: slice, z: Tensor, blocks: Sequence[slice]) -> Tensor:
        ids, lowest = token_ids[rows], torch.finfo(z.dtype).min
        known = z.gather(-1, ids).masked_fill(empty[rows], lowest)
        z.scatter_(-1, ids, -torch.inf)
        others = sum(_log_sum_exp(z, blocks)).clamp(min=lowest)
        with torch.enable_grad():
            few = torch.cat([known, others], -1).requires_grad_()
            known_places = places.expand_as(ids)
            losses = sparse_divergence(few, known_places, logprobs[rows], tail=tail)
            (gradient,) = torch.autograd.grad(losses.sum(), few)
        for block in blocks:
            z[:, block].sub_(others).exp_().mul_(gradient[:, -1:])
        z.scatter_add_(-1, ids, gradient[:, :-1])
        return losses.detach()

    return compare


def _log_sum_exp(z: Tensor, blocks: Sequence[slice]) -> tuple[Tensor, Tensor]:
    """Online log-sum-exp over the vocabulary, (n, V) -> maximum and the rest, (n, 1).

    When a larger maximum turns up, the sum so far is brought to it. The two are kept
    apart because their sum would round away digits of small log-probabilities.
    """
    top = z.new_full((len(z), 1), torch.finfo(z.dtype).min)
    total = torch.zeros_like(top)
    for block in blocks:
        before, top = top, top.maximum(z[:, block].amax(-1, keepdim=True))
        total *= (before - top).exp()
        total += (z[:, block] - top).exp_().sum(-1, keepdim=True)
    return top, total.log()


# ------------------------------------------------ tiles through an output layer


class _Head(NamedTuple):
    """An output layer, what enters it, and how it is cut into tiles."""

    hidden: Tensor  # (N, H)
    weight: Tensor  # (V, H)
    bias: Tensor | None  # (V,)
    scale: float
    softcap: float | None
    temperature: float
    dtype: torch.dtype  # in which a GPU multiplies; sums are float32 or wider
    tokens: int  # in a tile
    words: int  # in a block

    def new_tile(self) -> Tensor:
        return self.hidden.new_empty(self.tokens, len(self.weight), dtype=self.wide)

    def logits(self, rows: slice, tile: Tensor) -> Tensor:
        """Logits / T of these rows, (n, V), written into the tile."""
        hidden = self.hidden[rows]
        tile = tile[: len(hidden)]
        scale = self.scale / (self.softcap or self.temperature)
        for block in self.blocks:
            z = tile[:, block]
            self.add_product(z, hidden, self.weight[block].T, scale, keep=False)
            if self.bias is not None:
                z += scale * self.bias[block]
            if self.softcap is not None:
                z.tanh_().mul_(self.softcap / self.temperature)
        return tile

    def softcap_slope(self, z: Tensor) -> Tensor | None:
        """What the softcap does to the gradient, 1 - tanh², (n, V)."""
        if self.softcap is None:
            return None
        return (z * (self.temperature / self.softcap)).square_().neg_().add_(1)

    def add_product(
        self, total: Tensor, a: Tensor, b: Tensor, scale: float, keep: bool = True
    ) -> None:
        """total += scale * a @ b, added up in the type of `total`, float32 or wider.

        Without `keep`, what stood in `total` counts as 0.

        A GPU multiplies bfloat16 as it is, many times faster. Not so float16: its range
        is too narrow for a gradient that no loss scale has reached yet.
        """
        if total.is_cuda and self.dtype == torch.bfloat16:
            a, b = a.to(self.dtype), b.to(self.dtype)
            wide = dict(out_dtype=total.dtype, out=total)
            torch.addmm(total, a, b, beta=keep, alpha=scale, **wide)
        else:
            a, b = a.to(total.dtype), b.to(total.dtype)
            total.addmm_(a, b, beta=keep, alpha=scale)

    @property
    def wide(self) -> torch.dtype:
        return torch.promote_types(self.dtype, torch.float32)

    @property
    def blocks(self) -> list[slice]:
        starts = range(0, len(self.weight), self.words)
        return [slice(start, start + self.words) for start in starts]


def _head(layer: tuple, transform: tuple, chunks: tuple) -> _Head:
    """Check an output layer and choose the data type and the size of its tiles."""
    (hidden, weight, _), (_, softcap, temperature) = layer, transform
    token_chunk, vocab_chunk = chunks
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(
            f"hidden states {hidden.shape} and weight {weight.shape} must be (N, H) "
            "and (V, H): take hidden[:, :-1][mask], mask from shift_and_mask"
        )
    if not temperature > 0 or (softcap is not None and not softcap > 0):
        raise ValueError("needed: temperature > 0, and softcap > 0 or None")
    if token_chunk < 1 or (vocab_chunk is not None and vocab_chunk < 1):
        raise ValueError("needed: token_chunk >= 1, and vocab_chunk >= 1 or None")
    device = hidden.device.type
    dtype = torch.promote_types(hidden.dtype, weight.dtype)
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    tile_bytes, block_bytes = CPU_BYTES if device == "cpu" else GPU_BYTES
    tokens = min(token_chunk, len(hidden), tile_bytes // (4 * len(weight)))
    tokens = max(tokens, 1)
    words = vocab_chunk or max(1, block_bytes // (4 * tokens))
    return _Head(*layer, *transform, dtype, tokens, words)


def _losses(student: _Head, prepare: Callable[[], Compare]) -> Tensor:
    if not torch.is_grad_enabled():
        return _sweep(student, prepare)[0]
    return _PerToken.apply(*student[:3], student[3:], prepare)


class _PerToken(torch.autograd.Function):
    """One loss per token, and the bet on its gradient."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, settings, prepare):
        ctx.save_for_backward(hidden, weight, bias)
        ctx.settings, ctx.prepare = settings, prepare
        student = _Head(hidden, weight, bias, *settings)
        losses, ctx.gradients = _sweep(student, prepare, ctx.needs_input_grad[:3])
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx, factors):
        gradients, ctx.gradients = ctx.gradients, None  # a second backward sweeps again
        frozen = not any(ctx.needs_input_grad[1:3])
        equal = len(factors) > 0 and (factors == factors[0]).all()
        if gradients is None or not (frozen or equal):
            gradients = None  # makes room for the new ones
            student = _Head(*ctx.saved_tensors, *ctx.settings)
            wanted = ctx.needs_input_grad[:3]
            _, gradients = _sweep(student, ctx.prepare, wanted, factors)
        else:
            scales = factors[:, None], factors[:1], factors[:1]
            for gradient, scale in zip(gradients, scales, strict=True):
                if gradient is not None:
                    gradient *= scale
        gradients = [
            None if gradient is None else gradient.to(x.dtype)
            for gradient, x in zip(gradients, ctx.saved_tensors, strict=True)
        ]
        return *gradients, None, None


def _sweep(
    student: _Head,
    prepare: Callable[[], Compare],
    wanted: Sequence[bool] = (False, False, False),
    factors: Tensor | None = None,
) -> tuple[Tensor, list[Tensor | None]]:
    """All tiles: losses (N,) and the wanted gradients of their sum times `factors`."""
    hidden, weight, bias = student[:3]
    gradients = [
        torch.zeros_like(x, dtype=student.wide) if wants else None
        for x, wants in zip((hidden, weight, bias), wanted, strict=True)
    ]
    grad_hidden, grad_weight, grad_bias = gradients
    losses = hidden.new_empty(len(hidden), dtype=student.wide)
    slope = student.scale / student.temperature
    compare, tile, blocks = prepare(), student.new_tile(), student.blocks
    for start in range(0, len(hidden), student.tokens):
        rows = slice(start, start + student.tokens)
        z = student.logits(rows, tile)
        softcap_slope = student.softcap_slope(z) if any(wanted) else None
        losses[rows] = compare(rows, z, blocks)
        for block in blocks if any(wanted) else ():
            gradient = z[:, block]
            if softcap_slope is not None:
                gradient *= softcap_slope[:, block]
            if factors is not None:
                gradient *= factors[rows, None]
            if grad_hidden is not None:
                student.add_product(grad_hidden[rows], gradient, weight[block], slope)
            if grad_weight is not None:
                total = grad_weight[block]
                student.add_product(total, gradient.T, hidden[rows], slope)
            if grad_bias is not None:
                grad_bias[block] += slope * gradient.sum(0)
    return losses, gradients


def _check_positions(student: Tensor, teacher: Tensor) -> None:
    if len(student) != len(teacher):
        raise ValueError(
            f"{len(student)} positions of the student and {len(teacher)} of the "
            "teacher: keep the same tokens of both"
        )
