"""Several answers to one prompt: the choice of those to train on."""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import Literal

from ..data.rows import DataError
from ..data.text import answer_of, normalised
from .base import Rule, reasons


def _by_id(rows: Sequence[dict]) -> dict[Hashable, list[dict]]:
    groups = defaultdict(list)
    for place, row in enumerate(rows):
        if "id" not in row:
            raise DataError(f"row {place} has no id: the prompt that it answers")
        groups[row["id"]].append(row)
    return groups


def best_of_n(
    rows: Sequence[dict],
    rule: Rule,
    pick: Literal["first", "shortest", "random", "all"] = "first",
    *,
    seed: int = 0,
) -> list[dict]:
    """Rejection sampling: of several answers with one id, one that the rule keeps.

    `pick` says which: the first, the shortest (in characters), one drawn by `seed`, or
    all that differ in words. A prompt without a right answer has no row in the result,
    so hard prompts become rarer: compare the tasks before and after.
    """
    if pick not in ("first", "shortest", "random", "all"):
        raise ValueError(
            f'pick={pick!r}: choose "first", "shortest", "random" or "all"'
        )
    said = reasons(rule, rows)
    right = [row for row, why in zip(rows, said, strict=True) if not why]
    chosen = []
    for id, group in _by_id(right).items():
        if pick == "all":
            different: dict[str, dict] = {}
            for row in group:
                different.setdefault(normalised(answer_of(row)), row)
            chosen += different.values()
        elif pick == "random":
            chosen.append(random.Random(f"{seed} {id}").choice(group))
        else:
            chosen.append(group[0] if pick == "first" else min(group, key=_characters))
    return chosen


def _characters(row: dict) -> int:
    return len(answer_of(row))


def last_number(text: str) -> str | None:
    """The last number of a text, the result of a calculation; None without one."""
    numbers = re.findall(r"-?\d+(?:\.\d+)?", text.replace(",", ""))
    return numbers[-1] if numbers else None


def majority_vote(
    rows: Sequence[dict], key: Callable[[str], Hashable | None] = normalised
) -> list[dict]:
    """Self-consistency (Wang et al. 2022): of several answers with one id the most
    frequent.

    `key` turns the text of an answer into its vote: `normalised`, `last_number`,
    `world.facts_in`, or your own; None abstains. Returns for each id the first row with
    the most frequent vote (the earlier one of two equals) with
    `vote_share`: votes for it / all its answers, abstentions included. An id where all
    abstain has no row. A majority is not a proof: what a teacher always gets wrong wins
    every vote.
    """
    chosen = []
    for group in _by_id(rows).values():
        votes = [key(answer_of(row)) for row in group]
        count = Counter(vote for vote in votes if vote is not None)
        if count:
            # most_common keeps the order of first votes among equals.
            winner, n = count.most_common(1)[0]
            row = group[votes.index(winner)]
            chosen.append({**row, "vote_share": n / len(group)})
    return chosen
