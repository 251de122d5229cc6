"""A lab of three small questions and a written one, and what learners hand in."""

import copy
import json
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers.labs.grading.masters import learner_copy

NAME = "lab99_small"
SECRET = "7919.5"  # stands in a hidden test and nowhere else
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9aw"
    "AAAABJRU5ErkJggg=="
)

TITLE = "# Lab 99 · What is small?\n\nA lab to try the grading with."
DOUBLE = '''def double(x):
    """Twice x."""
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION'''
DOUBLE_TEST = """checks.close(double(3), 6, {"is it the square?": 9})
### BEGIN HIDDEN TESTS
checks.close(double(-1.5), -3, otherwise="Negative numbers.")
### END HIDDEN TESTS"""
TOTAL = '''def total(numbers):
    """The sum of the numbers."""
    ### BEGIN SOLUTION
    return sum(numbers) + OFFSET
    ### END SOLUTION'''
TOTAL_TEST = f'''torch.testing.assert_close(float(total([1, 2])), 3.0)
### BEGIN HIDDEN TESTS
checks.close(total([{SECRET}, 1.0]), float("{SECRET}") + 1, otherwise="A longer sum.")
assert total([]) == 0
### END HIDDEN TESTS'''
LARGEST = '''def largest(numbers):
    """The largest of the numbers."""
    ### BEGIN SOLUTION
    return sorted(numbers)[-1]
    ### END SOLUTION'''
LARGEST_TEST = """score = 5.0 if largest([1, 3, 2]) == 3 else 2.5 * (largest([7]) == 7)
score"""
WHY = """### BEGIN SOLUTION
A model answer that a learner must not see.
### END SOLUTION
=== BEGIN MARK SCHEME ===
3 points for a reason.
=== END MARK SCHEME ==="""


def _graded(cell, name, points=0.0, solution=False, locked=False):
    cell.metadata["nbgrader"] = {
        "schema_version": 3,
        "grade_id": name,
        "grade": points > 0,
        "solution": solution,
        "locked": locked,
        "task": False,
    }
    if points:
        cell.metadata["nbgrader"]["points"] = points
    return cell


def master():
    """The master, as if it had been executed."""
    picture = new_output(
        "display_data",
        {"image/png": PIXEL + "\n", "text/plain": "<Figure>"},
        metadata={"image/png": {"alt": "The line rises from 0 to 6."}},
    )
    figure = new_code_cell("doubled = [double(x) for x in (0, 3)]", outputs=[picture])
    figure.metadata["tags"] = ["expected-figure"]
    setup = "import torch\n\nfrom helpers.labs import checks\n\nOFFSET = 0"
    cells = [
        new_markdown_cell(TITLE),
        _graded(new_code_cell(setup), "setup", locked=True),
        _graded(new_code_cell("SEED = 0"), "seed", locked=True),
        new_markdown_cell("## 1 · Twice (6 points)"),
        _graded(new_code_cell(DOUBLE), "q1", solution=True),
        _graded(new_code_cell(DOUBLE_TEST), "q1_check", 6, locked=True),
        _graded(figure, "q1_figure", locked=True),
        new_markdown_cell("## 2 · A sum (6 points)"),
        _graded(new_code_cell(TOTAL), "q2", solution=True),
        _graded(new_code_cell(TOTAL_TEST), "q2_check", 6, locked=True),
        new_markdown_cell("## 3 · The largest (5 points)"),
        _graded(new_code_cell(LARGEST), "q3", solution=True),
        _graded(new_code_cell(LARGEST_TEST), "q3_check", 5, locked=True),
        new_markdown_cell("## 4 · Why? (3 points)"),
        _graded(new_markdown_cell(WHY), "q4", 3, solution=True),
    ]
    notebook = new_notebook(cells=cells)
    notebook.metadata = {
        "kernelspec": {
            "display_name": "Python 3 (ipykernel)",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number:02d}"
    code = [cell for cell in cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, 1):
        cell.execution_count = number
    return nbformat.from_dict(json.loads(json.dumps(notebook)))


def write_master(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{NAME}.ipynb"
    nbformat.write(master(), path)
    return path


RIGHT = {
    "q1": "def double(x):\n    return x + x",
    "q2": "def total(numbers):\n    return sum(numbers)",
    "q3": "def largest(numbers):\n    return max(numbers)",
    "q4": "Because it is small.",
}


def handed_in(answers=None, change=None):
    """A learner's notebook: right answers, those given instead, and a `change`."""
    notebook = copy.deepcopy(learner_copy(master(), NAME))
    answers = RIGHT | (answers or {})
    for cell in notebook.cells:
        cell.source = answers.get(by_name(cell), cell.source)
    if change:
        change(notebook)
    return notebook


def by_name(cell):
    return cell.metadata.get("nbgrader", {}).get("grade_id", "")


def hand_in(path: Path, answers=None, change=None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(handed_in(answers, change)))
    return path
