"""The five tasks, a writer each: what a customer may say, and a right answer to it."""

import hashlib
import random
from collections.abc import Iterable
from functools import cache

from .phrases import PHRASES
from .shops import (
    DAYS,
    NAMES,
    OTHER_SHOPS,
    OUTCOMES,
    PLURALS,
    PROBLEMS,
    SHIFTED_NAMES,
    STEPS,
    Shop,
)
from .verifier import LABELS, Fact

# ---------------------------------------------------------------- voices


class Voice:
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


def _pair(voice: Voice, first: Iterable, second: Iterable) -> tuple:
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


def _step_phrase(voice: Voice, step: str) -> str:
    verb, synonym, _, noun = STEPS[step]
    return f"{voice.rng.choice((verb, verb, synonym))} {noun}"


# ---------------------------------------------------------------- the five tasks
# Each returns (turns, answer, required, allowed); turns alternate: customer, helpdesk.

Draft = tuple[list[str], str, set[Fact], set[Fact]]


def _nli(voice: Voice, shop: Shop) -> Draft:
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


def _conversation(voice: Voice, shop: Shop) -> Draft:
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


def _orders(voice: Voice, shop: Shop) -> list[dict]:
    """Three orders by different people for different products."""
    product, day = _pair(voice, shop.products, DAYS)
    others = [p for p in shop.products if p != product]
    products = [product, *voice.rng.sample(others, 2)]
    days = [day, *voice.rng.choices(DAYS, k=2)]
    return [
        {"name": name, "product": p, "day": d, "window": shop.windows[p]}
        for name, p, d in zip(voice.names(3), products, days, strict=True)
    ]


def _order_book(voice: Voice, orders: list[dict], kind: str) -> str:
    """The orders as a passage, sorted by what the question of this kind will name."""
    first, second = ("product", "name") if kind == "who" else ("name", "product")
    shuffled = voice.rng.sample(orders, len(orders))
    lines = ", ".join(f"{o[first]} {o[second]} {o['day']}" for o in shuffled)
    return voice.say(f"by {first}", lines=lines)


def _qa(voice: Voice, shop: Shop) -> Draft:
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
    voice = Voice(rng, "other")
    orders = _orders(voice, rng.choice(OTHER_SHOPS))
    kinds = rng.choice((("who",), ("what", "when")))
    turns: list[str] = []
    for _ in range(questions):
        kind, order = rng.choice(kinds), rng.choice(orders)
        turns.append(voice.say(f"ask {kind}", **order))
        turns.append(voice.say(f"say {kinds[0]}", **order))
    turns[0] = f"{_order_book(voice, orders, kinds[0])} {turns[0]}"
    return turns


def _math(voice: Voice, shop: Shop) -> Draft:
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


def _summary(voice: Voice, shop: Shop) -> Draft:
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


WRITERS = {
    "nli": _nli,
    "conversation": _conversation,
    "qa": _qa,
    "math": _math,
    "summary": _summary,
}
