"""The decoding loop: whatever comes and goes, each prompt gets its own answer."""

import pytest
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from helpers.generate import decode
from helpers.generate import decoding as engine
from helpers.generate.decoding import Decoded, Draw, Greedy

VOCAB, STOP = 50, {3}
SIZES = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    pad_token_id=0,
    eos_token_id=3,
)


def gpt2():
    sizes = dict(n_embd=32, n_layer=2, n_head=2, n_positions=64)
    ends = dict(bos_token_id=3, eos_token_id=3)
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, **sizes, **ends))


def gemma3():  # every second layer sees the last four tokens only
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    sliding = dict(sliding_window=4, layer_types=kinds)
    return Gemma3ForCausalLM(Gemma3TextConfig(**SIZES, **sliding))


def qwen3():
    return Qwen3ForCausalLM(Qwen3Config(**SIZES))


def built(family):
    torch.manual_seed(0)
    model = family().eval()
    for parameter in model.parameters():  # random weights of the usual size repeat
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture
def model():
    return built(qwen3)


@pytest.fixture
def prompts():
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(2, 20, (24,), generator=generator).tolist()
    return [torch.randint(4, VOCAB, (n,), generator=generator).tolist()
            for n in lengths]  # fmt: skip


def greedy(model, prompts, **settings):
    return said(model, prompts, Greedy(), **{"stop": STOP, **settings})


def said(model, prompts, choose, **settings):
    settings = {"max_new_tokens": 16, **settings}
    answers = dict(decode(model, prompts, choose, **settings))
    assert sorted(answers) == list(range(len(prompts)))
    return [answers[i] for i in range(len(prompts))]


@torch.inference_mode()
def by_hand(model, prompt, stop=STOP, limit=16):
    """The whole text read again for every token: no cache, no padding, no batch."""
    tokens = []
    while len(tokens) < limit:
        logits = model(torch.tensor([[*prompt, *tokens]])).logits[0, -1]
        if (token := logits.argmax().item()) in stop:
            return Decoded(tokens, True)
        tokens.append(token)
    return Decoded(tokens, False)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 5, 64])
@pytest.mark.parametrize("family", [gpt2, gemma3, qwen3])
def test_a_batch_says_what_each_prompt_alone_would_get(family, prompts, batch_size):
    model = built(family)
    free = [by_hand(model, prompt, ()).tokens for prompt in prompts]

    def lengths(token):
        return {tokens.index(token) for tokens in free if token in tokens}

    stop = {max(range(VOCAB), key=lambda token: len(lengths(token)))}
    expected = [by_hand(model, prompt, stop) for prompt in prompts]
    assert len({len(tokens) for tokens, _ in expected}) > 4, "all end together"
    assert greedy(model, prompts, stop=stop, batch_size=batch_size) == expected


@pytest.mark.parametrize("leave", [0.01, 0.5, 1.0])
def test_when_finished_rows_leave_does_not_matter(model, prompts, leave, monkeypatch):
    stop = set(range(3, 12))
    before = greedy(model, prompts, stop=stop)
    monkeypatch.setattr(engine, "LEAVE", leave)
    assert greedy(model, prompts, stop=stop, batch_size=6) == before


def rows_read(model, monkeypatch):
    sizes, forward = [], model.forward

    def spy(*args, **kwargs):
        sizes.append(kwargs["input_ids"].shape[0])
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", spy)
    return sizes


def test_finished_rows_leave_the_batch(model, prompts, monkeypatch):
    sizes = rows_read(model, monkeypatch)
    greedy(model, prompts, stop=set(range(3, 12)))
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < len(prompts)


def test_the_next_prompts_enter_where_rows_are_finished(model, prompts, monkeypatch):
    sizes = rows_read(model, monkeypatch)
    greedy(model, prompts, stop=set(range(3, 12)), batch_size=6)
    reads = [size for size in sizes if size < 6]
    assert sizes[0] == 6 and len(reads) > 5 and sizes.count(6) > 6


@pytest.mark.slow
def test_long_runs_find_room_again_and_again(model, prompts):
    many = prompts * 6  # far more columns than the buffers have
    assert greedy(model, many, stop={5, 6, 7}, batch_size=3) == (
        greedy(model, prompts, stop={5, 6, 7}) * 6
    )


def test_no_prompt_no_answer(model):
    assert greedy(model, []) == []


def test_a_prompt_asked_several_times_is_read_once(model, prompts, monkeypatch):
    expected = greedy(model, prompts[:3])
    sizes = rows_read(model, monkeypatch)
    copies = greedy(model, [p for p in prompts[:3] for _ in range(4)])
    assert copies == [answer for answer in expected for _ in range(4)]
    assert sizes[:2] == [3, 12]


def test_any_of_several_stop_tokens_ends_an_answer(model, prompts):
    free = greedy(model, prompts, stop=())
    third = {tokens[2] for tokens, _ in free[:2]}
    for (tokens, ended), (whole, _) in zip(
        greedy(model, prompts[:2], stop=third), free, strict=False
    ):
        assert ended and whole[: len(tokens)] == tokens and whole[len(tokens)] in third


def test_an_answer_at_the_limit_is_not_ended(model, prompts):
    tokens, ended = greedy(model, prompts[:1], stop=(), max_new_tokens=5)[0]
    assert len(tokens) == 5 and not ended


def test_columns_beyond_the_vocabulary_are_never_chosen(model, prompts):
    free = {token for tokens, _ in greedy(model, prompts) for token in tokens}
    few = {t for tokens, _ in greedy(model, prompts, vocab=20) for t in tokens}
    assert max(free) >= 20 > max(few)


# ---------------------------------------------------------------- chance


def drawn(scores, temperature=1.0, top_p=1.0, rows=20_000):
    choose = Draw(range(rows), 1, temperature, top_p)
    tokens = choose(scores.expand(rows, -1), torch.arange(rows), FIRST[:rows])
    return torch.bincount(tokens, minlength=len(scores)) / rows


FIRST = torch.zeros(20_000, dtype=torch.long)
SCORES = torch.randn(20, generator=torch.Generator().manual_seed(0)) * 2


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax_at_their_temperature(temperature):
    expected = (SCORES / temperature).softmax(-1)
    assert 0.5 * (drawn(SCORES, temperature) - expected).abs().sum() < 0.02
    other = (SCORES / (1.3 * temperature)).softmax(-1)
    assert 0.5 * (drawn(SCORES, temperature) - other).abs().sum() > 0.02


def test_the_nucleus_is_the_smallest_set_with_that_mass():
    probabilities, order = SCORES.softmax(-1).sort(descending=True)
    size = int((probabilities.cumsum(-1) < 0.8).sum()) + 1
    kept = torch.zeros(20).scatter(0, order[:size], probabilities[:size])
    shares = drawn(SCORES, top_p=0.8)
    assert set(shares.nonzero()[:, 0].tolist()) == set(order[:size].tolist())
    assert 0.5 * (shares - kept / kept.sum()).abs().sum() < 0.02


def test_a_token_without_probability_is_never_drawn():
    scores = torch.full((9,), -torch.inf)
    scores[[3, 5]] = 0.0  # impossible ones before, between and after
    choose = Draw(range(4), 1, 1.0)
    choose.uniform[:, 0] = torch.tensor([0.0, 0.5 - 1e-7, 0.5, 1 - 2e-7])
    tokens = choose(scores.expand(4, -1), torch.arange(4), FIRST[:4])
    assert tokens.tolist() == [3, 3, 5, 5]


@pytest.mark.parametrize("batch_size", [5, 64])
def test_a_rows_draw_depends_on_its_seed_alone(model, prompts, batch_size):
    def sample(rows, seeds):
        choose = Draw(seeds, 16, 1.0)
        settings = {"stop": set(range(3, 8)), "batch_size": batch_size}
        return said(model, [prompts[i] for i in rows], choose, **settings)

    together = sample(range(24), range(24))
    assert sample(range(23, -1, -1), range(23, -1, -1)) == together[::-1]
    assert [sample([i], [i])[0] for i in range(24)] == together
    assert sample(range(24), range(1, 25)) != together
    several = sample([0] * 6, range(6))
    assert several[0] == together[0] and len({tuple(s.tokens) for s in several}) > 3
