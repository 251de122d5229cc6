"""A model asked for its opinion: replies by id, without what was thought aloud."""

import pytest

from helpers.generate import Reply, asking
from tests.damage import damage, notices


class Says:
    """A teacher that answers with what `words` makes of the question."""

    def __init__(self, words):
        self.words = words

    def describe(self) -> dict:
        return {"model": "says"}

    def replies(self, requests, sampling):
        for place, request in enumerate(requests):
            said = self.words(request.messages[-1]["content"])
            yield place, Reply.failed("mute") if said is None else Reply(said)


QUESTIONS = {"first": "A or B?", "second": "C or D?"}


@pytest.fixture
def module():
    return asking


def test_replies_come_back_under_the_ids_of_their_questions(module):
    said = module.ask(Says(str.lower), QUESTIONS, progress=False)
    assert said == {"first": "a or b?", "second": "c or d?"}


def test_what_is_thought_aloud_is_no_reply(module):
    said = module.ask(
        Says(lambda q: "<think>A? B?</think>B"), QUESTIONS, progress=False
    )
    assert set(said.values()) == {"B"}


def test_a_question_without_a_reply_is_missing(module):
    mute = Says(lambda question: None if "C" in question else "A")
    with pytest.warns(UserWarning, match="1 of 2 answers are missing"):
        assert module.ask(mute, QUESTIONS, progress=False) == {"first": "A"}


def test_a_conversation_is_read_a_line_a_message(module):
    turns = [
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Yes?"},
    ]
    assert module.turns_of(turns) == "user: Hi.\nassistant: Yes?"


PLANTED = {
    "thoughts are the reply": (
        'text.rpartition("</think>")[2]',
        'text.removeprefix("<think>")',
        test_what_is_thought_aloud_is_no_reply,
    ),
    "replies are lost": (
        "for row in rows}",
        "for row in rows[1:]}",
        test_replies_come_back_under_the_ids_of_their_questions,
    ),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_noticed(bug):
    old, new, test = PLANTED[bug]
    test(damage(asking))
    assert notices(test, damage(asking, old, new))
