"""Stage 1: batches change nothing, sampling is repeatable, a killed run loses
nothing."""

import json

import pytest
import torch

from helpers import data, generate, world
from helpers.data import DataError
from helpers.models import ChatModel

PROMPTS = [list(e.messages) for e in world.examples("train", 15)]


@pytest.fixture
def model(small_model, tokenizer):
    return ChatModel(small_model, tokenizer)


@pytest.fixture
def rows():
    examples = world.examples("train", 30)
    return [
        {"id": e.id, "task": e.task, "messages": list(e.messages)} for e in examples
    ]


def say(model, prompts=PROMPTS, **settings):
    settings = {"max_new_tokens": 12, **settings}
    return generate.answer(model.model, model.tokenizer, prompts, **settings)


def test_batches_give_the_same_greedy_text_as_one_prompt_at_a_time(teacher):
    prompts = PROMPTS[:8]
    together = say(teacher, prompts, max_new_tokens=40)
    alone = [say(teacher, [p], max_new_tokens=40)[0] for p in prompts]
    assert together == alone


def test_greedy_equals_a_plain_loop_over_argmax(teacher):
    prompt = PROMPTS[1]
    text = data.render_prompt(teacher.tokenizer, prompt)
    ids = teacher.tokenizer(text, return_tensors="pt")["input_ids"]
    start = ids.shape[1]
    while ids[0, -1] != teacher.tokenizer.eos_token_id and ids.shape[1] < start + 40:
        best = teacher.model(ids).logits[:, -1].argmax(-1, keepdim=True)
        ids = torch.cat([ids, best], dim=1)
    plain = teacher.tokenizer.decode(ids[0, start:], skip_special_tokens=True)
    assert say(teacher, [prompt], max_new_tokens=40) == [plain.strip()]


def test_a_sample_depends_on_seed_and_prompt_not_on_the_batch(model):
    settings = dict(sampling_temperature=1.0, seed=5)
    alone = [say(model, [p], **settings)[0] for p in PROMPTS]
    assert say(model, **settings) == alone
    assert say(model, PROMPTS[::-1], batch_size=4, **settings) == alone[::-1]
    assert say(model, sampling_temperature=1.0, seed=6) != alone


def test_samples_follow_the_softmax():
    scores = torch.randn(20, generator=torch.Generator().manual_seed(0)) * 2
    expected = (scores / 1.5).softmax(-1)
    sampler = generate._Sampler(range(4000), temperature=1.5, top_p=1.0)
    drawn = sampler(None, scores.expand(4000, -1)).argmax(-1)
    observed = torch.bincount(drawn, minlength=len(scores)) / 4000
    assert 0.5 * (observed - expected).abs().sum() < 0.05
    assert 0.5 * (observed - scores.softmax(-1)).abs().sum() > 0.05, "no temperature"


def test_a_small_nucleus_is_greedy(model):
    assert say(model, sampling_temperature=1.0, top_p=1e-6) == say(model)


def test_bug_18_the_models_own_generation_defaults_do_not_leak(model):
    before = say(model)
    leaking = dict(do_sample=True, temperature=5.0, top_k=3, repetition_penalty=9.0)
    model.model.generation_config.update(**leaking, max_new_tokens=1)
    assert say(model) == before


def test_generation_leaves_the_mode_as_it_was(model):
    model.model.train()
    say(model, PROMPTS[:1])
    assert model.model.training


def test_an_interrupted_generation_leaves_the_model_as_it_was(model, monkeypatch):
    def interrupted(**_):
        raise KeyboardInterrupt

    model.model.train()
    own_defaults = model.model.generation_config
    monkeypatch.setattr(model.model, "generate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        say(model, PROMPTS[:1])
    assert model.model.training and model.model.generation_config is own_defaults


@pytest.mark.parametrize("bad", [dict(sampling_temperature=-1), dict(top_p=0)])
def test_bad_sampling_settings_are_refused(model, bad):
    with pytest.raises(ValueError, match="must be"):
        say(model, **bad)


# ---------------------------------------------------------------- files


def run(model, rows, path):
    return generate.generate_answers(
        model, rows, path, max_new_tokens=6, batch_size=4, progress=False
    )


def test_answers_are_on_disk_in_the_order_of_the_prompts(model, rows, tmp_path):
    answered = run(model, rows, tmp_path / "a.jsonl")
    assert [r["id"] for r in answered] == [r["id"] for r in rows]
    assert data.read_chat(tmp_path / "a.jsonl") == answered
    assert [r["messages"][:-1] for r in answered] == [r["messages"] for r in rows]
    assert [r["task"] for r in answered] == [r["task"] for r in rows]


@pytest.mark.parametrize("keep", [0, 1, 2, 150, 1000])
def test_a_killed_run_resumes_to_the_same_file(model, rows, tmp_path, keep):
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    answered = run(model, rows, whole)
    killed.write_bytes(whole.read_bytes()[:-keep] if keep else b"")
    assert run(model, rows, killed) == answered
    assert killed.read_bytes() == whole.read_bytes()


def test_finished_prompts_are_not_asked_again(model, rows, tmp_path, monkeypatch):
    run(model, rows[:10], tmp_path / "a.jsonl")
    asked = []
    original = generate.answer

    def spy(model, tokenizer, prompts, **settings):
        asked.extend(prompts)
        return original(model, tokenizer, prompts, **settings)

    monkeypatch.setattr(generate, "answer", spy)
    run(model, rows, tmp_path / "a.jsonl")
    assert asked == [row["messages"] for row in rows[10:]]


def test_more_prompts_or_fewer_use_what_is_there(model, rows, tmp_path):
    path = tmp_path / "a.jsonl"
    whole = run(model, rows, path)
    assert run(model, rows[5:8], path) == whole[5:8]
    assert len(data.read_chat(path)) == len(rows)


def test_answers_to_other_prompts_are_not_mixed_in(model, rows, tmp_path):
    run(model, rows[:4], tmp_path / "a.jsonl")
    changed = [{**r, "messages": [{"role": "user", "content": "Hi"}]} for r in rows[:4]]
    with pytest.raises(DataError, match="another prompt under id"):
        run(model, changed, tmp_path / "a.jsonl")


def test_a_corrupt_line_in_the_middle_is_named(model, rows, tmp_path):
    path = tmp_path / "a.jsonl"
    run(model, rows[:4], path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:20], *lines[2:]]) + "\n")
    with pytest.raises(DataError, match="line 2"):
        run(model, rows[:4], path)


def test_two_prompts_with_one_id_are_refused(model, rows, tmp_path):
    with pytest.raises(DataError, match="share an id"):
        run(model, [rows[0], rows[0]], tmp_path / "a.jsonl")


def test_rows_are_plain_json(model, rows, tmp_path):
    run(model, rows[:2], tmp_path / "a.jsonl")
    for line in (tmp_path / "a.jsonl").read_text().splitlines():
        assert set(json.loads(line)) == {"id", "task", "messages"}
