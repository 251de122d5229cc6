"""Rules and their funnel: nothing lost, every drop explained, leaks and false alarms.

Tests that take the fixture `quality` are also run against damaged copies of the wing,
each with one bug planted: the test meant for that bug must reject it.
"""

import itertools
import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaForCausalLM

import helpers.quality
from helpers import data, generate, world
from helpers.data import DataError, answer_of
from helpers.data.text import text_of, words
from helpers.models import ChatModel
from tests.benchmarks import quality as benchmark
from tests.damage import damaged, notices


@pytest.fixture
def quality():
    return helpers.quality


def chat(answer, prompt="What does a lamp cost?", **more):
    turns = [("system", "Helpdesk."), ("user", prompt), ("assistant", answer)]
    messages = [{"role": role, "content": content} for role, content in turns]
    return {"messages": messages, **more}


def chats(*answers, **more):
    return [chat(answer, id=str(i), **more) for i, answer in enumerate(answers)]


def answers(rows):
    return [row["messages"][-1]["content"] for row in rows]


# ---------------------------------------------------------------- the funnel


def test_a_rule_of_one_line_drops_rows_with_its_reason(quality):
    rows = chats("Yes.", "No.", "Yes!")

    def agrees(row):
        return "" if "Yes" in answer_of(row) else "it disagrees"

    found = quality.funnel(rows, {"agrees": agrees})
    assert found.kept == [rows[0], rows[2]]
    assert found.kept[0] is rows[0]
    assert found.dropped == [
        {**rows[1], "dropped_by": "agrees", "reason": "it disagrees"}
    ]
    assert "reason" not in rows[1]  # the learner's rows are left as they were


def test_each_rule_sees_what_the_last_one_left(quality):
    rows = chats("one two three four", "one two", "one two three", "one")
    rules = {"short": quality.length(2), "long": quality.length(1, 3)}
    found = quality.funnel(rows, rules)
    assert answers(found.kept) == ["one two", "one two three"]
    assert found.table.to_dict("records") == [
        {"rule": "short", "in": 4, "dropped": 1, "left": 3, "share": 0.25},
        {"rule": "long", "in": 3, "dropped": 1, "left": 2, "share": 1 / 3},
    ]
    assert [row["dropped_by"] for row in found.dropped] == ["long", "short"]
    assert found.dropped[0]["reason"] == "4 words, more than 3"


def test_the_table_by_task_counts_every_row_once(quality):
    rows = chats("a b", "a", task="qa") + chats("a b", task="math") + chats("a")
    found = quality.funnel(rows, {"short": quality.length(2)})
    assert found.by_task.to_dict("index") == {
        "qa": {"in": 2, "short": 1, "kept": 1, "share": 0.5},
        "math": {"in": 1, "short": 0, "kept": 1, "share": 1.0},
        "no task": {"in": 1, "short": 1, "kept": 0, "share": 0.0},
    }


def test_a_funnel_of_nothing_is_empty(quality):
    for rows, rules in (([], {}), ([], {"a": quality.balance()}), (chats("a"), {})):
        found = quality.funnel(rows, rules)
        assert found.kept == rows and found.dropped == []
        assert len(found.table) == len(rules)


def test_a_rule_that_raises_is_named_with_its_row_and_the_cause(quality):
    rows = chats("3", "x")
    with pytest.raises(quality.RuleError, match="'n' failed on row '1': ValueError:"):
        quality.funnel(rows, {"n": lambda row: str(int(answer_of(row)))[:0]})
    broken = quality.over_rows(lambda rows: 1 / 0)
    with pytest.raises(quality.RuleError, match="'r' failed: ZeroDivisionError"):
        quality.funnel(rows, {"r": broken})


@pytest.mark.parametrize("wrong", [True, None, 1.5, ["too long"]])
def test_a_rule_that_returns_another_type_is_told_the_convention(quality, wrong):
    message = r"'r' returned .* for row '0'; a rule returns \"\" to keep"
    for rule in (lambda row: wrong, quality.over_rows(lambda rows: [wrong])):
        with pytest.raises(quality.RuleError, match=message):
            quality.funnel(chats("a"), {"r": rule})


def test_a_rule_that_was_not_called_is_told_so(quality):
    with pytest.raises(quality.RuleError, match=r"call it first, as in length\(\)"):
        quality.funnel(chats("a"), {"refusal": lambda row: quality.length})


def test_a_rule_over_rows_must_answer_for_each_row(quality):
    rule = quality.over_rows(lambda rows: [""])
    with pytest.raises(quality.RuleError, match="'r' gave 1 reasons for 2 rows"):
        quality.funnel(chats("a", "b"), {"r": rule})


def test_a_row_without_an_answer_is_named(quality):
    row = {"id": "p7", "messages": chat("")["messages"][:-1]}
    with pytest.raises(quality.RuleError, match="'p7' has no answer"):
        quality.funnel([row], {"length": quality.length()})


def test_dropped_rows_can_be_written_read_and_judged_again(quality, tmp_path):
    rows = [e.row() for e in world.examples("train", 20)]
    found = quality.funnel(rows, {"short": quality.length(8)})
    path = data.write_chat(tmp_path / "dropped.jsonl", found.dropped)
    assert data.read_chat(path) == found.dropped
    again = quality.funnel(found.dropped, {"none": quality.length()})
    assert len(again.kept) == len(found.dropped) > 0


# ---------------------------------------------------------------- wild rows

WILD = st.text(max_size=80) | st.sampled_from(
    [
        "",
        " ",
        "\ud800",
        "\0",
        "!!!",
        "a " * 500,
        "הרבה 文字文字 🙂",
        "e\u0301é",
        "ﬁ ß İ",
    ]
)
ROWS = st.lists(
    st.builds(
        lambda prompt, answer, task, reason: chat(
            answer, prompt, task=task, finish_reason=reason
        ),
        WILD,
        WILD,
        st.sampled_from(["qa", "math", ""]),
        st.sampled_from(["stop", "length", None]),
    ),
    max_size=8,
)
EVALUATION = {"test": [chat("", "a a a a a a a a"), chat("", ""), chat("", "!!!")]}


def every_rule(quality):
    return {
        "length": quality.length(0, 60),
        "repetition": quality.repetition(),
        "refusal": quality.refusal(),
        "language": LANGUAGE,
        "truncated": quality.truncated(),
        "decontaminate": quality.decontaminate(EVALUATION, n=5, shortest=1),
        "near-duplicates": quality.near_duplicates(0.7),
        "balance": quality.balance(2),
    }


LANGUAGE = helpers.quality.language("en", shortest=5, sure=0.5)  # slow to make


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_wild_rows_are_kept_or_dropped_once_in_their_order(rows):
    quality = helpers.quality
    rows = [{**row, "id": i} for i, row in enumerate(rows)]
    found = quality.funnel(rows, every_rule(quality))
    kept, dropped = ([r["id"] for r in its] for its in (found.kept, found.dropped))
    assert kept == sorted(kept) and dropped == sorted(dropped)
    assert sorted(kept + dropped) == list(range(len(rows)))
    assert all(row["reason"] and row["dropped_by"] for row in found.dropped)


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_what_a_funnel_keeps_it_keeps_again(rows):
    rules = every_rule(helpers.quality)
    kept = helpers.quality.funnel(rows, rules).kept
    assert helpers.quality.funnel(kept, rules).kept == kept


def test_a_funnel_run_twice_gives_the_same(quality):
    rows = [e.row() for e in world.examples("train", 400)]
    rules = {**every_rule(quality), "balance": quality.balance(20, seed=3)}
    first, second = quality.funnel(rows, rules), quality.funnel(rows, rules)
    assert first.kept == second.kept and first.dropped == second.dropped
    assert len(first.dropped) > 100


def test_a_huge_row_is_judged_in_little_time(quality):
    text = " ".join(random.Random(0).choices("abcdefgh", k=200_000))
    rows = chats(text, text, "x" * 1_000_000)
    start = time.process_time()
    found = quality.funnel(rows, {**every_rule(quality), "length": quality.length()})
    assert len(found.kept) + len(found.dropped) == 3
    assert time.process_time() - start < 15


# ---------------------------------------------------------------- is it right?


def test_verified_keeps_right_answers_and_says_what_is_wrong(quality):
    examples = world.examples("train", 200, label_noise=0.3)
    found = quality.funnel(
        [e.row() for e in examples], {"verified": quality.verified(examples)}
    )
    noisy = {e.id for e in examples if e.noisy}
    assert {row["id"] for row in found.dropped} == noisy
    assert all(
        "missing" in r["reason"] or "wrong" in r["reason"] for r in found.dropped
    )


def test_verified_names_what_is_missing_and_what_is_wrong(quality):
    example = next(e for e in world.examples("train", 50, tasks=["qa"])
                   if {kind for kind, _ in e.required} == {"person"})  # fmt: skip
    (person,) = (name for _, name in example.required)
    other = next(n for n in world.NAMES if n != person and n not in example.prompt)
    row = chat(f"{other} did.", id=example.id)
    (reason,) = quality.reasons(quality.verified([example]), [row])
    assert reason == f"missing person {person}; wrong person {other}"
    (reason,) = quality.reasons(
        quality.verified([example]), [chat(f"{person}. " * 9, id=example.id)]
    )
    assert "repeats itself" in reason


def test_verified_without_the_example_says_what_to_pass(quality):
    with pytest.raises(quality.RuleError, match="row 'x'.*examples that the prompts"):
        quality.funnel([chat("a", id="x")], {"v": quality.verified([])})


class Judge:
    """Stands in for `generate_answers`: replies by what the question holds."""

    def __init__(self, **replies):
        self.replies, self.asked = replies, []

    def __call__(self, judge, prompts, path, **settings):
        self.asked += [p["messages"][-1]["content"] for p in prompts]
        assert len({p["id"] for p in prompts}) == len(prompts)
        rows = []
        for prompt in prompts:
            text = prompt["messages"][-1]["content"]
            reply = next((r for key, r in self.replies.items() if key in text), None)
            if reply is not None:  # as where a request failed
                message = {"role": "assistant", "content": reply}
                rows.append({**prompt, "messages": [*prompt["messages"], message]})
        return rows


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("yes", ""),
        ("**Yes**, it is.", ""),
        ("<think>no, or is it? yes.</think>\n\nYes.", ""),
        ("No, the price is wrong.", "the judge said no"),
        ("yesterday", "neither yes nor no: 'yesterday'"),
        ("Well, hard to say.", "neither yes nor no"),
        ("", "neither yes nor no"),
        (None, "no reply"),
    ],
)
def test_a_judge_s_reply_is_read_or_said_to_be_unreadable(
    quality, monkeypatch, reply, reason
):
    monkeypatch.setattr("helpers.generate.asking.generate_answers", Judge(lamp=reply))
    (found,) = quality.reasons(quality.judged(None), chats("It is 5."))
    assert reason in found and bool(reason) == bool(found)


def test_a_judge_sees_prompt_and_answer_and_is_asked_once_for_equal_rows(
    quality, monkeypatch
):
    judge = Judge(A1="yes", A2="no")
    monkeypatch.setattr("helpers.generate.asking.generate_answers", judge)
    rule = quality.judged(None, question="{prompt} -> {answer} {{yes|no}}")
    rows = [chat("A1", id=1), chat("A2", id=2), chat("A1", id=1), chat("A1 {x}", id=1)]
    assert quality.reasons(rule, rows) == ["", "the judge said no", "", ""]
    assert judge.asked == [
        f"system: Helpdesk.\nuser: What does a lamp cost? -> {answer} {{yes|no}}"
        for answer in ("A1", "A2", "A1 {x}")
    ]


class Scripted:
    """A teacher as `generate` wants it, without a model."""

    def describe(self):
        return {"teacher": "scripted"}

    def replies(self, requests, sampling):
        for place, request in enumerate(requests):
            text = request.messages[-1]["content"]
            if "broken" in text:
                yield place, generate.Reply.failed("no answer after 5 attempts")
            else:
                yield place, generate.Reply("Yes." if "It is 5." in text else "No.")


def test_any_teacher_judges_and_a_failed_request_is_told_from_a_no(quality):
    rule = quality.judged(Scripted(), progress=False)
    with pytest.warns(UserWarning, match="1 of 3 answers are missing"):
        found = quality.funnel(chats("broken", "It is 5.", "It is 6."), {"judge": rule})
    assert answers(found.kept) == ["It is 5."]
    assert [row["reason"] for row in found.dropped] == [
        "the judge gave no reply",
        "the judge said no",
    ]


@pytest.mark.parametrize(
    "question", ["{prompt}", "{answer} {gold}", "{answer} {}", "{"]
)
def test_a_question_that_cannot_be_asked_is_refused_at_once(quality, question):
    with pytest.raises(ValueError, match="question"):
        quality.judged(None, question=question)


def test_a_real_model_judges_and_its_verdicts_are_kept(
    quality, small_model: LlamaForCausalLM, tokenizer, tmp_path
):
    path, rows = tmp_path / "verdicts.jsonl", chats("It is 5.", "It is 6.")
    judge = ChatModel(small_model, tokenizer)
    rule = quality.judged(judge, path=path, max_new_tokens=3, progress=False)
    first = quality.reasons(rule, rows)
    assert all("neither yes nor no" in reason for reason in first)
    assert len(data.read_chat(path)) == 2
    assert quality.reasons(rule, rows) == first
    assert len(data.read_chat(path)) == 2  # nothing was asked twice


# ---------------------------------------------------------------- form of an answer


def test_length_counts_words_or_tokens(quality, tokenizer):
    rows = chats("", "Two words.", "我要退货", "one two three four five six")
    found = quality.reasons(quality.length(1, 4), rows)
    assert found == ["0 words, fewer than 1", "", "", "6 words, more than 4"]
    found = quality.reasons(quality.length(1, 3, tokenizer=tokenizer), chats("12345"))
    assert found == ["5 tokens, more than 3"]
    found = quality.reasons(quality.length(0, 0), chats("", "a"))
    assert found == ["", "1 words, more than 0"]


def test_repetition_finds_loops_and_spares_the_world_s_answers(quality):
    loop = "Please close the lid. " * 4
    assert quality.reasons(quality.repetition(), chats(loop, "a b", "")) == [
        "71% of its 3-grams repeat", "", "",
    ]  # fmt: skip
    rows = [e.row() for e in world.examples("train", 1000)]
    assert not any(quality.reasons(quality.repetition(), rows))


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I cannot help with that.",
        "I\u2019m sorry, I can\u2019t assist with this request.",
        "Sorry, but we are unable to do this.",
        "As an AI language model, I have no opinion.",
        "I am not able to provide medical advice.",
        "Unfortunately, I won't discuss this.",
    ],
)
def test_refusals_are_found(quality, text):
    assert quality.reasons(quality.refusal(), chats(text))[0].startswith("declines: ")


def test_regrets_that_are_no_refusals_are_kept(quality):
    rows = chats(
        "Sorry to hear that. Please close the lid.",
        "I am sorry for the delay. We will refund the price.",
        "You cannot return it: too late.",
        "An air filter helps.",
    )
    assert quality.reasons(quality.refusal(), rows) == [""] * 4
    rows = [e.row() for e in world.examples("train", 1000)]
    assert not any(quality.reasons(quality.refusal(), rows))
    for patterns in (r"\bmy boss\b", ["xyz", r"\bmy boss\b"]):
        found = quality.reasons(quality.refusal(patterns), chats("Ask my boss.", "No."))
        assert found == ["declines: 'my boss'", ""]


@pytest.mark.slow
def test_another_language_is_dropped_where_the_text_is_long_enough(quality):
    german = "Bitte schließen Sie den Deckel und schalten Sie das Gerät wieder ein."
    rule = quality.language("en")
    found = quality.reasons(rule, chats(german, "Nein, danke.", "12 x 3 = 36. " * 9))
    assert found[0].startswith("language de, ") and found[1:] == ["", ""]
    assert quality.reasons(quality.language(["en", "de"]), chats(german)) == [""]
    rows = [e.row() for e in world.examples("train", 2000)]
    assert not any(quality.reasons(rule, rows))
    with pytest.raises(ValueError, match="no such language"):
        quality.language("english")


def test_truncated_says_nothing_where_the_row_does_not(quality):
    rows = [chat("a", finish_reason=r) for r in ("stop", "length")] + chats("a")
    assert quality.reasons(quality.truncated(), rows) == ["", "cut off", ""]


# ---------------------------------------------------------------- balance


def test_balance_caps_every_task_at_the_smallest(quality):
    rows = [*chats(*"abcdefgh", task="qa"), *chats(*"abc", task="math"), chat("z")]
    for most, left in (
        (None, [1, 1, 1]),
        (3, [3, 3, 1]),
        (0, [0, 0, 0]),
        (9, [8, 3, 1]),
    ):
        found = quality.funnel(rows, {"balance": quality.balance(most)})
        assert found.by_task["kept"].tolist() == left
    draws = [quality.funnel(rows, {"b": quality.balance(4, seed=s)}) for s in (0, 0, 1)]
    assert draws[0].kept == draws[1].kept != draws[2].kept


# ---------------------------------------------------------------- near-duplicates


def exact_duplicates(rows, threshold, n):
    """Places of rows that reach the threshold with an earlier row that is kept."""
    read = [words(text_of(row, "both")) for row in rows]
    sets = [{tuple(w[i : i + n]) for i in range(len(w) - n + 1)} for w in read]
    kept, found = [], set()
    for place, ours in enumerate(sets):
        if any(len(ours & sets[k]) >= threshold * len(ours | sets[k]) for k in kept):
            found.add(place)
        else:
            kept.append(place)
    return found


def test_near_duplicates_agree_with_exact_jaccard(quality):
    rows = [e.row() for e in world.examples("train", 700, tasks=["math"])]
    exact = exact_duplicates(rows, 0.7, 3)
    said = quality.reasons(quality.near_duplicates(0.7), rows)
    found = {place for place, why in enumerate(said) if why}
    assert len(exact) > 50
    assert found <= exact  # exact Jaccard has the last word
    assert len(found) >= 0.97 * len(exact)


def test_the_first_of_near_duplicates_is_kept_and_named(quality):
    base = "Please open the lid, dry the seal and then close the lid again with care"
    rows = chats(base, base.upper() + "!", "Something else.", base + " today")
    rule = quality.near_duplicates(0.8, on="answer")
    assert quality.reasons(rule, rows) == [
        "", "like row '0', Jaccard 1.00", "", "like row '0', Jaccard 0.93",
    ]  # fmt: skip


def test_near_duplicates_read_the_part_they_are_told(quality):
    same = "The price of this lamp is five euros in all."
    rows = [chat(same, "First question?"), chat(same, "Another thing altogether?")]
    for on, dropped in (("answer", 1), ("prompt", 0), ("both", 0)):
        rule = quality.near_duplicates(on=on)
        assert len(quality.funnel(rows, {"d": rule}).dropped) == dropped
    rows = chats("It is 5.", "Six!")
    for on, dropped in (("answer", 0), ("prompt", 1)):
        rule = quality.near_duplicates(on=on)
        assert len(quality.funnel(rows, {"d": rule}).dropped) == dropped


def test_duplicates_in_the_world_have_the_same_right_answer_but_not_by_prompt(quality):
    examples = world.examples("train", 3000)
    rows, place = [e.row() for e in examples], {e.id: e for e in examples}
    strangers = {}
    for on in ("both", "prompt"):
        dropped = quality.funnel(rows, {"d": quality.near_duplicates(on=on)}).dropped
        pairs = [(r["id"], r["reason"].split("'")[1]) for r in dropped]
        assert len(pairs) > 20
        strangers[on] = sum(
            not world.verify(place[a], place[b].answer) for a, b in pairs
        ) / len(pairs)
    assert strangers["both"] == 0
    assert strangers["prompt"] > 0.5


def test_short_and_wordless_texts_are_duplicates_only_when_equal(quality):
    rows = chats("Yes.", "yes", "No.", "🙂", "🙂", "!", "", "")
    rule = quality.near_duplicates(on="answer")
    dropped = [bool(why) for why in quality.reasons(rule, rows)]
    assert dropped == [False, True, False, False, True, False, False, True]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.95, 1.0])
def test_copies_are_found_at_any_threshold(quality, threshold):
    rows = [e.row() for e in world.examples("train", 60)]
    found = quality.funnel(rows + rows, {"d": quality.near_duplicates(threshold)})
    assert len(found.kept) <= 60
    assert found.dropped[-1]["reason"].endswith("1.00")


def test_settings_that_make_no_sense_are_refused(quality):
    for wrong in (dict(on="prompts"), dict(threshold=0.1), dict(recall=1), dict(n=0)):
        with pytest.raises(ValueError):
            quality.near_duplicates(**wrong)
    for wrong in (dict(n=0), dict(shortest=0)):
        with pytest.raises(ValueError, match="at least one word"):
            quality.matches([], {}, **wrong)
    with pytest.raises(TypeError, match="mapping such as"):
        quality.decontaminate([chat("a")])
    with pytest.raises(ValueError, match="pick"):
        quality.best_of_n([], quality.length(), "last")


# ---------------------------------------------------------------- leaks


def heldout(n=300):
    return {s: [e.row() for e in world.examples(s, n)] for s in ("test", "shifted")}


def altered(row, change):
    turns = [
        {**turn, "content": change(turn["content"])} if turn["role"] == "user" else turn
        for turn in row["messages"]
    ]
    return {**row, "messages": turns}


DISGUISES = {
    "as it is": lambda text: text,
    "upper case": str.upper,
    "other signs": lambda text: text.replace(",", " –").replace(".", "!\n"),
    "compatibility forms": lambda text: text.replace("fi", "ﬁ").replace(" ", "\u00a0"),
}


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_bug_22_every_planted_leak_is_found(quality, disguise, share):
    held = heldout()
    leaks = [altered(row, DISGUISES[disguise]) for its in held.values() for row in its]
    for i, leak in enumerate(leaks):  # the answers are the teacher's own
        leak["messages"] = [*leak["messages"][:-1], chat(f"x{i}")["messages"][-1]]
    rule = quality.decontaminate(held, share=share)
    found = quality.funnel(leaks, {"decontaminate": rule})
    assert found.kept == []


def test_bug_22_a_leak_inside_a_longer_text_is_found(quality):
    (item,) = [e.row() for e in world.examples("test", 1, tasks=["qa"])]
    asked = item["messages"][-2]["content"]
    rows = [
        chat("Ben.", f"Dear helpdesk, a riddle for you. {asked} Thank you all."),
        chat(f"Here is such a question: {asked}", "Write a question, please."),
    ]
    found = quality.funnel(
        rows, {"d": quality.decontaminate({"test": [item]}, share=0.9)}
    )
    assert found.kept == []


def test_bug_22_a_prompt_shorter_than_n_is_found_as_a_whole(quality):
    eight, three = "how much are 3 kettles and shipping then", "where is it"
    held = {"test": [chat("", eight, id="e"), chat("", three, id="t")]}
    rows = chats("a", prompt=eight + "?") + chats("b", prompt="Hello! " + eight)
    rows += chats("c", prompt="Where is it?") + chats("d", prompt="So where is it now?")
    found = quality.funnel(rows, {"d": quality.decontaminate(held)})
    assert answers(found.kept) == ["d"]  # three words anywhere are no leak
    assert found.dropped[2]["reason"] == "all of test item 't': 'where is it'"


TEMPLATE = (
    "You are the helpdesk of our shop. Read the question with care, think step by step "
    "and answer in one or two short and friendly sentences."
)


def test_bug_22_a_shared_template_is_no_leak(quality):
    rows = [e.row() for e in world.examples("train", 600)]
    held = heldout()
    for row in itertools.chain(rows, *held.values()):
        row["messages"][0] = {"role": "system", "content": TEMPLATE}
    found = quality.funnel(rows, {"d": quality.decontaminate(held, share=0.5)})
    assert len(found.dropped) < 0.03 * len(rows)


def test_bug_22_a_template_in_the_user_s_turn_can_be_ignored(quality):
    rows = [chat("a", f"{TEMPLATE} Question {word}?") for word in "abcdefghijklmno"]
    held = {
        "test": [chat("", f"{TEMPLATE} Question {word}?", id=word) for word in "xyz"]
    }
    every = quality.funnel(rows, {"d": quality.decontaminate(held)})
    assert len(every.dropped) == len(rows)  # false alarms, and the reason shows it
    assert (
        "of test item 'x': 'you are the helpdesk of our" in every.dropped[0]["reason"]
    )
    for cure in (dict(boilerplate=[f"{TEMPLATE} Question"]), dict(common=10, share=0.9),
                 dict(boilerplate=f"{TEMPLATE} Question")):  # fmt: skip
        rule = quality.decontaminate(held, **cure)
        assert quality.funnel(rows, {"d": rule}).kept == rows
        # A true leak is still found, even when it is there a hundred times.
        leaks = [chat("a", f"{TEMPLATE} Question y?", id=i) for i in range(100)]
        found = quality.funnel(rows + leaks, {"d": rule})
        assert found.kept == rows
        longer = [chat("a", f"{TEMPLATE} Question y? Go on.", id=i) for i in range(100)]
        assert quality.funnel(rows + longer, {"d": rule}).kept == rows


def test_bug_22_a_copy_counts_though_all_its_words_are_ignored(quality):
    rows = [chat("a", f"{TEMPLATE} Question {word}?") for word in "abcdefghijklmno"]
    held = {"test": [chat("", TEMPLATE, id="x")]}
    for ignore in (dict(boilerplate=[TEMPLATE]), dict(common=10)):
        rule = quality.decontaminate(held, **ignore)
        found = quality.funnel([*rows, chat("a", TEMPLATE.lower())], {"d": rule})
        assert found.kept == rows


def test_the_matches_show_text_and_item(quality):
    item = " ".join(f"w{i}" for i in range(20))
    held = {"test": [chat("", item, id="t1")], "shifted": [chat("", "other", id="s1")]}
    rows = chats("a", prompt="unrelated") + [
        chat("b", " ".join(f"w{i}" for i in range(2, 16)) + " and more", id="r1")
    ]
    (line,) = quality.matches(rows, held).to_dict("records")
    assert line == {
        "place": 1, "id": "r1", "split": "test", "item": "t1", "shared": 2, "runs": 8,
        "text": " ".join(f"w{i}" for i in range(2, 15)), "prompts": 1,
    }  # fmt: skip
    assert quality.matches(rows, held, share=0.3).empty


def test_a_match_names_the_item_that_it_holds_most_of(quality):
    """One run stands in many prompts; blame the one that was copied."""
    head = " ".join(f"h{i}" for i in range(14))
    held = {
        "test": [chat("", f"{head} {tail * 9}", id=tail) for tail in ("a ", "b ", "c ")]
    }
    (line,) = quality.matches([chat("x", f"Now: {head} {'c ' * 9}")], held).itertuples()
    assert line.item == "c " and line.shared == line.runs and line.prompts == 1


# ---------------------------------------------------------------- several answers


def test_best_of_n_keeps_one_right_answer_a_prompt(quality):
    rows = [chat(a, id=i) for i, a in
            (("p", "wrong"), ("p", "right, and long"), ("q", "wrong"), ("p", "right"),
             ("r", "right r"), ("p", "Right!"))]  # fmt: skip

    def right(row):
        return "" if "right" in answer_of(row).lower() else "wrong"

    picks = {
        "first": ["right, and long", "right r"],
        "shortest": ["right", "right r"],
        "all": ["right, and long", "right", "right r"],
    }
    for pick, expected in picks.items():
        assert answers(quality.best_of_n(rows, right, pick)) == expected
    draws = [
        answers(quality.best_of_n(rows, right, "random", seed=s)) for s in range(20)
    ]
    assert draws[0] == answers(quality.best_of_n(rows, right, "random", seed=0))
    assert {draw[0] for draw in draws} == {"right, and long", "right", "Right!"}


def test_best_of_n_takes_any_rule(quality):
    examples = world.examples("train", 40)
    wrong = world.examples("train", 40, label_noise=1.0)
    rows = [e.row() for e in [*wrong, *examples]]
    chosen = quality.best_of_n(rows, quality.verified(examples))
    assert chosen == [e.row() for e in examples]
    assert quality.best_of_n(rows, quality.balance(0)) == []


def test_the_majority_wins_and_its_share_is_told(quality):
    said = ["It is 5.", "5", "It is 7.", "that makes 5 euros", "no idea"]
    rows = [chat(a, id="p") for a in said] + [chat("dunno", id="q")]
    (won,) = quality.majority_vote(rows, quality.last_number)
    assert won == {**rows[0], "vote_share": 0.6}
    assert [r["vote_share"] for r in quality.majority_vote(rows)] == [0.2, 1.0]


def test_equal_votes_go_to_the_earlier_answer(quality):
    rows = [chat(a, id="p") for a in ("Tea.", "Milk.", "milk", "TEA!")]
    (won,) = quality.majority_vote(rows)
    assert won["messages"][-1]["content"] == "Tea." and won["vote_share"] == 0.5


def test_facts_vote_whatever_the_wording(quality):
    rows = [chat(a, id="p") for a in
            ("Ada did.", "It was Ben.", "Ben bought it.", "Cleo.")]  # fmt: skip
    (won,) = quality.majority_vote(rows, world.facts_in)
    assert won == {**rows[1], "vote_share": 0.5}


def test_rows_without_an_id_cannot_be_grouped(quality):
    with pytest.raises(DataError, match="row 0 has no id"):
        quality.majority_vote([chat("a")])
    with pytest.raises(DataError, match="row 0 has no id"):
        quality.best_of_n([chat("a")], quality.length())


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2 x 3 = 6.", "6"),
        ("1,250 euros", "1250"),
        ("-3.5 degrees", "-3.5"),
        ("x", None),
    ],
)
def test_last_number_reads_the_result(quality, text, number):
    assert quality.last_number(text) == number


# ---------------------------------------------------------------- diversity


def test_diversity_counts_words_pairs_and_shared_runs(quality):
    rows = chats("a b c d e", "a b c d f", task="qa") + chats("a a", task="math")
    table = quality.diversity(rows)
    assert table.index.tolist() == ["qa", "math", "all"]
    qa, math = table.loc["qa"], table.loc["math"]
    assert (qa.texts, qa.words, qa["unique"]) == (2, 10, 1.0)
    assert (qa.distinct_1, qa.distinct_2, qa.overlap) == (6 / 10, 5 / 8, 0.5)
    assert (math.distinct_1, math.distinct_2) == (0.5, 1.0)
    assert np.isnan(math.overlap)  # too short for runs of four words
    assert table.loc["all", "texts"] == 3


def test_distinct_n_falls_with_the_amount_of_text_and_a_budget_mends_it(quality):
    some = [e.row() for e in world.examples("train", 300)]
    more = [e.row() for e in world.examples("train", 3000)]
    few, many = (quality.diversity(rows).loc["all"] for rows in (some, more))
    assert many.distinct_1 < 0.3 * few.distinct_1  # the same source, no less varied
    few, many = (quality.diversity(r, budget=2000).loc["all"] for r in (some, more))
    assert few.tolist() == many.tolist() and few.words <= 2000


@settings(max_examples=40, deadline=None)
@given(ROWS, st.integers(0, 50) | st.none())
def test_shares_of_wild_texts_are_shares_or_unknown(rows, budget):
    table = helpers.quality.diversity(rows, on="both", budget=budget)
    shares = table[["unique", "distinct_1", "distinct_2", "overlap"]].to_numpy(float)
    assert ((shares >= 0) & (shares <= 1) | np.isnan(shares)).all()


# ---------------------------------------------------------------- speed


@pytest.mark.slow
def test_five_thousand_rows_pass_a_typical_funnel_in_a_few_seconds(tmp_path):
    """A twentieth of the benchmark, which has two minutes; this guard is generous."""
    path = data.write_chat(tmp_path / "rows.jsonl", benchmark.planted(5000))
    start = time.process_time()  # what others do on the machine does not count
    found = benchmark.measure(path)
    assert time.process_time() - start < 15
    for step, _, _, planted, caught, _ in found["lines"]:
        assert caught == planted, step
        assert planted > 45 or step in ("read", "length", "balance")


# ---------------------------------------------------------------- planted bugs


def twice(quality):
    """Near-duplicates alone: what they remember would show at once."""
    rows, rule = (
        [e.row() for e in world.examples("train", 50)],
        quality.near_duplicates(),
    )
    assert quality.reasons(rule, rows) == quality.reasons(rule, rows)


def disguised(quality):
    test_bug_22_every_planted_leak_is_found(quality, "other signs", 0.0)


# bug: (as it is, as it must not be, the test that notices)
PLANTED = {
    "only n-grams of n words": (
        "size = min(n, len(its))",
        "size = n",
        test_bug_22_a_prompt_shorter_than_n_is_found_as_a_whole,
    ),
    "punctuation counts": (
        "its = words(prompt)",
        "its = prompt.split()",
        test_bug_22_a_leak_inside_a_longer_text_is_found,
    ),
    "case counts in short prompts": (
        "whole.setdefault(normalised(prompt)",
        "whole.setdefault(prompt",
        disguised,
    ),
    "answers and earlier turns are not searched": (
        'for m in row["messages"] if m["role"] != "system"',
        'for m in row["messages"][:-1] if m["role"] != "system"',
        test_bug_22_a_leak_inside_a_longer_text_is_found,
    ),
    "share is not used": (
        "if count[item] < share * runs[item]:",
        "if count[item] < 0:",
        test_bug_22_a_shared_template_is_no_leak,
    ),
    "boilerplate is not used": (
        " - ignored(size)",
        "",
        test_bug_22_a_template_in_the_user_s_turn_can_be_ignored,
    ),
    "what is ignored hides copies": (
        "item = whole.get(prompt)",
        "item = None",
        test_bug_22_a_copy_counts_though_all_its_words_are_ignored,
    ),
    "a leak is common once it is repeated": (
        "once = dict(zip(prompts, hits, strict=True)).values()",
        "once = hits",
        test_bug_22_a_template_in_the_user_s_turn_can_be_ignored,
    ),
    "the wrong item is blamed": (
        "max(count, key=lambda item: count[item] / runs[item])",
        "next(iter(count))",
        test_a_match_names_the_item_that_it_holds_most_of,
    ),
    "no exact Jaccard": (
        "if similarity >= threshold:",
        "if similarity > 0:",
        test_near_duplicates_agree_with_exact_jaccard,
    ),
    "too few bands": (
        "b = max(2, math.ceil(b))",
        "b = 2",
        test_near_duplicates_agree_with_exact_jaccard,
    ),
    "an index that outlives the funnel": (
        "    @over_rows\n    def rule(rows: Sequence[dict]) -> list[str]:\n"
        "        index = MinHashLSH(num_perm=b * r, params=(b, r))\n",
        "    index = MinHashLSH(num_perm=b * r, params=(b, r))\n"
        "    @over_rows\n    def rule(rows: Sequence[dict]) -> list[str]:\n",
        twice,
    ),
    "dropped rows by rule, not in order": (
        "for i in sorted(verdicts)",
        "for i in verdicts",
        test_each_rule_sees_what_the_last_one_left,
    ),
    "True passes for a reason": (
        "not isinstance(found[place], str)",
        "not isinstance(found[place], (str, bool))",
        lambda q: test_a_rule_that_returns_another_type_is_told_the_convention(q, True),
    ),
    "abstentions do not count": (
        "n / len(group)",
        "n / count.total()",
        test_the_majority_wins_and_its_share_is_told,
    ),
    "abstentions win": (
        "for vote in votes if vote is not None",
        "for vote in votes",
        test_the_majority_wins_and_its_share_is_told,
    ),
    "no finish_reason is truncated": (
        'row.get("finish_reason") == "length"',
        'row.get("finish_reason") != "stop"',
        test_truncated_says_nothing_where_the_row_does_not,
    ),
    "balance draws by chance": (
        'random.Random(f"{seed} {task}")',
        "random.Random()",
        test_balance_caps_every_task_at_the_smallest,
    ),
}


@pytest.mark.parametrize("test", dict.fromkeys(test for *_, test in PLANTED.values()))
def test_a_copy_without_a_bug_passes(test):
    with damaged(helpers.quality) as copy:
        test(copy)


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_noticed(bug):
    old, new, test = PLANTED[bug]
    with damaged(helpers.quality, old, new) as copy:
        assert notices(test, copy)
