"""How many threads torch uses, and how long one of them waits for another.

Training a small model is thousands of short parallel steps, and at the end of each the
threads wait for the slowest. By default a waiting thread keeps its core busy. On a
machine with other work (a browser, a video call) it burns the very core that the other
thread needs, and steps become tens of times slower. So the wait is bounded: a thread
that has waited a little goes to sleep. The libraries read the bound when torch is
loaded, which is why `import helpers` sets it; processes started from here inherit it.

`python -m tests.benchmarks.threads` compares the ways of waiting, on an idle and on a
busy machine.
"""

import os
import sys

# How long a thread waits awake: turns of a loop for GNU's OpenMP (Linux), milliseconds
# for LLVM's and Intel's (macOS, Windows), which wait 200 by default.
BOUNDS = {"GOMP_SPINCOUNT": "3000", "KMP_BLOCKTIME": "1"}


def bound_waiting() -> None:
    """Set the bounds, unless torch is loaded already; what the user set stays."""
    if "torch" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
        for name, value in BOUNDS.items():
            os.environ.setdefault(name, value)


def number() -> int:
    """Threads to use: OMP_NUM_THREADS, else two where their wait is bounded, else one.

    Raises `ValueError` where OMP_NUM_THREADS is no whole number from 1.
    """
    if asked := os.environ.get("OMP_NUM_THREADS", "").strip():
        first = asked.split(",")[0]  # of nested levels, the outer one
        if not first.isdecimal() or int(first) < 1:
            raise ValueError(f"OMP_NUM_THREADS={asked}: give a whole number from 1")
        return int(first)
    passive = os.environ.get("OMP_WAIT_POLICY", "").lower() == "passive"
    bounded = all(os.environ.get(name, "").isdecimal() for name in BOUNDS)
    return min(2 if bounded or passive else 1, cores())


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
