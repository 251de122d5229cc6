"""Checks of lab 03: shift and mask, batches in parts, a fair pair, a cache with a tail.

Every check calls the learner's function on seeded inputs of its own. Expected values
come from `helpers.losses`, or from a longer way in double precision; beside them stand
those of known mistakes.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ...losses.positions import reduce_tokens
from ...losses.sparse import sparse_divergence
from .base import close, question, that
from .lab02 import draw

END = 1  # the end token of the rows below, which also pads them


def parts(answer: object, count: int, names: str) -> tuple:
    """The answer as a tuple of `count`."""
    that(
        isinstance(answer, tuple | list) and len(answer) == count,
        f"{count} things are to be returned: {names}",
    )
    return tuple(answer)


# ---------------------------------------------------------------- question 1

Q1 = "Write `targets_and_mask`: what each position must predict, and whether it counts."
NAMES = "targets and mask"


def batch(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of unequal length: ids (B, T), attention mask (B, T), prompt lengths (B,).

    Prompts hold end tokens, too, as those of a chat do, and padding is the end token.
    """
    prompts = torch.tensor([[3, 2, 5, 1], [4, 1, 2, 6]][seed % 2])
    lengths = prompts + torch.tensor([[4, 2, 3, 6], [2, 5, 4, 3]][seed % 2])
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, 50, (4, int(lengths.max()) + 1), generator=generator)
    places = torch.arange(ids.shape[1])
    ids[0, 1] = END
    ids[places >= lengths[:, None] - 1] = END  # each row's last token, and padding
    return ids, (places < lengths[:, None]).long(), prompts


def kept(there: Tensor, prompts: Tensor) -> Tensor:
    """Labels that count (B, T), not shifted: the answer with its end."""
    return (torch.arange(there.shape[1]) >= prompts[:, None]) & there.bool()


@question("Q1 targets", Q1)
def q1_targets(answer: Callable) -> None:
    """The target of a position is the next token."""
    for seed in range(4):
        ids, there, prompts = batch(seed)
        targets, mask = parts(answer(ids, there, prompts, END), 2, NAMES)
        length = ids.shape[1]
        mistakes = {
            "each position has its own token as target: a student would learn to copy. "
            "The target of position t is token t + 1": ids[:, :-1],
            "nothing is shifted: the target of position t is token t + 1, and the last "
            "position has none": ids,
            "the targets are shifted the wrong way: position t cannot predict what it "
            "has read before": ids.roll(1, 1)[:, :-1],
        }
        for name, tensor in (("targets", targets), ("mask", mask)):
            if tuple(tensor.shape) != (len(ids), length - 1):
                otherwise = f"{name} must be (B, T-1), here ({len(ids)}, {length - 1})"
                close(tensor, ids[:, 1:], mistakes, otherwise=otherwise)
        count = kept(there, prompts)[:, 1:]  # elsewhere a target may be anything
        mistakes = {what: ids[count] for what, ids in mistakes.items()
                    if ids.shape == count.shape}  # fmt: skip
        otherwise = "Targets are the ids one position later."
        close(targets[count], ids[:, 1:][count], mistakes, otherwise=otherwise)


@question("Q1 mask", Q1)
def q1_mask(answer: Callable) -> None:
    """The answer counts, from its first token; the prompt does not."""
    for seed in range(4):
        ids, there, prompts = batch(seed)
        _, mask = parts(answer(ids, there, prompts, END), 2, NAMES)
        label = kept(there, prompts)
        right, real = label[:, 1:], there.bool()
        by_id = ids[:, 1:] != END
        mistakes = {
            "the mask is not shifted: each answer loses its first token, and something "
            "behind the end counts. Was it made before the shift?": label[:, :-1],
            "the mask is shifted twice: the last token of each prompt counts": (
                torch.arange(1, ids.shape[1]) >= prompts[:, None] - 1
            ) & real[:, 1:],
            "the prompt counts: nobody asks a student to write the question": real[
                :, 1:
            ],
            "padding counts: where does each row end?": (
                torch.arange(1, ids.shape[1]) >= prompts[:, None]
            ),
            "the first token of each answer does not count": right
            & (torch.arange(1, ids.shape[1]) > prompts[:, None]),
            "the end token does not count, so that the student never learns to stop. "
            "Padding has the same id: tell them apart by length": right & by_id,
            "the prompt counts, and the end token does not. Padding has its id: tell "
            "them apart by length": by_id,
        }  # fmt: skip
        close(torch.as_tensor(mask).bool(), right, mistakes)


@question("Q1 end", Q1)
def q1_end(answer: Callable) -> None:
    """One end a row, any padding id, any amount of padding."""
    for seed in range(4):
        ids, there, prompts = batch(seed)
        right = kept(there, prompts)[:, 1:]
        targets, mask = parts(answer(ids, there, prompts, END), 2, NAMES)
        ends = ((targets == END) & torch.as_tensor(mask).bool()).sum(1)
        that(
            (ends == 1).all(),
            f"the rows ask for {ends.tolist()} end tokens; each must ask for one. "
            "Padding has the id of the end token: tell them apart by length",
        )
        other = torch.where(there.bool(), ids, 0)  # padded with an id of its own
        _, mask = parts(answer(other, there, prompts, 0), 2, NAMES)
        close(mask, right, otherwise="With another padding id the mask changes.")
        wide = [torch.nn.functional.pad(x, (0, 3), value=v) for x, v in
                ((ids, END), (there, 0))]  # fmt: skip
        _, mask = parts(answer(*wide, prompts, END), 2, NAMES)
        close(mask[:, :-3], right, otherwise="More padding changes the mask.")
        that(not mask[:, -3:].any(), "padding that was added counts")


# ---------------------------------------------------------------- question 2

Q2 = (
    "Write `step_losses`: one share for each micro-batch, their sum is the step's loss."
)


def micro_batches(seed: int) -> list[tuple[Tensor, Tensor]]:
    """Losses (B, T) and masks (B, T), unequal in rows, width and kept tokens."""
    found = []
    for number, shape in enumerate([(2, 5), (1, 3), (3, 4)]):
        losses = draw(*shape, seed=10 * seed + number).abs()
        mask = draw(*shape, seed=10 * seed + number + 5) > [-1.5, 0.5, 1.0][number]
        mask[0, 0] = True
        found.append((losses, mask))
    return found


@question("Q2 shares", Q2)
def q2_shares(step_losses: Callable) -> None:
    """The sum over the micro-batches is the loss of the whole batch."""
    for seed in range(4):
        micro = micro_batches(seed)
        shares = list(step_losses(micro))
        that(
            len(shares) == len(micro),
            f"{len(shares)} numbers for {len(micro)} micro-batches: one each",
        )
        sums = torch.stack([losses[mask].sum() for losses, mask in micro])
        counts = torch.tensor([mask.sum() for _, mask in micro])
        sizes = torch.tensor([mask.numel() for _, mask in micro])
        rows = torch.tensor([len(mask) for _, mask in micro])
        means = sums / counts
        whole = torch.stack([reduce_tokens(*m, num_items=counts.sum()) for m in micro])
        mistakes = {
            "each share is the mean of its micro-batch, and their sum grows with the "
            "number of micro-batches": means,
            "a mean of means: a token of a small micro-batch weighs more than one of a "
            "large. Divide by the kept tokens of the whole step": means / len(micro),
            "the kept tokens are summed, but not divided by their number": sums,
            "prompt and padding are counted in the division": sums / sizes.sum(),
            "prompt and padding are counted in the division, micro-batch by "
            "micro-batch": sums / sizes / len(micro),
            "the division is by rows; tokens count alike, not rows": sums / rows.sum(),
            "prompt and padding are in the sum": torch.stack(
                [losses.sum() for losses, _ in micro]) / counts.sum(),
        }  # fmt: skip
        close(torch.stack([torch.as_tensor(s) for s in shares]), whole, mistakes)


@question("Q2 edges", Q2)
def q2_edges(step_losses: Callable) -> None:
    """Gradients add up; nothing kept costs nothing; what is masked may be infinite."""
    micro = micro_batches(7)
    leaves = [losses.clone().requires_grad_() for losses, _ in micro]
    masks = [mask for _, mask in micro]
    for share in step_losses(list(zip(leaves, masks, strict=True))):
        that(
            isinstance(share, Tensor) and share.requires_grad,
            "no gradient leaves a share: return tensors, and do not use .item()",
        )
        share.backward()
    count = sum(mask.sum() for mask in masks)
    for leaf, mask in zip(leaves, masks, strict=True):
        close(leaf.grad, mask / count, otherwise="This is the gradient of a share.")
    nothing = (torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool))
    shares = list(step_losses([micro[0], nothing]))
    close(
        shares[1], 0.0,
        otherwise="Nothing is kept in this micro-batch: its share is 0.",
    )  # fmt: skip
    close(shares[0], micro[0][0][micro[0][1]].mean())
    close(
        step_losses([nothing])[0], 0.0,
        otherwise="Nothing is kept in the whole step: is it a division by 0?",
    )  # fmt: skip
    losses, mask = micro[0][0].clone(), micro[0][1]
    losses[~mask] = torch.inf
    close(
        step_losses([(losses, mask)])[0], losses[mask].mean(),
        otherwise="The loss at positions that do not count is infinite here, and 0 "
        "times infinity is NaN: leave them out instead of multiplying by the mask.",
    )  # fmt: skip


# ---------------------------------------------------------------- question 3


@question(
    "Q3 fair", "Write `two_students`: two calls of `teach` that differ in one thing."
)
def q3_fair(two_students: Callable) -> None:
    """Only what the student learns from may differ."""
    for steps, seed in ((30, 3), (7, 11)):
        calls = []

        def teach(
            rows="gold", logits=False, soft_weight=0.5, temperature=2.0, steps=200,
            seed=0, calls=calls,
        ):  # fmt: skip
            names = "rows", "logits", "soft_weight", "temperature", "steps", "seed"
            values = rows, logits, soft_weight, temperature, steps, seed
            calls.append(dict(zip(names, values, strict=True)))
            return len(calls)  # stands for the student of this call

        found = two_students(teach, steps, seed)
        that(
            isinstance(found, dict) and set(found) == {"text", "logits"},
            "return a dictionary with the keys 'text' and 'logits'",
        )
        that(found["text"] != found["logits"], "both names hold the same student")
        text, logits = (calls[found[name] - 1] for name in ("text", "logits"))
        for call in (text, logits):
            that(
                call["rows"] == "text",
                f"one student reads rows={call['rows']!r}: both must read the "
                "teacher's text, or they differ in words *and* in targets",
            )
            that(
                call["steps"] == steps,
                f"one student takes {call['steps']} steps and {steps} were asked for: "
                "more steps win any comparison",
            )
            that(
                call["seed"] == seed,
                f"one student starts from seed {call['seed']}, and {seed} was asked "
                "for: another start is another reason for a difference",
            )
        that(
            logits["logits"] and not text["logits"],
            "the student called 'text' must not see logits, the one called 'logits' "
            "must: are the names swapped?",
        )
        that(
            logits["soft_weight"] == 1,
            f"soft_weight is {logits['soft_weight']} for the logits: a mix of both "
            "sources cannot show what one of them does",
        )
        that(
            logits["temperature"] == 1,
            f"temperature is {logits['temperature']} for the logits; text is learnt at "
            "1, so compare at 1",
        )


# ---------------------------------------------------------------- question 4

Q4 = "Write `cut`: the k likeliest words, their log-probabilities, and the tail's."
CUT = "token_ids (N, k), logprobs (N, k), log_tail (N,)"


def cutting(seed: int) -> tuple[Tensor, int, float]:
    return (
        draw(5, 9 + seed, seed=seed), (3, 2, 4)[seed % 3], (2.0, 1.0, 3.0)[seed % 3]
    )  # fmt: skip


def dense(ids: Tensor, values: Tensor, width: int) -> Tensor:
    """Values at their ids, 0 elsewhere: the same in any order of the k words."""
    empty = torch.zeros(len(ids), width, dtype=torch.float64)
    return empty.scatter(-1, ids.long(), values.double())


@question("Q4 kept", Q4)
def q4_kept(cut: Callable) -> None:
    """The k likeliest words with their probabilities under the whole softmax."""
    for seed in range(3):
        z, k, T = cutting(seed)
        ids, logprobs, _ = parts(cut(z, k, T), 3, CUT)
        log_p = (z / T).log_softmax(-1)
        top = log_p.topk(k)
        for name, tensor in (("token_ids", ids), ("logprobs", logprobs)):
            that(
                tuple(tensor.shape) == (len(z), k),
                f"{name} has the shape {tuple(tensor.shape)}, not ({len(z)}, {k})",
            )
        right = dense(top.indices, top.values, z.shape[1])
        at = dense(ids, torch.ones(ids.shape), z.shape[1])
        low = (-log_p).topk(k)
        mistakes = {
            "these are the k *least* likely words": dense(
                low.indices, torch.ones(low.indices.shape), z.shape[1]
            ),
        }
        close(
            at, (right != 0).double(), mistakes,
            otherwise="Those are not the ids of the k likeliest words of each row.",
        )  # fmt: skip
        kept = z.gather(-1, top.indices)
        variants = {
            "the k probabilities of a row sum to 1: they are renormalised, and nothing "
            "is left for the tail. Take the softmax over all words first": (
                kept / T).log_softmax(-1),
            "these are logits; without the other words nobody can normalise them "
            "later": kept,
            "these are logits divided by T; without the other words nobody can "
            "normalise them later": kept / T,
            "these are probabilities; their logarithms are asked for": top.values
            .exp(),
            "the temperature has no effect: soften before the softmax": z.log_softmax(
                -1).gather(-1, top.indices),
            "the temperature divides log-probabilities that were normalised at 1; "
            "divide the logits": z.log_softmax(-1).gather(-1, top.indices) / T,
        }  # fmt: skip
        close(
            dense(ids, logprobs, z.shape[1]), right,
            {what: dense(top.indices, v, z.shape[1]) for what, v in variants.items()},
        )  # fmt: skip


@question("Q4 tail", Q4)
def q4_tail(cut: Callable) -> None:
    """The mass of all other words, also where it is too small for 1 - P."""
    sure = draw(5, 9, seed=8) + 40 * torch.nn.functional.one_hot(torch.arange(5), 9)
    for z, k, T in (*map(cutting, range(3)), (sure, 2, 1.0), (10 * sure, 3, 2.0)):
        _, _, tail = parts(cut(z, k, T), 3, CUT)
        ordered = (z.double() / T).log_softmax(-1).sort(-1, descending=True).values
        right = ordered[:, k:].logsumexp(-1)
        P = (z / T).softmax(-1).topk(k).values.sum(-1)
        otherwise = "log_tail is the logarithm of the sum of all other probabilities."
        if (P > 0.999).any():
            otherwise += (
                " The teacher is sure here, and 1 - P is only rounding: sum the others "
                "themselves, in logarithms (torch.logsumexp)"
            )
        mistakes = {
            "this is the mass of the tail; its logarithm is asked for": right.exp(),
            "this is log P, the mass that is kept; the tail is all the rest": ordered[
                :, :k
            ].logsumexp(-1),
            "the log-probabilities of the others are added up: that is the logarithm "
            "of their product": ordered[:, k:].sum(-1),
            "this is the mean of the others; the bucket holds their sum": right
            - torch.tensor(z.shape[1] - k).log(),
            "the last kept word is in the tail, too": ordered[:, k - 1 :].logsumexp(-1),
            "the first word of the tail is missing": ordered[:, k + 1 :].logsumexp(-1),
            "the tail is not softened: use the same temperature": z.double()
            .log_softmax(-1).sort(-1, descending=True).values[:, k:].logsumexp(-1),
        }  # fmt: skip
        close(tail, right, mistakes, otherwise=otherwise, rtol=1e-3)


@question(
    "Q4 bytes", "Return the bytes of ids, log-probabilities and tail, all tokens."
)
def q4_bytes(cache_bytes: Callable) -> None:
    """Ids in 2 or 3 bytes, numbers in 2, one tail a token."""
    for tokens, vocab, k in (
        (10, 1024, 8), (1000, 151_936, 64), (7, 65_536, 5), (7, 65_537, 5)
    ):  # fmt: skip
        size = 2 if vocab <= 65_536 else 3
        right = tokens * (k * (size + 2) + 2)
        mistakes = {
            "the tail of each token is missing": tokens * k * (size + 2),
            "a tail of 2 bytes is stored for each token, not once": tokens
            * k * (size + 2) + 2,
            "a tail is stored once a token, not with each of the k words": tokens
            * k * (size + 4),
            "ids as int64 take 8 bytes; 2 or 3 are enough": tokens * (k * 10 + 2),
            "ids as int32 take 4 bytes; 2 or 3 are enough": tokens * (k * 6 + 2),
            "numbers are stored in float16, 2 bytes": tokens * (k * (size + 4) + 4),
            "all words of the vocabulary are counted; k are stored": tokens
            * 2 * vocab,
            "2 bytes hold 65,536 different ids, no more: a larger vocabulary needs 3":
            tokens * (k * 4 + 2),
            "the ids of this vocabulary fit into 2 bytes": tokens * (k * 5 + 2),
            "these are bytes a token; multiply by the tokens": k * (size + 2) + 2,
            "these are bits": 8 * right,
        }  # fmt: skip
        close(cache_bytes(tokens, vocab, k), right, mistakes)


# ---------------------------------------------------------------- question 5

Q5 = "Write `bucket_kl`: k words and one bucket for all others, for p and for q."


def known(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    """Student's logits, ids, log-probabilities and tail of a teacher, temperature."""
    z, k, T = cutting(seed)
    log_p = (z / T).log_softmax(-1)
    top = log_p.topk(k)
    tail = log_p.sort(-1, descending=True).values[:, k:].logsumexp(-1)
    return draw(*z.shape, seed=seed + 30), top.indices, top.values, tail, T


def two_rows(student: Tensor, ids: Tensor, logprobs: Tensor, tail: Tensor, T: float):
    """log p and log q over the k words and the bucket, (N, k + 1), in doubles."""
    z = student.double() / T
    log_q = z.log_softmax(-1)
    others = log_q.scatter(-1, ids, -torch.inf).logsumexp(-1, keepdim=True)
    log_q = torch.cat([log_q.gather(-1, ids), others], -1)
    return torch.cat([logprobs, tail[:, None]], -1).double(), log_q


@question("Q5 value", Q5)
def q5_value(bucket_kl: Callable) -> None:
    """KL over k + 1 words, at the temperature, forward."""
    for seed in range(3):
        given = known(seed)
        student, ids, logprobs, tail, T = given
        log_p, log_q = two_rows(*given)
        p, q = log_p.exp(), log_q.exp()
        right = (p * (log_p - log_q)).sum(-1)
        cold_p, cold_q = two_rows(student, ids, logprobs, tail, 1.0)
        others = student.shape[1] - ids.shape[1]
        spread = log_q.clone()
        spread[:, -1] -= torch.tensor(float(others)).log()
        truncate, renormalise = (
            sparse_divergence(student, ids, logprobs, tail=way, temperature=T)
            for way in ("truncate", "renormalise")
        )
        mistakes = {
            "the tail is left out (truncate): the student would learn q = p / P, too "
            "sure of the k words, and the loss can be negative": truncate,
            "p and q are normalised to 1 on the k words (renormalise): what q does in "
            "the tail would be free": renormalise,
            "the student's k logits are normalised among themselves: its softmax needs "
            "all words": (p * (log_p - torch.cat([
                (student / T).gather(-1, ids).log_softmax(-1), log_q[:, -1:]
            ], -1).double())).sum(-1),
            "this is KL(q || p): p weighs the logarithms": (q * (log_q - log_p)).sum(
                -1),
            "the student is not softened: divide its logits by the temperature": (
                cold_p.exp() * (cold_p - cold_q)).sum(-1),
            "the teacher's side is softened again; `logprobs` are softened already": (
                (log_p / T).softmax(-1) * ((log_p / T).log_softmax(-1) - log_q)
            ).sum(-1),
            "T² is in here; it belongs to the loss, not to the divergence": T**2
            * right,
            "this is a cross-entropy: Σ p log p is missing": -(p * log_q).sum(-1),
            "the student's tail is averaged over its words; the bucket holds their sum":
            (p * (log_p - spread)).sum(-1),
            "all tokens are in one number; keep one number a token": right.mean(),
            "the words are averaged; a KL is their sum": right / p.shape[-1],
        }  # fmt: skip
        close(bucket_kl(student, ids, logprobs, tail, T), right, mistakes)


@question("Q5 extremes", Q5)
def q5_extremes(bucket_kl: Callable) -> None:
    """A student that leaves nothing to the tail, a teacher that does not, agreement."""
    student, ids, logprobs, tail, T = known(0)
    sure = student.scatter(-1, ids, 60.0)
    for z, what in ((student, "."), (sure, ", for a student that is sure.")):
        z = z.clone().requires_grad_()
        found = bucket_kl(z, ids, logprobs, tail, T)
        log_p, log_q = two_rows(z.detach(), ids, logprobs, tail, T)
        close(
            found, (log_p.exp() * (log_p - log_q)).sum(-1),
            otherwise=f"This is the KL{what} Its 1 - Q is 0 or rounding: sum the other "
            "words themselves, in logarithms.", rtol=1e-3,
        )  # fmt: skip
        found.sum().backward()
        that(z.grad.isfinite().all(), f"the gradient holds NaN or infinity{what}")
    empty = torch.full_like(tail, -torch.inf)
    whole = logprobs.log_softmax(-1)
    z = student.clone().requires_grad_()
    found = bucket_kl(z, ids, whole, empty, T)
    _, log_q = two_rows(student, ids, whole, empty, T)
    close(
        found, (whole.exp() * (whole - log_q[:, :-1])).sum(-1),
        otherwise="The teacher leaves nothing to the tail here: log_tail is -inf, and "
        "0 times -inf is NaN. A bucket of mass 0 costs 0.", rtol=1e-3,
    )  # fmt: skip
    found.sum().backward()
    that(z.grad.isfinite().all(), "the gradient holds NaN where log_tail is -inf")
    z, k, T = cutting(1)
    log_p = (z / T).log_softmax(-1)
    top = log_p.topk(k)
    tail = log_p.sort(-1, descending=True).values[:, k:].logsumexp(-1)
    z = z.clone().requires_grad_()
    found = bucket_kl(z, top.indices, top.values, tail, T)
    found.sum().backward()
    that(
        found.abs().max() < 1e-5 and z.grad.abs().max() < 1e-5,
        "with the teacher itself as the student, value and gradient must be 0",
    )
