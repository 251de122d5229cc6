"""The case study on data that the course never saw; the record of what answers cost."""

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from helpers import world
from helpers.course import record
from helpers.models import ChatModel

pytestmark = pytest.mark.slow

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "17_case_study.ipynb"
SETTING = 'DATA = None  # or "my_chats.jsonl"'
RECORDED = "## 4 "  # from this heading on, nothing is about the learner's data
PARTS = ("la rueda", "el freno", "la cadena", "el timbre")
PLACES = ("Sevilla", "Lima", "Quito", "Cádiz", "Bilbao", "Rosario")


def questions(answered: bool) -> list[dict]:
    """A bicycle workshop that speaks Spanish."""
    rows = []
    for part in PARTS:
        for place in PLACES:
            row = {"question": f"En {place} se me rompe {part}. ¿Qué hago con eso?"}
            if answered:
                row["answer"] = f"Lleve {part} al taller de {place}."
            rows.append(row)
    return rows


def executed(data: Path, *, until: str | None = None):
    """The notebook with its cell of settings changed, as a learner would."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    texts = [cell.source for cell in notebook.cells]
    (place,) = (i for i, text in enumerate(texts) if SETTING in text)
    cell = notebook.cells[place]
    cell.source = cell.source.replace(SETTING, f"DATA = {str(data)!r}")
    if until:
        (end,) = (i for i, text in enumerate(texts) if text.startswith(until))
        notebook.cells = notebook.cells[:end]
    where = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(notebook, timeout=600, resources=where).execute()
    return notebook


def printed(notebook) -> str:
    texts = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            texts.append(output.get("text", ""))
            texts.append(output.get("data", {}).get("text/plain", ""))
    return "\n".join(texts)


@pytest.mark.parametrize(
    ("answered", "until", "said"),
    [
        (True, None, "token F1 of the teacher"),
        (False, RECORDED, "the reference is what the teacher answered"),
    ],
    ids=["questions with answers", "questions alone"],
)
def test_the_notebook_runs_on_the_learner_s_own_file(answered, until, said, tmp_path):
    data = tmp_path / "mine.jsonl"
    lines = (json.dumps(row, ensure_ascii=False) for row in questions(answered))
    data.write_text("\n".join(lines), encoding="utf-8")
    output = printed(executed(data, until=until))
    assert said in output
    assert "¿Qué hago con eso?" in output  # a conversation of the learner's is read
    assert "the loaded student repeats its answers: True" in output


def test_costs_without_students_says_what_to_run_first(monkeypatch, tmp_path):
    monkeypatch.setattr(record, "SCRATCH", tmp_path)
    with pytest.raises(FileNotFoundError, match="seed 0, 1, 2.*helpers.record case"):
        record.costs(None)


@pytest.fixture
def pair(track, student, small_model, tokenizer):
    """The student base, and a teacher that is quick."""

    class Pair:
        teacher, test = ChatModel(small_model, tokenizer), world.examples("test", 4)

    Pair.track, Pair.student = track, student
    return Pair


def test_costs_keeps_every_time_of_every_model(pair, monkeypatch, tmp_path):
    monkeypatch.setattr(record, "SCRATCH", tmp_path)
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(record, "COST_PROMPTS", 2)
    monkeypatch.setattr(record, "USERS", (1, 2))
    monkeypatch.setattr(record, "REPEATS", 3)
    for seed in record.SEEDS:
        pair.student.model.save_pretrained(record.case_student(seed))
    record.costs(pair)
    stored = json.loads((tmp_path / "costs.json").read_text())
    names = ["teacher", "student 0", "student 1", "student 2"]
    assert stored["columns"] == ["measure", "users", *names]
    assert {"command", "minutes", "seeds", "prompts"} <= set(stored["run_card"])
    rows = {(measure, users): lists for measure, users, *lists in stored["rows"]}
    assert len(rows) == len(stored["rows"]) == 3 + 2 + 2 + 2 * 4
    own = [pair.teacher, *[pair.student] * 3]
    counted = [[sum(p.numel() for p in chat.model.parameters())] for chat in own]
    assert rows["parameters", 0] == counted
    assert rows["weight bytes", 0] == [[4 * n] for (n,) in counted]
    assert rows["disk bytes", 0] == [[2 * n] for (n,) in counted]
    assert [len(values) for values in rows["seconds", 1]] == [2] * 4
    assert [len(values) for values in rows["answers a second", 2]] == [3] * 4  # repeats
    assert all(value > 0 for lists in rows.values() for v in lists for value in v)
    (alone,), *_ = rows["working bytes", 1]
    (both,), *_ = rows["working bytes", 2]
    assert both > 1.5 * alone
