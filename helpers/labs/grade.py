"""Grade a folder of submissions: `python -m helpers.grade`, which `make grade` calls.

Graded are the lab's own cells with nothing but the learner's answers put in, found by
their grade_id, so an edited or deleted test changes no score. Each submission runs in a
sandbox of its own. A run that was interrupted goes on where it stopped.
"""

import argparse
import hashlib
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, fields
from pathlib import Path

from .grading import submissions
from .grading.examine import Examination
from .grading.gradebook import Gradebook, GradeError
from .grading.masters import MASTERS, Cell, LabError, cells, learner_copy, read_notebook
from .grading.namespaces import KINDS, NoSandbox, strongest
from .grading.sandbox import Limits, Stopped
from .grading.submissions import Refused


@dataclass(frozen=True)
class Lab:
    """A master, cut into what grading needs, and the copy that learners were given."""

    name: str
    cells: list[Cell]
    copy: object
    digest: str  # of the master and its checks
    cell_seconds: float = 0  # what a cell of this lab may take, if more than usual

    @property
    def graded(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.points]


def read_lab(path: Path) -> Lab:
    """A master. Raises `LabError` where it is missing, broken or ambiguous.

    A lab whose cells train for long says so in its notebook's metadata, as
    `{"course": {"cell_seconds": 180}}`.
    """
    master, name = read_notebook(path), path.stem
    checks = Path(__file__).with_name("checks")
    parts = [path, checks / "base.py", *checks.glob(f"{name[:5]}.py")]
    content = b"".join(part.read_bytes() for part in parts)
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    copy = learner_copy(master, name)  # first: it finds regions marked wrongly
    found = cells(master)
    for cell, count in Counter(cell.name for cell in found).items():
        if count > 1:
            raise LabError(f"{path.name}: {count} cells are called {cell}; rename one")
    seconds = float(master.metadata.get("course", {}).get("cell_seconds", 0))
    return Lab(name, found, copy, digest, seconds)


class Grader:
    """Grades submissions of one lab; `cancel` may be called from another thread."""

    def __init__(self, lab: Lab, limits: Limits, kind: str):
        self.lab, self.limits, self.kind = lab, limits, kind
        self.running: set[Examination] = set()
        self.cancelled = False

    def grade(self, learner: str, path: Path) -> dict:
        """The result of one submission, whatever it is, as a `Gradebook` keeps it.

        Raises `Stopped` when the grader is cancelled.
        """
        try:
            return self._grade(learner, path)
        except (Stopped, NoSandbox):
            raise
        except Exception as error:  # the others' grades must not hang on this one
            note = f"the grader failed: {type(error).__name__}: {error}"[:200]
            return self._not_graded(learner, note)  # and it is tried again next time

    def _not_graded(self, learner: str, note: str) -> dict:
        questions = {cell.name: _question(cell) for cell in self.lab.graded}
        for question in questions.values():
            question["score"] = 0.0
        result = {"learner": learner, "status": "not graded", "sandbox": self.kind}
        return result | {"questions": questions, "notes": [note]}

    def _grade(self, learner: str, path: Path) -> dict:
        start = time.monotonic()
        questions = {cell.name: _question(cell) for cell in self.lab.graded}
        result = {"learner": learner, "status": "graded", "questions": questions}
        result["sandbox"] = self.kind
        try:
            result["fingerprint"] = submissions.fingerprint(path)
            notebook, notes = submissions.read(path, self.lab.name)
            answers = submissions.answers(notebook, self.lab.copy, self.lab.name)
        except (Refused, OSError) as refused:
            mark = {"fingerprint": result.get("fingerprint")}
            return self._not_graded(learner, str(refused)) | mark
        written = [cell for cell in self.lab.graded if cell.kind == "written"]
        for cell in written:
            if cell.name in answers.untouched or cell.name not in answers.sources:
                questions[cell.name] |= {"score": 0.0, "message": "not answered"}
        examination = self._examine(answers.inputs())
        for name, (share, message) in examination.verdicts.items():
            score = round(share * questions[name]["points"], 2)
            questions[name] |= {"score": score, "message": message}
        result["notes"] = [*notes, *answers.notes, *examination.notes]
        result["answers"] = {
            cell.name: {
                "kind": cell.kind,
                "source": answers.sources.get(cell.name, ""),
                "error": examination.errors.get(cell.name, ""),
                "printed": examination.printed.get(cell.name, ""),
            }
            for cell in self.lab.cells
            if cell.kind in ("answer", "written")
        }
        return result | {"seconds": round(time.monotonic() - start, 1)}

    def _examine(self, sources: dict[str, str]) -> Examination:
        lab = self.lab
        one = Examination(lab.name, lab.cells, sources, self.limits, self.kind)
        self.running.add(one)
        try:
            if not self.cancelled:
                one.run()
        finally:
            self.running.discard(one)
        if self.cancelled:
            raise Stopped("grading was interrupted")
        return one

    def cancel(self) -> None:
        self.cancelled = True
        for one in list(self.running):
            one.cancel()


def _question(cell: Cell) -> dict:
    return {
        "title": cell.title,
        "points": cell.points,
        "by_hand": cell.kind == "written",
        "score": None,
        "message": "",
    }


def grade(
    lab: Lab,
    folder: Path,
    out: Path,
    *,
    limits: Limits | None = None,
    kind: str | None = None,
    jobs: int = 2,
    fresh: bool = False,
) -> Gradebook:
    """Grade every submission in `folder`; write scores, feedback and summary to `out`.

    Results of an earlier run are kept where neither lab nor submission has changed.
    Raises `GradeError` where `out` holds another lab's grades or none can start.
    """
    limits, kind = (limits or Limits()).at_least(lab.cell_seconds), kind or strongest()
    if not folder.is_dir():
        raise GradeError(f"no folder {folder}; put one notebook or zip a learner there")
    found = submissions.find(folder)
    if not found:
        raise GradeError(f"{folder} is empty; put one notebook or zip a learner there")
    book = Gradebook.open(out, lab.name, lab.digest, lab.graded, fresh)
    todo = {who: path for who, path in found.items() if not book.has(who, path)}
    book.keep_only(found)
    print(
        f"{lab.name}: {len(found)} submissions, {len(found) - len(todo)} graded before"
    )
    grader = Grader(lab, limits, kind)
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(grader.grade, *item) for item in todo.items()]
        try:
            for number, future in enumerate(as_completed(futures), 1):
                result = future.result()
                book.add(result)
                print(f"[{number}/{len(todo)}] {book.line(result)}", flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            grader.cancel()
            raise
    book.write()
    return book


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 when every submission has a row."""
    parser = argparse.ArgumentParser(
        prog="python -m helpers.grade", description=__doc__
    )
    parser.add_argument("lab", help="such as lab02_soft_targets")
    parser.add_argument("submissions", type=Path, help="one notebook or zip a learner")
    parser.add_argument("out", type=Path, help="folder for scores and feedback")
    parser.add_argument("--masters", type=Path, default=MASTERS)
    parser.add_argument("--jobs", type=int, default=2, help="submissions at a time")
    parser.add_argument("--fresh", action="store_true", help="grade all of them again")
    parser.add_argument("--sandbox", choices=KINDS, help="instead of the strongest")
    for limit in fields(Limits):
        name = f"--{limit.name.replace('_', '-')}"
        parser.add_argument(name, type=limit.type, default=limit.default)
    options = parser.parse_args(arguments)
    limits = Limits(**{f.name: getattr(options, f.name) for f in fields(Limits)})
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        book = grade(
            read_lab(options.masters / f"{options.lab.removesuffix('.ipynb')}.ipynb"),
            options.submissions,
            options.out,
            limits=limits,
            kind=options.sandbox,
            jobs=options.jobs,
            fresh=options.fresh,
        )
    except (GradeError, LabError, NoSandbox, Stopped) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on from here.", file=sys.stderr)
        return 130
    print(f"\n{book.summary()}\nWritten to {options.out}: grades.csv, feedback/, …")
    return 0
