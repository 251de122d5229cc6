"""What the command learns from: foreign rows as prompts, and what is held out."""

import json

import pytest

from helpers import data, quality
from helpers.data import DataError
from helpers.distill import material


def write(path, rows):
    lines = (json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def sums(n, prompt="prompt", answer="answer"):
    return [{prompt: f"Was ist {i} plus {i}?", answer: f"{2 * i}"} for i in range(n)]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Wie viel?", "answer": "Drei."},
        {"prompt": "Wie viel?", "completion": "Drei."},
        {"question": "Wie viel?", "response": "Drei."},
        {"instruction": "Wie viel?", "output": "Drei."},
        {"input": "Wie viel?", "target": "Drei."},
        {"messages": [{"role": "user", "content": "Wie viel?"}], "answer": "Drei."},
        {
            "messages": [
                {"role": "user", "content": "Wie viel?"},
                {"role": "assistant", "content": "Drei."},
            ]
        },
        {
            "conversations": [
                {"from": "human", "value": "Wie viel?"},
                {"from": "gpt", "value": "Drei."},
            ]
        },
    ],
    ids=lambda row: ", ".join(row),
)
def test_common_forms_of_a_row_are_understood(row, tmp_path):
    [found] = material.read_prompts(write(tmp_path / "own.jsonl", [row]))
    assert found["messages"] == [{"role": "user", "content": "Wie viel?"}]
    assert found["answer"] == "Drei." and found["id"]


def test_keys_of_ones_own_are_named(tmp_path):
    path = write(tmp_path / "own.jsonl", sums(2, "frage", "antwort"))
    rows = material.read_prompts(path, "frage", "antwort")
    assert [row["answer"] for row in rows] == ["0", "2"]


def test_unknown_keys_are_named_with_file_line_and_format(tmp_path):
    rows = [*sums(1), {"frage": "Was?", "antwort": "Das."}]
    path = write(tmp_path / "own.jsonl", rows)
    with pytest.raises(DataError) as error:
        material.read_prompts(path)
    said = str(error.value)
    for part in ("own.jsonl, line 2", '"frage", "antwort"', "messages", "--prompt-key"):
        assert part in said


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ('{"prompt": 7}', "content"),
        ('{"prompt": "a", "answer": 7}', "put it in quotes"),
        ('{"prompt": "a"', "not JSON"),
        ("[1]", "messages"),
    ],
)
def test_a_defect_has_its_line(line, part, tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text('{"prompt": "fine"}\n' + line + "\n")
    with pytest.raises(DataError, match="line 2") as error:
        material.read_prompts(path)
    assert part in str(error.value)


def test_a_tenth_is_held_out_whatever_the_order_of_the_rows(tmp_path):
    rows = sums(50)
    one = material.own(write(tmp_path / "a.jsonl", rows))
    two = material.own(write(tmp_path / "b.jsonl", rows[::-1]))
    asked = [{row["id"] for row in m.held_out["test"]} for m in (one, two)]
    assert asked[0] == asked[1] and len(asked[0]) == 5
    assert not asked[0] & {row["id"] for row in one.prompts}
    assert len(one.prompts) == 45 and one.gold and one.own


def test_a_prompt_that_stands_twice_is_on_one_side(tmp_path):
    rows = sums(30) + [{**row, "answer": "so"} for row in sums(30)]
    found = material.own(write(tmp_path / "own.jsonl", rows))
    train, test = (
        {data.prompt_of(row) for row in its}
        for its in (found.prompts, found.held_out["test"])
    )
    assert not train & test and len(found.held_out["test"]) == 2 * len(test)


def test_prompts_of_the_test_file_are_never_trained_on(tmp_path):
    rows = sums(20)
    test = write(tmp_path / "test.jsonl", rows[:5])
    found = material.own(write(tmp_path / "own.jsonl", rows), test)
    assert len(found.prompts) == 15 and found.table["dropped"].sum() == 5
    with pytest.raises(DataError, match="cheating"):
        material.own(test, test)


def test_a_long_text_with_another_end_counts_as_a_leak(tmp_path):
    text = " ".join(f"word{i}" for i in range(30))
    test = write(tmp_path / "test.jsonl", [{"prompt": text + " one"}])
    rows = [{"prompt": text + " two"}, {"prompt": "something else"}]
    found = material.own(write(tmp_path / "own.jsonl", rows), test)
    assert [data.prompt_of(row) for row in found.prompts] == ["something else"]


def test_a_form_that_many_prompts_share_is_no_leak(tmp_path):
    form = "Please translate the following German sentence into plain English for me: "
    rows = [{"prompt": form + f"Satz {i}"} for i in range(60)]
    found = material.own(write(tmp_path / "own.jsonl", rows))
    assert len(found.prompts) == 54


def test_rows_without_a_right_answer_are_not_measured_where_others_have_one(tmp_path):
    test = write(tmp_path / "test.jsonl", [*sums(3), {"prompt": "Und?"}])
    own = write(tmp_path / "own.jsonl", [{"prompt": "Hallo"}])
    found = material.own(own, test)
    assert len(found.held_out["test"]) == 3 and "1 held-out" in found.notes[0]
    without = write(tmp_path / "none.jsonl", [{"prompt": "Und?"}])
    assert not material.own(own, without).gold


def test_answers_unlike_the_gold_one_can_be_dropped(tmp_path):
    path = write(tmp_path / "own.jsonl", sums(20))
    found = material.own(path, min_f1=0.5)
    texts = found.prompts[0]["answer"], "viel"
    said = [
        {**row, "messages": [*row["messages"], {"role": "assistant", "content": text}]}
        for row, text in zip(found.prompts[:2], texts, strict=True)
    ]
    kept = quality.funnel(said, {"gold": found.rules["like the gold"]})
    assert kept.kept == said[:1] and "F1 0.00" in kept.dropped[0]["reason"]


def test_the_helpdesk_measures_on_both_splits():
    found = material.helpdesk(20, 5, 0)
    assert list(found.held_out) == ["test", "shifted"]
    assert "verified" in found.rules and not found.own and found.gold
