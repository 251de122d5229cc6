"""How helpers/ is laid out: its wings, their floors, and the rules that keep them.

`python -m tests.house` draws the map in `helpers/README.md` anew, from the imports.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import grimp
import networkx as nx
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from helpers import plots

ROOT = Path(__file__).resolve().parents[1]
MAP = ROOT / "helpers" / "house.svg"
# A wing imports only wings on lower floors.
FLOORS = {
    "world": 1,
    "losses": 1,
    "plots": 1,
    "threads": 1,
    "tracks": 2,
    "data": 3,
    "models": 4,
    "memory": 5,
    "generate": 5,
    "quality": 6,
    "train": 6,
    "evaluate": 7,
    "profile": 8,
    "distill": 9,
    "course": 10,
    "labs": 11,
    # The names of commands: `python -m helpers.grade`.
    "grade": 12,
    "record": 12,
    "pretrain": 12,
}
COMMANDS = {"grade", "record", "pretrain"}
WINGS = [wing for wing in FLOORS if wing not in COMMANDS]
# All that a face holds beside its docstring.
FACE = ("import lazy_loader", "__getattr__, __dir__, __all__ = lazy_loader.attach")
LONGEST = 450  # lines of a module; over that it is two ideas
TABLES = r"helpers\.world\.phrases|helpers\.labs\.checks\.lab\d\d"  # may be longer


class Import(NamedTuple):
    """One import statement, by the full names of its two modules."""

    importer: str
    imported: str
    line: int


def imports() -> list[Import]:
    """Every import inside `helpers`, those inside functions too."""
    graph = grimp.build_graph("helpers", cache_dir=None)
    return [
        Import(module, imported, details["line_number"])
        for module in sorted(graph.modules)
        for imported in sorted(graph.find_modules_directly_imported_by(module))
        for details in graph.get_import_details(importer=module, imported=imported)
    ]


def wing_of(module: str) -> str:
    """`helpers.train.cache` -> `train`; "" for the package itself."""
    return (module.split(".") + [""])[1]


def upward(found: Iterable[Import], floors: Mapping[str, int] = FLOORS) -> list[str]:
    """What is wrong with the floors: each fault names the line and the cure."""
    faults = []
    for importer, imported, line in found:
        own, other = wing_of(importer), wing_of(imported)
        if not own and other != "threads":
            faults.append(f"{importer}, line {line}: it imports threads, and no wing")
        elif own and imported == f"helpers.{own}" and importer != imported:
            faults.append(
                f"{importer}, line {line}, imports from its own face, which may lead "
                "back to it: import from the module of the wing that holds the name"
            )
        elif unknown := [w for w in (own, other) if w and w not in floors]:
            faults.append(
                f"{importer}, line {line}: {unknown[0]} has no floor; give it one in "
                "tests/house.py, above all that it imports"
            )
        elif own and other and own != other and floors[other] >= floors[own]:
            below = [w for w, floor in floors.items() if floor < floors[own]]
            faults.append(
                f"{importer}, line {line}, imports {imported}: {own} is on floor "
                f"{floors[own]} and {other} on floor {floors[other]}. What both need "
                f"belongs into {' or '.join(below) or 'a new wing'}; what only one "
                "caller needs is handed in as an argument"
            )
    return faults


def circle(found: Iterable[Import]) -> list[str]:
    """The modules of a circle of imports, in order; empty where there is none."""
    graph = nx.DiGraph((importer, imported) for importer, imported, _ in found)
    try:
        return [importer for importer, _ in nx.find_cycle(graph)]
    except nx.NetworkXNoCycle:
        return []


def face_faults(source: str, modules: Iterable[str]) -> list[str]:
    """What is wrong with a wing's `__init__.py`, beside these modules of the wing."""
    faults, tree = [], ast.parse(source)
    text = ast.get_docstring(tree) or ""
    for module in modules:
        if f"`{module}`" not in text:
            faults.append(f"the docstring does not say when to read `{module}`")
    whole = [re.sub("[()]", "", ast.unparse(node)) for node in tree.body[bool(text) :]]
    if len(whole) != 2 or whole[0] != FACE[0] or not whole[1].startswith(FACE[1]):
        faults.append(
            "a face defines nothing and imports nothing but lazy_loader, whose attach "
            "makes its three names; the rest belongs into a module of the wing"
        )
    return faults


def deep_imports(source: str) -> Iterator[str]:
    """Imports of a notebook or lab that reach behind a wing's face."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        else:
            continue
        for module in modules:
            if module.startswith("helpers.") and module.count(".") > 1:
                yield (
                    f"line {node.lineno} imports {module}: write "
                    f"`from helpers.{wing_of(module)} import ...`"
                )
            elif isinstance(node, ast.Import) and module.startswith("helpers."):
                wing = wing_of(module)
                yield f"line {node.lineno}: write `from helpers import {wing}`"


def names_taken(source: str) -> Iterator[tuple[str, str]]:
    """Pairs of wing and name that a notebook takes from a face, in either way."""
    tree, alias = ast.parse(source), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "helpers":
            yield from (("helpers", a.name) for a in node.names)
            wings = {a.asname or a.name: a.name for a in node.names}
            alias |= {name: wing for name, wing in wings.items() if wing != "tracks"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            "helpers."
        ):
            yield from ((node.module, a.name) for a in node.names)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            alias.pop(node.id, None)  # the name stands for something else there
        elif isinstance(node, ast.arg):
            alias.pop(node.arg, None)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in alias:
                yield f"helpers.{alias[node.value.id]}", node.attr


# ---------------------------------------------------------------- the map

# How far to the right a wing stands; its height is its floor.
ACROSS = {
    "world": 0, "data": 0.9, "generate": 1.8, "quality": 2.8, "train": 4.1,
    "evaluate": 5, "profile": 5.9, "plots": 2.2, "tracks": 1.9, "models": 3,
    "losses": 5.2, "threads": 3.7, "memory": 4, "distill": 4.2, "course": 5.1,
    "labs": 6,
}  # fmt: skip
WAY = ("world", "data", "generate", "quality", "train", "evaluate", "profile")


def wing_imports(found: Iterable[Import]) -> set[tuple[str, str]]:
    """Pairs of wings, the first of which imports the second."""
    pairs = {(wing_of(a), wing_of(b)) for a, b, _ in found}
    return {(a, b) for a, b in pairs if a in WINGS and b in WINGS and a != b}


def needed(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The pairs without those that follow from others."""
    return set(nx.transitive_reduction(nx.DiGraph(pairs)).edges)


def draw(pairs: set[tuple[str, str]]) -> Figure:
    """The wings on their floors, the data's way through them, and who imports whom."""
    figure = Figure(figsize=(9, 6.4))
    axes = figure.add_axes((0.06, 0.02, 0.93, 0.96))
    axes.set(xlim=(-0.6, 6.6), ylim=(0.4, 11.6), xticks=[], ylabel="floor")
    axes.set_yticks(sorted({FLOORS[wing] for wing in WINGS}))
    axes.grid(axis="y", color="#e8e8e8")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    boxes = {}
    for wing, x in ACROSS.items():
        boxes[wing] = FancyBboxPatch(
            (x - 0.42, FLOORS[wing] - 0.32), 0.84, 0.64, fc="white", lw=1.5, zorder=3,
            boxstyle="round,pad=0,rounding_size=0.08",
            gid=f"wing-{wing}-{FLOORS[wing]}",
            ec=plots.COLOURS["student" if wing in WAY else "teacher"],
        )  # fmt: skip
        axes.add_patch(boxes[wing])
        axes.text(x, FLOORS[wing], wing, ha="center", va="center", zorder=4)

    def arrow(a: str, b: str, **look) -> None:
        ends = (ACROSS[a], FLOORS[a]), (ACROSS[b], FLOORS[b])
        axes.add_patch(FancyArrowPatch(*ends, patchA=boxes[a], patchB=boxes[b], **look))

    for a, b in sorted(needed(pairs)):
        arrow(a, b, arrowstyle="->", mutation_scale=8, lw=0.8, color="#808080",
              gid=f"{a}-imports-{b}")  # fmt: skip
    for a, b in zip(WAY, WAY[1:], strict=False):
        arrow(a, b, arrowstyle="-|>", mutation_scale=14, lw=2.5, zorder=2,
              color=plots.COLOURS["student"])  # fmt: skip
    return figure


def main() -> None:
    """Draw the map; the same imports give the same file."""
    with rc_context({"svg.hashsalt": "house", "svg.fonttype": "none"}):
        draw(wing_imports(imports())).savefig(MAP, metadata={"Date": None})
    print(f"wrote {MAP.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
