"""What things cost, against costs known beforehand."""

import numpy as np
import pytest
import torch

from helpers import profile, record, world
from helpers.models import ChatModel
from tests.benchmarks import gpu


def test_parameters_and_bytes_count_a_tied_matrix_once(small_model):
    tied = torch.nn.Embedding(10, 4)
    head = torch.nn.Linear(4, 10, bias=False)
    head.weight = tied.weight
    model = torch.nn.ModuleList([tied, head])
    assert profile.parameters(model) == 40
    assert profile.weight_bytes(model) == 160
    assert profile.weight_bytes(model.half()) == 80
    tied.weight.requires_grad_(False)
    assert profile.parameters(model, trainable=True) == 0


def test_peak_memory_counts_what_lives_at_a_time():
    x = torch.ones(1000, 1000)  # 4 MB, there before

    def chain():
        y = x + 1
        for _ in range(5):
            y = y + 1  # the old and the new one live together

    def heap():
        return [x + i for i in range(5)]

    assert profile.peak_memory(chain) == 8_000_000
    assert profile.peak_memory(heap) == 20_000_000
    assert profile.peak_memory(lambda: x.view(-1)) == 0, "a view is no copy"
    assert profile.peak_memory(lambda: x.T[:10].add_(1)) == 0
    assert profile.peak_memory(lambda: (x + 1).T[:10] * 2) == 4_000_000 + 40_000


def test_deeper_models_take_longer_and_answer_less(teacher, student):
    prompts = [e.messages for e in world.examples("test", 6)]
    models = {"teacher": teacher, "student": student}
    seconds = profile.latency(models, prompts, max_new_tokens=8)
    assert {name: len(s) for name, s in seconds.items()} == {"teacher": 6, "student": 6}
    assert np.median(seconds["student"]) < np.median(seconds["teacher"])
    speed = profile.throughput(models, prompts * 4, max_new_tokens=8)
    assert speed["student"] > speed["teacher"]


def test_warm_up_is_not_counted(small_model, tokenizer, monkeypatch):
    asked = []
    monkeypatch.setattr(profile, "answer", lambda m, t, p, **_: asked.append(p))
    prompts = [[{"role": "user", "content": str(i)}] for i in range(3)]
    model = ChatModel(small_model, tokenizer)
    assert len(profile.latency({"m": model}, prompts, warm_up=2)["m"]) == 3
    assert len(asked) == 5


def test_a_missing_gpu_record_is_said_to_be_missing(tmp_path, capsys):
    assert profile.gpu_record(tmp_path / "gpu.json") is None
    said = capsys.readouterr().out
    assert "no record" in said and "python -m tests.benchmarks.gpu" in said


def test_a_gpu_record_is_a_table_with_its_run_card(tmp_path):
    path = tmp_path / "gpu.json"
    record.write_results(path, ["track", "peak GiB"], [["gpu", 9.5]], {"device": "x"})
    table = profile.gpu_record(path)
    assert table["peak GiB"].item() == 9.5 and table.attrs == {"device": "x"}


def test_the_command_that_records_a_gpu_runs_on_a_processor(capsys, monkeypatch):
    monkeypatch.setattr(record, "write_results", lambda *_: pytest.fail("wrote"))
    rows = [dict(zip(gpu.COLUMNS, row, strict=True)) for row in gpu.main(["--dry-run"])]
    assert [row["method"] for row in rows] == ["LoRA", "QLoRA"]
    for row in rows:
        assert row["ledger GiB"] == pytest.approx(row["peak GiB"], rel=0.15)
        assert row["tokens a second"] > 0
    assert "fraction of matmul" in capsys.readouterr().out


def test_the_command_that_records_a_gpu_needs_one(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "needs a CUDA GPU; --dry-run" in capsys.readouterr().err


def test_a_storage_counts_until_its_last_view_is_gone():
    def action():
        big = torch.ones(1000)
        part = big[:10]
        del big
        other = torch.ones(1000)  # the first still lives below its view
        return part, other

    assert profile.peak_memory(action) == 8000
