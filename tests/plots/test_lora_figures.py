"""Figures of LoRA: every part of a step's memory, every seed."""

import pandas as pd
import torch

from helpers import plots
from helpers.evaluate import Interval
from helpers.memory import Step, training
from helpers.plots.lora import LEDGER
from tests.plots.words import written


def test_memory_ledger_stacks_the_parts_of_each_step_in_gib():
    gib = 2**30
    steps = {
        "full": {"weights": 16 * gib, "gradients": 32 * gib, "activations": 0},
        "LoRA": {"weights": 16 * gib, "adapters": gib, "loss head": gib},
    }
    figure = plots.memory_ledger(steps, [24], "title")
    (axes,) = figure.axes
    assert written(axes) == ["48.0", "18.0", "24 GB"]
    ends = [bar.get_x() + bar.get_width() for bar in axes.patches]
    assert max(ends[: len(LEDGER)]) == 48 and ends[-1] == 18
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["weights", "gradients", "adapters", "loss head"]


def test_every_part_of_a_ledger_has_its_own_look():
    step = Step(1, 8, 4, torch.bfloat16, "cuda", lora_rank=2)
    parts = training("Qwen/Qwen3-0.6B", step, "Qwen/Qwen3-1.7B").parts
    assert set(parts) == set(LEDGER)
    assert len(set(LEDGER.values())) == len(LEDGER)


def test_starts_draws_one_line_each_and_names_it():
    (axes,) = plots.starts({"a": [4, 3, 2], "b": [4, 2, 1], "c": [4, 4, 4]}).axes
    assert written(axes) == ["a", "b", "c"]
    assert [line.get_ydata()[-1] for line in axes.lines] == [2, 1, 4]


def test_rank_error_draws_what_was_trained_on_what_is_possible():
    (axes,) = plots.rank_error([1, 2], [0.5, 0.3], [0.5, 0.25]).axes
    assert list(axes.lines[0].get_ydata()) == [0.5, 0.25]
    assert axes.collections[0].get_offsets()[:, 1].tolist() == [0.5, 0.3]


def test_step_memory_marks_the_prediction_of_each_bar():
    rows = [(1, "full", 3.0, 3.3), (1, "LoRA", 2.0, 2.1),
            (8, "full", 9.0, 9.5), (8, "LoRA", 8.0, 8.1)]  # fmt: skip
    columns = ["batch", "method", "predicted", "measured"]
    small, large = plots.step_memory(pd.DataFrame(rows, columns=columns)).axes
    assert [bar.get_width() for bar in small.patches] == [3.3, 2.1]
    strokes = large.collections[0].get_segments()
    assert [stroke[0][0] for stroke in strokes] == [9.0, 8.0]
    assert [tick.get_text() for tick in small.get_yticklabels()] == ["full", "LoRA"]


def test_recorded_lora_tells_full_fine_tuning_from_lora():
    groups = {"LoRA": [0.8, 0.9], "full, equal time": [0.7, 0.8]}
    (axes,) = plots.recorded_lora(groups, "title").axes
    points = [line for line in axes.lines if line.get_linestyle() == "None"]
    assert [list(line.get_xdata()) for line in points] == [[0.8, 0.9], [0.7, 0.8]]
    found = [line.get_color() for line in points]
    assert found == [plots.COLOURS["student"], plots.COLOURS["baseline"]]


def test_rounded_update_marks_the_real_one():
    (axes,) = plots.rounded_update([0.01, 0.1], [0.05, 0.9], here=0.2).axes
    curve, mark = axes.lines
    assert list(curve.get_ydata()) == [0.05, 0.9] and mark.get_xdata()[0] == 0.2
    ticks = [tick.get_text() for tick in axes.get_xticklabels()]
    assert ticks == ["1.0%", "10.0%"]


def test_accuracy_bars_has_a_dot_with_its_interval_in_each_row():
    found = {"teacher": Interval(0.9, 0.8, 1.0), "LoRA": Interval(0.5, 0.4, 0.7)}
    (axes,) = plots.accuracy_bars(found, ["teacher", "student"], "title").axes
    assert [line.get_xdata()[0] for line in axes.lines] == [0.9, 0.5]
    assert [line.get_color() for line in axes.lines] == [
        plots.COLOURS["teacher"],
        plots.COLOURS["student"],
    ]
    bars = [c.get_segments()[0][:, 0].tolist() for c in axes.collections]
    assert bars == [[0.8, 1.0], [0.4, 0.7]]
    assert written(axes) == ["90%", "50%"]
