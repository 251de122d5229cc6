"""Planted bugs: copies of the code in which one line reads differently.

A test proves that it can fail by failing on the copy that holds the bug it is for.
"""

import importlib
import shutil
import sys
import tempfile
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def damaged(wing: types.ModuleType, old: str, new: str) -> Iterator[types.ModuleType]:
    """A copy of a whole wing, in which `old` reads `new` in the one module that has it.

    Its modules import each other and not the originals, so the bug is everywhere that
    it would be. Lower wings are the real ones.
    """
    name = f"{wing.__name__}_damaged"
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, name.rpartition(".")[2])
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(wing.__path__[0], copy, ignore=ignored)
        places = [p for p in copy.glob("*.py") if old in p.read_text(encoding="utf-8")]
        assert len(places) == 1, (
            f"{old!r} stands in {[p.name for p in places]} of {wing.__name__}: "
            "plant the bug in the words of one module"
        )
        text = places[0].read_text(encoding="utf-8").replace(old, new)
        places[0].write_text(text, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(
            name, copy / "__init__.py", submodule_search_locations=[str(copy)]
        )
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
            yield module
        finally:
            for loaded in list(sys.modules):
                if loaded == name or loaded.startswith(f"{name}."):
                    del sys.modules[loaded]


def damage(module: types.ModuleType, old: str, new: str) -> types.ModuleType:
    """A copy of one module in which `old` reads `new`."""
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
