"""What labs call: the message names the mistake, whatever the answer is."""

import pytest
import torch

from helpers.labs import Mistake, NotAnswered, close, question, that

MISTAKES = {"twice too much": 4.0, "the sign": -2.0}


@pytest.mark.parametrize("right", [2, 2.0, torch.tensor(2.0), torch.tensor(2)])
def test_a_right_answer_of_any_type_is_accepted(right):
    close(right, 2.0, MISTAKES)


@pytest.mark.parametrize(
    "answer, says",
    [
        (4.0, "^twice too much$"),
        (-2, "^the sign$"),
        (5.0, "the answer is 5, and 2 was expected. Try again."),
        ([2.0, 2.0], r"the shape is \(2,\), and \(\) was expected. Try again."),
        (float("nan"), "the answer holds nan. Try again."),
        ("two", "a number or tensor was expected, not str"),
    ],
)
def test_a_wrong_answer_is_named_by_its_mistake(answer, says):
    with pytest.raises(Mistake, match=says):
        close(answer, 2.0, MISTAKES, otherwise="Try again.")


def test_a_mistake_that_gives_the_right_value_here_accuses_nobody():
    with pytest.raises(Mistake, match="the answer is 5"):
        close(5.0, 2.0, {"not to be told from right": 2.0})
    close(2.0, 2.0, {"not to be told from right": 2.0})


def test_nothing_returned_is_not_an_answer():
    with pytest.raises(NotAnswered, match="is the `return` missing"):
        close(None, 2.0)


@question("Q1", "Divide by T.")
def check(answer):
    close(answer(), 2.0, MISTAKES)
    that(answer() > 1, "too small")


def todo():
    raise NotImplementedError()


def broken():
    return [].missing


@pytest.mark.parametrize(
    "answer, kind, says",
    [
        (todo, NotAnswered, "^Q1: not answered yet. Divide by T.$"),
        (None, NotAnswered, "^Q1: not answered yet. Divide by T.$"),
        (lambda: 4.0, Mistake, "^Q1: twice too much$"),
        (broken, Mistake, "^Q1: your code raised AttributeError: 'list' object"),
    ],
)
def test_a_question_begins_its_messages_with_its_name(answer, kind, says):
    with pytest.raises(kind, match=says):
        check(answer)


def test_a_right_answer_is_said_to_be_right(capsys):
    check(lambda: 2.0)
    assert capsys.readouterr().out == "Q1: right\n"


def test_jupyter_shows_the_message_and_the_learners_own_lines():
    with pytest.raises(Mistake) as caught:
        check(broken)
    lines = caught.value._render_traceback_()
    assert lines[-1].startswith("Mistake: Q1: your code raised AttributeError")
    functions = [line.split(",")[0] for line in lines[:-1]]
    assert functions == ["  in check", "  in broken"]  # both of this file, none of ours
    assert lines[-2].endswith("return [].missing")
    with pytest.raises(Mistake) as caught:
        check(lambda: -2)
    assert caught.value._render_traceback_() == ["Mistake: Q1: the sign"]
