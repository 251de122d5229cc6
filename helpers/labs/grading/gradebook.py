"""The results of grading one lab: kept per learner, written as tables and pages.

`results/NAME.json` holds one learner's result, so that a run can go on after a stop.
From them come `grades.csv`, `by_hand.csv` (the written answers; the points that an
instructor fills in there are counted from the next run on), `feedback/NAME.html` and
`summary.md`.
"""

import csv
import hashlib
import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Container, Sequence
from pathlib import Path
from statistics import mean, median

from ...data.jsonl import write_json
from . import feedback, submissions
from .masters import Cell
from .namespaces import describe

BY_HAND = ("learner", "question", "points", "mark", "answer", "version")
SHOWN = 30_000  # characters of an answer; a spreadsheet's cell holds 32,767
BARS = 10  # of the histogram


class GradeError(RuntimeError):
    """Grading cannot start; the message says what to do."""


class Gradebook:
    """The grades of one lab in one folder; `results` by learner."""

    def __init__(self, out: Path, lab: str, graded: Sequence[Cell]):
        self.out, self.lab, self.graded = out, lab, graded
        self.results: dict[str, dict] = {}

    @classmethod
    def open(
        cls,
        out: Path,
        lab: str,
        digest: str,
        graded: Sequence[Cell],
        fresh: bool = False,
    ) -> "Gradebook":
        """Begin a gradebook, or go on with one; `fresh` forgets its results.

        Marks given by hand stay. Raises `GradeError` where the folder holds the grades
        of another lab, or of another version of its master or checks.
        """
        book = cls(out, lab, graded)
        manifest, results = out / "manifest.json", out / "results"
        if out.exists() and any(out.iterdir()) and not manifest.exists():
            raise GradeError(f"{out} holds other files; choose an empty or new folder")
        if fresh:
            for folder in (results, out / "feedback"):
                shutil.rmtree(folder, ignore_errors=True)
        elif manifest.exists():
            old = json.loads(manifest.read_text(encoding="utf-8"))
            if old != {"lab": lab, "digest": digest}:
                same = old.get("lab") == lab
                what = f"another version of {lab}" if same else old.get("lab")
                raise GradeError(
                    f"{out} holds grades of {what}; choose another folder, or grade "
                    "all of them again with --fresh"
                )
        write_json(manifest, {"lab": lab, "digest": digest})
        for path in sorted(results.glob("*.json")):
            result = json.loads(path.read_text(encoding="utf-8"))
            book.results[result["learner"]] = result
        return book

    def has(self, learner: str, path: Path) -> bool:
        """Is this very submission graded already?"""
        try:
            now = submissions.fingerprint(path)
        except (OSError, submissions.Refused):
            return False
        return self.results.get(learner, {}).get("fingerprint") == now

    def keep_only(self, learners: Container[str]) -> None:
        """Forget results whose submission has gone."""
        for learner in [name for name in self.results if name not in learners]:
            del self.results[learner]
            for path in (self._path(learner), self._page(learner)):
                path.unlink(missing_ok=True)

    def add(self, result: dict) -> None:
        self.results[result["learner"]] = result
        write_json(self._path(result["learner"]), result)

    def _path(self, learner: str) -> Path:
        return self.out / "results" / f"{_file(learner)}.json"

    def _page(self, learner: str) -> Path:
        return self.out / "feedback" / f"{_file(learner)}.html"

    def line(self, result: dict) -> str:
        """One learner, for the progress of a run."""
        known, _, most = totals(result)
        notes = f"  ({'; '.join(result['notes'])})" if result["notes"] else ""
        return _plain(f"{result['learner']}: {known:g} of {most:g}{notes}")[:300]

    # ------------------------------------------------------------ what is written

    def write(self) -> None:
        """Write the tables, the pages and the summary."""
        self._marks()
        results = [self.results[name] for name in sorted(self.results)]
        names = [cell.name for cell in self.graded]
        rows = []
        for result in results:
            known, open_points, most = totals(result)
            scores = [result["questions"][name]["score"] for name in names]
            tail = [known, most, open_points, result["status"]]
            notes = "; ".join(result["notes"])
            rows.append([result["learner"], *scores, *tail, notes])
            page = feedback.page(self.lab, result)
            self._write(self._page(result["learner"]), page)
        head = [
            "learner",
            *names,
            "total",
            "out of",
            "to mark by hand",
            "status",
            "note",
        ]
        self._table("grades.csv", [head, *rows])
        self._write(self.out / "summary.md", self.summary())

    def _write(self, path: Path, text: str) -> None:
        """Whole or not at all: `by_hand.csv` holds an instructor's work."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        part.write_text(text, encoding="utf-8", errors="replace", newline="")
        part.replace(path)

    def _table(self, name: str, rows: Sequence[Sequence]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text).writerows([[_cell(v) for v in row] for row in rows])
        self._write(self.out / name, text.getvalue())

    def _marks(self) -> None:
        """Take the marks from `by_hand.csv` into the results, and write it again.

        A mark counts as long as the answer is the one that was marked, which the last
        column tells. Raises `GradeError` for a mark that is no number from 0 to the
        points, and for a file that cannot be read.
        """
        path = self.out / "by_hand.csv"
        marks = _read_marks(path) if path.exists() else {}
        rows = [BY_HAND]
        for learner, result in sorted(self.results.items()):
            for name, question in result["questions"].items():
                untouched = question["message"] == "not answered"
                if not question["by_hand"] or untouched or "answers" not in result:
                    continue
                answer = result["answers"][name]["source"]
                version = _version(learner, name, answer)
                mark, points = marks.get(version, ""), question["points"]
                question["score"] = _mark(mark, points, learner, name)
                rows.append([learner, name, points, mark, answer[:SHOWN], version])
        self._table(path.name, rows)

    def summary(self) -> str:
        """The class in Markdown: distribution, questions, and what happened."""
        graded = [r for r in self.results.values() if r["status"] == "graded"]
        lines = [
            f"# {self.lab}: {len(graded)} of {len(self.results)} submissions graded"
        ]
        kinds = {result.get("sandbox", "limits") for result in self.results.values()}
        lines += ["", *(f"Isolation: {describe(kind)}." for kind in sorted(kinds))]
        if graded:
            lines += ["", *self._distribution(graded), "", *self._questions(graded)]
        notes = [(n, r) for n, r in sorted(self.results.items()) if r["notes"]]
        if notes:
            lines += ["", "## What happened", ""]
        for name, result in notes:
            lines.append(
                _plain(f"- {name} ({result['status']}): " + "; ".join(result["notes"]))
            )
        return "\n".join(lines) + "\n"

    def _distribution(self, graded: Sequence[dict]) -> list[str]:
        scores = [totals(result)[0] for result in graded]
        waiting = sum(totals(result)[1] > 0 for result in graded)
        most = totals(graded[0])[2]
        bins = Counter(min(int(s / most * BARS), BARS - 1) for s in scores)
        lines = ["## Distribution", "", "```"]
        for bar in range(BARS):
            low, high = bar * most / BARS, (bar + 1) * most / BARS
            count = f"{'#' * bins[bar]} {bins[bar] or ''}".rstrip()
            lines.append(f"{low:4g} to {high:4g}  {count}".rstrip())
        lines += ["```", "", f"Mean {mean(scores):.1f}, median {median(scores):.1f}"]
        lines[-1] += f", of {most:g} points."
        if waiting:
            lines[-1] += f" {waiting} have written answers to mark in by_hand.csv."
        return lines

    def _questions(self, graded: Sequence[dict]) -> list[str]:
        """The questions, most missed first, with what was said most often."""
        rows = []
        for cell in self.graded:
            asked = [result["questions"][cell.name] for result in graded]
            scores = [question["score"] for question in asked]
            if None in scores:
                continue  # not yet marked
            said = Counter(q["message"] for q in asked if q["message"])
            often = _plain(said.most_common(1)[0][0])[:120] if said else ""
            share = mean(scores) / cell.points
            rows.append((share, f"| {cell.name} | {share:.0%} | {often} |"))
        lines = ["## Questions, most missed first", ""]
        lines += ["| question | mean | said most often |", "|---|---|---|"]
        return lines + [row for _, row in sorted(rows)]


def totals(result: dict) -> tuple[float, float, float]:
    """Points that are certain, points that wait for a mark, points in all."""
    questions = result["questions"].values()
    known = sum(q["score"] or 0 for q in questions)
    waiting = sum(q["points"] for q in questions if q["score"] is None)
    return known, waiting, sum(q["points"] for q in questions)


def _file(learner: str) -> str:
    """A learner's name as that of a file, on every system, however long it is."""
    safe = re.sub(r"[^\w .-]", "_", learner)[:50].rstrip(". ")
    if safe == learner:
        return learner
    return f"{safe}-{_digest(learner)}"


def _version(learner: str, name: str, answer: str) -> str:
    return f"v{_digest(learner, name, answer)}"  # no spreadsheet makes it a number


def _digest(*texts: str) -> str:
    data = "\0".join(texts).encode(errors="surrogatepass")
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _read_marks(path: Path) -> dict[str, str]:
    """Version of an answer -> its mark, as any spreadsheet may have saved them."""
    cure = "save it as CSV in UTF-8, with all its columns, or delete it to start afresh"
    try:
        text = path.read_text(encoding="utf-8-sig")
        head = text.partition("\n")[0]
        delimiter = max(",;\t", key=head.count)
        csv.field_size_limit(2**26)
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))
        return {row["version"]: row["mark"] or "" for row in rows}
    except (UnicodeDecodeError, csv.Error, KeyError) as error:
        kind = type(error).__name__
        raise GradeError(f"{path} cannot be read ({kind}: {error}); {cure}") from None


def _mark(text: str, points: float, learner: str, name: str) -> float | None:
    if not text.strip():
        return None
    try:
        mark = float(text.replace(",", "."))
    except ValueError:
        mark = -1.0
    if not 0 <= mark <= points:
        raise GradeError(
            f"by_hand.csv: the mark {text!r} of {learner} for {name} is no number "
            f"from 0 to {points:g}"
        )
    return mark


def _cell(value: object) -> object:
    """A value that no spreadsheet takes for a formula."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return "" if value is None else value


def _plain(text: str) -> str:
    """One line that neither Markdown nor a terminal takes for more than text."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return re.sub(r"[\\`|<\[]", r"\\\g<0>", text)
