"""Lab 07, the challenge: its rules and meter, its score, its leaderboard."""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ... import data, evaluate, generate, models, profile, world
from ...distill.pipeline import distil
from ...models.loading import ChatModel
from ...tracks import Track
from ...train import cache
from .base import Mistake, close, question, that

LIMITS = {"parameters": 200_000, "answers": 600, "rows": 9_600, "time": 0.5}
POINTS = {60: 3, 70: 3, 78: 2, 84: 2}  # for a score of at least so much, in all 10
MEANING = {
    "parameters": "parameters of the student",
    "answers": "answers of the teacher",
    "rows": "rows read in training, steps x batch",
    "time": "seconds of an answer, as a share of the teacher's",
}
BOARD = Path("leaderboard.part")  # beside the lab; git ignores such files


class Challenge:
    """Two models, and a meter of what is asked of the teacher and read in training."""

    def __init__(self, track: Track, seed: int = 0):
        self.track, self.seed = track, seed
        self.teacher, self.base = models.load_teacher(track), models.load_student(track)
        self.spent = {"answers": 0, "rows": 0}
        self.folder = tempfile.TemporaryDirectory()
        self.answered: set[str] = set()
        self.known: dict[tuple, np.ndarray] = {}
        self.measured: list[ChatModel] = []  # kept, so that no other takes their id

    def prompts(self, count: int) -> list[world.Example]:
        """The first training examples; `world.verify` may judge answers to them."""
        return world.examples("train", count, self.seed)

    def ask(
        self, examples: Sequence[world.Example], *, samples: int = 1, **settings
    ) -> list[dict]:
        """The teacher's answers as chat rows; each counts, also those you drop.

        `settings` are those of `generate.generate_answers`.
        """
        self._spend("answers", samples * len(examples))
        path = Path(self.folder.name) / f"answers_{self.spent['answers']}.jsonl"
        prompts = [example.question() for example in examples]
        how = {"samples": samples, "progress": False, "seed": self.seed}
        rows = generate.generate_answers(self.teacher, prompts, path, **how | settings)
        self.answered |= {json.dumps(row["messages"]) for row in rows}
        return rows

    def teach(
        self,
        rows: Sequence[dict],
        *,
        steps: int,
        student: ChatModel | None = None,
        soft_weight: float = 0.5,
        **settings,
    ) -> ChatModel:
        """A copy of the student (by default the base) taught with LoRA for some steps.

        `rows` are some of those that `ask` returned; others are refused.
        With `soft_weight` above 0 also from the teacher's distribution over the rows.
        `settings` are those of `distill.distil`: rank, learning_rate, temperature, ...
        """
        batch = self.track.batch_size * settings.get("accumulation", 1)
        self._spend("rows", steps * batch)
        for number, row in enumerate(rows):
            that(
                json.dumps(row["messages"]) in self.answered,
                f"row {number} holds no answer of the teacher: train on rows that "
                "`challenge.ask` returned, as they are",
            )
        signal = None
        if soft_weight:
            encoded = data.encode_chat(rows, self.base.tokenizer)
            folder = Path(self.folder.name) / f"signal_{self.spent['rows']}"
            how = {"kind": "dense", "progress": False}
            signal = cache.write_cache(self.teacher, encoded, folder, **how)
        how = {"seed": self.seed, "progress": False} | settings
        taught, _, _ = distil(
            student or self.base,
            rows,
            self.track,
            teacher=signal,
            soft_weight=soft_weight,
            steps=steps,
            **how,
        )
        return taught

    def right(self, chat: ChatModel, examples: Sequence[world.Example]) -> np.ndarray:
        """Which of these the model answers rightly; measured once."""
        key = id(chat.model), examples[0].id, len(examples)
        if key not in self.known:
            scored = evaluate.compare({"model": chat}, examples)
            self.known[key] = scored["right"].to_numpy()
            self.measured.append(chat)
        return self.known[key]

    def _spend(self, what: str, amount: int) -> None:
        left = LIMITS[what] - self.spent[what]
        that(
            amount <= left,
            f"over the budget: {amount:,} {MEANING[what]} are wanted, and {left:,} of "
            f"{LIMITS[what]:,} are left",
        )
        self.spent[what] += amount


@dataclass(frozen=True)
class Entry:
    """What came out of a recipe: a student, or the error that ended it."""

    challenge: Challenge
    student: ChatModel | None
    error: Exception | None = None


def enter(make_student: Callable, track: Track, seed: int = 0) -> Entry:
    """Run a recipe under the meter, from the start."""
    challenge = Challenge(track, seed)
    try:
        student = make_student(challenge)
    except Exception as error:  # the check says what went wrong
        return Entry(challenge, None, error)
    scorer = Challenge(track, seed)  # of which the recipe never had hold
    scorer.spent |= challenge.spent
    if isinstance(student, ChatModel):
        for chat in (student, scorer.teacher):  # now, as several cells want it
            scorer.right(chat, world.examples("validation", 200))
    return Entry(scorer, student)


def used(entry: Entry) -> dict[str, float]:
    """What an entry used of each limit; the time is measured, models taking turns."""
    pair = {"teacher": entry.challenge.teacher, "student": entry.student}
    prompts = [e.messages for e in world.examples("validation", 8)]
    seconds = profile.latency(pair, prompts)
    share = float(np.median(seconds["student"]) / np.median(seconds["teacher"]))
    size = profile.parameters(entry.student.model)
    return {"parameters": size, **entry.challenge.spent, "time": round(share, 3)}


def _score(student_right, teacher_right, used: Mapping, limits: Mapping) -> float:
    value = 100 * evaluate.retention(student_right, teacher_right).value
    for name, limit in limits.items():
        value *= min(1, limit / max(used[name], 1e-9))
    return value


# ------------------------------------------------------------------ 1, the student

RETURN = "Return what `challenge.teach(...)` gave, a ChatModel."


@question("1 (the student)", "Write make_student: ask, filter, teach. " + RETURN)
def q1_student(entry: Entry) -> None:
    if isinstance(entry.error, Mistake):
        raise Mistake(str(entry.error))
    if entry.error is not None:
        raise entry.error
    if entry.student is None:
        raise Mistake("make_student returned nothing: is the `return` missing?")
    that(
        isinstance(entry.student, ChatModel),
        f"make_student returned a {type(entry.student).__name__}. {RETURN}",
    )
    size = profile.parameters(entry.student.model)
    that(
        size <= LIMITS["parameters"],
        f"the student has {size:,} parameters, and {LIMITS['parameters']:,} are "
        "allowed: is this the teacher, or is the adapter not merged?",
    )
    share = used(entry)["time"]
    that(
        share <= LIMITS["time"],
        f"an answer takes {share:.0%} of the teacher's time, and {LIMITS['time']:.0%} "
        "is allowed: is the student merged, and in the type that it came in?",
    )


def q1_points(entry: Entry, examples: Sequence[world.Example] | None = None) -> float:
    """The points for the score on the validation examples, or on others."""
    examples = examples or world.examples("validation", 200)
    _scores(entry, examples)
    value = _value(entry, examples)
    points = sum(more for least, more in POINTS.items() if value >= least)
    print(f"score {value:.0f} on {len(examples)} questions: {points} points")
    return points


@question("1 (its score)", "The check above says what is missing.")
def _scores(entry: Entry, examples: Sequence[world.Example]) -> None:
    that(isinstance(entry.student, ChatModel), "there is no student to score")
    value = _value(entry, examples)
    if value >= min(POINTS):
        return
    challenge = entry.challenge
    answers = [challenge.right(c, examples) for c in (entry.student, challenge.base)]
    raise Mistake(
        f"the score on {len(examples)} held-out questions is {value:.0f}, and "
        f"{min(POINTS)} are needed. "
        + (
            "It answers as the student base does: did you return the student that "
            "`teach` gave?"
            if (answers[0] == answers[1]).all()
            else "Which task does it do worst? The notebooks on data quality, "
            "training and hyperparameters say what helps."
        )
    )


def _value(entry: Entry, examples: Sequence[world.Example]) -> float:
    """The score without the time, which no two machines measure alike."""
    challenge = entry.challenge
    rights = [challenge.right(c, examples) for c in (entry.student, challenge.teacher)]
    spent = {"parameters": profile.parameters(entry.student.model), **challenge.spent}
    return _score(*rights, spent, {name: LIMITS[name] for name in spent})


# ------------------------------------------------------------------ 2, the score

WITHIN = {"parameters": 150_000, "answers": 500, "rows": 9_600, "time": 0.1}
OVER = {"parameters": 250_000, "answers": 500, "rows": 19_200, "time": 0.1}
HINT = "Retention times 100, times one factor a limit; see the formula above."


def _rights(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random(50) < 0.6, rng.random(50) < 0.9


def _ways(student: np.ndarray, teacher: np.ndarray, spent: Mapping) -> dict[str, float]:
    kept = student.mean() / teacher.mean()
    shares = {name: LIMITS[name] / spent[name] for name in LIMITS}
    capped = [min(1, share) for share in shares.values()]
    return {
        "the score is a share, not points: multiply by 100": kept * np.prod(capped),
        "this divides the teacher's accuracy by the student's: what is kept is "
        "student / teacher": 100 / kept * np.prod(capped),
        "this is the student's accuracy: retention divides it by the teacher's on the "
        "same questions": 100 * student.mean() * np.prod(capped),
        "this is the share of questions on which both agree, not a ratio of "
        "accuracies": 100 * (student == teacher).mean() * np.prod(capped),
        "this counts only questions that the teacher got right: retention is a ratio "
        "of two means over all questions": 100
        * student[teacher].mean()
        * np.prod(capped),
        "using less than a limit is rewarded: no factor may be above 1": 100
        * kept
        * np.prod(list(shares.values())),
        "the factor is upside down: over a limit it is limit / used": 100
        * kept
        * np.prod([max(1, 1 / share) for share in shares.values()]),
        "a limit that is passed makes the score 0: the rule lowers it in proportion": 0,
        "only the worst factor counts: the rule multiplies all of them": 100
        * kept
        * min(capped),
        "no factor is there: a student over a limit must lose points": 100 * kept,
    }


def _same(score: Callable, spent: Mapping) -> None:
    for seed in (1, 2):
        student, teacher = _rights(seed)
        right = _score(student, teacher, spent, LIMITS)
        yours = score(student, teacher, dict(spent), dict(LIMITS))
        close(yours, right, _ways(student, teacher, spent), otherwise=HINT)


@question("2 (within the limits)", HINT)
def q2_within(score: Callable) -> None:
    _same(score, WITHIN)
    nothing = {**WITHIN, "answers": 0}
    student, teacher = _rights(3)
    yours = score(student, teacher, nothing, dict(LIMITS))
    right = _score(student, teacher, nothing, LIMITS)
    close(yours, right, otherwise="A student that asked nothing is within that limit.")


@question("2 (over a limit)", HINT)
def q2_over(score: Callable) -> None:
    _same(score, OVER)


# ------------------------------------------------------------------ the leaderboard


def submit(name: str, score: Callable, entry: Entry, path: Path = BOARD) -> None:
    """Write an entry, scored on the validation examples, on the local leaderboard."""
    examples, spent = world.examples("validation", 200), used(entry)
    right = [
        entry.challenge.right(chat, examples)
        for chat in (entry.student, entry.challenge.teacher)
    ]
    line = {"name": name, "score": round(float(score(*right, spent, LIMITS)), 1)}
    with path.open("a", encoding="utf-8") as board:
        board.write(json.dumps(line | spent) + "\n")


def leaderboard(path: Path = BOARD) -> pd.DataFrame:
    """All entries, best first; equal scores by the time of an answer.

    Raises `ValueError` naming a line that is no entry.
    """
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            entry = json.loads(line)
            entries.append({name: entry[name] for name in ("name", "score", *LIMITS)})
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"{path}, line {number}: no entry of the leaderboard; delete the line"
            ) from None
    order = ["score", "time"]
    table = pd.DataFrame(entries).sort_values(order, ascending=[False, True])
    return table.reset_index(drop=True)
