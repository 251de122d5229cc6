"""The rules: is an answer right, is it well formed, is one task more than its share?"""

import hashlib
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .. import world
from ..data.rows import DataError
from ..data.text import answer_of, encoded, ngrams, task_of, words
from .base import Rule, over_rows

if TYPE_CHECKING:  # heavy, and a funnel of plain rules needs neither
    from transformers import PreTrainedTokenizerBase

    from ..generate.teachers import Teacher
    from ..models.loading import ChatModel

# ---------------------------------------------------------------- is it right?


def verified(examples: Iterable[world.Example]) -> Rule:
    """Keep what the verifier of the task accepts; the example is found by the row's id.

    For other data write a rule of your own, or ask a judge (`judged`).
    """
    by_id = {example.id: example for example in examples}

    def rule(row: dict) -> str:
        if row.get("id") not in by_id:
            raise DataError(
                "no example has this id; pass the examples that the prompts came from"
            )
        example, answer = by_id[row["id"]], answer_of(row)
        if world.verify(example, answer):
            return ""
        missing, wrong = world.missing_and_wrong(example, answer)
        parts = [
            f"{title} " + ", ".join(sorted(f"{kind} {value}" for kind, value in facts))
            for title, facts in (("missing", missing), ("wrong", wrong))
            if facts
        ]
        return "; ".join(parts) or "right facts, but it rambles or repeats itself"

    return rule


QUESTION = """Here is a conversation, and an answer to its last message.

{prompt}

Answer: {answer}

Is this answer right, complete and helpful? Reply with one word, yes or no."""
_VERDICT = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)
NO_REPLY = "the judge gave no reply"


def judged(
    judge: "ChatModel | Teacher",
    *,
    question: str = QUESTION,
    path: str | Path | None = None,
    **settings,
) -> Rule:
    """Keep what a judge model (Zheng et al. 2023) answers with "yes".

    `judge` is a `ChatModel` or a `generate.Teacher`. `question` holds {answer} and, as
    a rule, {prompt}. With `path` verdicts and failures are kept in files, so that a
    second run asks only what is new; `settings` (max_new_tokens, budget, retry_failed,
    ...) are those of `generate.generate_answers`. The first word of the reply decides;
    what was thought aloud before "</think>" is skipped. A reply that is neither yes nor
    no, and a failed request, drop the row with a reason of their own, so that such rows
    can be asked again. A judge errs, may prefer long answers or its own, and believes
    an answer that tells it to say yes: check a sample by hand.
    """
    try:
        asked = question.format(prompt="the prompt", answer="the answer")
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(
            f"question: {error!r}; only {{prompt}} and {{answer}} stand in braces, "
            "double any other brace"
        ) from None
    if "the answer" not in asked:
        raise ValueError("question needs {answer}, or the judge does not see it")

    @over_rows
    def rule(rows: Sequence[dict]) -> list[str]:
        from ..generate.asking import ask, turns_of  # heavy, and only judges need it

        ids, asked = [], {}
        for row in rows:
            turns = turns_of(row["messages"][:-1])
            text = question.format(prompt=turns, answer=answer_of(row))
            # Named by its text: equal questions are asked once, also in a later run.
            ids.append(hashlib.blake2b(encoded(text), digest_size=8).hexdigest())
            asked[ids[-1]] = text
        said = ask(judge, asked, path, **settings)
        return [_verdict(said[id]) if id in said else NO_REPLY for id in ids]

    return rule


def _verdict(reply: str) -> str:
    word = _VERDICT.match(reply)
    if word is None:
        return f"the judge said neither yes nor no: {reply[:60]!r}"
    return "" if word[1].lower() == "yes" else "the judge said no"


# ---------------------------------------------------------------- form of an answer


def length(
    shortest: int = 1,
    longest: int | None = None,
    *,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
) -> Rule:
    """Keep answers of `shortest` to `longest` words; tokens, where a tokenizer (of
    transformers) is given."""
    unit = "words" if tokenizer is None else "tokens"

    def rule(row: dict) -> str:
        text = answer_of(row)
        size = len(words(text) if tokenizer is None else tokenizer.tokenize(text))
        if size < shortest:
            return f"{size} {unit}, fewer than {shortest}"
        too_long = longest is not None and size > longest
        return f"{size} {unit}, more than {longest}" if too_long else ""

    return rule


def repetition(most: float = 0.3, *, n: int = 3) -> Rule:
    """Drop answers that loop: where more than `most` of the runs of `n` words repeat an
    earlier one (seq-rep-n, Welleck et al. 2019)."""

    def rule(row: dict) -> str:
        runs = ngrams(words(answer_of(row)), n)
        share = 1 - len(set(runs)) / len(runs) if runs else 0.0
        return f"{share:.0%} of its {n}-grams repeat" if share > most else ""

    return rule


_I_CANNOT = (
    r"\b(?:i|we)(?:(?: am| are|'m|'re) (?:unable|not able)"
    r"| (?:cannot|can not|can't|won't|will not))"
)
REFUSALS = (
    rf"\bsorry\b[^.!?]{{0,40}}{_I_CANNOT}",
    rf"^(?:unfortunately,? )?{_I_CANNOT}(?: to)? "
    r"(?:help|assist|answer|comply|provide|fulfil|discuss|do that|create|generate)",
    r"\bas an? (?:ai|artificial intelligence|(?:large )?language model)\b",
)


def refusal(patterns: str | Iterable[str] = REFUSALS) -> Rule:
    """Drop answers in which the teacher declines: "I'm sorry, but I cannot ...".

    Patterns are searched in the first 200 characters, without regard to case. They know
    common English phrases only: they miss a refusal in other words, and would take
    "I'm sorry, but we cannot repair a broken screen" for one, right as it may be. So
    read what the rule drops, and drop nothing where refusing is what the student should
    learn.
    """
    patterns = [patterns] if isinstance(patterns, str) else patterns
    compiled = [re.compile(pattern, re.IGNORECASE) for pattern in patterns]

    def rule(row: dict) -> str:
        start = answer_of(row).replace("\u2019", "'").strip()[:200]
        found = next((m for p in compiled if (m := p.search(start))), None)
        return f"declines: {found[0]!r}" if found else ""

    return rule


def language(
    wanted: str | Iterable[str] = "en", *, shortest: int = 40, sure: float = 0.8
) -> Rule:
    """Drop answers in another language (ISO 639-1 code) than those wanted.

    py3langid (after Lui and Baldwin 2012) must be `sure` (probability), and the answer
    `shortest` characters long: short texts, numbers and code are told apart badly, so
    they are kept. Raises `ValueError` for a language that the library does not know.
    """
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # 100 MB, only here

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    wanted = {wanted} if isinstance(wanted, str) else set(wanted)
    if unknown := wanted - set(identifier.labels):
        raise ValueError(f"no such language: {sorted(unknown)}; write codes such as en")

    def rule(row: dict) -> str:
        text = answer_of(row)
        if len(text) < shortest:
            return ""
        found, probability = identifier.classify(text)
        out = found not in wanted and probability >= sure
        return f"language {found}, {probability:.0%} sure" if out else ""

    return rule


def truncated() -> Rule:
    """Drop answers that were cut at max_new_tokens (`finish_reason` is "length").

    Where a row says nothing of how it ended, neither does the rule.
    """

    def rule(row: dict) -> str:
        return "cut off" if row.get("finish_reason") == "length" else ""

    return rule


# ---------------------------------------------------------------- balance


def balance(most: int | None = None, *, seed: int = 0) -> Rule:
    """At most `most` rows a task, by default as many as the smallest task has; which
    ones is drawn by `seed`."""

    @over_rows
    def rule(rows: Sequence[dict]) -> list[str]:
        places = defaultdict(list)
        for place, row in enumerate(rows):
            places[task_of(row)].append(place)
        cap = min(map(len, places.values()), default=0) if most is None else most
        found = [""] * len(rows)
        for task, its in places.items():
            draw = random.Random(f"{seed} {task}")
            for place in draw.sample(its, max(0, len(its) - cap)):
                found[place] = f"more than {cap} rows of task {task}"
        return found

    return rule
