"""How near a text is to the gold text: exact match, token F1, BLEU, ROUGE-L.

These compare strings. A right answer in other words scores low, a wrong one in nearly
the same words ("12 days" for "21 days") scores high: read them beside a verifier.
`gold` is one text or a list of texts that are all right; the best one counts.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import pandas as pd

from ..data.text import words

_ARTICLE = re.compile(r"\b(a|an|the)\b")

Gold = str | Sequence[str]


def normalise(text: str) -> str:
    """Lower case, no punctuation, no a/an/the, single spaces (Rajpurkar et al. 2016).

    On English the same as SQuAD's own script; punctuation of other scripts goes too.
    Full stops vanish inside numbers as well: "1.5" and "15" become equal.
    """
    text = unicodedata.normalize("NFC", text).lower()
    kept = (c for c in text if not _is_punctuation(c))
    return " ".join(_ARTICLE.sub(" ", "".join(kept)).split())


def _is_punctuation(character: str) -> bool:
    # ASCII punctuation includes signs such as $ and +, as in SQuAD's script.
    return character in string.punctuation or unicodedata.category(character)[0] == "P"


def exact_match(answer: str, gold: Gold) -> bool:
    """Whether answer and gold are the same after `normalise`."""
    return normalise(answer) in map(normalise, _all(gold))


def token_f1(answer: str, gold: Gold) -> float:
    """Harmonic mean of precision and recall over words (Rajpurkar et al. 2016).

    Words are what spaces separate after `normalise`, and count as often as they occur.
    Two texts without words are equal: 1.
    """
    return max(_f1(normalise(answer).split(), normalise(g).split()) for g in _all(gold))


def _f1(answer: list[str], gold: list[str]) -> float:
    if not answer or not gold:
        return float(answer == gold)
    shared = (Counter(answer) & Counter(gold)).total()
    return 2 * shared / (len(answer) + len(gold))


def rouge_l(answer: str, gold: Gold) -> float:
    """F-measure of the longest common subsequence of words (Lin 2004), by rouge-score.

    Its own tokenizer knows a to z only and gives every Greek or Chinese answer 0, so it
    reads the words of `data.words`; on English the two agree. No stemming.
    """
    return _rouge().score_multi(_all(gold), answer)["rougeL"].fmeasure


@cache
def _rouge():
    from rouge_score.rouge_scorer import RougeScorer  # takes two seconds to import
    from rouge_score.tokenizers import Tokenizer

    class Words(Tokenizer):
        def tokenize(self, text):
            return words(text)

    return RougeScorer(["rougeL"], tokenizer=Words())


class Bleu(NamedTuple):
    """Corpus BLEU from 0 to 100, and the settings to be quoted with it."""

    score: float
    signature: str


def bleu(
    answers: Sequence[str], golds: Sequence[Gold], *, tokenize: str = "13a"
) -> Bleu:
    """BLEU of all answers together (Papineni et al. 2002), by sacrebleu (Post 2018).

    It counts runs of one to four words over the whole corpus, so it is not a mean over
    answers, and it says little about a few short ones. Scores compare only where the
    signatures are equal. `tokenize`: sacrebleu's name of a tokenizer, for instance
    "zh" for Chinese. Raises `ValueError` for unequal lengths or no answers.
    """
    from sacrebleu.metrics import BLEU

    references = [_all(gold) for gold in golds]
    if len(answers) != len(references) or not references:
        raise ValueError(
            f"{len(answers)} answers, {len(references)} golds: give one gold an answer"
        )
    most = max(map(len, references))
    streams = [[r[i] if i < len(r) else None for r in references] for i in range(most)]
    metric = BLEU(tokenize=tokenize)
    score = metric.corpus_score(list(answers), streams).score
    return Bleu(float(score), str(metric.get_signature()))


def text_scores(answers: Sequence[str], golds: Sequence[Gold]) -> pd.DataFrame:
    """`exact`, `f1` and `rouge_l` of every answer, from 0 to 1, one row each."""
    pairs = list(zip(answers, golds, strict=True))
    return pd.DataFrame(
        {
            "exact": [float(exact_match(*pair)) for pair in pairs],
            "f1": [token_f1(*pair) for pair in pairs],
            "rouge_l": [rouge_l(*pair) for pair in pairs],
        }
    )


def _all(gold: Gold) -> list[str]:
    golds = [gold] if isinstance(gold, str) else list(gold)
    if not golds or not all(isinstance(text, str) for text in golds):
        raise ValueError(f"gold is a text or a list of texts, not {gold!r}")
    return golds
