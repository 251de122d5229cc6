"""An append-only JSONL file that survives kills, full disks and second writers."""

import errno
import json
import os
import time
from pathlib import Path

from filelock import FileLock, Timeout

from .jsonl import MAX_LINE, encode, read_chat
from .rows import DataError

SYNC_SECONDS = 1.0  # between two orders to the disk to write down what it was given


class Journal:
    """The rows of a chat JSONL file, and `append` for more; one writer at a time.

    Opening cuts off a line that a killed writer left torn; a line is appended whole or
    not at all. Use it in a `with` block: the lock goes when the block ends, or when the
    process dies.

    Raises `DataError` when another process writes to the file, when folder or file
    cannot be written, when a line is no conversation, and, while appending, when the
    disk is full.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.rows: list[dict] = []
        self._lock = FileLock(self.path.with_name(self.path.name + ".lock"), timeout=0)

    def __enter__(self) -> "Journal":
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout:
            raise DataError(
                f"another process is writing to {self.path}; wait until it ends, "
                "or write to another file"
            ) from None
        except OSError as error:
            raise self._refused(error) from None
        try:
            self._file = self.path.open("ab+", buffering=0)
            self._mend()
            self.rows = read_chat(self.path) if self._end else []
        except OSError as error:
            self._lock.release()
            raise self._refused(error) from None
        except BaseException:
            self._lock.release()
            raise
        self._synced = time.monotonic()
        return self

    def __exit__(self, *_) -> None:
        os.fsync(self._file.fileno())
        self._file.close()
        self._lock.release()

    def append(self, row: dict) -> None:
        """Write one row; the file then holds all of it, or is as it was before.

        Raises `DataError` for a row that could not be read again.
        """
        line = encode(row) + b"\n"
        try:
            written = self._file.write(line)
            if written < len(line):  # the next byte would not fit either
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._file.truncate(self._end)
            raise self._refused(error) from None
        self._end += len(line)
        self.rows.append(row)
        if time.monotonic() - self._synced > SYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def _mend(self) -> None:
        """Cut off a torn last line, or end it, if only its line break is missing."""
        size = self._file.seek(0, os.SEEK_END)
        start = self._file.seek(max(0, size - MAX_LINE))  # no line of ours is longer
        tail = self._file.read()
        self._end = start + tail.rfind(b"\n") + 1
        if last := tail[self._end - start :]:
            try:
                json.loads(last)
            except ValueError:
                self._file.truncate(self._end)
            else:
                self._file.write(b"\n")
                self._end = size + 1

    def _refused(self, error: OSError) -> DataError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return DataError(
                f"the disk is full: {len(self.rows)} rows are safe in {self.path}; "
                "free some space and call again for the rest"
            )
        return DataError(
            f"cannot write to {self.path} ({error.strerror}); "
            "choose a folder and file that you may write to"
        )
