"""How sure: intervals over items, over items and seeds, and a test of two students."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

_AT_ONCE = 2**16  # resampled values drawn in one go; these fit into a cache


@dataclass(frozen=True)
class Interval:
    """An estimate and the 95 % interval around it."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}]"


def bootstrap(
    statistic: Callable[..., float],
    *samples: Sequence[float],
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """The value of `statistic(*samples)` with a percentile interval (Efron 1979).

    Samples of equal length are resampled together, item by item, so that what two
    models said to the same prompt stays paired. A statistic that takes `axis`, as
    NumPy's do, gets many resamples in one call, (resamples, n), and is fast; any other
    gets them one by one. Where all items agree there is nothing to resample: the
    interval has no width, however few they are (`accuracy` mends that).

    Raises `ValueError` when the lengths differ or are zero, or a value is NaN.
    """
    arrays = _checked(samples)
    draws = _draws(statistic, arrays, resamples, np.random.default_rng(seed))
    return _percentiles(statistic(*arrays), draws)


def over_seeds(
    statistic: Callable[..., float],
    students: Sequence[Sequence[float]],
    *samples: Sequence[float],
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """`statistic(student, *samples)` for students of several seeds, (seeds, items).

    The interval says what *another seed on other items* would give. Every draw adds two
    parts. Items: a bootstrap of the students' mean, paired with the other samples.
    Seeds: the standard error of the students' values, times a draw of Student's t
    (1908) with one degree of freedom less than seeds. Resampling three seeds, as a
    plain hierarchical bootstrap does, would be far too sure: it shrinks their variance
    by a third, and 1 draw in 9 holds one seed only. Ours errs on the wide side where
    seeds hardly differ, for the noise of single answers is then in both parts.

    `statistic` must be linear in the student, as means, differences and retention are.
    Raises `ValueError` for fewer than two students or unequal numbers of items.
    """
    try:
        students = np.asarray(students, dtype=float)
    except ValueError:  # rows of several lengths
        students = np.empty(0)
    if students.ndim != 2 or len(students) < 2:
        raise ValueError(
            "several students are a table (seeds, items): at least two rows of one "
            "length; for one student use bootstrap"
        )
    mean, *others = _checked([students.mean(0), *samples])
    values = [statistic(student, *others) for student in students]
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    rng = np.random.default_rng(seed)
    draws = _draws(statistic, [mean, *others], resamples, rng)
    draws += error * rng.standard_t(len(values) - 1, resamples)
    return _percentiles(statistic(mean, *others), draws)


def accuracy(
    right: Sequence[bool] | Sequence[Sequence[bool]], **settings: int
) -> Interval:
    """Share of right answers of one student, or of several seeds: (seeds, items).

    Where all answers are right, or all wrong, a bootstrap sees no doubt at all; the
    interval is then Wilson's (1927): 60 right of 60 give 94 % to 100 %.
    `settings`: resamples and seed of the bootstrap.
    """
    ways = over_seeds if np.ndim(right) == 2 else bootstrap
    found = ways(np.mean, right, **settings)
    if found.value in (0, 1):
        n, z2 = np.shape(right)[-1], stats.norm.ppf(0.975) ** 2
        reach = z2 / (n + z2)
        return Interval(found.value, *((1 - reach, 1) if found.value else (0, reach)))
    return Interval(found.value, max(0.0, found.low), min(1.0, found.high))


def retention(
    student_right: Sequence[bool] | Sequence[Sequence[bool]],
    teacher_right: Sequence[bool],
    **settings: int,
) -> Interval:
    """The student's accuracy as a share of the teacher's, on the same items.

    The ratio of two means over one set of items, not a mean of ratios; the bootstrap is
    paired. Students of several seeds, (seeds, items), give the interval of
    `over_seeds`. `settings`: resamples and seed of the bootstrap. Raises `ValueError`
    when the teacher was never right.
    """
    if not np.any(teacher_right):
        raise ValueError("the teacher has no right answer, so nothing can be retained")
    ways = over_seeds if np.ndim(student_right) == 2 else bootstrap
    found = ways(ratio_of_means, student_right, teacher_right, **settings)
    return Interval(found.value, max(0.0, found.low), found.high)


def ratio_of_means(
    above: ArrayLike, below: ArrayLike, axis: int = -1
) -> float | np.ndarray:
    """mean(above) / mean(below); a resample without any `below` counts it once."""
    below = np.asarray(below, dtype=float)
    least = 1 / below.shape[axis]
    return np.mean(above, axis) / np.maximum(below.mean(axis), least)


class McNemar(NamedTuple):
    """Items that only one of two students got right, and the two-sided p-value."""

    only_first: int
    only_second: int
    p: float


def mcnemar(first_right: Sequence[bool], second_right: Sequence[bool]) -> McNemar:
    """Do two students differ on the same items? McNemar's test (1947), exact form.

    Items that both got right, or both wrong, say nothing about the difference. If the
    students were equally good, each of the others would be a toss of a coin: p is the
    chance of a split at least as uneven. It says nothing of other seeds.

    Raises `ValueError` for unequal lengths, no items, or values other than 0 and 1.
    """
    first, second = _checked([first_right, second_right])
    if not np.isin([first, second], (0, 1)).all():
        raise ValueError("McNemar's test compares answers that are right or wrong")
    only_first, only_second = int((first > second).sum()), int((first < second).sum())
    differing = only_first + only_second
    p = stats.binomtest(only_first, differing).pvalue if differing else 1.0
    return McNemar(only_first, only_second, float(p))


def _checked(samples: Sequence[Sequence[float]]) -> list[np.ndarray]:
    arrays = [np.asarray(sample, dtype=float) for sample in samples]
    if len({array.shape for array in arrays}) > 1 or arrays[0].ndim != 1:
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise ValueError(
            f"paired samples need one length; these have the shapes {shapes}"
        )
    if len(arrays[0]) == 0:
        raise ValueError("samples need at least one item: were all filtered out?")
    if any(np.isnan(array).any() for array in arrays):
        raise ValueError("a sample holds NaN: an item without a value; drop it first")
    return arrays


def _draws(statistic, arrays, resamples: int, rng) -> np.ndarray:
    """The statistic of every resample, in the order of the generator."""
    n = len(arrays[0])
    # How many resamples are drawn in one go does not change which ones they are.
    step = max(1, _AT_ONCE // n)
    many, draws = _takes_axis(statistic), []
    for start in range(0, resamples, step):
        rows = rng.integers(0, n, (min(step, resamples - start), n))
        if many:
            draws.append(statistic(*(array[rows] for array in arrays), axis=-1))
        else:
            each = (statistic(*(array[row] for array in arrays)) for row in rows)
            draws.append(np.fromiter(each, dtype=float, count=len(rows)))
    return np.concatenate(draws)


def _takes_axis(statistic) -> bool:
    try:
        return "axis" in inspect.signature(statistic).parameters
    except (TypeError, ValueError):  # some built-in functions have no signature
        return False


def _percentiles(value, draws: np.ndarray) -> Interval:
    low, high = np.percentile(draws, [2.5, 97.5])
    return Interval(float(value), float(low), float(high))
