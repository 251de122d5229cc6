"""Answers to lab 05, wrong and right."""

from . import Right, Wrong

MEANS = """
def accuracy_by_task(right, tasks):
    right, tasks = np.asarray(right, float), np.asarray(tasks)
    shares = {task: right[tasks == task].mean() for task in np.unique(tasks)}
"""
RATIO = """
def retention(student, teacher):
    if not teacher.any():
        raise ValueError("the teacher is never right")
    ids = student.index.intersection(teacher.index)
    s, t = student.loc[ids], teacher.loc[ids]
"""
INTERVAL = """
def retention_interval(student, teacher, resamples, seed):
    ids = student.index.intersection(teacher.index)
    s, t = (x.loc[ids].to_numpy(float) for x in (student, teacher))
    n, rng = len(ids), np.random.default_rng(seed)
    draw = lambda: rng.integers(0, n, (resamples, n))
"""
ECE = """
def ece(confidence, right, bins=15):
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    boxes = [place == b for b in np.unique(place)]
    gaps = [confidence[b].mean() - right[b].mean() for b in boxes]
    share = [b.mean() for b in boxes]
"""
GAP = """
def gap_interval(first, second):
    gap, n = np.subtract(first, second), len(first)
    def around(half, middle=gap.mean()):
        return middle - half, middle + half
    t, s = stats.t.ppf(0.975, n - 1), gap.std(ddof=1)
"""


def bootstrap(values: str, low: float = 2.5) -> str:
    """An interval's last lines: the values, and what is cut at either end."""
    return f"    return tuple(np.percentile({values}, [{low}, {100 - low}]))"


def stopwatch(*lines: str, warm_up: str = "answer(prompts[0])") -> str:
    """A `measure` whose inner loop holds these lines."""
    return "\n".join(
        [
            "def measure(models, prompts, clock, synchronise):",
            "    seconds = {name: [] for name in models}",
            "    for answer in models.values():",
            f"        {warm_up}",
            "    for prompt in prompts:",
            "        for name, answer in models.items():",
            *(f"            {line}" for line in lines),
            "    return seconds",
        ]
    )


START, ASK, STOP = "start = clock()", "answer(prompt)", "synchronise()"
NOTE = "seconds[name].append(clock() - start)"

IN_TURN = """
def measure(models, prompts, clock, synchronise):
    seconds = {}
    for name, answer in models.items():
        answer(prompts[0])
        seconds[name] = []
        for prompt in prompts:
            synchronise()
            start = clock()
            answer(prompt)
            synchronise()
            seconds[name].append(clock() - start)
    return seconds
"""

WRONG = [
    # ------------------------------------------------------------ Q1
    Wrong(
        "one mean twice",
        "q1_accuracy",
        MEANS + "    return shares | {'all': right.mean(), 'mean of tasks':"
        " right.mean()}",
        "q1_accuracy_test",
        "weighs the tasks by their items",
    ),
    Wrong(
        "means exchanged",
        "q1_accuracy",
        MEANS + "    return shares | {'all': np.mean(list(shares.values())),"
        " 'mean of tasks': right.mean()}",
        "q1_accuracy_test",
        "are exchanged",
    ),
    Wrong(
        "divided by all items",
        "q1_accuracy",
        MEANS
        + "    shares = {t: right[tasks == t].sum() / len(right) for t in shares}\n"
        "    return shares | {'all': right.mean(), 'mean of tasks':"
        " np.mean(list(shares.values()))}",
        "q1_accuracy_test",
        "divide by those of the task",
    ),
    Wrong(
        "all is a task",
        "q1_accuracy",
        MEANS + "    shares['all'] = right.mean()\n"
        "    return shares | {'mean of tasks': np.mean(list(shares.values()))}",
        "q1_accuracy_test",
        "counted as one of the tasks",
    ),
    # ------------------------------------------------------------ Q2
    Wrong(
        "difference",
        "q2_retention",
        RATIO + "    return s.mean() - t.mean()",
        "q2_retention_test",
        "this is a difference",
    ),
    Wrong(
        "mean of ratios",
        "q2_retention",
        RATIO + "    return (1.0 * s[t] / t[t]).mean()",
        "q2_retention_test",
        "Take the ratio of two means",
    ),
    Wrong(
        "means of different items",
        "q2_retention",
        RATIO + "    return student.mean() / teacher.mean()",
        "q2_retention_test",
        "over different items",
    ),
    Wrong(
        "upside down",
        "q2_retention",
        RATIO + "    return t.mean() / s.mean()",
        "q2_retention_test",
        "as a share of the student's",
    ),
    Wrong(
        "agreement",
        "q2_retention",
        RATIO + "    return (s == t).mean()",
        "q2_retention_test",
        "that is agreement",
    ),
    Wrong(
        "a teacher that is never right",
        "q2_retention",
        "def retention(student, teacher):\n"
        "    ids = student.index.intersection(teacher.index)\n"
        "    return student[ids].mean() / teacher[ids].mean()",
        "q2_retention_test",
        "raise a ValueError",
    ),
    Wrong(
        "models resampled apart",
        "q2_interval",
        INTERVAL + bootstrap("s[draw()].mean(1) / t[draw()].mean(1)"),
        "q2_interval_test",
        "the two models are resampled apart",
    ),
    Wrong(
        "items paired by place",
        "q2_interval",
        INTERVAL + "    s, t = student.to_numpy(float), teacher.to_numpy(float)\n"
        "    rows = draw()\n" + bootstrap("s[rows].mean(1) / t[rows].mean(1)"),
        "q2_interval_test",
        "Pair them by id",
    ),
    Wrong(
        "without replacement",
        "q2_interval",
        INTERVAL
        + "    rows = np.array([rng.permutation(n) for _ in range(resamples)])\n"
        + bootstrap("s[rows].mean(1) / t[rows].mean(1)"),
        "q2_interval_test",
        "without replacement",
    ),
    Wrong(
        "5 to 95",
        "q2_interval",
        INTERVAL
        + "    rows = draw()\n"
        + bootstrap("s[rows].mean(1) / t[rows].mean(1)", 5),
        "q2_interval_test",
        "the middle 90 %",
    ),
    Wrong(
        "one standard error",
        "q2_interval",
        INTERVAL + "    rows = draw()\n"
        "    error = (s[rows].mean(1) / t[rows].mean(1)).std()\n"
        "    return s.mean() / t.mean() - error, s.mean() / t.mean() + error",
        "q2_interval_test",
        "one standard error",
    ),
    Wrong(
        "only the student is resampled",
        "q2_interval",
        INTERVAL + bootstrap("s[draw()].mean(1) / t.mean()"),
        "q2_interval_test",
        "only the student is resampled",
    ),
    Wrong(
        "seed ignored",
        "q2_interval",
        INTERVAL
        + "    rng = np.random.default_rng(0)\n    rows = draw()\n"
        + bootstrap("s[rows].mean(1) / t[rows].mean(1)"),
        "q2_interval_test",
        "another seed gives the very same interval",
    ),
    Wrong(
        "no seed",
        "q2_interval",
        INTERVAL
        + "    rng = np.random.default_rng()\n    rows = draw()\n"
        + bootstrap("s[rows].mean(1) / t[rows].mean(1)"),
        "q2_interval_test",
        "the same seed gives two intervals",
    ),
    # ------------------------------------------------------------ Q3
    Wrong(
        "unweighted bins",
        "q3_ece",
        ECE + "    return np.mean(np.abs(gaps))",
        "q3_ece_test",
        "the bins count alike",
    ),
    Wrong(
        "absolute value forgotten",
        "q3_ece",
        ECE + "    return np.dot(gaps, share)",
        "q3_ece_test",
        "gaps of opposite sign cancel",
    ),
    Wrong(
        "confidence 1 is lost",
        "q3_ece",
        "def ece(confidence, right, bins=15):\n"
        "    total, edges = 0, np.linspace(0, 1, bins + 1)\n"
        "    for low, high in zip(edges, edges[1:]):\n"
        "        b = (confidence >= low) & (confidence < high)\n"
        "        if b.any():\n"
        "            total += b.mean() * abs(confidence[b].mean() - right[b].mean())\n"
        "    return total",
        "q3_ece_test",
        "confidence of exactly 1",
    ),
    Wrong(
        "confidence 0 is lost",
        "q3_ece",
        "def ece(confidence, right, bins=15):\n"
        "    total, edges = 0, np.linspace(0, 1, bins + 1)\n"
        "    for low, high in zip(edges, edges[1:]):\n"
        "        b = (confidence > low) & (confidence <= high)\n"
        "        if b.any():\n"
        "            total += b.mean() * abs(confidence[b].mean() - right[b].mean())\n"
        "    return total",
        "q3_ece_test",
        "confidence of exactly 0",
    ),
    Wrong(
        "the largest gap",
        "q3_ece",
        ECE + "    return np.max(np.abs(gaps))",
        "q3_ece_test",
        "this is the largest gap",
    ),
    Wrong(
        "bins of equal count",
        "q3_ece",
        "def ece(confidence, right, bins=15):\n"
        "    edges = np.quantile(confidence, np.linspace(0, 1, bins + 1)[1:-1])\n"
        "    gap = pd.Series(confidence - right)\n"
        "    place = np.searchsorted(edges, confidence)\n"
        "    return gap.groupby(place).sum().abs().sum() / len(gap)",
        "q3_ece_test",
        "bins of equal *width*",
    ),
    Wrong(
        "no bins at all",
        "q3_ece",
        ECE + "    return np.abs(confidence - right).mean()",
        "q3_ece_test",
        "a mean over single items",
    ),
    Wrong(
        "always 15 bins",
        "q3_ece",
        "def ece(confidence, right, bins=15):\n"
        "    return evaluate.ece(confidence, right, 15)",
        "q3_ece_test",
        "the number of bins is not `bins`",
    ),
    Wrong(
        "empty bins",
        "q3_ece",
        "def ece(confidence, right, bins=15):\n"
        "    place = np.minimum((confidence * bins).astype(int), bins - 1)\n"
        "    sums = [np.bincount(place, w, bins) for w in (confidence, right)]\n"
        "    count = np.bincount(place, minlength=bins + 1)[:bins] * 1.0\n"
        "    with np.errstate(invalid='ignore'):\n"
        "        gaps = np.abs(sums[0] / count - sums[1] / count)\n"
        "    return np.sum(gaps * count / count.sum())",
        "q3_ece_test",
        "a bin without items has no mean",
    ),
    # ------------------------------------------------------------ Q4
    Wrong(
        "no warm-up",
        "q4_measure",
        stopwatch(STOP, START, ASK, STOP, NOTE, warm_up="pass"),
        "q4_measure_test",
        "First calls load, compile",
    ),
    Wrong(
        "never synchronised",
        "q4_measure",
        stopwatch(START, ASK, NOTE),
        "q4_measure_test",
        "only the start of the work is timed",
    ),
    Wrong(
        "synchronised before, not after",
        "q4_measure",
        stopwatch(STOP, START, ASK, NOTE),
        "q4_measure_test",
        "only the start of the work is timed",
    ),
    Wrong(
        "synchronised after, not before",
        "q4_measure",
        stopwatch(START, ASK, STOP, NOTE),
        "q4_measure_test",
        "work that was queued before it",
    ),
    Wrong(
        "one model after the other",
        "q4_measure",
        IN_TURN,
        "q4_measure_test",
        "let the models take turns",
    ),
    Wrong(
        "one total, divided",
        "q4_measure",
        "def measure(models, prompts, clock, synchronise):\n"
        "    seconds = {}\n"
        "    for name, answer in models.items():\n"
        "        answer(prompts[0])\n"
        "        synchronise()\n"
        "        start = clock()\n"
        "        for prompt in prompts:\n"
        "            answer(prompt)\n"
        "        synchronise()\n"
        "        seconds[name] = [(clock() - start) / len(prompts)] * len(prompts)\n"
        "    return seconds",
        "q4_measure_test",
        "all numbers of a model are the same",
    ),
    Wrong(
        "warm-up counted",
        "q4_measure",
        stopwatch(STOP, START, ASK, STOP, NOTE).replace(
            "for prompt in prompts", "for prompt in [prompts[0], *prompts]"
        ),
        "q4_measure_test",
        "Warm-up answers do not count",
    ),
    Wrong(
        "another clock",
        "q4_measure",
        stopwatch(STOP, START, ASK, STOP, NOTE).replace(
            "clock()", "time.perf_counter()"
        ),
        "q4_measure_test",
        "was not read from `clock`",
    ),
    Wrong(
        "the mean",
        "q4_speed_up",
        "def speed_up(seconds, slow, fast):\n"
        "    both = np.mean(seconds[slow]) / np.mean(seconds[fast])\n"
        "    return {'p50': both, 'p95': both}",
        "q4_speed_up_test",
        "the ratio of the means",
    ),
    Wrong(
        "fast over slow",
        "q4_speed_up",
        "def speed_up(seconds, slow, fast):\n"
        "    return {f'p{q}': np.percentile(seconds[fast], q)"
        " / np.percentile(seconds[slow], q) for q in (50, 95)}",
        "q4_speed_up_test",
        "upside down",
    ),
    # ------------------------------------------------------------ Q5
    Wrong(
        "1.96 for three seeds",
        "q5_gap",
        GAP + "    return around(1.96 * s / n**0.5)",
        "q5_gap_test",
        "1.96 standard errors are for many seeds",
    ),
    Wrong(
        "divided by n",
        "q5_gap",
        GAP + "    return around(t * gap.std() / n**0.5)",
        "q5_gap_test",
        "ddof=1",
    ),
    Wrong(
        "spread of single seeds",
        "q5_gap",
        GAP + "    return around(t * s)",
        "q5_gap_test",
        "the spread of single seeds",
    ),
    Wrong(
        "seeds not paired",
        "q5_gap",
        GAP + "    found = stats.ttest_ind(first, second).confidence_interval()\n"
        "    return found.low, found.high",
        "q5_gap_test",
        "difference seed by seed",
    ),
    Wrong(
        "one-sided",
        "q5_gap",
        GAP + "    return around(stats.t.ppf(0.95, n - 1) * s / n**0.5)",
        "q5_gap_test",
        "5 % at either end",
    ),
    Wrong(
        "second minus first",
        "q5_gap",
        GAP + "    return around(t * s / n**0.5, -gap.mean())",
        "q5_gap_test",
        "this is second - first",
    ),
]

RIGHT = [
    Right(
        "pandas groups",
        "q1_accuracy",
        "def accuracy_by_task(right, tasks):\n"
        "    shares = pd.Series(np.asarray(right, float)).groupby(list(tasks)).mean()\n"
        "    found = shares.to_dict()\n"
        "    found['mean of tasks'] = shares.mean()\n"
        "    found['all'] = sum(map(bool, right)) / len(right)\n"
        "    return found",
    ),
    Right(
        "counts of right answers",
        "q2_retention",
        "def retention(student, teacher):\n"
        "    both = pd.concat({'s': student, 't': teacher}, axis=1, join='inner')\n"
        "    count = both.astype(int).sum()\n"
        "    if count['t'] == 0:\n"
        "        raise ValueError('nothing to keep')\n"
        "    return count['s'] / count['t']",
    ),
    Right(
        "a loop of draws",
        "q2_interval",
        "def retention_interval(student, teacher, resamples, seed):\n"
        "    import random\n"
        "    draw = random.Random(seed)\n"
        "    pairs = [(student[i], teacher[i]) for i in teacher.index"
        " if i in student.index]\n"
        "    values = []\n"
        "    for _ in range(resamples):\n"
        "        drawn = draw.choices(pairs, k=len(pairs))\n"
        "        right = sum(t for _, t in drawn)\n"
        "        values.append(sum(s for s, _ in drawn) / right)\n"
        "    values.sort()\n"
        "    cut = round(0.025 * resamples)\n"
        "    return values[cut], values[-1 - cut]",
    ),
    Right(
        "the course's bootstrap",
        "q2_interval",
        INTERVAL
        + "    found = evaluate.retention(s, t, resamples=resamples, seed=seed)\n"
        "    return [found.low, found.high]",
    ),
    Right(
        "scipy's bootstrap",
        "q2_interval",
        INTERVAL + "    def ratio(a, b, axis):\n"
        "        return a.mean(axis) / b.mean(axis)\n"
        "    found = stats.bootstrap((s, t), ratio, paired=True, vectorized=True,"
        " n_resamples=resamples, method='percentile', rng=seed, batch=500)\n"
        "    return found.confidence_interval",
    ),
    Right(
        "bins that hold their upper edge",
        "q3_ece",
        "def ece(confidence, right, bins=15):\n"
        "    place = np.clip(np.ceil(confidence * bins) - 1, 0, bins - 1)\n"
        "    gap = pd.Series(confidence - right).groupby(place).sum()\n"
        "    return float(gap.abs().sum() / len(right))",
    ),
    Right(
        "digitize",
        "q3_ece",
        "def ece(confidence, right, bins=15):\n"
        "    place = np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1])\n"
        "    sums = [np.bincount(place, w, bins) for w in (confidence, right)]\n"
        "    return np.abs(sums[0] - sums[1]).sum() / len(right)",
    ),
    Right(
        "a longer warm-up, arrays, turns in another order",
        "q4_measure",
        "def measure(models, prompts, clock, synchronise):\n"
        "    seconds = {name: np.zeros(len(prompts)) for name in models}\n"
        "    def once(name, prompt):\n"
        "        synchronise()\n"
        "        start = clock()\n"
        "        models[name](prompt)\n"
        "        synchronise()\n"
        "        return clock() - start\n"
        "    for prompt in prompts[:3]:\n"
        "        for name in models:\n"
        "            once(name, prompt)\n"
        "    for i, prompt in enumerate(prompts):\n"
        "        for name in list(models)[:: 1 - 2 * (i % 2)]:\n"
        "            seconds[name][i] = once(name, prompt)\n"
        "    return seconds",
    ),
    Right(
        "statistics of the standard library",
        "q4_speed_up",
        "def speed_up(seconds, slow, fast):\n"
        "    import statistics\n"
        "    def cut(name):\n"
        "        its = statistics.quantiles(seconds[name], n=20, method='inclusive')\n"
        "        return its[9], its[18]\n"
        "    pairs = zip(cut(slow), cut(fast))\n"
        "    return dict(zip(('p50', 'p95'), (a / b for a, b in pairs)))",
    ),
    Right(
        "scipy's paired test",
        "q5_gap",
        GAP + "    return tuple(stats.ttest_rel(first, second).confidence_interval())",
    ),
    Right(
        "by hand",
        "q5_gap",
        "def gap_interval(first, second):\n"
        "    d = [a - b for a, b in zip(first, second)]\n"
        "    n, mean = len(d), sum(d) / len(d)\n"
        "    error = (sum((x - mean) ** 2 for x in d) / (n - 1) / n) ** 0.5\n"
        "    t = -stats.t(df=n - 1).ppf(0.025)\n"
        "    return np.array([mean - t * error, mean + t * error])",
    ),
]
