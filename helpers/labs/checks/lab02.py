"""Checks of lab 02, soft targets: log-softmax, KL, the loss, its gradients, T².

Every check calls the learner's function on seeded inputs of its own. Expected values
come from `helpers.losses` and autograd; beside them stand those of known mistakes.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...losses.divergences import token_divergence
from ...losses.positions import shift_and_mask
from .base import Mistake, close, question, that

BITS = torch.tensor(2.0).log()
VOCABULARY = "the softmax runs over dimension {}: the words are in the last one"


def draw(*shape: int, seed: int, scale: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator)


def pairs(*cases: tuple[tuple[int, ...], float]):
    """Student's logits, teacher's logits and temperature, for each (shape, T)."""
    for seed, (shape, temperature) in enumerate(cases):
        yield draw(*shape, seed=seed), draw(*shape, seed=100 + seed), temperature


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return (log_p.exp() * (log_p - log_q)).sum(-1)


# ---------------------------------------------------------------- question 1

Q1 = "Write `soften`: divide by the temperature, then turn each row into log-probs."


@question("Q1 values", Q1)
def q1_values(soften: Callable) -> None:
    """Log-probabilities, with T, over the last dimension."""
    for z, _, T in pairs(((4, 5), 2.0), ((3, 6), 0.5), ((2, 3, 7), 4.0)):
        right = F.log_softmax(z / T, -1)
        mistakes = {
            "these are probabilities; their natural logarithms are asked for": right
            .exp(),
            "the temperature multiplies the logits; it must divide them": F.log_softmax(
                z * T, -1
            ),
            "the temperature has no effect on your answer": F.log_softmax(z, -1),
            "the temperature divides the log-probabilities, and then they no longer "
            "sum to 1: divide the logits": F.log_softmax(z, -1) / T,
            "the logits are divided, but not normalised: exp of a row must sum to 1": z
            / T,
            VOCABULARY.format(0): F.log_softmax(z / T, 0),
            VOCABULARY.format(1): F.log_softmax(z / T, 1),
            "base-2 logarithms, so bits; nats are asked for (torch.log)": right / BITS,
            "a softmax of a softmax: normalise once": F.log_softmax(right.exp(), -1),
        }  # fmt: skip
        close(soften(z, T), right, mistakes)


@question("Q1 extremes", Q1)
def q1_extremes(soften: Callable) -> None:
    """Logits of ±1e4, rows at different heights, half precision."""
    z = torch.tensor([[1e4, 9999.0, 0, -1e4], [-1e4, -9999.0, -9998.5, -9998]])
    for T in (1.0, 0.05, 20.0):
        p = F.softmax(z / T, -1)
        naive = (z / T).exp()
        level = (z / T - (z / T).max()).exp()
        mistakes = {
            "exp of a large logit is infinite. What can you subtract from a row "
            "without changing its softmax?": (naive / naive.sum(-1, keepdim=True)
            ).log(),
            "a probability became 0 and its logarithm -inf: do not pass through "
            "probabilities, stay with logarithms": p.log(),
            "the largest logit of the whole tensor is subtracted; a row far below it "
            "vanishes. Each row needs its own": (level / level.sum(-1, keepdim=True)
            ).log(),
        }  # fmt: skip
        for eps in (1e-12, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6):
            mistakes[
                f"{eps:g} is added to the probabilities, so all unlikely words look "
                "alike: stay with logarithms instead"
            ] = (p + eps).log()
        otherwise = "Logits of ±1e4 must give finite, exact log-probabilities."
        answer = soften(z.clone(), T)
        close(answer, F.log_softmax(z.double() / T, -1), mistakes, otherwise=otherwise)
    for dtype in (torch.bfloat16, torch.float16):
        z = draw(4, 9, seed=3, scale=4).to(dtype)
        close(
            soften(z, 3.0),
            F.log_softmax(z.double() / 3, -1),
            otherwise=f"The logits came in {dtype}: are they widened to float32 before "
            "anything else is done?",
            atol=1e-5,
        )


# ---------------------------------------------------------------- question 2

Q2 = "Write `forward_kl`: soften both by T, then sum p (log p - log q) over the words."


@question("Q2 values", Q2)
def q2_values(forward_kl: Callable) -> None:
    """Direction, temperature, reduction and unit."""
    for s, t, T in pairs(((4, 5), 2.0), ((3, 6), 3.0), ((2, 3, 7), 0.5)):
        right = token_divergence(s, t, temperature=T)
        log_q, log_p = (F.log_softmax(z / T, -1) for z in (s, t))
        twice = [F.log_softmax(log.exp(), -1) for log in (log_p, log_q)]
        warm = [F.log_softmax(z / T, 0) for z in (t, s)]
        mistakes = {
            "this is KL(q || p). The teacher's p must stand in front: it weighs the "
            "logarithms": token_divergence(s, t, "reverse_kl", temperature=T),
            "only the teacher is softened: p and q need the same temperature": kl(
                log_p, F.log_softmax(s, -1)
            ),
            "only the student is softened: p and q need the same temperature": kl(
                F.log_softmax(t, -1), log_q
            ),
            "the temperature has no effect on your answer": token_divergence(s, t),
            "T² is in here already; it belongs into the loss of question 3": T**2
            * right,
            "this is the cross-entropy -Σ p log q; what is missing is Σ p log p": -(
                log_p.exp() * log_q
            ).sum(-1),
            "the sign is wrong: a divergence is never negative": -right,
            "the words are averaged; a KL is their sum": right / s.shape[-1],
            "all tokens are summed into one number; keep one number a token": right
            .sum(),
            "all tokens are averaged into one number; keep one number a token": right
            .mean(),
            "base-2 logarithms, so bits; nats are asked for": right / BITS,
            "a softmax of a softmax: `soften` has normalised already": kl(*twice),
            VOCABULARY.format(0): kl(*warm),
        }  # fmt: skip
        close(forward_kl(s, t, T), right, mistakes)


@question("Q2 agreement", Q2)
def q2_agreement(forward_kl: Callable) -> None:
    """Zero where both agree; finite and right where they disagree wildly."""
    for scale, T in ((1.0, 2.0), (1e3, 0.05), (1e4, 1.0)):
        z = draw(5, 8, seed=4, scale=scale)
        same = torch.as_tensor(forward_kl(z, z.clone(), T))
        that(
            not same.isnan().any(),
            "agreement gives NaN: where a probability is 0, p * log p is 0 * -inf. "
            "Multiply p by log-probabilities from `soften`, which are finite",
        )
        that(
            (same.abs() < 1e-6).all(),
            f"where student and teacher agree the KL must be 0, yours is "
            f"{same.abs().max():.3g}: is Σ p log p subtracted?",
        )
    s, t = torch.tensor([[1e4, 0.0, -1e4]]), torch.tensor([[-1e4, 0.0, 1e4]])
    for T in (1.0, 0.05, 20.0):
        far = torch.as_tensor(forward_kl(s, t, T))
        that(
            far.isfinite().all(),
            f"logits of ±1e4 give {far.flatten()[0]:.3g}: take differences of "
            "log-probabilities, not the logarithm of a ratio of probabilities",
        )
        close(far, token_divergence(s.double(), t.double(), temperature=T))


# ---------------------------------------------------------------- question 3

Q3 = "Write `soft_target_loss`: shift and mask, a hard part, a soft part, two weights."


def batch(seed: int, masked: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Student's logits, labels, teacher's logits; unequal rows where `masked`."""
    B, T, V = 3, 6, 7
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, V, (B, T), generator=generator)
    if masked:
        for row, (start, end) in enumerate([(1, 6), (3, 5), (4, 5)]):
            labels[row, :start] = labels[row, end:] = -100
    return draw(B, T, V, seed=seed), labels, draw(B, T, V, seed=seed + 50)


def tokens(s: Tensor, labels: Tensor, t: Tensor, T: float):
    """Per position (B, T-1): cross-entropy at 1, at T, KL, and the mask."""
    targets, mask = shift_and_mask(labels)
    s, t = s[:, :-1], t[:, :-1]
    hard, warm = (
        F.cross_entropy((s / T).transpose(1, 2), targets, reduction="none")
        for T in (1, T)
    )
    return hard, warm, token_divergence(s, t, temperature=T), mask


@question("Q3 parts", Q3)
def q3_parts(loss: Callable) -> None:
    """Weights, temperatures, T² and shift, where every position counts."""
    for seed, (w, T) in enumerate([(0.3, 3.0), (0.5, 2.0), (1.0, 4.0), (0.0, 2.0)]):
        s, labels, t = batch(seed, masked=False)
        hard, warm, soft, _ = (part.float().mean() for part in tokens(s, labels, t, T))
        targets = labels[:, 1:]
        ahead = token_divergence(s[:, 1:], t[:, 1:], temperature=T).mean()
        late = F.cross_entropy(s[:, 1:].flatten(0, 1), targets.flatten())
        swapped = token_divergence(s, t, "reverse_kl", temperature=T)[:, :-1].mean()
        right = (1 - w) * hard + w * T**2 * soft
        mistakes = {
            "T² is missing: without it the soft part fades as T grows": (1 - w) * hard
            + w * soft,
            "the soft part is multiplied by T; it needs T²": (1 - w) * hard
            + w * T * soft,
            "T² multiplies the hard part as well": T**2 * ((1 - w) * hard + w * soft),
            "the hard part is softened too: labels are learnt at temperature 1": (1 - w)
            * warm + w * T**2 * soft,
            "the two weights are swapped: soft_weight belongs to the soft part": w
            * hard + (1 - w) * T**2 * soft,
            "the hard part has weight 1; it needs 1 - soft_weight": hard
            + w * T**2 * soft,
            "the KL runs in the other direction here": (1 - w) * hard
            + w * T**2 * swapped,
            "the logits are not shifted with the labels: those at position t are about "
            "token t + 1, so the last ones have no target": (1 - w) * late
            + w * T**2 * ahead,
            "the tokens are summed; the mean of the kept tokens is asked for": right
            * targets.numel(),
            "the soft part is divided by the rows of the batch, not by its tokens "
            "(what does reduction='batchmean' count?)": (1 - w) * hard
            + w * T**2 * soft * targets.shape[1],
            "the soft part is averaged over the words as well": (1 - w) * hard
            + w * T**2 * soft / s.shape[-1],
        }  # fmt: skip
        close(loss(s, labels, t, soft_weight=w, temperature=T), right, mistakes)


@question("Q3 mask", Q3)
def q3_mask(loss: Callable) -> None:
    """Only kept tokens count, each as much as any other."""
    w, T = 0.4, 3.0
    for seed in (5, 6):
        s, labels, t = batch(seed, masked=True)
        hard, _, soft, mask = tokens(s, labels, t, T)
        both = (1 - w) * hard + w * T**2 * soft
        kept, count = both.where(mask, 0.0), mask.sum()
        right = kept.sum() / count
        soft_everywhere = (1 - w) * hard[mask].mean() + w * T**2 * soft.mean()
        zeros = (1 - w) * hard[mask].mean() + w * T**2 * soft.where(mask, 0.0).mean()
        by_row = (kept.sum(1) / mask.sum(1)).mean()
        mistakes = {
            "the soft part counts prompt and padding, too": soft_everywhere,
            "prompt and padding are 0 in the sum, but counted in the mean: divide by "
            "the number of kept tokens": kept.mean(),
            "in the soft part, prompt and padding are 0 in the sum, but counted in the "
            "mean: divide by the number of kept tokens": zeros,
            "each row has its mean, and then the rows are averaged: a token of a short "
            "answer weighs more than one of a long answer": by_row,
            "the sum is divided by the rows of the batch, not by the kept tokens": kept
            .sum() / len(s),
            "the tokens are summed; the mean of the kept tokens is asked for": kept
            .sum(),
        }  # fmt: skip

        def yours(s=s, labels=labels, t=t):
            return loss(s, labels, t, soft_weight=w, temperature=T)

        close(yours(), right, mistakes)
        wider = [
            F.pad(x, pad, value=value)
            for x, pad, value in (
                (s, (0, 0, 0, 3), 1.0), (labels, (0, 3), -100), (t, (0, 0, 0, 3), 2.0)
            )
        ]  # fmt: skip
        close(
            yours(*wider), right, otherwise="Your loss changes when padding is added: "
            "is the mask applied after the shift?",
        )  # fmt: skip
        try:
            nothing = yours(labels=torch.full_like(labels, -100))
        except Exception as error:
            raise Mistake(
                f"a batch in which nothing is kept raised {error!r}"
            ) from None
        close(nothing, 0.0, otherwise="Nothing is kept here: is it a division by 0?")


@question("Q3 teacher", Q3)
def q3_teacher(loss: Callable) -> None:
    """The student gets the gradient of the loss; the teacher gets none."""
    s, labels, t = batch(7, masked=True)
    s.requires_grad_(), t.requires_grad_()
    yours = loss(s, labels, t, soft_weight=0.4, temperature=3.0)
    that(
        isinstance(yours, Tensor) and yours.requires_grad,
        "no gradient leaves your loss: return a tensor, and use neither .item() nor "
        "torch.no_grad() nor detach() on the student",
    )
    yours.backward()
    that(
        t.grad is None or not t.grad.any(),
        "a gradient reaches the teacher, and it would learn to agree with its student: "
        "detach its logits",
    )
    hard, _, soft, mask = tokens(s, labels, t.detach(), 3.0)
    right = (0.6 * hard + 0.4 * 9 * soft)[mask].mean()
    (wanted,) = torch.autograd.grad(right, s)
    that(s.grad is not None, "no gradient reaches the student's logits")
    close(
        s.grad, wanted, otherwise="This is the gradient in the student's logits: the "
        "value of your loss is right, but part of it is cut off from the student.",
    )  # fmt: skip


# ---------------------------------------------------------------- question 4

Q4 = "Write the derivative as a formula of q, p and T, and return it for each row."


def by_hand(function: Callable, *args) -> Tensor:
    """Call it where autograd records nothing: the formula is asked for."""
    try:
        with torch.inference_mode():
            return function(*args)
    except RuntimeError as error:
        if "grad" in str(error):
            raise Mistake("autograd is off here: return the formula itself") from None
        raise


def autograd(s: Tensor, t: Tensor, T: float, kind: str) -> Tensor:
    s = s.clone().requires_grad_()
    token_divergence(s, t, kind, temperature=T).sum().backward()
    return s.grad


@question("Q4 forward", Q4)
def q4_forward(gradient: Callable) -> None:
    """Sign, 1/T, the right temperature for p and q, a row for each token."""
    for s, t, T in pairs(((4, 5), 2.0), ((3, 6), 0.5), ((5, 4), 3.0)):
        right = autograd(s, t, T, "forward_kl")
        cold_p, cold_q = t.softmax(-1), s.softmax(-1)
        p, q = (t / T).softmax(-1), (s / T).softmax(-1)
        label = F.one_hot(t.argmax(-1), t.shape[-1])
        mistakes = {
            "the sign is wrong: this direction makes the loss larger": -right,
            "1/T is missing: the logits are divided by T before the softmax, and the "
            "chain rule asks for it": T * right,
            "this is T² times the gradient of the KL; T² belongs into the loss": T**2
            * right,
            "q and p are not softened": cold_q - cold_p,
            "q and p are not softened, and 1/T is applied to them": (cold_q - cold_p)
            / T,
            "p is not softened; the student should match p at temperature T": (
                q - cold_p) / T,
            "q is not softened": (cold_q - p) / T,
            "this is the pull of a label: p, and not its largest word alone, is the "
            "target": (q - label) / T,
            "this is the gradient of a mean over the rows; each row has its own": right
            / len(s),
            "this is the gradient of KL(q || p)": autograd(s, t, T, "reverse_kl"),
        }  # fmt: skip
        close(by_hand(gradient, s, t, T), right, mistakes, atol=1e-5)


@question("Q4 reverse", Q4)
def q4_reverse(gradient: Callable) -> None:
    """The gradient of KL(q || p): the weight q, and the KL that is subtracted."""
    for s, t, T in pairs(((4, 5), 2.0), ((3, 6), 0.5), ((5, 4), 3.0)):
        right = autograd(s, t, T, "reverse_kl")
        p, q = (t / T).softmax(-1), (s / T).softmax(-1)
        ratio = (q / p).log()
        value = (q * ratio).sum(-1, keepdim=True)
        mistakes = {
            "the sign is wrong: this direction makes the loss larger": -right,
            "1/T is missing": T * right,
            "this is the gradient of KL(p || q), the last question's": (q - p) / T,
            "KL(q || p) is not subtracted: your rows do not sum to 0, and a softmax "
            "does not change when all logits move together": q * ratio / T,
            "the 1 of the product rule stayed: Σ over the words of q times it must be "
            "subtracted, too": q * (ratio + 1) / T,
            "the weight q in front is missing": (ratio - value) / T,
            "the weight in front is q, not p": p * (ratio - value) / T,
            "KL(q || p) is added; it must be subtracted": q * (ratio + value) / T,
            "KL(p || q) is subtracted here; it must be KL(q || p)": q * (
                ratio + (p * ratio).sum(-1, keepdim=True)) / T,
        }  # fmt: skip
        close(by_hand(gradient, s, t, T), right, mistakes, atol=1e-5)


# ---------------------------------------------------------------- question 5


@question(
    "Q5 sizes", "Return a number for each temperature: the mean length of the rows."
)
def q5_sizes(sizes: Callable) -> None:
    """Mean over the rows of the norm of T^power times the gradient, for each T."""
    temperatures = [1.0, 2.5, 6.0]
    for seed, power in ((0, 0), (1, 2), (2, 1)):
        s, t = draw(4, 6, seed=seed), draw(4, 6, seed=seed + 100)
        gradients = [autograd(s, t, T, "forward_kl") for T in temperatures]

        def table(reduce, power=power, gradients=gradients):
            both = zip(temperatures, gradients, strict=True)
            return torch.stack([T**power * reduce(g) for T, g in both])

        mistakes = {
            "`power` has no effect on your answer": table(
                lambda g: g.norm(dim=-1).mean(), power=0
            ),
            "your factor is one power of T too high: does the gradient lack its 1/T?":
            table(lambda g: g.norm(dim=-1).mean(), power=power + 1),
            "T² is always in: the factor is T to the power of `power`": table(
                lambda g: g.norm(dim=-1).mean(), power=2
            ),
            "this is the length of the whole table; take each row's, then their mean":
            table(lambda g: g.norm()),
            "the rows are averaged before their length is taken, and pulls in opposite "
            "directions cancel": table(lambda g: g.mean(0).norm()),
            "the lengths are summed; their mean is asked for": table(
                lambda g: g.norm(dim=-1).sum()
            ),
            "these are squared lengths: the square root is missing": table(
                lambda g: g.square().sum(-1).mean()
            ),
            "this is the mean of the absolute values; the Euclidean length of a row is "
            "asked for": table(lambda g: g.abs().mean()),
            "the norm runs over dimension 0: a row is one token": table(
                lambda g: g.norm(dim=0).mean()
            ),
        }  # fmt: skip
        right = table(lambda g: g.norm(dim=-1).mean())
        close([float(x) for x in sizes(s, t, temperatures, power)], right, mistakes)
