"""The checks of lab 01: settings of a run, a rule, duplicates, leaks, a funnel."""

import copy
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ... import quality, world
from ...data.text import prompt_of
from ...generate.teachers import Reply
from .base import close, question, that

Row = dict


def _row(id: str, prompt: str | Sequence[str], answer: str = "Yes.", **more) -> Row:
    """A chat row; several turns of a prompt alternate between customer and helpdesk."""
    turns = [prompt] if isinstance(prompt, str) else prompt
    said = [
        {"role": ("user", "assistant")[i % 2], "content": text}
        for i, text in enumerate((*turns, answer))
    ]
    system = {"role": "system", "content": "Helpdesk of Fernway."}
    return {"id": id, "messages": [system, *said], **more}


def _ids(rows: object) -> list[str]:
    """The ids of the rows that a function returned, or what is wrong with them."""
    that(
        isinstance(rows, Sequence) and all(isinstance(row, Mapping) for row in rows),
        f"a list of rows was expected, not {type(rows).__name__}"
        + (" of something else" if isinstance(rows, Sequence) else ""),
    )
    return [row.get("id") for row in rows]


def _unchanged(before: list[Row], after: list[Row]) -> None:
    that(
        before == after,
        "the rows that came in were changed. Others still need them: look at a row, "
        "and put what you want to add into a copy",
    )


# ---------------------------------------------------------------- Q1, a limit

_KINDS = (  # tokens of the answer, finish_reason, its words, rows of this kind
    (9, "stop", 4, 7),
    (20, "stop", 6, 3),
    (31, "stop", 6, 4),
    (31, "stop", 29, 2),
    (40, "length", 6, 5),
)
_EXACT = (
    "this also counts answers that need exactly `limit` tokens. They fit: "
    "completion_tokens holds their end token, too"
)
_OPEN = (
    "an answer that the pilot itself cut counts as one that fits. Nobody saw its end: "
    "it needs more than the pilot allowed"
)
_SAME = (
    "only how a row ended is looked at, so no limit makes a difference. Which of the "
    "finished answers would this limit cut?"
)
_PROMPT = "this adds the tokens of the prompt; a limit on new tokens leaves them out"
_WORDS = "this counts words of the text, and a limit counts tokens: see `usage`"
_LIMITS = (  # limit, rows that it cuts, and how many a mistake would count
    (20, 11, {_EXACT: 14, _PROMPT: 21, _SAME: 5, _WORDS: 7}),
    (40, 5, {_OPEN: 0, _PROMPT: 14}),
)


@question(
    "Q1 share_cut",
    "Count the answers that would not fit, and divide by the number of rows. Which "
    "keys of a row say how long its answer is, and how it ended?",
)
def limit(share_cut: Callable[[list[Row], int], float]) -> None:
    """Of a pilot's rows the share that a limit cuts."""
    rows = []
    for tokens, reason, words, many in _KINDS:
        usage = {"prompt_tokens": 30, "completion_tokens": tokens}
        for _ in range(many):
            id, text = f"pilot-{len(rows)}", "word " * words
            rows.append(_row(id, "?", text, usage=usage, finish_reason=reason))
    random.Random(0).shuffle(rows)
    before, n = copy.deepcopy(rows), len(rows)
    for limit, cut, mistakes in _LIMITS:
        close(
            share_cut(rows, limit),
            cut / n,
            {
                "this is a number of rows; the share of all rows was asked for": cut,
                "this is the share that fits; the share that is cut was asked for": (
                    1 - cut / n
                ),
                **{message: count / n for message, count in mistakes.items()},
            },
            otherwise="An answer is cut when it needs more tokens than `limit`, or "
            "when the pilot did not see its end.",
        )
    _unchanged(before, rows)


# ---------------------------------------------------------------- Q2, draws


class Down(Exception):
    """The scripted teacher goes down, as a machine does."""


class ScriptedTeacher:
    """A `generate.Teacher` that answers at once and keeps what it was asked.

    A draw depends on its seed alone; greedy answers do not vary. `answers`: how many it
    gives before it goes down.
    """

    def __init__(self, answers: int | None = None):
        self.answers, self.requests, self.settings = answers, [], []

    def describe(self) -> dict:
        return {"model": "scripted"}

    def replies(self, requests, sampling) -> Iterator[tuple[int, Reply]]:
        self.settings.append(sampling)
        for place, request in enumerate(requests):
            if len(self.requests) == self.answers:
                raise Down
            self.requests.append(request)
            draw = random.Random(request.seed if sampling.sampling_temperature else 0)
            text = f"{request.messages[-1]['content']} {draw.randrange(10**9)}"
            yield place, Reply(text, prompt_tokens=8, completion_tokens=12)


def _prompts(n: int) -> list[Row]:
    rows = [_row(f"train-{i}", f"Question {i}?") for i in range(n)]
    return [{**row, "messages": row["messages"][:-1]} for row in rows]


_DRAW = (
    "`generate.generate_answers` does it in one call. Which of its arguments ask for "
    "several draws, and which for different ones?"
)


@question("Q2 draw_answers, settings", _DRAW)
def draws(draw_answers: Callable) -> None:
    """Four different draws a prompt, with the settings that were asked for."""
    prompts, seeds = _prompts(5), {}
    for seed in (3, 4):
        with tempfile.TemporaryDirectory() as folder:
            teacher, path = ScriptedTeacher(), Path(folder) / "drawn.jsonl"
            rows = draw_answers(teacher, prompts, path, limit=48, seed=seed)
            that(teacher.requests, "the teacher was asked nothing: hand it on")
            that(path.exists(), "nothing stands in `path`: a kill would lose it all")
        ids = _ids(rows)
        for asked in teacher.settings:
            that(
                asked.sampling_temperature > 0,
                "the answers are greedy: text without a sampling temperature is the "
                "same however often you ask",
            )
            that(
                asked.max_new_tokens == 48,
                f"max_new_tokens is {asked.max_new_tokens}, and `limit` was 48: pass "
                "it on, the default suits this world only",
            )
            that(
                asked.sampling_temperature == 0.8 and asked.top_p == 1,
                "0.8 of the sampling temperature was asked for, and all of the "
                f"distribution (top_p 1). Yours: {asked}",
            )
        that(
            len(ids) == 4 * len(prompts),
            f"{len(ids)} rows came back for {len(prompts)} prompts; four draws of each "
            "make four rows with one id",
        )
        drawn = {(row["id"], row["messages"][-1]["content"]) for row in rows}
        that(
            len(drawn) == len(rows),
            "the draws to a prompt are the same text. Do all have one seed? Ask for "
            "four samples in one call: each then has a seed of its own",
        )
        seeds[seed] = {request.seed for request in teacher.requests}
    that(
        not seeds[3] & seeds[4],
        "another `seed` gives the same draws: is it passed on?",
    )


@question("Q2 draw_answers, again", _DRAW)
def resumes(draw_answers: Callable) -> None:
    """A second call asks for nothing twice, also after the teacher went down."""
    prompts = _prompts(5)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drawn.jsonl"
        teacher = ScriptedTeacher()
        first = draw_answers(teacher, prompts, path, limit=48, seed=0)
        count = len(teacher.requests)
        second = draw_answers(teacher, prompts, path, limit=48, seed=0)
        that(
            len(teacher.requests) == count,
            "called again, it asked the teacher again. Answers cost money: leave the "
            "file where it is, and write to the same `path` each time",
        )
        that(first == second, "called again, it returned other rows")

        path = Path(folder) / "broken.jsonl"
        broken, others = ScriptedTeacher(answers=7), ScriptedTeacher()
        try:
            draw_answers(broken, prompts, path, limit=48, seed=0)
        except Down:
            pass
        rows = draw_answers(others, prompts, path, limit=48, seed=0)
        asked = len(broken.requests) + len(others.requests)
        that(
            asked == count,
            f"the teacher went down after {len(broken.requests)} answers, and the next "
            f"call asked {len(others.requests)} times where {count} were needed in "
            "all: what was finished is lost, or asked again",
        )
        that(
            _ids(rows) == _ids(first) and rows == first,
            "the rows of an interrupted run differ from those of an unbroken one",
        )


# ---------------------------------------------------------------- Q3, a rule


@question(
    "Q3 why_drop",
    "A rule returns a string: empty to keep the row, else the reason. Look at how the "
    "row ended first, and then ask `world.verify` about its answer.",
)
def rule(why_drop: Callable[[Row, world.Example], str]) -> None:
    """Rows that are right, right in other words, wrong, and cut."""
    examples = world.examples("train", 60, seed=11)
    noisy = world.examples("train", 200, seed=12, label_noise=0.5)
    wrong = [example for example in noisy if example.noisy][:40]

    def why(example: world.Example, answer: str, **more) -> str:
        *prompt, said = example.row()["messages"]
        messages = [*prompt, {**said, "content": answer}]
        row = {"id": example.id, "messages": messages, **more}
        before = copy.deepcopy(row)
        found = why_drop(row, example)
        _unchanged([before], [row])
        that(
            isinstance(found, str),
            f"it returned {found!r}; a rule returns a string, empty to keep the row",
        )
        return found

    kept = [not why(e, e.answer, finish_reason="stop") for e in examples]
    that(
        sum(kept) > len(kept) / 2,
        "right answers are dropped. Which message of a row is the answer, and does an "
        "empty string come back for a row to keep?",
    )
    that(all(kept), "some right answers are dropped, in the gold wording even")
    for example in examples:
        other = f"Of course. {example.answer}"
        that(
            why(example, other, finish_reason="stop") == "",
            "a right answer in other words is dropped: is it compared with the gold "
            "text? The verifier accepts any wording",
        )
        that(
            why(example, example.answer) == "",
            "a right row without a finish_reason is dropped. Data from elsewhere do "
            "not say how they ended, and that is no fault",
        )
        for end in (example.answer, "It is"):
            that(
                why(example, end, finish_reason="length").startswith("cut off"),
                "an answer that was cut at the limit must be dropped as 'cut off', "
                "whatever it says so far: a student would learn to stop there",
            )
    for example in wrong:
        that(
            why(example, example.answer, finish_reason="stop").startswith("wrong"),
            f"a wrong answer is not dropped as 'wrong': {example.answer!r}",
        )


# ---------------------------------------------------------------- Q4, duplicates


def _text(id: str, first: int, last: int) -> Row:
    """A row of the words w<first> to w<last>, half of them its prompt."""
    words = [f"w{i}" for i in range(first, last + 1)]
    half = len(words) // 2
    return _row(id, " ".join(words[:half]), " ".join(words[half:]))


_A, _FAR = _text("a", 1, 11), _text("far", 50, 60)  # of 9 shingles each
_LAST = "the last of several copies is kept; the first was asked for"
_LIKE = (  # rows, the ids to keep, and what it means to keep others
    (
        [_A, _FAR, _text("again", 1, 11), _text("more", 1, 11)],
        "a far",
        {
            "far": "of rows that are the same none is left; the first must stay",
            "far more": _LAST,
            "more far": _LAST,
            "far a": "the kept rows stand in another order",
            "a far again": "a copy is kept because another row stands between: compare "
            "with every row that is kept so far",
            "a far more": "the third copy of a row is kept: compare with every row "
            "that is kept so far",
            "a far again more": "no copy was found; they differ in their ids only",
        },
    ),
    (
        [_A, _text("even", 4, 14)],  # 6 of 12
        "a",
        {"a even": "a similarity of exactly `threshold` is enough to drop a row"},
    ),
    (
        [_A, _text("b", 5, 15)],  # 5 of 13
        "a b",
        {
            "a": "two rows that share 5 of 13 different shingles count as alike at .5: "
            "divide by the size of the union of the two sets"
        },
    ),
    (
        [_text("long", 1, 16), _text("part", 4, 10)],  # 5 of 14
        "long part",
        {
            "long": "a short row that stands in a long one counts as its copy: divide "
            "by the size of the union, not by that of one of the sets"
        },
    ),
    (
        [
            _A,
            _text("b", 4, 14),
            _text("c", 7, 17),
        ],  # a, b: 6 of 12; b, c; a, c: 3 of 15
        "a c",
        {
            "a": "a row was dropped for being like one that was dropped itself: look "
            "at the rows that are kept"
        },
    ),
)


@question(
    "Q4 keep_first",
    "Go through the rows in order, and compare the shingles of each with those of the "
    "rows kept so far: shared ones divided by all different ones.",
)
def duplicates(keep_first: Callable[[list[Row], float], list[Row]]) -> None:
    """Copies, rows that share much, a part in a whole, a chain."""
    for rows, expected, mistakes in _LIKE:
        before = copy.deepcopy(rows)
        found = " ".join(map(str, _ids(keep_first(rows, 0.5))))
        _unchanged(before, rows)
        other = f"of the rows {_ids(rows)} it kept {found.split()}"
        that(found == expected, mistakes.get(found, other))


# ---------------------------------------------------------------- Q5, leaks

_TEST = [
    _row("q-1", "Given: 98 days ago Paul ordered a mug. Claim: it may come back."),
    _row("q-2", "3 lamps with shipping: how much?", "3 x 12 = 36."),
    _row("q-3", ("The camera is loud.", "Level the feet.", "It still is loud.")),
    _row("q-4", "Who bought the vase, Kira or Fay?", "Fay did."),
    _row("q-5", "May the kettle come back after 40 days?", "Yes, for 45."),  # no leak
]
_LEAKS = (  # what a planted row holds, and what is said where it is kept
    (
        "a copy of a test question under another id is kept: compare the texts, an id "
        "proves nothing",
        [_TEST[1]["messages"][1]["content"], _TEST[0]["messages"][1]["content"]],
    ),
    (
        "a leak that differs in case, punctuation or white space is kept: compare "
        "words (data.words), not strings",
        ["3 LAMPS, with shipping how much", "Who bought   the vase - Kira or Fay\n?"],
    ),
    (
        "a test question with a greeting before it, or a sentence after it, is kept: "
        "look for its run of words within the words of the row",
        [
            "Hello there! 3 lamps with shipping: how much?",
            "Who bought the vase, Kira or Fay? Thanks.",
        ],
    ),
    (
        "a conversation that contains a whole test conversation, and goes on, is kept",
        [
            (
                "The camera is loud.",
                "Level the feet.",
                "It still is loud.",
                "Wipe it.",
                "?",
            )
        ],
    ),
)
_FALSE_ALARMS = (
    (
        "a question with another number or name is dropped. It has another answer: it "
        "is another question, and no leak",
        [
            "Given: 97 days ago Paul ordered a mug. Claim: it may come back.",
            "Who bought the vase, Kira or Max?",
            "4 lamps with shipping: how much?",
        ],
    ),
    (
        "'13 lamps' is taken for '3 lamps': compare whole words, not strings of "
        "characters",
        ["13 lamps with shipping: how much?", "Hi! 23 lamps with shipping: how much?"],
    ),
    (
        "a conversation that only ends like one of the test is dropped: a question is "
        "the whole conversation, not its last message",
        [("The radio is loud.", "Wipe the lens.", "It still is loud.")],
    ),
    (
        "a question is dropped that has all words of a test question in another order, "
        "or between others: a leak is one run of words",
        ["Kira or Fay, who bought the vase?", "Who bought the new vase, Kira or Fay?"],
    ),
    (
        "a row is dropped because its prompt is part of a test question. The leak is "
        "the other way round: the whole question within the row",
        ["Who bought the vase?", "3 lamps with shipping?"],
    ),
)


def _training(groups) -> tuple[list[Row], dict[str, str]]:
    """Rows to train on, shuffled, and the message that belongs to the id of each."""
    rows, messages = [], {}
    for message, prompts in groups:
        for prompt in prompts:
            row = _row(f"train-{len(rows)}", prompt, "I shall look it up.")
            rows.append(row)
            messages[row["id"]] = message
    random.Random(0).shuffle(rows)
    return rows, messages


def _decontaminated(decontaminated: Callable, groups) -> tuple[list[str], dict]:
    train, messages = _training(groups)
    before, test = copy.deepcopy(train), copy.deepcopy(_TEST)
    kept = decontaminated(train, test)
    ids = _ids(kept)
    _unchanged([*before, *_TEST], [*train, *test])
    that(
        not set(ids) & {row["id"] for row in test},
        "rows of the test came back. The test stays as it is: what leaked is taken out "
        "of the training rows",
    )
    by_id = {row["id"]: row for row in train}
    that(
        all(row == by_id.get(row["id"]) for row in kept),
        "rows came back changed: normalise a copy of the text to compare, and return "
        "the rows themselves",
    )
    that(
        ids == [row["id"] for row in train if row["id"] in set(ids)],
        "the rows came back in another order, or twice",
    )
    return ids, messages


_CLEAN = (
    "A row leaks when the words of a whole test prompt stand in the words of its "
    "prompt, in one run. Return the rows of `train` that do not leak."
)
_INNOCENT = ("", ["How do I clean a kettle?", "Where is order 17?"])


@question("Q5 decontaminated, leaks", _CLEAN)
def leaks_caught(decontaminated: Callable) -> None:
    """Each planted leak is dropped."""
    kept, messages = _decontaminated(decontaminated, [*_LEAKS, _INNOCENT])
    missed = [messages[id] for id in kept if messages[id]]
    for message, _ in _LEAKS:
        that(message not in missed, message)


@question("Q5 decontaminated, false alarms", _CLEAN)
def no_false_alarms(decontaminated: Callable) -> None:
    """No other row is."""
    kept, messages = _decontaminated(decontaminated, [*_FALSE_ALARMS, _INNOCENT])
    that(
        kept,
        "every row is dropped, and none of them leaks. Is it the system message, which "
        "all rows share?",
    )
    dropped = [messages[id] for id in messages if id not in kept]
    for message, _ in _FALSE_ALARMS:
        that(message not in dropped, message)
    that(not dropped, "a row that shares nothing with the test is dropped")
    train = [_row("q-2", "Is the shop open on Sunday?"), _row("t", "Hm?", "Fay did.")]
    that(
        _ids(decontaminated(train, copy.deepcopy(_TEST))) == ["q-2", "t"],
        "a row is dropped because it has the id of a test row, or the answer of one. "
        "Compare the prompts: many questions share an answer",
    )


# ---------------------------------------------------------------- Q6, a funnel


@question(
    "Q6 funnel",
    "Pass the rows that are left through one rule after the other; "
    "`quality.reasons(rule, rows)` gives a string for each row, empty to keep it.",
)
def funnel(funnel: Callable) -> None:
    """Rules that overlap, one of them over rows, in two orders."""
    rows = [_row(f"r-{i}", f"Question {i % 20}?", f"{i}") for i in range(40)]

    def number(row: Row) -> int:
        return int(row["id"].removeprefix("r-"))

    @quality.over_rows
    def twice(rows: list[Row]) -> list[str]:
        seen, found = set(), []
        for row in rows:
            prompt = prompt_of(row)
            found.append("asked before" if prompt in seen else "")
            seen.add(prompt)
        return found

    rules = {
        "even": lambda row: "even" if number(row) % 2 == 0 else "",
        "threes": lambda row: "a multiple of 3" if number(row) % 3 == 0 else "",
        "early": lambda row: "below 6" if number(row) < 6 else "",
        "twice": twice,
    }
    for order in (list(rules), list(rules)[::-1]):
        its = {name: rules[name] for name in order}
        before, names = copy.deepcopy(rows), list(its)
        result = funnel(rows, its)
        that(
            isinstance(result, Sequence) and len(result) == 2,
            "two things were asked for: the kept rows, and the counts",
        )
        kept, counts = result
        _unchanged(before, rows)
        that(
            isinstance(counts, Mapping) and list(counts) == names,
            "counts is a dictionary with the names of the rules, in their order",
        )
        for name, pair in counts.items():
            that(
                np.shape(pair) == (2,),
                f"counts[{name!r}] is a pair: dropped, and alone",
            )
        _counts(kept, counts, rows, its)


def _counts(kept: list[Row], counts: Mapping, rows: list[Row], rules: Mapping) -> None:
    """Hold what a learner's funnel found against the course's own."""
    truth = quality.funnel(rows, rules)
    dropped = list(truth.table["dropped"])
    alone = [sum(map(bool, quality.reasons(rule, rows))) for rule in rules.values()]
    last = quality.funnel(rows, dict(reversed(rules.items()))).table["dropped"][::-1]
    found, by_itself = zip(*counts.values(), strict=True)
    close(
        found,
        dropped,
        {
            "every rule was shown all rows: a row that two rules drop is counted "
            "twice, and the counts do not add up. Show a rule what the last one left": (
                alone
            ),
            "a row is booked on the last rule against it, not on the first": list(last),
            "these are the rows that are left, and those that are dropped were asked "
            "for": list(truth.table["left"]),
        },
        otherwise="`dropped` counts the rows that a rule drops of those that are left.",
    )
    close(
        by_itself,
        alone,
        {"`alone` asks what a rule would drop of *all* rows": dropped},
        otherwise="`alone` counts the rows that a rule would drop by itself.",
    )
    that(
        _ids(kept) == _ids(truth.kept),
        f"{len(kept)} rows are kept, and the right ones would be {len(truth.kept)}: "
        "those that no rule drops, in their order",
    )
