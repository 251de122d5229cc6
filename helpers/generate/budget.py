"""What a teacher costs: tokens, prices, and a limit to both."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple


class Usage(NamedTuple):
    """Tokens read and tokens written by a teacher."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def plus(self, prompt_tokens: int, completion_tokens: int) -> "Usage":
        return Usage(
            self.prompt_tokens + prompt_tokens,
            self.completion_tokens + completion_tokens,
        )


@dataclass(frozen=True)
class Prices:
    """Money for a million tokens that the teacher reads, and for a million it writes.

    Prices change: take them from your provider's page.
    """

    prompt: float = 0.0
    completion: float = 0.0

    def cost(self, usage: Usage) -> float:
        written = usage.completion_tokens * self.completion
        return (usage.prompt_tokens * self.prompt + written) / 1e6


@dataclass(frozen=True)
class Budget:
    """The most that one answers file may cost, over all calls that write to it.

    A request is sent when the budget covers its worst case: a token for each character
    of the prompt, and `max_new_tokens`. What an API charges beyond that (its template,
    an empty answer that is asked for again) can pass the limit by a little.
    """

    tokens: int | None = None
    money: float | None = None
    prices: Prices = field(default_factory=Prices)

    def __post_init__(self):
        if self.money is not None and not self.prices.cost(Usage(1, 1)):
            raise ValueError(
                "a budget in money needs prices: Budget(money=5, prices=Prices(...))"
            )

    def allows(self, usage: Usage) -> bool:
        return (self.tokens is None or sum(usage) <= self.tokens) and (
            self.money is None or self.prices.cost(usage) <= self.money
        )

    def __str__(self) -> str:
        limits = []
        if self.tokens is not None:
            limits.append(f"{self.tokens:,} tokens")
        if self.money is not None:
            limits.append(f"{self.money:,.2f} in money")
        return " and ".join(limits)


class BudgetSpent(RuntimeError):
    """The budget ends the run; what was answered is in the file."""


def usage_of(rows: Iterable[dict]) -> Usage:
    """The tokens of all rows that `generate_answers` wrote."""
    total = Usage()
    for row in rows:
        total = total.plus(**row.get("usage", {}))
    return total
