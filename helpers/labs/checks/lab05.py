"""The checks of lab 05: means, retention, calibration, latency, seeds."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from ... import evaluate
from .base import close, question, that

Named = tuple[str, float | Sequence[float]]


def _matching(found: object, mistakes: Sequence[Named]) -> dict:
    """The mistakes that give what was found; several can share a message."""
    try:
        found = np.asarray(found, dtype=float)
    except (TypeError, ValueError):
        return {}
    return {
        message: value
        for message, value in mistakes
        if np.shape(value) == found.shape
        and np.allclose(found, value, rtol=1e-3, equal_nan=True)
    }


# ---------------------------------------------------------------- Q1, two means


@question(
    "Q1 accuracy_by_task",
    "A share of right answers for each task, one over all items, and the plain mean of "
    "the tasks' shares: these two differ where tasks have unequal numbers of items.",
)
def means(accuracy_by_task: Callable) -> None:
    """Three tasks of 2, 5 and 13 items."""
    for seed in (0, 1):
        rng = np.random.default_rng(seed)
        tasks = rng.permutation(["math"] * 2 + ["qa"] * 5 + ["nli"] * 13)
        chance = pd.Series({"math": 0.5, "qa": 0.4, "nli": 0.9})[tasks]
        right = rng.random(20) < chance.to_numpy()
        groups = pd.Series(right).groupby(tasks).mean()
        found = accuracy_by_task(right, list(tasks))
        names = {*groups.index, "all", "mean of tasks"}
        that(
            isinstance(found, Mapping) and set(found) == names,
            f"a dictionary with the keys {sorted(names)} was expected",
        )
        which = "That is for task {!r}: which items are its own? `tasks` may be a list."
        for task, share in groups.items():
            count = right[tasks == task].sum()
            mistakes = {
                "this is a number of right answers, and not a share": count,
                "this divides by all items; divide by those of the task": count / 20,
                "these are percent; give shares from 0 to 1": 100 * share,
            }
            close(found[task], share, mistakes, otherwise=which.format(task))
        swapped = (
            "'all' and 'mean of tasks' are exchanged: in 'all' each item counts once, "
            "in 'mean of tasks' each task"
        )
        close(found["all"], right.mean(), {swapped: groups.mean()})
        close(
            found["mean of tasks"],
            groups.mean(),
            {
                "'mean of tasks' weighs the tasks by their items, so it is 'all' once "
                "more": right.mean(),
                "'all' was counted as one of the tasks": np.mean(
                    [*groups, right.mean()]
                ),
            },
        )


# ---------------------------------------------------------------- Q2, retention


def _pair(
    n: int, seed: int, teacher: float = 0.7, same: float = 0.95
) -> tuple[pd.Series, pd.Series]:
    """A student that is right where its teacher is, nearly always; else one in ten."""
    rng = np.random.default_rng(seed)
    ids = [f"test-{i}" for i in range(n)]
    t = rng.random(n) < teacher
    s = np.where(t, rng.random(n) < same, rng.random(n) < 0.1)
    return pd.Series(s, index=ids), pd.Series(t, index=ids)


@question(
    "Q2 retention",
    "Two means over the same items, and their ratio. Which ids did both answer?",
)
def ratio(retention: Callable[[pd.Series, pd.Series], float]) -> None:
    """The same items in two orders, and some that only one model answered."""
    for seed in (0, 1):
        s, t = _pair(40, seed, teacher=0.6, same=0.8)
        s = s.sample(frac=1, random_state=seed)
        share = s.mean() / t.mean()
        both = (s.loc[t.index] & t).sum()
        mistakes = {
            "this is a difference of two accuracies; retention is their ratio": (
                s.mean() - t.mean()
            ),
            "this is the teacher's accuracy as a share of the student's": 1 / share,
            "this is the share of items that both got right or both got wrong: that is "
            "agreement": (s.loc[t.index] == t).mean(),
            "this looks only at items that the teacher got right, as a mean of ratios "
            "item by item does. Take the ratio of two means": both / t.sum(),
            "this is the student's accuracy": s.mean(),
            "items are paired by their place, and they stand in two orders": (
                (s.to_numpy() & t.to_numpy()).sum() / t.sum()
            ),
            "these are percent; give a share": 100 * share,
        }
        close(retention(s, t), share, mistakes)

        alone = pd.Series(True, index=[f"more-{i}" for i in range(10)])
        apart = (
            "the means are over different items. Ten of these items only one model "
            "answered: leave them out"
        )
        close(
            retention(pd.concat([s, alone]), t),
            share,
            {apart: pd.concat([s, alone]).mean() / t.mean()},
        )
        close(
            retention(s, pd.concat([alone, t])),
            share,
            {apart: s.mean() / pd.concat([alone, t]).mean()},
        )
    s, t = _pair(10, 0)
    try:
        found = retention(s, t & False)
    except ValueError:
        return
    except ArithmeticError as error:
        found = type(error).__name__
    that(
        False,
        "of a teacher that is never right nothing can be retained: raise a ValueError "
        f"that says so. Yours returned {found!r}",
    )


def _width(draws: np.ndarray, low: float = 2.5) -> float:
    return float(np.diff(np.percentile(draws, [low, 100 - low]))[0])


@question(
    "Q2 retention_interval",
    "Draw items with replacement, as many as there are, and take both models' answers "
    "to them; compute retention; repeat; keep the middle 95 %.",
)
def interval(retention_interval: Callable) -> None:
    """Where models are alike, pairs make a narrow interval."""
    for seed, shuffled in ((0, False), (1, True)):
        s, t = _pair(300, seed)
        true = evaluate.retention(s, t, resamples=20_000)
        width, centre = true.high - true.low, (true.low + true.high) / 2
        rng = np.random.default_rng(seed)
        rows = rng.integers(0, 300, (2, 5000, 300))
        apart = [x.to_numpy()[r].mean(-1) for x, r in zip((s, t), rows, strict=True)]
        together = s.to_numpy()[rows[0]].mean(-1) / t.to_numpy()[rows[0]].mean(-1)
        if shuffled:
            s = s.sample(frac=1, random_state=0)
        found = retention_interval(s, t, resamples=4000, seed=seed)
        that(np.shape(found) == (2,), "two numbers were expected: low, high")
        low, high = map(float, found)
        that(low <= high, "low is larger than high")
        unpaired = (
            "items are paired by their place, and the Series stand in other orders. "
            "Pair them by id before you resample"
            if shuffled
            else "the two models are resampled apart. Both answered the same items: "
            "draw items, and take both answers, or the interval is too wide"
        )
        close(
            high - low,
            width,
            {
                unpaired: _width(apart[0] / apart[1]),
                "this is the middle 90 %; for 95 % cut 2.5 % at either end": _width(
                    together, 5
                ),
                "this is the middle 50 %": _width(together, 25),
                "the interval has no width. Drawn without replacement, all items are "
                "the same items in another order": 0.0,
                "this has about the width of one standard error to either side": (
                    2 * together.std()
                ),
                "only the student is resampled; the teacher's mean moves with the same "
                "items": _width(apart[0]) / t.mean(),
                "the width is that of a difference of accuracies": _width(
                    (s.loc[t.index].to_numpy()[rows[0]] * 1.0 - t.to_numpy()[rows[0]])
                    .mean(-1)
                ),
            },
            rtol=0.1,
            otherwise="That is high - low; draw as many items as there are, each time.",
        )  # fmt: skip
        close(
            (low + high) / 2,
            centre,
            rtol=0,
            atol=0.1 * width,
            otherwise="That is the middle of the interval; it lies near the retention "
            "of all items.",
        )
    draws = [tuple(retention_interval(s, t, resamples=200, seed=n)) for n in (3, 3, 4)]
    that(draws[0] == draws[1], "the same seed gives two intervals: where is it used?")
    that(
        draws[0] != draws[2],
        "another seed gives the very same interval: is `seed` used at all?",
    )


# ---------------------------------------------------------------- Q3, calibration


def _confident(seed: int, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Sure and often wrong above a half, unsure and often right below."""
    rng = np.random.default_rng(seed)
    confidence = rng.beta(2, 1, n)
    confidence[: n // 10] = 1.0
    confidence[n // 10 : n // 8] = 0.0
    chance = 0.65 * confidence + 0.25 * (confidence < 0.5) + 0.05
    order = rng.permutation(n)
    return confidence[order], (rng.random(n) < chance)[order]


@question(
    "Q3 ece",
    "In each bin: the mean confidence, the share of right answers, their distance. "
    "Then the mean of the distances, each bin weighted by its items.",
)
def calibration(ece: Callable) -> None:
    """Bins of unequal fill, confidences of exactly 0 and 1."""
    for seed, bins in ((0, 15), (1, 15), (2, 5), (3, 60)):
        confidence, right = _confident(seed)
        table = evaluate.reliability(confidence, right, bins)
        weight = table["count"] / len(right)
        gap = (table["confidence"] - table["accuracy"]).fillna(0)
        size, some = gap.abs(), table["count"] > 0

        def without(lost: np.ndarray, given=(confidence, right, bins)) -> list[float]:
            c, r, bins = given
            left = evaluate.ece(c[~lost], r[~lost], bins)
            return [left, left * (~lost).mean()]

        edges = np.quantile(confidence, np.linspace(0, 1, bins + 1)[1:-1])
        place = np.searchsorted(edges, confidence)
        masses = sum(
            abs((confidence - right)[place == b].sum()) for b in range(bins)
        ) / len(right)
        signed = (weight * gap).sum()
        plain = (
            "the bins count alike; weigh each by its items, or a bin with one item "
            "counts as much as one with a hundred"
        )
        sign = (
            "gaps of opposite sign cancel each other: take the absolute value in each "
            "bin, before the mean"
        )
        one = "items with a confidence of exactly 1 are in no bin: the last one holds 1"
        zero = (
            "items with a confidence of exactly 0 are in no bin: the first one holds 0"
        )
        mistakes = [
            (plain, size[some].mean()),
            (plain, size.mean()),
            *((one, value) for value in without(confidence == 1)),
            *((zero, value) for value in without(confidence == 0)),
            *((sign, value) for value in (signed, -signed)),
            ("a bin without items has no mean: leave it out", np.nan),
            ("this is the largest gap (MCE), not the mean", size.max()),
            ("this is the sum of the gaps; it has no weights yet", size.sum()),
            ("bins of equal *width* were asked for; these have equal counts", masses),
            (
                "this is a mean over single items: bin them first. One answer is right "
                "or wrong, and never 80 % right",
                np.abs(confidence - right).mean(),
            ),
            *(
                ("the number of bins is not `bins`", evaluate.ece(confidence, right, n))
                for n in (10, 15, 20)
                if n != bins
            ),
        ]
        found = ece(confidence, right, bins)
        close(
            found,
            (weight * size).sum(),
            _matching(found, mistakes),
            otherwise="Weigh |accuracy - confidence| of each bin by its items.",
        )
    close(
        ece(np.array([0.9, 0.9]), np.array([True, True])),
        0.1,
        otherwise="Two right answers at 0.9, with bins by default.",
    )


# ---------------------------------------------------------------- Q4, latency

LAUNCH = 0.001  # seconds until a call returns; its work may still be waiting


class Machine:
    """A scripted machine: a clock, models with known speed, and work that is queued.

    Calling a model takes `LAUNCH` and queues its work; only `synchronise` waits for it.
    The first call of a model queues `first` seconds more. With `drift` all work gets
    slower as time goes by, as on a laptop that gets hot.
    """

    def __init__(self, seconds: Mapping[str, float], first=5.0, drift=0.0):
        self.seconds, self.first, self.drift = dict(seconds), first, drift
        self.now, self.queued, self.reads = 0.0, 0.0, 0
        self.calls = {name: [] for name in seconds}
        self.models = {name: self._model(name) for name in seconds}

    def clock(self) -> float:
        self.reads += 1
        return self.now

    def synchronise(self) -> None:
        self.now, self.queued = self.now + self.queued, 0.0

    def work(self, name: str, prompt: str) -> float:
        return self.seconds[name] * len(prompt)

    def _model(self, name: str) -> Callable[[str], str]:
        def answer(prompt: str) -> str:
            work = self.work(name, prompt) * (1 + self.drift * self.now)
            self.queued += work + (0 if self.calls[name] else self.first)
            self.now += LAUNCH
            self.calls[name].append(prompt)
            return f"{name} answers"

        return answer


_PROMPTS = ["x" * n for n in (9, 4, 7, 5, 8, 3, 6, 10)]


def _measured(measure: Callable, machine: Machine, prompts=_PROMPTS) -> dict:
    found = measure(machine.models, list(prompts), machine.clock, machine.synchronise)
    that(
        isinstance(found, Mapping) and set(found) == set(machine.models),
        f"a dictionary with the keys {sorted(machine.models)} was expected",
    )
    that(machine.reads, "the time was not read from `clock`")
    return {
        name: np.asarray(values, dtype=float).ravel() for name, values in found.items()
    }


@question(
    "Q4 measure",
    "What must be waited for before you read the clock, both times? What comes before "
    "the first prompt that counts? And which loop is inside which?",
)
def latency(measure: Callable) -> None:
    """A machine with slow first calls and queued work, and one that gets slower."""
    machine = Machine({"teacher": 0.04, "student": 0.01})
    found = _measured(measure, machine)
    for name, values in found.items():
        own = np.array([machine.work(name, prompt) for prompt in _PROMPTS]) + LAUNCH
        extra = values.size - own.size
        that(
            extra == 0,
            f"{values.size} numbers for {own.size} prompts of one model. "
            + ("Warm-up answers do not count." if extra > 0 else "One each, please."),
        )
        that(
            not np.allclose(values, LAUNCH, atol=1e-9),
            "only the start of the work is timed: a call returns before its work is "
            "done. Synchronise before you read the clock the second time",
        )
        if np.allclose(np.sort(values), np.sort(own)):
            that(np.allclose(values, own), "the numbers are not in the prompts' order")
            continue
        warmed = len(machine.calls[name]) > own.size
        that(
            values.max() < machine.first or warmed,
            f"the first answer of the {name} is among the numbers. First calls load, "
            "compile and fill caches: let each model answer once before you measure",
        )
        that(
            values.size == 1 or np.ptp(values) > 1e-9,
            "all numbers of a model are the same: one time for all prompts, divided. "
            "Slow answers vanish in a mean; time each prompt",
        )
        that(
            (values < own + 1e-9).all(),
            "a number holds work that was queued before it, of the warm-up or of the "
            "other model. Synchronise before you read the clock the first time, too",
        )
        that(
            False,
            f"the {name} needs {own[0]:.3f} s for the first prompt, and you found "
            f"{values[0]:.3f}. Synchronise before each reading of the clock",
        )
    seconds = machine.seconds
    for names in (list(seconds), list(seconds)[::-1]):
        hot = Machine({name: seconds[name] for name in names}, drift=0.3)
        found = _measured(measure, hot, _PROMPTS * 4)
        times = np.median(found["teacher"]) / np.median(found["student"])
        that(
            abs(times / 4 - 1) < 0.15,
            "on a machine that gets slower as it gets hot, a teacher of four times the "
            f"work seems {times:.1f} times as slow. One model had the slow moments for "
            "itself: let the models take turns, prompt by prompt",
        )


@question(
    "Q4 speed_up",
    "The same percentile of both models' seconds, the slow one's divided by the fast "
    "one's.",
)
def speed(speed_up: Callable) -> None:
    """Seconds with a long tail."""
    for seed in (0, 1):
        rng = np.random.default_rng(seed)
        slow = np.repeat(rng.gamma(9, 0.05, 21), 10)
        fast = np.repeat(rng.gamma(4, 0.02, 21), 10)
        slow, fast = (np.sort(x)[:201] for x in (slow, fast))  # the same in any method
        slow[-3:] += 4.0
        fast[-1] += 9.0
        order = rng.permutation(201)
        seconds = {"student": fast[order[::-1]], "teacher": slow[order]}
        found = speed_up(seconds, "teacher", "student")
        that(
            isinstance(found, Mapping) and set(found) == {"p50", "p95"},
            "a dictionary with the keys 'p50' and 'p95' was expected",
        )
        a, b = seconds["teacher"], seconds["student"]
        for name, q in (("p50", 50), ("p95", 95)):
            p, of_student = np.percentile(a, q), np.percentile(b, q)
            close(
                found[name],
                p / of_student,
                {
                    "this is the ratio of the means: a few slow moments decide it. "
                    "Take the percentiles": a.mean() / b.mean(),
                    "this says how many times slower the student is: the ratio is "
                    "upside down": of_student / p,
                    "this is a difference in seconds; another machine has other "
                    "seconds, and hardly another ratio": p - of_student,
                    "this is the percentile of ratios prompt by prompt; the ratio of "
                    "the two percentiles was asked for": np.percentile(a / b, q),
                    "this is the ratio of the maxima: a slow moment": a.max() / b.max(),
                    "this is the other percentile": (
                        np.percentile(a, 145 - q) / np.percentile(b, 145 - q)
                    ),
                },
                otherwise=f"For {name}.",
            )  # fmt: skip


# ---------------------------------------------------------------- Q5, seeds


@question(
    "Q5 gap_interval",
    "The differences seed by seed, their mean, and so many standard errors to either "
    "side as Student's t says for this number of seeds.",
)
def seeds(gap_interval: Callable) -> None:
    """Three and five seeds; the seeds move both recipes in the same way."""
    for n, t, smaller, of_both, one_sided in (  # quantiles of Student's t
        (3, 4.3027, 3.1824, 2.7764, 2.9200),
        (5, 2.7764, 2.5706, 2.3060, 2.1318),
    ):
        rng = np.random.default_rng(n)
        luck = rng.normal(0, 0.03, n)
        first = 0.90 + luck + rng.normal(0, 0.01, n)
        second = 0.88 + luck + rng.normal(0, 0.01, n)
        gap = first - second
        mean, error = gap.mean(), gap.std(ddof=1) / n**0.5
        apart = ((first.var(ddof=1) + second.var(ddof=1)) / n) ** 0.5

        def around(half: float, middle: float = mean) -> list[float]:
            return [middle - half, middle + half]

        unpaired = (
            "the recipes are treated as if they had other seeds. Take the difference "
            "seed by seed: what a seed does to both drops out"
        )
        mistakes = [
            (
                "1.96 standard errors are for many seeds. With few, their spread is "
                f"known badly: for {n} seeds Student's t asks for more",
                around(1.96 * error),
            ),
            (
                "the standard deviation divides by n: with n - 1 (ddof=1) the spread "
                "of so few seeds is not underrated",
                around(t * gap.std() / n**0.5),
            ),
            (
                "this is the spread of single seeds. The *mean* of n seeds has a "
                "standard error of s / sqrt(n)",
                around(t * gap.std(ddof=1)),
            ),
            *((unpaired, around(q * apart)) for q in (t, of_both, 1.96)),
            ("this is second - first", around(t * error, -mean)),
            ("this t leaves 5 % at either end, not 2.5 %", around(one_sided * error)),
            (f"{n} seeds leave {n - 1} degrees of freedom", around(smaller * error)),
            ("this is the range of the differences", [gap.min(), gap.max()]),
        ]  # fmt: skip
        found = gap_interval(list(first), list(second))
        that(np.shape(found) == (2,), "two numbers were expected: low, high")
        close(found, around(t * error), _matching(found, mistakes), rtol=2e-3)
