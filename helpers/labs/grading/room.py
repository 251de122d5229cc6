"""Inside the sandbox: run a learner's cells, and keep a copy of the process a question.

`helpers.grade` sends the cells of a lab in order. Where a graded cell stands, the
process is copied (fork): the copy has everything that the learner defined up to there,
and waits. Only after the last cell has run are the tests sent, each to its copy, so no
cell of the learner's can see a hidden test. A verdict carries a token that came with
its test. What a copy runs is judged in the copy: a function that was written to find
out that it is being tested, and to alter the process, cannot be kept from it.
"""

import ast
import builtins
import importlib
import io
import json
import os
import re
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Iterable, Iterator, Set
from contextlib import redirect_stderr, redirect_stdout
from types import CodeType, ModuleType

from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from .guard import Guard, codes, load_faces
from .sandbox import MIB, TEXT, Limits, Stopped, receive, send

ADDRESSES = 4096 * MIB  # what torch maps without using it
FILES = 256  # open at a time
TEST = "<test>"  # the file name of tests in tracebacks
CHAIN = 20  # errors raised in answer to another that are looked at


def main() -> None:
    """`python -c … SOCKET LIMITS KIND`, as `sandbox` starts it."""
    number, limits, kind = sys.argv[1:]
    limits = Limits(**json.loads(limits))
    line = socket.socket(fileno=int(number))
    _limit(limits, kind)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    try:
        Room(line, limits).serve()
    except Stopped:
        pass  # the judge has gone


def _limit(limits: Limits, kind: str) -> None:
    """What the operating system itself keeps, for this process and its children."""
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, limits.file_mib * MIB)
    _lower(resource.RLIMIT_CPU, int(2 * limits.total_seconds) + 60)
    _lower(resource.RLIMIT_AS, limits.memory_mib * MIB + ADDRESSES)
    _lower(resource.RLIMIT_NOFILE, FILES)
    if kind != "limits" and _kernel() >= (5, 14):  # or all of the user's would count
        _lower(resource.RLIMIT_NPROC, limits.processes)


def _kernel() -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))


def _lower(what: int, value: int) -> None:
    try:
        resource.setrlimit(what, (value, value))
    except (ValueError, OSError):
        pass  # lower already, or not on this system


class Text(io.StringIO):
    """A stream that keeps the beginning of what is written, however much that is."""

    def write(self, text: str) -> int:
        super().write(text[: max(0, TEXT - self.tell())])
        return len(text)


class Room:
    """One learner's session: cells run one after the other in one namespace."""

    def __init__(self, line: socket.socket, limits: Limits):
        self.line, self.limits, self.owner = line, limits, os.getpid()
        config = Config()
        config.HistoryManager.enabled = False
        config.InteractiveShell.colors = "nocolor"
        self.shell = InteractiveShell.instance(config=config)
        self.shell.showtraceback = self.shell.showsyntaxerror = lambda *_, **__: None
        self.run_cell = self.shell.run_cell  # before anybody can exchange it
        self.first = set(self.shell.user_ns)  # IPython's own names
        self.names: dict[str, object] = {}  # what the lab's own cells defined
        self.guard: Guard | None = None
        self.changed: list[str] = []  # what was replaced, and has been put back

    def serve(self) -> None:
        start = receive(self.line)
        for module in start["modules"]:
            importlib.import_module(module)
        load_faces()
        self.theirs = set(start["theirs"])  # names that the learner is asked to define
        send(self.line, {"ready": True})
        while True:
            message = receive(self.line)
            if message["do"] == "run":
                send(self.line, self.run(message["source"], message["trusted"]))
            else:
                self.line.settimeout(None)
                (number,) = socket.recv_fds(self.line, 1, 1)[1]
                self.copy(number)

    def run(self, source: str, trusted: bool) -> dict:
        """Run a cell; what it printed, and the error that it ended in, if any."""
        if not trusted and self.guard is None:
            self.guard = Guard()
        before = dict(self.shell.user_ns)
        text = Text()
        with redirect_stdout(text), redirect_stderr(text):
            result = self.run_cell(source)
        if os.getpid() != self.owner:
            os._exit(0)  # a child that the cell made came back: it has no part here
        if not trusted:  # or the lab's own cells would run on what was replaced
            self.changed += self.guard.restore()
        if trusted:
            for name, value in self.shell.user_ns.items():
                if not name.startswith("_") and before.get(name, self) is not value:
                    self.names[name] = value
        error = result.error_before_exec or result.error_in_exec
        said = "" if error is None else _say(error)
        return {"error": said, "text": text.getvalue()}

    def copy(self, number: int) -> None:
        """Keep this moment for one question; `number` is the socket of its judge."""
        if self.guard is None:
            self.guard = Guard()
        if os.fork():
            os.close(number)
            return
        status = 1
        try:
            self.line.close()
            self.sit(socket.socket(fileno=number))
        except Stopped:
            status = 0
        finally:
            os._exit(status)  # the copy must never go on with the cells

    def sit(self, line: socket.socket) -> None:
        """Answer the tests of one question until the judge hangs up."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        used = resource.getrusage(resource.RUSAGE_SELF)
        seconds = used.ru_utime + used.ru_stime + 2 * self.limits.cell_seconds
        _lower(resource.RLIMIT_CPU, int(seconds) + 1)
        sys.stdout = sys.stderr = Text()
        send(line, {"ready": True})
        message = receive(line)
        checks = self.guard.codes("helpers.labs.checks")
        space, replaced = self.namespace()
        changed = self.changed + self.guard.restore() + replaced
        while True:
            verdict = judge(message["source"], space, checks)
            changed += self.guard.restore()
            send(line, {"token": message["token"], "changed": changed[:20], **verdict})
            message = receive(line)

    def namespace(self) -> tuple[dict, list[str]]:
        """The learner's names, but the lab's own as the lab defined them.

        Also returns which functions and modules of the lab the learner had replaced.
        """
        theirs = self.shell.user_ns
        lab = {k: v for k, v in self.names.items() if k not in self.theirs}
        replaced = [
            name
            for name, value in lab.items()
            if theirs.get(name) is not value
            and (callable(value) or isinstance(value, ModuleType))
        ]
        space = {**theirs, **lab, "__builtins__": builtins}
        meant = self.first | self.theirs | lab.keys() | {"__builtins__"}
        for name in (vars(builtins).keys() & space.keys()) - meant:
            if callable(space.pop(name)):  # a test means the builtin
                replaced.append(name)
        return space, replaced


def judge(source: str, space: dict, checks: Set[CodeType] = frozenset()) -> dict:
    """Run a test: did it pass, the number that it ends in, or where and how it failed.

    `where` is "test" (the test's own lines), "check" (one of the functions `checks`) or
    "answer", also where an error of the answer's was caught and raised again.
    """
    tests: set[CodeType] = set()
    try:
        body = ast.parse(source).body
        last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
        code = compile(ast.Module(body, []), TEST, "exec")
        tests |= codes(code)
        exec(code, space)
        value = None
        if last is not None:
            code = compile(ast.Expression(last.value), TEST, "eval")
            tests |= codes(code)
            value = eval(code, space)
        number = float(value) if type(value) in (int, float) else None
        return {"passed": True, "value": number}
    except BaseException as error:
        places = set(_places(error))
        where = "check" if places <= tests | checks else "answer"
        where = "test" if places <= tests else where
        asserted = isinstance(error, AssertionError)
        said = _say(error, named=not asserted)
        kind = _builtin(type(error).__mro__)
        return {"passed": False, "where": where, "kind": kind, "said": said}


def _places(error: BaseException | None) -> Iterator[CodeType]:
    """Where an error was raised, and those that it was raised in answer to."""
    for _ in range(CHAIN):
        if error is None:
            return
        for frame, _ in list(traceback.walk_tb(error.__traceback__))[-1:]:
            yield frame.f_code
        error = error.__context__


def _say(error: BaseException, named: bool = True) -> str:
    try:
        said = str(error)
    except BaseException:
        said = ""
    if named:
        said = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return said[:TEXT]


def _builtin(classes: Iterable[type]) -> str:
    """The first of an exception's classes that is Python's own."""
    return next(c.__name__ for c in classes if c.__module__ == "builtins")
