"""How threads should wait: `python -m tests.benchmarks.threads`.

A process for each policy (one thread; two with the libraries' own wait, a passive one,
or a bounded one) takes its turn at the same work, on the machine as it is and beside
two busy loops: steps of `fit` from text and with the live teacher, answers of the
teacher, the fused loss head. The best turn counts. Writes
notebooks/results/threads.json; `helpers.threads` follows it.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable

import pandas

from helpers.threads import BOUNDS

POLICIES = {
    "1 thread": (1, {}),
    "2, own wait": (2, {}),
    "2, passive": (2, {"OMP_WAIT_POLICY": "passive"}),
    "2, bounded": (2, BOUNDS),
}
WORK = {"text, ms a step": 20, "live, ms a step": 4, "24 answers, s": 1, "head, s": 1}
LOOPS = 2
COLUMNS = ["busy loops", "policy", *WORK]


def work() -> dict[str, Callable[[int], float]]:
    """What is timed; each takes how often and returns the time of one."""
    import copy

    import torch

    from helpers import data, generate, models, tracks, world
    from helpers.train import fit
    from tests.benchmarks import loss_head

    track = tracks.load("tiny")
    tracks.settle(track, 0)
    teacher, base = models.load_teacher(track), models.load_student(track)
    examples = world.examples("train", 400)
    rows = data.encode_chat([e.row() for e in examples], base.tokenizer)
    prompts = [list(e.messages) for e in examples[:24]]
    head = loss_head.inputs((512, 32768, 256, 512), "cpu", torch.float32)

    def steps(source, count: int) -> float:
        student = copy.deepcopy(base.model).requires_grad_(True)
        settings = {"batch_size": 32, "learning_rate": 1e-3, "progress": False}
        if source is not None:
            settings |= {"soft_weight": 1.0, "temperature": 1.0}
        history = fit(student, rows, teacher=source, steps=count, **settings)
        return 1000 * history.seconds / count

    def timed(action: Callable) -> Callable[[int], float]:
        def measure(count: int) -> float:
            start = time.perf_counter()
            for _ in range(count):
                action()
            return (time.perf_counter() - start) / count

        return measure

    actions = (
        lambda count: steps(None, count),
        lambda count: steps(teacher.model, count),
        timed(lambda: generate.answer(*teacher, prompts)),
        timed(lambda: loss_head.step(loss_head.ours, head, 0.5)),
    )
    return dict(zip(WORK, actions, strict=True))


def serve(threads: int) -> None:
    """One policy's process: a line asks for a piece of work, a line says its time."""
    actions = work()
    import torch

    torch.set_num_threads(threads)
    for name in WORK:
        actions[name](1)  # the first call loads code
    print("ready", flush=True)
    for line in sys.stdin:
        print(actions[line.strip()](WORK[line.strip()]), flush=True)


def start(threads: int, settings: dict[str, str]) -> subprocess.Popen:
    known = (*BOUNDS, "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
    clean = {k: v for k, v in os.environ.items() if k not in known}
    # The processes import helpers, which would bound the wait: 300,000 is the default.
    own = {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}
    own = {} if "OMP_WAIT_POLICY" in settings else own
    command = [sys.executable, "-m", "tests.benchmarks.threads", "--serve"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(
        [*command, str(threads)], env=clean | own | settings, **pipes
    )
    assert process.stdout.readline() == "ready\n"
    return process


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.serve)
    from helpers import data
    from helpers.course import record

    processes = {name: start(*policy) for name, policy in POLICIES.items()}
    rows = []
    for count in (0, LOOPS):
        busy = [sys.executable, "-c", "while True: pass"]
        loops = [subprocess.Popen(busy) for _ in range(count)]
        found: dict[str, dict] = {name: {} for name in POLICIES}
        try:
            for _ in range(options.rounds):
                for what in WORK:
                    for name, process in processes.items():
                        process.stdin.write(f"{what}\n")
                        process.stdin.flush()
                        seconds = float(process.stdout.readline())
                        before = found[name].get(what, seconds)
                        found[name][what] = round(min(seconds, before), 3)
        finally:
            for loop in loops:
                loop.kill()
        rows += [[count, name, *times.values()] for name, times in found.items()]
    for process in processes.values():
        process.stdin.close()
    card = data.run_card(
        "python -m tests.benchmarks.threads",
        rounds=options.rounds,
        cores=os.cpu_count(),
        bounds=BOUNDS,
    )
    data.write_results(record.RESULTS / "threads.json", COLUMNS, rows, card)
    print(pandas.DataFrame(rows, columns=COLUMNS).to_string(index=False))


if __name__ == "__main__":
    main()
