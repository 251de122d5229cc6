"""The helpdesk world: deterministic, disjoint, large, and strict about wrong
answers."""

from collections import Counter
from itertools import combinations

import pytest

from helpers import world
from helpers.world import (
    NAMES,
    OTHER_SHOPS,
    OUR_SHOP,
    SHIFTED_NAMES,
    SPLITS,
    TASKS,
    Example,
    examples,
    verify,
)


def first(task: str, where=lambda e: True, split: str = "test") -> Example:
    """The first example of a task that meets a condition."""
    return next(e for e in examples(split, 500, tasks=[task]) if where(e))


# ---------------------------------------------------------------- generation


def test_examples_are_deterministic_and_a_longer_list_begins_with_the_shorter():
    assert examples("train", 40, seed=3) == examples("train", 40, seed=3)
    assert examples("train", 100, seed=3)[:40] == examples("train", 40, seed=3)
    assert examples("train", 40, seed=3) != examples("train", 40, seed=4)


def test_all_five_tasks_are_there_in_equal_numbers():
    counts = Counter(e.task for e in examples("train", 100))
    assert counts == dict.fromkeys(TASKS, 20)


@pytest.mark.parametrize("split", SPLITS)
def test_every_gold_answer_is_right(split):
    assert all(verify(e, e.answer) for e in examples(split, 1000, seed=1))


def test_gold_answers_of_the_other_shops_are_right_too():
    for shop in OTHER_SHOPS:
        assert all(verify(e, e.answer) for e in examples("train", 500, shop=shop))


@pytest.mark.slow
def test_splits_share_no_prompt():
    prompts = {s: {e.prompt for e in examples(s, 3000, seed=2)} for s in SPLITS}
    for one, other in combinations(SPLITS, 2):
        assert not prompts[one] & prompts[other]
    assert all(len(p) == 3000 for p in prompts.values()), "a split repeats a prompt"


def test_there_are_more_than_a_million_prompts():
    """The chance that two independent draws are equal is at least 1 / (number of
    prompts), so its inverse, estimated from repeated draws, bounds the number from
    below."""
    prompts: Counter = Counter()
    for seed in range(10):
        prompts.update(e.prompt for e in examples("train", 1000, seed, tasks=["qa"]))
    pairs = 10 * 9 / 2 * 1000 * 1000  # draws of one seed are distinct by construction
    equal = sum(n * (n - 1) / 2 for n in prompts.values())
    assert pairs / max(equal, 1) > 1_000_000


def test_shifted_shows_names_wordings_and_combinations_that_training_never_does():
    train = " ".join(e.prompt for e in examples("train", 3000))
    shifted = examples("shifted", 500)
    assert not any(name in train for name in SHIFTED_NAMES)
    assert not any(name in e.prompt.split() for e in shifted for name in NAMES)
    for book in world.PHRASES.values():
        assert not set(book.get("shifted", ())) & set(book["ours"]) - {""}
    combos = {
        split: {
            tuple(sorted(f for f in e.required | e.allowed if f[0] in kinds))
            for e in examples(split, 3000, tasks=["conversation"])
        }
        for split, kinds in [
            ("train", ("product", "problem")),
            ("shifted", ("product", "problem")),
        ]
    }
    assert not combos["train"] & combos["shifted"]


def test_conversations_have_two_to_four_turns_and_depend_on_the_customer():
    turns = Counter(
        sum(m["role"] == "user" for m in e.messages)
        for e in examples("train", 1000, tasks=["conversation"])
    )
    assert set(turns) <= {1, 2, 3, 4} and min(turns[2], turns[3], turns[4]) > 100
    solved = first("conversation", lambda e: ("result", "solved") in e.required)
    stuck = first("conversation", lambda e: any(k == "outcome" for k, _ in e.required))
    assert not verify(solved, "Please press the reset button.")
    assert not verify(stuck, "Great, I am glad it works.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(split="dev", n=1), "choose one of train"),
        (dict(split="train", n=1, tasks=["poetry"]), "choose from nli"),
        (dict(split="train", n=1, label_noise=30), "between 0 and 1"),
    ],
)
def test_bad_arguments_say_what_to_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        examples(**arguments)


# ---------------------------------------------------------------- label noise


def test_label_noise_marks_the_rows_it_changed_and_only_those():
    clean, noisy = examples("train", 1000), examples("train", 1000, label_noise=0.3)
    assert [e.prompt for e in clean] == [e.prompt for e in noisy]
    for before, after in zip(clean, noisy, strict=True):
        assert after.noisy == (before.answer != after.answer)
        assert after.noisy != verify(after, after.answer)
    assert 0.25 < sum(e.noisy for e in noisy) / 1000 < 0.35


# ---------------------------------------------------------------- the verifier


def test_other_right_wordings_are_accepted():
    who = first("qa", lambda e: any(k == "person" for k, _ in e.required))
    (_, name), *_ = who.required
    for wording in (
        f"{name}.",
        f"I think it was {name}",
        f"That order is from {name}!",
    ):
        assert verify(who, wording)
    step = first("conversation", lambda e: ("step", "plug") in e.required or
                 ("step", "fuse") in e.required)  # fmt: skip
    noun = next(v for k, v in step.required)
    verb = {"plug": "look at the plug", "fuse": "change the fuse"}[noun]
    assert verify(step, f"Would you kindly {verb} for me?")


def test_fluent_wrong_answers_are_rejected():
    who = first("qa", lambda e: any(k == "person" for k, _ in e.required))
    (_, name), *_ = who.required
    other = next(n for n in NAMES if n != name)
    assert not verify(who, f"It was {other}."), "wrong person"
    assert not verify(who, f"It was {name} or {other}."), "two persons"
    assert not verify(who, f"It was not {name}."), "negated"
    assert not verify(who, f"It was {name}, or rather Zacharias."), "an invented person"
    label = first("nli", lambda e: ("label", "neutral") in e.required)
    assert not verify(label, "This is neutral or entailment.")
    window = first("qa", lambda e: "return" in e.messages[-1]["content"] and
                   any(k == "number" for k, _ in e.required))  # fmt: skip
    (_, days), *_ = window.required
    assert verify(window, f"For {days} days.")
    assert not verify(window, f"For {int(days) + 1} days."), "wrong policy"


def test_arithmetic_needs_its_steps_and_every_step_must_be_true():
    example = first("math", lambda e: " x " in e.answer and " + " in e.answer)
    total = next(v for k, v in example.required if k == "last number")
    assert verify(example, example.answer)
    assert not verify(example, f"Total: {total} euros."), "steps are missing"
    wrong = example.answer.replace(f"= {total}", f"= {int(total) + 1}")
    assert not verify(example, wrong), "a false equation with the right total"
    assert not verify(example, example.answer + " Shipping is free."), "wrong policy"


def test_summaries_need_every_part():
    example = first("summary", lambda e: any(k == "outcome" for k, _ in e.required))
    assert verify(example, example.answer)
    whole = example.answer
    assert not verify(example, whole.split(".")[0] + "."), (
        "step and outcome are missing"
    )
    name = next(v for k, v in example.required if k == "person")
    assert not verify(example, whole.replace(name, "The customer")), "who?"
    assert not verify(example, whole.replace("did not help", "helped"))


def test_a_step_needs_its_verb():
    example = first("conversation", lambda e: ("step", "reset") in e.required)
    assert verify(example, "Please press the reset button.")
    assert not verify(example, "Please cover the reset button.")
    assert not verify(example, "Please do not press the reset button.")
    assert not verify(example, "Please press the reset button and check the plug.")


def test_rambling_and_repetition_are_rejected():
    example = first("qa")
    assert not verify(example, example.answer + " and so on" * 20)
    assert not verify(example, " ".join([example.answer] * 3))
    assert not verify(example, "")


def test_every_fact_of_our_shop_matters():
    """Change any price, window, step or outcome and some gold answer becomes wrong."""
    asked = {fact for e in examples("train", 4000) for fact in e.required}
    assert {("number", str(w)) for w in OUR_SHOP.windows.values()} <= asked
    assert {("step", s) for steps in OUR_SHOP.steps.values() for s in steps} <= asked
    assert {("outcome", o) for o in OUR_SHOP.outcomes.values()} <= asked
