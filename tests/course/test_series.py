"""The runner behind `make course`: progress, readable failures, the results table."""

import json

import nbformat
import pytest
from matplotlib.figure import Figure

from helpers.course import series


def notebook(folder, name, *sources):
    """Write a notebook with these code cells, not executed yet."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    folder.mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / name)
    return folder / name


WRITE_RESULTS = """
from matplotlib.figure import Figure
from helpers.course import series
rows = [["teacher", 0.95], ["student", 0.9]]
card = {"device": "cpu", "versions": {"torch": "2"}}
series.keep_results("lap", ["model", "accuracy"], rows, card, Figure())
"""


@pytest.mark.slow
def test_a_run_shows_progress_and_table_and_leaves_the_notebooks_alone(
    tmp_path, capsys
):
    first = notebook(tmp_path / "notebooks", "00_start.ipynb", "print(1 + 1)")
    last = notebook(tmp_path / "notebooks", "07_evaluation.ipynb", WRITE_RESULTS)
    before = first.read_bytes(), last.read_bytes()
    series.course(tmp_path / "notebooks", tmp_path / "executed")
    said = capsys.readouterr().out
    lines = [line for line in said.splitlines() if line.startswith("[")]
    assert [line.split()[:2] for line in lines] == [
        ["[1/2]", "00_start"],
        ["[2/2]", "07_evaluation"],
    ]
    assert all(line.rstrip().endswith("s  ok") for line in lines)
    assert "Results of this run" in said
    assert "teacher      0.95" in said and "device cpu" in said
    assert str(tmp_path / "executed" / "07_evaluation.ipynb") in said
    assert str(tmp_path / "executed" / "results" / "lap.png") in said
    assert (first.read_bytes(), last.read_bytes()) == before
    assert not (tmp_path / "notebooks" / "results").exists()
    ran = nbformat.read(tmp_path / "executed" / "00_start.ipynb", as_version=4)
    assert ran.cells[0].outputs[0].text == "2\n"


def test_a_failing_notebook_stops_the_run_with_its_cell_and_reason(tmp_path, capsys):
    folder = tmp_path / "notebooks"
    deep = "def helper(n):\n    return helper(n - 1) if n else 1 / 0"
    notebook(folder, "00_start.ipynb", deep, "rate = 'high'\nhelper(50)")
    notebook(folder, "02_data.ipynb", "print('never reached')")
    with pytest.raises(series.CourseError) as failure:
        series.course(folder, tmp_path / "executed")
    message = str(failure.value)
    assert "00_start.ipynb stopped in code cell 2" in message
    assert "    rate = 'high'\n    helper(50)" in message
    assert "ZeroDivisionError: division by zero" in message
    assert "\x1b" not in message and len(message.splitlines()) < 30
    assert "FAILED" in capsys.readouterr().out
    assert (tmp_path / "executed" / "00_start.ipynb").exists()
    assert not (tmp_path / "executed" / "02_data.ipynb").exists()


def test_a_dead_kernel_and_a_slow_cell_are_named(tmp_path):
    path = notebook(tmp_path, "00_dead.ipynb", "import os", "os._exit(1)")
    with pytest.raises(series.CourseError, match="code cell 2(.|\n)*kernel died"):
        series.execute(path, tmp_path / "out.ipynb")
    path = notebook(tmp_path, "01_slow.ipynb", "import time; time.sleep(30)")
    with pytest.raises(series.CourseError, match="longer than 1 seconds"):
        series.execute(path, tmp_path / "out.ipynb", limit=1)


def test_a_slow_machine_gets_longer_for_each_cell(tmp_path, monkeypatch, capsys):
    usual = series.CELL_SECONDS
    assert series.cell_limit(series.FIRST_SECONDS / 2) == usual
    assert series.cell_limit(3 * series.FIRST_SECONDS) == 3 * usual
    limits = {}

    def execute(source, target, label, limit):
        limits[source.name] = limit
        return 3 * series.FIRST_SECONDS

    monkeypatch.setattr(series, "execute", execute)
    paths = [tmp_path / name for name in ("00_a.ipynb", "01_b.ipynb", "02_c.ipynb")]
    series.run(paths, tmp_path)
    assert list(limits.values()) == [usual, 3 * usual, 3 * usual]
    assert "cells may take 30 minutes" in capsys.readouterr().out
    series.run(paths[1:], tmp_path)  # nothing is known of the machine
    assert limits["02_c.ipynb"] == usual


def test_a_whole_series_without_results_is_an_error(tmp_path):
    notebook(tmp_path / "notebooks", "00_start.ipynb", "1")
    with pytest.raises(series.CourseError, match="left no .*lap.json"):
        series.course(tmp_path / "notebooks", tmp_path / "executed")


def test_only_a_run_replaces_recorded_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(series.KEEP, raising=False)

    def accuracy(new):
        path = series.keep_results("lap", ["accuracy"], [[new]], {}, Figure())
        return series.read_results(path)["rows"][0][0]

    assert accuracy(0.8) == 0.8  # there was none
    assert accuracy(0.9) == 0.8  # run by hand or by a test
    monkeypatch.setenv(series.KEEP, "1")
    assert accuracy(0.9) == 0.9
    assert (tmp_path / "results" / "lap.png").stat().st_size > 0


def test_recorded_results_are_told_from_new_ones(tmp_path, capsys):
    folder = tmp_path / "notebooks"
    notebook(folder, "04_losses.ipynb", "1")
    (folder / "results").mkdir()
    results = {"columns": ["model"], "rows": [["teacher"]], "run_card": {}}
    (folder / series.RESULTS).write_text(json.dumps(results))
    series.course(folder, tmp_path / "executed", numbers=["04"])
    assert "Results recorded earlier" in capsys.readouterr().out


@pytest.mark.slow
def test_refresh_stores_outputs_without_what_changes_and_keeps_a_failing_file(tmp_path):
    good = notebook(tmp_path, "00_good.ipynb", "print('new')")
    bad = notebook(tmp_path, "02_bad.ipynb", "1 / 0")
    before = bad.read_bytes()
    with pytest.raises(series.CourseError, match="02_bad.ipynb"):
        series.refresh(tmp_path)
    stored = nbformat.read(good, as_version=4)
    assert stored.cells[0].outputs[0].text == "new\n"
    assert stored.cells[0].execution_count == 1
    assert "version" not in stored.metadata.language_info
    assert "execution" not in stored.cells[0].metadata
    assert bad.read_bytes() == before


def test_notebooks_are_found_in_order_and_by_number(tmp_path):
    for name in ("10_b.ipynb", "02_a.ipynb", "draft.ipynb"):
        (tmp_path / name).touch()
    assert [p.name for p in series.find_notebooks(tmp_path)] == [
        "02_a.ipynb",
        "10_b.ipynb",
    ]
    assert [p.name for p in series.find_notebooks(tmp_path, ["10"])] == ["10_b.ipynb"]
    with pytest.raises(series.CourseError, match="the number 05; there are 02, 10"):
        series.find_notebooks(tmp_path, ["05"])


def test_an_empty_folder_is_reported_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(series.course, "__defaults__", (tmp_path, tmp_path, ()))
    assert series.main([]) == 1
    assert "no notebook in" in capsys.readouterr().err


def test_the_table_is_aligned():
    results = {
        "columns": ["model", "parameters", "kept"],
        "rows": [["teacher", 3_800_000, None], ["student", 150_000, 0.9]],
        "run_card": {"seeds": [0, 1], "versions": {"torch": "2"}},
    }
    assert series.format_results(results).splitlines() == [
        "model    parameters  kept",
        "-------------------------",
        "teacher   3,800,000     –",
        "student     150,000   0.9",
        "seeds [0, 1]",
    ]


@pytest.mark.parametrize(
    "content",
    ["not json", "[]", '{"columns": ["a"], "rows": [[1]]}',
     '{"columns": ["a"], "rows": [[1, 2]], "run_card": {}}'],
)  # fmt: skip
def test_malformed_results_are_refused_with_the_form_expected(tmp_path, content):
    path = tmp_path / "lap.json"
    path.write_text(content)
    with pytest.raises(series.CourseError, match="lap.json needs the form"):
        series.read_results(path)


RESULTS = {"columns": ["model", "MB"], "rows": [["a", 27.5], ["b", None]]}


def test_the_table_of_a_page_is_written_between_its_marks():
    page = "Top\n<!-- results -->\nold\n<!-- end of results -->\nBottom\n"
    new = series.with_table(page, RESULTS)
    assert "| model | MB |\n| --- | ---: |\n| a | 27.5 |\n| b | – |\n" in new
    assert new.startswith("Top\n<!-- results -->") and "old" not in new
    assert new.endswith("<!-- end of results -->\nBottom\n")
    assert series.with_table(new, RESULTS) == new
    with pytest.raises(series.CourseError, match="needs the lines"):
        series.with_table("no marks", RESULTS)


def test_the_readme_shows_the_recorded_lap():
    page = (series.ROOT / series.PAGE).read_text(encoding="utf-8")
    results = series.read_results(series.SOURCE / series.RESULTS)
    assert series.with_table(page, results) == page, (
        "python -m helpers.course --refresh"
    )
