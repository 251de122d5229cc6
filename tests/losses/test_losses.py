"""The losses: invariants, published bugs, TRL, closed-form gradients, wild logits.

Tests that take the fixture `losses` are also run against damaged copies of the wing,
each with one bug planted: the test meant for that bug must reject it.
"""

import inspect
from math import log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import helpers.losses
from helpers.data import collate, tokenize_chat
from tests.damage import damaged, notices

B, T, V = 3, 7, 11
TEMPERATURES = (0.05, 0.5, 1.0, 2.0, 20.0)


@pytest.fixture(scope="session")
def losses():
    return helpers.losses


def draw(*shape: int, seed: int = 0, scale: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator)


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Student logits, labels, teacher logits; 5, 3 and 1 kept tokens in the rows."""
    labels = torch.randint(0, V, (B, T), generator=torch.Generator().manual_seed(2))
    for row, (start, end) in enumerate([(2, 7), (3, 6), (4, 5)]):
        labels[row, :start] = labels[row, end:] = -100
    return draw(B, T, V, seed=0), labels, draw(B, T, V, seed=1)


def gradient(function, logits: torch.Tensor) -> torch.Tensor:
    logits = logits.clone().requires_grad_()
    function(logits).sum().backward()
    return logits.grad


def by_hand(p: torch.Tensor, q: torch.Tensor, kind: str, beta: float, skew: float):
    """Every divergence as its paper writes it, on probabilities of moderate size."""

    def kl(a, b):
        return (a * (a / b).log()).sum(-1)

    m = beta * p + (1 - beta) * q
    return {
        "forward_kl": kl(p, q),
        "reverse_kl": kl(q, p),
        "jsd": beta * kl(p, m) + (1 - beta) * kl(q, m),
        "tvd": 0.5 * (p - q).abs().sum(-1),
        "skew_forward_kl": kl(p, skew * p + (1 - skew) * q),
        "skew_reverse_kl": kl(q, skew * q + (1 - skew) * p),
    }[kind]


# ---------------------------------------------------------------- invariants


def test_identical_logits_give_exactly_zero(losses):
    for size, scale in [(2, 1), (11, 1), (1000, 3), (1037, 1e4)]:
        logits = draw(5, size, scale=scale).clamp(-1e4, 1e4)
        for kind in losses.KINDS:
            for temperature in TEMPERATURES:
                for beta in (0, 0.1, 0.5, 1):
                    divergence = losses.token_divergence(
                        logits, logits.clone(), kind, temperature=temperature, beta=beta
                    )
                    assert (divergence == 0).all(), (kind, temperature, beta)


def test_divergences_are_finite_and_not_negative_for_extreme_logits(losses):
    for scale in (1e-3, 1.0, 1e4):
        student = draw(6, V, seed=3, scale=scale).clamp(-1e4, 1e4)
        near = student + 1e-4 * draw(6, V, seed=4)
        for teacher in (near, -student, student.roll(1, 0)):
            for kind in losses.KINDS:
                for temperature in TEMPERATURES:
                    student = student.detach().requires_grad_()
                    student.grad = None
                    divergence = losses.token_divergence(
                        student, teacher, kind, temperature=temperature
                    )
                    divergence.sum().backward()
                    assert divergence.isfinite().all(), (kind, temperature, scale)
                    assert (divergence >= 0).all(), (kind, temperature, scale)
                    assert student.grad.isfinite().all(), (kind, temperature, scale)


def test_rounding_below_zero_is_lifted_without_losing_the_gradient(losses):
    student, noise = draw(200, V, seed=9), 1e-4 * draw(200, V, seed=10)

    def divergence(z):
        return losses.token_divergence(z, student + noise)

    assert (divergence(student) == 0).any()  # else this test would show nothing
    assert (gradient(divergence, student).abs().sum(-1) > 0).all()


def test_an_all_masked_batch_gives_zero_and_zero_gradient(losses):
    student, labels, teacher = batch()
    labels = torch.full_like(labels, -100)
    for num_items in (None, 0, torch.tensor(0)):
        for kind in losses.KINDS:

            def loss(z, kind=kind, num_items=num_items):
                return losses.distillation_loss(
                    z, labels, teacher, kind=kind, num_items=num_items
                )

            assert loss(student) == 0
            assert (gradient(loss, student) == 0).all()


def test_targets_are_wanted_at_kept_positions_only(losses):
    """loss_parts is distillation_loss for a teacher known where labels are kept."""
    student, labels, teacher = batch()
    mask = labels[:, 1:] != -100
    targets = teacher[:, :-1][mask]
    whole = losses.distillation_loss(student, labels, teacher)
    for logits in (student, student[:, :-1][mask]):
        for same in (targets, targets.log_softmax(-1)):
            parts = losses.loss_parts(logits, labels, same)
            torch.testing.assert_close(parts.loss, whole)
    for wrong in (targets[1:], teacher.flatten(0, 1)):
        with pytest.raises(ValueError, match="kept positions"):
            losses.loss_parts(student, labels, wrong)
    with pytest.raises(ValueError, match="kept positions"):
        losses.loss_parts(student[:, :-1][mask][1:], labels, targets)


def test_a_loss_that_weighs_nothing_costs_no_gradient(losses):
    student, labels, teacher = batch()
    targets = teacher[:, :-1][labels[:, 1:] != -100]
    parts = losses.loss_parts(student.requires_grad_(), labels, targets, soft_weight=1)
    assert parts.loss == parts.soft and not parts.hard.requires_grad


def test_every_divergence_is_what_its_paper_says(losses):
    student, teacher = draw(5, V, seed=5), draw(5, V, seed=6)
    for kind in losses.KINDS:
        for temperature in (0.7, 1.0, 3.0):
            p, q = (z.div(temperature).softmax(-1) for z in (teacher, student))
            got = losses.token_divergence(
                student, teacher, kind, temperature=temperature, beta=0.3, skew=0.2
            )
            assert got.shape == (5,)
            torch.testing.assert_close(got, by_hand(p, q, kind, beta=0.3, skew=0.2))


def test_mixtures_of_one_side_only(losses):
    """skew 0 is the plain KL; a beta too small for float32 is no error."""
    student, teacher = draw(5, V, seed=5), draw(5, V, seed=6)
    for kind in ("forward_kl", "reverse_kl"):
        skewed = losses.token_divergence(student, teacher, f"skew_{kind}", skew=0)
        plain = losses.token_divergence(student, teacher, kind)
        torch.testing.assert_close(skewed, plain)
        tiny = losses.token_divergence(student, teacher, "jsd", beta=1e-30)
        torch.testing.assert_close(tiny, torch.zeros(5))


def test_bounded_divergences_keep_their_bounds(losses):
    student, teacher = 1e4 * draw(50, V, seed=7), 1e4 * draw(50, V, seed=8)
    bounds = {
        "jsd": 0.6931,
        "tvd": 1,
        "skew_forward_kl": 2.3026,
        "skew_reverse_kl": 2.3026,
    }
    for kind, bound in bounds.items():
        divergence = losses.token_divergence(student, teacher, kind)
        assert divergence.max() <= bound + 1e-4
        assert divergence.max() >= bound - 1e-2  # no token in common


def test_the_loss_is_the_weighted_sum_of_its_parts(losses):
    student, labels, teacher = batch()
    mask = labels[:, 1:] != -100
    log_q = student[:, :-1].log_softmax(-1)
    hard = -log_q.gather(-1, labels[:, 1:, None].clamp(min=0))[..., 0][mask].mean()
    for kind in losses.KINDS:
        for temperature in (1.0, 2.0, 5.0):
            p, q = (z[:, :-1].div(temperature).softmax(-1) for z in (teacher, student))
            soft = temperature**2 * by_hand(p, q, kind, 0.5, 0.1)[mask].mean()
            for weight in (0.0, 0.3, 1.0):
                loss = losses.distillation_loss(
                    student,
                    labels,
                    teacher,
                    soft_weight=weight,
                    temperature=temperature,
                    kind=kind,
                )
                torch.testing.assert_close(loss, (1 - weight) * hard + weight * soft)
    parts = losses.loss_parts(student, labels, None)
    torch.testing.assert_close(parts.loss, hard)
    assert parts.soft.isnan()


def test_only_kept_positions_equal_the_naive_loss_over_all(losses):
    """Indexing before the softmax is a matter of speed: same value, same gradient."""
    student, labels, teacher = batch()

    def naive(z):
        mask = torch.zeros(B, T, dtype=torch.bool)
        mask[:, :-1] = labels[:, 1:] != -100
        targets = labels.roll(-1, 1).clamp(min=0)[..., None]
        hard = -z.log_softmax(-1).gather(-1, targets)[..., 0]
        soft = losses.token_divergence(z, teacher, temperature=2.0)
        return (0.5 * (hard + 4 * soft) * mask).sum() / mask.sum()

    def loss(z):
        return losses.distillation_loss(z, labels, teacher)

    torch.testing.assert_close(loss(student), naive(student))
    torch.testing.assert_close(gradient(loss, student), gradient(naive, student))


def test_no_gradient_reaches_the_teacher(losses):
    student, labels, teacher = batch()
    student.requires_grad_(), teacher.requires_grad_()
    losses.distillation_loss(student, labels, teacher).backward()
    assert student.grad is not None and teacher.grad is None


def test_mix_teachers_is_the_weighted_mean_of_probabilities(losses):
    logprobs = draw(3, 4, V).log_softmax(-1)
    weights = torch.tensor([2.0, 0.0, 6.0])
    mixed = losses.mix_teachers(logprobs, weights)
    expected = 0.25 * logprobs[0].exp() + 0.75 * logprobs[2].exp()
    torch.testing.assert_close(mixed.exp(), expected)
    for wrong in ([1.0, 1.0], [1.0, -1.0, 1.0], [0.0, 0.0, 0.0]):
        with pytest.raises(ValueError, match="weight of at least 0"):
            losses.mix_teachers(logprobs, torch.tensor(wrong))


def test_what_cannot_be_computed_is_refused(losses):
    student, labels, teacher = batch()
    divergence, loss = losses.token_divergence, losses.distillation_loss
    with pytest.raises(ValueError, match="choose one of forward_kl"):
        divergence(student, teacher, "kl")
    for setting in ({"temperature": 0.0}, {"beta": 1.1}, {"skew": 1.0}):
        with pytest.raises(ValueError, match="temperature > 0"):
            divergence(student, teacher, **setting)
    with pytest.raises(ValueError, match="soft_weight is 2"):
        loss(student, labels, teacher, soft_weight=2)
    for wrong in (student[:2], student[:, :5]):
        with pytest.raises(ValueError, match="must share"):
            loss(wrong, labels, teacher)
        with pytest.raises(ValueError, match="must share"):
            loss(student, labels, wrong)


def test_signatures_are_those_agreed(losses):
    for function, third in (
        (losses.distillation_loss, "teacher_logits"),
        (losses.loss_parts, "targets"),
    ):
        parameters = inspect.signature(function).parameters
        assert [*parameters][:3] == ["student_logits", "labels", third]
        assert {n: p.default for n, p in [*parameters.items()][3:]} == {
            "soft_weight": 0.5,
            "temperature": 2.0,
            "kind": "forward_kl",
            "num_items": None,
            "ignore_index": -100,
        }


# ---------------------------------------------------------------- published bugs


def test_bug_01_direction_of_the_divergence_and_of_its_mixture(losses):
    """trl#3043, trl#2204. Teacher (.9 .1), student (.5 .5), beta and skew .1."""
    teacher, student = (torch.tensor([p]).log() for p in ([0.9, 0.1], [0.5, 0.5]))
    jsd_m = 0.54, 0.46  # .1 teacher + .9 student
    expected = {
        "forward_kl": 0.9 * log(0.9 / 0.5) + 0.1 * log(0.1 / 0.5),
        "reverse_kl": 0.5 * log(0.5 / 0.9) + 0.5 * log(0.5 / 0.1),
        "jsd": 0.1 * (0.9 * log(0.9 / jsd_m[0]) + 0.1 * log(0.1 / jsd_m[1]))
        + 0.9 * (0.5 * log(0.5 / jsd_m[0]) + 0.5 * log(0.5 / jsd_m[1])),
        "skew_forward_kl": 0.9 * log(0.9 / 0.54) + 0.1 * log(0.1 / 0.46),
        "skew_reverse_kl": 0.5 * log(0.5 / 0.86) + 0.5 * log(0.5 / 0.14),
    }
    assert expected["forward_kl"] == pytest.approx(0.368, abs=1e-3)
    assert expected["reverse_kl"] == pytest.approx(0.511, abs=1e-3)
    for kind, value in expected.items():
        got = losses.token_divergence(student, teacher, kind, beta=0.1, skew=0.1)
        assert got.item() == pytest.approx(value, abs=2e-6), kind


def test_bug_02_jsd_does_not_vanish_at_its_end_points(losses):
    """trl#6780."""
    student, teacher = draw(4, V, seed=0), draw(4, V, seed=1)
    for beta, kind in ((0, "forward_kl"), (1, "reverse_kl")):
        torch.testing.assert_close(
            losses.token_divergence(student, teacher, "jsd", beta=beta),
            losses.token_divergence(student, teacher, kind),
        )
    near = losses.token_divergence(student, teacher, "jsd", beta=1e-4)
    forward = losses.token_divergence(student, teacher, "forward_kl")
    torch.testing.assert_close(near, 1e-4 * forward, rtol=0.02, atol=0)


def test_bug_03_t_squared_keeps_the_size_of_the_gradient(losses):
    """keras-io#869, trl#5731. It tends to (z - v) / V (Hinton et al. 2015)."""
    _, labels, _ = batch()
    student, teacher = (z - z.mean(-1, keepdim=True) for z in (batch()[0], batch()[2]))
    kept = (labels[:, 1:] != -100).sum()
    limit = torch.zeros_like(student)
    limit[:, :-1] = (student - teacher)[:, :-1] * (labels[:, 1:, None] != -100)
    for kind in ("forward_kl", "reverse_kl"):
        for temperature in (100.0, 400.0):
            got = gradient(
                lambda z, kind=kind, temperature=temperature: losses.distillation_loss(
                    z,
                    labels,
                    teacher,
                    soft_weight=1.0,
                    temperature=temperature,
                    kind=kind,
                ),
                student,
            )
            torch.testing.assert_close(got * kept * V, limit, atol=0.2, rtol=0.1)


def test_bug_04_padding_and_prompt_stay_out_of_the_loss(losses):
    """Liger-Kernel#974: a mask was accepted and not used for a year."""
    student, labels, teacher = batch()
    loss = losses.distillation_loss(student, labels, teacher)
    unused = torch.ones(B, T, dtype=torch.bool)
    unused[:, :-1] = labels[:, 1:] == -100
    grad = gradient(lambda z: losses.distillation_loss(z, labels, teacher), student)
    assert (grad[unused] == 0).all() and (grad[~unused] != 0).any()
    for junk in (5.0, torch.nan):  # other prompts and padding, even broken ones
        other_student = student.masked_fill(unused[..., None], junk)
        other_teacher = teacher.masked_fill(unused[..., None], -junk)
        assert losses.distillation_loss(other_student, labels, other_teacher) == loss
    wider = torch.nn.functional.pad(labels, (0, 4), value=-100)
    student, teacher = (
        torch.cat([z, draw(B, 4, V)], dim=1) for z in (student, teacher)
    )
    assert losses.distillation_loss(student, wider, teacher) == loss
    per_token, mask = torch.arange(6.0).view(2, 3), torch.eye(2, 3, dtype=torch.bool)
    assert losses.reduce_tokens(per_token, mask) == 2  # (0 + 4) / 2


def end_is_learnt(collate) -> bool:
    """Whether the end of the answer keeps its label where pad is that same token."""
    words = ["<|end|>", "<|user|>", "<|assistant|>", "hello", "good", "day"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|end|>",
        pad_token="<|end|>",
        chat_template="{% for m in messages %}<|{{ m.role }}|> {{ m.content }} <|end|> "
        "{% endfor %}{% if add_generation_prompt %}<|assistant|> {% endif %}",
    )
    rows = []
    for answer in ("good day", "day"):
        messages = [{"role": "user", "content": "hello"}]
        messages.append({"role": "assistant", "content": answer})
        rows.append(tokenize_chat(tokenizer, messages))
    padded = collate(rows, tokenizer.pad_token_id)
    targets, mask = helpers.losses.shift_and_mask(padded["labels"])
    assert padded["labels"].shape == (2, 7)
    return [row[keep].tolist() for row, keep in zip(targets, mask, strict=True)] == [
        [4, 5, 0],  # good day <|end|>
        [5, 0],  # day <|end|>, and the padding after it is no label
    ]


def test_bug_05_end_of_answer_is_learnt_where_pad_is_eos():
    """trl#6357."""

    def collate_by_id(rows, pad_token_id):
        padded = collate(rows, pad_token_id)
        padded["labels"][padded["input_ids"] == pad_token_id] = -100
        return padded

    assert end_is_learnt(collate)
    assert not end_is_learnt(collate_by_id)  # the published bug is noticed


def test_bug_06_logits_predict_the_next_token(losses):
    """AReaL#1729, ms-swift#8436."""
    labels = torch.tensor([[-100, -100, 3, 1, 4, 1, 5]])
    targets, mask = losses.shift_and_mask(labels)
    assert targets[mask].tolist() == [3, 1, 4, 1, 5]
    assert mask.tolist() == [[False, True, True, True, True, True]]
    clairvoyant = torch.zeros(1, T, V)  # at t all mass stands on the token at t + 1
    clairvoyant[0, torch.arange(T - 1), labels[0, 1:].clamp(min=0)] = 50.0
    loss = losses.distillation_loss(clairvoyant, labels, clairvoyant)
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_bug_07_loss_of_a_batch_is_the_token_weighted_loss_of_its_rows(losses):
    student, labels, teacher = batch()
    whole = losses.distillation_loss(student, labels, teacher)
    counts = (labels[:, 1:] != -100).sum(1)
    rows = torch.stack(
        [
            losses.distillation_loss(
                student[i : i + 1], labels[i : i + 1], teacher[i, None]
            )
            for i in range(B)
        ]
    )
    assert counts.tolist() == [5, 3, 1]
    torch.testing.assert_close((rows * counts).sum() / counts.sum(), whole)


def test_bug_08_half_precision_is_computed_in_float32(losses):
    """speculators#788: the error of a bfloat16 KL grows as the student converges."""
    teacher = draw(8, 200, seed=0).bfloat16()
    student = (teacher.float() + 0.05 * draw(8, 200, seed=1)).bfloat16()
    labels = torch.arange(9)[None]
    for kind in losses.KINDS:

        def divergence(z, kind=kind):
            return losses.token_divergence(
                z, teacher.to(z.dtype), kind, temperature=2.0
            )

        assert divergence(student).dtype == torch.float32
        exact = divergence(student.double())
        torch.testing.assert_close(
            divergence(student).double(), exact, rtol=1e-2, atol=0
        )
        exact = gradient(divergence, student.double())
        got = gradient(divergence, student).double()
        assert (got - exact).norm() < 5e-3 * exact.norm(), kind
    student = torch.cat([student, student[:1]])[None]
    assert losses.loss_parts(student, labels, None).hard.dtype == torch.float32


def test_bug_09_log_of_a_mixture_has_finite_gradients(losses):
    """Liger-Kernel#769."""
    student = torch.tensor([[1e4, -1e4, 0.0], [-200.0, 200.0, 0.0]])
    for kind in ("jsd", "skew_forward_kl", "skew_reverse_kl"):
        for beta in (1e-6, 0.5, 1 - 1e-6):
            for temperature in TEMPERATURES:
                got = gradient(
                    lambda z, k=kind, b=beta, t=temperature: losses.token_divergence(
                        z, -student, k, temperature=t, beta=b, skew=0.1
                    ),
                    student,
                )
                assert got.isfinite().all(), (kind, beta, temperature)


def test_bug_10_micro_batches_add_up_to_the_batch(losses):
    """transformers#34191, trl#4719: a mean of means weighs short answers too much."""
    student, labels, teacher = batch()
    num_items = (labels[:, 1:] != -100).sum()

    def whole(z):
        return losses.distillation_loss(z, labels, teacher)

    for count in (num_items, num_items.item()):

        def micro(z, count=count):
            pieces = zip(z.split(1), labels.split(1), teacher.split(1), strict=True)
            return sum(losses.distillation_loss(*p, num_items=count) for p in pieces)

        torch.testing.assert_close(micro(student), whole(student))
        torch.testing.assert_close(gradient(micro, student), gradient(whole, student))


def test_bug_12_unequal_widths_are_refused_not_padded(losses):
    """torchtune#2119, LMOps#286: rows that only one model has are no part of either."""
    student, labels, teacher = batch()
    for narrow in (student[..., :-2], student[..., :1]):
        with pytest.raises(ValueError, match="shared_vocab"):
            losses.distillation_loss(narrow, labels.clamp(max=0), teacher)
        with pytest.raises(ValueError, match="shared_vocab"):
            losses.token_divergence(narrow, teacher)


def test_bug_24_a_kl_reaches_zero_and_is_no_cross_entropy(losses):
    """torchtune, LMOps, TextBrewer."""
    _, labels, teacher = batch()
    assert losses.distillation_loss(teacher, labels, teacher, soft_weight=1.0) == 0


# ---------------------------------------------------------------- sparse targets


def top(teacher: torch.Tensor, k: int, temperature: float = 1.0):
    """Ids and log-probabilities of the k likeliest tokens."""
    logprobs, ids = (teacher / temperature).log_softmax(-1).topk(k)
    return ids, logprobs


def test_sparse_equals_full_where_all_tokens_are_known(losses):
    student, teacher = draw(6, V, seed=0), draw(6, V, seed=1)
    for temperature in (0.5, 1.0, 3.0):
        known = top(teacher, V, temperature)
        full = losses.token_divergence(student, teacher, temperature=temperature)
        for tail in losses.TAILS:

            def sparse(z, tail=tail, known=known, temperature=temperature):
                return losses.sparse_divergence(
                    z, *known, tail=tail, temperature=temperature
                )

            torch.testing.assert_close(sparse(student), full)
            torch.testing.assert_close(
                gradient(sparse, student),
                gradient(
                    lambda z, t=temperature: losses.token_divergence(
                        z, teacher, temperature=t
                    ),
                    student,
                ),
            )


def test_each_tail_is_what_it_says(losses):
    """Values and closed-form gradients, on the known tokens and in the tail."""
    student, teacher = draw(6, V, seed=2).double(), draw(6, V, seed=3).double()
    for temperature in (0.7, 1.0, 2.0):
        ids, logprobs = top(teacher, 4, temperature)
        q, p = ((z / temperature).softmax(-1) for z in (student, teacher))
        known = torch.zeros(6, V, dtype=torch.bool).scatter(1, ids, True)
        p_known, q_known = (x * known for x in (p, q))
        mass_p, mass_q = (x.sum(-1, keepdim=True) for x in (p_known, q_known))

        def kl(a, b):
            return torch.where(a > 0, a * (a / b).log(), 0).sum(-1)

        rest = kl(1 - mass_p, 1 - mass_q)
        values = {
            "bucket": kl(p_known, q) + rest,
            "renormalise": kl(p_known / mass_p, q / mass_q),
            "truncate": kl(p_known, q),
            "sampled": kl(p_known, q),
        }
        tail = q * (1 - (1 - mass_p) / (1 - mass_q))
        gradients = {
            "bucket": torch.where(known, q - p, tail),
            "renormalise": q_known / mass_q - p_known / mass_p,
            "truncate": mass_p * q - p_known,
            "sampled": mass_p * q - p_known,
        }
        for tail in losses.TAILS:

            def sparse(z, tail=tail, known=(ids, logprobs), temperature=temperature):
                return losses.sparse_divergence(
                    z, *known, tail=tail, temperature=temperature
                )

            lowest = -torch.inf if tail == "truncate" else 0
            expected = values[tail].clamp(min=lowest)
            torch.testing.assert_close(sparse(student), expected)
            torch.testing.assert_close(
                gradient(sparse, student), gradients[tail] / temperature
            )


def test_sparse_divergence_is_finite_for_extreme_logits(losses):
    for scale in (1e-3, 1.0, 1e4):
        student = draw(6, V, seed=3, scale=scale).clamp(-1e4, 1e4)
        for teacher in (student, -student, student.roll(1, 0)):
            for temperature in TEMPERATURES:
                for k in (1, 5, V - 1, V):
                    known = top(teacher, k, temperature)
                    for tail in losses.TAILS:

                        def sparse(z, known=known, tail=tail, temperature=temperature):
                            return losses.sparse_divergence(
                                z, *known, tail=tail, temperature=temperature
                            )

                        value, grad = sparse(student), gradient(sparse, student)
                        where = tail, k, temperature, scale
                        assert value.isfinite().all() and grad.isfinite().all(), where
                        assert tail == "truncate" or (value >= 0).all(), where
                        if teacher is student:
                            # P is rounded by 1e-7, and log Q may reach 4e5.
                            limit = 0.04 if scale == 1e4 and tail == "bucket" else 1e-5
                            assert value.abs().max() < limit, where


def test_a_bucket_keeps_its_digits_where_the_student_leaves_little_to_the_tail(losses):
    """1 - Q would be 0 in float32 here, its logarithm minus infinity."""
    student = torch.tensor([[40.0, 0.0, 0.0]])
    known = torch.tensor([[0]]), torch.tensor([[0.5]]).log()
    value = losses.sparse_divergence(student, *known)
    expected = 0.5 * log(0.5 / 1) + 0.5 * (log(0.5 / 2) + 40)
    assert value.item() == pytest.approx(expected, rel=1e-6)
    assert losses.sparse_divergence(student, *known).item() < losses.token_divergence(
        student, torch.tensor([[0.5, 0.5 - 1e-9, 1e-9]]).log()
    )


def test_places_without_a_token_count_for_nothing(losses):
    student = draw(1, V)
    ids = torch.tensor([[3, 7, 7, 0]])
    logprobs = torch.tensor([[0.75, 0.25, 0.0, 0.0]]).log()
    for ending in (2, 3, 4):
        value = losses.sparse_divergence(
            student, ids[:, :ending], logprobs[:, :ending], tail="sampled"
        )
        q = student.log_softmax(-1)[0]
        expected = 0.75 * (log(0.75) - q[3]) + 0.25 * (log(0.25) - q[7])
        torch.testing.assert_close(value[0], expected)


def test_sparse_targets_in_the_loss(losses):
    """In place of dense ones, at the temperature they were softened with."""
    student, labels, teacher = batch()
    kept = teacher[:, :-1][labels[:, 1:] != -100]
    settings = {"temperature": 3.0, "soft_weight": 0.4}
    sparse = losses.SparseTargets(*top(kept, V, 3.0), "bucket", 3.0)
    loss = losses.loss_parts(student, labels, sparse, **settings).loss
    whole = losses.distillation_loss(student, labels, teacher, **settings)
    torch.testing.assert_close(loss, whole)
    few = losses.SparseTargets(*top(kept, 2, 3.0), "renormalise", 3.0)
    soft = losses.loss_parts(student, labels, few, **settings).soft
    per_token = losses.sparse_divergence(
        student[:, :-1][labels[:, 1:] != -100],
        *few[:2],
        tail="renormalise",
        temperature=3.0,
    )
    torch.testing.assert_close(soft, 9 * per_token.mean())


def test_sparse_targets_that_do_not_fit_are_refused(losses):
    student, labels, teacher = batch()
    kept = teacher[:, :-1][labels[:, 1:] != -100]
    sparse = losses.SparseTargets(*top(kept, 3))
    with pytest.raises(ValueError, match="softened by temperature 1.0"):
        losses.loss_parts(student, labels, sparse, temperature=2.0)
    with pytest.raises(ValueError, match="forward_kl"):
        losses.loss_parts(student, labels, sparse, temperature=1.0, kind="jsd")
    with pytest.raises(ValueError, match="choose one of bucket"):
        losses.sparse_divergence(kept, *top(kept, 3), tail="none")
    ids, logprobs = top(kept, 3)
    for wrong in ((ids[1:], logprobs[1:]), (ids[:, 1:], logprobs)):
        with pytest.raises(ValueError, match="token_ids"):
            losses.sparse_divergence(kept, *wrong)
    few = losses.SparseTargets(ids[1:], logprobs[1:])
    with pytest.raises(ValueError, match="student_logits"):
        losses.loss_parts(student, labels, few, temperature=1.0)


def trained(losses, teacher: torch.Tensor, targets, **settings) -> torch.Tensor:
    """Student probabilities after gradient descent from uniform; `targets()` a step."""
    logits = torch.zeros_like(teacher)
    for _ in range(400):
        ids, logprobs = targets()
        logits -= 5 * gradient(
            lambda z, known=(ids, logprobs): losses.sparse_divergence(
                z, *known, **settings
            ),
            logits,
        )
    return logits.softmax(-1)


def test_bug_16_top_k_bias(losses):
    """verl#7856: what a student becomes that sees 4 of 40 tokens."""
    teacher = draw(1, 40, seed=5, scale=1.0)
    ids, logprobs = top(teacher, 4)
    mass = logprobs.exp().sum().item()
    assert 0.3 < mass < 0.7
    learnt = {
        tail: trained(losses, teacher, lambda: (ids, logprobs), tail=tail)
        for tail in ("bucket", "renormalise", "truncate")
    }
    held = {tail: q.gather(1, ids).sum().item() for tail, q in learnt.items()}
    assert held["bucket"] == pytest.approx(mass, abs=1e-3)  # as much as the teacher
    assert held["truncate"] > 0.98  # over-confident
    assert abs(held["renormalise"] - mass) > 0.1  # whatever it began with
    torch.testing.assert_close(
        learnt["bucket"].gather(1, ids), logprobs.exp(), atol=1e-3, rtol=1e-2
    )


def test_bug_16_samples_are_not_biased(losses):
    """The mean gradient over many draws is q - p (Anshumann et al. 2025)."""
    student, teacher = draw(1, V, seed=0, scale=1.0), draw(1, V, seed=1, scale=1.0)
    p, q = teacher.softmax(-1), student.softmax(-1)
    generator = torch.Generator().manual_seed(0)
    draws = torch.multinomial(
        p.expand(20_000, V), 6, replacement=True, generator=generator
    )
    counts = torch.zeros(20_000, V).scatter_add(
        1, draws, torch.ones_like(draws).float()
    )
    shares, ids = (counts / 6).topk(6)

    def mean(z):
        return losses.sparse_divergence(
            z.expand(20_000, V), ids, shares.log(), tail="sampled"
        ).mean()

    torch.testing.assert_close(gradient(mean, student), q - p, atol=5e-3, rtol=0)


# ---------------------------------------------------------------- layers


def layers(count: int, *shape: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    return tuple(draw(*shape, seed=seed + i) for i in range(count))


def test_hidden_states_are_compared_pair_by_pair(losses):
    student, teacher = layers(3, B, T, 4), layers(5, B, T, 4, seed=10)
    mask = torch.ones(B, T, dtype=torch.long)
    mask[0, 5:] = mask[2, 1:] = 0
    keep = mask.bool()
    for kind, distance in (
        ("mse", lambda a, b: (a - b).square().mean()),
        (
            "cosine",
            lambda a, b: 1 - ((a * b).sum(-1) / a.norm(dim=-1) / b.norm(dim=-1)).mean(),
        ),
    ):
        loss = losses.hidden_state_loss(
            student, teacher, [(1, 2), (2, 4)], mask=mask, kind=kind
        )
        expected = [
            distance(student[i][keep], teacher[j][keep]) for i, j in ((1, 2), (2, 4))
        ]
        torch.testing.assert_close(loss, torch.stack(expected).mean())
        same = losses.hidden_state_loss(student, student, [(0, 0), (2, 2)], kind=kind)
        assert 0 <= same < 1e-6
    whole = losses.hidden_state_loss(student, teacher, [(0, 0)])
    torch.testing.assert_close(whole, (student[0] - teacher[0]).square().mean())


def test_projections_bridge_widths_and_learn(losses):
    student, teacher = layers(2, B, T, 3), layers(2, B, T, 5, seed=10)
    torch.manual_seed(0)
    projections = torch.nn.ModuleList(torch.nn.Linear(3, 5) for _ in range(2))
    pairs = [(0, 0), (1, 1)]
    with pytest.raises(ValueError, match=r"torch.nn.Linear\(3, 5\)"):
        losses.hidden_state_loss(student, teacher, pairs)
    with pytest.raises(ValueError, match="2 projections for 1 pairs"):
        losses.hidden_state_loss(student, teacher, pairs[:1], projections)
    loss = losses.hidden_state_loss(student, teacher, pairs, projections)
    expected = [
        (projections[i](student[i]) - teacher[i]).square().mean() for i in range(2)
    ]
    torch.testing.assert_close(loss, torch.stack(expected).mean())
    loss.backward()
    assert all(p.grad.abs().sum() > 0 for p in projections.parameters())


def attention(seed: int, heads: int = 2) -> torch.Tensor:
    """Causal attention (B, heads, T, T): each row sums to 1, later keys are 0."""
    scores = draw(B, heads, T, T, seed=seed)
    later = torch.ones(T, T).triu(1).bool()
    return scores.masked_fill(later, -torch.inf).softmax(-1)


def test_attention_is_compared_as_distributions(losses):
    student, teacher = (attention(0),), (attention(1), attention(2))
    mask = torch.ones(B, T)
    mask[1, 2:] = 0
    a, b = teacher[1], student[0]
    kl = torch.where(a > 0, a * (a / b).log(), 0).sum(-1)  # (B, heads, T)
    loss = losses.attention_loss(student, teacher, [(0, 1)], mask=mask)
    torch.testing.assert_close(loss, kl.transpose(1, 2)[mask.bool()].mean())
    whole = losses.attention_loss(student, teacher, [(0, 1)])
    torch.testing.assert_close(whole, kl.mean())
    assert losses.attention_loss(teacher, teacher, [(0, 0), (1, 1)]) < 1e-6
    four = attention(3, heads=4)
    fewer = losses.attention_loss(student, (four,), [(0, 0)])
    means = [x.mean(1, keepdim=True) for x in (student[0], four)]
    torch.testing.assert_close(
        fewer, losses.attention_loss(means[:1], means[1:], [(0, 0)])
    )


@pytest.mark.parametrize("name", ["hidden_state_loss", "attention_loss"])
def test_layers_keep_padding_out_and_the_teacher_still(losses, name):
    """Junk where the mask is 0 reaches neither the value nor the gradient."""
    function = getattr(losses, name)
    if name == "attention_loss":
        student, teacher = attention(0), attention(1)
        junk = torch.zeros(B, 1, T, 1, dtype=torch.bool)
        junk[:, :, 4:] = True
    else:
        student, teacher = layers(1, B, T, 4)[0], layers(1, B, T, 4, seed=5)[0]
        junk = torch.zeros(B, T, 1, dtype=torch.bool)
        junk[:, 4:] = True
    mask = torch.ones(B, T, dtype=torch.long)
    mask[:, 4:] = 0
    clean = function([student], [teacher], [(0, 0)], mask=mask)
    student = student.masked_fill(junk, torch.nan).requires_grad_()
    teacher = teacher.masked_fill(junk, 7.0).requires_grad_()
    loss = function([student], [teacher], [(0, 0)], mask=mask)
    loss.backward()
    assert loss == clean and teacher.grad is None
    assert student.grad.isfinite().all() and student.grad.abs().sum() > 0
    nothing = function([student], [teacher], [(0, 0)], mask=torch.zeros(B, T))
    assert nothing == 0
    half = function([student.bfloat16()], [teacher.bfloat16()], [(0, 0)], mask=mask)
    assert half.dtype == torch.float32


def test_layers_that_are_not_there_are_refused(losses):
    states = layers(2, B, T, 4)
    with pytest.raises(ValueError, match="choose mse or cosine"):
        losses.hidden_state_loss(states, states, [(0, 0)], kind="kl")
    for function in (losses.hidden_state_loss, losses.attention_loss):
        with pytest.raises(ValueError, match="layers 0 to 1"):
            function(states, states, [(0, 2)])
        for nothing in (([], states, [(0, 0)]), (states, states, [])):
            with pytest.raises(ValueError, match="nothing to compare"):
                function(*nothing)
    with pytest.raises(ValueError, match="eager"):
        losses.attention_loss((None, None), (None, None), [(0, 0)])


# ---------------------------------------------------------------- second routes


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("beta", [0, 0.1, 0.5, 0.9, 1])
def test_parity_with_trl(beta, temperature, monkeypatch):
    """GKD's generalised JSD: by token, as a mean over labels, and by num_items."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.gkd import GKDTrainer

    theirs = GKDTrainer.generalized_jsd_loss
    student, labels, teacher = batch()
    common = {"beta": beta, "temperature": temperature}

    def trl(z, **more):
        return theirs(z, teacher, **common, **more)

    def ours(z, **more):
        return helpers.losses.token_divergence(z, teacher, "jsd", **common, **more)

    per_token = trl(student, reduction="none").sum(-1)
    torch.testing.assert_close(ours(student), per_token)
    torch.testing.assert_close(
        gradient(ours, student), gradient(lambda z: trl(z, reduction="none"), student)
    )
    kind = {0: "forward_kl", 0.5: "jsd", 1: "reverse_kl"}.get(beta)
    if kind is None:  # distillation_loss has no beta
        return
    targets, mask = helpers.losses.shift_and_mask(labels)
    for num_items in (None, 50):
        expected = theirs(
            student[:, :-1],
            teacher[:, :-1],
            labels=targets,
            num_items_in_batch=num_items,
            **common,
        )
        loss = helpers.losses.distillation_loss(
            student,
            labels,
            teacher,
            soft_weight=1.0,
            temperature=temperature,
            kind=kind,
            num_items=num_items,
        )
        torch.testing.assert_close(loss, temperature**2 * expected)  # TRL has no T²


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_gradients_have_their_closed_forms(temperature):
    student, teacher = draw(4, V, seed=0).double(), draw(4, V, seed=1).double()
    q, p = ((z / temperature).softmax(-1) for z in (student, teacher))
    beta = 0.3
    m = (1 - beta) * q + beta * p

    def reverse(a):  # q (log q/a - KL(q || a))
        log_ratio = (q / a).log()
        return q * (log_ratio - (q * log_ratio).sum(-1, keepdim=True))

    closed = {
        "forward_kl": (q - p) / temperature,
        "reverse_kl": reverse(p) / temperature,
        "jsd": (1 - beta) * reverse(m) / temperature,
    }
    for kind, expected in closed.items():
        got = gradient(
            lambda z, kind=kind: helpers.losses.token_divergence(
                z, teacher, kind, temperature=temperature, beta=beta
            ),
            student,
        )
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("kind", helpers.losses.KINDS)
def test_gradients_equal_finite_differences(kind):
    student, teacher = draw(3, 6, seed=0).double(), draw(3, 6, seed=1).double()
    assert torch.autograd.gradcheck(
        lambda z: helpers.losses.token_divergence(
            z, teacher, kind, temperature=1.5, beta=0.2, skew=0.2
        ),
        student.requires_grad_(),
    )


wild = st.floats(-1e4, 1e4, width=32)
careful = settings(max_examples=100, deadline=None, derandomize=True, database=None)


@careful
@given(
    logits=st.integers(2, 6).flatmap(
        lambda v: st.tuples(*[st.lists(wild, min_size=v, max_size=v)] * 2)
    ),
    temperature=st.floats(0.05, 20),
    beta=st.floats(0, 1),
    skew=st.floats(0, 0.99),
)
def test_wild_logits(logits, temperature, beta, skew):
    student, teacher = (torch.tensor([z], requires_grad=True) for z in logits)
    for kind in helpers.losses.KINDS:
        shape = {"temperature": temperature, "beta": beta, "skew": skew}
        divergence = helpers.losses.token_divergence(student, teacher, kind, **shape)
        (grad,) = torch.autograd.grad(divergence.sum(), student)
        assert divergence.isfinite().all() and (divergence >= 0).all(), kind
        assert grad.isfinite().all(), kind
        same = helpers.losses.token_divergence(student, student.clone(), kind, **shape)
        assert (same == 0).all(), kind


@careful
@given(
    lengths=st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=4
    ),
    extra=st.integers(0, 3),
)
def test_any_padding_gives_the_loss_of_the_rows(lengths, extra):
    """(prompt, answer) lengths, padded to any width: the loss of the rows by token."""
    width = max(1, *(sum(pair) for pair in lengths)) + extra
    student, teacher = (
        draw(len(lengths), width, V),
        draw(len(lengths), width, V, seed=1),
    )
    labels = torch.full((len(lengths), width), -100)
    total, count = 0.0, 0
    for row, (prompt, answer) in enumerate(lengths):
        end = prompt + answer
        labels[row, prompt:end] = 1
        cut = [z[row : row + 1, :end] for z in (student, labels, teacher)]
        kept = (cut[1][:, 1:] != -100).sum().item()
        total += kept * helpers.losses.distillation_loss(*cut).item() if end else 0
        count += kept
    loss = helpers.losses.distillation_loss(student, labels, teacher).item()
    assert loss == pytest.approx(total / max(count, 1), rel=1e-5)


# ---------------------------------------------------------------- planted bugs

# What is damaged: how the text changes: the test that must notice.
PLANTED = {
    "bucket renormalised": (
        'if tail == "bucket" and token_ids.shape[-1] <',
        "if False and token_ids.shape[-1] <",
        test_bug_16_top_k_bias,
    ),
    "truncated in silence": (
        'if tail in ("bucket", "renormalise"):',
        "if False:",
        test_each_tail_is_what_it_says,
    ),
    "samples renormalised on the student's side": (
        'if tail in ("bucket", "renormalise"):',
        "if True:",
        test_bug_16_samples_are_not_biased,
    ),
    "tail as 1 - Q": (
        "others.logsumexp(-1, keepdim=True)",
        "(student.logsumexp(-1, keepdim=True) + torch.log1p(-student.softmax(-1)"
        ".gather(-1, token_ids).sum(-1, keepdim=True)))",
        test_a_bucket_keeps_its_digits_where_the_student_leaves_little_to_the_tail,
    ),
    "sums of large logits": (
        "student - highest",
        "student",
        test_sparse_divergence_is_finite_for_extreme_logits,
    ),
    "empty places not cleared": (
        "log_p.clamp(min=torch.finfo(log_p.dtype).min)",
        "log_p",
        test_places_without_a_token_count_for_nothing,
    ),
    "temperature of sparse targets not compared": (
        "targets.temperature != temperature",
        "False",
        test_sparse_targets_that_do_not_fit_are_refused,
    ),
    "teacher read one position late": (
        "teacher_logits[:, :-1]",
        "teacher_logits[:, 1:]",
        test_bug_06_logits_predict_the_next_token,
    ),
    "padding computed with": (
        "layer[mask.bool()]",
        "(layer * mask.view(*mask.shape, *[1] * (layer.dim() - 2))).flatten(0, 1)",
        lambda losses: test_layers_keep_padding_out_and_the_teacher_still(
            losses, "hidden_state_loss"
        ),
    ),
    "attention the other way round": (
        "(torch.xlogy(teacher, teacher) - teacher * log_q)",
        "(student * (log_q - teacher.clamp(min=1e-30).log()))",
        test_attention_is_compared_as_distributions,
    ),
    "forward KL turned round": (
        "terms = log_p.exp() * log_ratio",
        "terms = -log_q.exp() * log_ratio",
        test_bug_01_direction_of_the_divergence_and_of_its_mixture,
    ),
    "beta swapped in the mixture": (
        "log_p.exp() * log_over_mixture(log_ratio, beta)",
        "log_p.exp() * log_over_mixture(log_ratio, 1 - beta)",
        test_bug_01_direction_of_the_divergence_and_of_its_mixture,
    ),
    "beta swapped in the weights": (
        "beta * p_to_m + (1 - beta) * q_to_m",
        "(1 - beta) * p_to_m + beta * q_to_m",
        test_bug_01_direction_of_the_divergence_and_of_its_mixture,
    ),
    "skew swapped": (
        "log_p.exp() * log_over_mixture(log_ratio, skew)",
        "log_p.exp() * log_over_mixture(log_ratio, 1 - skew)",
        test_bug_01_direction_of_the_divergence_and_of_its_mixture,
    ),
    "JSD end points swapped": (
        '"reverse_kl" if beta else "forward_kl"\n    log_q',
        '"forward_kl" if beta else "reverse_kl"\n    log_q',
        test_bug_02_jsd_does_not_vanish_at_its_end_points,
    ),
    "JSD end points vanish": (
        'kind = "reverse_kl" if beta else "forward_kl"\n    log_q',
        "return 0 * student_logits.sum(-1)\n    log_q",
        test_bug_02_jsd_does_not_vanish_at_its_end_points,
    ),
    "T² dropped": (
        "temperature**2 * ",
        "",
        test_bug_03_t_squared_keeps_the_size_of_the_gradient,
    ),
    "T instead of T²": (
        "temperature**2",
        "temperature",
        test_bug_03_t_squared_keeps_the_size_of_the_gradient,
    ),
    "T² doubled": (
        "temperature**2",
        "2 * temperature**2",
        test_bug_03_t_squared_keeps_the_size_of_the_gradient,
    ),
    "T² on the cross-entropy too": (
        "(1 - soft_weight) * hard +",
        "(1 - soft_weight) * temperature**2 * hard +",
        test_the_loss_is_the_weighted_sum_of_its_parts,
    ),
    "teacher not softened": (
        "widen(teacher_logits) / temperature",
        "widen(teacher_logits)",
        test_every_divergence_is_what_its_paper_says,
    ),
    "soft_weight swapped": (
        "(1 - soft_weight) * hard + soft_weight * soft",
        "soft_weight * hard + (1 - soft_weight) * soft",
        test_the_loss_is_the_weighted_sum_of_its_parts,
    ),
    "mask dropped": (
        "targets, targets != ignore_index",
        "targets.clamp(min=0), targets == targets",
        test_bug_04_padding_and_prompt_stay_out_of_the_loss,
    ),
    "mask accepted and not used": (
        "per_token[mask].sum()",
        "per_token.sum()",
        test_bug_04_padding_and_prompt_stay_out_of_the_loss,
    ),
    "mean over padding": (
        "reduce_tokens(per_token, kept, num_items)",
        "per_token.sum() / mask.numel()",
        test_bug_07_loss_of_a_batch_is_the_token_weighted_loss_of_its_rows,
    ),
    "no shift": (
        "labels[..., 1:]",
        "labels[..., :-1]",
        test_bug_06_logits_predict_the_next_token,
    ),
    "shift twice": (
        "student_logits[:, :-1]",
        "student_logits[:, 1:]",
        test_bug_06_logits_predict_the_next_token,
    ),
    "half precision inside": (
        "logits.to(torch.promote_types(logits.dtype, torch.float32))",
        "logits",
        test_bug_08_half_precision_is_computed_in_float32,
    ),
    "log of a mixture taken plainly": (
        "F.logsigmoid(log_ratio + c) - F.logsigmoid(c)",
        "log_ratio - (share * log_ratio.exp() + 1 - share).log()",
        test_bug_09_log_of_a_mixture_has_finite_gradients,
    ),
    "num_items not used": (
        "mask.sum() if num_items is None else torch.as_tensor(num_items)",
        "mask.sum()",
        test_bug_10_micro_batches_add_up_to_the_batch,
    ),
    "division by an empty mask": (
        "count.clamp(min=1)",
        "count",
        test_an_all_masked_batch_gives_zero_and_zero_gradient,
    ),
    "widths not compared": (
        "if student_logits.shape != teacher_logits.shape:",
        "if False:",
        test_bug_12_unequal_widths_are_refused_not_padded,
    ),
    "cross-entropy in place of KL": (
        "terms = log_p.exp() * log_ratio",
        "terms = -log_p.exp() * log_q",
        test_bug_24_a_kl_reaches_zero_and_is_no_cross_entropy,
    ),
    "rounding below zero": (
        "divergence - divergence.detach().clamp(max=0)",
        "divergence",
        test_divergences_are_finite_and_not_negative_for_extreme_logits,
    ),
    "gradient cut at zero": (
        "divergence - divergence.detach().clamp(max=0)",
        "divergence.relu()",
        test_rounding_below_zero_is_lifted_without_losing_the_gradient,
    ),
    "teacher trained": (
        "targets.detach()",
        "targets",
        test_no_gradient_reaches_the_teacher,
    ),
}


@pytest.mark.parametrize("test", dict.fromkeys(test for *_, test in PLANTED.values()))
def test_a_copy_without_a_bug_passes(test):
    with damaged(helpers.losses) as copy:
        test(copy)


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_noticed(bug):
    old, new, test = PLANTED[bug]
    with damaged(helpers.losses, old, new) as copy:
        assert notices(test, copy)
