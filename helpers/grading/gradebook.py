"""The results of grading one lab: kept per learner, written as tables and pages.

`results/NAME.json` holds one learner's result, so that a run can go on after a stop.
From them come `grades.csv`, `by_hand.csv` (the written answers; the points that an
instructor fills in there are counted from the next run on), `feedback/NAME.html` and
`summary.md`.
"""

import csv
import json
import shutil
from collections import Counter
from collections.abc import Container, Sequence
from pathlib import Path
from statistics import mean, median

from ..jsonl import write_json
from . import feedback, submissions
from .masters import Cell

BY_HAND = ("learner", "question", "points", "mark", "answer")
BARS = 10  # of the histogram


class GradeError(RuntimeError):
    """Grading cannot start; the message says what to do."""


class Gradebook:
    """The grades of one lab in one folder; `results` by learner."""

    def __init__(self, out: Path, lab: str, graded: Sequence[Cell], isolation: str):
        self.out, self.lab, self.graded, self.isolation = out, lab, graded, isolation
        self.results: dict[str, dict] = {}

    @classmethod
    def open(
        cls,
        out: Path,
        lab: str,
        digest: str,
        graded: Sequence[Cell],
        isolation: str,
        fresh: bool = False,
    ) -> "Gradebook":
        """Begin a gradebook, or go on with one; `fresh` forgets its results.

        Marks given by hand stay. Raises `GradeError` where the folder holds the grades
        of another lab, or of another version of its master or checks.
        """
        book = cls(out, lab, graded, isolation)
        manifest, results = out / "manifest.json", out / "results"
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
        elif out.exists() and any(out.iterdir()):
            raise GradeError(f"{out} holds other files; choose an empty or new folder")
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
            self._path(learner).unlink(missing_ok=True)

    def add(self, result: dict) -> None:
        self.results[result["learner"]] = result
        write_json(self._path(result["learner"]), result)

    def _path(self, learner: str) -> Path:
        return self.out / "results" / f"{learner}.json"

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
            self._write(f"feedback/{result['learner']}.html", page)
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
        self._write("summary.md", self.summary())

    def _write(self, name: str, text: str) -> None:
        path = self.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="replace")

    def _table(self, name: str, rows: Sequence[Sequence]) -> None:
        with (self.out / name).open(
            "w", encoding="utf-8", errors="replace", newline=""
        ) as file:
            csv.writer(file).writerows([[_cell(v) for v in row] for row in rows])

    def _marks(self) -> None:
        """Take the marks from `by_hand.csv` into the results, and write it again.

        A mark counts as long as the answer is the one that was marked. Raises
        `GradeError` for a mark that is no number from 0 to the points.
        """
        path, old = self.out / "by_hand.csv", {}
        if path.exists():
            with path.open(encoding="utf-8", newline="") as file:
                old = {(r["learner"], r["question"]): r for r in csv.DictReader(file)}
        rows = [BY_HAND]
        for learner, result in sorted(self.results.items()):
            for name, question in result["questions"].items():
                untouched = question["message"] == "not answered"
                if not question["by_hand"] or untouched or "answers" not in result:
                    continue
                answer = _cell(result["answers"][name]["source"])
                row = old.get((_cell(learner), name), {})
                mark = row.get("mark", "") if row.get("answer") == answer else ""
                question["score"] = _mark(mark, question["points"], learner, name)
                rows.append([learner, name, question["points"], mark, answer])
        self._table(path.name, rows)

    def summary(self) -> str:
        """The class in Markdown: distribution, questions, and what happened."""
        graded = [r for r in self.results.values() if r["status"] == "graded"]
        lines = [
            f"# {self.lab}: {len(graded)} of {len(self.results)} submissions graded"
        ]
        lines += ["", f"Isolation: {self.isolation}."]
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
    for sign in "\\`|<>[]*_":
        text = text.replace(sign, f"\\{sign}") if sign in "|<[" else text
    return text
