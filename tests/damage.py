"""Planted bugs: copies of the code in which one line reads differently.

A test proves that it can fail by failing on the copy that holds the bug it is for.
"""

import importlib.util
import shutil
import sys
import tempfile
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def damaged(
    wing: types.ModuleType, old: str = "", new: str = ""
) -> Iterator[types.ModuleType]:
    """A copy of a whole wing, in which `old` reads `new` in the one module that has it.

    Its modules import each other and not the originals, so the bug is everywhere that
    it would be. Lower wings are the real ones. Without `old` nothing is damaged: a test
    that passes there notices bugs, and not that it was given a copy.
    """
    name = f"{wing.__name__}_damaged"
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, name.rpartition(".")[2])
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(wing.__path__[0], copy, ignore=ignored)
        if old:
            _plant(copy, old, new)
        spec = importlib.util.spec_from_file_location(
            name, copy / "__init__.py", submodule_search_locations=[str(copy)]
        )
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
            # All of it now: a slip in `new` is no bug that a test could notice.
            for path in copy.glob("[!_]*.py"):
                importlib.import_module(f"{name}.{path.stem}")
            yield module
        finally:
            for loaded in list(sys.modules):
                if loaded == name or loaded.startswith(f"{name}."):
                    del sys.modules[loaded]


def _plant(folder: Path, old: str, new: str) -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in folder.glob("*.py")}
    places = [path for path, text in texts.items() if old in text]
    assert len(places) == 1, (
        f"{old!r} stands in {[path.name for path in places]}: plant the bug in words "
        "that one module of the wing has"
    )
    places[0].write_text(texts[places[0]].replace(old, new), encoding="utf-8")


def damage(module: types.ModuleType, old: str = "", new: str = "") -> types.ModuleType:
    """A copy of one module in which `old` reads `new`; without `old`, as it is."""
    text = Path(module.__file__).read_text(encoding="utf-8")
    assert old in text, (
        f"{module.__name__} was reworded: plant the bug in its new words"
    )
    copy = types.ModuleType("damaged")
    copy.__package__ = module.__package__
    exec(text.replace(old, new), copy.__dict__)
    return copy


def notices(test, module: types.ModuleType) -> bool:
    """Whether the test fails, in whatever way, when it is given this module."""
    try:
        test(module)
    except (Exception, pytest.fail.Exception):
        return True
    return False
