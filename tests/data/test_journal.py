"""The answers file: kills, full disks, locked folders, two writers."""

import json
import os
import random
import signal
import time
from contextlib import contextmanager

import pytest

from helpers import data
from helpers.data import DataError, Journal
from helpers.generate import Reply, generate_answers

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def row(i):
    return {"id": i, "messages": [{"role": "user", "content": f"number {i} é\u2028"}]}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.jsonl"


@contextmanager
def child(work):
    """Run `work` in a process of its own; the block gets its id and must reap it."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except DataError as error:
            os.write(2, str(error).encode())
            os._exit(3)
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(4)
        os._exit(0)
    yield pid


def exit_of(work):
    with child(work) as pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_rows_come_back(path):
    with Journal(path) as journal:
        for i in range(3):
            journal.append(row(i))
    with Journal(path) as journal:
        assert journal.rows == [row(i) for i in range(3)]
        journal.append(row(3))
    assert data.read_chat(path) == [row(i) for i in range(4)]


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_torn_line_is_cut_off_and_a_whole_one_is_kept(path, cut):
    with Journal(path) as journal:
        journal.append(row(0))
        journal.append(row(1))
    path.write_bytes(path.read_bytes()[:-cut])
    with Journal(path) as journal:  # one byte less: only the line break is missing
        assert journal.rows == [row(i) for i in range(2 if cut == 1 else 1)]
        journal.append(row(2))
    assert data.read_chat(path)[-1] == row(2)


# ---------------------------------------------------------------- two writers


@forks
def test_a_second_writer_is_refused_and_harms_nothing(path, capfd):
    def write():
        with Journal(path) as journal:
            journal.append(row(9))

    with Journal(path) as journal:
        journal.append(row(0))
        assert exit_of(write) == 3
        journal.append(row(1))
    assert "another process is writing" in capfd.readouterr().err
    assert exit_of(write) == 0, "the lock outlived the block"
    assert [r["id"] for r in data.read_chat(path)] == [0, 1, 9]


def test_a_lock_goes_with_an_error(path):
    path.write_text("not a conversation\n")
    for _ in range(2):
        with pytest.raises(DataError, match="line 1"), Journal(path):
            pass


# ---------------------------------------------------------------- the disk


@forks
def test_a_full_disk_keeps_whole_lines_and_says_so(path, capfd):
    import resource  # not on Windows, as fork

    def write():  # the kernel refuses every byte beyond the limit, as a full disk does
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with Journal(path) as journal:
            for i in range(100):
                journal.append(row(i))

    assert exit_of(write) == 3
    kept = data.read_chat(path)  # nothing torn
    assert kept == [row(i) for i in range(len(kept))] and len(kept) > 5
    message = capfd.readouterr().err
    assert f"disk is full: {len(kept)} rows are safe" in message
    assert "call again" in message


@forks
def test_a_read_only_folder_is_refused_before_anybody_is_asked(path, capfd):
    class Nobody:
        def replies(self, requests, sampling):
            raise AssertionError("asked the teacher")

    def write():
        if os.getuid() == 0:  # to whom nothing is read-only
            os.setuid(65534)
        generate_answers(Nobody(), [row(0)], path, progress=False)

    path.parent.chmod(0o500)
    assert exit_of(write) == 3
    path.parent.chmod(0o700)
    assert "a folder and file that you may write to" in capfd.readouterr().err


def test_a_folder_in_place_of_the_file_is_refused(path):
    path.mkdir()
    with pytest.raises(DataError, match="may write to"), Journal(path):
        pass


# ---------------------------------------------------------------- thirty kills


class Slow:
    """A teacher that answers at its pace, in an order of its own, and fails at times"""

    def __init__(self, seconds):
        self.seconds = seconds

    def describe(self):
        return {"model": "slow"}

    def replies(self, requests, sampling):
        todo = list(enumerate(requests))
        random.Random(len(todo)).shuffle(todo)
        for place, request in todo:
            time.sleep(self.seconds)
            text = request.messages[-1]["content"]
            fails = text.split()[1].endswith("7")
            yield place, Reply.failed("no") if fails else Reply(f"{text}!" * 20)


@pytest.mark.slow
@forks
def test_thirty_kills_lose_nothing_and_double_nothing(path):
    prompts = [row(i) for i in range(1500)]
    chance, kills = random.Random(0), 0

    def run():
        generate_answers(Slow(0.001), prompts, path, progress=False)

    for _ in range(30):
        with child(run) as pid:
            before = path.stat().st_size if path.exists() else 0
            while not path.exists() or path.stat().st_size == before:
                time.sleep(0.001)  # until it is at work
            time.sleep(chance.uniform(0, 0.03))
            os.kill(pid, signal.SIGKILL)
            kills += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    so_far = path.read_bytes().count(b"\n")
    assert kills == 30 and 30 <= so_far < 1350, "kills must fall in mid-run"
    with pytest.warns(UserWarning, match="150 of 1500 answers are missing"):
        answered = generate_answers(Slow(0), prompts, path, progress=False)
    failed = data.read_chat(path.with_suffix(".failed.jsonl"))
    on_disk = data.read_chat(path)
    assert len(on_disk) == 1350 and len(failed) == 150  # no line twice
    assert [r["id"] for r in answered] == [i for i in range(1500) if i % 10 != 7]
    assert sorted(r["id"] for r in failed) == list(range(7, 1500, 10))
    for r in answered:
        assert r["messages"][-1]["content"] == f"number {r['id']} é\u2028!" * 20
    assert {json.dumps(r, sort_keys=True) for r in answered} == {
        json.dumps(r, sort_keys=True) for r in on_disk
    }


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "half: \ud83d"])
def test_a_row_that_could_not_be_read_again_is_refused(tmp_path, value):
    path = tmp_path / "a.jsonl"
    with Journal(path) as journal:
        journal.append(row(1))
        with pytest.raises(DataError):
            journal.append({**row(2), "note": value})
        journal.append(row(3))
    with Journal(path) as journal:
        assert [r["id"] for r in journal.rows] == [1, 3]


def test_a_torn_line_is_found_without_reading_the_whole_file(tmp_path, monkeypatch):
    monkeypatch.setattr("helpers.data.journal.MAX_LINE", 300)
    path = tmp_path / "a.jsonl"
    with Journal(path) as journal:
        for number in range(50):
            journal.append(row(number))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"id": 99, "mess')
    with Journal(path) as journal:
        assert [r["id"] for r in journal.rows] == list(range(50))
    assert path.read_bytes() == whole
