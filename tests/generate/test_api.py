"""The API teacher: every fault ends in an answer or a reason, and no key shows."""

import asyncio
import json
import logging
import os
import random
import re
import signal
import threading
import time
import traceback

import openai._base_client as client
import pytest

from helpers import tracks
from helpers.generate import (
    ApiTeacher,
    Budget,
    BudgetSpent,
    Request,
    Sampling,
    TeacherError,
    api,
    generate_answers,
)
from tests.servers import fault_server

KEY = "sk-a-very-secret-key-0123456789"
GREEDY = Sampling(max_new_tokens=40)
WAITS = client.INITIAL_RETRY_DELAY, api.PAUSE


@pytest.fixture
def server():
    with fault_server() as server:
        yield server


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """A key to find; back-off in hundredths of seconds."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(client, "INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr(api, "PAUSE", 0.01)


def make(server, **settings):
    settings = {"concurrency": 4, "timeout": 5, "retries": 3, **settings}
    return ApiTeacher("m", server.url, **settings)


def ask(server, *scripts, **settings):
    """What the teacher replies to these prompts, in their order; each exactly once."""
    requests = (Request([{"role": "user", "content": s}], 7) for s in scripts)
    replies = list(make(server, **settings).replies(requests, GREEDY))
    assert sorted(i for i, _ in replies) == list(range(len(scripts)))
    return [reply for _, reply in sorted(replies, key=lambda pair: pair[0])]


# ---------------------------------------------------------------- faults


def test_many_faults_lose_no_row_double_none_and_mix_up_none(server):
    faults = ["fine", "500 fine", "cut fine", "broken slow", "empty fine", "wait fine"]
    faults += ["503 500 fine", "reset fine", "html shape fine", "slow", "408 fine"]
    scripts = [f"{faults[i % len(faults)]} #{i}" for i in range(110)]
    replies = ask(server, *scripts, concurrency=8)
    assert [r.text for r in replies] == [f"answer to {s}" for s in scripts]
    assert all(r.finish_reason == "stop" and not r.error for r in replies)
    assert server.most_busy <= 8


@pytest.mark.parametrize("fault", ["500", "cut", "reset", "broken", "html", "shape"])
def test_a_fault_that_stays_is_an_error_with_its_reason(server, fault):
    reason = {"500": "500: no", "cut": "broke", "reset": "broke"}
    fine, failed = ask(server, "fine", fault, retries=1)
    assert fine.text and not failed.text and failed.finish_reason == "error"
    assert reason.get(fault, "no chat completion") in failed.error


@pytest.mark.parametrize(
    "fault, reason, times",
    [
        ("empty", "empty", api.TRIES),
        ("refuse", "refused: I will not", 1),
        ("filter", "refused: .*filter", 1),
        ("flagged", "403: .*flagged", 1),
        ("tool", "called a tool", 1),
        ("thinking", "raise max_new_tokens", 1),
        ("400", "400: no", 1),
        ("422", "422: no", 1),
    ],
)
def test_no_answer_is_an_error_asked_for_again_only_where_it_helps(
    server, fault, reason, times
):
    (reply,) = ask(server, fault)
    assert re.search(reason, reply.error), reply.error
    assert (reply.text, reply.finish_reason) == ("", "error")
    assert len(server.requests) == times


def test_every_paid_token_is_counted(server):
    again, failed, uncounted = ask(server, "empty empty fine", "empty", "uncounted")
    assert (again.prompt_tokens, again.completion_tokens) == (30, 15)
    assert (failed.prompt_tokens, failed.completion_tokens) == (30, 15)
    assert (uncounted.prompt_tokens, uncounted.completion_tokens) == (0, 0)


def test_thoughts_are_no_part_of_the_answer(server):
    scripts = ["think", "reason", "length", "half"]
    think, reason, cut, half = ask(server, *scripts)
    assert think.text == "answer to think" and reason.text == "answer to reason"
    assert cut.text == "answer to length" and cut.finish_reason == "length"
    assert half.text == "good ?"
    assert api.answer_only("so far.</think> 42 ") == "42"


@pytest.mark.parametrize("fault", ["hang", "trickle", "heads"])
def test_the_whole_of_a_request_is_bounded_in_time(server, fault):
    start = time.monotonic()
    (reply,) = ask(server, fault, timeout=0.3, retries=1)
    assert "within 0.3 s" in reply.error and len(server.requests) == 2
    assert 0.6 < time.monotonic() - start < 5


def test_a_night_of_failures_is_stopped_and_quotes_the_last(server):
    replies = []
    requests = (
        Request([{"role": "user", "content": f"500 #{i}"}], 0) for i in range(99)
    )
    teacher = make(server, retries=0, patience=5)
    with pytest.raises(TeacherError, match="5 requests in a row .*500: no"):
        for _, reply in teacher.replies(requests, GREEDY):
            replies.append(reply)
    assert 5 <= len(replies) < 5 + 4 == 5 + teacher.concurrency


def test_failures_among_answers_do_not_stop_the_run(server):
    assert len(ask(server, *["500", "fine"] * 20, retries=0, concurrency=1)) == 40


# ---------------------------------------------------------------- waits


@pytest.mark.parametrize(
    "script, at_least",
    [
        ("500 fine", 0.37),  # half a second, less up to a quarter at random
        ("wait wait fine", 0.8),
        ("date fine", 1.0),
        ("empty fine", 1.0),
    ],
)
def test_the_wait_before_another_try(server, monkeypatch, script, at_least):
    monkeypatch.setattr(client, "INITIAL_RETRY_DELAY", WAITS[0])
    monkeypatch.setattr(api, "PAUSE", WAITS[1])
    (reply,) = ask(server, script)
    assert reply.text and at_least <= server.times(script)[-1] < at_least + 2


def test_a_wait_beyond_what_the_client_honours_is_honoured(server, monkeypatch):
    monkeypatch.setattr(client, "MAX_RETRY_AFTER_DELAY", 0.5)
    (reply,) = ask(server, "long fine")
    assert reply.text and 1.0 <= server.times("long fine")[-1] < 3


def test_a_wait_that_is_too_long_stops_the_run_and_says_when(server):
    with pytest.raises(TeacherError, match="1,440 minutes.*answers are kept"):
        ask(server, "tomorrow")
    assert len(server.requests) == 1


@pytest.mark.parametrize("header", ["", "soon", "-1", "nan", "Mon, 99 Foo"])
def test_a_senseless_retry_after_is_no_wait(header):
    assert api._retry_after({"retry-after": header}) == 0


# ---------------------------------------------------------------- nothing can work


@pytest.mark.parametrize(
    "fault, cure",
    [
        ("401", "OPENAI_API_KEY to a valid"),
        ("402", "top up"),
        ("403", "allow it"),
        ("404", "no model 'm'.*ends in /v1"),
        ("quota", "top up"),
    ],
)
def test_what_no_request_can_mend_is_one_clear_exception(server, fault, cure):
    with pytest.raises(TeacherError, match=cure) as caught:
        ask(server, *[fault] * 50, retries=1)
    assert len(server.requests) <= 8  # those under way, tried twice where it may help
    assert KEY not in shown(caught.value)


def test_replies_under_way_are_delivered_before_the_exception(server):
    got = []
    requests = [Request([{"role": "user", "content": s}], 0) for s in ("slow", "401")]
    with pytest.raises(TeacherError):
        for position, reply in make(server).replies(requests, GREEDY):
            got.append((position, reply.text))
    assert got == [(0, "answer to slow")]


def test_no_server_at_all_is_one_clear_exception(server):
    with fault_server() as gone:
        pass
    with pytest.raises(TeacherError, match="no server answers at .*start it"):
        ask(gone, *["fine"] * 9, retries=1)


# ---------------------------------------------------------------- the protocol


def test_requests_are_pulled_only_when_they_can_be_sent(server):
    pulled = []

    def feed():
        for i in range(30):
            pulled.append(i)
            yield Request([{"role": "user", "content": f"slow #{i}"}], 0)

    for count, _ in enumerate(make(server).replies(feed(), GREEDY)):
        assert len(pulled) <= count + 4
    assert count == 29 and server.most_busy == 4


def test_what_is_under_way_is_finished_when_the_requests_end(server):
    replies = []

    def feed():  # a budget of five replies
        for i in range(99):
            if len(replies) >= 5:
                return
            yield Request([{"role": "user", "content": f"slow #{i}"}], 0)

    for pair in make(server).replies(feed(), GREEDY):
        replies.append(pair)
    assert 5 <= len(replies) <= 5 + 4 and len(replies) == len(server.requests)
    assert sorted(i for i, _ in replies) == list(range(len(replies)))


def left_behind():
    return [t for t in threading.enumerate() if t.name == "api-teacher"]


def test_a_caller_who_leaves_early_is_not_held_up(server):
    scripts = ["fine", "hang", "hang", "trickle"]
    requests = [Request([{"role": "user", "content": s}], 0) for s in scripts]
    replies = make(server, timeout=30).replies(requests, GREEDY)
    assert next(replies)[0] == 0
    start = time.monotonic()
    replies.close()
    assert time.monotonic() - start < 3 and not left_behind()


def test_an_interrupted_cell_stops_at_once(server):
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        ask(server, "hang", "500", timeout=30, retries=50)
    assert time.monotonic() - start < 4 and not left_behind()


def test_it_runs_where_an_event_loop_is_running_as_in_a_notebook(server):
    async def cell():
        return ask(server, "fine")

    assert asyncio.run(cell())[0].text == "answer to fine"


def test_every_setting_is_sent(server):
    settings = {"max_tokens": None, "max_completion_tokens": 9}
    teacher = make(server, extra_body=settings)
    request = Request([{"role": "user", "content": "fine"}], 2**40 + 5)
    for t in (make(server), teacher):
        list(t.replies([request], Sampling(9, 0.7, 0.9)))
    plain, changed = (body for _, _, body, _ in server.requests)
    common = {"model": "m", "messages": request.messages, "temperature": 0.7}
    common |= {"top_p": 0.9, "seed": 5}
    assert plain == common | {"max_tokens": 9}
    assert changed == common | {"max_completion_tokens": 9}
    assert teacher.describe()["extra_body"] == settings


def test_a_proxy_for_the_web_is_not_asked_for_this_machine(server, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert ask(server, "fine")[0].text


# ---------------------------------------------------------------- the key


def shown(error):
    """All that a traceback may show of an exception and of what led to it."""
    chain = [error, error.__cause__, error.__context__]
    return "".join(traceback.format_exception(error)) + repr(chain)


def test_the_key_is_sent_and_shown_nowhere(server, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    scripts = ["fine", "echo", "say", "broken", "html", "shape", "400", "422", "500"]
    replies = ask(server, *scripts, retries=1)
    assert {h["Authorization"] for *_, h in server.requests} == {f"Bearer {KEY}"}
    teacher = make(server)
    shown_texts = [repr(replies), repr(teacher), repr(vars(teacher)), caplog.text]
    shown_texts += [repr(teacher.describe()), *capfd.readouterr()]
    assert caplog.text and not any(KEY in text for text in shown_texts)
    assert replies[2].text == "your key is [key]" and "[key]" in replies[1].error


def test_no_part_of_the_key_is_left_where_a_long_error_is_cut(server):
    (reply,) = ask(server, "far")
    assert "xxx" in reply.error and "sk-" not in reply.error


@pytest.mark.parametrize(
    "key", ["sk-one two-three", "sk-line\nbreak-9", "sk-ключ-12345"]
)
def test_a_key_that_cannot_be_sent_is_refused_without_showing_it(
    server, monkeypatch, key
):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(TeacherError, match="OPENAI_API_KEY holds") as caught:
        make(server)
    assert key not in shown(caught.value) and key[:8] not in str(caught.value)


def test_a_key_may_end_in_a_line_break_as_files_do(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    assert ask(server, "fine")[0].text


def test_only_a_server_on_this_machine_needs_no_key(server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    assert ask(server, "fine")[0].text
    with pytest.raises(TeacherError, match="environment variable OPENAI_API_KEY"):
        ApiTeacher("m", "https://models.example/v1")
    ApiTeacher("m", "http://models.example/v1", key_variable="")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.warns(UserWarning, match="unencrypted"):
        ApiTeacher("m", "http://models.example/v1")


@pytest.mark.parametrize(
    "url",
    ["models.example/v1", "ftp://a/v1", "https://me:sk@a/v1", "https://a/?key=sk"],
)
def test_an_address_that_cannot_work_or_holds_a_key_is_refused(url):
    with pytest.raises(TeacherError, match="address"):
        ApiTeacher("m", url)


@pytest.mark.parametrize("bad", [{"concurrency": 0}, {"timeout": 0}, {"retries": -1}])
def test_bad_settings_are_refused(server, bad):
    with pytest.raises(ValueError, match="must be"):
        make(server, **bad)


def test_a_track_with_an_address_gives_its_teacher(track):
    teacher = ApiTeacher.of(tracks.load("api"), concurrency=2)
    assert teacher.describe()["model"] == tracks.load("api").teacher
    assert teacher.concurrency == 2
    with pytest.raises(TeacherError, match="COURSE_TRACK=api"):
        ApiTeacher.of(track)


# ---------------------------------------------------------------- answers in a file


def prompts(*scripts):
    rows = [{"id": i, "messages": [{"role": "user", "content": s}]}
            for i, s in enumerate(scripts)]  # fmt: skip
    return rows


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(server, rows, path, teacher=None, **settings):
    teacher = teacher or make(server, retries=1)
    return generate_answers(teacher, rows, path, progress=False, **settings)


def test_answers_and_failures_are_on_disk_and_the_key_is_not(server, tmp_path):
    rows = prompts("fine", "say", "echo", "refuse", "400", "500 fine", "html", "filter")
    with pytest.warns(UserWarning, match="5 of 8 answers are missing"):
        answered = run(server, rows, tmp_path / "a.jsonl")
    assert [row["id"] for row in answered] == [0, 1, 5]
    assert {row["id"] for row in lines(tmp_path / "a.failed.jsonl")} == {2, 3, 4, 6, 7}
    files = {path.name for path in tmp_path.iterdir()}
    assert {"a.jsonl", "a.failed.jsonl", "a.manifest.json"} <= files
    assert not any(KEY in path.read_text() for path in tmp_path.iterdir())


def test_an_often_interrupted_run_asks_for_no_answer_twice(server, tmp_path):
    rows = prompts(*[f"slow #{i}" for i in range(60)])
    stops, chance = 0, random.Random(0)
    while True:
        delay = chance.uniform(0.2, 0.6) + stops / 10  # in the end it gets through
        timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        try:
            answered = run(server, rows, tmp_path / "a.jsonl")
            timer.cancel()
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops >= 2
    assert [row["messages"][1]["content"] for row in answered] == [
        f"answer to slow #{i}" for i in range(60)
    ]
    assert sorted(row["id"] for row in lines(tmp_path / "a.jsonl")) == list(range(60))
    assert len(server.requests) <= 60 + 4 * stops


def test_another_server_of_the_same_model_goes_on_with_the_file(server, tmp_path):
    rows = prompts("fine", "401 fine")
    with fault_server() as before, pytest.raises(TeacherError, match="valid"):
        run(before, rows, tmp_path / "a.jsonl")
    assert len(lines(tmp_path / "a.jsonl")) == 1
    assert len(run(server, [rows[0]], tmp_path / "a.jsonl")) == 1
    assert not server.requests


def test_a_budget_ends_the_run_and_what_was_paid_is_kept(server, tmp_path):
    rows = prompts(*[f"slow #{i}" for i in range(30)])
    settings = {"max_new_tokens": 8}
    with pytest.raises(BudgetSpent, match="are in"):
        run(server, rows, tmp_path / "a.jsonl", budget=Budget(tokens=200), **settings)
    paid = len(lines(tmp_path / "a.jsonl"))
    assert 200 - 4 * 18 <= 15 * paid <= 200 and paid == len(server.requests)
    budget = Budget(tokens=1000)
    assert len(run(server, rows, tmp_path / "a.jsonl", budget=budget, **settings)) == 30
    assert len(server.requests) == 30
