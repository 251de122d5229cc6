"""One submission, examined from outside its sandbox.

The lab's own cells run with nothing but the learner's answers put in. Where a test
stands, the process is copied; after the last cell the tests are sent, each to its copy.
Nothing that a sandbox says is believed without the token of the test, and tests that
must fail are sent along with those that should pass. Where an answer hangs or ends its
process, another sandbox goes on without that cell.
"""

import ast
import random
import re
import secrets
import socket
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path

from .masters import Cell, names
from .namespaces import NoSandbox
from .sandbox import (
    START_SECONDS,
    TEXT,
    Limits,
    Sandbox,
    Stopped,
    TooSlow,
    receive,
    send,
)

# Each must fail: a process in which one passes has been tampered with.
CANARIES = (
    "assert {a} == {b}",
    "raise AssertionError({a})",
    "import torch\ntorch.testing.assert_close(torch.tensor({a}), torch.tensor({b}))",
    "from helpers.labs import checks\nchecks.close({a}, {b})",
    "from helpers.labs import checks\nchecks.that({a} == {b}, '')",
)
VALUES = re.compile(r"the (?:shape|answer) (?:is|holds) .*?\.(?: |$)")  # checks.close
RAISED = re.compile(r"(your code raised \w+): .*", re.S)  # checks.question
HIDDEN = (
    "the visible check passes, but a hidden test does not: is your answer right for "
    "other inputs than those of the check?"
)


class Examination:
    """One learner's answers to the lab `name`, run and tested; `verdicts` by grade_id.

    `sources` holds what stands in for cells: the answers. A verdict is (fraction of the
    points, message); `errors` and `printed` say how the answer cells ended, `notes`
    what the instructor should know.
    """

    def __init__(
        self,
        name: str,
        cells: list[Cell],
        sources: dict[str, str],
        limits: Limits,
        kind: str,
    ):
        self.name, self.cells, self.sources = name, cells, sources
        self.limits, self.kind = limits, kind
        self.verdicts: dict[str, tuple[float, str]] = {}
        self.values: dict[str, float | None] = {}  # what the visible checks ended in
        self.errors: dict[str, str] = {}
        self.printed: dict[str, str] = {}
        self.notes: list[str] = []
        self.left_out: dict[str, str] = {}
        self.tests = [cell for cell in cells if cell.kind == "test"]
        self.spent = 0.0  # seconds, in the sandboxes before this one
        self.cancelled = False
        self.room: Sandbox | None = None

    def run(self) -> None:
        for _ in self.cells:  # each attempt leaves out a cell, or settles a question
            with Sandbox(self.limits, self.kind) as self.room:
                if not self.cancelled:
                    self._attempt()
            late = self.spent > self.limits.total_seconds
            if len(self.verdicts) == len(self.tests) or late or self.cancelled:
                break
        for name, error in self.errors.items():
            if error and not error.startswith("NotImplementedError"):
                self.notes.append(f"{name} ended in {error.splitlines()[0][:100]}")
        for name, why in self.left_out.items():
            self.notes.append(f"{name}: {why}; the rest was graded without it")
        for test in self.tests:
            why = f"not reached within {self.limits.total_seconds:.0f} s"
            self.verdicts.setdefault(test.name, (0.0, why))

    def cancel(self) -> None:
        """From another thread: end this examination, its results are of no use."""
        self.cancelled = True
        if self.room is not None:
            self.room.close()

    def _attempt(self) -> None:
        """Run the cells in one sandbox, then test what could be reached."""
        copies: dict[str, socket.socket] = {}
        try:
            self._start()
            self._run_cells(copies)
            ready = [test for test in self.tests if test.name in copies]
            # First what is visible: no answer has met a hidden test that it could tell.
            for ask in (self._ask_visible, self._ask_hidden):
                for test in ready:
                    if test.name not in self.verdicts:
                        self._test(test, copies[test.name], ask)
        except Stopped:
            pass  # what stopped it is known; another attempt goes on without it
        finally:
            self.spent += self.room.clock()
            for line in copies.values():
                line.close()

    def _start(self) -> None:
        answers = [cell.source for cell in self.cells if cell.kind == "answer"]
        module = Path(__file__).parents[1] / "checks" / f"{self.name[:5]}.py"
        modules = ["helpers.labs.checks"]
        modules += [f"helpers.labs.checks.{module.stem}"] if module.exists() else []
        # What a hidden test will use must be known before anybody can put another in
        # its place, also where no cell before it has named it.
        trusted = [cell.source for cell in self.cells if cell.kind != "answer"]
        modules += wings_in([*trusted, *(cell.hidden for cell in self.cells)])
        theirs = sorted(set().union(*(names(source)[0] for source in answers)))
        try:
            self.room.ask({"modules": modules, "theirs": theirs}, START_SECONDS)
        except Stopped as stopped:
            if self.cancelled:
                raise
            raise NoSandbox(
                f"the sandbox ({self.kind}) does not start: {stopped}. "
                "Try another one with --sandbox"
            ) from None

    def _run_cells(self, copies: dict[str, socket.socket]) -> None:
        last = max(map(self.cells.index, self.tests), default=0)
        for cell in self.cells[: last + 1]:
            if cell.kind == "test" and cell.name not in self.verdicts:
                copies[cell.name] = self._copy(cell)
            if cell.kind not in ("lab", "answer") or cell.name in self.left_out:
                continue
            given = cell.source if cell.kind == "lab" else ""
            source = self.sources.get(cell.name, given)
            message = {"do": "run", "source": source, "trusted": cell.kind == "lab"}
            if (seconds := self._seconds()) <= 0:
                return
            try:
                said = self.room.ask(message, seconds)
            except TooSlow as slow:  # it still runs, but the copies can be tested
                self.left_out[cell.name] = str(slow)
                return
            except Stopped as stopped:
                self.left_out[cell.name] = str(stopped)
                raise
            if cell.kind == "answer":
                self.errors[cell.name] = str(said.get("error", ""))[:TEXT]
                self.printed[cell.name] = str(said.get("text", ""))[:TEXT]

    def _copy(self, test: Cell) -> socket.socket:
        """Have the process copied, as it is now, for a test that comes later."""
        ours, theirs = socket.socketpair()
        try:
            send(self.room.line, {"do": "copy"})
            socket.send_fds(self.room.line, [b"c"], [theirs.fileno()])
            theirs.close()
            end = self.room.clock() + START_SECONDS
            receive(ours, lambda: self.room.clock() > end)
        except (OSError, Stopped) as error:
            ours.close()
            why = self.room.reason or error
            self.verdicts[test.name] = 0.0, f"could not be tested: {why}"
            raise Stopped(str(why)) from None
        return ours

    def _test(self, test: Cell, line: socket.socket, ask: Callable) -> None:
        """The verdict on one question, if it is one, from its copy of the process."""
        try:
            if verdict := ask(test, line):
                self.verdicts[test.name] = verdict
        except Stopped as stopped:
            if isinstance(stopped, TooSlow):
                why = f"your answer took longer than {self.limits.cell_seconds:.0f} s"
            else:
                why = f"while it was tested: {stopped}"
            self.verdicts[test.name] = 0.0, why
            self.notes.append(f"{test.name}: {why}")
            # Where the watcher ends one copy it ends them all.
            if self.room.reason or self.room.process.poll() is not None:
                raise

    def _ask_visible(self, test: Cell, line: socket.socket) -> tuple | None:
        if tampered := self._canaries(test, test.source, line):
            return tampered
        verdict = self._verdict(test.source, line)
        if not verdict["passed"]:
            return 0.0, verdict["said"] or "the visible check fails"
        self.values[test.name] = verdict.get("value")
        return None

    def _ask_hidden(self, test: Cell, line: socket.socket) -> tuple[float, str]:
        value = self.values[test.name]
        if test.hidden:
            verdict = self._verdict(test.hidden, line)
            if not verdict["passed"]:
                return 0.0, _hidden(verdict)
            value = verdict.get("value")
        if tampered := self._canaries(test, test.hidden or test.source, line):
            return tampered
        if not isinstance(value, float | int):
            return 1.0, ""
        if not 0 <= value <= test.points:  # nor is NaN
            self.notes.append(f"{test.name} gave {value} of {test.points:g} points")
            return 0.0, "the test gave no number of points; ask your instructor"
        return value / test.points, "partly right" if value < test.points else ""

    def _canaries(self, test: Cell, real: str, line: socket.socket) -> tuple | None:
        """Some tests that must fail, in any order; one holds the whole of the real."""
        a, b = map(float, random.sample(range(1, 10**6), 2))
        chosen = [canary.format(a=a, b=b) for canary in random.sample(CANARIES, 3)]
        chosen.append(f"assert {a} == {b}\n{real}")
        for source in random.sample(chosen, len(chosen)):
            if self._verdict(source, line)["passed"]:
                self.notes.append(f"{test.name}: tampering: what must fail was passed")
                return 0.0, "the tests of this question had been tampered with"
        return None

    def _verdict(self, source: str, line: socket.socket) -> dict:
        token = secrets.token_hex(16)
        message = {"source": source, "token": token}
        verdict = self.room.ask(message, max(self._seconds(), 1), line)
        if verdict.get("token") != token:
            raise Stopped("it answered without having seen the test")
        changed = verdict.get("changed")
        if isinstance(changed, list) and changed:
            names = ", ".join(sorted({str(name)[:60] for name in changed})[:5])
            note = f"tampering: {names} replaced; restored for the tests"
            if note not in self.notes:
                self.notes.append(note)
        texts = {
            key: str(verdict.get(key, ""))[:TEXT] for key in ("said", "kind", "where")
        }
        return {**verdict, **texts, "passed": verdict.get("passed") is True}

    def _seconds(self) -> float:
        """What a cell may take now."""
        left = self.limits.total_seconds - self.spent - self.room.clock()
        return min(self.limits.cell_seconds, left)


def wings_in(sources: Iterable[str]) -> list[str]:
    """The modules of `helpers` that these cells import."""
    found = set()
    for source in sources:
        try:
            tree = ast.parse(re.sub(r"^\s*[%!].*$", "", source, flags=re.M))
        except SyntaxError:
            continue  # the cell itself will say so
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module == "helpers":
                found |= {f"helpers.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module or "")
    return sorted(m for m in found if m.startswith("helpers.") and find_spec(m))


def _hidden(verdict: dict) -> str:
    """What a learner may know of a hidden test that failed."""
    said = RAISED.sub(r"\1", VALUES.sub("", verdict["said"]))
    asserted = verdict["kind"] == "AssertionError" and said
    if asserted and verdict["where"] in ("test", "check"):
        return f"a hidden test: {said}"
    if verdict["where"] == "answer":
        return f"a hidden test: your code raised {verdict['kind']}"
    return HIDDEN
