"""Masters and what learners get of them: nothing cut out is left, no fault passes."""

import json
import shutil

import nbformat
import pytest

from helpers.labs import copies
from helpers.labs.grading import faults, submissions
from helpers.labs.grading.masters import learner_copy
from tests import small_lab
from tests.small_lab import NAME, SECRET, by_name


def test_the_copy_has_no_solution_no_hidden_test_and_no_output():
    text = nbformat.writes(learner_copy(small_lab.master(), NAME))
    for cut in (
        SECRET,
        "2 * x",
        "model answer",
        "for a reason",
        "BEGIN",
        'outputs": [{',
    ):
        assert cut not in text
    for left in ("YOUR CODE HERE", "YOUR ANSWER HERE", "is it the square?"):
        assert left in text


def test_the_copy_is_the_same_bytes_every_time():
    copies = {nbformat.writes(learner_copy(small_lab.master(), NAME)) for _ in "12"}
    assert len(copies) == 1


def test_the_expected_figure_follows_its_cell_folded_and_with_words():
    cells = learner_copy(small_lab.master(), NAME).cells
    index = [by_name(cell) for cell in cells].index("q1_figure")
    assert cells[index].cell_type == "code" and not cells[index].outputs
    figure = cells[index + 1]
    assert "<summary>Your figure should look like this</summary>" in figure.source
    assert "![The line rises from 0 to 6.](attachment:expected.png)" in figure.source
    assert figure.attachments["expected.png"]["image/png"] == small_lab.PIXEL


def test_a_lab_is_varied_by_its_seed_and_graded_with_the_learners(tmp_path):
    varied = learner_copy(small_lab.master(), NAME, seed=41)
    assert [c.source for c in varied.cells if by_name(c) == "seed"] == ["SEED = 41"]
    given = learner_copy(small_lab.master(), NAME)
    answers = submissions.answers(json.loads(nbformat.writes(varied)), given, NAME)
    assert answers.inputs()["seed"] == "SEED = 41" and not answers.notes


def test_labs_are_written_and_a_stale_copy_is_a_fault(tmp_path, capsys):
    small_lab.write_master(tmp_path / "solutions")
    places = [
        "--masters",
        str(tmp_path / "solutions"),
        "--labs",
        str(tmp_path / "labs"),
    ]
    assert copies.main([*places, "--check"]) == 1
    assert f"{NAME}.ipynb: labs/ is stale; run `make labs`" in capsys.readouterr().out
    assert copies.main(places) == 0
    assert copies.main([*places, "--check"]) == 0
    shutil.copy(tmp_path / "labs" / f"{NAME}.ipynb", tmp_path / "labs" / "old.ipynb")
    assert copies.main([*places, "--check"]) == 1
    assert "old.ipynb: has no master" in capsys.readouterr().out


def replace_in(name, old, new):
    def change(notebook):
        (cell,) = [cell for cell in notebook.cells if by_name(cell) == name]
        assert old in cell.source
        cell.source = cell.source.replace(old, new)

    return change


def set_in(name, **values):
    def change(notebook):
        (cell,) = [cell for cell in notebook.cells if by_name(cell) == name]
        cell.metadata.nbgrader.update(values)

    return change


def append(source, **more):
    def change(notebook):
        count = sum(cell.cell_type == "code" for cell in notebook.cells) + 1
        cell = nbformat.v4.new_code_cell(source, execution_count=count, **more)
        notebook.cells.append(cell)

    return change


def move_test_first(notebook):
    notebook.cells.insert(1, notebook.cells.pop(5))
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for count, cell in enumerate(code, 1):
        cell.execution_count = count


STDERR = [nbformat.v4.new_output("stream", name="stderr", text="a warning")]
HIDDEN = "### BEGIN HIDDEN TESTS\npass\n### END HIDDEN TESTS\n"
FAULTS = {
    "21 points": (set_in("q1_check", points=7), "has 21 points, not 20"),
    "no points": (set_in("q1_check", points=0), "q1_check is graded but has no points"),
    "one name twice": (set_in("q2", grade_id="q1"), "Duplicate grade id: q1"),
    "code marked by hand": (set_in("q1", grade=True, points=1), "a markdown answer"),
    "no solution": (replace_in("q1", "    return 2 * x\n", ""), "q1 has no solution"),
    "open solution": (replace_in("q1", "### END SOLUTION", ""), "no end solution"),
    "no mark scheme": (replace_in("q4", "MARK SCHEME", "MARKS"), "no mark scheme"),
    "solution told": (append("return sum(numbers) + OFFSET"), "q2: its solution"),
    "hidden test told": (
        append('checks.close(double(-1.5), -3, otherwise="Negative numbers.")'),
        "q1_check: its hidden tests stands in another cell",
    ),
    "two hidden parts": (replace_in("q1_check", "checks.close(double(3)",
                                    HIDDEN + "x(0"),
                         "q1_check: put the hidden tests in one region"),
    "hidden first": (replace_in("q3_check", "score = ", HIDDEN + "score = "),
                     "q3_check: put the hidden tests in one region, at the end"),
    "all hidden": (lambda n: n.cells[5].update(source=HIDDEN.strip()),
                   "q1_check has no visible check"),
    "magic": (replace_in("q3_check", "score =", "%time score ="),
              "q3_check: not plain Python"),
    "a test before answers": (move_test_first, "q1_check comes before any answer"),
    "a warning in a test": (lambda n: n.cells[5].update(outputs=STDERR),
                            "q1_check writes to stderr"),
    "a test's variable used": (append("print(score)"), "'score' of the test q3_check"),
    "never run": (lambda n: n.cells[1].update(execution_count=None), "not executed"),
    "an error": (append("x", outputs=[nbformat.v4.new_output("error", ename="E",
                 evalue="", traceback=[])]), "stores an error"),
    "another kernel": (lambda n: n.metadata.kernelspec.update(name="x"), "not python3"),
    "no picture": (lambda n: n.cells[6].update(outputs=[]), "stores no picture"),
}  # fmt: skip


def test_a_good_master_has_no_fault():
    assert faults.problems(small_lab.master(), NAME) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_master_is_named(fault):
    change, says = FAULTS[fault]
    notebook = small_lab.master()
    change(notebook)
    found = faults.problems(notebook, NAME)
    assert any(says in problem for problem in found), found


def test_a_master_is_called_after_its_lab():
    assert faults.problems(small_lab.master(), "small")
