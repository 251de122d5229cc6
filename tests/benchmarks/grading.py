"""Time to grade a class: `python -m tests.benchmarks.grading [LAB] [--copies 30]`.

The class is made from the lab's master: a third have every answer right, a third have
some answers left out, a third have answers that end in an error or in nothing. Each is
graded in its own sandbox, two at a time, as `make grade` does. Written are the minutes
for all, the median seconds of a submission and the mean points, to
notebooks/results/grading.json.
"""

import argparse
import os
import random
import tempfile
import time
from pathlib import Path
from statistics import mean, median

import nbformat

from helpers import data
from helpers.course import record
from helpers.labs.grade import grade, read_lab
from helpers.labs.grading.gradebook import totals
from helpers.labs.grading.masters import MASTERS, learner_copy, read_notebook
from helpers.labs.grading.namespaces import strongest

COLUMNS = ["lab", "submissions", "at a time", "minutes", "seconds each", "mean points"]
LIMIT = 10  # minutes for a class of 30
SPOILT = ("raise ValueError('unfinished')", "answer = None")


def hand_in(master: Path, folder: Path, copies: int) -> None:
    """A class of `copies` learners, the same every time."""
    rng = random.Random(0)
    solved = read_notebook(master)
    answers = {
        cell.metadata.nbgrader.grade_id: cell.source
        for cell in solved.cells
        if cell.metadata.get("nbgrader", {}).get("solution")
    }
    for number in range(copies):
        notebook = learner_copy(solved, master.stem)
        for cell in notebook.cells:
            name = cell.metadata.get("nbgrader", {}).get("grade_id")
            if name not in answers or (number % 3 and rng.random() < 0.3):
                continue  # an answer left out
            spoilt = number % 3 == 2 and cell.cell_type == "code" and rng.random() < 0.3
            cell.source = rng.choice(SPOILT) if spoilt else answers[name]
        nbformat.write(notebook, folder / f"learner{number:02d}.ipynb")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lab", nargs="?", default="lab02_soft_targets")
    parser.add_argument("--copies", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    master = MASTERS / f"{options.lab}.ipynb"
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "submissions").mkdir()
        hand_in(master, folder / "submissions", options.copies)
        start = time.perf_counter()
        book = grade(
            read_lab(master),
            folder / "submissions",
            folder / "grades",
            jobs=options.jobs,
        )
        minutes = (time.perf_counter() - start) / 60
    points = [totals(result)[0] for result in book.results.values()]
    each = median(result["seconds"] for result in book.results.values())
    row = [options.lab, len(points), options.jobs, round(minutes, 1), each]
    card = data.run_card(
        "python -m tests.benchmarks.grading",
        sandbox=strongest(),
        cores=os.cpu_count(),
        limit_minutes=LIMIT,
    )
    path = record.RESULTS / "grading.json"
    data.write_results(path, COLUMNS, [[*row, round(mean(points), 1)]], card)
    print(book.summary())
    print(f"{len(points)} submissions in {minutes:.1f} minutes (limit {LIMIT})")


if __name__ == "__main__":
    main()
