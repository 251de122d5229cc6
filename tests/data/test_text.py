"""Rows as words: no case, no punctuation, no form of a character may matter."""

import pytest

from helpers.data import DataError, text
from tests.damage import damage, notices


@pytest.fixture(scope="session", name="text")
def whole():
    return text


def row(*turns, **more):
    roles = ("system", "user", "assistant", "user", "assistant")
    messages = [{"role": r, "content": c} for r, c in zip(roles, turns, strict=False)]
    return {"messages": messages, **more}


def test_words_know_no_case_and_no_punctuation(text):
    assert text.words("It's 5, isn't it?") == ["it", "s", "5", "isn", "t", "it"]
    assert text.words("Straße STRASSE") == ["strasse", "strasse"]
    assert text.words("") == text.words(" ?! 🙂") == []


def test_words_know_no_forms_of_a_character(text):
    """A letter and its accent, as one sign or two; a ligature; a full-width digit."""
    assert text.words("cafe\u0301") == text.words("caf\u00e9") == ["caf\u00e9"]
    assert text.words("\ufb01ve \uff15") == ["five", "5"]


def test_scripts_without_spaces_have_a_word_a_character(text):
    assert text.words("灯は5ユーロ") == ["灯", "は", "5", "ユ", "ー", "ロ"]


def test_ngrams_are_all_runs_and_no_shorter_ones(text):
    assert text.ngrams(["a", "b", "c"], 2) == ["a b", "b c"]
    assert text.ngrams(["a", "b"], 2) == ["a b"]
    assert text.ngrams(["a"], 2) == []


def test_texts_without_words_are_told_apart(text):
    assert text.normalised(" It is\n5. ") == "it is 5"
    assert text.normalised(" 🙂 ") == "🙂" != text.normalised("!")


def test_half_of_a_pair_has_bytes_too(text):
    assert text.encoded("\ud83d") != text.encoded("\ud83e")
    assert text.encoded("é") == "é".encode()


def test_an_answer_is_the_last_message_and_the_assistant_s(text):
    talk = row("Helpdesk.", "Hello?", "Hello!", "And now?", "Now this.")
    assert text.answer_of(talk) == "Now this."
    for id, named in (({}, "without id"), ({"id": "p7"}, "p7")):
        with pytest.raises(DataError, match=f"row '{named}' has no answer"):
            text.answer_of(row("Helpdesk.", "Hello?", **id))


def test_a_prompt_is_all_that_was_said_before_the_answer(text):
    """Without the system message, which many prompts share."""
    talk = row("Helpdesk.", "Hello?", "Hello!", "And now?", "Now this.")
    assert text.prompt_of(talk) == "Hello?\nHello!\nAnd now?"
    assert text.prompt_of(row("Helpdesk.", "Hello?")) == "Hello?"


def test_the_part_of_a_row_is_the_one_that_was_asked_for(text):
    asked = row("Helpdesk.", "Hello?", "Hello!")
    parts = {"prompt": "Hello?", "answer": "Hello!", "both": "Hello?\nHello!"}
    for part, its in parts.items():
        text.check_part(part)
        assert text.text_of(asked, part) == its
    with pytest.raises(ValueError, match="on='prompts': choose \"prompt\""):
        text.check_part("prompts")


def test_a_row_without_a_task_says_so(text):
    assert text.task_of(row(task="math")) == "math"
    assert text.task_of(row()) == "no task"


# ---------------------------------------------------------------- planted bugs

# What is damaged: how the text changes: the test that must notice.
PLANTED = {
    "case counts": (
        ".casefold()",
        "",
        test_words_know_no_case_and_no_punctuation,
    ),
    "lower case is enough": (
        ".casefold()",
        ".lower()",
        test_words_know_no_case_and_no_punctuation,
    ),
    "accents are composed, ligatures kept": (
        '"NFKC"',
        '"NFC"',
        test_words_know_no_forms_of_a_character,
    ),
    "a sentence without spaces is one word": (
        r"[{_UNSPACED}]|[^\W{_UNSPACED}]+",
        r"\w+",
        test_scripts_without_spaces_have_a_word_a_character,
    ),
    "the last run is left out": (
        "len(text_words) - n + 1",
        "len(text_words) - n",
        test_ngrams_are_all_runs_and_no_shorter_ones,
    ),
    "all texts without words are one": (
        " or text.strip()",
        "",
        test_texts_without_words_are_told_apart,
    ),
    "half of a pair is lost": (
        '"surrogatepass"',
        '"replace"',
        test_half_of_a_pair_has_bytes_too,
    ),
    "whatever comes last is an answer": (
        'last["role"] != "assistant"',
        "False",
        test_an_answer_is_the_last_message_and_the_assistant_s,
    ),
    "the answer is part of the prompt": (
        'turns[:-1] if turns[-1]["role"] == "assistant" else turns',
        "turns",
        test_a_prompt_is_all_that_was_said_before_the_answer,
    ),
    "the system message is part of the prompt": (
        ' if turn["role"] != "system"',
        "",
        test_a_prompt_is_all_that_was_said_before_the_answer,
    ),
    "any part will do": (
        'if part not in ("prompt", "answer", "both"):',
        "if False:",
        test_the_part_of_a_row_is_the_one_that_was_asked_for,
    ),
}


@pytest.mark.parametrize("test", dict.fromkeys(test for *_, test in PLANTED.values()))
def test_a_copy_without_a_bug_passes(test):
    test(damage(text))


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_noticed(bug):
    old, new, test = PLANTED[bug]
    assert notices(test, damage(text, old, new))
