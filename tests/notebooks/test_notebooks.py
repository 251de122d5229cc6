"""Hygiene of every stored notebook, and proof that the checks reject bad ones.

nbval compares outputs, but it never compares a cell that was stored without any, and it
looks at no picture. What it lets pass is caught here.
"""

import re
import statistics
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[2]
SERIES = sorted((ROOT / "notebooks").glob("*.ipynb"))
SOLUTIONS = sorted((ROOT / "solutions").glob("*.ipynb"))

LONGEST, MEDIAN = 25, 8  # lines of a code cell
ALT_WORDS = 4
DEFAULT_ALT = "no description has been provided"  # what nbconvert writes
CARD = ("You will be able to", "Time", "Hardware")
FORBIDDEN = {
    "installs packages: requirements.txt is the place": r"^\s*[!%].*\b(pip|conda)\b",
    "hides warnings: cure the cause": r"(filterwarnings|simplefilter)\(\s*[\"']ignore",
}
# Not part of an address: nothing that looks like a path or a host stands before it.
ABSOLUTE_PATH = re.compile(
    r"(?<![\w./:~>-])/(home|root|Users|tmp|work|mnt|opt|usr|var|content|workspaces)/\w"
    r"|(?<!\w)[A-Z]:\\\w"
)


def problems(notebook, name: str) -> list[str]:
    """Everything wrong with a stored notebook; empty when it is fit to publish."""
    checks = (_execution, _pictures, _text, _size, _opening, _volatile)
    return [problem for check in checks for problem in check(notebook, name)]


def _code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _tags(cell):
    return cell.metadata.get("tags", ())


def _execution(notebook, name):
    """Run from top to bottom, every cell, and nothing failed unannounced."""
    counts = [cell.execution_count for cell in _code(notebook)]
    if not counts:
        yield "has no code cell"
    if counts != list(range(1, len(counts) + 1)):
        yield f"not executed in order, 1 to {len(counts)}: {counts}; run `make refresh`"
    for cell in _code(notebook):
        failed = any(output.output_type == "error" for output in cell.outputs)
        if failed and "raises-exception" not in _tags(cell):
            yield f"cell [{cell.execution_count}] stores an error"


def _pictures(notebook, name):
    """Every picture has words for those who cannot see it."""
    for cell in _code(notebook):
        for output in cell.outputs:
            for kind in output.get("data", {}):
                if not kind.startswith("image/"):
                    continue
                alt = output.metadata.get(kind, {}).get("alt", "")
                if len(alt.split()) < ALT_WORDS or DEFAULT_ALT in alt.lower():
                    yield (
                        f"cell [{cell.execution_count}] shows a picture whose alt text "
                        f"is {alt!r}; use helpers.plots.show(figure, alt)"
                    )
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and re.search(
            r"!\[\s*\]\(|<img(?![^>]*\balt=[\"'][^\"'])", cell.source
        ):
            yield "a text cell shows a picture without alt text"


def _text(notebook, name):
    """Nothing that works on one machine only, in the source or in what it printed."""
    for cell in _code(notebook):
        for what, pattern in FORBIDDEN.items():
            if re.search(pattern, cell.source, re.M):
                yield f"cell [{cell.execution_count}] {what}"
    for cell in notebook.cells:
        texts = [cell.source]
        for output in cell.get("outputs", ()):
            texts.append(output.get("text", ""))
            texts += [v for k, v in output.get("data", {}).items() if k[:5] == "text/"]
        if found := ABSOLUTE_PATH.search("\n".join(texts)):
            yield f"absolute path {found[0]}… in or below: {cell.source[:40]!r}"


def _size(notebook, name):
    """Cells that a reader takes in at a glance; a lab may hold a script, or tests."""
    lengths = [len(cell.source.splitlines()) for cell in _code(notebook)]
    yield from (f"code cell {n} is empty" for n, x in enumerate(lengths, 1) if not x)
    if name.startswith("lab"):
        return
    for number, length in enumerate(lengths, 1):
        if length > LONGEST:
            yield f"code cell {number} has {length} lines, more than {LONGEST}"
    if lengths and statistics.median(lengths) > MEDIAN:
        yield f"the median code cell has more than {MEDIAN} lines"


def _opening(notebook, name):
    """The title carries the file's number, the card follows before any code."""
    parts = re.fullmatch(r"(lab)?(\d\d)_\w+\.ipynb", name)
    if not parts:
        yield "is not called NN_name.ipynb (a lab: labNN_name.ipynb)"
        return
    opening = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            break
        opening.append(cell.source)
    title = opening[0].splitlines()[0] if opening else ""
    lab, number = parts.groups()
    expected = f"# Lab {number} · …" if lab else f"# {number} · …?"
    if not re.fullmatch(re.escape(expected).replace("…", ".+"), title):
        yield f"the title is {title!r}, not like {expected!r}"
    for words in CARD:
        if words not in "\n".join(opening):
            yield f"the card lacks {words!r}"


def _volatile(notebook, name):
    """What changes on every run would drown real differences."""
    volatile = "widgets" in notebook.metadata
    volatile |= "version" in notebook.metadata.get("language_info", {})
    volatile |= any("execution" in cell.metadata for cell in notebook.cells)
    if volatile:
        yield "stores widget states, times or versions; run `make refresh`"


# ---------------------------------------------------------------- the stored notebooks


def test_the_series_is_there():
    assert SERIES, "notebooks/ holds no notebook; build the series, then `make refresh`"


@pytest.mark.parametrize("path", [*SERIES, *SOLUTIONS], ids=lambda path: path.stem)
def test_notebook_is_fit_to_publish(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    found = problems(notebook, path.name)
    assert not found, "\n".join([path.name, *found])


# ---------------------------------------------------------------- planted bad notebooks


def good():
    """A small notebook with nothing wrong: card, three cells, a picture."""
    picture = new_output(
        "display_data",
        {"image/png": "aGk=", "text/plain": "<Figure>"},
        metadata={"image/png": {"alt": "The student reaches the teacher's accuracy."}},
    )
    return new_notebook(
        cells=[
            new_markdown_cell("# 04 · What does a teacher know?\n\nA digit, twice."),
            new_markdown_cell("**You will be able to** … **Time** … **Hardware** …"),
            new_code_cell("1 + 1", execution_count=1),
            new_code_cell("2 + 2", execution_count=2),
            new_code_cell("draw()", execution_count=3, outputs=[picture]),
        ]
    )


def plant(**changes):
    """A change to the first code cell."""
    return lambda notebook: notebook.cells[2].update(changes)


def alt(text):
    """Another alt text for the picture, or none at all."""
    metadata = {"image/png": {"alt": text}} if text is not None else {}
    return lambda n: n.cells[-1].outputs[0].update(metadata=metadata)


def printed(text):
    return plant(outputs=[new_output("stream", name="stdout", text=text)])


def opening(index, old, new):
    def change(notebook):
        cell = notebook.cells[index]
        cell.source = cell.source.replace(old, new)

    return change


BAD = {
    "never run": (plant(execution_count=None), "not executed in order"),
    "run out of order": (plant(execution_count=4), "not executed in order"),
    "counting from 2": (lambda n: n.cells.pop(2), "not executed in order"),
    "an error": (
        plant(outputs=[new_output("error", ename="E", evalue="", traceback=[])]),
        "stores an error",
    ),
    "no alt text": (alt(None), "alt text"),
    "blank alt text": (alt("   "), "alt text"),
    "nbconvert's alt text": (
        alt("No description has been provided for this image"),
        "alt text",
    ),
    "alt text of one word": (alt("Figure"), "alt text"),
    "a linked picture": (opening(0, "A digit", "![](digit.png)"), "without alt text"),
    "an HTML picture": (opening(0, "A digit", "<img src='x'>"), "without alt text"),
    "!pip": (plant(source="!pip install torch"), "installs packages"),
    "%pip": (plant(source="x = 1\n%pip install torch"), "installs packages"),
    "hidden warnings": (
        plant(source="import warnings\nwarnings.filterwarnings('ignore')"),
        "hides warnings",
    ),
    "a home folder": (plant(source="open('/home/me/data.jsonl')"), "absolute path"),
    "a Windows folder": (plant(source=r"open('C:\data.jsonl')"), "absolute path"),
    "a printed path": (printed("saved to /tmp/weights/x\n"), "absolute path"),
    "a long cell": (plant(source="\n".join(["x = 1"] * 26)), "more than 25"),
    "an empty cell": (plant(source=""), "is empty"),
    "long cells throughout": (
        lambda n: [cell.update(source="x = 1\n" * 9) for cell in n.cells[2:]],
        "median",
    ),
    "no title": (opening(0, "# 04 · ", ""), "the title"),
    "another number": (opening(0, "04", "05"), "the title"),
    "no question": (opening(0, "know?", "know"), "the title"),
    "no card": (lambda n: n.cells.pop(1), "the card lacks"),
    "a card below the code": (
        lambda n: n.cells.append(n.cells.pop(1)),
        "the card lacks",
    ),
    "no time": (opening(1, "Time", ""), "the card lacks 'Time'"),
    "no hardware": (opening(1, "Hardware", ""), "the card lacks 'Hardware'"),
    "no goals": (opening(1, "be able to", ""), "lacks 'You will be able to'"),
    "widget states": (lambda n: n.metadata.update(widgets={}), "make refresh"),
    "stored times": (plant(metadata={"execution": {}}), "make refresh"),
    "nothing to run": (lambda n: n.update(cells=n.cells[:2]), "no code cell"),
}


def test_a_good_notebook_passes():
    assert problems(good(), "04_soft_targets.ipynb") == []


@pytest.mark.parametrize(("change", "expected"), BAD.values(), ids=BAD)
def test_a_bad_notebook_is_rejected_for_its_fault(change, expected):
    notebook = good()
    change(notebook)
    found = problems(notebook, "04_soft_targets.ipynb")
    assert found and all(expected in problem for problem in found), found


@pytest.mark.parametrize(
    "change",
    [
        plant(metadata={"tags": ["raises-exception"]},
              outputs=[new_output("error", ename="E", evalue="", traceback=[])]),
        plant(source="open('results/lap.json')"),
        plant(source="url = 'https://example.org/home/page'"),
        printed("teacher/student 12/12\n"),
        opening(0, "A digit", "![A digit, rotated](digit.png)"),
    ],
)  # fmt: skip
def test_what_is_allowed_is_not_rejected(change):
    notebook = good()
    change(notebook)
    assert problems(notebook, "04_soft_targets.ipynb") == []


def test_a_lab_needs_its_own_title():
    lab = good()
    assert problems(lab, "lab04_losses.ipynb")
    opening(0, "# 04", "# Lab 04")(lab)
    assert problems(lab, "lab04_losses.ipynb") == []


def test_a_file_without_a_number_is_named():
    (problem,) = problems(good(), "soft_targets.ipynb")
    assert "not called NN_name.ipynb" in problem
