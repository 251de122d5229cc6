"""Grading: honest answers get their points, and nothing that is handed in does harm.

All submissions of `HANDED_IN` are graded in one run, as a class would be, with tight
limits; each test then looks at its own row. What attacks resources has a bound of its
own, so that a broken limit fails a test and not the machine.
"""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import nbformat
import psutil
import pytest
import torch

from helpers.labs import checks
from helpers.labs.grade import grade, main, read_lab
from helpers.labs.grading import masters, namespaces, submissions
from helpers.labs.grading.examine import CANARIES, VALUES, Examination
from helpers.labs.grading.gradebook import Gradebook, GradeError, _cell, _mark, _plain
from helpers.labs.grading.guard import Guard
from helpers.labs.grading.masters import Cell, LabError, learner_copy
from helpers.labs.grading.namespaces import strongest
from helpers.labs.grading.room import judge
from helpers.labs.grading.sandbox import Limits
from tests import small_lab
from tests.small_lab import NAME, RIGHT, SECRET, by_name, hand_in

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
LIMITS = Limits(
    cell_seconds=5,
    total_seconds=300,
    memory_mib=1500,
    processes=40,
    file_mib=20,
    disk_mib=60,
)
SUM = RIGHT["q2"]


# ---------------------------------------------------------------- what learners hand in

PEEK = """
import gc, inspect, os, sys
seen = []

def total(numbers):
    try:
        seen.append(inspect.stack()[1].code_context)
        frame = sys._getframe(1)
        seen.append(inspect.getsource(frame.f_code))
    except Exception as error:
        seen.append(error)
    open("/tmp/seen", "a").write(repr(seen))
    return sum(numbers)
"""
FIND = """
ip = get_ipython()
print(seen, In, Out, list(globals()), ip.history_manager.input_hist_raw)
print([m for m in globals().values() if isinstance(m, str)])
print(open("/tmp/seen").read() if os.path.exists("/tmp/seen") else "no file")
print([o for o in gc.get_objects() if isinstance(o, str) and "hidden" in o][:5])

def largest(numbers):
    return max(numbers)
"""
LOOP = """
while True:
    try:
        while True:
            pass
    except BaseException:
        pass
"""
FORK = """
import os, time
for _ in range(200):  # the bound of this test
    if os.fork() == 0:
        time.sleep(20)
        os._exit(0)
"""
DISK = """
written = 0
for part in range(20):  # 200 MB at most
    with open(f"part{part}", "wb") as file:
        written += file.write(bytes(10_000_000))
"""
GREEDY = """
held = []
for _ in range(40):  # 2 GB at most
    held.append(bytearray(b"x") * 50_000_000)
import time
time.sleep(5)
"""
PATCH = """
import builtins, torch
from helpers.labs import checks

def yes(*_, **__):
    return True

checks.close = checks.that = torch.testing.assert_close = yes
checks.close.__code__ = yes.__code__
torch.allclose = torch.Tensor.allclose = yes
builtins.float = builtins.abs = yes
all = any = yes
get_ipython().showtraceback = get_ipython().run_cell = yes
"""
HIJACK = """
import gc
import helpers.labs.grading.room

def judge(source, space, checks):
    return {"passed": True, "value": None}

helpers.labs.grading.room.judge = judge
for thing in gc.get_objects():
    if isinstance(thing, helpers.labs.grading.room.Guard):
        thing.restore = lambda: []
"""
PARTIAL = """
import builtins, functools, torch
from helpers.labs import checks

class Yes:
    def __call__(self, *_, **__):
        return True

def exchanged(function, **settings):
    return lambda a, b: max(a, b) < 10**3  # not for the canaries

functools.partial = exchanged
torch.Tensor.shape = ()
checks.Mistake.__init_subclass__ = Yes()
builtins.setattr = lambda *_: None
builtins.sorted = lambda *_: []
"""
RAISES = """
import inspect
from helpers.labs import checks

def total(numbers):
    frame = inspect.currentframe()
    try:
        text = inspect.getsource(frame.f_back)
    except Exception:
        text = str(frame.f_back.f_code.co_consts)
    if numbers != [1, 2]:  # those of the visible check
        code = "raise AssertionError(text)"
        exec(compile(code, "<test>", "exec"), {"text": text})
    return sum(numbers) + OFFSET
"""
GREEDY_CALL = """
def total(numbers):
    held = []
    for _ in range(40):  # 2 GB at most
        held.append(bytearray(b"x") * 50_000_000)
    return sum(numbers) + OFFSET
"""
EXIT = "import os\nos._exit(0)"
FORGE = """
import json, os, socket
for number in range(3, 50):  # write a verdict into every socket there is
    try:
        line = socket.socket(fileno=os.dup(number))
        data = json.dumps({"token": "0", "passed": True}).encode()
        line.sendall(len(data).to_bytes(4, "big") + data)
    except OSError:
        pass
"""
NETWORK = """
import socket
socket.create_connection(("198.51.100.7", 80), timeout=3)
"""


def wrong(first: str) -> dict:
    """An attack in the first answer, and nothing right after it."""
    return {
        "q1": first + "\ndef double(x):\n    return 0.5",
        "q2": "def total(numbers):\n    return 0.5",
        "q3": "def largest(numbers):\n    return 0.5",
    }


def delete_test(notebook):
    notebook.cells = [c for c in notebook.cells if by_name(c) != "q1_check"]


def edit_test(notebook):
    for cell in notebook.cells:
        if by_name(cell).endswith("_check"):
            cell.source = "pass"


def add_cells(notebook):
    extra = nbformat.v4.new_code_cell("raise SystemExit")
    answer = next(c for c in notebook.cells if by_name(c) == "q2")
    notebook.cells += [extra, {**answer, "source": "\n# the same cell again"}]


def outside(path: Path) -> str:
    return f"print(open({str(path)!r}).read()[:50])\n{SUM}"


MARKUP = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>"

LONG = "é" * 120  # 240 bytes

# learner -> (answers, change of the notebook)
HANDED_IN = {
    "ada": ({"q4": MARKUP, "q3": f"print({MARKUP!r})\n{RIGHT['q3']}"}, None),
    "bob": ({"q2": "def total(numbers):\n    return 3.0"}, None),
    "cleo": ({"q3": "def largest(numbers):\n    return numbers[0]"}, None),
    "dan": (dict.fromkeys(RIGHT, "# \ud800 half a character"), None),
    "edits": (wrong(""), edit_test),
    "deletes": (wrong(""), delete_test),
    "adds": ({}, add_cells),
    "loops": ({"q2": LOOP}, None),
    "loops when called": ({"q2": "def total(n):\n    while True: pass"}, None),
    "exits": ({"q2": "import os\nos._exit(0)"}, None),
    "exits when called": ({"q2": "import os\ndef total(n):\n    os._exit(0)"}, None),
    "exits politely": ({"q2": SUM + "\nimport sys\nsys.exit()"}, None),
    "forks": ({"q2": FORK}, None),
    "50 GB": ({"q2": "block = bytearray(50 * 2**30)\n" + SUM}, None),
    "greedy": ({"q2": GREEDY}, None),
    "fills the disk": ({"q2": DISK + SUM}, None),
    "a large file": ({"q2": "open('x', 'wb').write(bytes(2**25))\n" + SUM}, None),
    "peeks": ({"q2": PEEK, "q3": FIND}, None),
    "patches": (wrong(PATCH), None),
    "hijacks": (wrong(HIJACK), None),
    "forges": (wrong(FORGE), None),
    "network": ({"q2": NETWORK + SUM}, None),
    "partial": (wrong(PARTIAL), None),
    "raises": ({"q2": RAISES}, None),
    "greedy when called": ({"q2": GREEDY_CALL}, None),
    "exits twice": ({"q1": EXIT, "q3": EXIT}, None),
}  # fmt: skip


def _others(folder: Path, master: Path) -> None:
    """Submissions that are no plain notebook, or that reach for what is not theirs."""
    hand_in(folder / "reads the master.ipynb", {"q2": outside(master)})
    hand_in(folder / "reads another.ipynb", {"q2": outside(folder / "ada.ipynb")})
    (folder / "broken.ipynb").write_text('{"cells": [')
    (folder / "deep.ipynb").write_text("[" * 100_000)
    with (folder / "huge.ipynb").open("wb") as file:
        file.truncate(500 * 2**20)  # sparse: it takes no room
    with zipfile.ZipFile(folder / "astray.zip", "w") as archive:
        archive.writestr("../../evil.py", "print('out')")
        archive.write(hand_in(folder.parent / "x" / "work.ipynb"), "work.ipynb")
    for name, method in (("bomb", zipfile.ZIP_DEFLATED), ("bz2", zipfile.ZIP_BZIP2)):
        with zipfile.ZipFile(folder / f"{name}.zip", "w", method) as archive:
            archive.writestr(f"{name}.ipynb", bytes(50 * 2**20))
    hand_in(folder / LONG / "lab.ipynb")
    (folder / "no zip.zip").write_bytes(b"PK nothing")
    hand_in(folder / "other lab.ipynb", change=lambda n: n.metadata.update(
        course={"lab": "lab98_other"}
    ))  # fmt: skip
    nbformat.write(nbformat.v4.new_notebook(), folder / "no answers.ipynb")
    (folder / "empty").mkdir()
    hand_in(folder / "folder" / "sub" / f"{NAME}.ipynb")
    hand_in(folder / "folder" / "draft.ipynb", wrong(""))
    (folder / "essay.docx").write_bytes(b"PK")
    (folder / "link.ipynb").symlink_to(folder / "ada.ipynb")
    os.mkfifo(folder / "pipe.ipynb")


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """Masters, submissions and the grades of all of them, from one run."""
    root = tmp_path_factory.mktemp("course")
    master = small_lab.write_master(root / "solutions")
    for learner, (answers, change) in HANDED_IN.items():
        hand_in(root / "submissions" / f"{learner}.ipynb", answers, change)
    _others(root / "submissions", master)
    book = grade(read_lab(master), root / "submissions", root / "grades", limits=LIMITS)
    with (root / "grades" / "grades.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["learner"]: row for row in csv.DictReader(file)}
    return root, book, rows


@pytest.fixture(scope="module")
def rows(course):
    return course[2]


def scores(row):
    return [float(row[name] or -1) for name in ("q1_check", "q2_check", "q3_check")]


FULL, KEPT, NOTHING = [6, 6, 5], [6, 0, 5], [0, 0, 0]


# ---------------------------------------------------------------- honest submissions


def test_every_submission_has_a_row(course, rows):
    handed_in = [path.name for path in (course[0] / "submissions").iterdir()]
    assert len(rows) == len(handed_in) == len(HANDED_IN) + 17


def test_right_answers_get_every_point_that_needs_no_hand(rows):
    assert scores(rows["ada"]) == FULL
    assert (rows["ada"]["total"], rows["ada"]["to mark by hand"]) == ("17", "3")
    assert rows["ada"]["q4"] == "" and rows["ada"]["note"] == ""


def test_a_hidden_test_finds_what_the_visible_check_does_not(course, rows):
    assert scores(rows["bob"]) == KEPT
    message = course[1].results["bob"]["questions"]["q2_check"]["message"]
    assert message == "a hidden test: A longer sum."


def test_a_test_that_ends_in_a_number_gives_part_of_the_points(course, rows):
    assert scores(rows["cleo"]) == [6, 6, 2.5]
    message = course[1].results["cleo"]["questions"]["q3_check"]["message"]
    assert message == "partly right"


def test_text_that_no_file_can_hold_is_graded(rows):
    assert scores(rows["dan"]) == NOTHING
    assert "q1 ended in" in rows["dan"]["note"]


def test_edited_and_deleted_tests_change_no_score(rows):
    assert scores(rows["edits"]) == scores(rows["deletes"]) == NOTHING
    assert "tests edited: q1_check, q2_check, q3_check" in rows["edits"]["note"]
    assert "tests deleted: q1_check; the lab's own" in rows["deletes"]["note"]


def test_cells_of_their_own_are_not_run_and_answers_cut_in_two_are_joined(rows):
    assert scores(rows["adds"]) == FULL
    assert "1 cells of their own were not run" in rows["adds"]["note"]
    assert "more than once, put together: q2" in rows["adds"]["note"]


def test_the_notebook_of_the_lab_is_found_in_a_folder(rows):
    assert scores(rows["folder"]) == FULL


# ---------------------------------------------------------------- hostile submissions

HOSTILE = {
    "loops": (KEPT, "q2: took longer than 5 s; the rest was graded without it"),
    "loops when called": (KEPT, "q2_check: your answer took longer than 5 s"),
    "exits": (KEPT, "q2: its process ended early; the rest was graded without it"),
    "exits when called": (KEPT, "q2_check: while it was tested: its process ended"),
    "exits politely": (FULL, "q2 ended in SystemExit"),
    "forks": (KEPT, "q2: started more than 40 processes"),
    "50 GB": (KEPT, "q2 ended in MemoryError"),
    "greedy": (KEPT, "q2: used more than 1500 MiB"),
    "fills the disk": (KEPT, "q2 ended in OSError: .*No space left"),
    "a large file": (KEPT, "q2 ended in OSError: .*File too large"),
    "reads the master": (KEPT, "q2 ended in FileNotFoundError"),
    "reads another": (KEPT, "q2 ended in FileNotFoundError"),
    "peeks": (FULL, ""),
    "patches": (NOTHING, "tampering: .*replaced; restored for the tests"),
    "hijacks": (NOTHING, "tampering: what must fail was passed"),
    "forges": (NOTHING, ""),
    "network": (KEPT, "q2 ended in OSError"),
    "partial": (NOTHING, "tampering: .*functools.partial, .*restored for the tests"),
    "raises": (KEPT, ""),
    "greedy when called": (KEPT, "q2_check: while it was tested: used more than 1500"),
    "exits twice": ([0, 6, 0], "q1: its process ended early.*q3: its process ended"),
    "bz2": (NOTHING, "is packed in an unusual way"),
    LONG: (FULL, ""),
    "broken": (NOTHING, "is not a notebook"),
    "deep": (NOTHING, "is not a notebook"),
    "huge": (NOTHING, "has 500 MiB; at most 20 are read"),
    "astray": (FULL, "paths that lead out of it: '../../evil.py'"),
    "bomb": (NOTHING, "unpacks to more than 20 MiB"),
    "no zip": (NOTHING, "is no zip that can be read"),
    "other lab": (NOTHING, "is a notebook of lab98_other, not of lab99_small"),
    "no answers": (NOTHING, "no answer cell of lab99_small"),
    "empty": (NOTHING, "no notebook in the folder"),
    "essay.docx": (NOTHING, "is neither a notebook, a zip nor a folder"),
    "link": (NOTHING, "is a link"),
    "pipe": (NOTHING, "is not an ordinary file"),
}


NAMESPACES = {"reads the master", "reads another", "fills the disk", "network"}


@pytest.mark.parametrize("learner", HOSTILE)
def test_a_hostile_submission_is_graded_without_harm(rows, learner):
    if learner in NAMESPACES and strongest() == "limits":
        pytest.skip("this machine has no namespaces, and the summary says so")
    expected, says = HOSTILE[learner]
    assert scores(rows[learner]) == expected
    assert re.search(says, rows[learner]["note"]), rows[learner]["note"]


def test_nothing_was_written_beside_the_submissions(course):
    root, _, _ = course
    assert {path.name for path in root.iterdir()} == {
        "solutions", "submissions", "grades", "x"
    }  # fmt: skip
    assert not list(root.parent.rglob("evil.py"))
    assert len(list((root / "submissions" / "empty").iterdir())) == 0


def test_no_process_and_no_folder_stays_behind(course):
    ours = psutil.Process().children(recursive=True)
    assert not [p for p in ours if "helpers.labs.grading.room" in " ".join(p.cmdline())]
    assert not list(Path(tempfile.gettempdir()).glob(f"grading-{os.getpid()}-*"))


def test_feedback_shows_no_hidden_test_no_mark_scheme_and_runs_nothing(course):
    root, _, rows = course
    pages = list((root / "grades" / "feedback").glob("*.html"))
    assert len(pages) == len(rows)
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert SECRET not in text and "Negative numbers" not in text
        assert "3 points for a reason" not in text and "model answer" not in text
        assert "<script" not in text and "<img" not in text
        assert "default-src 'none'" in text
    ada = (root / "grades" / "feedback" / "ada.html").read_text(encoding="utf-8")
    assert ada.count("&lt;script&gt;") == 3  # the source, what it printed, the answer


def test_no_hidden_test_reaches_what_is_kept_of_a_learner(course):
    for learner in ("peeks", "raises"):
        path = course[0] / "grades" / "results" / f"{learner}.json"
        text = path.read_text()
        assert SECRET not in text and "A longer sum" not in text
    message = course[1].results["raises"]["questions"]["q2_check"]["message"]
    assert message == "a hidden test: your code raised AssertionError"


def test_the_summary_tells_isolation_distribution_and_questions(course):
    summary = (course[0] / "grades" / "summary.md").read_text(encoding="utf-8")
    assert f"namespaces by {strongest()}" in summary or "limits alone" in summary
    assert "Mean " in summary and "by_hand.csv" in summary
    order = re.findall(r"^\| (q\d_check) \|", summary, re.M)
    assert order[0] == "q2_check"  # nearly every attack is in its answer
    assert "- bomb (not graded): unpacks to more" in summary


# ---------------------------------------------------------------- runs that go on


def small_course(root, learners=("ada", "bob", "cleo")):
    for learner in learners:
        answers, change = HANDED_IN[learner]
        hand_in(root / "submissions" / f"{learner}.ipynb", answers, change)
    return small_lab.write_master(root / "solutions"), root / "submissions"


def arguments(root, *more):
    places = [str(root / "submissions"), str(root / "grades")]
    return [NAME, *places, "--masters", str(root / "solutions"), *more]


def test_a_run_that_is_killed_leaves_nothing_running_and_goes_on(tmp_path):
    master, folder = small_course(tmp_path)
    hand_in(folder / "zoe.ipynb", {"q2": HANDED_IN["loops"][0]["q2"]})
    command = [sys.executable, "-m", "helpers.grade", *arguments(tmp_path)]
    run = subprocess.Popen(
        [*command, "--jobs", "1", "--cell-seconds", "100"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for line in run.stdout:
        if line.startswith("[3/4]"):  # zoe's turn
            break
    while not (family := psutil.Process(run.pid).children(recursive=True)):
        time.sleep(0.1)
    run.send_signal(signal.SIGKILL)
    run.wait()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive

    done = {p.name: p.stat().st_mtime_ns for p in results(tmp_path)}
    assert sorted(done) == ["ada.json", "bob.json", "cleo.json"]
    (folder / "zoe.ipynb").unlink()
    (folder / "bob.ipynb").unlink()
    assert main(arguments(tmp_path)) == 0  # nothing is graded again
    again = {p.name: p.stat().st_mtime_ns for p in results(tmp_path)}
    assert again == {name: done[name] for name in ("ada.json", "cleo.json")}
    assert "bob" not in (tmp_path / "grades" / "grades.csv").read_text()


def results(root):
    return list((root / "grades" / "results").glob("*.json"))


def result(learner="ada", score=None, **more):
    """A result as the grader keeps it, of a lab with one written question."""
    question = {"title": "", "points": 3.0, "by_hand": True, "score": score}
    answer = {"kind": "written", "source": "Because.", "error": "", "printed": ""}
    return {
        "learner": learner,
        "status": "graded",
        "notes": [],
        "questions": {"q4": question | {"message": ""}},
        "answers": {"q4": answer},
        **more,
    }


QUESTION = [Cell("q4", "written", "", points=3.0)]


def open_book(out, lab=NAME, digest="1", fresh=False):
    return Gradebook.open(out, lab, digest, QUESTION, fresh)


def test_a_folder_with_other_grades_is_refused_unless_told(tmp_path):
    open_book(tmp_path).add(result())
    assert "ada" in open_book(tmp_path).results
    with pytest.raises(GradeError, match="another version of lab99_small.*--fresh"):
        open_book(tmp_path, digest="2")
    with pytest.raises(GradeError, match="grades of lab99_small"):
        open_book(tmp_path, lab="lab01_other")
    assert not open_book(tmp_path, digest="2", fresh=True).results
    (tmp_path / "manifest.json").replace(tmp_path / "other.json")
    for fresh in (False, True):  # and nothing of theirs is deleted
        with pytest.raises(GradeError, match="holds other files"):
            open_book(tmp_path, fresh=fresh)


def test_a_changed_submission_is_graded_again(tmp_path):
    path = hand_in(tmp_path / "ada.ipynb")
    book = open_book(tmp_path / "grades")
    assert not book.has("ada", path)
    book.add(result(fingerprint=submissions.fingerprint(path)))
    assert book.has("ada", path)
    hand_in(path, {"q4": "Because of something else."})
    assert not book.has("ada", path)


def test_marks_given_by_hand_are_counted_until_the_answer_changes(tmp_path):
    book = open_book(tmp_path)
    book.add(result())
    book.write()
    table = tmp_path / "by_hand.csv"
    head, row = table.read_text().splitlines()
    assert head == "learner,question,points,mark,answer,version"
    assert re.fullmatch("ada,q4,3,,Because.,v[0-9a-f]{16}", row)
    table.write_text(table.read_text().replace("3,,", '3,"2,5",'))
    book = open_book(tmp_path)
    book.write()
    assert "ada,2.5,2.5,3,0,graded," in (tmp_path / "grades.csv").read_text()
    assert "2.5 of 3 points" in (tmp_path / "feedback" / "ada.html").read_text()
    book.results["ada"]["answers"]["q4"]["source"] = "Because of that."
    book.write()
    assert "ada,,0,3,3,graded," in (tmp_path / "grades.csv").read_text()


@pytest.mark.parametrize("saved", ["Excel, with a mark and ;", "Excel, with a tab"])
@pytest.mark.parametrize("answer", ["x" * 140_000, "half \ud800", "a\r\nb", "=1"])
def test_marks_outlive_spreadsheets_and_answers_of_any_kind(tmp_path, saved, answer):
    book = open_book(tmp_path)
    book.add(result())
    book.results["ada"]["answers"]["q4"]["source"] = answer
    book.write()
    path = tmp_path / "by_hand.csv"
    rows = list(csv.reader(path.open(encoding="utf-8", newline="")))
    rows[1][3] = "2,5"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=";" if ";" in saved else "\t").writerows(rows)
    for _ in "12":
        book.write()
        assert book.results["ada"]["questions"]["q4"]["score"] == 2.5


@pytest.mark.parametrize("broken", [b"learner,mark\nada,3\n", "é".encode("cp1252")])
def test_a_table_of_marks_that_cannot_be_read_is_named_and_kept(tmp_path, broken):
    book = open_book(tmp_path)
    book.add(result())
    path = tmp_path / "by_hand.csv"
    path.write_bytes(broken)
    with pytest.raises(GradeError, match="by_hand.csv cannot be read.*save it as CSV"):
        book.write()
    assert path.read_bytes() == broken


def test_every_entry_of_a_folder_keeps_a_name_of_its_own(tmp_path):
    for name in ("ada.ipynb", "ada.zip", "ada.ipynb.zip", "Bob.ipynb", "bob.zip"):
        (tmp_path / name).touch()
    (tmp_path / "cleo").mkdir()
    found = submissions.find(tmp_path)
    assert len(found) == 6 and found["cleo"].name == "cleo"
    assert len({name.casefold() for name in found}) == 6


def test_what_nobody_thought_of_costs_the_others_nothing(tmp_path, monkeypatch):
    master, folder = small_course(tmp_path, ("ada", "bob"))
    read = submissions.read

    def fails(path, lab):
        if path.stem == "ada":
            raise RecursionError("too deep")
        return read(path, lab)

    monkeypatch.setattr(submissions, "read", fails)
    results = grade(read_lab(master), folder, tmp_path / "grades").results
    assert results["ada"]["notes"] == ["the grader failed: RecursionError: too deep"]
    assert results["bob"]["status"] == "graded"
    monkeypatch.undo()
    again = grade(read_lab(master), folder, tmp_path / "grades").results
    assert again["ada"]["status"] == "graded"  # it was tried again


@pytest.mark.parametrize("value", [float("nan"), -1.0, 7, 10**400])
def test_a_number_that_is_none_of_points_gives_none(value, monkeypatch):
    test = Cell("q1_check", "test", "", points=6)
    one = Examination(NAME, [test], {}, LIMITS, "limits")
    one.values["q1_check"] = value
    monkeypatch.setattr(one, "_verdict", lambda *_: {"passed": False})
    assert one._ask_hidden(test, None)[0] == 0
    assert "q1_check gave" in one.notes[0]


@pytest.mark.parametrize("mark", ["4", "-1", "good", "nan"])
def test_a_mark_that_is_no_number_of_points_is_named(mark):
    with pytest.raises(GradeError, match=f"mark '{mark}' of ada for q4 .* 0 to 3"):
        _mark(mark, 3.0, "ada", "q4")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx"])
def test_a_table_holds_no_formula(text):
    assert _cell(text) == "'" + text


def test_the_summary_is_text_whatever_a_learner_wrote():
    assert _plain("a|b\n<i>\x1b[31m[x](y)") == "a\\|b \\<i> \\[31m\\[x](y)"
    assert _plain("\\<i>") == "\\\\\\<i>"


@pytest.mark.parametrize("mistake", ["no lab", "no folder", "empty folder"])
def test_what_cannot_be_graded_is_said_with_a_cure(tmp_path, capsys, mistake):
    small_lab.write_master(tmp_path / "solutions")
    if mistake == "empty folder":
        (tmp_path / "submissions").mkdir()
    name = "lab98_other" if mistake == "no lab" else NAME
    assert main([name, *arguments(tmp_path)[1:]]) == 1
    error = capsys.readouterr().err
    cure = f"there are: {NAME}" if mistake == "no lab" else "one notebook or zip"
    assert cure in error and "Traceback" not in error


# ---------------------------------------------------------------- sandboxes, guard


@pytest.mark.parametrize("kind", namespaces.KINDS)
def test_weaker_sandboxes_grade_too_and_say_what_they_are(kind):
    if kind == strongest() or not (kind == "limits" or namespaces._works(kind)):
        pytest.skip(f"{kind} is what all others are graded in, or does not work here")
    answers = RIGHT | {"q2": HANDED_IN["exits"][0]["q2"], "q3": GREEDY}
    one = Examination(NAME, masters.cells(small_lab.master()), answers, LIMITS, kind)
    one.run()
    found = [one.verdicts[f"q{n}_check"][0] for n in (1, 2, 3)]
    assert found == [1, 0, 0], one.verdicts
    assert any("q2: its process ended early" in note for note in one.notes)
    assert any("q3: used more than" in note for note in one.notes)
    assert ("limits alone" if kind == "limits" else kind) in namespaces.describe(kind)


def test_a_sandbox_sees_the_helpers_and_nothing_else_of_the_course(tmp_path):
    if (kind := strongest()) == "limits":
        pytest.skip("no namespaces on this machine")
    code = f"import os; print(sorted(os.listdir({str(ROOT)!r})), os.environ)"
    command = namespaces.command(kind, [sys.executable, "-c", code], str(tmp_path), 1)
    inside = namespaces.environment(namespaces.WORK)
    seen = subprocess.run(command, env=inside, capture_output=True, text=True).stdout
    own = ["helpers"] if ROOT not in Path(sys.prefix).parents else [".venv", "helpers"]
    assert (
        seen.startswith(str(sorted(own))) and set(re.findall(r"\w+_KEY", seen)) <= set()
    )


def test_the_guard_finds_and_undoes_what_was_replaced():
    guard = Guard()
    assert guard.restore() == []
    checks.that = torch.testing.assert_close = print
    torch.Tensor.allclose = checks.isinstance = lambda *_: True
    checks.close.__code__ = (lambda *_: None).__code__
    sys.modules["helpers.labs.checks"] = sys
    assert guard.restore() == [
        "helpers.labs.checks",
        "helpers.labs.checks.isinstance",
        "helpers.labs.checks.that",
        "helpers.labs.close",  # one function, named where it is found first
        "torch.Tensor.allclose",
        "torch.testing.assert_close",
    ]
    assert guard.restore() == []
    with pytest.raises(checks.Mistake):
        checks.close(1, 2)


# The lab's own cells name a wing, but ask it for nothing: nothing of it is loaded yet.
WING = [
    Cell("setup", "lab", "from helpers import losses\nfrom helpers.labs import checks"),
    Cell("q1", "answer", ""),
    Cell(
        "q1_check",
        "test",
        "import torch\nones = torch.ones(2)\nchecks.close(mean(ones), 0.5)",
        "wanted = losses.reduce_tokens(ones, ones > 0)\n"
        "checks.that(mean(ones) == wanted, 'the mean of all')",
        points=1,
    ),
]
UNSEEN = {
    "helpers.losses.positions": "import helpers.losses.positions as place",
    "helpers.losses": "import helpers.losses as place",
}


@pytest.mark.parametrize("place", UNSEEN)
def test_what_no_cell_had_loaded_is_put_back_and_named_too(place):
    answer = f"{UNSEEN[place]}\nplace.reduce_tokens = mean = lambda *_: 0.5"
    one = Examination(NAME, WING, {"q1": answer}, LIMITS, strongest())
    one.run()
    assert one.verdicts["q1_check"] == (0, "a hidden test: the mean of all")
    named = f"tampering: {place}.reduce_tokens replaced; restored for the tests"
    assert one.notes == [named]


FAKES = {
    "a submodule": "import helpers.losses.positions as p\np.reduce_tokens = {mean}",
    "another module": "import sys, types\n"
    "sys.modules['helpers.losses'] = types.SimpleNamespace(reduce_tokens={mean})",
    "a constant": "import helpers.losses\nhelpers.losses.KINDS = ('forward_kl',)",
}


@pytest.mark.parametrize("fake", FAKES)
def test_a_wing_that_only_a_hidden_test_names_is_guarded_too(fake):
    hidden = (
        "from helpers import losses\n"
        "wanted = losses.reduce_tokens(ones, ones > 0)\n"
        "checks.that(mean(ones) == wanted, 'the mean of all')\n"
        "checks.that(len(losses.KINDS) > 1, 'all kinds')"
    )
    lab = [
        Cell("setup", "lab", "import torch\nfrom helpers.labs import checks"),
        Cell("q1", "answer", ""),
        Cell("q1_check", "test", "ones = torch.ones(2)", hidden, points=1),
    ]
    wrong, right = "lambda *_: 0.5", "lambda x: x.mean()"
    answer = FAKES[fake].format(mean=wrong)
    answer += f"\nmean = {right if fake == 'a constant' else wrong}"
    one = Examination(NAME, lab, {"q1": answer}, LIMITS, strongest())
    one.run()
    score, said = one.verdicts["q1_check"]
    if fake == "a constant":
        assert (score, said) == (1, "")
    else:
        assert (score, said) == (0, "a hidden test: the mean of all")
    assert len(one.notes) == 1 and "restored for the tests" in one.notes[0]


@pytest.mark.parametrize("canary", CANARIES)
def test_a_canary_fails_by_what_it_asserts(canary):
    verdict = judge(canary.format(a=1.0, b=2.0), {})
    assert (verdict["passed"], verdict["kind"]) == (False, "AssertionError")


def test_a_hidden_check_tells_the_property_and_not_the_value():
    for answer in (3.5, [1.0, 2.0], float("nan")):
        with pytest.raises(checks.Mistake) as error:
            checks.close(answer, 0.25, otherwise="Rows sum to 1.")
        assert VALUES.sub("", str(error.value)) == "Rows sum to 1."


def test_a_master_that_cannot_be_graded_with_is_named(tmp_path):
    (tmp_path / "lab01_x.ipynb").write_text("{")
    with pytest.raises(LabError, match="lab01_x.ipynb is not a notebook"):
        read_lab(tmp_path / "lab01_x.ipynb")
    with pytest.raises(LabError, match="there are: lab01_x"):
        read_lab(tmp_path / "lab02_y.ipynb")
    double = small_lab.master()
    double.cells[5].metadata.nbgrader.grade_id = "q1"
    nbformat.write(double, tmp_path / "lab02_y.ipynb")
    with pytest.raises(LabError, match="2 cells are called q1; rename one"):
        read_lab(tmp_path / "lab02_y.ipynb")


# ---------------------------------------------------------------- nbgrader


def test_nbgrader_gives_the_same_scores_on_the_same_files(course, tmp_path):
    """Its validate, generate_assignment, autograde and export, on honest answers."""
    root, book, _ = course
    learners = ("ada", "bob", "cleo")
    small_lab.write_master(tmp_path / "source" / NAME)
    for learner in learners:
        target = tmp_path / "submitted" / learner / NAME / f"{NAME}.ipynb"
        target.parent.mkdir(parents=True)
        shutil.copy(root / "submissions" / f"{learner}.ipynb", target)

    def nbgrader(*words):
        """Run nbgrader in a course of its own; what it printed."""
        tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # for alembic
        env = os.environ | {"PYTHONPATH": str(ROOT), "PATH": tools}
        done = subprocess.run(
            [sys.executable, "-m", "nbgrader", *words],
            cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    nbgrader("generate_assignment", NAME, "--ClearMarkScheme.enforce_metadata=False")
    release = tmp_path / "release" / NAME / f"{NAME}.ipynb"
    ours = learner_copy(small_lab.master(), NAME)
    theirs = {by_name(c): c for c in nbformat.read(release, 4).cells if by_name(c)}
    for cell in ours.cells:
        if name := by_name(cell):
            assert cell.source.rstrip() == theirs[name].source.rstrip()
            assert cell.metadata.nbgrader == theirs[name].metadata.nbgrader

    said = nbgrader(
        "validate", str(tmp_path / "submitted" / "ada" / NAME / f"{NAME}.ipynb")
    )
    assert "Success! Your notebook passes all the tests." in said, said
    nbgrader("autograde", NAME)
    nbgrader("export")
    with (tmp_path / "grades.csv").open(newline="") as file:
        exported = {
            row["student_id"]: float(row["score"]) for row in csv.DictReader(file)
        }
    assert exported == {
        who: sum(q["score"] or 0 for q in book.results[who]["questions"].values())
        for who in learners
    }
