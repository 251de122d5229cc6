"""Automatic search for settings: optuna under a fixed budget of training steps.

The objective trains with `fit(..., every=N, watch=reporting(trial, measure))`. What it
reports lets a pruner stop trials that do badly, and says what each trial has cost.
"""

from collections.abc import Callable

import numpy as np
import optuna
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from .loop import Watch

# What a trial is worth: it is over, and nothing of it was lost.
DONE = (TrialState.COMPLETE, TrialState.PRUNED)


def reporting(
    trial: optuna.Trial, measure: Callable[[PreTrainedModel], float]
) -> Watch:
    """A watch for `train.fit`: reports `measure(student)`, and lets the pruner stop."""

    def watch(step: int, student: PreTrainedModel) -> float:
        value = measure(student)
        trial.report(value, step)
        if trial.should_prune():
            raise optuna.TrialPruned
        return value

    return watch


def search(
    objective: Callable[[optuna.Trial], float],
    *,
    budget: int,
    steps: int,
    seed: int = 0,
    sampler: Callable[..., BaseSampler] = TPESampler,
    pruner: optuna.pruners.BasePruner | None = None,
    storage: str | optuna.storages.BaseStorage | None = None,
    progress: bool = True,
) -> optuna.Study:
    """Maximise `objective` until another trial of `steps` could exceed the `budget`.

    - budget: training steps of all trials together. A pruned trial costs the steps up
      to its last report, so pruning leaves more trials to the same budget.
    - sampler: called with `seed=` before every trial; `optuna.samplers.RandomSampler`,
      a `partial` of `TPESampler` (Bergstra et al. 2011) with settings, ...
    - pruner: by default none, every trial runs to its end.
    - storage: an address such as `sqlite:///search.db`, where a killed search goes on;
      by default it is kept in memory only.

    A trial whose loss stops being finite (`FloatingPointError`) counts as pruned. The
    seed of a trial depends on `seed` and on how many are done before it, so a search
    that was killed and goes on proposes what it would have proposed. Raises
    `ValueError` where the budget is too small for one trial.
    """
    if not 0 < steps <= budget:
        raise ValueError(
            f"a budget of {budget} steps is too small for one trial of {steps} steps"
        )
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # the bar says enough
    study = optuna.create_study(
        study_name="search",
        direction="maximize",
        pruner=pruner or optuna.pruners.NopPruner(),
        storage=storage,
        load_if_exists=True,
    )
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        study.tell(trial.number, state=TrialState.FAIL)  # it was killed
    with tqdm(total=budget, desc="search, steps", disable=not progress) as bar:
        while (spent := steps_spent(study, steps)) + steps <= budget:
            bar.update(spent - bar.n)
            done = len(study.get_trials(states=DONE))
            # A sampler's random state is not stored: each trial gets its own.
            stream = np.random.SeedSequence([seed, done])
            study.sampler = sampler(seed=int(stream.generate_state(1)[0]))
            study.optimize(_finite(objective), n_trials=1)
        bar.update(spent - bar.n)
    return study


def steps_spent(study: optuna.Study, steps: int) -> int:
    """Training steps of a study whose whole trials take `steps`."""
    return sum(search_cost(trial, steps) for trial in study.get_trials(states=DONE))


def search_cost(trial: FrozenTrial, steps: int) -> int:
    """Steps up to the trial's last report; `steps` where it never reported."""
    return trial.last_step or steps


def _finite(objective: Callable) -> Callable:
    """The objective, with a training that diverged as a pruned trial."""

    def run(trial: optuna.Trial) -> float:
        try:
            return objective(trial)
        except FloatingPointError as error:
            raise optuna.TrialPruned(str(error)) from error

    return run


def pack_right(right: np.ndarray) -> str:
    """Right (1) or wrong (0) for each item, as hexadecimal text; see `unpack_right`."""
    return np.packbits(np.asarray(right, dtype=bool)).tobytes().hex()


def unpack_right(text: str, items: int) -> np.ndarray:
    """The array (items,) of bools that `pack_right` was given."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))
    return bits[:items].astype(bool)
