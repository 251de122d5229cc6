"""Searches under a budget of steps, and the recorded runs of the knobs."""

import numpy as np
import optuna
import pytest
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from helpers import train, world
from helpers.course import knobs
from helpers.train import tuning
from tests.train.test_loop import QUICK, ROWS, llama

STEPS = 8  # of a trial
PRUNER = optuna.pruners.MedianPruner(n_startup_trials=3)
QUIET = {"steps": STEPS, "progress": False}


def hill(trial):
    """Best at x = 0.3; every trial reports its height from the first step on."""
    height = -abs(trial.suggest_float("x", 0, 1) - 0.3)
    for step in range(2, STEPS + 1, 2):
        trial.report(height, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return height


def xs(study):
    return [t.params["x"] for t in study.get_trials(states=tuning.DONE)]


@pytest.mark.parametrize("pruner", [None, PRUNER])
@pytest.mark.parametrize("budget", [STEPS, 50, 100])
def test_a_search_never_takes_more_than_its_budget(budget, pruner):
    study = tuning.search(hill, budget=budget, pruner=pruner, **QUIET)
    spent = tuning.steps_spent(study, STEPS)
    assert budget - STEPS < spent <= budget
    by_hand = sum(max(t.intermediate_values) for t in study.trials)
    assert spent == by_hand
    if pruner is None:
        assert len(study.trials) == budget // STEPS


def test_pruning_leaves_more_trials_to_the_same_budget():
    counts = {}
    for pruner in (None, PRUNER):
        study = tuning.search(hill, budget=160, pruner=pruner, **QUIET)
        counts[pruner] = len(study.trials)
        ends = {t.state for t in study.trials}
        assert (TrialState.PRUNED in ends) == (pruner is not None)
    assert counts[PRUNER] > counts[None] == 20


def test_the_seed_decides_what_is_tried():
    a, b, c = (
        xs(tuning.search(hill, budget=80, seed=seed, **QUIET)) for seed in (0, 0, 1)
    )
    assert a == b and a != c and len(set(a)) == len(a) == 10


def test_the_sampler_is_the_one_asked_for():
    """TPE comes close to the top of the hill; random numbers do not care."""
    found = {
        sampler: xs(tuning.search(hill, budget=320, sampler=sampler, **QUIET))
        for sampler in (optuna.samplers.TPESampler, RandomSampler)
    }
    tpe, random = (np.abs(np.array(x[20:]) - 0.3).mean() for x in found.values())
    assert tpe < 0.7 * random


@pytest.mark.parametrize("sampler", [optuna.samplers.TPESampler, RandomSampler])
def test_a_killed_search_goes_on_as_if_nothing_had_happened(sampler):
    settings = {"budget": 160, "sampler": sampler, "pruner": PRUNER, **QUIET}
    whole = tuning.search(hill, **settings)
    tried = 0

    def killed(trial):
        nonlocal tried
        tried += 1
        if tried == 13:
            trial.suggest_float("x", 0, 1)
            trial.report(1.0, 2)
            raise KeyboardInterrupt
        return hill(trial)

    storage = optuna.storages.InMemoryStorage()
    with pytest.raises(KeyboardInterrupt):
        tuning.search(killed, storage=storage, **settings)
    study = tuning.search(hill, storage=storage, **settings)
    assert xs(study) == xs(whole) and tried == 13
    assert [t.state for t in study.trials].count(TrialState.FAIL) == 1
    again = tuning.search(hill, storage=storage, **settings)  # nothing is left to do
    assert xs(again) == xs(whole)


def test_a_process_that_died_leaves_no_trial_running(tmp_path):
    storage = f"sqlite:///{tmp_path / 'search.db'}"
    study = tuning.search(hill, budget=STEPS, storage=storage, **QUIET)
    study.ask()  # running, and nobody will ever finish it
    study = tuning.search(hill, budget=2 * STEPS, storage=storage, **QUIET)
    states = [t.state for t in study.trials]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]


def test_a_trial_that_diverges_is_pruned_and_the_search_goes_on():
    def diverging(trial):
        if trial.number % 2:
            raise FloatingPointError("the loss is nan")
        return hill(trial)

    study = tuning.search(diverging, budget=4 * STEPS, **QUIET)
    states = [t.state for t in study.trials]
    assert states == [TrialState.COMPLETE, TrialState.PRUNED] * 2  # both cost steps


def test_other_errors_of_an_objective_go_through():
    def wrong(trial):
        raise KeyError("a mistake of mine")

    with pytest.raises(KeyError):
        tuning.search(wrong, budget=STEPS, **QUIET)


def test_a_budget_below_one_trial_is_refused():
    for budget, steps in ((7, 8), (8, 0)):
        with pytest.raises(ValueError, match="too small for one trial"):
            tuning.search(hill, budget=budget, steps=steps)


def test_reporting_tells_the_trial_and_lets_the_pruner_stop_the_training():
    """The third student is measured as worse, so its training ends early."""
    heights, histories = iter([1.0, 1.0, 0.0]), []

    def objective(trial):
        height = next(heights)
        watch = tuning.reporting(trial, lambda student: height)
        settings = QUICK | {"steps": STEPS, "every": 4, "watch": watch}
        histories.append(train.fit(llama(), ROWS, **settings))
        return histories[-1].watched[STEPS]

    pruner = optuna.pruners.MedianPruner(n_startup_trials=2)
    settings = QUIET | {"budget": 3 * STEPS, "pruner": pruner}
    study = tuning.search(objective, **settings)
    assert [h.watched for h in histories] == [{4: 1.0, 8: 1.0}] * 2
    assert [t.intermediate_values for t in study.trials][2] == {4: 0.0}
    assert [tuning.search_cost(t, STEPS) for t in study.trials] == [8, 8, 4]


def test_packed_answers_come_back():
    rng = np.random.default_rng(0)
    for items in (1, 8, 13, 500):
        right = rng.random(items) < 0.7
        text = tuning.pack_right(right)
        assert text.isalnum() and len(text) == 2 * -(-items // 8)
        np.testing.assert_array_equal(tuning.unpack_right(text, items), right)


# ---------------------------------------------------------------- the recorded runs


def test_the_runs_differ_in_what_their_group_is_about():
    runs = knobs.runs()
    keys = [(group, way, *changes.items()) for group, way, changes in runs]
    assert len(set(keys)) == len(keys)
    for group, way, changes in runs:
        settings = knobs.USUAL | changes
        assert tuple(settings) == knobs.SETTINGS
        if way.startswith("equal examples"):
            assert settings["batch_size"] * settings["steps"] == 32 * knobs.STEPS
        if group == "search":
            assert settings["steps"] in (knobs.TRIAL, knobs.BUDGET)
    assert knobs.USUAL["learning_rate"] in knobs.RATES


@pytest.fixture(scope="module")
def small_pair(track, student):
    """What `knobs.Knobs` needs of a `record.Pair`; gold rows play the teacher's."""

    class SmallPair:
        def __init__(self):
            self.track, self.student = track, student
            self.test = world.examples("test", 10)

        def text(self, prompts, seed):
            return [e.row() for e in world.examples("train", prompts, seed)]

        def signal(self, rows, seed):
            return None

        def right(self, chat, examples):
            return 0.5

    return SmallPair()


def test_a_run_keeps_what_the_file_has_columns_for(small_pair):
    students = knobs.Knobs(small_pair, 8)
    students.validation = students.validation[:10]
    settings = knobs.USUAL | {"steps": 2, "batch_size": 4}
    row = dict(zip(knobs.FOUND, students.run(0, False, settings), strict=True))
    for split in ("validation", "test"):
        packed = row["right" if split == "validation" else "right_on_test"]
        assert tuning.unpack_right(packed, 10).mean() == pytest.approx(
            row[split], abs=1e-4
        )
    assert row["loss"] > 0 and row["trials"] == []
    diverged = students.run(0, True, settings | {"learning_rate": 1e30})
    assert diverged == list(knobs.DIVERGED)


def test_a_recorded_search_keeps_its_trials(small_pair, monkeypatch):
    monkeypatch.setattr(knobs, "TRIAL", 4)
    monkeypatch.setattr(knobs, "BUDGET", 9)
    students = knobs.Knobs(small_pair, 8)
    students.validation = students.validation[:10]
    columns = (*knobs.SETTINGS, *knobs.FOUND)
    row = dict(zip(columns, students.search(0, "TPE, pruned"), strict=True))
    assert row["steps"] == 8 == sum(t["steps"] for t in row["trials"])
    assert all(t["reports"] == [0.5] * 4 for t in row["trials"])
    rates = [t["learning_rate"] for t in row["trials"]]
    assert row["learning_rate"] in rates and min(rates) >= 1e-4
