"""The rules of the house: floors, circles, faces, sizes, and the map drawn from them.

Each rule is also shown a planted breach, which it must reject with the cure.
"""

import ast
import importlib
import inspect
import re

import nbformat
import pytest

from tests import house
from tests.house import Import

FOUND = house.imports()
PACKAGES = sorted(
    path.parent.name for path in (house.ROOT / "helpers").glob("*/__init__.py")
)
MODULES = sorted((house.ROOT / "helpers").rglob("*.py"))
NOTEBOOKS = [
    path
    for folder in ("notebooks", "labs", "solutions")
    for path in sorted((house.ROOT / folder).glob("*.ipynb"))
]


def name_of(path) -> str:
    parts = path.relative_to(house.ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def code_of(path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    return re.sub(r"^\s*[%!].*$", "", code, flags=re.M)  # magics need IPython


# ---------------------------------------------------------------- floors and circles


def test_a_wing_imports_only_wings_on_lower_floors():
    assert len(FOUND) > 200
    faults = house.upward(FOUND)
    assert not faults, "\n".join(faults)


def test_there_is_no_circle_of_imports():
    assert not (found := house.circle(FOUND)), (
        f"{' -> '.join(found)}: what two of them need belongs into a module of its own"
    )


def test_an_import_that_runs_up_is_refused_with_the_place_where_the_name_belongs():
    up = Import("helpers.losses.sparse", "helpers.train.cache", 7)
    same = Import("helpers.memory.ledger", "helpers.generate.answers", 3)
    new = Import("helpers.novel.thing", "helpers.data", 1)
    first, second, third = house.upward([up, same, new])
    assert "helpers.losses.sparse, line 7, imports helpers.train.cache" in first
    assert "losses is on floor 1 and train on floor" in first
    assert "a new wing" in first and "handed in as an argument" in first
    assert "tracks or data or models;" in second
    assert "novel has no floor" in third
    inside = Import("helpers.train.loop", "helpers.train.trainer", 1)
    assert house.upward([inside]) == []
    face = Import("helpers.train.loop", "helpers.train", 5)
    assert "imports from its own face" in house.upward([face])[0]
    root = Import("helpers", "helpers.train.loop", 2)
    assert "and no wing" in house.upward([root])[0]


def test_everything_in_the_house_has_a_floor():
    parts = {path.relative_to(house.ROOT / "helpers").parts[0] for path in MODULES}
    there = {part.removesuffix(".py") for part in parts} - {"__init__"}
    assert there == set(house.FLOORS), (
        "give each wing its floor in tests/house.py, above all that it imports: "
        f"{there ^ set(house.FLOORS)}"
    )
    for path in MODULES:
        assert path.with_name("__init__.py").exists(), f"{path.parent} is no package"


def test_a_circle_is_shown_with_its_modules():
    names = ("helpers.train.loop", "helpers.train.trainer", "helpers.train.cache")
    ring = [Import(a, b, 1) for a, b in zip(names, names[1:] + names[:1], strict=True)]
    assert sorted(house.circle(ring)) == sorted(names)
    assert house.circle(ring[:2]) == []


# ---------------------------------------------------------------- faces


@pytest.mark.parametrize("wing", PACKAGES)
def test_a_face_says_how_to_read_its_wing_and_defines_nothing(wing):
    face = house.ROOT / "helpers" / wing / "__init__.py"
    inside = [path.stem for path in face.parent.glob("*.py")]
    inside += [path.parent.name for path in face.parent.glob("*/__init__.py")]
    modules = [m for m in sorted(inside) if not m.startswith("__")]
    assert not (faults := house.face_faults(face.read_text("utf-8"), modules)), faults


@pytest.mark.parametrize("wing", PACKAGES)
def test_every_name_of_a_face_is_there_and_has_its_types(wing):
    face = importlib.import_module(f"helpers.{wing}")
    assert face.__all__ == sorted(face.__all__) == dir(face)
    untyped = []
    for name in face.__all__:
        thing = getattr(face, name)
        if inspect.isfunction(thing):
            signature = inspect.signature(thing)
            kinds = inspect.Parameter
            untyped += [
                f"{name}({parameter.name})"
                for parameter in signature.parameters.values()
                if parameter.annotation is kinds.empty
                and parameter.kind not in (kinds.VAR_KEYWORD, kinds.VAR_POSITIONAL)
            ]
            if signature.return_annotation is inspect.Signature.empty:
                untyped.append(f"{name} -> ?")
            assert inspect.getdoc(thing), f"helpers.{wing}.{name} has no docstring"
    assert not untyped, f"helpers.{wing}: types are missing: {', '.join(untyped)}"


GOOD_FACE = '''"""Purpose. Read `rows`, then `jsonl`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={})
'''


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("`rows`", "rows", "does not say when to read `rows`"),
        ("import lazy_loader", "import lazy_loader, torch", "defines nothing"),
        ("__getattr__,", "EXTRA = [lazy_loader]\n\n__getattr__,", "defines nothing"),
        ("import lazy_loader", "import torch", "defines nothing"),
        ("__getattr__,", "def helper(): ...\n\n__getattr__,", "belongs into a module"),
        (
            "__getattr__,",
            "from .rows import DataError\n__getattr__,",
            "defines nothing",
        ),
    ],
)
def test_a_bad_face_is_refused(old, new, said):
    assert house.face_faults(GOOD_FACE, ["jsonl", "rows"]) == []
    faults = house.face_faults(GOOD_FACE.replace(old, new), ["jsonl", "rows"])
    assert any(said in fault for fault in faults), faults


# ---------------------------------------------------------------- notebooks and labs


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_imports_only_faces_and_what_they_hand_out(path):
    code = code_of(path)
    assert not (found := list(house.deep_imports(code))), found
    for module, name in house.names_taken(code):
        face = importlib.import_module(module)
        # Not hasattr: a module that something has loaded is an attribute too.
        assert name in getattr(face, "__all__", dir(face)), (
            f"{module} hands out no {name}: add it to {module.replace('.', '/')}/"
            "__init__.py, beside the module that defines it"
        )


def test_what_reaches_behind_a_face_is_refused_with_the_line_to_write():
    code = "from helpers.train.cache import open_cache\nimport helpers.data.rows\n"
    first, second = house.deep_imports(code)
    assert "line 1" in first and "`from helpers.train import ...`" in first
    assert "line 2" in second and "`from helpers.data import ...`" in second
    fine = "import torch\nfrom helpers import data, tracks\nfrom helpers.data import x"
    assert list(house.deep_imports(fine)) == []
    taken = set(house.names_taken(fine + "\ndata.read_chat(tracks)\ntorch.ones(1)"))
    faces = {("helpers", "data"), ("helpers", "tracks")}
    assert taken == faces | {("helpers.data", "x"), ("helpers.data", "read_chat")}
    (third,) = house.deep_imports("import helpers.train as t")
    assert "`from helpers import train`" in third


# ---------------------------------------------------------------- sizes and the map


def test_a_module_is_one_idea():
    for path in MODULES:
        lines = len(path.read_text("utf-8").splitlines())
        if not re.fullmatch(house.TABLES, name_of(path)):
            assert lines <= house.LONGEST, (
                f"{name_of(path)} has {lines} lines, more than {house.LONGEST}: it is "
                "two ideas; give the second a module of its own in the wing"
            )


def test_every_module_says_what_it_is_for():
    for path in MODULES:
        if path.stem != "__main__":
            assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), path


def test_the_map_shows_the_imports_as_they_are():
    shown = set(re.findall(r'id="([\w-]+)"', house.MAP.read_text("utf-8")))
    if house.upward(FOUND) or house.circle(FOUND):
        pytest.skip("the floors come first: their tests say what is wrong")
    pairs = house.wing_imports(FOUND)
    arrows = {f"{a}-imports-{b}" for a, b in house.needed(pairs)}
    assert {mark for mark in shown if "-imports-" in mark} == arrows, (
        "the imports have changed: draw the map anew with `python -m tests.house`"
    )
    assert {m for m in shown if m.startswith("wing-")} == {
        f"wing-{wing}-{house.FLOORS[wing]}" for wing in house.WINGS
    }


def test_the_map_has_a_row_for_every_wing():
    text = (house.ROOT / "helpers" / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| \[`(\w+)(?:/|\.py)`\]", text, flags=re.M)
    assert sorted(rows) == sorted(house.WINGS)
