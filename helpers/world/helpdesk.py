"""The helpdesk world: endless customer-support examples, each with a verifier.

    examples("train", 1000, seed=0) -> list of `Example`
    verify(example, "Ben bought the lamp.") -> True or False

Five tasks (`TASKS`), one mechanism. Every sentence the world can say mentions *facts*:
a person, a product, a day, a number, a troubleshooting step, an outcome, a label ...
An answer is right when it mentions every fact the example requires and no fact that the
example does not allow. So any wording is accepted, and a fluent wrong answer (a wrong
number, another person, a step from another problem, a missing step) is not.
"""

import hashlib
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache, lru_cache

from .phrases import PHRASES
from .shops import (
    DAYS,
    NAMES,
    OTHER_SHOPS,
    OUR_SHOP,
    OUTCOMES,
    PLURALS,
    PROBLEMS,
    SHIFTED_NAMES,
    STEPS,
    Shop,
)

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
def _lexicon() -> tuple[re.Pattern, dict[str, Fact]]:
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
    pattern, forms = _lexicon()
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


# ---------------------------------------------------------------- voices


class _Voice:
    """Chooses wordings: one seeded stream, one phrase book."""

    def __init__(self, rng: random.Random, book: str):
        self.rng, self.book = rng, book

    def say(self, key: str, **slots) -> str:
        book = PHRASES[key]
        # Answers have no shifted wording: the shop speaks as it always does.
        options = book.get(self.book) or book["ours"]
        if self.book == "other":
            options += book["ours"]  # people everywhere talk as ours do, and otherwise
        text = self.rng.choice(options).format(**slots)
        # A sentence that happens to begin with a slot still begins with a capital.
        whole = text.rstrip().endswith((".", "?", "!"))
        return text[:1].upper() + text[1:] if whole else text

    def name(self) -> str:
        return self.rng.choice(SHIFTED_NAMES if self.book == "shifted" else NAMES)

    def names(self, n: int) -> list[str]:
        return self.rng.sample(SHIFTED_NAMES if self.book == "shifted" else NAMES, n)


@cache
def _reserved(first, second) -> bool:
    """A fifth of all combinations is kept for the shifted split."""
    digest = hashlib.blake2b(f"{first}|{second}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % 5 == 0


def _pair(voice: _Voice, first: Iterable, second: Iterable) -> tuple:
    """A random pair that this split may combine: reserved ones in `shifted` only."""
    pairs = [(a, b) for a in first for b in second]
    if voice.book != "other":
        wanted = voice.book == "shifted"
        pairs = [pair for pair in pairs if _reserved(*pair) == wanted] or pairs
    return voice.rng.choice(pairs)


def _items(quantity: int, product: str) -> str:
    return f"{quantity} {PLURALS[product]}" if quantity > 1 else f"a {product}"


def _thing(quantity: int, product: str) -> str:
    return PLURALS[product] if quantity > 1 else product


def _step_phrase(voice: _Voice, step: str) -> str:
    verb, synonym, _, noun = STEPS[step]
    return f"{voice.rng.choice((verb, verb, synonym))} {noun}"


# ---------------------------------------------------------------- the five tasks
# Each returns (turns, answer, required, allowed); turns alternate: customer, helpdesk.

_Draft = tuple[list[str], str, set[Fact], set[Fact]]


def _nli(voice: _Voice, shop: Shop) -> _Draft:
    """Does the claim follow from the premise and the return policy of the shop?"""
    rng, name, label = voice.rng, voice.name(), voice.rng.choice(LABELS)
    product = rng.choice(shop.products)
    allowed: set[Fact] = {("product", product), ("person", name)}
    if rng.random() < 0.6:  # the shop's policy decides
        window, inside = shop.windows[product], label == "entailment"
        if label == "neutral":
            inside = rng.random() < 0.5
        ages = range(1, window) if inside else range(window + 1, 120)
        _, ago = _pair(voice, [product], ages)
        premise = voice.say("bought ago", name=name, product=product, ago=ago)
        claim = voice.say("may return", name=name)
        allowed |= {("number", str(window)), ("number", str(ago))}
        more, verdict = ("less", "in time") if inside else ("more", "too late")
        slots = dict(product=product, window=window, ago=ago, more=more)
        answer = voice.say("say window label", verdict=verdict, label=label, **slots)
    else:  # the premise decides
        _, day = _pair(voice, [product], DAYS)
        quantity = rng.choice((1, 1, 2, 3))
        premise = voice.say(
            "order", name=name, items=_items(quantity, product), day=day
        )
        kind, truth = rng.choice((("person", name), ("day", day)))
        claimed = truth
        if label == "contradiction":
            others = voice.names(5) if kind == "person" else DAYS
            claimed = rng.choice([other for other in others if other != truth])
        ask = "claim who" if kind == "person" else "claim when"
        thing = _thing(quantity, product)
        claim = voice.say(ask, name=claimed, day=claimed, thing=thing)
        allowed |= {("day", day), ("number", str(quantity)), (kind, claimed)}
        answer = voice.say("say compare", truth=truth, claimed=claimed, label=label)
    if label == "neutral":
        claim = voice.say("unsaid", name=name)
        answer = voice.say("say label", label=label)
    turn = voice.say("nli frame", premise=premise, hypothesis=claim)
    return [turn], answer, {("label", label)}, allowed


def _conversation(voice: _Voice, shop: Shop) -> _Draft:
    """Two to four customer turns through the steps for a problem; what comes next?"""
    rng = voice.rng
    product, problem = _pair(voice, shop.devices, PROBLEMS)
    slots = {"product": product, "problem": rng.choice(PROBLEMS[problem])}
    todo = list(shop.steps[problem])
    turns = [voice.say("hello", name=voice.name())]
    if rng.random() < 0.25:
        turns[0] += voice.say("vague")
        turns += [voice.say("say ask"), ""]
    turns[-1] += voice.say("complaint", **slots)
    if rng.random() < 0.35:  # the first step is behind them already
        turns[-1] += voice.say("tried", step=_step_phrase(voice, todo.pop(0)))
    length, tried = 2 * rng.choice((2, 3, 4)) - 1, 0
    while todo and len(turns) < length:
        turns.append(voice.say("say step", step=_step_phrase(voice, todo.pop(0))))
        turns.append(voice.say("no luck", **slots))
        tried += 1
    allowed: set[Fact] = {("product", product), ("problem", problem)}
    if tried and rng.random() < 0.15:
        turns[-1] = voice.say("solved")
        return turns, voice.say("say solved", **slots), {("result", "solved")}, allowed
    if todo:
        answer = voice.say("say step", step=_step_phrase(voice, todo[0]))
        return turns, answer, {("step", todo[0])}, allowed
    outcome = shop.outcomes[product]
    answer = voice.say(
        "say outcome", product=product, outcome=rng.choice(OUTCOMES[outcome])
    )
    return turns, answer, {("outcome", outcome)}, allowed


def _orders(voice: _Voice, shop: Shop) -> list[dict]:
    """Three orders by different people for different products."""
    product, day = _pair(voice, shop.products, DAYS)
    others = [p for p in shop.products if p != product]
    products = [product, *voice.rng.sample(others, 2)]
    days = [day, *voice.rng.choices(DAYS, k=2)]
    return [
        {"name": name, "product": p, "day": d, "window": shop.windows[p]}
        for name, p, d in zip(voice.names(3), products, days, strict=True)
    ]


def _order_book(voice: _Voice, orders: list[dict], kind: str) -> str:
    """The orders as a passage, sorted by what the question of this kind will name."""
    first, second = ("product", "name") if kind == "who" else ("name", "product")
    shuffled = voice.rng.sample(orders, len(orders))
    lines = ", ".join(f"{o[first]} {o[second]} {o['day']}" for o in shuffled)
    return voice.say(f"by {first}", lines=lines)


def _qa(voice: _Voice, shop: Shop) -> _Draft:
    """A question over a passage of orders; some also need the return policy."""
    orders = _orders(voice, shop)[: voice.rng.choice((2, 3, 3))]
    asked = orders[0]
    facts: dict[str, set[Fact]] = {
        "who": {("person", asked["name"])},
        "what": {("product", asked["product"])},
        "when": {("day", asked["day"])},
        "window": {("number", str(asked["window"]))},
    }
    kind = voice.rng.choice(sorted(facts))
    allowed = facts["who"] | facts["when"] | facts["what"]
    turn = f"{_order_book(voice, orders, kind)} {voice.say(f'ask {kind}', **asked)}"
    said = "what" if kind == "when" else kind  # the line of the book answers both
    return [turn], voice.say(f"say {said}", **asked), facts[kind], allowed


def reading(rng: random.Random, questions: int = 5) -> list[str]:
    """A reading exercise: a passage of orders from elsewhere and several questions.

    Returns turns, customer and helpdesk alternately. It drills what small models learn
    last, to look something up in a text, with many answers for one passage.
    """
    voice = _Voice(rng, "other")
    orders = _orders(voice, rng.choice(OTHER_SHOPS))
    kinds = rng.choice((("who",), ("what", "when")))
    turns: list[str] = []
    for _ in range(questions):
        kind, order = rng.choice(kinds), rng.choice(orders)
        turns.append(voice.say(f"ask {kind}", **order))
        turns.append(voice.say(f"say {kinds[0]}", **order))
    turns[0] = f"{_order_book(voice, orders, kinds[0])} {turns[0]}"
    return turns


def _math(voice: _Voice, shop: Shop) -> _Draft:
    """Prices by heart, the steps shown, the last number is the result."""
    rng = voice.rng
    kind = rng.choice(("price", "sum", "voucher", "change"))
    product, quantity = _pair(voice, shop.products, (1, 2, 3))
    items, price = _items(quantity, product), shop.prices[product]
    subtotal = quantity * price
    work = [f"{quantity} x {price} = {subtotal}."] if quantity > 1 else []
    shown = {subtotal} if quantity > 1 else set()
    numbers = {quantity, price, subtotal}
    allowed: set[Fact] = {("product", product)}
    slots = {"items": items}
    if kind == "price":
        free = subtotal >= shop.free_from
        total = subtotal + (0 if free else shop.shipping)
        work += [
            "Shipping is free." if free else f"{subtotal} + {shop.shipping} = {total}."
        ]
        if free:
            allowed.add(("shipping", "free"))
        else:
            numbers.add(shop.shipping)
    elif kind == "sum":
        second = rng.choice([p for p in shop.products if p != product])
        second_quantity = rng.choice((1, 1, 2))
        second_price = shop.prices[second]
        second_subtotal = second_quantity * second_price
        if second_quantity > 1:
            work += [f"{second_quantity} x {second_price} = {second_subtotal}."]
            shown.add(second_subtotal)
        total = subtotal + second_subtotal
        work += [f"{subtotal} + {second_subtotal} = {total}."]
        numbers |= {second_quantity, second_price, second_subtotal}
        allowed.add(("product", second))
        slots["more"] = _items(second_quantity, second)
    else:
        if kind == "voucher":
            amounts = [a for a in (2, 3, 5, 10) if a < subtotal]
            amount = rng.choice(amounts)
            left, right = subtotal, amount
        else:
            amount = rng.choice([a for a in (40, 50, 70, 100) if a >= subtotal][:2])
            left, right = amount, subtotal
        total = left - right
        work += [f"{left} - {right} = {total}."]
        numbers.add(amount)
        slots["amount"] = amount
    turn = voice.say("hello", name=voice.name()) + voice.say(f"ask {kind}", **slots)
    said = "say left" if kind == "change" else "say total"
    answer = voice.say(said, work=" ".join(work), total=total)
    allowed |= {("number", str(n)) for n in numbers | {total}}
    # Every product of a price and a quantity must be shown, not only the result.
    required = {("last number", str(total))} | {("number", str(n)) for n in shown}
    return [turn], answer, required, allowed


def _summary(voice: _Voice, shop: Shop) -> _Draft:
    """A thread of several messages in one or two sentences: who, what, tried,
    outcome."""
    rng, name = voice.rng, voice.name()
    product, problem = _pair(voice, shop.devices, PROBLEMS)
    step, outcome = rng.choice(sorted(STEPS)), rng.choice(sorted(OUTCOMES))
    slots = {
        "name": name,
        "product": product,
        "problem": rng.choice(PROBLEMS[problem]),
        "outcome": rng.choice(OUTCOMES[outcome]),
        "doing": f"{STEPS[step][2]} {STEPS[step][3]}".capitalize(),
    }
    thread = [voice.say("thread opening", **slots),
              voice.say("thread step", step=_step_phrase(voice, step))]  # fmt: skip
    required: set[Fact] = {("person", name), ("product", product), ("problem", problem),
                           ("step", step)}  # fmt: skip
    if rng.random() < 0.3:
        thread.append(voice.say("thread solved", **slots))
        answer = voice.say("say summary solved", **slots)
        required.add(("result", "solved"))
        allowed: set[Fact] = set()
    else:
        thread += [
            voice.say("thread failed", **slots),
            voice.say("thread end", **slots),
        ]
        answer = voice.say("say summary failed", **slots)
        required.add(("outcome", outcome))
        allowed = {("result", "failed")}
    turn = f"{' '.join(thread)} {voice.say('ask summary')}"
    return [turn], answer, required, allowed


_WRITERS = {
    "nli": _nli,
    "conversation": _conversation,
    "qa": _qa,
    "math": _math,
    "summary": _summary,
}


# ---------------------------------------------------------------- examples and splits


def _split_of(prompt: str) -> str:
    """Which split owns a prompt: decided by its hash, so no two splits can share
    one."""
    digest = hashlib.blake2b(prompt.encode(), digest_size=4).digest()
    bucket = int.from_bytes(digest, "big") % 20
    return "test" if bucket < 2 else "validation" if bucket == 2 else "train"


def examples(
    split: str,
    n: int,
    seed: int = 0,
    *,
    tasks: Iterable[str] = TASKS,
    shop: Shop = OUR_SHOP,
    label_noise: float = 0.0,
) -> list[Example]:
    """`n` examples of a split, the tasks in turn, all prompts different.

    The same arguments always give the same list, and a longer list begins with the
    shorter one. `label_noise` is the share of answers (0 to 1) that a careless
    annotator got wrong: one fact swapped for another; such rows have `noisy=True`.

    Raises `ValueError` for an unknown split or task, a share outside 0..1, and when the
    world has no more different prompts to give.
    """
    tasks = tuple(tasks)
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    if not tasks or not set(tasks) <= set(TASKS):
        raise ValueError(f"unknown tasks {tasks}; choose from {', '.join(TASKS)}")
    if not 0 <= label_noise <= 1:
        raise ValueError(f"label_noise is a share between 0 and 1, not {label_noise}")
    rng = random.Random(f"{seed} {split} {shop.name}")
    voice = _Voice(rng, "shifted" if split == "shifted" else shop.wording)
    noise = random.Random(f"noise {seed} {split}")
    drawn: list[Example] = []
    seen: set[str] = set()
    for index in range(n):
        task = tasks[index % len(tasks)]
        example = _draw(task, split, f"{split}-{seed}-{index}", voice, shop, seen)
        if noise.random() < label_noise:
            example = _careless(example, noise)
        drawn.append(example)
    return drawn


def _draw(task, split, id, voice, shop, seen) -> Example:
    for _ in range(1000):
        turns, answer, required, allowed = _WRITERS[task](voice, shop)
        roles = ("user", "assistant")
        messages = [{"role": "system", "content": f"Helpdesk of {shop.name}."}]
        messages += [{"role": roles[i % 2], "content": t} for i, t in enumerate(turns)]
        example = Example(id, task, split, tuple(messages), answer,
                          frozenset(required), frozenset(allowed))  # fmt: skip
        prompt = example.prompt
        if prompt not in seen and (split == "shifted" or _split_of(prompt) == split):
            seen.add(prompt)
            return example
    raise ValueError(
        f"no new {task} prompt for split {split!r} after {len(seen):,} in all: "
        "ask for fewer examples or for more tasks"
    )


def _careless(example: Example, rng: random.Random) -> Example:
    """The example with one fact of its answer swapped, as a tired annotator would."""
    pattern, forms = _lexicon()
    by_fact: dict[Fact, list[str]] = {}
    for form, fact in forms.items():
        by_fact.setdefault(fact, []).append(form)
    spots = [
        m
        for m in pattern.finditer(example.answer.lower())
        if forms[m[0]] in example.required
    ]
    spots += re.finditer(r"\d+", example.answer)
    for _ in range(200):
        spot = rng.choice(spots)
        if spot[0].isdigit():
            swapped = str(
                max(1, int(spot[0]) + rng.choice((-10, -3, -2, -1, 1, 2, 3, 10)))
            )
        else:
            kind, value = forms[spot[0]]
            other = rng.choice([f for f in by_fact if f[0] == kind and f[1] != value])
            same_form = by_fact[kind, value].index(spot[0])
            swapped = by_fact[other][min(same_form, len(by_fact[other]) - 1)]
        if example.answer[spot.start()].isupper():
            swapped = swapped[0].upper() + swapped[1:]
        answer = example.answer[: spot.start()] + swapped + example.answer[spot.end() :]
        if not verify(example, answer):
            return replace(example, answer=answer, noisy=True)
    raise AssertionError(f"no wrong answer found for {example.id}")
