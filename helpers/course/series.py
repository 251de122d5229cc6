"""Run the whole series: `python -m helpers.course`, which `make course` calls.

The notebooks in `notebooks/` carry the outputs that the web shows and that every test
compares with, so a run never touches them: what it executes goes to `executed/`, beside
`notebooks/` so that relative links hold, and git ignores that folder. Only `--refresh`
rewrites the stored outputs, and then removes what changes from one run to the next.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
SOURCE, TARGET = ROOT / "notebooks", ROOT / "executed"
RESULTS = Path("results", "lap.json")  # written by the notebook on evaluation
PAGE, TABLE = "README.md", ("<!-- results -->", "<!-- end of results -->")
KEEP = "COURSE_KEEP_RESULTS"  # set in the kernels of a run: results may be replaced
CELL_SECONDS = 600  # of one cell, on a machine that is not slower than usual
FIRST, FIRST_SECONDS = "00", 40  # the first notebook there; it tells a slow machine
TRACEBACK_LINES = 8
# What nbstripout removes beyond its habit; outputs, counts and ids stay.
VOLATILE = "metadata.widgets cell.metadata.execution metadata.language_info.version"


class CourseError(RuntimeError):
    """The series cannot go on; the message says where and what to do."""


def find_notebooks(folder: Path = SOURCE, numbers: Sequence[str] = ()) -> list[Path]:
    """The series in order, `00_….ipynb` to `17_….ipynb`, or those with these numbers.

    Raises `CourseError` when there is none, or when a number names no notebook.
    """
    found = {path.name[:2]: path for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))}
    if not found:
        raise CourseError(
            f"no notebook in {folder}; its files are called NN_name.ipynb. "
            "Is this a whole clone of the repository?"
        )
    if missing := [number for number in numbers if number not in found]:
        raise CourseError(
            f"no notebook has the number {', '.join(missing)}; "
            f"there are {', '.join(found)}"
        )
    return [path for number, path in found.items() if not numbers or number in numbers]


def execute(
    source: Path, target: Path, label: str = "", limit: float = CELL_SECONDS
) -> float:
    """Execute `source` in the folder of `target`, store it there; return the seconds.

    A terminal sees which cell is running. On failure the part that ran is stored too,
    unless that would overwrite the source.

    Raises `CourseError` with the failing cell's source and the end of its traceback.
    """
    notebook = nbformat.read(source, as_version=4)
    running = 0

    def on_cell_start(cell: nbformat.NotebookNode, cell_index: int) -> None:
        nonlocal running
        running = cell_index
        if sys.stdout.isatty():
            share = f"cell {cell_index + 1} of {len(notebook.cells)}"
            print(f"\r{label}{share:<20}", end="", flush=True)

    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=int(limit),
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=40"],  # errors only, no chatter
        resources={"metadata": {"path": str(target.parent)}},
        on_cell_start=on_cell_start,
    )
    start = time.perf_counter()
    try:
        client.execute(env={**os.environ, KEEP: "1"})
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        message = explain(source.name, notebook, running, error, limit)
        if target != source:
            nbformat.write(notebook, target)
            message += f"\nThe notebook as far as it ran: {_short(target)}"
        raise CourseError(message) from None
    nbformat.write(notebook, target)
    return time.perf_counter() - start


def explain(
    name: str,
    notebook: nbformat.NotebookNode,
    index: int,
    error: Exception,
    limit: float = CELL_SECONDS,
) -> str:
    """The message for a notebook that stopped in cell `index`: its source, then why."""
    cell = notebook.cells[index]
    count = sum(c.cell_type == "code" for c in notebook.cells[: index + 1])
    if isinstance(error, CellTimeoutError):
        why = f"The cell took longer than {limit:.0f} seconds."
    elif isinstance(error, DeadKernelError):
        why = "The kernel died. The usual cause is that memory ran out."
    else:
        frames = [o.traceback for o in cell.outputs if o.output_type == "error"]
        plain = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(frames[-1] if frames else []))
        lines = [line for line in plain.splitlines() if line.strip()]
        why = "\n".join(lines[-TRACEBACK_LINES:]) or f"{error.ename}: {error.evalue}"
    return (
        f"{name} stopped in code cell {count}:\n\n"
        f"{textwrap.indent(cell.source, '    ')}\n\n"
        f"Why:\n\n{textwrap.indent(why, '    ')}\n\n"
        "TROUBLESHOOTING.md lists the usual causes and their cures."
    )


def run(paths: Sequence[Path], target: Path) -> None:
    """Execute notebooks in order into folder `target`, one progress line each."""
    width = max(len(path.stem) for path in paths)
    limit: float = CELL_SECONDS
    for number, path in enumerate(paths, 1):
        label = f"[{number}/{len(paths)}] {path.stem:<{width}}  "
        print(label, end="", flush=True)
        # A terminal's line, which showed the running cell, is written over.
        again = f"\r{label}" if sys.stdout.isatty() else ""
        try:
            seconds = execute(path, target / path.name, label, limit)
        except CourseError:
            print(f"{again}{'FAILED':<20}")
            raise
        print(f"{again}{f'{seconds:5.0f} s  ok':<20}")
        if path.name.startswith(FIRST):
            limit = cell_limit(seconds)
            if limit > CELL_SECONDS:
                print(
                    f"A busy or slow machine: cells may take {limit / 60:.0f} minutes."
                )


def cell_limit(first_seconds: float) -> float:
    """Seconds that a cell may take where the first notebook took so many: a machine
    that is three times slower than usual gets three times as long."""
    return CELL_SECONDS * max(1.0, first_seconds / FIRST_SECONDS)


def course(
    source: Path = SOURCE, target: Path = TARGET, numbers: Sequence[str] = ()
) -> None:
    """Execute the series into `target` and print the results table.

    Raises `CourseError` when a notebook fails, or the whole series leaves no results.
    """
    paths = find_notebooks(source, numbers)
    # Files beside the notebooks, such as recorded results, are there for them to read.
    shutil.copytree(
        source,
        target,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("*.ipynb", ".ipynb_checkpoints"),
    )
    start = time.time()
    run(paths, target)
    print(f"\nDone in {(time.time() - start) / 60:.1f} minutes.")
    results = target / RESULTS
    if results.exists():
        fresh = results.stat().st_mtime >= start
        print(f"\nResults {'of this run' if fresh else 'recorded earlier'}:\n")
        print(format_results(read_results(results)), end="\n\n")
    elif not numbers:
        raise CourseError(
            f"the series ran, but the notebook on evaluation left no {RESULTS}, "
            "so there is no table"
        )
    print(f"Look at  {_short(target / paths[-1].name)}")
    if (figure := results.with_suffix(".png")).exists():
        print(f"         {_short(figure)}")
    print(f"Work in  {_short(source)}  (make lab)")


def refresh(source: Path = SOURCE, numbers: Sequence[str] = ()) -> None:
    """Execute the notebooks in place and remove what changes on every run.

    A notebook that fails keeps its stored outputs. Raises `CourseError` when one does.
    """
    paths = find_notebooks(source, numbers)
    keep = ["--keep-output", "--keep-count", "--keep-id", "--extra-keys", VOLATILE]
    try:
        run(paths, source)
    finally:  # also what ran before a failure
        subprocess.run([sys.executable, "-m", "nbstripout", *keep, *paths], check=True)
    if (results := source / RESULTS).exists() and (
        page := source.parent / PAGE
    ).exists():
        page.write_text(
            with_table(page.read_text("utf-8"), read_results(results)), "utf-8"
        )
    print(f"\nStored in {_short(source)}. Look at the differences before you commit.")


def with_table(page: str, results: dict) -> str:
    """A Markdown page with the results as the table between the marks `TABLE`.

    Raises `CourseError` for a page without the two marks.
    """
    before, mark, rest = page.partition(TABLE[0])
    _, end, after = rest.partition(TABLE[1])
    if not (mark and end):
        raise CourseError(f"{PAGE} needs the lines {TABLE[0]} and {TABLE[1]}")
    lines = [results["columns"], ["---", *["---:"] * (len(results["columns"]) - 1)]]
    cells = [" | ".join(map(_cell, line)) for line in lines + results["rows"]]
    table = "\n".join(f"| {line} |" for line in cells)
    return f"{before}{mark}\n\n{table}\n\n{end}{after}"


def keep_results(
    name: str,
    columns: Sequence[str],
    rows: Sequence[Sequence],
    run_card: dict,
    figure: "Figure",
) -> Path:
    """Store a notebook's results beside it, as `results/<name>.json` and `.png`.

    Recorded results are replaced only in a run of this module (`make course` writes to
    its own folder, `make refresh` to the recorded one). A cell run by hand, or by a
    test, leaves them as they are, so that testing changes no file that git watches.
    """
    path = Path("results", f"{name}.json")
    if os.environ.get(KEEP) or not path.exists():
        from ..data.results import write_results  # torch: not for the runner

        write_results(path, columns, rows, run_card)
        figure.savefig(path.with_suffix(".png"), metadata={"Software": None})
    return path


def read_results(path: Path) -> dict:
    """The results of the notebook on evaluation, for the table at the end of a run.

    Form: `{"columns": [...], "rows": [[...], ...], "run_card": {...}}`.
    Raises `CourseError` when the file does not have this form.
    """
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        columns, rows, card = (results[k] for k in ("columns", "rows", "run_card"))
        well_formed = isinstance(card, dict) and all(
            len(row) == len(columns) for row in rows
        )
    except (ValueError, KeyError, TypeError):
        well_formed = False
    if not well_formed:
        raise CourseError(
            f'{path} needs the form {{"columns": [...], "rows": [[...]], '
            '"run_card": {...}}, each row as long as the columns; run the notebook on '
            "evaluation again"
        )
    return results


def format_results(results: dict) -> str:
    """Results as an aligned text table, numbers to the right, the run card below."""
    columns = list(zip(results["columns"], *results["rows"], strict=True))
    aligned = []
    for head, *values in columns:
        words = [_cell(head), *map(_cell, values)]
        width = max(map(len, words))
        left = any(isinstance(value, str) for value in values)
        aligned.append([w.ljust(width) if left else w.rjust(width) for w in words])
    lines = ["  ".join(words).rstrip() for words in zip(*aligned, strict=True)]
    lines.insert(1, "-" * max(map(len, lines)))
    card = results["run_card"].items()
    card = " · ".join(f"{k} {v}" for k, v in card if not isinstance(v, dict))
    return "\n".join([*lines, *textwrap.wrap(card, 88)])


def _cell(value: object) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:,}" if number else "–" if value is None else str(value)


def _short(path: Path) -> str:
    """The path as typed from the repository's root, where it lies below it."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m helpers.course", description="Run the notebooks in order."
    )
    parser.add_argument("numbers", nargs="*", help="only these, such as 04 06")
    parser.add_argument(
        "--refresh", action="store_true", help="in place, storing the outputs"
    )
    options = parser.parse_args(arguments)
    try:
        (refresh if options.refresh else course)(numbers=options.numbers)
    except CourseError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0
