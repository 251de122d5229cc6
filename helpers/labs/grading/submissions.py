"""What learners hand in: notebooks, zips and folders, read without trusting any of it.

Nothing is unpacked to disk and nothing of a notebook is run here; sizes are looked at
before anything is read.
"""

import json
import stat
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from nbformat import NotebookNode

from .masters import SEED

NOTEBOOK_MIB = 20
FILES = 1000  # looked at in one zip or folder
MIB = 2**20


class Refused(ValueError):
    """A submission that cannot be graded; the message says why."""


@dataclass
class Answers:
    """The learner's part of a notebook, and what is to be said about the rest."""

    sources: dict[str, str]  # grade_id -> what stands in the answer cell
    untouched: set[str]  # answers that are still as they were given out
    notes: list[str] = field(default_factory=list)
    seed: dict[str, str] = field(default_factory=dict)  # their cell `SEED = …`

    def inputs(self) -> dict[str, str]:
        """What stands in for cells of the master."""
        return self.sources | self.seed


def find(folder: Path) -> dict[str, Path]:
    """The submissions in a folder by learner: `name.ipynb`, `name.zip` or `name/`.

    Where two would have one name, both keep their endings. Other files are listed, too,
    so that they get a row that says what they are. Hidden files are passed over.
    """
    entries = sorted(path for path in folder.iterdir() if path.name[:1] != ".")
    stems = Counter(_alike(_stem(path)) for path in entries)
    full = {_alike(path.name) for path in entries}
    return {_name(path, stems, full): path for path in entries}


def _name(path: Path, stems: Counter, full: set[str]) -> str:
    stem = _stem(path)
    taken = stems[_alike(stem)] > 1 or (stem != path.name and _alike(stem) in full)
    return path.name if taken else stem


def _stem(path: Path) -> str:
    return path.stem if path.suffix in (".ipynb", ".zip") else path.name


def _alike(name: str) -> str:
    """What names have in common that are one file on some systems."""
    return unicodedata.normalize("NFC", name).casefold()


def fingerprint(path: Path) -> str:
    """Changes when a submission does: names, sizes and times of its files."""
    paths = [path, *_files(path)] if path.is_dir() else [path]
    marks = []
    for each in paths:
        status = each.lstat()
        marks.append(f"{each.name} {status.st_size} {status.st_mtime_ns}")
    return "; ".join(sorted(marks))


def read(path: Path, lab: str) -> tuple[dict, list[str]]:
    """The notebook of a submission as JSON, and remarks on how it came.

    Raises `Refused` for what is no notebook, too large, or more than one.
    """
    if path.is_symlink():
        raise Refused("is a link, not a file")
    if path.is_dir():
        found = {str(p.relative_to(path)): p for p in _files(path)}
        return _parse(_bytes(found[_choose(found, lab, "the folder")])), []
    if path.suffix == ".ipynb":
        return _parse(_bytes(path)), []
    if path.suffix == ".zip":
        return _from_zip(path, lab)
    raise Refused("is neither a notebook, a zip nor a folder")


def _files(folder: Path) -> list[Path]:
    """Notebooks in a folder and below, links left out."""
    found = []
    for number, path in enumerate(folder.rglob("*")):
        if number >= FILES:
            raise Refused(f"holds more than {FILES} files")
        if path.suffix == ".ipynb" and stat.S_ISREG(path.lstat().st_mode):
            found.append(path)
    return sorted(found)


def _choose(names, lab: str, where: str) -> str:
    """The one notebook among several files, by name if need be."""
    parts = {name: PurePosixPath(name.replace("\\", "/")).parts for name in names}
    hidden = (".ipynb_checkpoints", "__MACOSX")
    names = [name for name, path in parts.items() if not {*hidden} & {*path}]
    exact = [name for name in names if parts[name][-1] == f"{lab}.ipynb"]
    if len(chosen := exact or names) == 1:
        return chosen[0]
    if not chosen:
        raise Refused(f"no notebook in {where}")
    raise Refused(f"{len(chosen)} notebooks in {where}; which one is meant?")


def _bytes(path: Path) -> bytes:
    _check_size(path)
    return path.read_bytes()


def _check_size(path: Path) -> None:
    if not stat.S_ISREG(path.lstat().st_mode):
        raise Refused("is not an ordinary file")
    size = path.stat().st_size
    if size > NOTEBOOK_MIB * MIB:
        raise Refused(f"has {size / MIB:,.0f} MiB; at most {NOTEBOOK_MIB} are read")


def _from_zip(path: Path, lab: str) -> tuple[dict, list[str]]:
    notes, limit = [], NOTEBOOK_MIB * MIB
    _check_size(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > FILES:
                raise Refused(f"the zip holds {len(members):,} files")
            safe = {m.filename: m for m in members if _inside(m.filename)}
            if astray := [m.filename for m in members if m.filename not in safe]:
                notes.append(f"the zip has paths that lead out of it: {astray[0]!r}")
            books = [name for name in safe if name.endswith(".ipynb")]
            chosen = safe[_choose(books, lab, "the zip")]
            if chosen.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                # other methods unpack everything at once, however little is asked for
                raise Refused("is packed in an unusual way; make an ordinary zip")
            with archive.open(chosen) as file:
                data = file.read(limit + 1)
    except Refused as refused:
        raise Refused("; ".join([str(refused), *notes])) from None
    except Exception as error:  # zipfile lets many kinds through
        raise Refused(f"is no zip that can be read ({type(error).__name__})") from None
    if len(data) > limit:
        raise Refused(f"unpacks to more than {NOTEBOOK_MIB} MiB")
    return _parse(data), notes


def _inside(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return not (path.is_absolute() or ".." in path.parts or name[1:2] == ":")


def _parse(data: bytes) -> dict:
    try:
        notebook = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Refused(f"is not a notebook: {str(error)[:100]}") from None
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise Refused("is not a notebook of format 4: it has no list of cells")
    return notebook


# ---------------------------------------------------------------- the learner's part


def answers(notebook: dict, lab: NotebookNode, name: str) -> Answers:
    """What the learner wrote into the answer cells, found by their grade_id.

    `lab` is the copy that was given out. Tests and other cells of the lab are compared
    with it, for the notes alone. Raises `Refused` for a notebook of another lab.
    """
    given = {cell.id: _Given(cell) for cell in lab.cells}
    named = {cell.name: cell for cell in given.values() if cell.name}
    found: dict[str, list[str]] = {}
    own = 0
    for id, grade_id, kind, source in _cells(notebook):
        if grade_id in named:
            found.setdefault(grade_id, []).append(source)
        elif kind == "code" and id not in given and source.strip():
            own += 1
    course = _get(notebook, "metadata", "course", "lab")
    if isinstance(course, str) and course != name:
        raise Refused(f"is a notebook of {course[:60]}, not of {name}")
    wanted = {key for key, cell in named.items() if cell.answer}
    if not wanted & found.keys():
        raise Refused(f"has no answer cell of {name}; is it another notebook?")
    sources = {key: "\n\n".join(found[key]) for key in wanted & found.keys()}
    stubs = {key for key in sources if sources[key].strip() == named[key].source}
    result = Answers(sources, stubs)
    for key, texts in found.items():
        if named[key].seed and (found_seed := SEED.fullmatch(texts[0].strip())):
            result.seed[key] = f"SEED = {found_seed[1]}"  # no more of it is trusted
    changed = [
        key
        for key, texts in found.items()
        if not named[key].answer
        and key not in result.seed
        and [text.strip() for text in texts] != [named[key].source]
    ]
    result.notes += _remarks(named, found, wanted, changed, own)
    return result


def _remarks(named, found, wanted, changed, own) -> Iterator[str]:
    missing = [key for key in named if key not in found]
    edited = [key for key in changed if named[key].test]
    deleted = [key for key in missing if named[key].test]
    others = [key for key in [*changed, *missing] if key not in (*edited, *deleted)]
    if edited:
        yield f"tests edited: {', '.join(edited)}; the lab's own were used"
    if deleted:
        yield f"tests deleted: {', '.join(deleted)}; the lab's own were used"
    if other := [key for key in others if key not in wanted]:
        yield f"the lab's cells changed: {', '.join(other)}; the lab's own were used"
    if lost := [key for key in others if key in wanted]:
        yield f"answer cells missing: {', '.join(lost)}"
    if double := [key for key in found if key in wanted and len(found[key]) > 1]:
        yield f"answer cells there more than once, put together: {', '.join(double)}"
    if own:
        yield f"{own} cells of their own were not run: only answer cells are"


class _Given:
    """A cell of the learner's copy as it was given out."""

    def __init__(self, cell: NotebookNode):
        meta = cell.metadata.get("nbgrader", {})
        self.name: str | None = meta.get("grade_id")
        self.answer: bool = meta.get("solution", False)
        self.test: bool = meta.get("grade", False) and not self.answer
        self.source: str = cell.source.strip()
        self.seed = bool(SEED.fullmatch(self.source))


def _cells(notebook: dict) -> Iterator[tuple[str, str, str, str]]:
    """id, grade_id, type and source of each cell, whatever the file holds."""
    for cell in notebook["cells"]:
        source = _get(cell, "source")
        if isinstance(source, list):
            source = "".join(piece for piece in source if isinstance(piece, str))
        texts = [_get(cell, "id"), _get(cell, "metadata", "nbgrader", "grade_id")]
        texts += [_get(cell, "cell_type"), source]
        yield tuple(text if isinstance(text, str) else "" for text in texts)


def _get(value: object, *keys: str) -> object:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
