"""Rows through rules: what a rule is, and what comes through a funnel of them.

A *rule* takes a chat row and returns "" to keep it, or the reason for dropping it.
Rules that must see the other rows as well (duplicates, balance) are marked by
`over_rows`: they take the list of rows that is left and return one such string for
each. No rule remembers anything from one call to the next, so a funnel can be run
again. The rules themselves are in `rules` and `overlap`.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from ..data.text import task_of

Rule = Callable[[dict], str]


class RuleError(ValueError):
    """A rule that failed or broke the convention; the message names rule and row."""


def over_rows(rule: Callable[[Sequence[dict]], Sequence[str]]) -> Rule:
    """Mark a rule that takes all rows that are left and returns a string for each."""
    rule.over_rows = True
    return rule


def reasons(rule: Rule, rows: Sequence[dict], name: str = "rule") -> list[str]:
    """What the rule says of each row: "" or the reason for dropping it.

    Raises `RuleError` naming rule, row and cause where the rule raises, and where it
    returns anything but a string for each row.
    """
    found = []
    if getattr(rule, "over_rows", False):
        try:
            found = list(rule(rows))
        except Exception as error:
            raise RuleError(
                f"rule {name!r} failed: {type(error).__name__}: {error}"
            ) from error
        if len(found) != len(rows):
            raise RuleError(
                f"rule {name!r} gave {len(found)} reasons for {len(rows)} rows; "
                'a rule over rows returns one string for each, "" to keep it'
            )
    for place, row in enumerate(rows):
        which = f"row {row.get('id', place)!r}"
        if place == len(found):
            try:
                found.append(rule(row))
            except Exception as error:
                raise RuleError(
                    f"rule {name!r} failed on {which}: {type(error).__name__}: {error}"
                ) from error
        if not isinstance(found[place], str):
            hint = "call it first, as in length()" if callable(found[place]) else (
                'a rule returns "" to keep a row, or a string with the reason'
            )  # fmt: skip
            raise RuleError(
                f"rule {name!r} returned {found[place]!r} for {which}; {hint}"
            )
    return found


@dataclass(frozen=True)
class Funnel:
    """What came through the rules, and what did not.

    `kept`: the rows that every rule keeps, the very objects, in their order.
    `dropped`: copies of the others, in their order, each with `dropped_by`, the name of
    the first rule against it, and `reason`.
    `table`: one line a rule: rows in, dropped, left; `share` is dropped / in.
    `by_task`: one line a task: rows in, dropped by each rule, kept; `share` is
    kept / in.
    """

    kept: list[dict]
    dropped: list[dict]
    table: pd.DataFrame
    by_task: pd.DataFrame


def funnel(rows: Sequence[dict], rules: Mapping[str, Rule]) -> Funnel:
    """Pass rows through rules, one after the other: each sees what the last one left.

    Cheap rules first, those that compare rows (duplicates, balance) last: then a wrong
    row cannot push out a right one. Raises `RuleError`, see `reasons`.
    """
    rows = list(rows)
    left, verdicts, lines = list(range(len(rows))), {}, []
    for name, rule in rules.items():
        said = reasons(rule, [rows[i] for i in left], name)
        out = {i: (name, why) for i, why in zip(left, said, strict=True) if why}
        share = len(out) / len(left) if left else 0.0
        lines.append([name, len(left), len(out), len(left) - len(out), share])
        verdicts |= out
        left = [i for i in left if i not in out]
    dropped = [
        {**rows[i], "dropped_by": verdicts[i][0], "reason": verdicts[i][1]}
        for i in sorted(verdicts)
    ]
    table = pd.DataFrame(lines, columns=["rule", "in", "dropped", "left", "share"])
    fates = [(task_of(row), verdicts.get(i, ("",))[0]) for i, row in enumerate(rows)]
    return Funnel([rows[i] for i in left], dropped, table, _by_task(fates, list(rules)))


def _by_task(fates: Sequence[tuple[str, str]], rules: list[str]) -> pd.DataFrame:
    """From (task, rule that dropped it or "") of every row."""
    count, total = Counter(fates), Counter(task for task, _ in fates)
    lines = [
        [n, *(count[task, rule] for rule in [*rules, ""]), count[task, ""] / n]
        for task, n in total.items()
    ]
    columns = ["in", *rules, "kept", "share"]
    return pd.DataFrame(lines, index=list(total), columns=columns)
