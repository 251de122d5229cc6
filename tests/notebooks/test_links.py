"""Every reference leads to a file that is there, and none relies on a number alone.

Notebooks are numbered in the order in which learners need them, and move when the
syllabus grows. So prose links to the *file*, and where no link can stand (docstrings,
comments, messages) it names the file or the topic. Labs keep their numbers; text links
to them all the same.
"""

import re
from collections.abc import Container, Iterator
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
THIS = Path(__file__).resolve()
FOLDERS = ("notebooks", "labs", "solutions")
NOTEBOOKS = [path for name in FOLDERS for path in sorted((ROOT / name).glob("*.ipynb"))]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *(path for name in FOLDERS for path in sorted((ROOT / name).glob("*.md"))),
    *sorted((ROOT / "helpers").rglob("*.md")),
]
SOURCES = [
    *sorted((ROOT / "helpers").rglob("*.py")),
    *sorted((ROOT / "helpers").rglob("*.toml")),
    *(path for path in sorted((ROOT / "tests").rglob("*.py")) if path != THIS),
    *sorted((ROOT / "notebooks" / "results").glob("*.json")),
    *(ROOT / name for name in ("Makefile", "pyproject.toml", "requirements.txt")),
]

LINK = "\N{OBJECT REPLACEMENT CHARACTER}"  # what a link leaves in the text around it
LISTED = rf"(?:{LINK}(?:,| and| or| to)? )*\d\d?(?![\d%])"  # "[04](…) and 07"
BARE_NOTEBOOK = rf"\bnotebooks? {LISTED}|{LINK}(?:,| and| or| to) \d\d(?![\d%])"
BARE_LAB = rf"\blabs? {LISTED}"
BARE_IN_CARD = r"Before this\n.*?\b\d\d\b"
BARE_IN_SOURCE = r"(?<![a-z])notebooks?[ _]+\d\d?(?!\d)"
NUMBERED = re.compile(r"(?:lab)?(\d\d)_\w+\.ipynb")
PATH = re.compile(
    rf"(?<![\w/.])(?:helpers|tests|{'|'.join(FOLDERS)})/[\w/-]+(?:\.\w+)*"
)


class Prose(NamedTuple):
    """What a reader sees of a Markdown text, and where it leads."""

    headings: list[str]
    blocks: list[str]  # paragraphs, items and cells of tables, `LINK` for each link
    links: list[tuple[str, str]]  # text, target
    code: list[str]


def prose(markdown: str) -> Prose:
    """Headings, blocks, links and code spans; fenced code is somebody's program."""
    found = Prose([], [], [], [])
    heading = False
    for token in MarkdownIt("commonmark").enable("table").parse(markdown):
        heading = token.type == "heading_open" or (heading and token.type == "inline")
        if token.type == "html_block":
            _note_html(token.content, found)
        if token.type == "inline":
            text = _inline(token.children, found)
            (found.headings if heading else found.blocks).append(text)
    return found


def _inline(tokens, found: Prose) -> str:
    """The text of one block; its links and code go to `found`."""
    outside, inside, target = "", "", None
    for token in tokens:
        text = ""
        if token.type == "link_open":
            target, inside = token.attrs["href"], ""
        elif token.type == "link_close":
            found.links.append((inside, target))
            target, text = None, LINK
        elif token.type == "image":
            found.links.append((token.content, token.attrs["src"]))
        elif token.type == "code_inline":
            found.code.append(token.content)
            text = f"`{token.content}`" if target is not None else "`…`"
        elif token.type == "html_inline":
            _note_html(token.content, found)
        else:
            text = " " if token.type.endswith("break") else token.content
        if target is None:
            outside += text
        else:
            inside += text
    return re.sub(r"\s+", " ", outside)


def _note_html(html: str, found: Prose) -> None:
    targets = re.findall(r"\b(?:href|src)=[\"']([^\"']+)", html)
    found.links.extend(("", target) for target in targets)


def anchors(page: Path) -> set[str]:
    """The names by which GitHub knows the headings of a Markdown file."""
    headings = prose(page.read_text(encoding="utf-8")).headings
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def faults(page: Path, markdown: str, attached: Container = ()) -> Iterator[str]:
    """What is wrong with the references of a text that stands in the file `page`."""
    found = prose(markdown)
    for text, target in found.links:
        if target.removeprefix("attachment:") not in attached:
            yield from _link_faults(page, text, target)
    yield from _missing_files("\n".join(found.code))
    yield from _missing_notebooks(markdown)
    text = "\n".join(found.blocks)
    for bare in re.finditer(f"{BARE_NOTEBOOK}|{BARE_LAB}|{BARE_IN_CARD}", text, re.I):
        yield f"says {bare[0]!r}: link to the file, a number may change"
    for bare in re.finditer(BARE_NOTEBOOK, "\n".join(found.headings), re.I):
        yield f"says {bare[0]!r} in a heading: link to the file"


def _link_faults(page: Path, text: str, target: str) -> Iterator[str]:
    if "://" in target or target.startswith("mailto:"):
        return
    name, _, anchor = target.partition("#")
    path = page.parent / name if name else page
    if not path.exists():
        yield f"links to {target}, which is not there"
    elif not path.resolve().is_relative_to(ROOT):
        yield f"links to {target}, outside the repository"
    elif anchor and path.suffix == ".md" and anchor not in anchors(path):
        yield f"links to {target}, and there is no such heading"
    said = re.match(r"(?:(?:the )?(?:notebook|lab) )?(\d\d)\b", text, re.I)
    meant = NUMBERED.fullmatch(path.name)
    if said and meant and said[1] != meant[1]:
        yield f"calls {path.name} {text!r}, another number"


def _missing_files(text: str) -> Iterator[str]:
    for name in {found[0] for found in PATH.finditer(text)}:
        if not (ROOT / name).exists():
            yield f"names {name}, which is not there"


def _missing_notebooks(text: str) -> Iterator[str]:
    for name in {found[0] for found in NUMBERED.finditer(text)}:
        if not any((ROOT / folder / name).exists() for folder in FOLDERS):
            yield f"names {name}, which is not there"


def source_faults(source: str) -> list[str]:
    """Numbers in comments, docstrings and strings, also where these run over lines."""
    joined = re.sub(r"[\"']?\s*\n[\s#]*(?:f?[\"'])?", " ", source)
    bare = re.findall(BARE_IN_SOURCE, joined, re.I)
    return [f"says {what!r}: name the file or the topic" for what in bare]


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_references_of_a_page(path):
    found = list(faults(path, path.read_text(encoding="utf-8")))
    assert not found, "\n".join([path.name, *found])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: str(p.relative_to(ROOT)))
def test_references_of_a_notebook(path):
    found = []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            found += faults(path, cell.source, cell.get("attachments", ()))
        else:
            found += [*source_faults(cell.source), *_missing_notebooks(cell.source)]
    assert not found, "\n".join([path.name, *found])


def test_sources_name_notebooks_by_file_or_topic():
    found = []
    for path in SOURCES:
        text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT)
        found += [f"{name} {fault}" for fault in source_faults(text)]
        if name.parts[0] == "helpers":  # tests make up files of their own
            gone = [*_missing_notebooks(text), *_missing_files(text)]
            found += [f"{name} {fault}" for fault in gone]
    assert not found, "\n".join(found)


def test_the_syllabus_lists_every_notebook():
    page = ROOT / "README.md"
    listed = {target for _, target in prose(page.read_text(encoding="utf-8")).links}
    paths = [path.relative_to(ROOT).as_posix() for path in NOTEBOOKS]
    forgotten = [p for p in paths if not p.startswith("solutions/") and p not in listed]
    assert not forgotten, f"README.md does not link {forgotten}"


# ------------------------------------------------------------- planted, bad and good

HERE = ROOT / "notebooks" / "04_soft_targets.ipynb"
BAD = {
    "a file that moved": ("[why](10_evaluation.ipynb)", "is not there"),
    "a picture that is not attached": ("![x](attachment:x.png)", "is not there"),
    "a picture that is gone": ("![the lap](results/none.png)", "is not there"),
    "an HTML picture": ('<img src="results/none.png" alt="the lap">', "is not there"),
    "the wrong folder": ("[README](README.md)", "is not there"),
    "somebody's disk": ("[tools](../../../../etc/hosts)", "outside the repository"),
    "a heading that is gone": ("[pip](../README.md#with-conda)", "no such heading"),
    "another number": ("[07](06_lora.ipynb)", "another number"),
    "another number in words": ("[Notebook 07, LoRA](06_lora.ipynb)", "another number"),
    "another lab": ("[Lab 03](../labs/lab04_lora.ipynb)", "another number"),
    "a number": ("as in notebook 06, twice", "says 'notebook 06'"),
    "a number to begin with": ("Notebook 10 measures it.", "says 'Notebook 10'"),
    "two numbers": ("see notebooks 04 and 07", "says 'notebooks 04'"),
    "a number over two lines": ("measured in notebook\n10.", "says 'notebook 10'"),
    "a number after a link": (
        "notebooks [04](04_soft_targets.ipynb) and 07",
        "says 'notebooks",
    ),
    "a list that ends in a number": ("[06](06_lora.ipynb), 07", "says"),
    "a number in a heading": ("## After notebook 06", "in a heading"),
    "a number in a table": ("| a |\n|---|\n| notebook 06 |", "says 'notebook 06'"),
    "numbers in a card": (
        "| | |\n|---|---|\n| *Before this* | 02 (text), 07 (LoRA) |",
        "says 'Before this",
    ),
    "a lab": ("Lab 04 takes it apart.", "says 'Lab 04'"),
    "code of a file that moved": ("`helpers/jsonl.py` reads it", "is not there"),
    "a command on a file that moved": (
        "`pytest notebooks/10_evaluation.ipynb`",
        "10_evaluation.ipynb, which is not there",
    ),
}
GOOD = [
    "[the notebook on LoRA](06_lora.ipynb), section 2",
    "[06](06_lora.ipynb) and [Lab 04](../labs/lab04_lora.ipynb), twice",
    "notebooks [04](04_soft_targets.ipynb) and [06](06_lora.ipynb)",
    "[in plain pip](../README.md#without-make)",
    "[the map](../helpers/), [11 times faster](../labs/)",
    "[a paper](https://example.org/notebook) and ![the lap](results/lap.png)",
    "A notebook with 10 cells; two notebooks, 30 minutes; label 04.",
    "| | |\n|---|---|\n| *Before this* | [06 LoRA](06_lora.ipynb) |\n| *Time* | 45 |",
    "## 06 · What came first?\n\n`helpers/data/jsonl.py`, `x/10_mine.json`",
    "```python\n# notebook 06 as text of somebody's program\n```",
]


@pytest.mark.parametrize(("markdown", "expected"), BAD.values(), ids=BAD)
def test_a_bad_reference_is_found(markdown, expected):
    found = list(faults(HERE, markdown))
    assert found and all(expected in fault for fault in found), found


@pytest.mark.parametrize("markdown", GOOD)
def test_a_good_reference_is_not(markdown):
    assert list(faults(HERE, markdown)) == []


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ('"""Figures of notebook 10: true values."""', 1),
        ("x = 1  # as in notebooks 04 and 07", 1),
        ("# the one of notebook\n    # 06, again", 1),
        ('raise ValueError("run notebook "\n    "10 again")', 1),
        ("def test_the_lora_of_notebook_07_is_right(): ...", 1),
        ('"""The notebook `08_the_expensive_teacher`, 10 cells."""', 0),
        ('f"[{number}/{len(notebooks)}] 10"', 0),
        ("notebooks = 11", 0),
    ],
)
def test_numbers_in_sources_are_found(source, count):
    assert len(source_faults(source)) == count
