"""The runs behind the notebook on hyperparameters: settings, and what is kept."""

import dataclasses
import time
from collections.abc import Mapping
from functools import partial

import optuna
from optuna.samplers import RandomSampler, TPESampler

from .. import evaluate, world
from ..distill.pipeline import distil
from ..models.loading import ChatModel
from ..train.loop import History
from ..train.tuning import pack_right, reporting, search, search_cost, steps_spent

STEPS, TRIAL, BUDGET = 200, 120, 1200  # of a run, of a trial, of a whole search
SETTINGS = ("learning_rate", "batch_size", "soft_weight", "temperature", "steps")
FOUND = ("loss", "validation", "right", "test", "right_on_test", "seconds", "trials")
RATES = (1e-5, 5e-5, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
USUAL = dict(zip(SETTINGS, (1e-2, 32, 1.0, 1.0, STEPS), strict=True))
DIVERGED = (None, 0.0, "", 0.0, "", None, [])  # there is no student to ask


def runs() -> list[tuple[str, str, dict]]:
    """Group, way and the settings that are not the usual ones, of every plain run."""
    rates = [
        ("learning rate", way, {"learning_rate": rate})
        for way in ("LoRA", "full")
        for rate in RATES
    ]
    grid = [(weight, T) for weight in (0.25, 0.5, 0.75, 1.0) for T in (1.0, 2.0, 4.0)]
    grid.append((0.0, 1.0))  # from text alone: there is no temperature to choose
    cells = [
        ("map", "LoRA", {"soft_weight": weight, "temperature": T}) for weight, T in grid
    ]
    hand = [
        ("search", f"by hand, {steps} steps", {"steps": steps})
        for steps in (TRIAL, BUDGET)
    ]
    batches = [("batch", "equal steps", {})]  # the same run in all three ways
    for size in (8, 128):
        read = {"batch_size": size, "steps": STEPS * 32 // size}
        scaled = {"learning_rate": USUAL["learning_rate"] * (size / 32) ** 0.5}
        batches += [
            ("batch", "equal steps", {"batch_size": size}),
            ("batch", "equal examples", read),
            ("batch", "equal examples, rate x root of batch", read | scaled),
        ]
    return rates + cells + hand + batches


def searches() -> dict[str, dict]:
    """The ways to search, as settings of `train.search`."""
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=TRIAL // 4)
    tpe = partial(TPESampler, n_startup_trials=4)
    return {
        "random": {"sampler": RandomSampler},
        "random, pruned": {"sampler": RandomSampler, "pruner": pruner},
        "TPE, pruned": {"sampler": tpe, "pruner": pruner},
    }


def suggest(trial: optuna.Trial) -> dict:
    """Settings of `distil` for a trial, from ranges that a newcomer might write."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True),
        "soft_weight": trial.suggest_float("soft_weight", 0.0, 1.0),
        "temperature": trial.suggest_float("temperature", 1.0, 4.0),
        "rank": trial.suggest_categorical("rank", [4, 8, 16, 32]),
        "warmup": trial.suggest_float("warmup", 0.0, 0.3),
    }


class Knobs:
    """Students of one pair (`record.Pair`) and one number of prompts."""

    def __init__(self, pair, prompts: int):
        self.pair, self.prompts = pair, prompts
        self.validation = world.examples("validation", 500)
        self.test = pair.test[:500]
        self.lessons: dict[int, tuple] = {}  # text and signal of a seed

    def taught(self, seed: int, *, batch_size: int = USUAL["batch_size"], **settings):
        """A student and its history, taught by the teacher's logits from the cache."""
        if seed not in self.lessons:
            text = self.pair.text(self.prompts, seed)
            self.lessons[seed] = text, self.pair.signal(text, seed)
        text, signal = self.lessons[seed]
        track = dataclasses.replace(self.pair.track, batch_size=batch_size)
        settings = {"teacher": signal, "seed": seed, "progress": False} | settings
        chat, history, _ = distil(self.pair.student, text, track, **settings)
        return chat, history

    def run(self, seed: int, full: bool, settings: Mapping) -> list:
        """The columns `FOUND` of a plain run."""
        start = time.perf_counter()
        try:
            student = self.taught(seed, full=full, **settings)
        except FloatingPointError:
            return list(DIVERGED)
        return [*self.outcome(*student, start), []]

    def search(self, seed: int, way: str) -> list:
        """The columns `SETTINGS` and `FOUND` of the best trial of a search.

        It chooses on the first 200 prompts of validation. `steps` are those of all
        trials; of each trial the settings, steps, reports and end are kept.
        """
        start, students = time.perf_counter(), {}
        few, tokenizer = self.validation[:200], self.pair.student.tokenizer

        def right(model) -> float:
            return self.pair.right(ChatModel(model, tokenizer), few)

        def objective(trial: optuna.Trial) -> float:
            watch = {"every": TRIAL // 4, "watch": reporting(trial, right)}
            chosen = suggest(trial) | watch
            chat, history = self.taught(seed, steps=TRIAL, **chosen)
            students[trial.number] = chat, history
            return history.watched[TRIAL]

        budget = {"budget": BUDGET, "steps": TRIAL, "seed": seed, "progress": False}
        study = search(objective, **budget, **searches()[way])
        best = USUAL | study.best_params | {"steps": steps_spent(study, TRIAL)}
        found = self.outcome(*students[study.best_trial.number], start)
        trials = [
            {
                **trial.params,
                "steps": search_cost(trial, TRIAL),
                "reports": list(trial.intermediate_values.values()),
                "end": trial.state.name.lower(),
            }
            for trial in study.trials
        ]
        return [*(best[name] for name in SETTINGS), *found, trials]

    def outcome(self, chat: ChatModel, history: History, start: float) -> list:
        """Last losses, right answers on validation and test, seconds since start."""
        found = [round(sum(history.loss[-10:]) / len(history.loss[-10:]), 4)]
        for examples in (self.validation, self.test):
            right = evaluate.compare({"student": chat}, examples)["right"]
            found += [round(float(right.mean()), 4), pack_right(right)]
        return [*found, round(time.perf_counter() - start, 1)]
