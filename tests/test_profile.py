"""What things cost, against costs known beforehand."""

import numpy as np
import torch

from helpers import profile, world
from helpers.models import ChatModel


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
