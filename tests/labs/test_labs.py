"""The labs: the masters are right, every known mistake is named by the check for it."""

import functools
import importlib
import re
import tempfile
from pathlib import Path

import nbformat
import pytest

from helpers.labs import Mistake, NotAnswered, copies
from helpers.labs.grade import grade, read_lab
from helpers.labs.grading import submissions
from helpers.labs.grading.masters import learner_copy, read_notebook
from tests.labs.lab_answers import Right, Wrong

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
MASTERS = sorted((ROOT / "solutions").glob("lab*.ipynb"))
NAMES = [path.stem for path in MASTERS]


def module(name: str):
    """The answers to a lab."""
    return importlib.import_module(f"tests.labs.lab_answers.{name[:5]}")


def answers(*kinds: type) -> list:
    """(lab, answer) of every answer of these kinds, in the order of the labs."""
    found = []
    for path in MASTERS:
        found += [
            pytest.param(path.stem, a, id=f"{path.stem[:5]}-{a.name}".replace(" ", "_"))
            for a in [*module(path.stem).WRONG, *module(path.stem).RIGHT]
            if isinstance(a, kinds)
        ]
    return found


class Lab:
    """A master whose code cells are run here, once, with the names as each finds them.

    Cells before the one that is replaced are the same in every run: it starts from
    a copy of the names they left.
    """

    def __init__(self, name: str):
        self.cells = code_cells(ROOT / "solutions" / f"{name}.ipynb")
        self.before: list[dict] = []  # the names that a cell finds
        quick = getattr(module(name), "QUICK", {})
        names: dict = {"__name__": "__main__"}
        for cell in self.cells:
            self.before.append(dict(names))
            if grade_id(cell) not in quick:
                run(cell.source, names)
            elif source := quick[grade_id(cell)]:
                run(source, names)

    @staticmethod
    @functools.lru_cache(maxsize=1)  # one at a time: a lab can hold models
    def run(name: str) -> "Lab":
        return Lab(name)

    def first_failure(self, cell_id: str, code: str) -> tuple[str, str] | None:
        """The first test of the question that fails once `code` stands in a cell.

        Its grade_id, and how it fails. The question ends where the next answer begins.
        """
        places = [i for i, c in enumerate(self.cells) if grade_id(c) == cell_id]
        assert places, f"no cell {cell_id}"
        names = dict(self.before[places[0]])
        run(code, names)
        tested = False
        for cell in self.cells[places[0] + 1 :]:
            if tested and is_answer(cell):
                break
            try:
                run(cell.source, names)
            except Exception as error:
                if is_test(cell):
                    return grade_id(cell), f"{type(error).__name__}: {error}"
            tested = tested or is_test(cell)
        assert tested, f"no test after {cell_id}"
        return None


def code_cells(path: Path) -> list:
    return [c for c in read_notebook(path).cells if c.cell_type == "code"]


def grade_id(cell) -> str | None:
    return cell.metadata.get("nbgrader", {}).get("grade_id")


def is_answer(cell) -> bool:
    return cell.metadata.get("nbgrader", {}).get("solution", False)


def is_test(cell) -> bool:
    return cell.metadata.get("nbgrader", {}).get("grade", False) and not is_answer(cell)


def run(source: str, names: dict) -> None:
    source = re.sub(r"^\s*[%!].*$", "", source, flags=re.M)  # magics need IPython
    exec(compile(source, "<cell>", "exec"), names)


@pytest.fixture(scope="module", autouse=True)
def in_labs():
    """Labs run in their own folder, without a window for figures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT / "solutions")
        patch.setenv("MPLBACKEND", "agg")
        yield


def test_the_learners_copies_are_those_of_the_masters():
    """When this fails, `make labs` has to be run."""
    assert len(NAMES) == 7 and copies.write_labs(check=True) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_lab_can_be_varied_and_the_learners_seed_is_used(name):
    master = read_notebook(ROOT / "solutions" / f"{name}.ipynb")
    varied = learner_copy(master, name, seed=41)
    given = learner_copy(master, name)
    handed_in = submissions.answers(varied, given, name)
    assert list(handed_in.seed.values()) == ["SEED = 41"] and not handed_in.notes


@functools.cache
def graded(name: str) -> tuple[list[str], dict]:
    """The lab's questions in order, and the grades of two copies: one as learners get
    it, `given`, and one with the master's answers, `solved`."""
    master = read_notebook(ROOT / "solutions" / f"{name}.ipynb")
    sources = {grade_id(c): c.source for c in master.cells if is_answer(c)}
    given, solved = (learner_copy(master, name) for _ in "12")
    for cell in solved.cells:
        cell.source = sources.get(grade_id(cell), cell.source)
    lab = read_lab(ROOT / "solutions" / f"{name}.ipynb")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "in").mkdir()
        nbformat.write(given, place / "in" / "given.ipynb")
        nbformat.write(solved, place / "in" / "solved.ipynb")
        results = grade(lab, place / "in", place / "out").results
    for result in results.values():
        assert result["status"] == "graded" and result["notes"] == []
    return [grade_id(c) for c in master.cells if is_test(c)], results


@pytest.mark.parametrize("name", NAMES)
def test_graded_a_solved_lab_has_every_point_and_an_untouched_one_none(name):
    _, results = graded(name)
    assert sum(q["points"] for q in results["given"]["questions"].values()) == 20
    assert {q["score"] for q in results["given"]["questions"].values()} == {0}
    for question, found in results["solved"]["questions"].items():
        expected = None if found["by_hand"] else found["points"]
        assert found["score"] == expected, (question, found["message"])


@pytest.mark.parametrize("name", NAMES)
def test_an_untouched_lab_stops_at_its_first_question_with_a_hint(name):
    tests, results = graded(name)  # without notes: no cell before it failed
    said = results["given"]["questions"][tests[0]]["message"]
    assert "not answered yet. " in said and len(said.split("yet. ")[1]) > 20


@pytest.mark.parametrize("lab, answer", answers(Wrong, Right))
def test_a_known_mistake_is_named_and_another_right_answer_accepted(lab, answer):
    failure = Lab.run(lab).first_failure(answer.cell, answer.code)
    if isinstance(answer, Right):
        assert failure is None
        return
    assert failure, f"{answer.name}: accepted"
    assert failure[0] == answer.check, failure  # the check meant for it
    assert answer.says in failure[1], failure[1]
    assert failure[1].startswith(Mistake.__name__), failure[1]


def test_there_are_enough_wrong_and_right_answers():
    assert len(answers(Wrong)) >= 50
    assert len(answers(Right)) >= 15
