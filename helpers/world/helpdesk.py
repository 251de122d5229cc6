"""Examples by split, no prompt in two of them; some as a careless annotator left them.

    examples("train", 1000, seed=0) -> list of `Example`

A prompt's hash decides which split it belongs to. The split `shifted` says what
training never shows: other names, other wordings, unseen combinations.
"""

import hashlib
import random
import re
from collections.abc import Iterable
from dataclasses import replace

from .shops import OUR_SHOP, Shop
from .tasks import WRITERS, Voice
from .verifier import SPLITS, TASKS, Example, Fact, lexicon, verify


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
    voice = Voice(rng, "shifted" if split == "shifted" else shop.wording)
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
        turns, answer, required, allowed = WRITERS[task](voice, shop)
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
    pattern, forms = lexicon()
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
