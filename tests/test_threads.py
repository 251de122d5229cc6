"""Threads that wait a little: fast on an idle machine, and no cliff on a busy one."""

import os
import subprocess
import sys

import pytest

from helpers import threads

CLEAN = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", *threads.BOUNDS)


@pytest.fixture
def clean(monkeypatch):
    for name in CLEAN:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_two_threads_where_the_wait_is_bounded_else_one(clean):
    clean.setattr(threads, "cores", lambda: 8)
    assert threads.number() == 1
    clean.setitem(sys.modules, "torch", None)
    del sys.modules["torch"]
    threads.bound_waiting()
    assert os.environ["GOMP_SPINCOUNT"] == threads.BOUNDS["GOMP_SPINCOUNT"]
    assert threads.number() == 2
    clean.setattr(threads, "cores", lambda: 1)
    assert threads.number() == 1


def test_too_late_changes_nothing_and_what_the_user_set_stays(clean):
    clean.setitem(sys.modules, "torch", sys)
    threads.bound_waiting()
    assert not set(threads.BOUNDS) & set(os.environ)
    clean.delitem(sys.modules, "torch")
    clean.setenv("GOMP_SPINCOUNT", "7")
    threads.bound_waiting()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    clean.setenv("GOMP_SPINCOUNT", "infinite")
    assert threads.number() == 1
    clean.delenv("GOMP_SPINCOUNT")
    clean.delenv("KMP_BLOCKTIME")
    clean.setenv("OMP_WAIT_POLICY", "passive")
    threads.bound_waiting()
    clean.setattr(threads, "cores", lambda: 8)
    assert "GOMP_SPINCOUNT" not in os.environ and threads.number() == 2
    clean.setenv("OMP_WAIT_POLICY", "active")
    assert threads.number() == 1
    for asked, meant in (("3", 3), (" 2 ", 2), ("4,2", 4)):
        clean.setenv("OMP_NUM_THREADS", asked)
        assert threads.number() == meant
    for wrong in ("0", "-1", "many", "²"):
        clean.setenv("OMP_NUM_THREADS", wrong)
        with pytest.raises(ValueError, match="give a whole number"):
            threads.number()


PROGRAM = """
import time
from helpers import generate, models, tracks, world
import torch
track = tracks.setup()
asked = [e.question()["messages"] for e in world.examples("test", 12)]
chat = models.load_student(track)
for usual in (torch.get_num_threads(), 1) * 4:
    torch.set_num_threads(usual)
    start = time.perf_counter()
    generate.answer(*chat, asked)
    print(time.perf_counter() - start)
"""


@pytest.mark.slow
def test_beside_a_busy_process_there_is_no_cliff():
    """Twelve answers take no more than a few times what they take with one thread,
    which waits for nobody. With the libraries' own bound it is ten times and more."""
    clean = {k: v for k, v in os.environ.items() if k not in CLEAN}
    busy = [sys.executable, "-c", "while True: pass"]
    loops = [subprocess.Popen(busy) for _ in range(os.cpu_count() or 1)]
    try:
        said = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=clean, capture_output=True, text=True
        ).stdout
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    seconds = [
        float(line) for line in said.splitlines()[-6:]
    ]  # the first round warms up
    ratio = min(usual / one for usual, one in zip(*[iter(seconds)] * 2, strict=True))
    assert ratio < 5, f"two threads take {ratio:.1f} times the time of one: {seconds}"
