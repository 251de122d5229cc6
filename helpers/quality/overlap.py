"""Texts compared with others: near-duplicates, leaked evaluation data, diversity."""

import math
import zlib
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import accumulate

import pandas as pd
from datasketch import MinHash, MinHashLSH

from ..data.text import (
    Part,
    check_part,
    encoded,
    ngrams,
    normalised,
    prompt_of,
    task_of,
    text_of,
    words,
)
from .base import Rule, over_rows

# ---------------------------------------------------------------- near-duplicates


def near_duplicates(
    threshold: float = 0.8, *, n: int = 3, on: Part = "both", recall: float = 0.97
) -> Rule:
    """Of rows that are nearly the same keep the first.

    Two texts are nearly the same when their sets of n-word shingles have a Jaccard
    similarity of at least `threshold` (Broder 1997); a text of fewer words is one
    shingle. `on` says which text: the prompt, the answer, or both as one. MinHash finds
    candidates, at least the share `recall` of pairs that just reach the threshold (more
    above it), and exact Jaccard decides, so nothing is dropped by chance. Of several
    answers to one prompt most are nearly the same: choose among them first
    (`best_of_n`, `majority_vote`).

    In the helpdesk world one other word is another question: with on="prompt" most of
    the pairs found have different right answers, with on="both" and n=3 none did. For
    longer texts n=5 and 0.8 are usual (Lee et al. 2021).
    """
    check_part(on)
    if not (0.3 <= threshold <= 1 and 0 < recall < 1 and n >= 1):
        raise ValueError("threshold: from 0.3 to 1; recall: between 0 and 1; n: from 1")
    # b bands of r hashes find a pair of similarity s with probability 1 - (1 - s^r)^b.
    # With s^r near 0.4 few bands are enough, and dissimilar pairs seldom meet.
    r = 9 if threshold > 0.9 else max(2, round(math.log(0.4, threshold)))
    b = 1 if threshold == 1 else math.log(1 - recall, 1 - threshold**r)
    b = max(2, math.ceil(b))

    def shingles(row: dict) -> set[str]:
        text = text_of(row, on)
        return set(ngrams(words(text), n)) or {normalised(text)}

    @over_rows
    def rule(rows: Sequence[dict]) -> list[str]:
        index = MinHashLSH(num_perm=b * r, params=(b, r))
        hashed = (map(encoded, shingles(row)) for row in rows)
        sketches = MinHash.generator(hashed, num_perm=b * r, hashfunc=zlib.crc32)
        found = [""] * len(rows)
        for place, sketch in enumerate(sketches):
            candidates = sorted(index.query(sketch))
            ours = shingles(rows[place]) if candidates else set()
            for other in candidates:
                similarity = _jaccard(ours, shingles(rows[other]))
                if similarity >= threshold:
                    name = rows[other].get("id", other)
                    found[place] = f"like row {name!r}, Jaccard {similarity:.2f}"
                    break
            else:
                index.insert(place, sketch, check_duplication=False)
        return found

    return rule


def _jaccard(a: set, b: set) -> float:
    common = len(a & b)
    return common / (len(a) + len(b) - common)


# ---------------------------------------------------------------- leaks


def matches(
    rows: Sequence[dict],
    evaluation: Mapping[str, Sequence[dict]],
    *,
    n: int = 13,
    share: float = 0.0,
    shortest: int = 8,
    common: int | None = None,
    boilerplate: str | Iterable[str] = (),
) -> pd.DataFrame:
    """Rows that share text with an evaluation prompt, and the text that they share.

    `evaluation` maps the names of splits to chat rows. A row matches a prompt when its
    conversation (answer included, system message not) holds one of the prompt's runs of
    `n` words, without regard to case and punctuation (Brown et al. 2020 took n=13).
    A prompt of fewer words, but at least `shortest`, is one run. A row with the very
    same prompt always matches, however short and whatever is ignored.

    Many shared runs are templates, not leaks. Three ways to tell them apart: `share`,
    the least share of the prompt's runs that a row must hold (0: one run is enough; a
    copy holds them all); `boilerplate`, texts whose runs are ignored; `common`: runs in
    more than so many different training prompts are ignored, and with them a leak in so
    many variants. In the helpdesk world a single run means little: take share=0.5.

    Returns one line a matching row: its `place` and `id`; `split` and `item` (id) of
    the evaluation prompt most of which it holds: `shared` of its `runs`; the `text` of
    the rarest of these, and in how many evaluation `prompts` that stands.
    """
    if n < 1 or shortest < 1:
        raise ValueError("n and shortest: at least one word")
    items, whole, index = _index(evaluation, n, shortest, boilerplate)
    hits, prompts = _hits(rows, index), [normalised(prompt_of(row)) for row in rows]
    if common is not None:
        once = dict(zip(prompts, hits, strict=True)).values()
        count = Counter(run for found in once for run in found)
        for run in [run for run in count if count[run] > common]:
            del index[run]
        hits = [[run for run in found if run in index] for found in hits]
    runs = Counter(item for its in index.values() for item in its)

    lines = []
    for place, (row, prompt, found) in enumerate(zip(rows, prompts, hits, strict=True)):
        count = Counter(item for run in found for item in index[run])
        item = whole.get(prompt)
        if item is None and count:
            item = max(count, key=lambda item: count[item] / runs[item])
            if count[item] < share * runs[item]:
                continue
        if item is not None:
            its = [run for run in found if item in index[run]]
            text = min(its, key=lambda run: len(index[run]), default=prompt)
            line = [place, row.get("id"), *items[item], len(its), runs[item]]
            lines.append([*line, text, len(index.get(text, [item]))])
    columns = ["place", "id", "split", "item", "shared", "runs", "text", "prompts"]
    return pd.DataFrame(lines, columns=columns)


def _index(evaluation, n: int, shortest: int, boilerplate: str | Iterable[str]):
    """Split and id of each evaluation prompt; their numbers by whole prompt (one), and
    by run of words (all that hold it)."""
    texts = [boilerplate] if isinstance(boilerplate, str) else list(boilerplate)

    @cache
    def ignored(size: int) -> set[str]:
        return {run for text in texts for run in ngrams(words(text), size)}

    items, whole, index = [], {}, defaultdict(list)
    for split, its_rows in evaluation.items():
        for place, row in enumerate(its_rows):
            prompt = prompt_of(row)
            its = words(prompt)
            size = min(n, len(its))  # a short prompt is one run
            runs = set(ngrams(its, size)) - ignored(size) if size >= shortest else ()
            for run in runs:
                index[run].append(len(items))
            whole.setdefault(normalised(prompt), len(items))
            items.append((split, row.get("id", place)))
    return items, whole, dict(index)


def _hits(rows: Sequence[dict], index: Mapping[str, list[int]]) -> list[list[str]]:
    """The runs of the index that each row holds, once each, in their order."""
    sizes = {run: run.count(" ") + 1 for run in index}
    least = min(sizes.values(), default=1)
    starts = defaultdict(set)  # few rows share a start, so few longer runs are built
    for run, size in sizes.items():
        starts[" ".join(run.split(" ")[:least])].add(size)
    hits = []
    for row in rows:
        turns = [m["content"] for m in row["messages"] if m["role"] != "system"]
        its, found = words("\n".join(turns)), {}
        for i, start in enumerate(ngrams(its, least)):
            for size in starts.get(start, ()):
                run = " ".join(its[i : i + size])
                if run in index:
                    found[run] = None  # a dictionary keeps the order, a set does not
        hits.append(list(found))
    return hits


def decontaminate(evaluation: Mapping[str, Sequence[dict]], **settings) -> Rule:
    """Drop what shares text with an evaluation prompt; see `matches`, also for the
    settings.

    The reason shows the text that is shared and the item it is from: read some before
    you believe either a leak or a clean bill. What is paraphrased or translated is not
    found. The default drops too much rather than too little.
    """
    if not isinstance(evaluation, Mapping):
        raise TypeError('evaluation: a mapping such as {"test": rows} of chat rows')

    @over_rows
    def rule(rows: Sequence[dict]) -> list[str]:
        found = [""] * len(rows)
        for m in matches(rows, evaluation, **settings).itertuples():
            part = f"{m.shared} of {m.runs} runs" if m.runs else "all"
            found[m.place] = f"{part} of {m.split} item {m.item!r}: {m.text!r}"
        return found

    return rule


# ---------------------------------------------------------------- diversity


def diversity(
    rows: Sequence[dict], *, on: Part = "answer", budget: int | None = None
) -> pd.DataFrame:
    """How varied the texts are: one line a task, and "all".

    `unique`: share of different texts among all, by their words. `distinct_1`,
    `distinct_2`: different words and pairs of words / all of them (Li et al. 2016).
    `overlap`: the mean over texts of the share of their runs of four words that another
    text has, too (a cheap relative of self-BLEU, Zhu et al. 2018).

    All depend on how much text there is: the longer, the lower distinct-n; the more
    texts, the lower `unique` and the higher `overlap`. Compare only equal amounts:
    `budget` reads, of each task and of all, the first rows up to so many words.
    """
    check_part(on)
    groups = defaultdict(list)
    for row in rows:
        groups[task_of(row)].append(words(text_of(row, on)))
    lines = {task: _diversity(texts, budget) for task, texts in groups.items()}
    lines["all"] = _diversity([words(text_of(row, on)) for row in rows], budget)
    columns = ["texts", "words", "unique", "distinct_1", "distinct_2", "overlap"]
    return pd.DataFrame(lines.values(), index=list(lines), columns=columns)


def _diversity(texts: list[list[str]], budget: int | None) -> list[float]:
    if budget is not None:
        read = list(accumulate(map(len, texts)))
        texts = texts[: bisect_right(read, budget)]

    def share(things: list) -> float:
        return len(set(things)) / len(things) if things else float("nan")

    pairs = [pair for text in texts for pair in ngrams(text, 2)]
    runs = [set(ngrams(text, 4)) for text in texts]
    holders = Counter(run for its in runs for run in its)
    overlaps = [sum(holders[run] > 1 for run in its) / len(its) for its in runs if its]
    singles = [word for text in texts for word in text]
    return [
        len(texts),
        len(singles),
        share([" ".join(text) for text in texts]),
        share(singles),
        share(pairs),
        sum(overlaps) / len(overlaps) if overlaps else float("nan"),
    ]
