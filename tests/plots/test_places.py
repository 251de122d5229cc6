"""Each figure has one home: the module of the first notebook that shows it."""

import importlib
import inspect
import re
from pathlib import Path

import nbformat
import pytest
from matplotlib.figure import Figure

from helpers import plots

ROOT = Path(__file__).resolve().parents[2]
WING = ROOT / "helpers" / "plots"
TOPICS = {path.stem[3:]: path for path in sorted(ROOT.glob("notebooks/*.ipynb"))}
MODULES = sorted({path.stem for path in WING.glob("*.py")} - {"__init__", "base"})


def figures(module: str) -> list[str]:
    """The public functions of a module that draw a figure."""
    wing = importlib.import_module(f"helpers.plots.{module}")
    return [
        name
        for name, thing in vars(wing).items()
        if inspect.isfunction(thing)
        and thing.__module__ == wing.__name__
        and inspect.signature(thing).return_annotation is Figure
        and not name.startswith("_")
    ]


def shown() -> dict[str, str]:
    """Each figure -> the topic of the first notebook that shows it."""
    first = {}
    for topic, path in TOPICS.items():
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code":
                for name in re.findall(r"\bplots\.(\w+)", cell.source):
                    first.setdefault(name, topic)
    return first


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_the_name_of_a_notebook(module):
    assert module in {*TOPICS, "labs"}


@pytest.mark.parametrize("module", MODULES)
def test_a_figure_lives_with_the_first_notebook_that_shows_it(module):
    home = shown()
    for name in figures(module):
        topic = home.get(name, module)  # what none shows has its home by its subject
        assert topic == module, f"{topic} shows {name}: move it to plots/{topic}.py"


@pytest.mark.parametrize("module", MODULES)
def test_every_figure_is_handed_on(module):
    assert (found := figures(module))
    for name in found:
        assert name in dir(plots), f"plots/__init__.py does not hand on {name}"
