"""What makes a master unfit to assign: points, regions, tests, leaks."""

import ast
import re
from collections.abc import Iterator

import nbformat
from nbformat import NotebookNode
from nbgrader.nbgraderformat import MetadataValidator, ValidationError
from nbgrader.utils import is_grade, is_solution, is_task

from .masters import (
    REGIONS,
    LabError,
    cells,
    grade_id,
    learner_copy,
    names,
    regions,
    visible,
)

NAME = re.compile(r"lab\d\d_\w+")
POINTS = 20
SHORT = 20  # characters; a shorter region may stand elsewhere by chance


def problems(master: NotebookNode, name: str) -> list[str]:
    """Everything that makes a master unfit to assign; empty when it is fit."""
    try:
        nbformat.validate(master)
        MetadataValidator().validate_nb(master)
        lab = learner_copy(master, name)
    except (nbformat.ValidationError, ValidationError, LabError) as error:
        return [str(error).strip().splitlines()[0]]
    checks = (_form, _points, _regions, _tests, _dependence, _leaks)
    return [problem for check in checks for problem in check(master, lab, name)]


def _form(master, lab, name) -> Iterator[str]:
    if not NAME.fullmatch(name):
        yield "is not called labNN_topic.ipynb"
    if master.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "its kernelspec is not python3"
    code = [cell for cell in master.cells if cell.cell_type == "code"]
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        yield f"is not executed in order, 1 to {len(code)}"
    for cell in code:
        stops = "raises-exception" not in cell.metadata.get("tags", ())
        if stops and any(o.output_type == "error" for o in cell.outputs):
            yield f"cell [{cell.execution_count}] stores an error"


def _points(master, lab, name) -> Iterator[str]:
    total = sum(cell.points for cell in cells(master))
    if total != POINTS:
        yield f"has {total:g} points, not {POINTS}"
    for cell in master.cells:
        graded, answer = is_grade(cell), is_solution(cell)
        if is_task(cell) or (cell.cell_type == "code" and graded and answer):
            yield f"{grade_id(cell)}: what is marked by hand must be a markdown answer"
        if graded and not cell.metadata.nbgrader.points > 0:
            yield f"{grade_id(cell)} is graded but has no points"


def _regions(master, lab, name) -> Iterator[str]:
    for cell in master.cells:
        found = {kind: regions(cell.source, kind) for kind in REGIONS}
        if is_solution(cell) and not any(map(str.strip, found["SOLUTION"])):
            yield f"{grade_id(cell)} has no solution between BEGIN and END SOLUTION"
        if is_solution(cell) and is_grade(cell) and not found["MARK SCHEME"]:
            yield f"{grade_id(cell)} has no mark scheme"


def _tests(master, lab, name) -> Iterator[str]:
    """Tests are plain Python, what is hidden comes last, and something is tested."""
    answered = False
    for cell in master.cells:
        answered |= is_solution(cell)
        if not is_grade(cell) or is_solution(cell):
            continue
        if not answered:
            yield f"{grade_id(cell)} comes before any answer"
        if any(o.get("name") == "stderr" for o in cell.outputs):
            yield f"{grade_id(cell)} writes to stderr: nbgrader gives 0 points for that"
        hidden = regions(cell.source, "HIDDEN TESTS")
        if len(hidden) > 1 or (hidden and not _ends_hidden(cell.source)):
            yield f"{grade_id(cell)}: put the hidden tests in one region, at the end"
        for source in (visible(cell.source), *hidden):
            try:
                ast.parse(source)
            except SyntaxError as error:
                yield f"{grade_id(cell)}: not plain Python by itself ({error.msg})"
        if not visible(cell.source).strip():
            yield f"{grade_id(cell)} has no visible check"


def _ends_hidden(source: str) -> bool:
    return "END HIDDEN TESTS" in source.rstrip().splitlines()[-1]


def _dependence(master, lab, name) -> Iterator[str]:
    """Tests run in copies of the process, so what they define is gone afterwards."""
    makers: dict[str, NotebookNode] = {}  # name -> the cell that last defined it
    for cell in master.cells:
        if cell.cell_type != "code":
            continue
        stored, read = names(cell.source)
        for word in sorted(read):
            maker = makers.get(word)
            if maker is not None and is_grade(maker) and maker is not cell:
                yield f"{word!r} of the test {grade_id(maker)} is used after it"
        makers |= dict.fromkeys(stored, cell)


def _leaks(master, lab, name) -> Iterator[str]:
    """Nothing of what was cut out stands anywhere in the learner's copy."""
    public = "\n".join(cell.source for cell in lab.cells)
    for kind in REGIONS:
        if re.search(rf"(BEGIN|END) {kind}", public):
            yield f"the learner's copy still has a mark of {kind}"
        for cell in master.cells:
            for region in map(str.strip, regions(cell.source, kind)):
                if len(region) > SHORT and region in public:
                    yield f"{grade_id(cell)}: its {kind.lower()} stands in another cell"
    if any(cell.get("outputs") for cell in lab.cells):
        yield "the learner's copy stores outputs"
