"""No number in prose that nothing printed: README and notebooks against outputs.

A number in the text of a notebook must come out of one of its cells, stand in its code,
or in the recorded results that it shows; one of the README, in the recorded results or
the settings of the tracks. A printed 0.8939 ties "89 %", "0.89" and "0.894". Small
whole numbers without a unit (two models, 5 tasks) are free, and so are dates, headings,
cards, mathematics, code and references.
"""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "notebooks" / "results"
SERIES = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
SMALL = 20  # whole numbers up to here are free where no unit follows

# Facts from outside, which no cell can print, and sums done in the head.
FACTS = {
    "02": {429: "the status code of HTTP", 671: "billion parameters: see references"},
    "08": {304: "kB, 303,872 rounded", 152_000: "151,936 rounded"},
    "13": {6400: "200 steps x 32", 240: "300 - 60", 3125: "5 x 5 x 5 x 5 x 5"},
}

UNITS = "%|times|×|ms|seconds|minutes|kB|MB|GB|MiB|GiB|points|nats"
NUMBER = re.compile(
    rf"(?<![\w.,/-])(\d{{1,3}}(?:,\d{{3}})+|\d+)(\.\d+)?(?: ?({UNITS})(?!\w))?(?!\w)"
)
PRINTED = re.compile(r"(?<!\w)\d[\d,_]*(?:\.\d+)?(?:e-?\d+)?")
# Mathematics, code, targets of links, stars or levels of exercises, cited years.
SKIPPED = re.compile(
    r"\$\$.*?\$\$|\$[^$]*\$|```.*?```|`[^`]*`|\]\([^)]*\)|\((?:easy|medium|hard|★)[^)]*\)"
    r"|\([^()]*\b(?:19|20)\d\d\b[^()]*\)|^#+ .*?$|<!--.*?-->",
    re.DOTALL | re.MULTILINE,
)


def numbers(text: str) -> Iterator[tuple[str, float, int, str | None]]:
    """What stands there, its value, its decimals and its unit."""
    for found in NUMBER.finditer(SKIPPED.sub(" ", text)):
        whole, fraction, unit = found.groups()
        value = float(whole.replace(",", "") + (fraction or ""))
        if unit or fraction or value > SMALL:
            yield found[0], value, len(fraction or ".") - 1, unit


def untied(text: str, known: Iterable[float]) -> list[str]:
    """The numbers of a text that are not among the known ones, however rounded."""
    known = list(known)
    loose = []
    for shown, value, decimals, unit in numbers(text):
        slack = 0.5001 * 10**-decimals
        scales = (1, 100) if unit in ("%", "points") else (1,)
        if not any(abs(k * scale - value) <= slack for k in known for scale in scales):
            loose.append(shown)
    return loose


def printed(texts: Iterable[str]) -> set[float]:
    found = set()
    for text in texts:
        for number in PRINTED.findall(text):
            found.add(float(number.replace(",", "").replace("_", "")))
    return found


@cache
def recorded(name: str) -> frozenset[float]:
    return frozenset(printed([(RESULTS / f"{name}.json").read_text("utf-8")]))


def of_cells(notebook) -> set[float]:
    """All numbers in code and stored text, and in the results that the code names."""
    texts = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            texts.append(cell.source)
            for output in cell.outputs:
                data = output.get("data", {})
                texts.append(output.get("text", ""))
                texts += [v for kind, v in data.items() if kind == "text/plain"]
                texts.append(re.sub(r"<[^>]+>", " ", data.get("text/html", "")))
    known, code = printed(texts), "\n".join(texts)
    for path in RESULTS.glob("*.json"):
        if re.search(rf"\b{path.stem}(\.json\b|[\"'])", code):
            known |= recorded(path.stem)
    return known


def prose(notebook) -> str:
    """The text of a notebook without its card and its references."""
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    cells = [text for text in cells if "You will be able to" not in text]
    return re.split(r"## References|\*\*References", "\n\n".join(cells))[0]


@pytest.mark.parametrize("path", SERIES, ids=lambda path: path.stem)
def test_every_number_in_a_notebook_s_text_was_printed(path):
    notebook = nbformat.read(path, as_version=4)
    known = of_cells(notebook) | set(FACTS.get(path.name[:2], ()))
    loose = untied(prose(notebook), known)
    assert not loose, f"{path.name}: nothing printed {loose}"


def test_every_number_in_the_readme_was_recorded():
    known = set(FREE)
    for path in RESULTS.glob("*.json"):
        known |= recorded(path.stem)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    loose = untied(re.sub(r"^\|[^\n]*\.ipynb\)[^\n]*$", "", text, flags=re.M), known)
    assert not loose, f"README.md: nothing recorded {loose}"


# Of the README: versions, cards, and upper bounds that the syllabus gives.
FREE = {3.11: "Python", 15: "minutes of `make test`; a notebook", 95: "% interval"}


def test_facts_from_outside_are_still_quoted():
    for number, facts in FACTS.items():
        (path,) = (p for p in SERIES if p.name.startswith(number))
        values = {v for _, v, _, _ in numbers(prose(nbformat.read(path, as_version=4)))}
        assert set(facts) <= values, f"{path.name} quotes no more {set(facts) - values}"


@pytest.mark.parametrize(
    "text, loose",
    [
        ("It keeps 89 % of it.", []),
        ("It keeps 89.4 % of it, 1,234 times.", []),
        ("It keeps 92 % of it.", ["92 %"]),
        ("It keeps 89.5 % of it.", ["89.5 %"]),
        ("It costs 3 times as much.", ["3 times"]),
        ("Three of 5 tasks, `x = 77`, $77$, (Hinton 2015).", []),
        ("A loss of 0.31 nats.", ["0.31 nats"]),
        ("about 1,300 answers", ["1,300"]),
    ],
)
def test_an_invented_number_is_found(text, loose):
    assert untied(text, {0.8939, 1234.0, 0.3}) == loose
