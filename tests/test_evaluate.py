"""Metrics against values worked out by hand or by another library."""

import numpy as np
import pytest
from scipy import stats

from helpers import data, evaluate, world


def test_bootstrap_agrees_with_scipy():
    rng = np.random.default_rng(0)
    values = rng.random(300) < 0.8
    ours = evaluate.accuracy(values)
    theirs = stats.bootstrap((values,), np.mean, method="percentile",
                             n_resamples=2000, rng=rng).confidence_interval  # fmt: skip
    assert ours.value == values.mean()
    assert abs(ours.low - theirs.low) < 0.01 and abs(ours.high - theirs.high) < 0.01


def test_intervals_hold_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(1)
    held = 0
    for trial in range(200):
        sample = rng.random(200) < 0.7
        interval = evaluate.bootstrap(np.mean, sample, resamples=400, seed=trial)
        held += interval.low <= 0.7 <= interval.high
    assert 0.90 <= held / 200 <= 0.99


def test_retention_is_a_ratio_of_means_on_the_same_items():
    student, teacher = [1, 0, 0, 1], [1, 1, 0, 1]
    assert evaluate.retention(student, teacher).value == pytest.approx(2 / 3)
    same = evaluate.retention(teacher * 25, teacher * 25)
    assert (same.low, same.value, same.high) == (1, 1, 1), "pairs were torn apart"


def test_impossible_samples_are_refused():
    with pytest.raises(ValueError, match="never|no right answer"):
        evaluate.retention([1, 0], [0, 0])
    with pytest.raises(ValueError, match="one length"):
        evaluate.bootstrap(np.mean, [1, 0], [1])
    with pytest.raises(ValueError, match="at least one"):
        evaluate.bootstrap(np.mean, [])


def test_score_and_by_task():
    examples = world.examples("test", 20)
    answers = [e.answer if i % 2 else "Sorry?" for i, e in enumerate(examples)]
    scored = evaluate.score(examples, answers).assign(model="half")
    assert scored["right"].tolist() == [bool(i % 2) for i in range(20)]
    table = evaluate.by_task(scored)
    assert list(table.index) == [*world.TASKS, "all"]
    assert table.loc["all", "half"] == 0.5


def test_compare_asks_every_model_the_same(teacher, student):
    examples = world.examples("test", 10)
    models = {"teacher": teacher, "again": teacher, "student": student}
    scored = evaluate.compare(models, examples)
    answers = scored.pivot(index="id", columns="model", values="answer")
    assert len(scored) == 30
    assert (answers["teacher"] == answers["again"]).all()
    assert (answers["teacher"] != answers["student"]).any()


def test_agreement_with_oneself_is_complete(teacher, student):
    rows = [data.tokenize_chat(teacher.tokenizer, e.row()["messages"])
            for e in world.examples("test", 12)]  # fmt: skip
    same = evaluate.agreement(teacher.model, teacher.model, rows)
    assert same == {"top1": 1.0, "forward_kl": 0.0}
    one = evaluate.agreement(student.model, teacher.model, rows, batch_size=1)
    batch = evaluate.agreement(student.model, teacher.model, rows, batch_size=12)
    assert one == pytest.approx(batch, rel=1e-4)
    assert batch["top1"] < 1 and batch["forward_kl"] > 0
