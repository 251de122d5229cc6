"""The local server: the text of the model itself, and no server left behind."""

import socket
import subprocess
import sys

import pytest

from helpers import generate, world
from helpers.generate import Request, Sampling, TeacherError, serve, server

GREEDY = Sampling(max_new_tokens=40)


@pytest.fixture(scope="module")
def local(track):
    """`transformers serve` with the shipped teacher; about ten seconds to start."""
    with serve(track.teacher, device="cpu") as running:
        yield running
    assert running.process.poll() is not None


@pytest.mark.slow
def test_a_real_server_gives_the_greedy_text_of_the_model_itself(local, teacher):
    prompts = [list(e.messages) for e in world.examples("train", 3)]
    requests = [Request(prompt, 0) for prompt in prompts]
    replies = dict(local.teacher(concurrency=3).replies(requests, GREEDY))
    said = generate.answer(*teacher, prompts, max_new_tokens=40)
    assert [replies[i].text for i in range(3)] == said
    assert all(
        r.prompt_tokens > 0 and r.completion_tokens > 0 for r in replies.values()
    )


def test_bug_18_a_real_server_samples_when_asked_not_when_the_model_says(local):
    prompt = [{"role": "user", "content": "Write about boots and lamps"}]
    requests = [Request(prompt, seed) for seed in (1, 2, 1)]
    teacher = local.teacher()
    drawn = dict(teacher.replies(requests, Sampling(8, 1.5)))
    texts = [drawn[i].text for i in range(3)]
    assert texts[0] == texts[2] != texts[1]
    teacher.extra_body = {}  # the server alone: greedy, whatever the temperature
    drawn = dict(teacher.replies(requests, Sampling(8, 1.5)))
    assert len({reply.text for reply in drawn.values()}) == 1


def test_a_local_teacher_is_described_without_its_port_or_folder(local):
    described = local.teacher().describe()
    assert (described["model"], described["server"]) == ("teacher", "this machine")


def test_a_server_that_fails_to_start_shows_its_last_lines(track, monkeypatch):
    monkeypatch.setattr(server, "_PROGRAM", "raise SystemExit('no memory for this')")
    with pytest.raises(TeacherError, match="teacher/ is not ready(.|\n)*no memory"):
        serve(track.teacher)


def test_a_server_that_is_never_ready_is_stopped(track, monkeypatch):
    program = server._PROGRAM.split("from transformers")[0]
    monkeypatch.setattr(server, "_PROGRAM", program + "import time; time.sleep(60)")
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess,
        "Popen",
        lambda *a, **k: started.append(popen(*a, **k)) or started[0],
    )
    with pytest.raises(TeacherError, match="not ready"):
        serve(track.teacher, timeout=0.3)
    assert started[0].poll() is not None


def test_a_server_ends_with_the_process_that_started_it():
    program = (
        server._PROGRAM.split("from transformers")[0] + "import time; time.sleep(60)"
    )
    parent = (
        "import os, subprocess, sys; "
        "subprocess.Popen([sys.executable, '-c', sys.argv[1]], stdin=-1); "
        "print('started', flush=True); os.kill(os.getpid(), 9)"
    )
    # The server holds the other end of our pipe: `run` returns when both have ended.
    ended = subprocess.run(
        [sys.executable, "-c", parent, program], capture_output=True, timeout=20
    )
    assert ended.stdout.strip() == b"started"


def test_a_folder_without_a_model_and_a_taken_port_are_named(track, tmp_path):
    with pytest.raises(TeacherError, match="no model in"):
        serve(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(TeacherError, match="not free"):
            serve(track.teacher, port=taken.getsockname()[1])
