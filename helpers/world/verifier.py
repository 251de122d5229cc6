"""A request to the helpdesk, and whether an answer is right, in whatever words.

    verify(example, "Ben bought the lamp.") -> True or False

Five tasks (`TASKS`), one mechanism. Every sentence the world can say mentions *facts*:
a person, a product, a day, a number, a troubleshooting step, an outcome, a label ...
An answer is right when it mentions every fact the example requires and no fact that the
example does not allow. So any wording is accepted, and a fluent wrong answer (a wrong
number, another person, a step from another problem, a missing step) is not.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache

from .shops import DAYS, NAMES, OUTCOMES, PLURALS, PROBLEMS, SHIFTED_NAMES, STEPS

TASKS = ("nli", "conversation", "qa", "math", "summary")
SPLITS = ("train", "validation", "test", "shifted")
LABELS = ("entailment", "contradiction", "neutral")

Fact = tuple[str, str]  # (kind, canonical value), for example ("product", "lamp")


@dataclass(frozen=True)
class Example:
    """One request to the helpdesk.

    `messages` is the prompt (system, user and earlier assistant turns), `answer` one
    right answer to it. `required` and `allowed` are the facts `verify` uses. `noisy` is
    True where `label_noise` replaced the answer by a wrong one.
    """

    id: str
    task: str
    split: str
    messages: tuple[dict[str, str], ...]
    answer: str
    required: frozenset[Fact]
    allowed: frozenset[Fact]
    noisy: bool = False

    @property
    def prompt(self) -> str:
        """The conversation so far as one string: what the splits must not share."""
        return "\n".join(f"{m['role']}: {m['content']}" for m in self.messages)

    def row(self) -> dict:
        """The example as chat JSONL wants it: prompt and answer in `messages`."""
        answer = {"role": "assistant", "content": self.answer}
        question = self.question()
        return {**question, "messages": [*question["messages"], answer]}

    def question(self) -> dict:
        """The prompt alone as a row, for a teacher to answer."""
        return {"id": self.id, "task": self.task, "messages": list(self.messages)}


# ---------------------------------------------------------------- reading facts


@cache
def lexicon() -> tuple[re.Pattern, dict[str, Fact]]:
    """One pattern that finds every known phrase, longest first, and what it stands
    for."""
    forms: dict[str, Fact] = {}
    for name in NAMES + SHIFTED_NAMES:
        forms[name] = ("person", name)
    for product, plural in PLURALS.items():
        forms[product] = forms[plural] = ("product", product)
    for day in DAYS:
        forms[day] = ("day", day)
    for problem, phrases in PROBLEMS.items():
        forms.update({phrase: ("problem", problem) for phrase in phrases})
    for step, (verb, synonym, gerund, noun) in STEPS.items():
        for action in (verb, synonym, gerund):
            forms[f"{action} {noun}"] = ("step", step)
        forms[noun.removeprefix("the ")] = ("part", step)  # named, but to do what?
    for outcome, phrases in OUTCOMES.items():
        forms.update({phrase: ("outcome", outcome) for phrase in phrases})
    forms |= {w: ("outcome", "replacement") for w in ("replacement", "a new one")}
    forms |= {w: ("outcome", "refund") for w in ("refund", "money back", "refunded")}
    forms |= {w: ("outcome", "repair") for w in ("repair", "repaired", "workshop")}
    for label in LABELS:
        forms[label] = ("label", label)
    forms |= {w: ("result", "solved") for w in _SOLVED}
    forms |= {w: ("result", "failed") for w in _FAILED}
    forms |= {w: ("shipping", "free") for w in ("shipping is free", "no shipping")}
    forms |= {w: ("negation", "not") for w in ("not", "never", "n't", "cannot", "no")}
    forms = {form.lower(): fact for form, fact in forms.items()}
    words = sorted(forms, key=len, reverse=True)
    pattern = re.compile(
        r"(?<![a-z])(?:" + "|".join(map(re.escape, words)) + r")(?![a-z])"
    )
    return pattern, forms


_SOLVED = ("works again", "it works", "it worked", "solved it", "helped", "fixed it")
_FAILED = ("did not help", "changed nothing", "was no use", "does not help")
_EQUATION = re.compile(r"(\d+) *([x+*-]) *(\d+) *= *(\d+)")
_COMPARISON = re.compile(r"(\d+) is (more|less) than (\d+)")
_SUMS: dict[str, Callable[[int, int], int]] = {
    "x": lambda a, b: a * b,
    "*": lambda a, b: a * b,
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
}


@lru_cache(maxsize=100_000)
def facts_in(text: str) -> frozenset[Fact]:
    """Every fact that `text` mentions. Numbers count; false equations and comparisons
    count as such, and so does a capitalised word that the world does not know."""
    pattern, forms = lexicon()
    lower = text.lower()
    found = {forms[match] for match in pattern.findall(lower)}
    numbers = re.findall(r"\d+", text)
    found |= {("number", number) for number in numbers}
    if numbers:
        found.add(("last number", numbers[-1]))
    for left, sign, right, result in _EQUATION.findall(lower):
        if _SUMS[sign](int(left), int(right)) != int(result):
            found.add(("false equation", f"{left} {sign} {right} = {result}"))
    for left, relation, right in _COMPARISON.findall(lower):
        if int(left) == int(right) or (relation == "more") != (int(left) > int(right)):
            found.add(("false comparison", f"{left} is {relation} than {right}"))
    for word in re.findall(r"(?<=[a-z0-9,] )[A-Z][a-z]+", text):
        if word.lower() not in forms:
            found.add(("unknown name", word))
    return frozenset(found)


def missing_and_wrong(example: Example, answer: str) -> tuple[set[Fact], set[Fact]]:
    """Why `verify` says no: the facts that are missing and those that should not be
    there."""
    found = facts_in(answer)
    allowed = example.required | example.allowed
    # The last number is a demand of arithmetic only; elsewhere it is one more number.
    loose = (
        {f for f in found if f[0] == "last number"} if example.task != "math" else set()
    )
    return set(example.required - found), set(found - allowed - loose)


def verify(example: Example, answer: str) -> bool:
    """Is `answer` a right answer to `example`, in whatever words?

    True when it mentions all of `example.required`, nothing outside `example.allowed`,
    does not ramble (at most three times the words of the gold answer, plus ten), and
    says no sentence three times.
    """
    if len(answer.split()) > 3 * len(example.answer.split()) + 10:
        return False
    sentences = Counter(s.strip().lower() for s in re.split(r"[.!?]\s", answer + " "))
    if any(sentence and count > 2 for sentence, count in sentences.items()):
        return False
    missing, wrong = missing_and_wrong(example, answer)
    return not missing and not wrong
