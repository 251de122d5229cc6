"""Masters: a lab's solutions, hidden tests and mark schemes in nbgrader's cell format.

What is read from a master for grading, and the copy without all this for learners.
"""

import ast
import copy
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.preprocessors import (
    ClearHiddenTests,
    ClearMarkScheme,
    ClearOutput,
    ClearSolutions,
    ComputeChecksums,
    LockCells,
)
from nbgrader.utils import is_grade, is_solution

ROOT = Path(__file__).resolve().parents[3]
MASTERS = ROOT / "solutions"
FIGURE = "expected-figure"
SEED = re.compile(r"^SEED = ([0-9]{1,9})([ \t]*#[^\r\n]*)?$", re.M)
REGIONS = ("SOLUTION", "HIDDEN TESTS", "MARK SCHEME")


class LabError(ValueError):
    """A master or a copy cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Cell:
    """A cell that grading uses. `kind`: "lab", "answer", "test" or "written".

    `name` is nbgrader's grade_id where there is one. A test is cut in two: `source` is
    what learners see, `hidden` the rest.
    """

    name: str
    kind: str
    source: str
    hidden: str = ""
    points: float = 0
    title: str = ""  # the heading above it


def read_notebook(path: Path) -> NotebookNode:
    """A notebook file. Raises `LabError` where it is none, or is not there."""
    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError:
        names = ", ".join(sorted(p.stem for p in path.parent.glob("lab*.ipynb")))
        raise LabError(f"no {path}; there are: {names or 'no labs'}") from None
    except Exception as error:
        raise LabError(f"{path} is not a notebook: {error}") from None


def cells(master: NotebookNode) -> list[Cell]:
    """The cells of a master that grading uses, in order; its other text is left out."""
    found, title = [], ""
    for cell in master.cells:
        name = grade_id(cell)
        points = float(cell.metadata.get("nbgrader", {}).get("points") or 0)
        if is_grade(cell) and is_solution(cell):
            found.append(Cell(name, "written", cell.source, "", points, title))
        elif is_grade(cell):
            hidden = "\n".join(regions(cell.source, "HIDDEN TESTS"))
            shown = visible(cell.source)
            found.append(Cell(name, "test", shown, hidden, points, title))
        elif is_solution(cell):
            found.append(Cell(name, "answer", cell.source, title=title))
        elif cell.cell_type == "code":
            found.append(Cell(name, "lab", cell.source, title=title))
        elif headings := re.findall(r"^##+ (.+)$", cell.source, re.M):
            title = headings[-1]
    return found


def regions(source: str, kind: str) -> list[str]:
    """The texts between `BEGIN kind` and `END kind`."""
    pattern = rf"^[^\n]*BEGIN {kind}[^\n]*\n(.*?)^[^\n]*END {kind}[^\n]*$"
    return re.findall(pattern, source, re.M | re.S)


def grade_id(cell: NotebookNode) -> str:
    """nbgrader's name of a cell, or its id."""
    return cell.metadata.get("nbgrader", {}).get("grade_id", cell.id)


def names(source: str) -> tuple[set[str], set[str]]:
    """Names that a cell defines at its top level, and those it reads from others."""
    try:
        body = ast.parse(re.sub(r"^\s*[%!].*", "", source, flags=re.M)).body
    except SyntaxError:
        return set(), set()
    stored, read = set(), set()
    for statement in body:
        used, made, own = set(), set(), set()  # own: of inner functions, comprehensions
        for node in ast.walk(statement):
            if isinstance(node, ast.Name):
                (used if isinstance(node.ctx, ast.Load) else made).add(node.id)
            elif isinstance(node, ast.arg):
                own.add(node.arg)
            elif isinstance(node, ast.comprehension):
                own |= {n.id for n in ast.walk(node.target) if isinstance(n, ast.Name)}
            elif isinstance(node, ast.alias):
                made.add((node.asname or node.name).partition(".")[0])
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            own, made = own | made, {statement.name}
        elif not isinstance(statement, ast.Assign | ast.AugAssign):
            own = own | made  # `for x in …: use(x)` reads its own x
        read |= used - stored - own
        stored |= made - own if isinstance(statement, ast.Assign) else made
    return stored, read


# ---------------------------------------------------------------- the learner's copy


def learner_copy(
    master: NotebookNode, name: str, seed: int | None = None
) -> NotebookNode:
    """What learners get: no solution, hidden test, mark scheme or output.

    `seed` replaces the number in `SEED = …`, where a lab draws data per learner.
    Raises `LabError` when the master marks its regions wrongly, or has no seed.
    """
    lab = copy.deepcopy(master)
    lab.metadata.course = {**lab.metadata.get("course", {}), "lab": name}
    figures = {cell.id: _figure(cell) for cell in lab.cells if _expects_figure(cell)}
    if seed is not None:
        drawn = [cell for cell in lab.cells if SEED.search(cell.source)]
        if not drawn:
            raise LabError(f"{name} has no cell SEED = …, so it has no variants")
        for cell in drawn:
            cell.source = SEED.sub(
                lambda found: f"SEED = {seed}{found[2] or ''}", cell.source
            )
    try:  # the steps of `nbgrader generate_assignment`, without its database
        for step in (
            LockCells(),
            ClearSolutions(),
            ClearOutput(),
            ClearHiddenTests(),
            ClearMarkScheme(enforce_metadata=False),  # ours are in written answers
            ComputeChecksums(),
        ):
            lab, _ = step.preprocess(lab, {})
    except RuntimeError as error:
        raise LabError(f"{name}: {error}") from None
    for index, cell in reversed(list(enumerate(lab.cells))):
        cell.source = cell.source.rstrip()
        if cell.id in figures:
            lab.cells.insert(index + 1, figures[cell.id])
    return lab


def _expects_figure(cell: NotebookNode) -> bool:
    return FIGURE in cell.metadata.get("tags", ())


def _figure(cell: NotebookNode) -> NotebookNode:
    """The stored picture of a cell, folded, with the words that go with it."""
    for output in cell.get("outputs", ()):
        if image := output.get("data", {}).get("image/png"):
            alt = output.metadata.get("image/png", {}).get("alt", "")
            text = (
                "<details><summary>Your figure should look like this</summary>\n\n"
                f"![{alt}](attachment:expected.png)\n\n</details>"
            )
            attachments = {"expected.png": {"image/png": image.strip()}}
            new = nbformat.v4.new_markdown_cell(text, attachments=attachments)
            new.id = f"{cell.id}-figure"
            return new
    raise LabError(f"cell {cell.id} is tagged {FIGURE} but stores no picture")


def visible(source: str) -> str:
    """A test without its hidden part."""
    cell = nbformat.v4.new_code_cell(source)
    cell.metadata["nbgrader"] = {"grade": True}
    ClearHiddenTests().preprocess_cell(cell, {}, 0)
    return cell.source.rstrip()
