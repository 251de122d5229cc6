"""The fused loss head: equal to the eager loss, without its tensors.

Tests that take the fixture `fused` are also run against damaged copies of the module,
each with one bug planted: the test meant for that bug must reject it.
"""

from math import log

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from helpers import losses
from helpers.losses import fused
from tests.damage import damage, notices

N, V, H_STUDENT, H_TEACHER = 23, 57, 6, 9
UNEVEN = dict(token_chunk=5, vocab_chunk=16)


@pytest.fixture(scope="session", name="fused")
def whole():
    return fused


def draw(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator)


def heads(dtype=torch.float32, tokens: int = N, words: int = V) -> tuple:
    """Student's hidden states and weight, with gradient, and the teacher's."""
    student = draw(tokens, H_STUDENT, seed=0), draw(words, H_STUDENT, seed=1, scale=0.5)
    teacher = draw(tokens, H_TEACHER, seed=2), draw(words, H_TEACHER, seed=3, scale=0.5)
    return (
        *(x.to(dtype).requires_grad_() for x in student),
        *(x.to(dtype) for x in teacher),
    )


def eager(hs, ws, ht, wt, kind="forward_kl", **settings) -> torch.Tensor:
    hs, ws, ht, wt = (
        x.to(torch.promote_types(x.dtype, torch.float32)) for x in (hs, ws, ht, wt)
    )
    return losses.token_divergence(hs @ ws.T, ht @ wt.T, kind, **settings)


def gradients(per_token: torch.Tensor, inputs, factors=None) -> tuple:
    """Of the mean loss, each token's multiplied by its factor."""
    factors = torch.ones(len(per_token)) if factors is None else factors
    return torch.autograd.grad((per_token * factors).mean(), inputs, retain_graph=True)


def same(got: torch.Tensor, expected: torch.Tensor, inputs, factors=None) -> None:
    """Losses equal to 1e-5, and their gradients."""
    close = dict(rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got, expected, **close)
    for ours, theirs in zip(
        gradients(got, inputs, factors),
        gradients(expected, inputs, factors),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, **close)


# ---------------------------------------------------------------- equal to eager


@pytest.mark.parametrize("kind", losses.KINDS)
def test_fused_equals_eager(kind):
    """Every temperature and tile; the bet on equal factors won, and lost."""
    inputs = heads()
    for temperature in (0.5, 1.0, 2.0, 8.0):
        for tiles in ({}, UNEVEN, dict(token_chunk=1), dict(vocab_chunk=1)):
            settings = dict(kind=kind, temperature=temperature, beta=0.3, skew=0.2)
            got = fused.linear_divergence(*inputs, **settings, **tiles)
            expected = eager(*inputs, **settings)
            assert got.shape == (N,) and got.dtype == torch.float32
            same(got, expected, inputs[:2])
            same(got, expected, inputs[:2], torch.rand(N))


def test_default_tiles_that_do_not_divide(monkeypatch):
    monkeypatch.setattr(fused, "CPU_BYTES", (5 * 4 * V, 5 * 4 * 10))
    inputs = heads()
    got = fused.linear_divergence(*inputs)
    same(got, eager(*inputs), inputs[:2])


@pytest.mark.parametrize("kind", losses.KINDS)
def test_bias_scale_and_softcap(kind):
    hs, ws, ht, wt = heads()
    bs, bt = draw(V, seed=4).requires_grad_(), draw(V, seed=5)
    for softcaps in ((None, 3.0), (2.0, None), (5.0, 1.0)):
        logits = 1.3 * (hs @ ws.T + bs), 0.6 * (ht @ wt.T + bt)
        capped = [
            z if c is None else c * torch.tanh(z / c)
            for z, c in zip(logits, softcaps, strict=True)
        ]
        expected = losses.token_divergence(*capped, kind, temperature=1.5)
        got = fused.linear_divergence(
            *(hs, ws, ht, wt),
            kind=kind,
            temperature=1.5,
            **dict(student_bias=bs, student_scale=1.3, student_softcap=softcaps[0]),
            **dict(teacher_bias=bt, teacher_scale=0.6, teacher_softcap=softcaps[1]),
            **UNEVEN,
        )
        same(got, expected, (hs, ws, bs))
        same(got, expected, (hs, ws, bs), torch.rand(N))


def test_gradients_of_finite_differences():
    """In float64: no formula of ours or of autograd stands behind the numbers."""
    hs, ws, ht, wt = heads(torch.float64, tokens=3, words=5)
    bs = draw(5, seed=4).double().requires_grad_()
    for kind in losses.KINDS:

        def dense(hs, ws, bs, kind=kind):
            return fused.linear_divergence(
                *(hs, ws, ht, wt),
                **dict(kind=kind, temperature=1.7, beta=0.3, student_bias=bs),
                **dict(student_softcap=4.0, token_chunk=2, vocab_chunk=3),
            )

        assert torch.autograd.gradcheck(dense, (hs, ws, bs))


def known_tokens(tail: str, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """token_ids (N, k) and logprobs (N, k); a sample with an empty place."""
    p = draw(N, V, seed=7, scale=2.0).log_softmax(-1)
    logprobs, token_ids = p.topk(k)
    if tail == "sampled":
        if k > 1:
            logprobs[:, -1], token_ids[:, -1] = -torch.inf, token_ids[:, 0]
        logprobs = logprobs.log_softmax(-1)
    return token_ids, logprobs


@pytest.mark.parametrize("tail", losses.TAILS)
def test_sparse_fused_equals_eager(tail):
    hs, ws, *_ = heads()
    for k in (1, 4, V):
        token_ids, logprobs = known_tokens(tail, k)
        for temperature in (0.5, 8.0):
            settings = dict(tail=tail, temperature=temperature)
            expected = losses.sparse_divergence(
                hs @ ws.T, token_ids, logprobs, **settings
            )
            for tiles in ({}, UNEVEN):
                got = fused.linear_sparse_divergence(
                    hs, ws, token_ids.int(), logprobs, **settings, **tiles
                )
                same(got, expected, (hs, ws))
                same(got, expected, (hs, ws), torch.rand(N))


def test_sparse_bias_scale_and_softcap():
    hs, ws, *_ = heads()
    bias = draw(V, seed=4).requires_grad_()
    token_ids, logprobs = known_tokens("bucket", 4)
    logits = 2 * torch.tanh(1.3 * (hs @ ws.T + bias) / 2)
    got = fused.linear_sparse_divergence(
        *(hs, ws, token_ids, logprobs),
        **dict(student_bias=bias, student_scale=1.3, student_softcap=2.0),
        **UNEVEN,
    )
    expected = losses.sparse_divergence(logits, token_ids, logprobs)
    same(got, expected, (hs, ws, bias))


def test_cross_entropy_is_the_sparse_loss_of_one_certain_token():
    hs, ws, *_ = heads()
    labels = torch.randint(0, V, (N,), generator=torch.Generator().manual_seed(0))
    got = fused.linear_sparse_divergence(
        hs, ws, labels[:, None], torch.zeros(N, 1), tail="truncate", **UNEVEN
    )
    expected = torch.nn.functional.cross_entropy(hs @ ws.T, labels, reduction="none")
    same(got, expected, (hs, ws))


# ---------------------------------------------------------------- invariants


@pytest.mark.parametrize("kind", losses.KINDS)
def test_identical_layers_give_exactly_zero(kind):
    hidden, weight = draw(N, 16, seed=0), draw(1037, 16, seed=1, scale=3.0)
    for temperature in (0.05, 1.0, 20.0):
        for tiles in ({}, UNEVEN):
            divergence = fused.linear_divergence(
                hidden,
                weight,
                hidden,
                weight,
                kind=kind,
                temperature=temperature,
                **tiles,
            )
            assert (divergence == 0).all()


def test_no_tokens_and_all_factors_zero():
    for tokens in (0, 3):
        hs, ws, ht, wt = heads(tokens=tokens)
        dense = fused.linear_divergence(hs, ws, ht, wt)
        token_ids, logprobs = (x[:tokens] for x in known_tokens("bucket", 2))
        sparse = fused.linear_sparse_divergence(hs, ws, token_ids, logprobs)
        for per_token in (dense, sparse):
            assert per_token.shape == (tokens,)
            for gradient in gradients(per_token, (hs, ws), torch.zeros(tokens)):
                assert (gradient == 0).all()


def test_teacher_gets_no_gradient_and_frozen_weight_costs_none():
    hs, ws, ht, wt = heads()
    ht.requires_grad_(), wt.requires_grad_()
    fused.linear_divergence(hs, ws, ht, wt).sum().backward()
    assert ht.grad is None and wt.grad is None

    def products(function) -> int:
        """Number of matrix products, forward and backward."""
        with Recorder() as recorder:
            function()
        return recorder.names.count("aten.addmm_.default")

    def step(factors):
        per_token = fused.linear_divergence(hs, ws, ht, wt, vocab_chunk=V)
        (per_token * factors).sum().backward()

    equal, unequal = torch.ones(N), torch.arange(N)
    assert products(lambda: step(equal)) == 4  # two layers, two gradients
    assert products(lambda: step(unequal)) == 8  # the bet is lost
    ws.requires_grad_(False)
    ws.grad = None
    assert products(lambda: step(equal)) == products(lambda: step(unequal)) == 3
    assert ws.grad is None
    with torch.no_grad():
        assert products(lambda: fused.linear_divergence(hs, ws, ht, wt)) == 2


def test_each_backward_is_its_own():
    """A second one, and one for the hidden states alone, find what they need."""
    hs, ws, ht, wt = heads()
    got, expected = (
        fused.linear_divergence(hs, ws, ht, wt),
        eager(hs, ws, ht, wt),
    )
    for inputs in ((hs,), (hs, ws), (ws,), (hs, ws)):
        same(got, expected, inputs)


def test_autocast_does_not_round():
    hs, ws, ht, wt = heads()
    with torch.autocast("cpu", torch.bfloat16):
        got = fused.linear_divergence(hs, ws, ht, wt)
    same(got, eager(hs, ws, ht, wt), (hs, ws))


def test_errors_say_what_to_do():
    hs, ws, ht, wt = heads()
    dense, sparse = (
        fused.linear_divergence,
        fused.linear_sparse_divergence,
    )
    for message, function, arguments, settings in (
        ("choose one of", dense, (hs, ws, ht, wt), dict(kind="kl")),
        ("0 <= beta", dense, (hs, ws, ht, wt), dict(beta=1.1)),
        ("temperature > 0", dense, (hs, ws, ht, wt), dict(temperature=0)),
        ("softcap > 0", dense, (hs, ws, ht, wt), dict(teacher_softcap=0.0)),
        ("token_chunk >= 1", dense, (hs, ws, ht, wt), dict(token_chunk=0)),
        ("shared_vocab", dense, (hs, ws, ht, wt[1:]), {}),
        ("same tokens", dense, (hs, ws, ht[1:], wt), {}),
        ("shift_and_mask", dense, (hs[None], ws, ht[None], wt), {}),
        ("choose one of", sparse, (hs, ws, *known_tokens("bucket", 2)), dict(tail="k")),
        ("must be", sparse, (hs, ws, torch.zeros(N, 2), torch.zeros(N, 3)), {}),
    ):
        with pytest.raises(ValueError, match=message):
            function(*arguments, **settings)


# ---------------------------------------------------------------- published bugs


def test_bug_01_direction_and_mixture(fused):
    """trl#3043, trl#2204. Hidden states are the number 1, weights the logits."""
    one = torch.ones(1, 1)
    p, q = torch.tensor([[0.9], [0.1]]), torch.tensor([[0.5], [0.5]])
    expected = {
        "forward_kl": 0.9 * log(0.9 / 0.5) + 0.1 * log(0.1 / 0.5),
        "reverse_kl": 0.5 * log(0.5 / 0.9) + 0.5 * log(0.5 / 0.1),
        "jsd": 0.1 * (0.9 * log(0.9 / 0.54) + 0.1 * log(0.1 / 0.46))
        + 0.9 * (0.5 * log(0.5 / 0.54) + 0.5 * log(0.5 / 0.46)),
        "tvd": 0.4,
        "skew_forward_kl": 0.9 * log(0.9 / 0.54) + 0.1 * log(0.1 / 0.46),
        "skew_reverse_kl": 0.5 * log(0.5 / 0.86) + 0.5 * log(0.5 / 0.14),
    }
    for kind, value in expected.items():
        got = fused.linear_divergence(one, q.log(), one, p.log(), kind=kind, beta=0.1)
        assert got.item() == pytest.approx(value, abs=2e-6), kind


def test_bug_02_jsd_does_not_vanish_at_its_end_points(fused):
    """trl#6780."""
    inputs = heads()
    for beta, kind in ((0, "forward_kl"), (1, "reverse_kl")):
        got = fused.linear_divergence(*inputs, kind="jsd", beta=beta)
        same(got, eager(*inputs, kind=kind), inputs[:2])
    for direction in ("forward_kl", "reverse_kl"):
        got = fused.linear_divergence(*inputs, kind=f"skew_{direction}", skew=0)
        same(got, eager(*inputs, kind=direction), inputs[:2])


def test_bug_03_temperature_stands_in_the_softmax_and_nowhere_else(fused):
    """keras-io#869, trl#5731."""
    hs, ws, ht, wt = heads()
    for temperature in (0.5, 4.0):
        got = fused.linear_divergence(hs, ws, ht, wt, temperature=temperature)
        divided = eager(hs / temperature, ws, ht / temperature, wt)
        same(got, divided, (hs, ws))
        same(got, divided, (hs, ws), torch.rand(N))


def test_bug_08_half_precision_is_computed_in_float32(fused):
    """speculators#788. Only the gradients, at the very end, are rounded."""
    for dtype in (torch.bfloat16, torch.float16):
        hs, ws, ht, wt = heads(dtype)
        for kind in losses.KINDS:
            got = fused.linear_divergence(hs, ws, ht, wt, kind=kind, **UNEVEN)
            expected = eager(hs, ws, ht, wt, kind=kind)
            assert got.dtype == torch.float32
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
            wide = [x.detach().float().requires_grad_() for x in (hs, ws)]
            exact = gradients(eager(*wide, ht, wt, kind=kind), wide)
            for ours, theirs in zip(gradients(got, (hs, ws)), exact, strict=True):
                assert ours.dtype == dtype
                torch.testing.assert_close(
                    ours, theirs.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-5
                )


def test_bug_09_wild_logits_stay_finite(fused):
    """Liger-Kernel#769: NaN gradients from the log of a mixture."""
    hs, ws, ht, wt = heads()
    with torch.no_grad():
        hs *= 2e3
    for teacher in ((1e3 * ht, wt), (-hs.detach(), ws.detach())):
        for kind in losses.KINDS:
            for temperature in (0.05, 1.0, 20.0):
                got = fused.linear_divergence(
                    hs, ws, *teacher, kind=kind, temperature=temperature
                )
                assert got.isfinite().all() and (got >= 0).all()
                for gradient in gradients(got, (hs, ws)):
                    assert gradient.isfinite().all(), (kind, temperature)


def test_bug_15_tokens_of_unequal_weight(fused):
    """trl#5731: the fused path must not quietly compute another loss."""
    inputs = heads()
    got, expected = fused.linear_divergence(*inputs, **UNEVEN), eager(*inputs)
    for factors in (torch.rand(N), torch.arange(N) % 2, torch.full((N,), 3.0)):
        same(got, expected, inputs[:2], factors)
    ws = inputs[1].detach()
    for tiles in ({}, UNEVEN):
        got = fused.linear_divergence(inputs[0], ws, *inputs[2:], **tiles)
        same(got, expected, inputs[:1], torch.rand(N))


class Recorder(TorchDispatchMode):
    """Names of the operations, and the number of elements of the largest storage."""

    def __init__(self):
        super().__init__()
        self.names, self.largest = [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.names.append(str(func))
        if isinstance(result, torch.Tensor):
            size = result.untyped_storage().nbytes() // result.element_size()
            self.largest = max(self.largest, size)
        return result


def test_bug_20_no_tensor_of_tokens_times_vocabulary(fused):
    """DistillKit#4: logits fill the memory. The bet lost, with the softcap's tile."""
    tokens, words = 200, 300
    hs, ws, ht, wt = heads(tokens=tokens, words=words)
    token_ids = torch.arange(3).expand(tokens, -1)
    logprobs = torch.full((tokens, 3), -2.0)
    tiles = dict(token_chunk=16, vocab_chunk=100)
    for loss in (
        lambda: fused.linear_divergence(hs, ws, ht, wt, student_softcap=3.0, **tiles),
        lambda: fused.linear_sparse_divergence(hs, ws, token_ids, logprobs, **tiles),
    ):
        with Recorder() as recorder:
            (loss() * torch.arange(tokens)).sum().backward()
        assert recorder.largest == 16 * words  # one tile
    with Recorder() as recorder:
        eager(hs, ws, ht, wt).sum().backward()
    assert recorder.largest == tokens * words  # the recorder would have seen it


# ---------------------------------------------------------------- other libraries


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 1.0])
def test_parity_with_trl(beta):
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

    hs, ws, ht, wt = heads()
    biases = draw(V, seed=4).requires_grad_(), draw(V, seed=5)
    trl, _ = ChunkedDivergenceFunction.apply(
        *(hs, ws, biases[0], ht, wt, biases[1], beta, 2.0, 1.3, 5.0, 0.6, None)
    )
    ours = fused.linear_divergence(
        *(hs, ws, ht, wt),
        **dict(kind="jsd", beta=beta, temperature=2.0),
        **dict(student_bias=biases[0], student_scale=1.3, student_softcap=5.0),
        **dict(teacher_bias=biases[1], teacher_scale=0.6),
        **UNEVEN,
    )
    for factors in (None, torch.rand(N)):
        same(ours, trl, (hs, ws, biases[0]), factors)


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 1.0])
def test_parity_with_liger(beta):
    chunked_loss = pytest.importorskip("liger_kernel.chunked_loss")
    hs, ws, ht, wt = heads()
    kept = torch.ones(N, dtype=torch.long)
    kept[::3] = -100
    jsd = chunked_loss.LigerFusedLinearJSDLoss(
        weight_hard_loss=0.0,
        weight_soft_loss=1.0,
        beta=beta,
        temperature=2.0,
        compiled=False,
        chunk_size=5,
    )
    mask = kept != -100
    ours = fused.linear_divergence(
        *(hs[mask], ws, ht[mask], wt), kind="jsd", beta=beta, temperature=2.0
    )
    liger = jsd(hs, ws, ht, wt, kept)
    torch.testing.assert_close(ours.mean(), liger, rtol=1e-5, atol=1e-5)
    for got, theirs in zip(
        torch.autograd.grad(ours.mean(), (hs, ws)),
        torch.autograd.grad(liger, (hs, ws)),
        strict=True,
    ):
        torch.testing.assert_close(got, theirs, rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------- planted bugs

# What is damaged: how the text changes: the test that must notice.
PLANTED = {
    "forward KL turned round": (
        "return p * log_ratio, -p",
        "return -q * log_ratio, -q * log_ratio",
        test_bug_01_direction_and_mixture,
    ),
    "beta swapped in the mixture": (
        "log_over_mixture(log_ratio, beta)",
        "log_over_mixture(log_ratio, 1 - beta)",
        test_bug_01_direction_and_mixture,
    ),
    "beta swapped in the weights": (
        "pull = (1 - beta) * q",
        "pull = beta * q",
        test_bug_01_direction_and_mixture,
    ),
    "skew swapped": (
        "log_over_mixture(-log_ratio, skew)",
        "log_over_mixture(-log_ratio, 1 - skew)",
        test_bug_01_direction_and_mixture,
    ),
    "JSD vanishes at its end points": (
        'if kind == "jsd" and beta in (0, 1):',
        "if False:",
        test_bug_02_jsd_does_not_vanish_at_its_end_points,
    ),
    "JSD end points swapped": (
        '"reverse_kl" if beta else "forward_kl"',
        '"forward_kl" if beta else "reverse_kl"',
        test_bug_02_jsd_does_not_vanish_at_its_end_points,
    ),
    "T squared in the gradient": (
        "slope = student.scale / student.temperature",
        "slope = student.scale * student.temperature",
        test_bug_03_temperature_stands_in_the_softmax_and_nowhere_else,
    ),
    "T missing": (
        "scale = self.scale / (self.softcap or self.temperature)",
        "scale = self.scale / (self.softcap or 1.0)",
        test_bug_03_temperature_stands_in_the_softmax_and_nowhere_else,
    ),
    "half precision kept": (
        "return torch.promote_types(self.dtype, torch.float32)",
        "return self.dtype",
        test_bug_08_half_precision_is_computed_in_float32,
    ),
    "log of the mixture": (
        "log_p_m = log_over_mixture(log_ratio, beta)",
        "log_p_m = log_p - (beta * log_p.exp() + (1 - beta) * q).log()",
        test_bug_09_wild_logits_stay_finite,
    ),
    "softmax without its maximum": (
        "top.maximum(z[:, block].amax(-1, keepdim=True))",
        "torch.zeros_like(top)",
        test_bug_09_wild_logits_stay_finite,
    ),
    "the bet is never lost": (
        "if gradients is None or not (frozen or equal):",
        "if gradients is None:",
        test_bug_15_tokens_of_unequal_weight,
    ),
    "factors of another tile": (
        "gradient *= factors[rows, None]",
        "gradient *= factors[: len(gradient), None]",
        test_bug_15_tokens_of_unequal_weight,
    ),
    "every token at once": (
        "tokens = max(tokens, 1)",
        "tokens = max(len(hidden), 1)",
        test_bug_20_no_tensor_of_tokens_times_vocabulary,
    ),
}


@pytest.mark.parametrize("test", dict.fromkeys(test for *_, test in PLANTED.values()))
def test_a_copy_without_a_bug_passes(test):
    test(damage(fused))


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_noticed(bug):
    old, new, test = PLANTED[bug]
    assert notices(test, damage(fused, old, new))
