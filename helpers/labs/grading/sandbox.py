"""A process for code that nobody has read: nothing to see, nothing to reach, bounded.

The process runs in namespaces of its own: no network, no other processes, and of the
disk only Python, this package and a small scratch folder in memory. Bubblewrap sets
them up where it is installed, `unshare` of util-linux otherwise. Where neither may (in
many containers, on macOS) limits alone remain, and the summary says so. A watcher
counts what the process and all its children use together and ends them when it is too
much.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import psutil

from .namespaces import WORK, command, environment, strongest

MESSAGE = 2**22  # bytes; a longer message from inside ends the talk
TEXT = 2000  # characters kept of an error, or of what a cell prints
START_SECONDS = 60
WAITING, STARVED = 3, 10  # seconds on the wall that count as one of processor time
LOOK = 0.25  # seconds between two looks of the watcher
MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """What one submission may use.

    Seconds are of processor time, so that a busy machine fails nobody. On the wall, a
    process that only waits is given `WAITING` times as long, any other `STARVED` times.
    """

    cell_seconds: float = 60
    total_seconds: float = 300
    memory_mib: int = 4096  # of all processes together
    processes: int = 64
    file_mib: int = 64
    disk_mib: int = 256

    def at_least(self, cell_seconds: float) -> "Limits":
        """These limits, but with so much time for a cell, and thrice that for all."""
        return replace(
            self,
            cell_seconds=max(self.cell_seconds, cell_seconds),
            total_seconds=max(self.total_seconds, 3 * cell_seconds),
        )


class Stopped(RuntimeError):
    """The process is gone or does not answer; the message says why."""


class TooSlow(Stopped):
    """No answer within the time; the process may still be running."""


# ---------------------------------------------------------------- messages


def send(line: socket.socket, message: dict) -> None:
    """Send a message as JSON, its length first."""
    data = json.dumps(message).encode()
    line.settimeout(START_SECONDS)  # the other side may have been stopped
    line.sendall(len(data).to_bytes(4, "big") + data)


def receive(line: socket.socket, late: Callable[[], bool] = lambda: False) -> dict:
    """The next message; `late` says from time to time whether to give up.

    Raises `TooSlow`, or `Stopped` when the other side is gone or sends anything else.
    """
    size = int.from_bytes(_exactly(line, 4, late), "big")
    if size > MESSAGE:
        raise Stopped("it sent more than is allowed")
    try:
        message = json.loads(_exactly(line, size, late))
    except (ValueError, RecursionError):
        raise Stopped("it sent what is no message") from None
    if not isinstance(message, dict):
        raise Stopped("it sent what is no message")
    return message


def _exactly(line: socket.socket, size: int, late: Callable[[], bool]) -> bytes:
    data = bytearray()
    line.settimeout(LOOK)
    while len(data) < size:
        try:
            piece = line.recv(min(size - len(data), 2**16))
        except TimeoutError:
            if late():
                raise TooSlow("no answer in time") from None
            continue
        except OSError:
            piece = b""
        if not piece:
            raise Stopped("its process ended early")
        data += piece
    return bytes(data)


# ---------------------------------------------------------------- the sandbox


class Sandbox:
    """A Python process running `room`; `line` is the socket to talk to it.

    A context manager: at its end everything inside is killed. `limits.total_seconds` is
    for the caller to keep; the other limits are kept here and inside.
    """

    def __init__(self, limits: Limits, kind: str | None = None):
        self.limits, self.kind = limits, kind or strongest()
        self.reason = ""  # why the watcher ended it
        self._used = self._clock = 0.0
        self._started = time.monotonic()
        self._measured = self._resident = 0
        self._folder = tempfile.TemporaryDirectory(prefix=f"grading-{os.getpid()}-")
        self.line, inside = socket.socketpair()
        code = "from helpers.labs.grading.room import main; main()"
        arguments = [str(inside.fileno()), json.dumps(asdict(limits)), self.kind]
        python = [sys.executable, "-P", "-c", code, *arguments]
        work = self._folder.name if self.kind == "limits" else WORK
        with inside:
            self.process = subprocess.Popen(
                command(self.kind, python, self._folder.name, limits.disk_mib),
                env=environment(work),
                cwd=self._folder.name if self.kind == "limits" else "/",
                pass_fds=[inside.fileno()],
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def ask(
        self, message: dict, seconds: float, line: socket.socket | None = None
    ) -> dict:
        """Send a message and wait for the answer, here or on the `line` of a copy.

        Raises `TooSlow`, or `Stopped` with the reason.
        """
        line, end = line or self.line, self.clock() + seconds
        try:
            send(line, message)
            return receive(line, lambda: self.clock() > end)
        except TooSlow:
            raise TooSlow(f"took longer than {seconds:.0f} s") from None
        except (OSError, Stopped) as error:
            ended = "its process ended early" if isinstance(error, OSError) else error
            raise Stopped(self.reason or str(ended)) from None

    def clock(self) -> float:
        """The seconds used inside, as `Limits` counts them."""
        return max(self._clock, (time.monotonic() - self._started) / STARVED)

    def close(self) -> None:
        self._ended.set()
        self._kill()
        self._watcher.join()
        self.line.close()
        try:
            self._folder.cleanup()
        except (OSError, RecursionError):
            pass  # folders in folders, a thousand deep: only without namespaces

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _family(self) -> list[psutil.Process]:
        """All processes of the sandbox: ours, its children, theirs."""
        try:
            first = psutil.Process(self.process.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _kill(self) -> None:
        for _ in range(100):  # children may be born while we look
            family = self._family()
            for process in reversed(family):  # the first last: it holds the others
                try:
                    process.kill()
                except psutil.Error:
                    pass
            if len(family) <= 1:
                break
        self.process.kill()
        self.process.wait()

    def _watch(self) -> None:
        turn, before = 0, self._started
        while self.process.poll() is None and not self._ended.wait(LOOK):
            family, turn, now = self._family(), turn + 1, time.monotonic()
            worked = max(0.0, sum(map(_seconds, family)) - self._used)
            waited = worked < 0.02 * (now - before)
            self._clock += max(worked, (now - before) / WAITING if waited else 0)
            self._used, before = self._used + worked, now
            if len(family) > self.limits.processes:
                self.reason = f"started more than {self.limits.processes} processes"
            elif self._memory(family, turn % 12 == 0) > self.limits.memory_mib * MIB:
                self.reason = f"used more than {self.limits.memory_mib} MiB"
            elif _size(self._folder.name) > self.limits.disk_mib * MIB:
                self.reason = f"wrote more than {self.limits.disk_mib} MiB"
            if self.reason:
                self._ended.set()
                self._kill()

    def _memory(self, family: list[psutil.Process], surely: bool) -> float:
        """Bytes in use: at most what was measured last and has been added since.

        Measuring takes time, as pages shared between copies have to be told apart. So
        it is done when the bound is passed, or `surely`.
        """
        resident = sum(_usage(process, "rss") for process in family)
        bound = self._measured + resident - self._resident
        if surely or bound > self.limits.memory_mib * MIB:
            self._measured = bound = sum(_usage(p, "pss") for p in family)
            self._resident = resident
        return bound


def _seconds(process: psutil.Process) -> float:
    """Processor time of a process and of its children that have ended."""
    try:
        times = process.cpu_times()
        return sum(times[:4])
    except psutil.Error:
        return 0.0


def _usage(process: psutil.Process, kind: str) -> int:
    """Bytes of a process in memory; in "pss", shared pages count in parts."""
    try:
        if kind == "rss":
            return process.memory_info().rss
        usage = process.memory_full_info()
        return getattr(usage, "pss", usage.uss)  # macOS has no pss
    except psutil.AccessDenied:  # a process may forbid to be looked into
        return _usage(process, "rss") if kind != "rss" else 0
    except psutil.Error:
        return 0


def _size(folder: str) -> int:
    total = 0
    try:
        for path, _, names in os.walk(folder):
            for name in names:
                try:
                    total += os.lstat(os.path.join(path, name)).st_blocks * 512
                except OSError:
                    pass
    except RecursionError:  # nobody needs folders a thousand deep
        return sys.maxsize
    return total
