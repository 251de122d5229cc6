"""Stage 1: batches change nothing, sampling is repeatable, a killed run loses
nothing."""

import json

import pytest
import torch

from helpers import data, generate, world
from helpers.data import DataError
from helpers.generate import Budget, BudgetSpent, Prices, Reply, Usage
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


@pytest.mark.slow
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
    monkeypatch.setattr(model.model, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        say(model, PROMPTS[:1])
    assert model.model.training


def test_too_large_a_batch_is_halved_until_it_fits(model, monkeypatch):
    expected, forward, refused = say(model), model.model.forward, []

    def small(**batch):
        if len(batch["input_ids"]) > 3:
            refused.append(len(batch["input_ids"]))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(**batch)

    monkeypatch.setattr(model.model, "forward", small)
    assert say(model, batch_size=12) == expected
    assert refused == [12, 6]


def test_one_row_that_does_not_fit_is_an_error(model, monkeypatch):
    def never(**_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(model.model, "forward", never)
    with pytest.raises(torch.OutOfMemoryError):
        say(model)


def test_a_prompt_longer_than_the_model_is_refused(model):
    model.model.config.max_position_embeddings = 60
    long = [{"role": "user", "content": "Where is my order? " * 20}]
    with pytest.raises(DataError, match="prompt 2: .* exceed the model's 60 positions"):
        say(model, [PROMPTS[0], long])


@pytest.mark.parametrize("bad", [dict(sampling_temperature=-1), dict(top_p=0)])
def test_bad_sampling_settings_are_refused(model, bad):
    with pytest.raises(ValueError, match="must be"):
        say(model, **bad)


# ---------------------------------------------------------------- files


def run(model, rows, path):
    return generate.generate_answers(
        model, rows, path, max_new_tokens=6, batch_size=4, progress=False
    )


def test_answers_are_returned_in_the_order_of_the_prompts(model, rows, tmp_path):
    answered = run(model, rows, tmp_path / "a.jsonl")
    assert [r["id"] for r in answered] == [r["id"] for r in rows]
    on_disk = {r["id"]: r for r in data.read_chat(tmp_path / "a.jsonl")}
    assert [on_disk[r["id"]] for r in rows] == answered
    assert len(on_disk) == len(rows)
    assert [r["messages"][:-1] for r in answered] == [r["messages"] for r in rows]
    assert [r["task"] for r in answered] == [r["task"] for r in rows]


@pytest.mark.parametrize("keep", [0, 1, 2, 150, 1000])
def test_a_killed_run_resumes_to_the_same_answers(model, rows, tmp_path, keep):
    path = tmp_path / "a.jsonl"
    answered = run(model, rows, path)
    path.write_bytes(path.read_bytes()[:-keep] if keep else b"")
    assert run(model, rows, path) == answered
    assert len(data.read_chat(path)) == len(rows)


def test_finished_prompts_are_not_asked_again(rows, tmp_path):
    def ask(rows):
        teacher = Scripted(lambda _: FINE)
        generate.generate_answers(teacher, rows, tmp_path / "a.jsonl", progress=False)
        return teacher.asked

    ask(rows[:10])
    assert ask(rows) == [row["messages"][-1]["content"] for row in rows[10:]]


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


def test_rows_are_plain_json_with_what_an_answer_cost(model, rows, tmp_path):
    run(model, rows[:2], tmp_path / "a.jsonl")
    for line in (tmp_path / "a.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert list(row) == ["id", "task", "messages", "usage", "finish_reason"]
        assert row["finish_reason"] == "length"
        prompt = data.render_prompt(model.tokenizer, row["messages"][:-1])
        size = len(model.tokenizer(prompt, add_special_tokens=False)["input_ids"])
        assert row["usage"] == {"prompt_tokens": size, "completion_tokens": 6}


def test_a_whole_answer_stops_and_a_cut_one_does_not(teacher, rows, tmp_path):
    for limit, reason in ((3, "length"), (64, "stop")):
        path = tmp_path / f"{limit}.jsonl"
        settings = {"max_new_tokens": limit, "progress": False}
        (row,) = generate.generate_answers(teacher, rows[:1], path, **settings)
        assert row["finish_reason"] == reason
    said = teacher.tokenizer(row["messages"][-1]["content"], add_special_tokens=False)
    assert row["usage"]["completion_tokens"] == len(said["input_ids"]) + 1  # its end


# ---------------------------------------------------------------- the manifest


def test_the_manifest_says_who_wrote_with_which_settings(model, rows, tmp_path):
    run(model, rows[:2], tmp_path / "a.jsonl")
    manifest = json.loads((tmp_path / "a.manifest.json").read_text())
    assert manifest["sampling"]["sampling_temperature"] == 0
    assert manifest["teacher"]["weights"] and manifest["teacher"]["template"]
    assert manifest["seed"] == 0


@pytest.mark.parametrize(
    "change",
    [dict(seed=1), dict(max_new_tokens=7), dict(sampling_temperature=0.5)],
    ids=str,
)
def test_other_settings_do_not_go_into_one_file(model, rows, tmp_path, change):
    settings = {"max_new_tokens": 6, "progress": False}
    path = tmp_path / "a.jsonl"
    generate.generate_answers(model, rows[:2], path, **settings)
    (name,) = change
    with pytest.raises(DataError, match=f"{name} was .* and is now {change[name]}"):
        generate.generate_answers(model, rows, path, **(settings | change))


def test_another_teacher_does_not_go_into_one_file(model, rows, tmp_path):
    run(model, rows[:2], tmp_path / "a.jsonl")
    with torch.no_grad():
        model.model.lm_head.weight[5] += 1
    with pytest.raises(DataError, match="weights was"):
        run(model, rows, tmp_path / "a.jsonl")


def test_answers_without_a_manifest_are_not_continued(model, rows, tmp_path):
    run(model, rows[:2], tmp_path / "a.jsonl")
    (tmp_path / "a.manifest.json").unlink()
    with pytest.raises(DataError, match="nobody knows which teacher"):
        run(model, rows, tmp_path / "a.jsonl")


# ---------------------------------------------------------------- several samples


def sampled(model, rows, path, samples, **settings):
    settings = {"max_new_tokens": 6, "sampling_temperature": 1.0} | settings
    return generate.generate_answers(
        model, rows, path, samples=samples, progress=False, **settings
    )


def test_several_samples_share_an_id_and_differ(model, rows, tmp_path):
    drawn = sampled(model, rows[:5], tmp_path / "a.jsonl", 4)
    assert [(r["id"], r["sample"]) for r in drawn] == [
        (r["id"], k) for r in rows[:5] for k in range(4)
    ]
    assert len({r["messages"][-1]["content"] for r in drawn[:4]}) == 4


def test_more_samples_go_on_from_the_first(model, rows, tmp_path):
    whole = sampled(model, rows[:5], tmp_path / "whole.jsonl", 4)
    sampled(model, rows[:5], tmp_path / "a.jsonl", 2)
    assert sampled(model, rows[:5], tmp_path / "a.jsonl", 4) == whole


def test_one_sample_is_the_first_of_several(model, rows, tmp_path):
    (one,) = sampled(model, rows[:1], tmp_path / "one.jsonl", 1)
    first = sampled(model, rows[:1], tmp_path / "a.jsonl", 3)[0]
    assert first == {**one, "sample": 0}


def test_several_greedy_samples_are_refused(model, rows, tmp_path):
    with pytest.raises(ValueError, match="greedy text is always the same"):
        sampled(model, rows, tmp_path / "a.jsonl", 2, sampling_temperature=0.0)


# ---------------------------------------------------------------- failures


class Scripted:
    """A teacher that says what `say(request)` returns, and counts what it is asked."""

    def __init__(self, say):
        self.say, self.asked = say, []

    def describe(self):
        return {"model": "scripted"}

    def replies(self, requests, sampling):
        for place, request in enumerate(requests):
            self.asked.append(request.messages[-1]["content"])
            yield place, self.say(request)


def three(i):
    return {"id": i, "messages": [{"role": "user", "content": f"prompt {i}"}]}


THREE = [three(i) for i in range(3)]
FINE = Reply("yes", "stop", 6, 5)


def test_failures_are_kept_with_their_reason_and_retried_on_demand(tmp_path):
    path = tmp_path / "a.jsonl"

    def no(request):
        return (
            Reply.failed("refused") if "1" in request.messages[0]["content"] else FINE
        )

    def ask(say, **settings):
        teacher = Scripted(say)
        settings = {"progress": False, **settings}
        rows = generate.generate_answers(teacher, THREE, path, **settings)
        return [row["id"] for row in rows], teacher.asked

    with pytest.warns(UserWarning, match="1 of 3 answers are missing.*retry_failed"):
        assert ask(no) == ([0, 2], ["prompt 0", "prompt 1", "prompt 2"])
    (failed,) = data.read_chat(tmp_path / "a.failed.jsonl")
    assert failed["error"] == "refused" and failed["messages"] == THREE[1]["messages"]
    with pytest.warns(UserWarning, match="1 of 3"):
        assert ask(no) == ([0, 2], [])
    assert ask(lambda _: FINE, retry_failed=True) == ([0, 1, 2], ["prompt 1"])
    assert ask(no) == ([0, 1, 2], [])  # a failure of the past hides nothing


def test_a_teacher_is_told_to_stop_when_the_file_cannot_be_written(tmp_path):
    class Costly(Scripted):
        stopped = False

        def replies(self, requests, sampling):
            try:
                yield from super().replies(requests, sampling)
            finally:
                self.stopped = True

    path, teacher = tmp_path / "a.jsonl", Costly(lambda _: FINE)
    bad = [*THREE[:1], {**THREE[1], "note": object()}, THREE[2]]  # no JSON
    with pytest.raises(DataError, match="cannot be written as JSON") as caught:
        generate.generate_answers(teacher, bad, path, progress=False)
    assert teacher.stopped and caught.traceback  # the traceback holds the frames alive
    assert [row["id"] for row in data.read_chat(path)] == [0]


def test_an_answer_that_is_no_unicode_is_kept_readable(tmp_path):
    teacher = Scripted(lambda _: Reply("half a pair: \ud83d"))
    settings = {"progress": False}
    rows = generate.generate_answers(teacher, THREE, tmp_path / "a.jsonl", **settings)
    assert rows[0]["messages"][-1]["content"] == "half a pair: ?"
    assert len(data.read_chat(tmp_path / "a.jsonl")) == 3


def test_a_prompt_that_the_template_refuses_fails_alone(
    model, rows, tmp_path, monkeypatch
):
    refuses = "{% if 'camera' in messages[-1].content %}{{ raise_exception('no') }}"
    template = refuses + "{% endif %}" + model.tokenizer.chat_template
    monkeypatch.setattr(model.tokenizer, "chat_template", template)
    rows = [*rows[:2], {"id": 9, "messages": [{"role": "user", "content": "camera"}]}]
    with pytest.warns(UserWarning, match="1 of 3"):
        run(model, rows, tmp_path / "a.jsonl")


def test_a_tokenizer_without_a_template_is_refused_at_once(
    model, rows, tmp_path, monkeypatch
):
    monkeypatch.setattr(model.tokenizer, "chat_template", None)
    with pytest.raises(DataError, match="no chat template"):
        run(model, rows, tmp_path / "a.jsonl")


def test_a_prompt_too_long_for_the_teacher_fails_alone(model, rows, tmp_path):
    model.model.config.max_position_embeddings = 100
    rows[1]["messages"] = [{"role": "user", "content": "Where is my order? " * 50}]
    with pytest.warns(UserWarning, match="1 of 4"):
        answered = run(model, rows[:4], tmp_path / "a.jsonl")
    assert [r["id"] for r in answered] == [rows[i]["id"] for i in (0, 2, 3)]
    (failed,) = data.read_chat(tmp_path / "a.failed.jsonl")
    assert "exceed the model's 100 positions" in failed["error"]


# ---------------------------------------------------------------- budgets

MANY = [three(i) for i in range(100)]


def spend(path, budget, teacher=None, prompts=MANY):
    teacher = teacher or Scripted(lambda _: FINE)
    settings = {"max_new_tokens": 5, "budget": budget, "progress": False}
    return generate.generate_answers(teacher, prompts, path, **settings)


def test_a_budget_in_tokens_ends_the_run_and_a_larger_one_goes_on(tmp_path):
    path = tmp_path / "a.jsonl"
    with pytest.raises(BudgetSpent, match="27 of 100 answers are in"):
        spend(path, Budget(tokens=300))
    assert sum(generate.usage_of(data.read_chat(path))) == 297  # 11 an answer
    with pytest.raises(BudgetSpent):  # what was spent before counts
        spend(path, Budget(tokens=300))
    assert len(data.read_chat(path)) == 27
    assert len(spend(path, Budget(tokens=1110))) == 100


def test_a_budget_in_money_counts_both_prices(tmp_path):
    prices = Prices(prompt=1.0, completion=4.0)
    assert prices.cost(Usage(1_000_000, 500_000)) == 3.0
    each = prices.cost(Usage(6, 5))
    with pytest.raises(BudgetSpent, match="in money"):
        spend(tmp_path / "a.jsonl", Budget(money=20.9 * each, prices=prices))
    assert len(data.read_chat(tmp_path / "a.jsonl")) == 20


def test_failed_prompts_cost_too(tmp_path):
    teacher = Scripted(lambda _: Reply.failed("no", prompt_tokens=10))
    with pytest.raises(BudgetSpent, match="0 of 100"):
        spend(tmp_path / "a.jsonl", Budget(tokens=105), teacher)
    assert len(teacher.asked) == 10


def test_a_teacher_that_takes_many_prompts_at_once_stays_in_the_budget(tmp_path):
    class Hasty(Scripted):  # takes all it can get before it answers
        def replies(self, requests, sampling):
            for place, request in list(enumerate(requests)):
                self.asked.append(request)
                yield place, FINE

    teacher = Hasty(None)
    with pytest.raises(BudgetSpent):
        spend(tmp_path / "a.jsonl", Budget(tokens=300), teacher)
    assert len(teacher.asked) == 27


def test_a_budget_that_suffices_is_silent(tmp_path):
    assert len(spend(tmp_path / "a.jsonl", Budget(tokens=10_000))) == 100


def test_money_without_prices_is_refused():
    with pytest.raises(ValueError, match="needs prices"):
        Budget(money=1.0)
