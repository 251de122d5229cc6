"""A model of this machine behind an OpenAI-compatible address, to try the API teacher.

    with generate.serve("folder/of/a/model") as server:
        teacher = server.teacher()

In a notebook `server = generate.serve(...)` in one cell, `server.stop()` in another.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from threading import Thread
from typing import IO

from ..threads import BOUNDS
from ..tracks import best_device
from .api import ApiTeacher, TeacherError

# `transformers serve`, with a standard input that is a pipe from the process that
# started it: when that one ends, in whatever way, the pipe closes and the server ends.
_PROGRAM = """
import os, threading
def end_with_parent():
    os.read(0, 1)
    os._exit(0)
threading.Thread(target=end_with_parent, daemon=True).start()
from transformers.cli.transformers import app
app()
"""

# By itself the server samples only where the model's own settings say so, at whatever
# temperature it is asked for; and then with the rest of the model's settings.
_SAMPLING = json.dumps({"do_sample": True, "top_k": 0, "repetition_penalty": 1.0})


class Server:
    """A served model: its name, its address, and `stop`."""

    def __init__(self, process: subprocess.Popen, model: str, url: str):
        self.process, self.model, self.url = process, model, url

    def teacher(self, *, concurrency: int = 1, **settings) -> ApiTeacher:
        """The served model as a teacher; settings as for `ApiTeacher`.

        The server computes one answer at a time, from one stream of chance: samples are
        repeatable only with `concurrency=1`.
        """
        settings["extra_body"] = {"generation_config": _SAMPLING}
        return ApiTeacher(self.model, self.url, "", concurrency=concurrency, **settings)

    def stop(self) -> None:
        """End the server; once more does no harm."""
        self.process.stdin.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_) -> None:
        self.stop()


def serve(
    folder: str | Path,
    port: int | None = None,
    *,
    device: str | None = None,
    timeout: float = 120.0,
) -> Server:
    """Serve the model in `folder` with `transformers serve`; return when it is ready.

    It needs no network, and only this machine reaches it. `port=None` takes a free one,
    `device=None` the best there is. The server ends with `stop`, at the end of a `with`
    block, and in any case with the process that started it.

    Raises `TeacherError` where the folder holds no model, the port is taken, or the
    server is not ready within `timeout` seconds; then with the last lines it wrote.
    """
    folder = Path(folder).resolve()
    if not (folder / "config.json").exists():
        raise TeacherError(f"there is no model in {folder.name}/ (no config.json)")
    try:
        with socket.create_server(("127.0.0.1", port or 0)) as free:
            port = free.getsockname()[1]
    except OSError as error:
        raise TeacherError(f"port {port} is not free; leave it out") from error
    device = device or best_device()
    command = [sys.executable, "-P", "-c", _PROGRAM, "serve", folder.name]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", device]
    command += ["--dtype", "float32" if device == "cpu" else "bfloat16"]
    process = subprocess.Popen(
        command,
        cwd=folder.parent,  # so that the model's name is that of its folder
        env=BOUNDS
        | os.environ
        | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # to interrupt a cell must not interrupt the server
    )
    server = Server(process, folder.name, f"http://127.0.0.1:{port}/v1")
    log = deque(maxlen=20)
    reader = Thread(target=_follow, args=(process.stdout, log), daemon=True)
    reader.start()
    give_up = time.monotonic() + timeout
    try:
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > give_up:
                server.stop()
                reader.join(timeout=1)
                raise TeacherError(
                    f"the server of {folder.name}/ is not ready; its last lines:\n"
                    + "".join(log)
                )
            time.sleep(0.1)
    except BaseException:  # an interrupted cell leaves no server behind
        server.stop()
        raise
    return server


def _follow(output: IO[str], log: deque[str]) -> None:
    """Keep the last lines; a pipe that nobody empties would stop the server."""
    with output:
        log.extend(output)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
