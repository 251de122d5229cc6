"""The learner's copies: `python -m helpers.labs`, which `make labs` calls.

From each master in `solutions/`, `labs/` gets a copy without solutions, hidden tests
and mark schemes, by nbgrader's own steps. `--check` only compares, and fails when a
copy is stale or a master has a fault.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import nbformat

from .grading.faults import problems
from .grading.masters import MASTERS, ROOT, LabError, learner_copy, read_notebook

LABS = ROOT / "labs"


def write_labs(
    masters: Path = MASTERS,
    labs: Path = LABS,
    check: bool = False,
    seed: int | None = None,
    only: Sequence[str] = (),
) -> list[str]:
    """Write the learner's copy of every master; return the faults, with their file.

    A master with a fault is left out. `check` writes nothing: a stale copy is a fault.
    `only` names the labs to look at, where it is not all of them.
    Raises `LabError` when there is no master, or none of a name in `only`.
    """
    faults = []
    paths = sorted(masters.glob("*.ipynb"))
    if not paths:
        raise LabError(f"no master in {masters}; they are called labNN_topic.ipynb")
    known = {path.name for path in paths}
    for name in only:
        if f"{name}.ipynb" not in known:
            there = ", ".join(path.stem for path in paths)
            raise LabError(f"no master {name} in {masters}; there are: {there}")
    paths = [path for path in paths if not only or path.stem in only]
    for path in paths:
        master, target = read_notebook(path), labs / path.name
        if found := problems(master, path.stem):
            faults += [f"{path.name}: {problem}" for problem in found]
            continue
        text = nbformat.writes(learner_copy(master, path.stem, seed)) + "\n"
        same = target.is_file() and target.read_text(encoding="utf-8") == text
        if check and not same:
            faults.append(f"{path.name}: labs/ is stale; run `make labs`")
        elif not same:
            labs.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8", newline="\n")
            print(f"wrote {target}")
    for stray in sorted(labs.glob("*.ipynb")):
        if stray.name not in known:
            faults.append(f"{stray.name}: has no master in {masters.name}/; remove it")
    return faults


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 when every lab is fit to assign."""
    parser = argparse.ArgumentParser(prog="python -m helpers.labs", description=__doc__)
    parser.add_argument("only", nargs="*", metavar="lab", help="all when none is named")
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    parser.add_argument("--masters", type=Path, default=MASTERS)
    parser.add_argument("--labs", type=Path, default=LABS, help="where the copies go")
    parser.add_argument("--seed", type=int, help="the data of another class or learner")
    options = parser.parse_args(arguments)
    try:
        faults = write_labs(**vars(options))
    except LabError as error:
        faults = [str(error)]
    print(*faults, sep="\n") if faults else print("every lab is up to date and fit")
    return bool(faults)
