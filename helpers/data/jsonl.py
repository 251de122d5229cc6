"""Chat JSONL on disk: read with every defect named, written whole or not at all."""

import codecs
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import BinaryIO

from .rows import CONVERT, DataError, faults

MAX_LINE = 2**24  # bytes; no model reads a conversation of 16 MiB
KINDS, PLACES = 20, 4  # how many kinds of defects, and places of each, are listed


def read_chat(path: str | Path) -> list[dict]:
    """Read a chat JSONL file into a list of rows; blank lines are skipped.

    A row is an object `{"messages": [{"role", "content"}, ...]}`: a system message if
    any, then user and assistant in turn. It may end in either. Optional keys are `id`
    (a string or a whole number, once a file, or once with each `sample`; rows with an
    `error` may repeat it), `task` and `answer` (strings); others are kept as they are.
    An empty file has no rows.

    Raises `DataError` that lists the defects of the whole file, each with its line and
    cure, and `FileNotFoundError` naming files of a similar name.
    """
    return list(iter_chat(path))


def iter_chat(
    path: str | Path, convert: Callable[[object], object] | None = None
) -> Iterator[dict]:
    """The rows of `read_chat` one by one; memory holds one line, and the ids seen.

    `convert` makes a chat row of what a line holds, or raises `DataError`.
    From the first defect on nothing is yielded, but the rest of the file is checked:
    `DataError` comes at its end and lists everything.
    """
    path = Path(path)
    defects, ids = Defects(path), {}
    with _open(path) as file:
        foreign = _foreign(file.peek()[:4096], path.name)
        if foreign:
            raise DataError(f"{path}, line 1: {foreign}")
        for place, line in _lines(file):
            try:
                row = _parse(line)
                row = convert(row) if convert else row
            except json.JSONDecodeError as error:
                defects.add(f"{place}, column {error.colno}", _syntax(error))
                continue
            except DataError as error:
                defects.add(place, str(error))
                continue
            for spot, text in faults(row, place, ids):
                defects.add(place + spot, text)
            if not defects.count:
                yield row
    if defects.count:
        raise DataError(str(defects))


def write_chat(path: str | Path, rows: Iterable[dict]) -> Path:
    """Write rows (`{"messages": [...], ...}`) as JSONL, one conversation a line.

    The file appears whole or not at all: it is written beside its place and then moved.
    Raises `DataError` for a row that `read_chat` would not take back.
    """
    ids = {}
    with _whole(Path(path)) as file:
        for number, row in enumerate(rows, 1):
            place = f"row {number}"
            for spot, text in faults(row, place, ids):
                raise DataError(f"{path}, {place}{spot}: {text}")
            try:
                file.write(encode(row) + b"\n")
            except DataError as error:
                raise DataError(f"{path}, {place}: {error}") from None
    return Path(path)


def write_json(path: str | Path, value: dict) -> Path:
    """Write an indented JSON file, whole or not at all, as `write_chat` does."""
    with _whole(Path(path)) as file:
        file.write((json.dumps(value, indent=1) + "\n").encode())
    return Path(path)


class Defects:
    """The defects of a file, each kind once with the first places where it stands."""

    def __init__(self, path: Path):
        self.path, self.count = path, 0
        self.places: dict[str, list[str]] = {}
        self.counts: Counter[str] = Counter()

    def add(self, place: str, text: str) -> None:
        self.count += 1
        if text in self.places or len(self.places) < KINDS:
            self.counts[text] += 1
            places = self.places.setdefault(text, [])
            if len(places) < PLACES:
                places.append(place)

    def __str__(self) -> str:
        shown = []
        for text, (first, *others) in self.places.items():
            if more := self.counts[text] - 1 - len(others):
                others.append(f"{more:,} more")
            also = f" (also {'; '.join(others)})" if others else ""
            shown.append(f"{first}: {text}{also}")
        if len(shown) == 1:
            return f"{self.path}, {shown[0]}"
        lines = [f"{self.path} has {self.count:,} defects:"]
        lines += [f"{self.path.name}, {text}" for text in shown]
        if hidden := self.count - self.counts.total():
            lines.append(f"and {hidden:,} more of other kinds; mend these first")
        return "\n".join(lines)


# ---------------------------------------------------------------- bytes to values


def _open(path: Path) -> BinaryIO:
    """The file for reading, or an error that lists what there is in its place."""
    if path.is_file():
        return path.open("rb")
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {folder.absolute()}")
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    near = get_close_matches(path.name, names, PLACES)
    near = near or [name for name in names if ".json" in name][:PLACES]
    has = f"{folder.absolute()} has {', '.join(near) or 'no JSONL file'}"
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a file; {has}")
    raise FileNotFoundError(f"{path}: no such file; {has}")


def _foreign(head: bytes, name: str) -> str | None:
    """What the beginning of a file shows to be no JSONL at all, and the cure."""
    text = head.decode("utf-8", "replace").removeprefix("\ufeff").lstrip()
    if head.startswith(b"\x1f\x8b"):
        return f"compressed with gzip; unpack it first: gunzip {name}"
    if head.startswith((b"PK\x03\x04", b"PAR1")):
        return "a zip, Excel or Parquet file; export it as JSONL in UTF-8"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in head[:2]:
        return "UTF-16, as Windows PowerShell writes; save the file as UTF-8"
    if re.match(r"\[\s*(\{|$)", text):
        rows = f"json.load(open({name!r}, encoding='utf-8'))"
        return "a JSON array, not one object a line; " + CONVERT.format(rows)
    if re.match(r"\{[ \t\r]*\n", text):
        return "an object over several lines; write each with json.dumps, no indent"
    if re.match(r'"?\w[\w .-]*"?([,;\t]"?\w[\w .-]*"?)+\r?\n', text):
        rows = f"pandas.read_csv({name!r}).to_dict('records')"
        return "a table (CSV), not JSON; " + CONVERT.format(rows)
    return None


def _lines(file: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """Lines that are not blank, with their place; of an overlong one the beginning."""
    for number, line in enumerate(iter(partial(file.readline, MAX_LINE + 1), b""), 1):
        if len(line) <= MAX_LINE:
            line = line.removeprefix(codecs.BOM_UTF8).rstrip()
        elif not line.endswith(b"\n"):  # step over the rest of it
            while (rest := file.readline(2**16)) and not rest.endswith(b"\n"):
                pass
        if line:
            yield f"line {number}", line


def _parse(line: bytes) -> object:
    """The JSON value of a line. Raises `DataError` or `json.JSONDecodeError`."""
    if len(line) > MAX_LINE:
        raise DataError("longer than 16 MiB; is a line break missing? Split or drop it")
    try:
        text = line.decode("utf-8")
        row = _decoder.decode(text)
    except UnicodeDecodeError:
        raise DataError(
            "not UTF-8, perhaps Latin-1 or Windows-1252; save the file as UTF-8"
        ) from None
    except RecursionError:
        raise DataError("nested too deeply; keep only the keys you need") from None
    except (DataError, json.JSONDecodeError):
        raise
    except ValueError:  # Python refuses to convert integers of thousands of digits
        raise DataError("a number has too many digits; write it as a string") from None
    if "\\u" in text:  # an escape may hide half a character
        encode(row)
    return row


def _unique(pairs: list[tuple[str, object]]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        key, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise DataError(f"the key {key!r} stands twice in one object; keep one")
    return found


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise DataError(f"{text[:20]} is no JSON number; write null or a string")
    return value


_decoder = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite
)


def _syntax(error: json.JSONDecodeError) -> str:
    cure = "every line must be one complete JSON object"
    if error.msg == "Extra data":
        cure = "put every object on a line of its own, with no comma after it"
    elif error.doc[error.pos : error.pos + 1] == "'":
        cure = "JSON has double quotes; write rows with json.dumps or write_chat"
    return f"not JSON ({error.msg}); {cure}"


# ---------------------------------------------------------------- values to bytes


def encode(row: object) -> bytes:
    """A row as UTF-8 JSON, or `DataError` saying why it cannot be written."""
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except UnicodeEncodeError as error:
        before = error.object[max(error.start - 20, 0) : error.start]
        raise DataError(
            f"half a character after {before!r} (a lone surrogate, as where an emoji "
            "is cut in two); repair or remove it"
        ) from None
    except RecursionError:
        raise DataError("nested too deeply; keep only the keys you need") from None
    except (TypeError, ValueError) as error:
        raise DataError(f"cannot be written as JSON ({error})") from None


@contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    """A file written beside `path` that takes its place once it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
