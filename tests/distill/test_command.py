"""The lap in two calls, and the records behind the notebooks."""

import json

import pytest
import torch

from helpers import distill, world
from helpers.course import record
from helpers.data import read_chat
from helpers.generate import Reply
from helpers.models import ChatModel


def test_wrong_answers_of_the_teacher_are_dropped(tmp_path):
    class HalfRight:
        def describe(self):
            return {"model": "half right"}

        def replies(self, requests, sampling):
            for place, _ in reversed(list(enumerate(requests))):
                yield place, Reply("Sorry?" if place % 2 else examples[place].answer)

    examples = world.examples("train", 6)
    path = tmp_path / "answers.jsonl"
    rows = distill.teacher_rows(HalfRight(), examples, path, progress=False)
    assert [row["id"] for row in rows] == [e.id for e in examples[::2]]
    assert len(read_chat(path)) == 6


@pytest.mark.parametrize("full", [False, True])
def test_distil_teaches_a_copy(small_model, tokenizer, track, full):
    base = ChatModel(small_model, tokenizer)
    before = {k: v.clone() for k, v in small_model.state_dict().items()}
    rows = [e.row() for e in world.examples("train", 8)]
    taught, history, trained = distill.distil(
        base,
        rows,
        track,
        steps=6,
        rank=4,
        full=full,
        learning_rate=5e-3,
        progress=False,
    )
    assert history.loss[-1] < history.loss[0]
    assert all(torch.equal(v, before[k]) for k, v in small_model.state_dict().items())
    assert type(taught.model) is type(small_model) and not taught.model.training
    assert (trained == small_model.num_parameters()) == full


def test_distil_is_repeatable(small_model, tokenizer, track):
    rows = [e.row() for e in world.examples("train", 8)]
    settings = dict(steps=3, rank=4, teacher=small_model, progress=False)
    runs = [
        distill.distil(
            ChatModel(small_model, tokenizer), rows, track, seed=s, **settings
        )
        for s in (0, 0, 1)
    ]
    losses = [history.loss for _, history, _ in runs]
    weights = [m.model.get_input_embeddings().weight for m, _, _ in runs]
    assert losses[0] == losses[1]
    assert torch.equal(weights[0], weights[1])


def test_a_killed_record_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    asked = []

    def measure():
        asked.append(1)
        return [0.5]

    record.Recorder("x", ["method", "seed", "accuracy"]).run(("a", 0), measure)
    again = record.Recorder("x", ["method", "seed", "accuracy"])
    again.run(("a", 0), measure)
    again.run(("a", 1), measure)
    content = json.loads((tmp_path / "x.json").read_text())
    assert content["rows"] == [["a", 0, 0.5], ["a", 1, 0.5]]
    assert len(asked) == 2
    assert content["run_card"]["command"] == "python -m helpers.record x"
    assert content["run_card"]["minutes"] >= 0
    assert not list(tmp_path.glob("*.part"))
